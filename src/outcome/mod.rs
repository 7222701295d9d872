//! What one attempt gave: an answer or a failure, and how far the request got.

pub(crate) mod classify;
pub(crate) mod hint;
pub(crate) mod idempotency;
pub(crate) mod transport_error;

use std::{error::Error, fmt, time::Duration};

use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;
use url::Host;

use crate::common::path_redactor::PathRedactor;

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
    pub(crate) redact_path: Option<&'a PathRedactor>,
    pub(crate) result: OutcomeResult<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum OutcomeResult<'a> {
    Response {
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
        match self.result {
            OutcomeResult::Response { status, .. } => Some(status),
            OutcomeResult::Failure(..) => None,
        }
    }

    /// The answer's headers, if there was an answer.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        match self.result {
            OutcomeResult::Response { headers, .. } => Some(headers),
            OutcomeResult::Failure(..) => None,
        }
    }

    /// The answer's whole body, if the config [reads bodies](crate::ResilientConfigBuilder::read_body)
    /// within the attempt and this one fitted its limit.
    pub fn body(&self) -> Option<&'a [u8]> {
        match self.result {
            OutcomeResult::Response { body, .. } => body,
            OutcomeResult::Failure(..) => None,
        }
    }

    /// The url that answered or failed, where that is known: another one than [`url`](Self::url)
    /// after a redirect.
    pub fn answered_by(&self) -> Option<&'a Url> {
        match self.result {
            OutcomeResult::Response { url, .. } => Some(url),
            OutcomeResult::Failure(_, error) => error.downcast_ref::<reqwest::Error>()?.url(),
        }
    }

    /// The kind of failure, if there was no answer.
    pub fn failure(&self) -> Option<FailureKind> {
        match self.result {
            OutcomeResult::Response { .. } => None,
            OutcomeResult::Failure(failure, _) => Some(failure.kind),
        }
    }

    /// The error, if there was no answer.
    pub fn error(&self) -> Option<&'a (dyn Error + 'static)> {
        match self.result {
            OutcomeResult::Response { .. } => None,
            OutcomeResult::Failure(_, error) => Some(error),
        }
    }

    /// How far the request got.
    pub fn delivery(&self) -> Delivery {
        match self.result {
            OutcomeResult::Response { .. } => Delivery::Answered,
            OutcomeResult::Failure(failure, _) => failure.delivery,
        }
    }

    /// Whether it was answered after a redirect.
    pub(crate) fn is_redirected(&self) -> bool {
        // The url of an answer has no fragment.
        let bare = |url: &'a Url| url.as_str().split('#').next();
        matches!(self.result, OutcomeResult::Response { followed: true, .. })
            || self.answered_by().is_some_and(|it| bare(it) != bare(self.url))
    }

    /// The url that answered, if it is one of another server than the one that was asked.
    pub(crate) fn cross_host_url(&self) -> Option<&'a Url> {
        cross_host_url(self.url, self.answered_by()?)
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

/// Returns the URL that responded, if it is one of another host than the one that was asked.
///
/// `http://a` and `https://a` are one host, as are all schemes of a name on the same port.
#[inline]
pub(crate) fn cross_host_url<'a>(asked: &Url, by: &'a Url) -> Option<&'a Url> {
    fn server(url: &Url) -> (Option<Host<&str>>, Option<u16>) {
        (url.host(), url.port())
    }
    let is_other = by.as_str() != asked.as_str() && server(by) != server(asked);
    is_other.then_some(by)
}

impl fmt::Debug for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome(attempt {}: {self})", self.attempt)
    }
}

