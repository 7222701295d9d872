//! The server a test talks to, and its HTTP/1.1 side on raw sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::host::{Host, Script};
use super::log::{Log, Seen};
use super::reply::{Act, End, Read, Step};

/// No wait of a server is longer, so that a mistaken test ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A scripted server on 127.0.0.1. Dropped, it stops, and fails the test if it panicked.
pub(crate) struct Server {
    pub(super) host: Host,
    pub(super) log: Arc<Log>,
}

impl Server {
    /// HTTP/1.1: requests take the steps in the order of their first bytes, whatever their
    /// connection; a step that acts at accept is taken by the connection itself. The last repeats.
    pub(crate) fn h1(script: impl IntoIterator<Item = Step>) -> Self {
        let script = Arc::new(Script::new(script));
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let host = Host::run(move |number, socket| {
            let buffer = BytesMut::new();
            let connection = Connection { number, socket, buffer, log: Arc::clone(&shared) };
            connection.serve(Arc::clone(&script))
        });
        Self { host, log }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.host.addr()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    /// Connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections()
    }

    /// Requests (or streams) of which at least a byte arrived.
    pub(crate) fn begun(&self) -> usize {
        self.log.begun()
    }

    /// Requests that reached the application: read to their last byte.
    pub(crate) fn requests(&self) -> usize {
        self.seen().len()
    }

    /// Requests that reached the application though it had them already.
    pub(crate) fn duplicates(&self) -> usize {
        self.log.duplicates()
    }

    /// Bytes read: of the wire in HTTP/1.1, of bodies in HTTP/2.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The requests that reached the application, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen()
    }
}

/// One connection; `None` from a method means that the client is gone.
struct Connection {
    number: usize,
    socket: TcpStream,
    buffer: BytesMut,
    log: Arc<Log>,
}

impl Connection {
    async fn serve(mut self, script: Arc<Script<Step>>) {
        self.log.connected();
        // Without it a second small write waits 40 ms for the client's acknowledgement.
        self.socket.set_nodelay(true).unwrap();
        if let Some(step) = script.next_if(|step| step.read == Read::AtAccept) {
            self.act(step.acts, None).await;
            return;
        }
        while self.arrival().await.is_some() {
            // A connection opened ahead of need finds a step for the accept only now.
            let step = script.next();
            self.log.began();
            if self.step(step).await.is_none() {
                return;
            }
        }
    }

    async fn step(&mut self, step: Step) -> Option<()> {
        let seen = match step.read {
            Read::AtAccept => None,
            Read::Bytes(count) => {
                self.discard(count).await?;
                None
            }
            Read::Head => {
                self.head().await?;
                None
            }
            Read::Whole => {
                let request = self.request().await?;
                self.log.reached(request.clone());
                Some(request)
            }
        };
        self.act(step.acts, seen).await
    }

    async fn act(&mut self, acts: Vec<Act>, seen: Option<Seen>) -> Option<()> {
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Ask(answer) => {
                    let seen = seen.as_ref().expect("only a whole request is asked about");
                    acts.extend(answer(seen).acts());
                }
                Act::End(end) => {
                    self.end(end).await;
                    return None;
                }
                Act::Idle(patience, farewell) => {
                    if timeout(patience, self.arrival()).await.is_err() {
                        self.send(&farewell).await?;
                        self.end(End::Close).await;
                        return None;
                    }
                }
                Act::Pause(Duration::ZERO) => {}
                Act::Pause(pause) => sleep(pause).await,
                Act::Send(bytes) => self.send(&bytes).await?,
            }
        }
        Some(())
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Close => {
                // Closed with bytes unread the kernel would say RST, not FIN.
                let _ = self.socket.shutdown().await;
                let _ = timeout(Duration::from_millis(100), self.discard(usize::MAX)).await;
            }
            End::Drop => {}
            End::Reset => self.socket.set_zero_linger().unwrap(),
            End::Stall => sleep(PATIENCE).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Option<()> {
        let sent = timeout(PATIENCE, self.socket.write_all(bytes)).await;
        sent.ok().and_then(Result::ok)
    }

    /// Waits for a byte and leaves it where it is.
    async fn arrival(&self) -> Option<()> {
        if !self.buffer.is_empty() {
            return Some(());
        }
        let peeked = timeout(PATIENCE, self.socket.peek(&mut [0])).await;
        peeked.ok().and_then(Result::ok).filter(|&count| count > 0).map(drop)
    }

    async fn discard(&mut self, mut count: usize) -> Option<()> {
        let mut scrap = [0; 8 * 1024];
        while count > 0 {
            let piece = count.min(scrap.len());
            let read = self.socket.read(&mut scrap[..piece]);
            let read = timeout(PATIENCE, read).await.ok()?.ok().filter(|&count| count > 0)?;
            self.log.received(read);
            count -= read;
        }
        Some(())
    }

    async fn fill(&mut self) -> Option<()> {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
        let read = read.ok()?.ok().filter(|&count| count > 0)?;
        self.log.received(read);
        Some(())
    }

    async fn request(&mut self) -> Option<Seen> {
        let mut request = self.head().await?;
        request.body = match request.header("transfer-encoding") {
            Some(_) => self.chunks().await?,
            None => {
                let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
                self.take(length).await?
            }
        };
        Some(request)
    }

    async fn head(&mut self) -> Option<Seen> {
        let line = self.line().await?;
        let mut words = line.split(' ');
        let mut word = || words.next().expect("a request line").to_owned();
        let method = Method::from_bytes(word().as_bytes()).unwrap();
        let path = word();
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").expect("a header line");
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        Some(Seen { connection: self.number, method, path, headers, body: Bytes::new() })
    }

    async fn chunks(&mut self) -> Option<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
            body.extend_from_slice(&self.take(size).await?);
            assert!(body.len() <= MAX_BODY, "body too long");
            assert_eq!(self.line().await?, "", "a chunk ends with its line");
            if size == 0 {
                return Some(body.freeze());
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end + 2);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            assert!(self.buffer.len() <= MAX_HEAD, "line too long");
            self.fill().await?;
        }
    }

    async fn take(&mut self, count: usize) -> Option<Bytes> {
        assert!(count <= MAX_BODY, "body too long");
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Some(self.buffer.split_to(count).freeze())
    }
}
