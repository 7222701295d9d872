//! The report of a node to its store.

use std::{fmt, sync::Arc, time::Duration};

/// One node of a fleet: a process, or one of several clients in it.
///
/// Random, so that a process that restarts is a new node; the old one is forgotten after 10 s.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::fleet::NodeId;
///
/// assert_eq!(NodeId::new(0xfe).to_string(), "00000000000000fe");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// Builds the id of a node from its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The counts of one node for one host since its last exchange.
///
/// All numbers are deltas. A report whose counts are all zero only asks for advice: its node does not
/// count among those that the opening rule asks for.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::fleet::HostReport;
///
/// let mut report = HostReport::new("https://api.example.com");
/// (report.ok, report.failed) = (3, 40);
/// report.votes_failing = true;
/// assert!(report.counts());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HostReport {
    /// The host: scheme, name and port, never userinfo, path or query.
    pub host: Arc<str>,
    /// The attempts that succeeded, probes of the fleet not among them.
    pub ok: u32,
    /// The attempts that failed, probes of the fleet not among them. Rate limits (429) are neither.
    pub failed: u32,
    /// `true` if more attempts failed than succeeded: the node's one vote in the opening rule.
    pub votes_failing: bool,
    /// The probes that succeeded while the fleet was half-open.
    pub probes_ok: u32,
    /// The probes that failed while the fleet was half-open.
    pub probes_failed: u32,
    /// The run of the store that the probes belong to; see [`BreakerAdvice::run`].
    ///
    /// [`BreakerAdvice::run`]: crate::fleet::BreakerAdvice::run
    pub run: u64,
    /// The epoch that the probes belong to. Results of another epoch say nothing.
    pub epoch: u64,
    /// The gates that a rate limit closed at this node; at most 8 of each of its clients.
    pub gates: Vec<FleetGate>,
    /// The attempts that the node was asked for, sent or not, where a rate is shared by the fleet.
    pub offered: u32,
}

impl HostReport {
    /// Builds an empty report of `host`.
    pub fn new(host: impl Into<Arc<str>>) -> Self {
        Self {
            host: host.into(),
            ok: 0,
            failed: 0,
            votes_failing: false,
            probes_ok: 0,
            probes_failed: 0,
            run: 0,
            epoch: 0,
            gates: vec![],
            offered: 0,
        }
    }

    /// Returns whether attempts were counted, so that the node is one of those that the opening rule
    /// asks.
    pub fn counts(&self) -> bool {
        self.ok > 0 || self.failed > 0
    }
}

/// A gate of a host that a rate limit closed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::fleet::FleetGate;
///
/// let gate = FleetGate::new(0, Duration::from_secs(60));
/// assert_eq!(gate.remaining, Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetGate {
    /// A hash of the credential or key that the server limits, the same in every process; 0 without
    /// one.
    pub key: u64,
    /// The time until it opens.
    pub remaining: Duration,
}

impl FleetGate {
    /// Builds a gate that opens in `remaining`.
    pub const fn new(key: u64, remaining: Duration) -> Self {
        Self { key, remaining }
    }
}
