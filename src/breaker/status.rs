//! The public facts of a breaker: state, changes, snapshot, rejection.

use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::breaker::window::WindowCounts;
use crate::common::amount::Counted;
use crate::common::names::names;

/// The state of a breaker: how it treats calls.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{BreakerConfig, BreakerState, CircuitBreaker};
///
/// let breaker = CircuitBreaker::new(BreakerConfig::default())?;
/// assert_eq!(breaker.state(), BreakerState::Closed);
/// breaker.force_open();
/// assert_eq!(breaker.state().as_str(), "forced_open");
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Admits every call and records the results.
    Closed,
    /// Rejects every call until its open time is over. The first call after that is a probe and
    /// makes it half-open; until one comes, it stays open.
    Open,
    /// Admits a few probes to check whether the service is back.
    HalfOpen,
    /// Rejects every call until another mode is set or the breaker is reset.
    ForcedOpen,
    /// Admits every call and records nothing.
    Disabled,
    /// Admits every call and records the results, but never opens.
    MetricsOnly,
}

names!(BreakerState {
    Closed: "closed",
    Open: "open",
    HalfOpen: "half_open",
    ForcedOpen: "forced_open",
    Disabled: "disabled",
    MetricsOnly: "metrics_only",
});

/// The reason of a change of state.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ChangeReason, HostStates};
///
/// let hosts = HostStates::new();
/// hosts.on_state_change(|change| {
///     if change.why != ChangeReason::Manual {
///         eprintln!("{change}");
///     }
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeReason {
    /// No success for a while, and failures in that time.
    Sustained,
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too many failures among the results in the window.
    FailureRate,
    /// Too many slow calls among those in the window.
    SlowCallRate,
    /// The open time is over and a call arrived.
    OpenTimeOver,
    /// A probe failed, or too many probes.
    ProbesFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// A method of the breaker was called.
    Manual,
    /// The fleet found the host down, or back; see [`fleet`](crate::fleet).
    Fleet,
}

names!(ChangeReason {
    Sustained: "sustained",
    ConsecutiveFailures: "consecutive_failures",
    FailureRate: "failure_rate",
    SlowCallRate: "slow_call_rate",
    OpenTimeOver: "open_time_over",
    ProbesFailed: "probes_failed",
    ProbesSucceeded: "probes_succeeded",
    Manual: "manual",
    Fleet: "fleet",
});

/// One change of one breaker's state.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{BreakerState, HostStates};
///
/// let hosts = HostStates::new();
/// hosts.on_state_change(|change| {
///     if change.to == BreakerState::Open {
///         eprintln!("{} is down: {change}", change.key);
///     }
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateChange {
    /// The breaker's key: scheme, host and port with
    /// [`per_host`](crate::CircuitBreakers::per_host), empty for a single breaker.
    pub key: Arc<str>,
    /// The state before.
    pub from: BreakerState,
    /// The state after.
    pub to: BreakerState,
    /// The reason of the change.
    pub why: ChangeReason,
    /// The figures behind an opening by rule or probe; `None` for any other change.
    pub cause: Option<OpenCause>,
}

/// `circuit breaker of https://example.com: closed to open (failure_rate: 12 of 20 calls failed)`
impl Display for StateChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { key, from, to, why, cause } = self;
        match key.is_empty() {
            true => f.write_str("circuit breaker: ")?,
            false => write!(f, "circuit breaker of {key}: ")?,
        }
        match cause {
            Some(cause) => write!(f, "{from} to {to} ({why}: {cause})"),
            None => write!(f, "{from} to {to} ({why})"),
        }
    }
}

