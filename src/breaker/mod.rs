//! The circuit breaker: when a service is down, stop sending to it, let it recover, and come
//! back by probing.

mod circuit;
mod config;
mod facts;
mod home;
mod keyed;
mod lane;
mod open_time;
mod outage;
mod percent;
mod permit;
mod probing;
mod report;
mod rules;
mod settings;
mod state;
mod sync;
mod waiting;
mod window;

use std::sync::Arc;

use reqwest::Request;

use self::{
    circuit::{Circuit, Common},
    state::Machine,
};
pub use self::{
    config::BreakerConfig,
    facts::{BreakerSnapshot, BreakerState, ChangeReason, CircuitOpen, OpenCause, StateChange},
    keyed::CircuitBreakers,
    percent::Percent,
    permit::Permit,
    report::Health,
    window::{Window, WindowCounts},
};
pub(crate) use self::{home::BreakerHandle, report::Report};
use crate::common::clock::Instant;

/// One circuit breaker: lets calls to a service through while it works and rejects them while it
/// is down.
///
/// Cheap to clone; clones share the state. A family of them, one a host or one a key, is a
/// [`CircuitBreakers`].
///
/// # States
///
/// ```text
///                 a rule of the config says so
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
/// that gave it, and what it reports in a later one is ignored: the late answer of a call that
/// was let through before the outage says nothing about the recovery. A probe that took so long
/// that another one replaced it still closes the breaker if it succeeds.
///
/// # In the loop
///
/// [`Resilient`](crate::Resilient) asks the breaker of a request before every attempt. A first
/// attempt is rejected at once: nothing is sent, and the error says
/// [`is_circuit_open`](crate::HttpRequestError::is_circuit_open). At a retry the open time is a
/// floor for the wait, if it fits into `max_wait_time` and `max_total_time`; if not, the request
/// ends with the answer or the error in hand. Who is rejected after the wait, because another
/// request is the probe, has used up a retry.
///
/// Every attempt reports once: 5xx, lost connections and cut attempts as failures, 429 as
/// throttling, which changes nothing, any other response as a success, unless
/// [`breaker_health`](crate::ResilientConfigBuilder::breaker_health) says otherwise. After a
/// redirect to another host, the breaker of that host takes the report. A request whose future is
/// dropped says nothing.
///
/// # Time
///
/// No method reads a clock: `now` comes from the caller, who has usually read it anyway, and
/// tests can bring whatever they like. It is expected not to run backwards; a little disorder
/// between threads does no harm.
///
/// # Example
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use reqwest_resilient::{BreakerConfig, BreakerState, CircuitBreaker};
/// use tokio::time::Instant;
///
/// let two = NonZeroU32::new(2).unwrap();
/// let config = BreakerConfig::consecutive(two).open_for(Duration::from_secs(5)).without_open_jitter();
/// let breaker = CircuitBreaker::new(config);
///
/// let now = Instant::now();
/// for _ in 0..2 {
///     let permit = breaker.try_enter(now)?;
///     // … the call fails …
///     permit.failure(now);
/// }
/// let rejected = breaker.try_enter(now).unwrap_err();
/// assert_eq!(rejected.to_string(), "circuit breaker is open: 2 failures in a row; retry in 5.0 s");
///
/// let later = now + rejected.retry_in().unwrap();
/// let probe = breaker.try_enter(later)?;
/// probe.success(later);
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// # Ok::<(), reqwest_resilient::CircuitOpen>(())
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    home: Arc<BreakerHandle>,
}

impl CircuitBreaker {
    /// A single breaker, closed.
    pub fn new(config: BreakerConfig) -> Self {
        let common = Arc::new(Common::new(config));
        Self { home: Arc::new(BreakerHandle::new(Circuit::new("", common))) }
    }

    /// A breaker for each scheme, host and port of the requests.
    pub fn per_host(config: BreakerConfig) -> CircuitBreakers {
        CircuitBreakers::per_host(config)
    }

    /// A breaker for each key that `key_of` finds in the requests, such as a tenant or a route.
    pub fn per_key(
        config: BreakerConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> CircuitBreakers {
        CircuitBreakers::per_key(config, key_of)
    }

    /// Adds an observer of state changes, for all clones and, if the breaker is one of a family,
    /// for the whole family.
    ///
    /// It is called once for every change, in order for each breaker, on the thread whose call
    /// changed the state or was changing it meanwhile. No lock is held: it may call back into the
    /// breaker. A panic in it is caught and goes no further.
    pub fn on_state_change(self, observer: impl Fn(&StateChange) + Send + Sync + 'static) -> Self {
        self.common().observe(Arc::new(observer));
        self
    }

    /// Asks for a call to be let through.
    ///
    /// Takes no lock while the breaker is closed. Nor does the report of a success as long as all
    /// is well; it is then counted where threads do not get in each other's way.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] if the breaker is open, forced open, or half-open with all its probes
    /// under way.
    pub fn try_enter(&self, now: Instant) -> Result<Permit, CircuitOpen> {
        self.home.enter(now).0
    }

    /// The rejection of a call that would come at `now`; `None` if it would be let through.
    /// Changes nothing.
    pub fn rejection(&self, now: Instant) -> Option<CircuitOpen> {
        self.home.rejects(now)
    }

    /// What it does with calls.
    ///
    /// It changes when something happens, not with time: an open breaker whose time is over stays
    /// [`Open`](BreakerState::Open) until a call comes and becomes its probe.
    pub fn state(&self) -> BreakerState {
        self.home.circuit().state()
    }

    /// Everything it knows at `now`.
    pub fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        self.home.circuit().snapshot(self.home.permits_out(), now)
    }

    /// Rejects every call until told otherwise by one of the next methods or
    /// [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.home.circuit().command(Machine::force_open);
    }

    /// Lets every call through and records nothing until told otherwise.
    pub fn force_closed(&self) {
        self.home.circuit().command(Machine::disable);
    }

    /// Lets every call through and keeps counting, but never opens, until told otherwise: to see
    /// what a service is like before choosing a rule for it.
    pub fn metrics_only(&self) {
        self.home.circuit().command(Machine::only_measure);
    }

    /// Closes it and forgets all counts, also if it is closed already. Calls under way then
    /// report to nobody.
    pub fn reset(&self) {
        self.home.circuit().command(Machine::reset);
    }

    fn common(&self) -> &Arc<Common> {
        self.home.circuit().common()
    }

    /// The same, under the newest rules.
    fn kept_up(self) -> Self {
        self.home.circuit().keep_up();
        self
    }
}
