//! The advice of a store to its nodes.

use std::{sync::Arc, time::Duration};

use crate::host::fleet::report::FleetGate;

/// The state of a fleet's breaker of one host, as of the moment it was sent.
///
/// All times are relative, so that no two clocks are compared.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::fleet::FleetState;
///
/// let open = FleetState::Open { remaining: Duration::from_secs(5) };
/// assert!(open.is_open() && !FleetState::Closed.is_open());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetState {
    /// The node has no fresh advice: its own breaker decides alone.
    #[default]
    Unknown,
    /// The host works, as far as the fleet knows.
    Closed,
    /// The host is down: nodes send nothing.
    Open {
        /// The time until the fleet is half-open.
        remaining: Duration,
    },
    /// Nodes let a few requests through, by chance: about 2 a second in the whole fleet at first.
    HalfOpen {
        /// The time since the open time was over.
        elapsed: Duration,
    },
}

impl FleetState {
    /// The names of all states.
    #[cfg(feature = "metrics")]
    pub(crate) const NAMES: [&'static str; 4] = ["unknown", "closed", "open", "half_open"];

    /// Returns whether nodes send nothing.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Returns its name: `unknown`, `closed`, `open` or `half_open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }
}

/// A store's word on the breaker of one host.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::fleet::{BreakerAdvice, FleetState};
///
/// let open = FleetState::Open { remaining: Duration::from_secs(5) };
/// let mut advice = BreakerAdvice::new(7, 1, open);
/// advice.attempts_per_second = 250.0;
/// assert!(advice.state.is_open());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerAdvice {
    /// A number that the store drew when it began to keep the host, such as after a restart with
    /// nothing in it. Within one run, epochs only grow.
    pub run: u64,
    /// The number of changes of state in this run.
    pub epoch: u64,
    /// The state.
    pub state: FleetState,
    /// The attempts a second of the whole fleet, counted when it opened: nodes probe by chance, and
    /// the chance follows from it. Only needed while it is open or half-open.
    pub attempts_per_second: f64,
}

impl BreakerAdvice {
    /// Builds the advice of a state, without attempts.
    pub const fn new(run: u64, epoch: u64, state: FleetState) -> Self {
        Self { run, epoch, state, attempts_per_second: 0.0 }
    }
}

/// The fleet's word on one host, in response to a report.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::fleet::{BreakerAdvice, FleetState, HostAdvice};
///
/// let breaker = BreakerAdvice::new(7, 0, FleetState::Closed);
/// let mut advice = HostAdvice::new("https://api.example.com", breaker);
/// advice.nodes = 12;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HostAdvice {
    /// The host, as the report names it.
    pub host: Arc<str>,
    /// The breaker of the fleet.
    pub breaker: BreakerAdvice,
    /// The gates that are closed.
    pub gates: Vec<FleetGate>,
    /// The nodes that reported the host within 10 s.
    pub nodes: u32,
    /// The attempts that all nodes were asked for within the last whole second, or an average over
    /// few seconds; `None` if the store does not count them.
    pub offered_per_second: Option<f64>,
}

impl HostAdvice {
    /// Builds the advice on `host`: one node, no gates.
    pub fn new(host: impl Into<Arc<str>>, breaker: BreakerAdvice) -> Self {
        Self { host: host.into(), breaker, gates: vec![], nodes: 1, offered_per_second: None }
    }
}

/// A message that another node's report caused, faster than the next exchange.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::fleet::{FleetGate, FleetNews};
///
/// let gate = FleetGate::new(0, Duration::from_secs(60));
/// let news = FleetNews::GateClosed { host: "https://api.example.com".into(), gate };
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FleetNews {
    /// The breaker of a host changed.
    Breaker {
        /// The host, as reports name it.
        host: Arc<str>,
        /// Its new state.
        breaker: BreakerAdvice,
    },
    /// A node heard of a rate limit.
    GateClosed {
        /// The host, as reports name it.
        host: Arc<str>,
        /// The gate that it closed.
        gate: FleetGate,
    },
}
