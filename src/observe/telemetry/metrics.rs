//! Counts and measures requests and their events, through the `metrics` facade.

use std::time::Duration;

use ::metrics::{
    Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use http::Method;
use reqwest::Url;

use crate::breaker::{BreakerState, StateChange};
use crate::host::fleet::advice::FleetState;
use crate::host::limit::LimitUse;
use crate::observe::event::Event;
use crate::observe::info::FleetInfo;
use crate::observe::listeners::Observer;
use crate::observe::telemetry::labels::{Names, OTHER, known, name, result, source};
use crate::outcome::AttemptKind;
use crate::retry::decision::WaitSource;

/// Counts and measures requests and their events, for the recorder of the
/// [`metrics`](https://docs.rs/metrics) facade that the program installs.
///
/// | metric | kind | labels | meaning |
/// |---|---|---|---|
/// | `resilient_attempts_total` | counter | `host`, `method`, `result` | attempts that ended, or were `superseded` in a race with a hedge; not those that the caller dropped |
/// | `resilient_attempt_duration_seconds` | histogram | `host`, `method`, `result` | how long an attempt took, to the response head or the failure |
/// | `resilient_retries_total` | counter | `host`, `reason` | retries, by the result of the attempt before |
/// | `resilient_wait_seconds` | histogram | `host`, `source` | waits before retries, at gate and breaker, for a token and for limits |
/// | `resilient_requests_total` | counter | `host`, `ended` | requests that ended, by `success` or why they were given up |
/// | `resilient_request_duration_seconds` | histogram | `host`, `ended` | how long a request took, with its retries and waits |
/// | `resilient_attempts_per_request` | histogram | `host` | how many attempts a request took |
/// | `resilient_rejections_total` | counter | `host`, `by` | times a breaker (`circuit_open`), a gate (`rate_limited`) or a limit of the client (`limited`) refused to send |
/// | `resilient_breaker_state` | gauge | `key`, `state` | 1 for the state a breaker is in, 0 for the others; none before its first change |
/// | `resilient_breaker_changes_total` | counter | `key`, `to`, `why` | changes of a breaker's state |
/// | `resilient_fleet_state` | gauge | `key`, `state` | 1 for the state of the [fleet](crate::fleet)'s breaker of a host, as this node sees it: `unknown` without its store; none before its first change |
/// | `resilient_fleet_changes_total` | counter | `key`, `to` | changes of that state |
/// | `resilient_fleet_nodes` | gauge | | nodes of the fleet at the last change |
/// | `resilient_budget_tokens` | gauge | `host` | retries left in the budget when it was last asked |
/// | `resilient_budget_refusals_total` | counter | `host` | retries not made because the budget was empty |
/// | `resilient_concurrency_limit` | gauge | `host` | permits of the concurrency limit when an attempt last started, or the limit changed |
/// | `resilient_concurrency_in_flight` | gauge | `host` | permits in use when an attempt last started |
/// | `resilient_concurrency_queued` | gauge | `host` | requests without a permit when an attempt last started |
/// | `resilient_gate_closings_total` | counter | `host` | times a response closed a gate, or for longer |
/// | `resilient_hedges_total` | counter | `host`, `result` | hedges `started`, and of those the ones whose result counted (`won`) or did not (`lost`); neither if the caller dropped the request |
/// | `resilient_hedge_refusals_total` | counter | `host`, `why` | hedges that were due and refused |
/// | `resilient_hedge_delay_seconds` | gauge | `host` | the delay of the last hedge |
/// | `resilient_failovers_total` | counter | `host`, `from` | attempts that went to another endpoint than the one before, `from` |
/// | `resilient_download_breaks_total` | counter | `host`, `next` | downloads that broke off, by whether they go on (`resume`) or start over (`restart`) |
///
/// - `result`, `reason`: a status such as `503`, or a [`FailureKind`](crate::FailureKind) such as
///   `timeout`. A retry that a breaker rejects after its wait is counted in rejections too, and the
///   next one with the reason `circuit_open`.
/// - `source`: `backoff`, `budget`, `circuit_breaker`, `failover`, `fleet`, `fleet_gate`, `gate`, `hint`,
///   `immediate`, `limit` or `rate`.
/// - `ended`: a [`StopReason`](crate::StopReason).
/// - `state`, `to`: a [`BreakerState`](crate::BreakerState); in the metrics of a fleet, a
///   [`FleetState`](crate::fleet::FleetState).
/// - `why`: a [`ChangeReason`](crate::ChangeReason), or a [`HedgeRefusal`](crate::HedgeRefusal).
///
/// All of them carry the labels of [`client`](Self::client) and [`label`](Self::label) as well.
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
/// OpenTelemetry for the duration of requests, [`REQUEST_BUCKETS`](Self::REQUEST_BUCKETS) go on to
/// minutes, for requests with their waits; with `metrics-exporter-prometheus`:
///
/// ```
/// use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
/// use reqwest_resilient::telemetry::MetricsObserver;
///
/// fn exporter() -> Result<PrometheusBuilder, BuildError> {
///     PrometheusBuilder::new()
///         .set_buckets_for_metric(
///             Matcher::Full(MetricsObserver::ATTEMPT_DURATION.into()),
///             MetricsObserver::DURATION_BUCKETS,
///         )?
///         .set_buckets_for_metric(
///             Matcher::Full(MetricsObserver::REQUEST_DURATION.into()),
///             MetricsObserver::REQUEST_BUCKETS,
///         )?
///         .set_buckets_for_metric(
///             Matcher::Full(MetricsObserver::WAIT.into()),
///             MetricsObserver::WAIT_BUCKETS,
///         )
/// }
/// # exporter().unwrap();
/// ```
///
/// Create the observer after the exporter is installed, so that the exporter gets the descriptions
/// of the metrics. Clones share the names of hosts: give clients that report together clones of
/// one. Clones may differ in their labels:
///
/// ```
/// use reqwest_resilient::telemetry::MetricsObserver;
///
/// let observer = MetricsObserver::new().label("region", "eu");
/// let (payments, search) = (observer.clone().client("payments"), observer.client("search"));
/// # drop((payments, search));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MetricsObserver {
    hosts: Names,
    keys: Names,
    /// Labels of all metrics, without repeated names.
    constant: Vec<Label>,
}

