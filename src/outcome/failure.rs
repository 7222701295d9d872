//! The kinds of failure, and how far the request got.

use std::fmt;

use http::StatusCode;

use crate::common::names::names;

/// The progress of a request when its attempt ended.
///
/// It matters more than the method: a request that never reached the server may always be sent
/// again ([RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)).
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Delivery, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_retry(|it| match it.outcome.delivery() {
///         Delivery::MaybeProcessed => eprintln!("{}: sent twice, maybe", it.url),
///         _ => {}
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// A response head arrived.
    Responded,
    /// Bytes may have reached the application, or nothing proves that they did not. Errors that a
    /// middleware made or wrapped count as this.
    MaybeProcessed,
    /// The server or the protocol says the request was not acted upon (HTTP/2 REFUSED_STREAM,
    /// GOAWAY beyond the last stream).
    NotProcessed,
    /// No byte of the request left this machine: the client could not connect (refused, DNS,
    /// connect timeout), or a middleware further in says so by [`NotSent`](crate::NotSent).
    NotSent,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Responded => "responded",
            Self::MaybeProcessed => "maybe processed",
            Self::NotProcessed => "not processed",
            Self::NotSent => "not sent",
        })
    }
}

/// The kind of failure that ended an attempt without a response.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{FailureKind, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .retry_if(|outcome| match outcome.failure() {
///         // This server is switched off at night: no retry finds it.
///         Some(FailureKind::Connect) => false,
///         _ => outcome.default_verdict().is_retry(),
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The request could not be built, or its scheme is not supported. Permanent.
    Builder,
    /// The circuit breaker rejected it: nothing was sent.
    CircuitOpen,
    /// The peer's certificate was refused. Permanent.
    Certificate,
    /// No connection: refused, unreachable, name not resolved, handshake cut.
    Connect,
    /// `max_total_time` ran out while the attempt was under way.
    Deadline,
    /// The response could not be decoded, though it arrived whole. Permanent.
    Decode,
    /// The connection broke: reset, closed early, stream cancelled.
    Disconnect,
    /// A concurrency or rate limit of the client had no room for it: nothing was sent.
    Limited,
    /// The peer does not speak valid HTTP.
    Protocol,
    /// The host's gate is closed: nothing was sent.
    RateLimited,
    /// Too many redirects, or a redirect that may not be followed. Permanent.
    Redirect,
    /// The peer refused this stream before acting on it.
    Refused,
    /// The attempt was dropped, because the response of a [hedge](crate::Hedge), or of the attempt it
    /// was the hedge of, came first. Only in events and histories.
    Superseded,
    /// The peer asks for less traffic at the protocol level (ENHANCE_YOUR_CALM).
    Throttled,
    /// Time ran out: connect, attempt or client timeout.
    Timeout,
    /// The proxy asks for credentials: 407 to CONNECT. Permanent.
    ProxyAuth,
    /// An inner middleware turned a response into an error; its status decides as usual.
    Status,
    /// The server ended the TLS handshake by an alert: it refuses the version, or the client's
    /// certificate or its absence. Permanent.
    Tls,
    /// An inner middleware reports that it sent nothing; see [`NotSent`](crate::NotSent).
    Unsent,
    /// Not an error of the transport: another middleware's, or one without a known type. Never
    /// retried.
    Other,
}

names!(FailureKind {
    Builder: "builder",
    CircuitOpen: "circuit_open",
    Certificate: "certificate",
    Connect: "connect",
    Deadline: "deadline",
    Decode: "decode",
    Disconnect: "disconnect",
    Limited: "limited",
    Protocol: "protocol",
    RateLimited: "rate_limited",
    Redirect: "redirect",
    Refused: "refused",
    Superseded: "superseded",
    Throttled: "throttled",
    Timeout: "timeout",
    ProxyAuth: "proxy_auth",
    Status: "status",
    Tls: "tls",
    Unsent: "unsent",
    Other: "other",
});

/// A failure's kind and how far the request had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) delivery: Delivery,
    /// `true` if the server may have closed the connection while it was idle.
    pub(crate) may_be_stale: bool,
    /// The status of the response that an inner middleware turned into an error.
    pub(crate) status: Option<StatusCode>,
    /// `true` if it concerns the host; `false` if this machine or a middleware failed.
    pub(crate) concerns_host: bool,
}

impl Failure {
    /// Builds a failure of the host or of the way to it.
    pub(crate) const fn new(kind: FailureKind, delivery: Delivery) -> Self {
        Self { kind, delivery, may_be_stale: false, status: None, concerns_host: true }
    }

    /// Builds a failure that does not concern the host.
    pub(crate) const fn local(kind: FailureKind, delivery: Delivery) -> Self {
        Self { concerns_host: false, ..Self::new(kind, delivery) }
    }
}
