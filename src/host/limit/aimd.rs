//! The adaptive limit: additive increase, multiplicative decrease, as a pure step.

use std::{ops::Range, time::Duration};

use crate::common::clock::Instant;
use crate::host::limit::Adaptive;

/// The share that is left of the limit after a cut.
const CUT: f64 = 0.5;

/// The share of the limit that has to be in use for it to grow.
const IN_USE: f64 = 0.75;

/// The shares of the limit at which the host was last overloaded between which the limit grows
/// slowly, and how slowly: the slower, the fewer requests wait at the host before it is overloaded
/// again. Below it finds its way back fast, above the host can do more than it could.
const NEAR: Range<f64> = 0.6..1.25;
const GROWTH_NEAR: f64 = 0.2;

/// The least time between two cuts.
const LEAST_BETWEEN: Duration = Duration::from_millis(100);

/// The evidence of an attempt about the load of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// It was processed.
    Good,
    /// The host, or the way to it, was overloaded.
    Overloaded,
}

/// A limit that grows by one for each round of successes and is cut when the host is overloaded, as
/// TCP's congestion window is; slower near the limit at which that happened last, as CUBIC's is
/// (RFC 9438).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Aimd {
    rules: Adaptive,
    limit: f64,
    /// The limit at which the host was last overloaded after it had grown: cuts that follow each
    /// other are of one overload. 0 before the first.
    edge: f64,
    last_cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    at: Instant,
    left: f64,
}

impl Aimd {
    pub(super) fn new(rules: Adaptive) -> Self {
        Self { rules, limit: f64::from(rules.start), edge: 0.0, last_cut: None }
    }

    /// Returns this limit by other rules.
    pub(super) fn with_rules(self, rules: Adaptive) -> Self {
        let limit = self.limit.clamp(f64::from(rules.min), f64::from(rules.max.max(rules.min)));
        Self { rules, limit, ..self }
    }

    /// Returns the number of permits.
    pub(super) fn permits(&self) -> u32 {
        self.limit as u32
    }

    /// Adjusts the limit after an attempt that took `took`, and began as one of `in_flight`.
    ///
    /// Cuts at most once per `took`, as one overload shows in many attempts; grows only while three
    /// quarters of the limit are in use, as an idle client learns nothing.
    pub(super) fn record(&mut self, load: Load, in_flight: u32, took: Duration, now: Instant) {
        let limit = match load {
            Load::Good if f64::from(in_flight) >= self.limit * IN_USE => {
                let is_near = NEAR.contains(&(self.limit / self.edge));
                let growth = if is_near { GROWTH_NEAR } else { 1.0 };
                self.limit + growth / self.limit.max(1.0)
            }
            Load::Good => return,
            Load::Overloaded => {
                let since = self.last_cut.map(|it| now.saturating_duration_since(it.at));
                if since.is_some_and(|it| it <= took.max(LEAST_BETWEEN)) {
                    return;
                }
                if self.last_cut.is_none_or(|it| self.limit > it.left) {
                    self.edge = self.limit;
                }
                let left = self.limit * CUT;
                self.last_cut = Some(Cut { at: now, left });
                left
            }
        };
        self.limit = limit.clamp(f64::from(self.rules.min), f64::from(self.rules.max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn aimd() -> Aimd {
        Aimd::new(Adaptive { start: 20, min: 1, max: 100 })
    }

    #[test]
    fn a_round_of_successes_adds_one() {
        let (mut aimd, now) = (aimd(), Instant::now());
        for _ in 0..21 {
            aimd.record(Load::Good, 20, MILLI, now);
        }
        assert_eq!(aimd.permits(), 21);
    }

    #[test]
    fn other_rules_bound_what_was_learned() {
        let rules = |min, max| Adaptive { start: 5, min, max };
        for (rules, permits) in [(rules(1, 200), 20), (rules(1, 10), 10), (rules(30, 90), 30)] {
            let aimd = aimd().with_rules(rules);
            assert_eq!((aimd.rules, aimd.permits()), (rules, permits));
        }
    }

    #[test]
    fn an_idle_client_learns_nothing() {
        let (mut aimd, now) = (aimd(), Instant::now());
        for _ in 0..1_000 {
            aimd.record(Load::Good, 14, MILLI, now);
        }
        assert_eq!(aimd.permits(), 20);
    }

    #[test]
    fn three_quarters_of_the_limit_in_use_are_enough_to_learn() {
        let (mut aimd, now) = (aimd(), Instant::now());
        aimd.record(Load::Good, 15, MILLI, now);
        assert_eq!(aimd.limit, 20.05);
    }

    /// The growth of a round of successes in percent of one.
    fn growth_at(aimd: &mut Aimd, limit: f64) -> u32 {
        aimd.limit = limit;
        aimd.record(Load::Good, 1_000, MILLI, Instant::now());
        ((aimd.limit - limit) * limit * 100.0).round() as u32
    }

    #[test]
    fn the_limit_grows_slowly_near_the_last_overload_and_fast_elsewhere() {
        let (mut aimd, now) = (aimd(), Instant::now());
        assert_eq!(growth_at(&mut aimd, 40.0), 100);
        aimd.limit = 40.0;
        // Two cuts of one overload.
        for late in [0, 200] {
            aimd.record(Load::Overloaded, 40, MILLI, now + late * MILLI);
        }
        assert_eq!(aimd.limit, 10.0);
        for (limit, growth) in [(10.0, 100), (23.9, 100), (24.1, 20), (49.9, 20), (50.1, 100)] {
            assert_eq!(growth_at(&mut aimd, limit), growth, "{limit}");
        }
        // It had grown: another overload.
        aimd.limit = 20.0;
        aimd.record(Load::Overloaded, 20, MILLI, now + 400 * MILLI);
        assert_eq!([11.9, 12.1].map(|it| growth_at(&mut aimd, it)), [100, 20]);
    }

    #[test]
    fn cuts_are_a_tenth_of_a_second_apart_or_an_attempt_if_that_is_longer() {
        for (took, between) in [(1, 100), (100, 100), (500, 500)] {
            let (mut aimd, now) = (aimd(), Instant::now());
            for late in [0, between, between + 1] {
                aimd.record(Load::Overloaded, 20, took * MILLI, now + late * MILLI);
                let cuts = if late <= between { 10 } else { 5 };
                assert_eq!(aimd.permits(), cuts, "{took} ms, {late} ms later");
            }
        }
    }

    #[test]
    fn one_overload_cuts_once_however_many_attempts_show_it() {
        let (mut aimd, now) = (aimd(), Instant::now());
        for late in 0..50 {
            aimd.record(Load::Overloaded, 20, 500 * MILLI, now + late * MILLI);
        }
        assert_eq!(aimd.permits(), 10);
        aimd.record(Load::Overloaded, 20, 500 * MILLI, now + 501 * MILLI);
        assert_eq!(aimd.permits(), 5);
    }

    #[test]
    fn the_limit_stays_within_its_bounds() {
        let (mut aimd, mut now) = (aimd(), Instant::now());
        for _ in 0..100 {
            now += Duration::from_secs(1);
            aimd.record(Load::Overloaded, 1, MILLI, now);
        }
        assert_eq!(aimd.permits(), 1);
        for _ in 0..10_000 {
            aimd.record(Load::Good, 1_000, MILLI, now);
        }
        assert_eq!(aimd.permits(), 100);
        assert_eq!(aimd.with_rules(Adaptive { start: 5, min: 2, max: 30 }).permits(), 30);
    }
}
