//! A scripted end of the middleware chain, to test retry settings without a network.
//!
//! Put a [`Script`] behind [`Resilient`](crate::Resilient), pause tokio's clock, and hours of
//! backoff pass in a millisecond, exactly:
//!
//! ```
//! use std::time::Duration;
//! use reqwest_middleware::ClientBuilder;
//! use reqwest_resilient::{Constant, Jitter, Resilient, ResilientConfig};
//! use reqwest_resilient::testing::{Reply, Script};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ResilientConfig::builder()
//!     .backoff(Constant::new(Duration::from_secs(60)))
//!     .jitter(Jitter::None)
//!     .build()?;
//! let script = Script::new([Reply::status(503), Reply::status(200)]);
//! let client = ClientBuilder::new(reqwest::Client::new())
//!     .with(Resilient::new(config))
//!     .with(script.clone())
//!     .build();
//!
//! let start = tokio::time::Instant::now();
//! let response = client.get("https://example.com").send().await?;
//! assert_eq!((response.status().as_u16(), script.sent().len()), (200, 2));
//! assert_eq!(start.elapsed(), Duration::from_secs(60));
//! # Ok(()) }
//! ```

mod chaos;
mod fault;
mod faulty_body;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::common::opaque::opaque;
use crate::observe::redact::RedactedUrl;
use crate::outcome::transport_error::ScriptedError;

pub use self::chaos::{Chaos, ChaosSwitch};
pub use self::fault::{Fault, Injected};
use self::faulty_body::{BodyFault, FaultyBody};

/// The most requests a script remembers; of more, the last ones.
const MOST_SENT: usize = 4_096;

/// A scripted end of the chain: gives its replies in order, the last one for ever. Sends nothing.
///
/// A request's own timeout ends the wait for its reply, as in a client of reqwest.
///
/// Clones share the script and its requests.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::testing::{Reply, Script};
///
/// // The orders are down; every other request gets a 200.
/// let script = Script::new([]).for_path("/orders", [Reply::status(503)]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Script(Arc<Mutex<Played>>);

struct Played {
    /// In the order in which they were added.
    routes: Vec<Route>,
    replies: VecDeque<Reply>,
    sent: VecDeque<SentRequest>,
}

/// The replies to some of the requests.
struct Route {
    requests: Requests,
    replies: VecDeque<Reply>,
}

enum Requests {
    ToHost(String),
    ToPath(String),
}

impl Requests {
    fn contain(&self, url: &Url) -> bool {
        match self {
            Self::ToHost(host) => url.host_str().is_some_and(|it| it.eq_ignore_ascii_case(host)),
            Self::ToPath(path) => url.path() == path,
        }
    }
}

/// A request that reached a [`Script`]. `Debug` shows neither userinfo nor query nor the values of
/// headers nor the body.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientClient;
/// use reqwest_resilient::testing::Script;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let script = Script::new([]);
/// let client = ResilientClient::builder().with(script.clone()).build()?;
/// client.put("https://example.com/a").body("text").send().await?;
/// let sent = &script.sent()[0];
/// assert_eq!((sent.url.path(), sent.body.as_deref()), ("/a", Some(&b"text"[..])));
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct SentRequest {
    /// The time of its arrival, on tokio's clock.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its URL.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, unless it is a stream.
    pub body: Option<Bytes>,
    /// Its own timeout.
    pub timeout: Option<Duration>,
}

impl Script {
    /// Creates a script of these replies. An empty one replies with 200.
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = replies.into_iter().collect();
        let (routes, sent) = (vec![], VecDeque::new());
        Self(Arc::new(Mutex::new(Played { routes, replies, sent })))
    }

    /// Gives these replies to requests to this host, without its port. Of all that fit a request, by
    /// host or by path, those count that were added first.
    pub fn for_host(
        self,
        host: impl Into<String>,
        replies: impl IntoIterator<Item = Reply>,
    ) -> Self {
        self.with_route(Requests::ToHost(host.into()), replies)
    }

    /// Gives these replies to requests to this path, without its query; see
    /// [`for_host`](Self::for_host).
    pub fn for_path(
        self,
        path: impl Into<String>,
        replies: impl IntoIterator<Item = Reply>,
    ) -> Self {
        self.with_route(Requests::ToPath(path.into()), replies)
    }

    fn with_route(self, requests: Requests, replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = replies.into_iter().collect();
        self.lock(|it| it.routes.push(Route { requests, replies }));
        self
    }

    /// Returns every request so far, oldest first; of more than 4,096 the last ones.
    pub fn sent(&self) -> Vec<SentRequest> {
        self.lock(|it| it.sent.iter().cloned().collect())
    }

    async fn answer(&self, request: &Request) -> Result<Response> {
        let reply = self.next(request);
        let limit = request.timeout().copied().filter(|it| *it < reply.latency);
        let wait = limit.unwrap_or(reply.latency);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if limit.is_some() {
            return Err(io_error(io::ErrorKind::TimedOut));
        }
        match reply.gives {
            Gives::Answer { status, headers, body, fault } => {
                let answer = http::Response::builder().status(status).url(request.url().clone());
                let mut answer = answer.body(body).map_err(Error::middleware)?;
                *answer.headers_mut() = headers;
                let Some(fault) = fault else { return Ok(answer.into()) };
                let faulty = |it: Bytes| Body::wrap(FaultyBody::new(it.into(), fault));
                Ok(answer.map(faulty).into())
            }
            Gives::Error(error) => Err(error()),
        }
    }

    fn next(&self, request: &Request) -> Reply {
        let sent = SentRequest {
            at: Instant::now(),
            method: request.method().clone(),
            url: request.url().clone(),
            headers: request.headers().clone(),
            body: request
                .body()
                .map_or_else(|| Some(Bytes::new()), |it| it.as_bytes().map(Bytes::copy_from_slice)),
            timeout: request.timeout().copied(),
        };
        self.lock(|it| {
            if it.sent.len() == MOST_SENT {
                it.sent.pop_front();
            }
            it.sent.push_back(sent);
            let route = it.routes.iter_mut().find(|it| it.requests.contain(request.url()));
            let replies = route.map_or(&mut it.replies, |it| &mut it.replies);
            match replies.len() {
                0 => Reply::status(200),
                1 => replies[0].clone(),
                _ => replies.pop_front().unwrap_or_else(|| Reply::status(200)),
            }
        })
    }

    fn lock<T>(&self, with: impl FnOnce(&mut Played) -> T) -> T {
        with(&mut lock(&self.0))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock(|it| {
            f.debug_struct("Script").field("sent", &it.sent.len()).finish_non_exhaustive()
        })
    }
}

