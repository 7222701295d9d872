//! What a breaker says about itself.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    sync::Arc,
    time::Duration,
};

use crate::breaker::window::WindowCounts;
use crate::common::clock::Instant;

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Lets every call through and watches the results.
    Closed,
    /// Rejects every call until its open time is over. The first call after that is a probe and
    /// makes it half-open; until one comes, it stays open.
    Open,
    /// Lets a few probes through to see whether the service is back.
    HalfOpen,
    /// Rejects every call until someone says otherwise.
    ForcedOpen,
    /// Lets every call through and records nothing.
    Disabled,
    /// Lets every call through and watches the results, but never opens.
    MetricsOnly,
}

impl BreakerState {
    /// A short name without spaces, fit for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

impl Display for BreakerState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What made a breaker change its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeReason {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too many failures among the results in the window.
    FailureRate,
    /// Too many slow calls among those in the window.
    SlowCallRate,
    /// The open time is over and a call came.
    OpenTimeOver,
    /// A probe failed, was throttled or was slow.
    ProbesFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// Someone called a method of the breaker for it.
    Manual,
}

impl ChangeReason {
    /// A short name without spaces, fit for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCallRate => "slow_call_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Manual => "manual",
        }
    }
}

impl Display for ChangeReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change of one breaker's state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateChange {
    /// The breaker's key: scheme, host and port with
    /// [`per_host`](crate::CircuitBreaker::per_host), empty for a single breaker.
    pub key: Arc<str>,
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// What made it change.
    pub why: ChangeReason,
}

/// `circuit breaker of https://example.com: closed to open (failure_rate)`
impl Display for StateChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { key, from, to, why } = self;
        match key.is_empty() {
            true => f.write_str("circuit breaker: ")?,
            false => write!(f, "circuit breaker of {key}: ")?,
        }
        write!(f, "{from} to {to} ({why})")
    }
}

/// Everything one breaker knows at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// The breaker's key, as in [`StateChange::key`].
    pub key: Arc<str>,
    /// What it does with calls.
    pub state: BreakerState,
    /// Failures since the last success, close or reset; opening keeps it.
    pub consecutive_failures: u32,
    /// What the window holds. Opening keeps it, closing empties it, probes are not in it.
    pub window: WindowCounts,
    /// When the last failure or throttled answer was recorded; closing keeps it, a reset clears
    /// it.
    pub last_failure: Option<Instant>,
    /// Permits given out and neither reported nor dropped yet, stale ones included.
    pub permits_out: usize,
    /// Probes under way whose result will count.
    pub probes_out: u32,
    /// How long until a probe may run, if the breaker is open.
    pub retry_in: Option<Duration>,
    /// Goes up with every change of state and every reset; a result whose permit is of an older
    /// generation is ignored.
    pub generation: u64,
}

/// The refusal of a breaker to let a call through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitOpen {
    pub(super) failures: u32,
    /// `None`: someone forced it open, and nobody knows for how long.
    pub(super) retry_in: Option<Duration>,
}

impl CircuitOpen {
    /// Failures since the last success, close or reset of the breaker.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How long until a call may be let through as a probe.
    ///
    /// While probes are under way it is the time after which to ask again: the open time, or less
    /// if the probes are replaced sooner. [`Duration::MAX`] if the breaker was forced open, since
    /// then no waiting helps.
    pub fn retry_in(&self) -> Duration {
        self.retry_in.unwrap_or(Duration::MAX)
    }
}

impl Display for CircuitOpen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(retry_in) = self.retry_in else {
            return f.write_str("Circuit breaker is forced OPEN");
        };
        let (failures, secs) = (self.failures, retry_in.as_secs_f64());
        write!(f, "Circuit breaker is OPEN (failed {failures} times). Retry after {secs:.1}s")
    }
}

impl Error for CircuitOpen {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_rejection_says_how_long() {
        let open = CircuitOpen { failures: 3, retry_in: Some(Duration::from_millis(1_250)) };
        let text = "Circuit breaker is OPEN (failed 3 times). Retry after 1.2s";
        assert_eq!(open.to_string(), text);
        let forced = CircuitOpen { failures: 0, retry_in: None };
        assert_eq!(forced.to_string(), "Circuit breaker is forced OPEN");
        assert_eq!(forced.retry_in(), Duration::MAX);
    }
}
