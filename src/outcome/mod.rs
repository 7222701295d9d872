//! The outcome of one attempt: a response or a failure, and how far the request got.

pub(crate) mod classify;
mod failure;
pub(crate) mod hint;
pub(crate) mod idempotency;
mod kind;
pub(crate) mod not_sent;
pub(crate) mod statuses;
pub(crate) mod transport_error;
pub(crate) mod verdict;

use std::{error::Error, fmt, time::Duration};

use http::{Extensions, HeaderMap, Method, StatusCode, header};
use reqwest::Url;
use url::Host;

pub(crate) use self::failure::Failure;
pub use self::failure::{Delivery, FailureKind};
pub use self::kind::AttemptKind;
use crate::breaker::Health;
use crate::common::path_redactor::PathRedactor;
use crate::outcome::classify::Verdict;
use crate::outcome::hint::Advice;
use crate::outcome::statuses::Statuses;
use crate::outcome::verdict::RetryVerdict;

/// The result of one attempt, as it is judged.
///
/// Handed to [`retry_if`](crate::ResilientConfigBuilder::retry_if) and to observers.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .retry_if(|outcome| {
///         let is_locked = outcome.status().is_some_and(|it| it == 423);
///         is_locked || outcome.default_verdict().is_retry()
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) attempt: u32,
    pub(crate) kind: AttemptKind,
    pub(crate) elapsed: Duration,
    /// `true` if the request carries an idempotency key.
    pub(crate) keyed: bool,
    /// `true` if a hedge was sent beside the attempt.
    pub(crate) hedged: bool,
    /// Those of the request; `None` where there is no request.
    pub(crate) extensions: Option<&'a Extensions>,
    pub(crate) redact_path: Option<&'a PathRedactor>,
    pub(crate) heard: Heard,
    /// The rules of the request, where a function of the caller's judges.
    pub(crate) defaults: Option<Defaults<'a>>,
    pub(crate) result: OutcomeResult<'a>,
}

/// The retry hints of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) retry_in: Option<Duration>,
    pub(crate) rate_limited: bool,
}

/// The input of the verdict without a function of the caller's.
#[derive(Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub(crate) statuses: &'a Statuses,
    pub(crate) advice: &'a Advice,
}

#[derive(Clone, Copy)]
pub(crate) enum OutcomeResult<'a> {
    Response {
        status: StatusCode,
        headers: &'a HeaderMap,
        url: &'a Url,
        body: Option<&'a [u8]>,
        /// `true` if a redirect led to it, maybe one to the same URL.
        redirected: bool,
    },
    Failure(Failure, &'a (dyn Error + 'static)),
}

