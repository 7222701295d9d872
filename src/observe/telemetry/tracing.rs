//! A span around each attempt, and log lines for waits, failures and breakers, through `tracing`.

use http::Method;
use tracing::{Level, Span, field};

use crate::breaker::BreakerState;
use crate::host::fleet::advice::FleetState;
use crate::observe::event::{Event, RequestInfo};
use crate::observe::listeners::{AttemptScope, Observer};
use crate::observe::resend_count::ResendCount;
use crate::observe::telemetry::method::standard_name;
use crate::outcome::Outcome;

/// Logs what happens to requests, and puts a span around each attempt.
///
/// # Spans
///
/// One span named `http_attempt`, level info, for each attempt. It contains the spans and logs of
/// inner middleware and of the client, and is a child of the caller's current span. As
/// [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span)
/// recommends, there is no span for all attempts together; the caller's own span serves for that.
///
/// | field | value |
/// |---|---|
/// | `otel.name` | the method |
/// | `otel.kind` | `client` or `internal`, see [`AttemptSpan`] |
/// | `http.request.method` | the method; `_OTHER` for one that HTTP does not define |
/// | `server.address`, `server.port` | of the request's URL |
/// | `url.full` | the URL without userinfo, query and fragment |
/// | `resilient.endpoint` | the base URL of the endpoint, of those that [`Mirrors`](crate::Mirrors) name |
/// | `http.request.resend_count` | from 1, on every attempt but the first; a download's requests for the rest, and the attempts of a `Resilient` further out, count on: [`ResendCount`](crate::ResendCount) |
/// | `http.response.status_code` | the status, if there was a response |
/// | `error.type` | the status from 400 on, or a [`FailureKind`](crate::FailureKind) such as `timeout`; `_OTHER` for kinds without a name |
/// | `otel.status_code` | `ERROR` where `error.type` is set |
///
/// If the caller drops the request's future, the span has none of the last three: nothing failed. Nor
/// has that of an attempt that lost a race with its [`Hedge`](crate::Hedge), or of such a hedge.
///
/// # With reqwest-tracing
///
/// `reqwest-tracing`, put after [`Resilient`](crate::Resilient), makes a CLIENT span for each
/// attempt by itself. There must be only one: set [`AttemptSpan::Internal`] here, and its span is
/// inside ours, or [`AttemptSpan::Off`]. Its span backend finds the
/// [`ResendCount`](crate::ResendCount) in the extensions.
///
/// # Logs
///
/// | event | level |
/// |---|---|
/// | a wait before a retry, at gate or breaker, for a token or a limit, a gate closed, a limit changed, a budget empty, a hedge sent or refused, an attempt at another endpoint, a download that broke off and goes on | [`retries`](Self::retries), debug |
/// | a request given up after more than one attempt | [`give_ups`](Self::give_ups), warn |
/// | a request given up after one attempt or none | as retries: the caller's error has all details |
/// | a circuit breaker opened | [`breaker_openings`](Self::breaker_openings), warn |
/// | the [fleet](crate::fleet)'s breaker of a host opened, or is unknown because its store is lost | as breaker openings |
/// | a circuit breaker or that of a fleet changed otherwise | info, unless breaker openings are off |
/// | settings replaced by a [`ResilientHandle`](crate::ResilientHandle) | info |
/// | a [`Misuse`](crate::Misuse), once | warn, without this observer as well |
///
/// A rejection has no line of its own: the request that ends by it is given up, or waits. Their
/// message is the event's `Display`, which shows neither userinfo nor query. The target of
/// spans and logs is `reqwest_resilient`.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
/// use reqwest_resilient::telemetry::TracingObserver;
/// use tracing::Level;
///
/// let observer = TracingObserver::new().retries(Level::INFO);
/// let config = ResilientConfig::builder().observer(observer).build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TracingObserver {
    span: AttemptSpan,
    retries: Option<Level>,
    give_ups: Option<Level>,
    breaker_openings: Option<Level>,
}

/// The span around an attempt.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::telemetry::{AttemptSpan, TracingObserver};
///
/// // Another middleware makes the span of the HTTP request.
/// let observer = TracingObserver::new().span(AttemptSpan::Internal);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptSpan {
    /// A span of kind CLIENT: that of the HTTP request. The default.
    #[default]
    Client,
    /// A span of kind INTERNAL, which contains another middleware's CLIENT span.
    Internal,
    /// No span.
    Off,
}

const TARGET: &str = "reqwest_resilient";

impl TracingObserver {
    /// Creates an observer with spans of kind CLIENT and the levels above.
    pub fn new() -> Self {
        Self {
            span: AttemptSpan::Client,
            retries: Some(Level::DEBUG),
            give_ups: Some(Level::WARN),
            breaker_openings: Some(Level::WARN),
        }
    }

    /// Sets the span around an attempt.
    pub fn span(mut self, span: AttemptSpan) -> Self {
        self.span = span;
        self
    }

    /// Sets the level of logs of waits, closed gates and the like; `None` turns them off.
    pub fn retries(mut self, level: impl Into<Option<Level>>) -> Self {
        self.retries = level.into();
        self
    }