/// The full state of a breaker at one moment.
///
/// # Examples
///
/// ```
/// use std::time::Instant;
/// use reqwest_resilient::HostStates;
///
/// let hosts = HostStates::new();
/// for breaker in hosts.snapshot(Instant::now()) {
///     println!("{}: {}, {} rejected", breaker.key, breaker.state, breaker.rejections);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerSnapshot {
    /// The breaker's key, as in [`StateChange::key`].
    pub key: Arc<str>,
    /// The state: how it treats calls.
    pub state: BreakerState,
    /// Failures since the last success, close or reset; opening keeps it.
    pub consecutive_failures: u32,
    /// The counts of the window. Opening keeps it, closing clears it, probes are not in it.
    pub window: WindowCounts,
    /// The time of the last recorded failure; closing keeps it, a reset clears it.
    pub last_failure: Option<Instant>,
    /// Calls that it rejected since it was created. A request that waits at it and asks again counts
    /// each time.
    pub rejections: u64,
    /// The openings that [`metrics_only`](crate::CircuitBreaker::metrics_only) has prevented since it
    /// was set: at most one each [`open_for`](crate::BreakerConfig::open_for).
    pub would_have_opened: u32,
    /// The figures behind the last of these.
    pub would_open_by: Option<OpenCause>,
    /// Permits that are neither reported nor dropped yet, stale ones included.
    pub permits_out: usize,
    /// Probes under way, without those that were replaced.
    pub probes_out: u32,
    /// The time until a probe may run, if the breaker is open.
    pub retry_in: Option<Duration>,
    /// Increases with every change of state and every reset; the result of a permit of an older
    /// generation is ignored.
    pub generation: u64,
}

/// The cause of an opening, in figures; its `Display` is a sentence.
///
/// # Examples
///
/// ```
/// use std::time::Instant;
/// use reqwest_resilient::{BreakerConfig, CircuitBreaker};
///
/// let now = Instant::now();
/// let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1))?;
/// breaker.try_enter(now)?.failure(now);
/// let rejected = breaker.try_enter(now).unwrap_err();
/// assert_eq!(rejected.cause().to_string(), "1 failure in a row");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCause {
    /// The reason of the opening: a rule, a failed probe, or a call by hand.
    pub reason: ChangeReason,
    /// Failures since the last success, close or reset.
    pub failures: u32,
    /// The time since the first of those failures.
    pub no_success_for: Duration,
    /// The counts of the window at the opening by a rule.
    pub window: WindowCounts,
}

/// `no success for 12 s, 14 failures`
impl Display for OpenCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { reason, failures, no_success_for, window } = *self;
        let total = Counted(window.total, "call");
        match reason {
            ChangeReason::ConsecutiveFailures => {
                write!(f, "{} in a row", Counted(failures, "failure"))
            }
            ChangeReason::FailureRate => write!(f, "{} of {total} failed", window.failures),
            ChangeReason::SlowCallRate => {
                let were = if window.slow == 1 { "was" } else { "were" };
                write!(f, "{} of {total} {were} slow", window.slow)
            }
            ChangeReason::ProbesFailed if failures <= 1 => f.write_str("a probe failed"),
            ChangeReason::Sustained | ChangeReason::ProbesFailed => {
                write!(
                    f,
                    "no success for {}, {}",
                    Seconds(no_success_for),
                    Counted(failures, "failure")
                )
            }
            ChangeReason::OpenTimeOver | ChangeReason::ProbesSucceeded | ChangeReason::Manual => {
                f.write_str("opened by hand")
            }
            ChangeReason::Fleet => f.write_str("opened by the fleet"),
        }
    }
}

/// The rejection of a call by a breaker.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// if let Err(error) = client.get("https://example.com/").send_resilient().await {
///     if let Some(open) = error.circuit_open() {
///         eprintln!("{}, again in {:?}", open.cause(), open.retry_in());
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitOpen {
    pub(super) cause: OpenCause,
    /// `None`: forced open, until another mode is set or it is reset.
    pub(super) retry_in: Option<Duration>,
    /// `true` while probes are under way, so that the breaker may close at any moment.
    pub(super) is_probing: bool,
}

impl CircuitOpen {
    /// Builds the rejection by the breaker of a fleet.
    pub(crate) fn of_fleet(retry_in: Duration, is_probing: bool) -> Self {
        let (reason, window) = (ChangeReason::Fleet, WindowCounts::default());
        let cause = OpenCause { reason, failures: 0, no_success_for: Duration::ZERO, window };
        Self { cause, retry_in: Some(retry_in), is_probing }
    }