impl<'a> Outcome<'a> {
    /// Builds the outcome of a first attempt of which nothing else is known.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn new(method: &'a Method, url: &'a Url, result: OutcomeResult<'a>) -> Self {
        Self {
            method,
            url,
            attempt: 1,
            kind: AttemptKind::First,
            elapsed: Duration::ZERO,
            keyed: false,
            hedged: false,
            extensions: None,
            redact_path: None,
            heard: Heard::default(),
            defaults: None,
            result,
        }
    }

    /// Returns the request's method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// Returns the whole URL of the request, userinfo and query included: do not log it.
    pub fn url(&self) -> &'a Url {
        self.url
    }

    /// Returns the number of this attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the kind of this attempt: the first of its request, a retry or a hedge.
    pub fn kind(&self) -> AttemptKind {
        self.kind
    }

    /// Returns the duration of this attempt, up to the response head or the failure.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the status of the response, if there was one; also where an inner middleware turned
    /// it into an error.
    pub fn status(&self) -> Option<StatusCode> {
        match self.result {
            OutcomeResult::Response { status, .. } => Some(status),
            OutcomeResult::Failure(failure, _) => failure.status,
        }
    }

    /// Returns the headers of the response, if there was one.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        match self.result {
            OutcomeResult::Response { headers, .. } => Some(headers),
            OutcomeResult::Failure(..) => None,
        }
    }

    /// Returns the whole body of the response, if the config
    /// [reads bodies](crate::ResilientConfigBuilder::read_body) and this one fitted the limit.
    pub fn body(&self) -> Option<&'a [u8]> {
        match self.result {
            OutcomeResult::Response { body, .. } => body,
            OutcomeResult::Failure(..) => None,
        }
    }

    /// Returns the URL that responded or failed, if known: after a redirect not [`url`](Self::url).
    pub fn responded_by(&self) -> Option<&'a Url> {
        match self.result {
            OutcomeResult::Response { url, .. } => {
                Some(url).filter(|it| it.host_str() != Some(PLACEHOLDER_HOST))
            }
            OutcomeResult::Failure(_, error) => error.downcast_ref::<reqwest::Error>()?.url(),
        }
    }

    /// Returns the kind of failure, if there was no response.
    pub fn failure(&self) -> Option<FailureKind> {
        match self.result {
            OutcomeResult::Response { .. } => None,
            OutcomeResult::Failure(failure, _) => Some(failure.kind),
        }
    }

    /// Returns the error, if there was no response.
    pub fn error(&self) -> Option<&'a (dyn Error + 'static)> {
        match self.result {
            OutcomeResult::Response { .. } => None,
            OutcomeResult::Failure(_, error) => Some(error),
        }
    }

    /// Returns the extensions of the request, with what the caller and other middleware put there;
    /// `None` only of an outcome without a request.
    pub fn extensions(&self) -> Option<&'a Extensions> {
        self.extensions
    }

    /// Returns the time until a retry by the response, as it came: before any limit of the settings.
    pub fn retry_in(&self) -> Option<Duration> {
        self.heard().retry_in
    }

    /// Returns whether the response was a rate limit: a 429, or a 403 that says so.
    pub fn is_rate_limited(&self) -> bool {
        self.heard().rate_limited
    }

    /// A request that was rejected here heard nothing.
    fn heard(&self) -> Heard {
        match self.failure() {
            Some(FailureKind::CircuitOpen | FailureKind::RateLimited) => Heard::default(),
            _ => self.heard,
        }
    }

    /// Returns how far the request got.
    pub fn delivery(&self) -> Delivery {
        match self.result {
            OutcomeResult::Response { .. } => Delivery::Responded,
            OutcomeResult::Failure(failure, _) => failure.delivery,
        }
    }

    /// Returns the verdict without [`retry_if`](crate::ResilientConfigBuilder::retry_if): by the
    /// request's statuses, by the kind of failure, and by what the response says about retries.
    ///
    /// Of an outcome that an observer is given, the rules are those of the default.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::StatusCode;
    /// use reqwest_resilient::ResilientConfig;
    ///
    /// // What is retried anyway, and 404.
    /// let config = ResilientConfig::builder()
    ///     .retry_if(|it| it.default_verdict().is_retry() || it.status() == Some(StatusCode::NOT_FOUND))
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn default_verdict(&self) -> RetryVerdict {
        (self.judge(|_, verdict, _| verdict) == Verdict::Transient).into()
    }

    /// Returns what the outcome says to the circuit breaker without
    /// [`breaker_health`](crate::ResilientConfigBuilder::breaker_health), by the rules of
    /// [`default_verdict`](Self::default_verdict).
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Health, ResilientConfig};
    ///
    /// // Slow searches are not the fault of the server.
    /// let config = ResilientConfig::builder()
    ///     .breaker_health(|it| match it.default_health() {
    ///         Some(Health::Failure) if it.is_timeout() && it.url().path() == "/search" => None,
    ///         health => health,
    ///     })
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn default_health(&self) -> Option<Health> {
        self.judge(classify::health)
    }

    fn judge<T>(&self, judge: impl FnOnce(&Self, Verdict, &Advice) -> T) -> T {
        match self.defaults {
            Some(Defaults { statuses, advice }) => {
                judge(self, classify::verdict(self, advice, statuses), advice)
            }
            None => {
                let advice = Advice {
                    rate_limited: self.status() == Some(StatusCode::TOO_MANY_REQUESTS),
                    ..Advice::default()
                };
                let statuses = classify::TRANSIENT.into_iter().collect();
                judge(self, classify::verdict(self, &advice, &statuses), &advice)
            }
        }
    }

    /// Returns whether a redirect led to the response: the redirecting server may have acted. A
    /// failure after a redirect has that in its delivery.
    pub(crate) fn is_redirected(&self) -> bool {
        matches!(self.result, OutcomeResult::Response { redirected: true, .. })
    }

    /// Returns the URL that responded, if its server is not the one that was asked.
    pub(crate) fn cross_host_url(&self) -> Option<&'a Url> {
        match self.result {
            OutcomeResult::Response { url, .. } => cross_host_url(self.url, url),
            OutcomeResult::Failure(..) => cross_host_url(self.url, self.responded_by()?),
        }
    }

    /// Returns whether the connection may have been stale: closed by the server while it was idle.
    pub(crate) fn is_stale(&self) -> bool {
        match self.result {
            OutcomeResult::Failure(failure, _) => failure.may_be_stale,
            OutcomeResult::Response { status, headers, .. } => {
                status == StatusCode::REQUEST_TIMEOUT && says_close(headers)
            }
        }
    }

    /// Returns whether other connections of the pool may be as dead as that of this attempt: it was
    /// stale, or silent until a limit.
    pub(crate) fn makes_pool_suspect(&self) -> bool {
        let is_silent = self.failure() == Some(FailureKind::Timeout)
            && self.delivery() == Delivery::MaybeProcessed;
        is_silent || self.is_stale()
    }

    /// Returns whether time ran out: a connect, attempt or client timeout, or the deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self.failure(), Some(FailureKind::Timeout | FailureKind::Deadline))
    }

    /// Returns whether no connection could be made.
    pub fn is_connect(&self) -> bool {
        self.failure() == Some(FailureKind::Connect)
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter().filter_map(|it| it.to_str().ok());
    options.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("close"))
}

