//! The rules that open a breaker.

use std::{num::NonZeroU32, time::Duration};

use crate::breaker::{
    config::{BreakerConfig, Window},
    facts::ChangeReason,
    percent::Percent,
    window::WindowCounts,
};
use crate::common::clock::nanos;

/// Failures in a row that open a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Consecutive {
    pub(super) failures: NonZeroU32,
    /// Only asked while the window is too empty for rates.
    pub(super) only_while_few: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowCalls {
    pub(super) slower_than: Duration,
    pub(super) percent: Percent,
}

impl BreakerConfig {
    /// The first rule that wants the breaker open. Asked after every result, a success too: it
    /// may be the one that fills the window up to its minimum.
    pub(super) fn broken_rule(&self, in_a_row: u32, counts: WindowCounts) -> Option<ChangeReason> {
        let few = counts.total < self.min_samples_needed();
        let row_too_long = self
            .consecutive
            .is_some_and(|rule| in_a_row >= rule.failures.get() && (few || !rule.only_while_few));
        if row_too_long {
            return Some(ChangeReason::ConsecutiveFailures);
        }
        if few {
            return None;
        }
        if self.failure_rate.is_some_and(|rate| rate.reached(counts.failures, counts.total)) {
            return Some(ChangeReason::FailureRate);
        }
        let slow = self.slow_calls?;
        slow.percent.reached(counts.slow, counts.total).then_some(ChangeReason::SlowCallRate)
    }

    /// The minimum in force: the one set, else 20 or what fits into the window.
    pub(super) fn min_samples_needed(&self) -> u32 {
        match (self.min_samples, self.window) {
            (Some(samples), _) => samples.get(),
            (None, Window::Count(len)) => 20.min(len.get().into()),
            (None, Window::Time(_)) => 20,
        }
    }

    /// Whether a call that took this long was slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_calls.is_some_and(|it| took >= it.slower_than)
    }

    /// The nanoseconds from which on a call is slow.
    pub(super) fn slow_from(&self) -> u64 {
        self.slow_calls.map_or(u64::MAX, |it| nanos(it.slower_than))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const SPAN: Window = Window::Time(Duration::from_secs(10));

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn counts(total: u32, failures: u32, slow: u32) -> WindowCounts {
        WindowCounts { total, failures, slow }
    }

    #[test]
    fn breaker_rates_are_asked_of_enough_results() {
        let second = Duration::from_secs(1);
        let config = BreakerConfig::failure_rate(Percent::HALF, SPAN)
            .or_slow_calls(second, Percent::HALF)
            .min_samples(number(4));
        assert_eq!(config.broken_rule(9, counts(3, 3, 3)), None);
        assert_eq!(config.broken_rule(0, counts(4, 1, 1)), None);
        assert_eq!(config.broken_rule(0, counts(4, 2, 2)), Some(ChangeReason::FailureRate));
        assert_eq!(config.broken_rule(0, counts(5, 2, 3)), Some(ChangeReason::SlowCallRate));
        assert!(config.is_slow(second) && !config.is_slow(second / 2));
        assert_eq!(config.slow_from(), 1_000_000_000);

        let config = config.without_slow_calls();
        assert_eq!(config.broken_rule(0, counts(5, 2, 3)), None);
        assert!(!config.is_slow(Duration::MAX));
        assert_eq!(config.slow_from(), u64::MAX);
    }

    #[test]
    fn breaker_failures_in_a_row_count_always_or_while_results_are_few() {
        let (few, enough) = (counts(19, 3, 0), counts(20, 3, 0));
        let in_a_row = Some(ChangeReason::ConsecutiveFailures);
        let always = BreakerConfig::consecutive(number(3));
        assert_eq!(always.broken_rule(2, few), None);
        assert_eq!(always.broken_rule(3, few), in_a_row);
        assert_eq!(always.broken_rule(3, enough), in_a_row);
        let while_few = always.or_consecutive_while_few(number(3));
        assert_eq!(while_few.broken_rule(3, few), in_a_row);
        assert_eq!(while_few.broken_rule(3, enough), None);
    }

    #[test]
    fn breaker_needs_twenty_samples_or_what_is_set_or_what_fits() {
        let count = |len| Window::Count(NonZeroU16::new(len).unwrap());
        let config = |window| BreakerConfig::failure_rate(Percent::HALF, window);
        assert_eq!(config(SPAN).min_samples_needed(), 20);
        assert_eq!(config(count(100)).min_samples_needed(), 20);
        assert_eq!(config(count(10)).min_samples_needed(), 10);
        assert_eq!(config(count(10)).min_samples(number(7)).min_samples_needed(), 7);
    }
}