    /// Returns whether the fleet rejects, and not the client's own breaker.
    pub(crate) fn is_of_fleet(&self) -> bool {
        self.cause.reason == ChangeReason::Fleet
    }

    /// Returns whether probes are under way.
    pub(crate) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// Returns how long until the breaker may admit a call: zero while probes are under way; `None`
    /// if it is forced open.
    pub(crate) fn may_close_in(&self) -> Option<Duration> {
        if self.is_probing { Some(Duration::ZERO) } else { self.retry_in }
    }

    /// Returns the figures behind the last opening: by a rule, a failed probe, or
    /// [`Manual`](ChangeReason::Manual) if it is forced open.
    pub fn cause(&self) -> OpenCause {
        self.cause
    }

    /// Returns how long until a call may be admitted as a probe; `None` if the breaker is forced
    /// open, since then no waiting helps.
    ///
    /// While probes are under way it is the time after which to try again: the open time, or less
    /// if the probes are replaced sooner.
    pub fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }
}

/// `circuit breaker is open: no success for 12 s, 14 failures; retry in 0.8 s`
impl Display for CircuitOpen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.retry_in {
            None => f.write_str("circuit breaker is forced open"),
            Some(retry_in) => {
                let (cause, retry_in) = (self.cause, Seconds(retry_in));
                write!(f, "circuit breaker is open: {cause}; retry in {retry_in}")
            }
        }
    }
}

/// A time in seconds, with a decimal below ten.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs_f64();
        write!(f, "{secs:.*} s", usize::from(secs < 9.95))
    }
}

impl Error for CircuitOpen {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(reason: ChangeReason, failures: u32) -> OpenCause {
        let window = WindowCounts { total: 20, failures: 12, slow: 1 };
        OpenCause { reason, failures, no_success_for: Duration::from_millis(12_345), window }
    }

    #[test]
    fn breaker_rejection_says_why_and_how_long() {
        let retry_in = Some(Duration::from_millis(800));
        for (cause, text) in [
            (cause(ChangeReason::Sustained, 14), "no success for 12 s, 14 failures"),
            (cause(ChangeReason::ProbesFailed, 14), "no success for 12 s, 14 failures"),
            (cause(ChangeReason::ProbesFailed, 1), "a probe failed"),
            (cause(ChangeReason::ConsecutiveFailures, 1), "1 failure in a row"),
            (cause(ChangeReason::ConsecutiveFailures, 3), "3 failures in a row"),
            (cause(ChangeReason::FailureRate, 0), "12 of 20 calls failed"),
            (cause(ChangeReason::SlowCallRate, 0), "1 of 20 calls was slow"),
        ] {
            let open = CircuitOpen { cause, retry_in, is_probing: false };
            let expected = format!("circuit breaker is open: {text}; retry in 0.8 s");
            assert_eq!(open.to_string(), expected);
            assert_eq!(open.cause(), cause);
        }
        let forced = CircuitOpen {
            cause: cause(ChangeReason::Manual, 3),
            retry_in: None,
            is_probing: false,
        };
        assert_eq!(forced.to_string(), "circuit breaker is forced open");
        assert_eq!(forced.retry_in(), None);
    }

    #[test]
    fn breaker_times_are_short_to_read() {
        for (millis, text) in
            [(0, "0.0 s"), (2_000, "2.0 s"), (9_940, "9.9 s"), (9_960, "10 s"), (75_400, "75 s")]
        {
            assert_eq!(Seconds(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn breaker_changes_say_what_caused_them() {
        let change = StateChange {
            key: "https://a.example".into(),
            from: BreakerState::Closed,
            to: BreakerState::Open,
            why: ChangeReason::FailureRate,
            cause: Some(cause(ChangeReason::FailureRate, 3)),
        };
        let text = "circuit breaker of https://a.example: closed to open (failure_rate: 12 of 20 calls failed)";
        assert_eq!(change.to_string(), text);
        let forced =
            StateChange { why: ChangeReason::Manual, key: "".into(), cause: None, ..change };
        assert_eq!(forced.to_string(), "circuit breaker: closed to open (manual)");
    }
}