/// The host that reqwest puts into the URL of a response without one, which a middleware built.
const PLACEHOLDER_HOST: &str = "no.url.provided.local";

/// Returns the URL that responded, if its host is not the one that was asked.
///
/// `http://a` and `https://a` are one host, as are all schemes of a name on the same port.
#[inline]
pub(crate) fn cross_host_url<'a>(asked: &Url, by: &'a Url) -> Option<&'a Url> {
    fn server(url: &Url) -> (Option<Host<&str>>, Option<u16>) {
        (url.host(), url.port())
    }
    let is_other = by.as_str() != asked.as_str() && server(by) != server(asked);
    (is_other && by.host_str() != Some(PLACEHOLDER_HOST)).then_some(by)
}

/// Returns whether the URL that responded shows a redirect that was not seen.
///
/// A different query shows none: a middleware may have signed the URL.
pub(crate) fn tells_of_redirect(asked: &Url, by: &Url) -> bool {
    fn place(url: &Url) -> (&str, Option<u16>) {
        (url.scheme(), url.port_or_known_default())
    }
    let differs =
        asked.host() != by.host() || place(asked) != place(by) || asked.path() != by.path();
    differs && by.host_str() != Some(PLACEHOLDER_HOST)
}

impl fmt::Debug for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome(attempt {}: {self})", self.attempt)
    }
}

