//! The one error of this crate.

mod text;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::{error::Error, fmt, mem, time::Duration};

use http::{Method, StatusCode};
use reqwest::{Response, Url};

use crate::breaker::CircuitOpen;
pub(crate) use crate::common::fault::BoxError;
use crate::common::fault::BuildError;
use crate::common::path_redactor::PathRedactor;
use crate::host::gate::RateLimited;
use crate::host::limit::Limited;
use crate::host::mirrors::EndpointsUnavailable;
use crate::observe::attempt_log::AttemptLog;
use crate::observe::history::History;
use crate::observe::invalid::InvalidPart;
use crate::observe::message::{self, Elapsed, TimeLimit};
use crate::observe::redact::{self, RedactedUrl};
use crate::observe::redacted_source::RedactedSource;
use crate::outcome::FailureKind;
use crate::retry::decision::StopReason;

/// A request that did not succeed: the request, its attempts, and why it ended.
///
/// [`send_resilient`](crate::RequestBuilderExt::send_resilient) returns it for everything but a
/// status below 400. `Resilient` itself raises it only for its own decisions, inside
/// `reqwest_middleware::Error::Middleware`, where [`HttpRequestError::find`] finds it.
///
/// # Secrets
///
/// `Display`, `Debug` and the chain of [`source`](Error::source) show neither userinfo nor query of
/// any URL, and of paths only what [`redact_path`](crate::ResilientConfigBuilder::redact_path)
/// leaves. A source with such a secret in its text is replaced by its redacted text; all others
/// keep their types.
///
/// # The cause
///
/// The cause is once in the chain. `Display` has it where this crate decided and there is no
/// source: a rejection ([`circuit_open`](Self::circuit_open),
/// [`rate_limited`](Self::rate_limited), [`limited`](Self::limited)), or the end of
/// `max_total_time`, `attempt_timeout` or `stall_timeout`. Otherwise the sources have it, and
/// `Display` names the kind. The alternate form, `{error:#}`, has all in one line for logs without
/// sources.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) {
/// use reqwest_resilient::RequestBuilderExt;
///
/// if let Err(error) = client.get("https://api.example.com/?token=hunter2").send_resilient().await {
///     // GET request to https://api.example.com/ failed after 4 attempts: connection refused
///     eprintln!("{error:#}");
/// }
/// # }
/// ```
pub struct HttpRequestError {
    inner: Box<(Inner, Sources)>,
}

pub(crate) struct Inner {
    pub(crate) method: Option<Method>,
    pub(crate) url: Option<Url>,
    pub(crate) stop: StopReason,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    pub(crate) history: History,
    pub(crate) redact_path: Option<PathRedactor>,
    pub(crate) cause: Cause,
    /// The log of the request, which identifies it.
    pub(crate) log: Option<AttemptLog>,
}

impl Inner {
    /// Builds the error of a request from outside the loop, by its log.
    pub(crate) fn logged(
        method: Option<Method>,
        url: Option<Url>,
        cause: Cause,
        log: &AttemptLog,
    ) -> Self {
        let history = log.history();
        let stop = history.stop_reason().unwrap_or(StopReason::Final);
        let (attempts, elapsed) = (history.total(), log.elapsed());
        let redact_path = log.redact_path();
        Self {
            method,
            url,
            stop,
            attempts,
            elapsed,
            history,
            redact_path,
            cause,
            log: Some(log.clone()),
        }
    }

    /// Redacts the cause, and returns the chain of sources that has it.
    fn redact(&mut self) -> Sources {
        let Self { url, redact_path, cause, .. } = self;
        let Cause::Failure(kind, error) = cause else { return Sources::None };
        if message::is_own(*kind, error.as_ref()) {
            return Sources::None;
        }
        if error.is::<InvalidPart>() {
            return Sources::Whole;
        }
        let redact_path = redact_path.as_ref();
        let whole = mem::replace(error, Box::new(fmt::Error));
        *error = redact::url_of(whole, url.as_ref(), redact_path);
        match RedactedSource::new(error.as_ref(), url.as_ref(), redact_path) {
            Some(redacted) => Sources::Redacted(redacted),
            None => Sources::Whole,
        }
    }
}

/// The result that the request ended with.
pub(crate) enum Cause {
    Response(Response),
    Failure(FailureKind, BoxError),
}

/// The chain of sources without secrets.
enum Sources {
    /// A decision of this crate, which `Display` tells whole; or a response.
    None,
    /// The errors themselves.
    Whole,
    Redacted(RedactedSource),
}