impl fmt::Debug for SentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentRequest")
            .field("at", &self.at)
            .field("method", &self.method)
            .field("url", &RedactedUrl::new(&self.url, None))
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_len", &self.body.as_ref().map(Bytes::len))
            .field("timeout", &self.timeout)
            .finish()
    }
}

#[async_trait::async_trait]
impl Middleware for Script {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        self.answer(&request).await
    }
}

#[cfg(feature = "astral")]
#[async_trait::async_trait]
impl astral_reqwest_middleware::Middleware for Script {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: astral_reqwest_middleware::Next<'_>,
    ) -> astral_reqwest_middleware::Result<Response> {
        self.answer(&request).await.map_err(|error| match error {
            Error::Middleware(error) => error.into(),
            Error::Reqwest(error) => error.into(),
        })
    }
}

/// Builds an error like that of the client's own connection. With the kinds `ConnectionRefused`,
/// `HostUnreachable`, `NetworkUnreachable` and `AddrNotAvailable` it could not connect, so that
/// nothing was sent; with any other it broke while the request was under way.
///
/// An [`io::Error`] that a middleware returns proves nothing about the connection.
pub fn io_error(error: impl Into<io::Error>) -> Error {
    Error::middleware(ScriptedError(error.into()))
}

/// One reply of a [`Script`].
///
/// # Examples
///
/// ```
/// use std::io::ErrorKind;
/// use std::time::Duration;
/// use reqwest_resilient::testing::{Reply, Script};
///
/// let script = Script::new([
///     Reply::io_error(ErrorKind::ConnectionReset),
///     Reply::status(503).after(Duration::from_secs(2)),
///     Reply::status(200).body("done"),
/// ]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Reply {
    latency: Duration,
    gives: Gives,
}

#[derive(Clone)]
enum Gives {
    Answer { status: u16, headers: HeaderMap, body: Bytes, fault: Option<BodyFault> },
    Error(Arc<dyn Fn() -> Error + Send + Sync>),
}

impl Reply {
    /// Builds a response with this status. An invalid status gives an error.
    pub fn status(status: u16) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let gives = Gives::Answer { status, headers, body, fault: None };
        Self { latency: Duration::ZERO, gives }
    }

    /// Builds a failure of the connection of this kind; see [`io_error`].
    pub fn io_error(kind: io::ErrorKind) -> Self {
        Self::error(move || io_error(kind))
    }

    /// Builds a failure with this error.
    pub fn error(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self { latency: Duration::ZERO, gives: Gives::Error(Arc::new(error)) }
    }

    /// Adds a header to a response.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Gives::Answer { headers, .. } = &mut self.gives {
            headers.append(name, value);
        }
        self
    }

    /// Sets the body of a response.
    pub fn body(mut self, with: impl Into<Bytes>) -> Self {
        if let Gives::Answer { body, .. } = &mut self.gives {
            *body = with.into();
        }
        self
    }

    /// Breaks the connection after so many bytes of a body that is longer.
    pub fn body_breaks_after(self, bytes: u64) -> Self {
        self.with_fault(BodyFault::Cut(bytes))
    }

    /// Sends no more after so many bytes of a body that is longer, and keeps the connection.
    pub fn body_stalls_after(self, bytes: u64) -> Self {
        self.with_fault(BodyFault::Stall(bytes))
    }

    fn with_fault(mut self, with: BodyFault) -> Self {
        if let Gives::Answer { fault, .. } = &mut self.gives {
            *fault = Some(with);
        }
        self
    }

    /// Waits this long before the reply.
    pub fn after(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }
}

opaque!(Reply { latency });