/// `status 503` or `disconnect (maybe processed)`: never the URL, never the error's own text.
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
        check(&Outcome { attempt: 3, elapsed, ..Outcome::new(method, url, result) });
    }

    fn answer<'a>(headers: &'a HeaderMap, url: &'a Url, redirected: bool) -> OutcomeResult<'a> {
        OutcomeResult::Response {
            status: StatusCode::BAD_GATEWAY,
            headers,
            url,
            body: Some(b"x"),
            redirected,
        }
    }

    #[test]
    fn a_response_has_all_but_an_error() {
        let (headers, by) = (HeaderMap::new(), url("http://a.example/"));
        check("http://a.example/", answer(&headers, &by, false), |it| {
            assert_eq!((it.method(), it.url()), (&Method::PUT, &by));
            assert_eq!((it.attempt(), it.elapsed()), (3, Duration::from_secs(2)));
            assert_eq!((it.status(), it.body()), (Some(StatusCode::BAD_GATEWAY), Some(&b"x"[..])));
            assert_eq!((it.headers(), it.responded_by()), (Some(&headers), Some(&by)));
            assert_eq!((it.failure(), it.delivery()), (None, Delivery::Responded));
            assert!(it.error().is_none() && !it.is_timeout() && !it.is_connect());
            assert_eq!(it.to_string(), "status 502");
            assert_eq!(format!("{it:?}"), "Outcome(attempt 3: status 502)");
        });
    }

    #[test]
    fn without_settings_a_429_throttles() {
        let (headers, by) = (HeaderMap::new(), url("http://a.example/"));
        for (status, retries, health) in [
            (StatusCode::OK, false, Health::Success),
            (StatusCode::TOO_MANY_REQUESTS, true, Health::Throttled),
            (StatusCode::SERVICE_UNAVAILABLE, true, Health::Failure),
        ] {
            let (headers, url) = (&headers, &by);
            let result =
                OutcomeResult::Response { status, headers, url, body: None, redirected: false };
            check("http://a.example/", result, |it| {
                let found = (it.default_verdict().is_retry(), it.default_health());
                assert_eq!(found, (retries, Some(health)), "{status}");
            });
        }
    }

    #[test]
    fn a_stale_or_silent_connection_makes_the_others_suspect() {
        let of = |failure: Failure| {
            let mut suspect = false;
            let result = OutcomeResult::Failure(failure, &fmt::Error);
            check("http://a.example/", result, |it| suspect = it.makes_pool_suspect());
            suspect
        };
        let of_kind = |kind, delivery| of(Failure::new(kind, delivery));
        assert!(of_kind(FailureKind::Timeout, Delivery::MaybeProcessed));
        assert!(!of_kind(FailureKind::Timeout, Delivery::NotSent));
        assert!(!of_kind(FailureKind::Disconnect, Delivery::MaybeProcessed));
        let broken = Failure::new(FailureKind::Disconnect, Delivery::MaybeProcessed);
        assert!(of(Failure { may_be_stale: true, ..broken }));
    }

    #[test]
    fn a_request_that_was_rejected_here_heard_nothing() {
        let heard = Heard { retry_in: Some(Duration::from_secs(1)), rate_limited: true };
        for (kind, expected) in [
            (FailureKind::CircuitOpen, Heard::default()),
            (FailureKind::RateLimited, Heard::default()),
            (FailureKind::Disconnect, heard),
        ] {
            let result = OutcomeResult::Failure(Failure::new(kind, Delivery::NotSent), &fmt::Error);
            check("http://a.example/", result, |it| {
                let it = Outcome { heard, ..*it };
                let found = (it.retry_in(), it.is_rate_limited());
                assert_eq!(found, (expected.retry_in, expected.rate_limited), "{kind:?}");
            });
        }
    }

    #[test]
    fn a_failure_has_its_kind_and_the_progress_of_the_request() {
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
                assert_eq!(it.responded_by(), None);
                assert_eq!(it.to_string(), format!("{kind} (not sent)"));
            });
        }
    }

    #[test]
    fn redirects_show_in_origin_and_path() {
        for (asked, by, redirected, cross_host_url) in [
            ("http://a.example/", "http://a.example/", false, false),
            ("http://a.example/#part", "http://a.example/", false, false),
            ("http://a.example:80/", "http://a.example/", false, false),
            ("http://a.example/", "http://a.example/?signature=1", false, false),
            ("http://a.example/", "http://a.example/b", true, false),
            ("http://a.example/", "http://b.example/", true, true),
            ("http://a.example/", "http://a.example:81/", true, true),
            ("http://a.example/", "https://a.example:80/", true, true),
            ("http://a.example/", "https://a.example/", true, false),
            ("http://a.example:8080/", "https://a.example:8080/", true, false),
            ("http://a.example:443/", "https://a.example/", true, true),
        ] {
            let (asked_url, by) = (url(asked), url(by));
            assert_eq!(tells_of_redirect(&asked_url, &by), redirected, "{asked} {by}");
            check(asked, answer(&HeaderMap::new(), &by, redirected), |it| {
                assert_eq!(it.is_redirected(), redirected, "{asked} {by}");
                assert_eq!(it.cross_host_url().is_some(), cross_host_url, "{asked} {by}");
            });
        }
    }

    #[test]
    fn the_url_of_a_built_response_proves_nothing() {
        let built = reqwest::Response::from(http::Response::new(""));
        let asked = url("http://a.example/path");
        assert_eq!(built.url().host_str(), Some(PLACEHOLDER_HOST), "reqwest has another one");
        assert_eq!(cross_host_url(&asked, built.url()), None);
        assert!(!tells_of_redirect(&asked, built.url()));
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
            (ProxyAuth, "proxy_auth"),
            (Status, "status"),
            (Tls, "tls"),
            (Unsent, "unsent"),
            (Other, "other"),
        ] {
            assert_eq!(kind.to_string(), name);
        }
        for (delivery, name) in [
            (Delivery::Responded, "responded"),
            (Delivery::MaybeProcessed, "maybe processed"),
            (Delivery::NotProcessed, "not processed"),
            (Delivery::NotSent, "not sent"),
        ] {
            assert_eq!(delivery.to_string(), name);
        }
    }
}
