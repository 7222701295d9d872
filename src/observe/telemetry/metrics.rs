//! Counts and measures requests and their events, through the `metrics` facade.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::{
    SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use http::Method;

use crate::breaker::{BreakerState, StateChange};
use crate::observe::event::Event;
use crate::observe::listeners::Observer;
use crate::outcome::Outcome;
use crate::retry::decision::WaitSource;

/// Counts and measures requests and their events, for the recorder of the
/// [`metrics`](https://docs.rs/metrics) facade that the program installs.
///
/// | metric | kind | labels | meaning |
/// |---|---|---|---|
/// | `resilient_attempts_total` | counter | `host`, `method`, `result` | attempts that ended; not those that the caller dropped |
/// | `resilient_attempt_duration_seconds` | histogram | `host`, `method`, `result` | how long an attempt took, to the response head or the failure |
/// | `resilient_retries_total` | counter | `host`, `reason` | retries, by the result of the attempt before |
/// | `resilient_wait_seconds` | histogram | `host`, `source` | waits before retries and at the gate |
/// | `resilient_requests_total` | counter | `host`, `ended` | requests that ended, by `success` or why they were given up |
/// | `resilient_attempts_per_request` | histogram | `host` | how many attempts a request took |
/// | `resilient_rejections_total` | counter | `host`, `by` | times a breaker (`circuit_open`) or a gate (`rate_limited`) refused to send |
/// | `resilient_breaker_state` | gauge | `key`, `state` | 1 for the state a breaker is in, 0 for the others; none before its first change |
/// | `resilient_breaker_changes_total` | counter | `key`, `to`, `why` | changes of a breaker's state |
/// | `resilient_budget_tokens` | gauge | `host` | retries left in the budget when it was last asked |
/// | `resilient_budget_refusals_total` | counter | `host` | retries not made because the budget was empty |
/// | `resilient_gate_closings_total` | counter | `host` | times a response closed a gate, or for longer |
/// | `resilient_download_breaks_total` | counter | `host`, `next` | downloads that broke off, by whether they go on (`resume`) or start over (`restart`) |
///
/// - `result`, `reason`: a status such as `503`, or a [`FailureKind`](crate::FailureKind) such as
///   `timeout`. A retry that a breaker rejects after its wait is counted in rejections too, and the
///   next one with the reason `circuit_open`.
/// - `source`: `backoff`, `circuit_breaker`, `gate`, `hint` or `immediate`.
/// - `ended`: a [`StopReason`](crate::StopReason).
/// - `state`, `to`: a [`BreakerState`](crate::BreakerState).
/// - `why`: a [`ChangeReason`](crate::ChangeReason).
///
/// # Bounded
///
/// `host` is the URL's host, with the port where it is not the scheme's own; never userinfo, path
/// or query. The first 64 hosts have a label of their own, all others are `other`, since metrics
/// live as long as the program. The same holds for the keys of breakers. Methods that HTTP does
/// not define are `other` too.
///
/// # Buckets
///
/// The exporter defines the buckets. [`DURATION_BUCKETS`](Self::DURATION_BUCKETS) are those of
/// OpenTelemetry for the duration of requests; with `metrics-exporter-prometheus`:
///
/// ```
/// use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
/// use reqwest_resilient::telemetry::MetricsObserver;
///
/// fn exporter() -> Result<PrometheusBuilder, BuildError> {
///     PrometheusBuilder::new()
///         .set_buckets_for_metric(
///             Matcher::Full(MetricsObserver::ATTEMPT_DURATION.into()),
///             &MetricsObserver::DURATION_BUCKETS,
///         )?
///         .set_buckets_for_metric(
///             Matcher::Full(MetricsObserver::WAIT.into()),
///             &MetricsObserver::WAIT_BUCKETS,
///         )
/// }
/// # exporter().unwrap();
/// ```
///
/// Create the observer after the exporter is installed, so that the exporter gets the descriptions
/// of the metrics. Clones share the names of hosts: give clients that report together clones of
/// one.
#[derive(Clone, Debug)]
pub struct MetricsObserver {
    hosts: Names,
    keys: Names,
}