impl MetricsObserver {
    /// The name of the histogram of attempts.
    pub const ATTEMPT_DURATION: &str = "resilient_attempt_duration_seconds";

    /// The name of the histogram of requests, with their retries and waits.
    pub const REQUEST_DURATION: &str = "resilient_request_duration_seconds";

    /// The name of the histogram of waits.
    pub const WAIT: &str = "resilient_wait_seconds";

    /// The name of the histogram of attempts a request takes.
    pub const ATTEMPTS_PER_REQUEST: &str = "resilient_attempts_per_request";

    /// OpenTelemetry's bucket bounds for the duration of HTTP requests, in seconds.
    pub const DURATION_BUCKETS: &[f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// Bucket bounds for requests with their waits, in seconds.
    pub const REQUEST_BUCKETS: &[f64] =
        &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0];

    /// Bucket bounds for waits, in seconds: from a first backoff to the longest wait by default.
    pub const WAIT_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

    /// Creates the observer, and describes the metrics to the installed recorder.
    pub fn new() -> Self {
        let (count, seconds) = (Unit::Count, Unit::Seconds);
        describe_counter!(ATTEMPTS, count, "Attempts");
        describe_histogram!(Self::ATTEMPT_DURATION, seconds, "How long an attempt took");
        describe_counter!(RETRIES, count, "Retries by the result of the attempt before");
        describe_histogram!(Self::WAIT, seconds, "Waits before retries, at gates and limits");
        describe_counter!(REQUESTS, count, "Requests by what ended them");
        describe_histogram!(
            Self::REQUEST_DURATION,
            seconds,
            "How long a request took, with retries"
        );
        describe_histogram!(Self::ATTEMPTS_PER_REQUEST, count, "Attempts a request took");
        describe_counter!(REJECTIONS, count, "Times a breaker, gate or limit refused to send");
        describe_gauge!(LIMIT, count, "Permits of a concurrency limit");
        describe_gauge!(IN_FLIGHT, count, "Permits of a concurrency limit in use");
        describe_gauge!(QUEUED, count, "Requests that wait for a permit");
        describe_gauge!(BREAKER_STATE, count, "1 for the state a circuit breaker is in");
        describe_counter!(BREAKER_CHANGES, count, "Changes of a circuit breaker's state");
        describe_gauge!(FLEET_STATE, count, "1 for the state of a fleet's breaker");
        describe_counter!(FLEET_CHANGES, count, "Changes of a fleet's breaker, as seen here");
        describe_gauge!(FLEET_NODES, count, "Nodes of the fleet at the last such change");
        describe_gauge!(BUDGET_TOKENS, count, "Retries left in the budget");
        describe_counter!(BUDGET_REFUSALS, count, "Retries the budget did not pay for");
        describe_counter!(GATE_CLOSINGS, count, "Times a response closed a gate");
        describe_counter!(HEDGES, count, "Hedges that were started, and that won or lost");
        describe_counter!(HEDGE_REFUSALS, count, "Hedges that were due and refused");
        describe_gauge!(HEDGE_DELAY, seconds, "The delay of the last hedge");
        describe_counter!(FAILOVERS, count, "Attempts that went to another endpoint");
        describe_counter!(DOWNLOAD_BREAKS, count, "Downloads that broke off and go on");
        Self { hosts: Names::default(), keys: Names::default(), constant: vec![] }
    }

