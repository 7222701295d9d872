//! Faults: in place of a response, before it, or in its body.

use std::sync::Arc;
use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::Error;

use crate::common::opaque::opaque;
use crate::common::response::rebuild;
use crate::testing::faulty_body::{BodyFault, FaultyBody};
use crate::testing::io_error;

/// The longest that [`Fault::hang`] lasts.
const LONGEST_HANG: Duration = Duration::from_secs(24 * 3_600);

/// Left in the extensions of a request that was hit, and of its response: the name of the fault.
///
/// # Examples
///
/// ```
/// use http::Extensions;
/// use reqwest_resilient::testing::Injected;
///
/// fn span_field(extensions: &Extensions) -> Option<&'static str> {
///     extensions.get::<Injected>().map(|it| it.name())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected(pub(super) &'static str);

impl Injected {
    /// Returns the name of the fault: `status`, for example.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// A fault of a [`Chaos`](crate::testing::Chaos): in place of the response, before it, or in its body.
///
/// Faults of the body keep status and headers of the real response, its `Content-Length` included.
/// A request's own timeout ends a wait or a hang, as in a client of reqwest.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::testing::Fault;
///
/// let slow = Fault::latency(Duration::from_secs(2));
/// let late_error = Fault::status(503).after(Duration::from_millis(100));
/// # let _ = (slow, late_error);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Fault {
    pub(super) name: &'static str,
    latency: Duration,
    effect: Effect,
}

#[derive(Clone)]
enum Effect {
    Pass,
    Status(u16, Vec<(HeaderName, HeaderValue)>),
    Error(Arc<dyn Fn() -> Error + Send + Sync>),
    Hang,
    Body(BodyFault),
}

impl Fault {
    fn new(name: &'static str, effect: Effect) -> Self {
        Self { name, latency: Duration::ZERO, effect }
    }

    /// Delays the request, and then sends it.
    pub fn latency(latency: Duration) -> Self {
        Self::new("latency", Effect::Pass).after(latency)
    }

    /// Responds with this status, and sends nothing. An invalid status gives an error.
    pub fn status(status: u16) -> Self {
        Self::new("status", Effect::Status(status, vec![]))
    }

    /// Fails with an error of the connection, and sends nothing. The kinds `ConnectionRefused` and
    /// the like say that nothing was sent, all others that it may have been; see [`io_error`].
    pub fn io_error(kind: io::ErrorKind) -> Self {
        Self::error(move || io_error(kind))
    }

    /// Fails with this error, and sends nothing.
    pub fn error(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self::new("error", Effect::Error(Arc::new(error)))
    }

    /// Gives no response, until a limit of the caller ends the attempt. Lasts a day at most.
    pub fn hang() -> Self {
        Self::new("hang", Effect::Hang)
    }

    /// Breaks the body off after `bytes`, as a reset connection would. A shorter body stays whole.
    pub fn cut_body(bytes: u64) -> Self {
        Self::new("cut_body", Effect::Body(BodyFault::Cut(bytes)))
    }

    /// Sends no more of the body after `bytes`, and keeps the connection open.
    pub fn stall_body(bytes: u64) -> Self {
        Self::new("stall_body", Effect::Body(BodyFault::Stall(bytes)))
    }

    /// Lets the body come at this number of bytes a second, at least 1.
    pub fn slow_body(bytes_per_second: u64) -> Self {
        Self::new("slow_body", Effect::Body(BodyFault::Slow(bytes_per_second.max(1))))
    }

    /// Inverts the byte at this offset of the body.
    pub fn corrupt_body(offset: u64) -> Self {
        Self::new("corrupt_body", Effect::Body(BodyFault::Corrupt(offset)))
    }

    /// Waits this long first.
    pub fn after(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Adds a header to the response of [`status`](Self::status).
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Effect::Status(_, headers) = &mut self.effect {
            headers.push((name, value));
        }
        self
    }

    /// Returns what comes in place of the response; `None` if the request is to be sent.
    pub(super) async fn instead(&self, request: &Request) -> Option<Result<Response, Error>> {
        let hangs = matches!(self.effect, Effect::Hang);
        let wait = self.latency.saturating_add(if hangs { LONGEST_HANG } else { Duration::ZERO });
        let limit = request.timeout().copied().filter(|it| *it < wait);
        let wait = limit.unwrap_or(wait);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if limit.is_some() {
            return Some(Err(io_error(io::ErrorKind::TimedOut)));
        }
        Some(match &self.effect {
            Effect::Pass | Effect::Body(_) => return None,
            Effect::Error(error) => Err(error()),
            Effect::Hang => Err(io_error(io::ErrorKind::TimedOut)),
            Effect::Status(status, headers) => {
                let response = http::Response::builder().status(*status);
                let response = response.url(request.url().clone()).body(Bytes::new());
                response.map_err(Error::middleware).map(|mut response| {
                    response.headers_mut().extend(headers.iter().cloned());
                    self.mark(response.into())
                })
            }
        })
    }

    /// Marks a response as one with a fault, and puts the fault into its body.
    pub(super) fn mark(&self, response: Response) -> Response {
        let mut response = match self.effect {
            Effect::Body(fault) => {
                rebuild(response, |body| Body::wrap(FaultyBody::new(body, fault)))
            }
            _ => response,
        };
        response.headers_mut().insert("x-chaos", HeaderValue::from_static(self.name));
        response.extensions_mut().insert(Injected(self.name));
        response
    }
}

opaque!(Fault { name, latency });
