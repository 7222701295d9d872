//! The decisions about hedges: may one be sent, after which delay, and which result counts.

use std::time::Duration;

use crate::common::names::names;

/// The shortest delay that is learnt: below it a hedge costs more than it brings.
const LEAST_DELAY: Duration = Duration::from_millis(2);

/// From this learnt delay on there are no hedges: a service that slow wants a timeout.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The reason why a hedge was not sent when its time had come.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, HedgeRefusal, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| match event {
///         Event::HedgeRefused(it) if it.why == HedgeRefusal::Share => eprintln!("{event}"),
///         _ => {}
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HedgeRefusal {
    /// The circuit breaker is open, or tests whether it can close.
    CircuitBreaker,
    /// Many more requests than usual are in flight to the host, without those that later ones have
    /// overtaken: it is slow for all of them.
    Crowded,
    /// The gate of the host is closed, or opening.
    Gate,
    /// The concurrency limit of the client has no free permit, or requests wait for one; or its rate
    /// limit has no slot now, or shares its slots with a fleet.
    Limited,
    /// The retry budget is less than half full: requests fail.
    RetryBudget,
    /// The hedges of the last requests have used up the [share](crate::Hedge::share).
    Share,
}

names!(HedgeRefusal {
    CircuitBreaker: "circuit_breaker",
    Crowded: "crowded",
    Gate: "gate",
    Limited: "limited",
    RetryBudget: "retry_budget",
    Share: "share",
});

/// Returns the delay that a learnt latency makes; `None` if the service is too slow for hedges.
pub(super) fn learnt(latency: Duration) -> Option<Duration> {
    Some(latency.max(LEAST_DELAY)).filter(|it| *it < LONGEST_DELAY)
}

/// Returns whether a hedge after `delay` still has time: no less than the delay, of what the nearest
/// limit leaves the attempt.
pub(crate) fn has_time(delay: Duration, limit: Option<Duration>) -> bool {
    limit.is_none_or(|it| delay < it / 2)
}

/// A result of a race in which all results are transient.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Candidate {
    /// `true` for a 404 that another endpoint may not give.
    pub(crate) is_missing: bool,
    /// `true` if the server said when to retry.
    pub(crate) has_hint: bool,
    /// `true` if it is a response, and no error.
    pub(crate) is_response: bool,
}

/// Returns the place of the result to judge, if no result is better: a 404, for which the other
/// endpoints are asked, else one with a retry hint, else a response, else the first.
pub(crate) fn choose(candidates: impl IntoIterator<Item = Candidate>) -> usize {
    let rank = |it: &Candidate| (it.is_missing, it.has_hint, it.is_response);
    let mut best: Option<(usize, Candidate)> = None;
    for (at, candidate) in candidates.into_iter().enumerate() {
        if best.is_none_or(|(_, it)| rank(&candidate) > rank(&it)) {
            best = Some((at, candidate));
        }
    }
    best.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learnt_delay_has_a_floor_and_an_end() {
        let millis = Duration::from_millis;
        for (latency, delay) in [
            (0, Some(2)),
            (1, Some(2)),
            (2, Some(2)),
            (50, Some(50)),
            (4_999, Some(4_999)),
            (5_000, None),
            (60_000, None),
        ] {
            assert_eq!(learnt(millis(latency)), delay.map(millis), "{latency} ms");
        }
    }

    #[test]
    fn a_hedge_needs_half_of_the_time() {
        let millis = Duration::from_millis;
        assert!(has_time(millis(49), Some(millis(100))));
        assert!(!has_time(millis(50), Some(millis(100))));
        assert!(!has_time(millis(1), Some(Duration::ZERO)));
        assert!(has_time(Duration::MAX, None));
    }

    #[test]
    fn a_hint_comes_before_a_response_and_that_before_the_first() {
        let candidate =
            |(is_missing, has_hint, is_response)| Candidate { is_missing, has_hint, is_response };
        let (error, response) = ((false, false, false), (false, false, true));
        let (hint, missing) = ((false, true, true), (true, false, true));
        for (candidates, chosen) in [
            (vec![error, error, error], 0),
            (vec![error, response, response], 1),
            (vec![response, error], 0),
            (vec![response, hint, hint], 1),
            (vec![hint, response], 0),
            (vec![hint, missing, missing], 1),
            (vec![], 0),
        ] {
            assert_eq!(choose(candidates.iter().copied().map(candidate)), chosen, "{candidates:?}");
        }
    }

    #[test]
    fn refusals_have_their_names() {
        for (why, name) in [
            (HedgeRefusal::CircuitBreaker, "circuit_breaker"),
            (HedgeRefusal::Crowded, "crowded"),
            (HedgeRefusal::Gate, "gate"),
            (HedgeRefusal::RetryBudget, "retry_budget"),
            (HedgeRefusal::Limited, "limited"),
            (HedgeRefusal::Share, "share"),
        ] {
            assert_eq!(why.to_string(), name);
        }
    }
}
