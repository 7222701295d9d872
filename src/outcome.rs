//! What one attempt gave: an answer or a failure, and how far the request got.

use std::{error::Error, fmt, time::Duration};

use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

/// How far a request got before its attempt ended.
///
/// This, not the method, is the first question of a retry: what never reached the server may
/// always be sent again ([RFC 9110 §9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// A response head came back.
    Answered,
    /// Bytes may have reached the application, and nobody can tell what it did with them.
    MaybeProcessed,
    /// The server or the protocol says the request was not acted upon (HTTP/2 REFUSED_STREAM,
    /// GOAWAY beyond the last stream).
    NotProcessed,
    /// No byte of the request left this machine (refused, DNS, connect timeout).
    NotSent,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::MaybeProcessed => "maybe processed",
            Self::NotProcessed => "not processed",
            Self::NotSent => "not sent",
        })
    }
}

/// What kind of failure ended an attempt that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The request could not be built, or its scheme is not spoken. Permanent.
    Builder,
    /// The circuit breaker rejected it: nothing was sent.
    CircuitOpen,
    /// The peer's certificate was refused. Permanent.
    Certificate,
    /// No connection: refused, unreachable, name not resolved, handshake cut.
    Connect,
    /// `max_total_time` ran out while the attempt was under way.
    Deadline,
    /// The answer could not be decoded, though it arrived whole. Permanent.
    Decode,
    /// The connection broke: reset, closed early, stream cancelled.
    Disconnect,
    /// What the peer sent is not HTTP.
    Protocol,
    /// The host's gate is closed: nothing was sent.
    RateLimited,
    /// Too many redirects, or a redirect that may not be followed. Permanent.
    Redirect,
    /// The peer refused this stream before acting on it.
    Refused,
    /// The peer asks for less traffic on the level of the protocol (ENHANCE_YOUR_CALM).
    Throttled,
    /// Time ran out: connect, attempt or client timeout.
    Timeout,
    /// Not an error of the transport: another middleware's, or one nobody could name. Never
    /// retried.
    Other,
}

impl FailureKind {
    /// A short name without spaces, fit for `error.type` and for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::CircuitOpen => "circuit_open",
            Self::Certificate => "certificate",
            Self::Connect => "connect",
            Self::Deadline => "deadline",
            Self::Decode => "decode",
            Self::Disconnect => "disconnect",
            Self::Protocol => "protocol",
            Self::RateLimited => "rate_limited",
            Self::Redirect => "redirect",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure's kind and how far the request had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) delivery: Delivery,
    /// Whether the connection may have been closed by the server while it was idle.
    pub(crate) may_be_stale: bool,
}

impl Failure {
    pub(crate) const fn new(kind: FailureKind, delivery: Delivery) -> Self {
        Self { kind, delivery, may_be_stale: false }
    }
}

/// Everything known about one attempt when it is judged.
///
/// Handed to [`retry_if`](crate::ResilientConfigBuilder::retry_if) and to observers.
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) attempt: u32,
    pub(crate) elapsed: Duration,
    /// Whether the request carries a key by which its server recognises a repeat.
    pub(crate) keyed: bool,
    pub(crate) gave: Gave<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Gave<'a> {
    Answer {
        status: StatusCode,
        headers: &'a HeaderMap,
        url: &'a Url,
        body: Option<&'a [u8]>,
        /// Whether the client was seen to follow a redirect, maybe one to the same url.
        followed: bool,
    },
    Failure(Failure, &'a (dyn Error + 'static)),
}

impl<'a> Outcome<'a> {
    /// The request's method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The whole url the request was made for, userinfo and query included: mind where it goes.
    pub fn url(&self) -> &'a Url {
        self.url
    }

    /// The number of this attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long this attempt took, up to the response head or the failure.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The answer's status, if there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self.gave {
            Gave::Answer { status, .. } => Some(status),
            Gave::Failure(..) => None,
        }
    }

    /// The answer's headers, if there was an answer.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        match self.gave {
            Gave::Answer { headers, .. } => Some(headers),
            Gave::Failure(..) => None,
        }
    }

    /// The answer's whole body, if the config [reads bodies](crate::ResilientConfigBuilder::read_body)
    /// within the attempt and this one fitted its limit.
    pub fn body(&self) -> Option<&'a [u8]> {
        match self.gave {
            Gave::Answer { body, .. } => body,
            Gave::Failure(..) => None,
        }
    }

    /// The url that answered or failed, where that is known: another one than [`url`](Self::url)
    /// after a redirect.
    pub fn answered_by(&self) -> Option<&'a Url> {
        match self.gave {
            Gave::Answer { url, .. } => Some(url),
            Gave::Failure(_, error) => error.downcast_ref::<reqwest::Error>()?.url(),
        }
    }

    /// The kind of failure, if there was no answer.
    pub fn failure(&self) -> Option<FailureKind> {
        match self.gave {
            Gave::Answer { .. } => None,
            Gave::Failure(failure, _) => Some(failure.kind),
        }
    }

    /// The error, if there was no answer.
    pub fn error(&self) -> Option<&'a (dyn Error + 'static)> {
        match self.gave {
            Gave::Answer { .. } => None,
            Gave::Failure(_, error) => Some(error),
        }
    }

    /// How far the request got.
    pub fn delivery(&self) -> Delivery {
        match self.gave {
            Gave::Answer { .. } => Delivery::Answered,
            Gave::Failure(failure, _) => failure.delivery,
        }
    }

    /// Whether it was answered after a redirect.
    pub(crate) fn is_redirected(&self) -> bool {
        // The url of an answer has no fragment.
        let bare = |url: &'a Url| url.as_str().split('#').next();
        matches!(self.gave, Gave::Answer { followed: true, .. })
            || self.answered_by().is_some_and(|it| bare(it) != bare(self.url))
    }

    /// The url that answered, if it is one of another server than the one that was asked.
    pub(crate) fn elsewhere(&self) -> Option<&'a Url> {
        let by = self.answered_by().filter(|it| it.as_str() != self.url.as_str())?;
        let server = |url: &'a Url| (url.scheme(), url.host(), url.port_or_known_default());
        (server(by) != server(self.url)).then_some(by)
    }

    /// Whether time ran out: a connect, attempt or client timeout, or the deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self.failure(), Some(FailureKind::Timeout | FailureKind::Deadline))
    }

    /// Whether no connection could be made.
    pub fn is_connect(&self) -> bool {
        self.failure() == Some(FailureKind::Connect)
    }
}

impl fmt::Debug for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome(attempt {}: {self})", self.attempt)
    }
}

/// `status 503` or `disconnect (maybe processed)`: never the url, never the error's own text.
impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gave {
            Gave::Answer { status, .. } => write!(f, "status {}", status.as_u16()),
            Gave::Failure(failure, _) => write!(f, "{} ({})", failure.kind, failure.delivery),
        }
    }
}
