//! The requests that a server received.

use std::collections::HashSet;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// A request read to its last byte: the application behind the server may have acted on it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The connection it came by, from 1.
    pub(crate) connection: usize,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the identity of a request across retries: `x-request-id`, or else method, path and
    /// body.
    fn identity(&self) -> (String, Bytes) {
        match self.header("x-request-id") {
            Some(id) => (id.to_owned(), Bytes::new()),
            None => (format!("{} {}", self.method, self.path), self.body.clone()),
        }
    }
}

/// The counters of one server, shared by its connections.
#[derive(Default)]
pub(crate) struct Log(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    connections: usize,
    begun: usize,
    bytes: u64,
    seen: Vec<Seen>,
}

impl Log {
    pub(crate) fn connected(&self) {
        self.0.lock().unwrap().connections += 1;
    }

    pub(crate) fn began(&self) {
        self.0.lock().unwrap().begun += 1;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.0.lock().unwrap().bytes += bytes as u64;
    }

    pub(crate) fn reached(&self, request: Seen) {
        self.0.lock().unwrap().seen.push(request);
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }

    pub(crate) fn begun(&self) -> usize {
        self.0.lock().unwrap().begun
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().unwrap().bytes
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    pub(crate) fn duplicates(&self) -> usize {
        let mut known = HashSet::new();
        self.seen().iter().filter(|request| !known.insert(request.identity())).count()
    }
}