/// `status 503` or `disconnect (maybe processed)`: never the url, never the error's own text.
impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.result {
            OutcomeResult::Response { status, .. } => write!(f, "status {}", status.as_u16()),
            OutcomeResult::Failure(failure, _) => {
                write!(f, "{} ({})", failure.kind, failure.delivery)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn check(asked: &str, result: OutcomeResult<'_>, check: impl FnOnce(&Outcome<'_>)) {
        let elapsed = Duration::from_secs(2);
        let (method, url) = (&Method::PUT, &url(asked));
        check(&Outcome {
            method,
            url,
            attempt: 3,
            elapsed,
            keyed: false,
            redact_path: None,
            result,
        });
    }

    fn answer<'a>(headers: &'a HeaderMap, url: &'a Url, followed: bool) -> OutcomeResult<'a> {
        OutcomeResult::Response {
            status: StatusCode::BAD_GATEWAY,
            headers,
            url,
            body: Some(b"x"),
            followed,
        }
    }

    #[test]
    fn an_answer_tells_all_but_an_error() {
        let (headers, by) = (HeaderMap::new(), url("http://a.example/"));
        check("http://a.example/", answer(&headers, &by, false), |it| {
            assert_eq!((it.method(), it.url()), (&Method::PUT, &by));
            assert_eq!((it.attempt(), it.elapsed()), (3, Duration::from_secs(2)));
            assert_eq!((it.status(), it.body()), (Some(StatusCode::BAD_GATEWAY), Some(&b"x"[..])));
            assert_eq!((it.headers(), it.answered_by()), (Some(&headers), Some(&by)));
            assert_eq!((it.failure(), it.delivery()), (None, Delivery::Answered));
            assert!(it.error().is_none() && !it.is_timeout() && !it.is_connect());
            assert_eq!(it.to_string(), "status 502");
            assert_eq!(format!("{it:?}"), "Outcome(attempt 3: status 502)");
        });
    }

    #[test]
    fn a_failure_tells_its_kind_and_how_far_the_request_got() {
        for (kind, timeout, connect) in [
            (FailureKind::Timeout, true, false),
            (FailureKind::Deadline, true, false),
            (FailureKind::Connect, false, true),
            (FailureKind::Disconnect, false, false),
        ] {
            let result = OutcomeResult::Failure(Failure::new(kind, Delivery::NotSent), &fmt::Error);
            check("http://a.example/", result, |it| {
                assert_eq!((it.failure(), it.delivery()), (Some(kind), Delivery::NotSent));
                assert!(it.error().is_some_and(|it| it.is::<fmt::Error>()));
                assert_eq!((it.status(), it.body(), it.headers()), (None, None, None));
                assert_eq!((it.is_timeout(), it.is_connect()), (timeout, connect));
                assert_eq!((it.answered_by(), it.is_redirected()), (None, false));
                assert_eq!(it.to_string(), format!("{kind} (not sent)"));
            });
        }
    }

    #[test]
    fn redirects_show_in_the_url_or_were_seen() {
        for (asked, by, followed, redirected, cross_host_url) in [
            ("http://a.example/", "http://a.example/", false, false, false),
            ("http://a.example/#part", "http://a.example/", false, false, false),
            ("http://a.example:80/", "http://a.example/", false, false, false),
            ("http://a.example/", "http://a.example/", true, true, false),
            ("http://a.example/", "http://a.example/b", false, true, false),
            ("http://a.example/", "http://b.example/", false, true, true),
            ("http://a.example/", "http://a.example:81/", false, true, true),
            ("http://a.example/", "https://a.example:80/", false, true, true),
            ("http://a.example/", "https://a.example/", false, true, false),
            ("http://a.example:8080/", "https://a.example:8080/", false, true, false),
            ("http://a.example:443/", "https://a.example/", false, true, true),
        ] {
            let by = url(by);
            check(asked, answer(&HeaderMap::new(), &by, followed), |it| {
                assert_eq!(it.is_redirected(), redirected, "{asked} {by}");
                assert_eq!(it.cross_host_url().is_some(), cross_host_url, "{asked} {by}");
            });
        }
    }

    #[test]
    fn a_failure_after_a_redirect_knows_where() {
        let response = http::Response::builder().status(502).body("").unwrap();
        let error = reqwest::Response::from(response).error_for_status().unwrap_err();
        let error = error.with_url(url("http://b.example/"));
        let failure = Failure::new(FailureKind::Disconnect, Delivery::MaybeProcessed);
        check("http://a.example/", OutcomeResult::Failure(failure, &error), |it| {
            assert_eq!(it.answered_by(), error.url());
            assert!(it.is_redirected() && it.cross_host_url().is_some());
        });
    }

    #[test]
    fn failures_and_deliveries_have_their_names() {
        use FailureKind::*;
        for (kind, name) in [
            (Builder, "builder"),
            (CircuitOpen, "circuit_open"),
            (Certificate, "certificate"),
            (Connect, "connect"),
            (Deadline, "deadline"),
            (Decode, "decode"),
            (Disconnect, "disconnect"),
            (Protocol, "protocol"),
            (RateLimited, "rate_limited"),
            (Redirect, "redirect"),
            (Refused, "refused"),
            (Throttled, "throttled"),
            (Timeout, "timeout"),
            (Other, "other"),
        ] {
            assert_eq!(kind.to_string(), name);
        }
        for (delivery, name) in [
            (Delivery::Answered, "answered"),
            (Delivery::MaybeProcessed, "maybe processed"),
            (Delivery::NotProcessed, "not processed"),
            (Delivery::NotSent, "not sent"),
        ] {
            assert_eq!(delivery.to_string(), name);
        }
    }
}