    /// Sets the level of logs of requests given up after more than one attempt; `None` turns them
    /// off.
    pub fn give_ups(mut self, level: impl Into<Option<Level>>) -> Self {
        self.give_ups = level.into();
        self
    }

    /// Sets the level of logs of circuit breakers that open; `None` turns logs of all changes off.
    pub fn breaker_openings(mut self, level: impl Into<Option<Level>>) -> Self {
        self.breaker_openings = level.into();
        self
    }

    fn level(&self, event: &Event<'_>) -> Option<Level> {
        match event {
            Event::GaveUp(it) if it.attempts > 1 => self.give_ups,
            Event::BreakerChanged(it) => match it.to {
                BreakerState::Open | BreakerState::ForcedOpen => self.breaker_openings,
                _ => self.breaker_openings.and(Some(Level::INFO)),
            },
            Event::FleetChanged(it) => match it.to {
                FleetState::Open { .. } | FleetState::Unknown => self.breaker_openings,
                _ => self.breaker_openings.and(Some(Level::INFO)),
            },
            // The spans show attempts, and a success is not logged.
            Event::AttemptStarted(_)
            | Event::AttemptEnded(_)
            | Event::Superseded(_)
            | Event::Succeeded(_) => None,
            // Logged at its source, for clients without observers as well.
            Event::Misuse(_) => None,
            // What follows names it: a wait, or the end of the request.
            Event::Rejected(_) => None,
            Event::Reloaded => Some(Level::INFO),
            _ => self.retries,
        }
    }
}

impl Default for TracingObserver {
    fn default() -> Self {
        Self::new()
    }
}

/// Logs at a level known only at runtime: each level has a call site of its own, so that filters by
/// level stay cheap.
macro_rules! log {
    ($level:expr, $($fields:tt)+) => {
        match $level {
            Level::ERROR => tracing::error!(target: TARGET, $($fields)+),
            Level::WARN => tracing::warn!(target: TARGET, $($fields)+),
            Level::INFO => tracing::info!(target: TARGET, $($fields)+),
            Level::DEBUG => tracing::debug!(target: TARGET, $($fields)+),
            Level::TRACE => tracing::trace!(target: TARGET, $($fields)+),
        }
    };
}

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        let Some(level) = self.level(event) else { return };
        match event {
            Event::Waiting(it) => {
                let (wait, source) = (it.wait.as_secs_f64(), field::display(it.source));
                log!(level, attempt = it.attempt, wait, source, "{event}");
            }
            Event::HeldBack(it) => {
                let (wait, source) = (it.wait.as_secs_f64(), field::display(it.source));
                log!(level, wait, source, "{event}");
            }
            Event::Queued(it) => {
                let (wait, source) = (it.waited.as_secs_f64(), field::display(it.source));
                log!(level, wait, source, "{event}");
            }
            Event::GaveUp(it) => {
                let why = it.stop_reason.as_str();
                log!(
                    level,
                    attempts = it.attempts,
                    elapsed = it.elapsed.as_secs_f64(),
                    why,
                    "{event}"
                );
            }
            _ => log!(level, "{event}"),
        }
    }

    fn around_attempt(&self, info: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        let kind = match self.span {
            AttemptSpan::Client => "client",
            AttemptSpan::Internal => "internal",
            AttemptSpan::Off => return None,
        };
        // Fields are computed only if the span is enabled. Numbers are i64, because
        // tracing-opentelemetry makes text of unsigned ones.
        let span = tracing::info_span!(
            target: TARGET,
            "http_attempt",
            otel.name = name(info.method).0,
            otel.kind = kind,
            http.request.method = name(info.method).1,
            server.address = info.url.full().host_str().map(unbracketed),
            server.port = info.url.full().port_or_known_default().map(i64::from),
            url.full = %info.url,
            resilient.endpoint = info.endpoint.map(field::display),
            http.request.resend_count = resend_count(info),
            http.response.status_code = field::Empty,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
        if span.is_disabled() { None } else { Some(Box::new(AttemptSpanScope(span))) }
    }
}

/// Returns a span's name and its method: methods that HTTP does not define are the caller's data.
fn name(method: &Method) -> (&'static str, &'static str) {
    standard_name(method).map_or(("HTTP", "_OTHER"), |it| (it, it))
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn resend_count(info: &RequestInfo<'_>) -> Option<i64> {
    info.extensions.get::<ResendCount>().map(|it| i64::from(it.get()))
}

struct AttemptSpanScope(Span);

impl AttemptScope for AttemptSpanScope {
    fn run(&self, step: &mut dyn FnMut()) {
        self.0.in_scope(step);
    }

    fn end(&self, outcome: &Outcome<'_>) {
        let span = &self.0;
        let status = outcome.status();
        if let Some(status) = status {
            span.record("http.response.status_code", i64::from(status.as_u16()));
        }
        let error = match (status, outcome.failure()) {
            (Some(status), _) if status.as_u16() < 400 => return,
            (Some(status), _) => span.record("error.type", status.as_str()),
            (None, Some(kind)) if kind.as_str() != "other" => {
                span.record("error.type", kind.as_str())
            }
            (None, _) => span.record("error.type", "_OTHER"),
        };
        error.record("otel.status_code", "ERROR");
    }
}
