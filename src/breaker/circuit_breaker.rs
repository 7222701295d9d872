//! A single circuit breaker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{
    config::BreakerConfig,
    handle::BreakerHandle,
    permit::Permit,
    rule_set::RuleSet,
    status::{BreakerSnapshot, BreakerState, CircuitOpen, StateChange},
};
use crate::common::{clock, fault::ConfigError};

/// One circuit breaker: admits calls to a service while it works and rejects them while it is down.
///
/// Cheap to clone; clones share the state. A family of them, one per host or one per key, is a
/// [`CircuitBreakers`](crate::CircuitBreakers).
///
/// # States
///
/// ```text
///                 a rule of the config is broken
///        Closed ────────────────────────────────▶ Open ◀───────────┐
///          ▲                                        │              │
///          │                          open time over, a call comes │
///          │                                        │              │
///          │      enough probes succeed             ▼    a probe fails, or
///          └──────────────────────────────────── HalfOpen   too many do
///                                                          ────────┘
///        by hand, from anywhere:  ForcedOpen   Disabled   MetricsOnly
///        and with reset():        Closed
/// ```
///
/// Every change, and every reset, starts a new generation. A permit belongs to the generation
/// that gave it, and its report in a later one is ignored: the late response of a call that was
/// admitted before the outage is no evidence of recovery. A replaced probe still closes the breaker
/// if it succeeds.
///
/// # In the loop
///
/// [`Resilient`](crate::Resilient) asks the breaker of a request before every attempt. If the
/// breaker may admit it within [`max_open_wait`](crate::ResilientConfigBuilder::max_open_wait) (2 s,
/// or half the attempt timeout if that is less), the request waits: the first one is the probe, and
/// once it has succeeded the others follow, spread over 100 ms. A failed probe costs each waiting
/// request a retry. At most 10,000 requests wait at one breaker.
///
/// Otherwise nothing is sent. The error is
/// [`is_circuit_open`](crate::HttpRequestError::is_circuit_open) and has the reason of the opening;
/// a rejected retry ends with the response or the error of the previous attempt. No request waits
/// at a breaker that is forced open.
///
/// Every attempt reports once: what would be retried and every 5xx as a failure, a rate limit (429,
/// or a 403 that is one) as throttling, any other response as a success, unless
/// [`breaker_health`](crate::ResilientConfigBuilder::breaker_health) says otherwise. After a
/// redirect to another host, the breaker of that host gets the report as well, if the host was asked
/// before. A dropped request reports nothing.
///
/// # Time
///
/// No method reads a clock: the caller passes `now`, of the standard library or of tokio, so that
/// tests can choose it. It is expected
/// not to run backwards; a little disorder between threads does no harm.
///
/// # Example
///
/// ```
/// use std::time::{Duration, Instant};
/// use reqwest_resilient::{BreakerConfig, BreakerState, CircuitBreaker};
///
/// let config =
///     BreakerConfig::consecutive(2).open_for(Duration::from_secs(5)).without_open_jitter();
/// let breaker = CircuitBreaker::new(config)?;
///
/// let now = Instant::now();
/// for _ in 0..2 {
///     let permit = breaker.try_enter(now)?;
///     // … the call fails …
///     permit.failure(now);
/// }
/// let rejected = breaker.try_enter(now).unwrap_err();
/// let message = "circuit breaker is open: 2 failures in a row; retry in 5.0 s";
/// assert_eq!(rejected.to_string(), message);
///
/// let later = now + rejected.retry_in().unwrap();
/// let probe = breaker.try_enter(later)?;
/// probe.success(later);
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    handle: Arc<BreakerHandle>,
}

impl CircuitBreaker {
    /// Creates a breaker of the caller's own, closed.
    ///
    /// # Errors
    ///
    /// All faults of `config` at once, each with its field and value: a time or a count of zero, a
    /// factor below 1, a minimum that the window cannot hold, no rule that opens the breaker.
    pub fn new(config: BreakerConfig) -> Result<Self, ConfigError> {
        ConfigError::unless_none(config.faults())?;
        let rules = RuleSet::new(config);
        Ok(Self { handle: Arc::new(BreakerHandle::new("".into(), &rules, Arc::default())) })
    }

    pub(crate) fn of_handle(handle: Arc<BreakerHandle>) -> Self {
        Self { handle }
    }

    pub(crate) fn handle(&self) -> &Arc<BreakerHandle> {
        &self.handle
    }

    pub(super) fn config(&self) -> Arc<BreakerConfig> {
        self.handle.circuit().config()
    }

    /// Adds an observer of the state changes of this breaker, for all clones; for a breaker of
    /// [`HostStates`](crate::HostStates), of all breakers there.
    ///
    /// It is called once for every change, in order for each breaker, on a thread that changes the
    /// state. No lock is held: it may call back into the breaker.
    /// A panic in it is caught.
    pub fn on_state_change(&self, observer: impl Fn(&StateChange) + Send + Sync + 'static) {
        self.handle.circuit().observers().add(Arc::new(observer));
    }

    /// Admits a call or rejects it.
    ///
    /// Takes no lock while the breaker is closed. Nor does the report of a success while no rule is
    /// near; such successes are counted without contention between threads.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] if the breaker is open, forced open, or half-open with all its probes
    /// under way.
    pub fn try_enter(&self, now: impl Into<Instant>) -> Result<Permit, CircuitOpen> {
        self.handle.enter(clock::Instant::from_std(now.into())).0
    }

    /// Returns the rejection of a call that would come at `now`; `None` if it would be admitted.
    /// Changes nothing.
    pub fn rejection(&self, now: impl Into<Instant>) -> Option<CircuitOpen> {
        self.handle.rejects(clock::Instant::from_std(now.into()))
    }

    /// Returns its state.
    ///
    /// Time alone does not change it: after its open time a breaker stays
    /// [`Open`](BreakerState::Open) until a call arrives and becomes its probe.
    pub fn state(&self) -> BreakerState {
        self.handle.state()
    }

    /// Returns its full state at `now`.
    pub fn snapshot(&self, now: impl Into<Instant>) -> BreakerSnapshot {
        self.handle.snapshot(clock::Instant::from_std(now.into()))
    }

    /// Rejects every call until another of these methods or [`reset`](Self::reset) is called.
    pub fn force_open(&self) {
        self.handle.force_open();
    }

    /// Opens it at `now` for `time`, such as a maintenance: rejects every call, then admits a probe
    /// like after any opening. In place of an open time or a mode that is there.
    pub fn open_for(&self, time: Duration, now: impl Into<Instant>) {
        self.handle.open_for(time, clock::Instant::from_std(now.into()));
    }

    /// Admits every call and records nothing until another of these methods or
    /// [`reset`](Self::reset) is called.
    pub fn disable(&self) {
        self.handle.disable();
    }

    /// Admits every call and keeps counting, but never opens, until another of these methods or
    /// [`reset`](Self::reset) is called: to measure a service before choosing a rule. The
    /// [snapshot](Self::snapshot) tells how often it would have opened, and why.
    pub fn metrics_only(&self) {
        self.handle.metrics_only();
    }

    /// Closes it and clears all counts, also if it is closed already. Reports of calls under way
    /// are then ignored.
    pub fn reset(&self) {
        self.handle.reset();
    }
}