    /// Names the client, in a label `client` of all metrics. Default: no such label.
    ///
    /// It tells several clients of one program apart.
    pub fn client(self, name: impl Into<String>) -> Self {
        self.label("client", name)
    }

    /// Adds a label to all metrics, such as the region or the version of the program. A second
    /// value for the same name replaces the first.
    ///
    /// Labels by which the metrics are told apart, those of the [table](Self), keep their meaning:
    /// a label of such a name is ignored, because a label that stands twice spoils a whole scrape.
    /// Names and values belong to the program: never take them from requests.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if OWN_LABELS.contains(&name.as_str()) {
            return self;
        }
        self.constant.retain(|it| it.key() != name);
        // Shared, so that a clone for each metric is a count and no copy.
        let shared = |text: String| SharedString::from_shared(text.into());
        self.constant.push(Label::new(shared(name), shared(value.into())));
        self
    }

    /// Returns the labels of a metric: its own and the constant ones.
    fn labels<const N: usize>(&self, own: [(&'static str, SharedString); N]) -> Vec<Label> {
        let own = own.into_iter().map(|(name, value)| Label::new(name, value));
        own.chain(self.constant.iter().cloned()).collect()
    }

    fn breaker_changed(&self, change: &StateChange) {
        let key = self.keys.of(&change.key);
        for state in STATES {
            let value = if state == change.to { 1.0 } else { 0.0 };
            let labels = self.labels([("key", key.clone()), ("state", known(state.as_str()))]);
            gauge!(BREAKER_STATE, labels).set(value);
        }
        let (to, why) = (known(change.to.as_str()), known(change.why.as_str()));
        let labels = self.labels([("key", key), ("to", to), ("why", why)]);
        counter!(BREAKER_CHANGES, labels).increment(1);
    }

    fn fleet_changed(&self, change: &FleetInfo<'_>) {
        let key = self.keys.of(change.host);
        let to = known(change.to.as_str());
        for state in FleetState::NAMES {
            let value = if state == change.to.as_str() { 1.0 } else { 0.0 };
            let labels = self.labels([("key", key.clone()), ("state", known(state))]);
            gauge!(FLEET_STATE, labels).set(value);
        }
        counter!(FLEET_CHANGES, self.labels([("key", key), ("to", to)])).increment(1);
        gauge!(FLEET_NODES, self.labels([])).set(f64::from(change.nodes));
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
const LIMIT: &str = "resilient_concurrency_limit";
const IN_FLIGHT: &str = "resilient_concurrency_in_flight";
const QUEUED: &str = "resilient_concurrency_queued";
const BREAKER_STATE: &str = "resilient_breaker_state";
const BREAKER_CHANGES: &str = "resilient_breaker_changes_total";
const FLEET_STATE: &str = "resilient_fleet_state";
const FLEET_CHANGES: &str = "resilient_fleet_changes_total";
const FLEET_NODES: &str = "resilient_fleet_nodes";
const BUDGET_TOKENS: &str = "resilient_budget_tokens";
const BUDGET_REFUSALS: &str = "resilient_budget_refusals_total";
const GATE_CLOSINGS: &str = "resilient_gate_closings_total";
const HEDGES: &str = "resilient_hedges_total";
const HEDGE_REFUSALS: &str = "resilient_hedge_refusals_total";
const HEDGE_DELAY: &str = "resilient_hedge_delay_seconds";
const FAILOVERS: &str = "resilient_failovers_total";
const DOWNLOAD_BREAKS: &str = "resilient_download_breaks_total";

/// The labels that metrics have of their own, and those that exporters add to histograms.
const OWN_LABELS: [&str; 15] = [
    "host", "from", "method", "result", "reason", "source", "ended", "by", "key", "state", "to",
    "why", "next", "le", "quantile",
];

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
        if let Event::FleetChanged(change) = event {
            return self.fleet_changed(change);
        }
        let Some((method, url)) = event.request() else { return };
        self.count(event, self.host_of(url.full()), method);
    }
}

impl MetricsObserver {
    fn host_of(&self, url: &Url) -> SharedString {
        match (url.host_str(), url.port()) {
            (Some(host), None) => self.hosts.of(host),
            (Some(host), Some(port)) => self.hosts.of(&format!("{host}:{port}")),
            (None, _) => SharedString::const_str(OTHER),
        }
    }

    fn count(&self, event: &Event<'_>, host: SharedString, method: &Method) {
        match event {
            Event::AttemptStarted(it) => {
                if let Some(usage) = it.limit {
                    self.usage(host, usage);
                }
            }
            Event::Queued(it) => self.waited(host, it.source, it.waited),
            Event::LimitChanged(it) => {
                gauge!(LIMIT, self.labels([("host", host)])).set(f64::from(it.to));
            }
            Event::AttemptEnded(it) | Event::Superseded(it) => {
                if it.kind() == AttemptKind::Hedge {
                    let is_won = matches!(event, Event::AttemptEnded(_));
                    self.hedge(host.clone(), if is_won { "won" } else { "lost" });
                }
                let (method, result) = (known(name(method)), result(it));
                let labels = self.labels([("host", host), ("method", method), ("result", result)]);
                counter!(ATTEMPTS, labels.clone()).increment(1);
                histogram!(Self::ATTEMPT_DURATION, labels).record(it.elapsed());
            }
            Event::HedgeStarted(it) => {
                let labels = self.labels([("host", host.clone())]);
                gauge!(HEDGE_DELAY, labels).set(it.delay.as_secs_f64());
                self.hedge(host, "started");
            }
            Event::HedgeRefused(it) => {
                let labels = self.labels([("host", host), ("why", known(it.why.as_str()))]);
                counter!(HEDGE_REFUSALS, labels).increment(1);
            }
            Event::Rejected(it) => {
                let labels = self.labels([("host", host), ("by", result(it))]);
                counter!(REJECTIONS, labels).increment(1);
            }
            Event::Waiting(it) => {
                self.tokens(&host, it.tokens);
                let labels = self.labels([("host", host.clone()), ("reason", result(it.outcome))]);
                counter!(RETRIES, labels).increment(1);
                self.waited(host, it.source, it.wait);
            }
            Event::HeldBack(it) => self.waited(host, it.source, it.wait),
            Event::GateClosed(_) => {
                counter!(GATE_CLOSINGS, self.labels([("host", host)])).increment(1);
            }
            Event::BudgetRefused(it) => {
                self.tokens(&host, Some(it.tokens));
                counter!(BUDGET_REFUSALS, self.labels([("host", host)])).increment(1);
            }
            Event::FailedOver(it) => {
                let labels = self.labels([("host", host), ("from", self.host_of(it.from.full()))]);
                counter!(FAILOVERS, labels).increment(1);
            }
            Event::Resuming(it) => {
                let next = known(if it.restarts { "restart" } else { "resume" });
                let labels = self.labels([("host", host), ("next", next)]);
                counter!(DOWNLOAD_BREAKS, labels).increment(1);
            }
            Event::Succeeded(it) => {
                self.tokens(&host, it.tokens);
                self.ended(host, "success", it.attempts, it.elapsed);
            }
            Event::GaveUp(it) => {
                self.ended(host, it.stop_reason.as_str(), it.attempts, it.elapsed);
            }
            _ => {}
        }
    }

    fn usage(&self, host: SharedString, usage: LimitUse) {
        let labels = self.labels([("host", host)]);
        gauge!(LIMIT, labels.clone()).set(f64::from(usage.limit));
        gauge!(IN_FLIGHT, labels.clone()).set(f64::from(usage.in_flight));
        gauge!(QUEUED, labels).set(usage.queued as f64);
    }

    fn hedge(&self, host: SharedString, result: &'static str) {
        let labels = self.labels([("host", host), ("result", known(result))]);
        counter!(HEDGES, labels).increment(1);
    }

    fn waited(&self, host: SharedString, by: &WaitSource, wait: Duration) {
        let labels = self.labels([("host", host), ("source", known(source(by)))]);
        histogram!(Self::WAIT, labels).record(wait);
    }

    fn ended(&self, host: SharedString, ended: &'static str, attempts: u32, elapsed: Duration) {
        let labels = self.labels([("host", host.clone())]);
        histogram!(Self::ATTEMPTS_PER_REQUEST, labels).record(attempts);
        let labels = self.labels([("host", host), ("ended", known(ended))]);
        counter!(REQUESTS, labels.clone()).increment(1);
        histogram!(Self::REQUEST_DURATION, labels).record(elapsed);
    }

    fn tokens(&self, host: &SharedString, tokens: Option<f64>) {
        if let Some(tokens) = tokens {
            gauge!(BUDGET_TOKENS, self.labels([("host", host.clone())])).set(tokens);
        }
    }
}