impl MetricsObserver {
    /// The name of the histogram of attempts.
    pub const ATTEMPT_DURATION: &str = "resilient_attempt_duration_seconds";

    /// The name of the histogram of waits.
    pub const WAIT: &str = "resilient_wait_seconds";

    /// The name of the histogram of attempts a request takes.
    pub const ATTEMPTS_PER_REQUEST: &str = "resilient_attempts_per_request";

    /// OpenTelemetry's bucket bounds for the duration of HTTP requests, in seconds.
    pub const DURATION_BUCKETS: [f64; 14] =
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// Bucket bounds for waits, in seconds: from a first backoff to the longest wait by default.
    pub const WAIT_BUCKETS: [f64; 11] =
        [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

    /// Creates the observer, and describes the metrics to the installed recorder.
    pub fn new() -> Self {
        let (count, seconds) = (Unit::Count, Unit::Seconds);
        describe_counter!(ATTEMPTS, count, "Attempts");
        describe_histogram!(Self::ATTEMPT_DURATION, seconds, "How long an attempt took");
        describe_counter!(RETRIES, count, "Retries by the result of the attempt before");
        describe_histogram!(Self::WAIT, seconds, "Waits before retries and at the gate");
        describe_counter!(REQUESTS, count, "Requests by what ended them");
        describe_histogram!(Self::ATTEMPTS_PER_REQUEST, count, "Attempts a request took");
        describe_counter!(REJECTIONS, count, "Times a breaker or a gate refused to send");
        describe_gauge!(BREAKER_STATE, count, "1 for the state a circuit breaker is in");
        describe_counter!(BREAKER_CHANGES, count, "Changes of a circuit breaker's state");
        describe_gauge!(BUDGET_TOKENS, count, "Retries left in the budget");
        describe_counter!(BUDGET_REFUSALS, count, "Retries the budget did not pay for");
        describe_counter!(GATE_CLOSINGS, count, "Times an answer closed a gate");
        describe_counter!(DOWNLOAD_BREAKS, count, "Downloads that broke off and go on");
        Self { hosts: Names::default(), keys: Names::default() }
    }

    fn breaker_changed(&self, change: &StateChange) {
        let key = self.keys.of(&change.key);
        for state in STATES {
            let value = if state == change.to { 1.0 } else { 0.0 };
            gauge!(BREAKER_STATE, "key" => key.clone(), "state" => state.as_str()).set(value);
        }
        let (to, why) = (change.to.as_str(), change.why.as_str());
        counter!(BREAKER_CHANGES, "key" => key, "to" => to, "why" => why).increment(1);
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

const ATTEMPTS: &str = "resilient_attempts_total";
const RETRIES: &str = "resilient_retries_total";
const REQUESTS: &str = "resilient_requests_total";
const REJECTIONS: &str = "resilient_rejections_total";
const BREAKER_STATE: &str = "resilient_breaker_state";
const BREAKER_CHANGES: &str = "resilient_breaker_changes_total";
const BUDGET_TOKENS: &str = "resilient_budget_tokens";
const BUDGET_REFUSALS: &str = "resilient_budget_refusals_total";
const GATE_CLOSINGS: &str = "resilient_gate_closings_total";
const DOWNLOAD_BREAKS: &str = "resilient_download_breaks_total";

const STATES: [BreakerState; 6] = [
    BreakerState::Closed,
    BreakerState::Open,
    BreakerState::HalfOpen,
    BreakerState::ForcedOpen,
    BreakerState::Disabled,
    BreakerState::MetricsOnly,
];

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::BreakerChanged(change) = event {
            return self.breaker_changed(change);
        }
        let Some((method, url)) = event.request() else { return };
        let host = match (url.full().host_str(), url.full().port()) {
            (Some(host), None) => self.hosts.of(host),
            (Some(host), Some(port)) => self.hosts.of(&format!("{host}:{port}")),
            (None, _) => SharedString::const_str(OTHER),
        };
        let waited = |host, source, wait: Duration| {
            histogram!(Self::WAIT, "host" => host, "source" => source).record(wait);
        };
        let ended = |host: SharedString, ended, attempts: u32| {
            histogram!(Self::ATTEMPTS_PER_REQUEST, "host" => host.clone()).record(attempts);
            counter!(REQUESTS, "host" => host, "ended" => ended).increment(1);
        };
        let tokens = |host, tokens| {
            if let Some(tokens) = tokens {
                gauge!(BUDGET_TOKENS, "host" => host).set(tokens);
            }
        };
        match event {
            Event::AttemptEnded(it) => {
                let labels = [
                    ("host", host),
                    ("method", SharedString::const_str(name(method))),
                    ("result", result(it)),
                ];
                counter!(ATTEMPTS, &labels).increment(1);
                histogram!(Self::ATTEMPT_DURATION, &labels).record(it.elapsed());
            }
            Event::Rejected(it) => {
                counter!(REJECTIONS, "host" => host, "by" => result(it)).increment(1);
            }
            Event::Waiting(it) => {
                tokens(host.clone(), it.tokens);
                let reason = result(it.outcome);
                counter!(RETRIES, "host" => host.clone(), "reason" => reason).increment(1);
                waited(host, source(it.source), it.wait);
            }
            Event::HeldBack(it) => waited(host, source(it.source), it.wait),
            Event::GateClosed(_) => counter!(GATE_CLOSINGS, "host" => host).increment(1),
            Event::BudgetRefused(it) => {
                tokens(host.clone(), Some(it.tokens));
                counter!(BUDGET_REFUSALS, "host" => host).increment(1);
            }
            Event::Resuming(it) => {
                let next = if it.restarts { "restart" } else { "resume" };
                counter!(DOWNLOAD_BREAKS, "host" => host, "next" => next).increment(1);
            }
            Event::Succeeded(it) => {
                tokens(host.clone(), it.tokens);
                ended(host, "success", it.attempts);
            }
            Event::GaveUp(it) => ended(host, it.stop_reason.as_str(), it.attempts),
            _ => {}
        }
    }
}

fn result(outcome: &Outcome<'_>) -> SharedString {
    match outcome.status() {
        Some(status) => SharedString::from_owned(status.as_str().to_owned()),
        None => SharedString::const_str(outcome.failure().map_or(OTHER, |it| it.as_str())),
    }
}

fn source(source: &WaitSource) -> &'static str {
    match source {
        WaitSource::Backoff => "backoff",
        WaitSource::Budget => "budget",
        WaitSource::CircuitBreaker => "circuit_breaker",
        WaitSource::Gate => "gate",
        WaitSource::Hint(_) | WaitSource::HintFrom => "hint",
        WaitSource::Immediate => "immediate",
    }
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::CONNECT => "CONNECT",
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::TRACE => "TRACE",
        _ => OTHER,
    }
}

/// The label of everything that gets no label of its own.
const OTHER: &str = "other";

/// The most names that become labels.
const MOST_NAMES: usize = 64;

/// The first names, kept for ever.
#[derive(Clone, Debug, Default)]
struct Names(Arc<RwLock<HashSet<Arc<str>>>>);

impl Names {
    fn of(&self, name: &str) -> SharedString {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return SharedString::from_shared(Arc::clone(known));
        }
        if known.len() >= MOST_NAMES {
            return SharedString::const_str(OTHER);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have inserted one between the two locks.
        if known.len() >= MOST_NAMES && !known.contains(name) {
            return SharedString::const_str(OTHER);
        }
        let name: Arc<str> = name.into();
        known.insert(Arc::clone(&name));
        SharedString::from_shared(name)
    }
}
