//! The decision after an attempt, and the reasons why a request ends.

use std::{fmt, time::Duration};

use crate::common::names::names;

/// The reason why a request ended: the one list for events, errors and history.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::StopReason;
///
/// if let Err(error) = client.post("https://example.com/orders").send_resilient().await {
///     match error.stop_reason() {
///         StopReason::UnsafeToRepeat => eprintln!("ask whether the order arrived"),
///         why => eprintln!("{error} ({why})"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The retry budget had nothing left for another send.
    Budget,
    /// The circuit breaker rejects, for longer than this request could wait, or again after all
    /// retries are used up.
    CircuitOpen,
    /// `max_total_time` is over, or would be before the next attempt could start.
    Deadline,
    /// All retries are used up.
    Exhausted,
    /// The outcome is permanent, such as a 404.
    Final,
    /// The server asked to wait longer than `max_wait_time`.
    HintTooLong,
    /// A concurrency or rate limit of the client has no room for as long as this request could wait.
    Limited,
    /// The body can be read only once, so it cannot be sent again.
    NotReplayable,
    /// The host's gate is closed for longer than this request could wait.
    RateLimited,
    /// The request succeeded.
    Success,
    /// The request may have been processed, and its method does not allow a second send.
    UnsafeToRepeat,
    /// The server said not to retry, or a `Resilient` within this one gave up.
    Vetoed,
}

names!(StopReason {
    Budget: "budget",
    CircuitOpen: "circuit_open",
    Deadline: "deadline",
    Exhausted: "exhausted",
    Final: "final",
    HintTooLong: "hint_too_long",
    Limited: "limited",
    NotReplayable: "not_replayable",
    RateLimited: "rate_limited",
    Success: "success",
    UnsafeToRepeat: "unsafe_to_repeat",
    Vetoed: "vetoed",
});

/// The source of a wait's length.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ResilientConfig, WaitSource};
///
/// let config = ResilientConfig::builder()
///     .on_retry(|it| match it.source {
///         WaitSource::Hint(header) => println!("the server asks for {:?} by {header}", it.wait),
///         _ => {}
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitSource {
    /// The backoff, after jitter.
    Backoff,
    /// The retry budget, until another retry has earned a token.
    Budget,
    /// The open circuit breaker, until a probe may run.
    CircuitBreaker,
    /// No wait: another endpoint of the request's [`Mirrors`](crate::Mirrors) is asked at once.
    Failover,
    /// The open breaker of the [`fleet`](crate::fleet), until a probe may run.
    Fleet,
    /// The gate of the host, which is closed because another process of the [`fleet`](crate::fleet) heard
    /// of a rate limit.
    FleetGate,
    /// The closed gate of the host.
    Gate,
    /// The server, in the header of this name.
    Hint(http::HeaderName),
    /// The server, as read by [`hint_from`](crate::ResilientConfigBuilder::hint_from).
    HintFrom,
    /// No wait: a stale connection is replaced at once.
    Immediate,
    /// The concurrency limit of the client, until a permit is free.
    Limit,
    /// The rate limit of the client, until the slot of the request.
    Rate,
}

impl fmt::Display for WaitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backoff => f.write_str("backoff"),
            Self::Budget => f.write_str("budget"),
            Self::CircuitBreaker => f.write_str("circuit breaker"),
            Self::Failover => f.write_str("failover"),
            Self::Fleet => f.write_str("fleet"),
            Self::FleetGate => f.write_str("gate of the fleet"),
            Self::Gate => f.write_str("gate"),
            Self::Hint(header) => f.write_str(header.as_str()),
            Self::HintFrom => f.write_str("hint_from"),
            Self::Immediate => f.write_str("immediate"),
            Self::Limit => f.write_str("concurrency limit"),
            Self::Rate => f.write_str("rate limit"),
        }
    }
}

/// The step after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    /// Wait, then send again.
    Retry { after: Duration, source: WaitSource },
    /// End with this outcome.
    Return(StopReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_waits_have_their_names() {
        for (stop, name) in [
            (StopReason::Budget, "budget"),
            (StopReason::CircuitOpen, "circuit_open"),
            (StopReason::Deadline, "deadline"),
            (StopReason::Exhausted, "exhausted"),
            (StopReason::Final, "final"),
            (StopReason::HintTooLong, "hint_too_long"),
            (StopReason::Limited, "limited"),
            (StopReason::NotReplayable, "not_replayable"),
            (StopReason::RateLimited, "rate_limited"),
            (StopReason::Success, "success"),
            (StopReason::UnsafeToRepeat, "unsafe_to_repeat"),
            (StopReason::Vetoed, "vetoed"),
        ] {
            assert_eq!(stop.to_string(), name);
        }
        for (source, name) in [
            (WaitSource::Backoff, "backoff"),
            (WaitSource::Budget, "budget"),
            (WaitSource::CircuitBreaker, "circuit breaker"),
            (WaitSource::Fleet, "fleet"),
            (WaitSource::FleetGate, "gate of the fleet"),
            (WaitSource::Failover, "failover"),
            (WaitSource::Gate, "gate"),
            (WaitSource::Hint(http::header::RETRY_AFTER), "retry-after"),
            (WaitSource::HintFrom, "hint_from"),
            (WaitSource::Immediate, "immediate"),
            (WaitSource::Limit, "concurrency limit"),
            (WaitSource::Rate, "rate limit"),
        ] {
            assert_eq!(source.to_string(), name);
        }
    }
}