/// The kind of an [`HttpRequestError`].
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::{ErrorKind, FailureKind};
///
/// if let Err(error) = client.get("https://example.com/").send_resilient().await {
///     match error.kind() {
///         ErrorKind::Status(status) => eprintln!("the server says {status}"),
///         ErrorKind::Failure(FailureKind::Timeout) => eprintln!("too slow"),
///         _ => eprintln!("{error:#}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server responded with this status.
    Status(StatusCode),
    /// There was no response.
    Failure(FailureKind),
}

impl HttpRequestError {
    pub(crate) fn new(mut inner: Inner) -> Self {
        let sources = inner.redact();
        Self { inner: Box::new((inner, sources)) }
    }

    /// Builds the error of a request that could not be built.
    pub(crate) fn unbuilt(error: impl Into<BoxError>) -> Self {
        let cause = Cause::Failure(FailureKind::Builder, error.into());
        Self::new(Inner::logged(None, None, cause, &AttemptLog::new()))
    }

    /// Finds the error of this type within an error of reqwest-middleware, or of its fork (feature
    /// `astral`); or returns the error itself, if it is one.
    ///
    /// It does not look deeper: the sources of a middleware's error may concern another request.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let inside = error.downcast_ref().and_then(|it| match it {
            reqwest_middleware::Error::Middleware(it) => it.downcast_ref(),
            reqwest_middleware::Error::Reqwest(_) => None,
        });
        #[cfg(feature = "astral")]
        let inside = inside.or_else(|| match error.downcast_ref()? {
            astral_reqwest_middleware::Error::Middleware(it) => it.downcast_ref(),
            astral_reqwest_middleware::Error::Reqwest(_) => None,
        });
        inside.or_else(|| error.downcast_ref())
    }

    /// Returns whether it concerns the request with this log: a middleware may return the error of
    /// a request of its own.
    pub(crate) fn is_of(&self, log: &AttemptLog) -> bool {
        self.inner.0.log.as_ref().is_some_and(|it| it.is_same(log))
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match &self.inner.0.cause {
            Cause::Response(response) => ErrorKind::Status(response.status()),
            Cause::Failure(kind, _) => ErrorKind::Failure(*kind),
        }
    }

    /// Returns why no further attempt was made.
    pub fn stop_reason(&self) -> StopReason {
        self.inner.0.stop
    }

    /// Returns whether time ran out: a connect, attempt, stall or client timeout, or
    /// `max_total_time` in an attempt.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind(), ErrorKind::Failure(FailureKind::Timeout | FailureKind::Deadline))
    }

    /// Returns the limit of the settings that cut the last attempt, and its length; `None` for a
    /// timeout of the client or of the request itself.
    pub fn time_limit(&self) -> Option<(TimeLimit, Duration)> {
        self.own_cause().map(|Elapsed { limit, after }| (*limit, *after))
    }

    /// Returns whether no connection could be made.
    pub fn is_connect(&self) -> bool {
        self.kind() == ErrorKind::Failure(FailureKind::Connect)
    }

    /// Returns whether the circuit breaker ended it: by rejecting it, for as long as
    /// [`retry_in`](Self::retry_in) says, or by leaving no time for a retry of the last result.
    pub fn is_circuit_open(&self) -> bool {
        self.inner.0.stop == StopReason::CircuitOpen
    }

    /// Returns whether there were too many requests: the last response was a 429 or a 403 with a
    /// rate limit, or an earlier one had closed the host's gate for longer than this request could
    /// wait. [`retry_in`](Self::retry_in) says for how long, if that is known.
    pub fn is_rate_limited(&self) -> bool {
        let Inner { stop, history, cause, .. } = &self.inner.0;
        *stop == StopReason::RateLimited
            || matches!(cause, Cause::Response(_)) && history.is_rate_limited()
    }

    /// Returns whether a [`ConcurrencyLimit`](crate::ConcurrencyLimit) or a
    /// [`RateLimit`](crate::RateLimit) of the client ended it, before it was sent.
    pub fn is_limited(&self) -> bool {
        self.inner.0.stop == StopReason::Limited
    }

    /// Returns how long until another request makes sense: where breaker, gate or a limit rejected
    /// this one, and where the last response had a retry hint, even one too long for this request. `None` if
    /// the breaker is forced open.
    pub fn retry_in(&self) -> Option<Duration> {
        match (self.circuit_open(), self.rate_limited(), self.limited()) {
            (Some(open), ..) => open.retry_in(),
            (None, Some(limited), _) => Some(limited.retry_in()),
            (None, None, Some(limited)) => limited.retry_in(),
            (None, None, None) => self.inner.0.history.retry_in(),
        }
    }

    /// Returns whether `max_total_time` ended the request.
    pub fn is_deadline(&self) -> bool {
        self.inner.0.stop == StopReason::Deadline
    }

    /// Returns the request's method; `None` only for a request that could not be built.
    pub fn method(&self) -> Option<&Method> {
        self.inner.0.method.as_ref()
    }

    /// Returns the whole URL, secrets included: do not log it. `None` only for a request that could
    /// not be built.
    pub fn url(&self) -> Option<&Url> {
        self.inner.0.url.as_ref()
    }

    /// Returns the status of the last response, if the last attempt got one.
    pub fn status(&self) -> Option<StatusCode> {
        self.response().map(Response::status)
    }

    /// Returns the last response, if the last attempt got one. Its body is unread.
    pub fn response(&self) -> Option<&Response> {
        match &self.inner.0.cause {
            Cause::Response(response) => Some(response),
            Cause::Failure(..) => None,
        }
    }

    pub(crate) fn response_mut(&mut self) -> Option<&mut Response> {
        match &mut self.inner.0.cause {
            Cause::Response(response) => Some(response),
            Cause::Failure(..) => None,
        }
    }

    /// Drops the body of the last response, with all that it holds.
    #[cfg(feature = "download")]
    pub(crate) fn release_body(&mut self) {
        if let Some(response) = self.response_mut() {
            let none = || reqwest::Body::default();
            let whole = mem::replace(response, http::Response::new(none()).into());
            *response = crate::common::response::rebuild(whole, |_| none());
        }
    }

    /// Takes the last response out, to read its body.
    ///
    /// # Errors
    ///
    /// This error itself, if the last attempt got no response.
    pub fn into_response(self) -> Result<Response, Self> {
        match self.inner.0.cause {
            Cause::Response(response) => Ok(response),
            Cause::Failure(..) => Err(self),
        }
    }

    /// Returns the breaker's rejection, if that ended the request.
    pub fn circuit_open(&self) -> Option<&CircuitOpen> {
        self.own_cause().or_else(|| self.own_cause().map(|it: &EndpointsUnavailable| &it.open))
    }

    /// Returns the gate's rejection, if that ended the request: the host had asked for a longer
    /// wait than this request could make.
    pub fn rate_limited(&self) -> Option<&RateLimited> {
        self.own_cause()
    }

    /// Returns the rejection by a limit of the client, if that ended the request.
    pub fn limited(&self) -> Option<&Limited> {
        self.own_cause()
    }

    fn own_cause<T: Error + 'static>(&self) -> Option<&T> {
        match &self.inner.0.cause {
            Cause::Failure(_, error) => error.downcast_ref(),
            Cause::Response(_) => None,
        }
    }

    fn redacted_url(&self) -> Option<RedactedUrl<'_>> {
        let Inner { url, redact_path, .. } = &self.inner.0;
        Some(RedactedUrl::new(url.as_ref()?, redact_path.as_ref()))
    }

    /// Returns the number of attempts; 0 if the request was rejected before the first.
    pub fn attempts(&self) -> u32 {
        self.inner.0.attempts
    }

    /// Returns whether an earlier attempt may have been applied: a 412 to a conditional PUT, or a
    /// 404 to a DELETE, may be its trace. Only for methods that change something.
    pub fn may_have_been_applied(&self) -> bool {
        self.inner.0.history.may_have_been_applied()
    }

    /// Returns how long the request took, waits included.
    pub fn elapsed(&self) -> Duration {
        self.inner.0.elapsed
    }

    /// Returns the history of the request, attempt by attempt.
    pub fn history(&self) -> &History {
        &self.inner.0.history
    }
}

// Reading an error after a panic finds nothing half done: nothing of it changes but by `&mut`.
impl UnwindSafe for HttpRequestError {}
impl RefUnwindSafe for HttpRequestError {}

impl From<BuildError> for HttpRequestError {
    fn from(error: BuildError) -> Self {
        Self::unbuilt(error)
    }
}

impl From<HttpRequestError> for reqwest_middleware::Error {
    fn from(error: HttpRequestError) -> Self {
        Self::middleware(error)
    }
}

#[cfg(feature = "astral")]
impl From<HttpRequestError> for astral_reqwest_middleware::Error {
    fn from(error: HttpRequestError) -> Self {
        Self::middleware(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_one_word_and_can_cross_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<HttpRequestError>();
        assert_eq!(size_of::<HttpRequestError>(), size_of::<usize>());
    }
}
