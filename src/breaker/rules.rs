//! The rules that open a breaker.

use std::time::Duration;

use crate::breaker::{
    config::BreakerConfig,
    settings::Sustained,
    status::ChangeReason,
    window::{Window, WindowCounts},
};
use crate::common::clock::nanos;

/// The input of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Failures since the last success.
    pub(super) in_a_row: u32,
    /// The failures of the present outage, and how long it lasts.
    pub(super) outage: (u32, Duration),
    pub(super) counts: WindowCounts,
}

impl BreakerConfig {
    /// Returns the first rule that opens the breaker. Called after every result, even a success,
    /// which may fill the window up to its minimum.
    pub(super) fn broken_rule(&self, evidence: Evidence) -> Option<ChangeReason> {
        let Evidence { in_a_row, outage: (failures, lasts), counts } = evidence;
        if self
            .sustained
            .is_some_and(|rule| failures >= rule.min_failures && lasts >= rule.no_success_for)
        {
            return Some(ChangeReason::Sustained);
        }
        let few = counts.total < self.min_samples_needed();
        let row_too_long = self
            .consecutive
            .is_some_and(|rule| in_a_row >= rule.failures && (few || !rule.only_while_few));
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

    /// Returns the longest pause within one outage.
    pub(super) fn longest_pause(&self) -> Duration {
        self.sustained.map_or(Duration::MAX, Sustained::longest_pause)
    }

    /// Returns the minimum of samples in force: the one set, else 20 or what fits into the window.
    pub(super) fn min_samples_needed(&self) -> u32 {
        match (self.min_samples, self.window) {
            (Some(samples), _) => samples,
            (None, Window::Count(len)) => 20.min(len.into()),
            (None, Window::Time(_)) => 20,
        }
    }

    /// Returns whether a call that took this long was slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_calls.is_some_and(|it| took >= it.slower_than)
    }

    /// Returns the nanoseconds from which on a call is slow.
    pub(super) fn slow_from(&self) -> u64 {
        self.slow_calls.map_or(u64::MAX, |it| nanos(it.slower_than))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::percent::Percent;

    const SPAN: Window = Window::Time(Duration::from_secs(10));

    fn counts(total: u32, failures: u32, slow: u32) -> WindowCounts {
        WindowCounts { total, failures, slow }
    }

    /// Returns the broken rule, given the failures in a row and the counts of the window.
    fn broken(config: &BreakerConfig, in_a_row: u32, counts: WindowCounts) -> Option<ChangeReason> {
        config.broken_rule(Evidence { in_a_row, counts, ..Evidence::default() })
    }

    #[test]
    fn breaker_sustained_asks_for_time_and_failures() {
        let secs = Duration::from_secs;
        let config = BreakerConfig::default();
        let broken = |failures, lasts| {
            config.broken_rule(Evidence { outage: (failures, lasts), ..Evidence::default() })
        };
        assert_eq!(broken(5, secs(2)), Some(ChangeReason::Sustained));
        assert_eq!(broken(u32::MAX, secs(2) - Duration::from_nanos(1)), None);
        assert_eq!(broken(4, Duration::MAX), None);
        assert_eq!(config.longest_pause(), secs(20));
        let config = BreakerConfig::consecutive(9);
        assert_eq!(config.longest_pause(), Duration::MAX);
        let config = config.or_sustained(secs(60), 3);
        assert_eq!(config.longest_pause(), secs(600));
        let without = config.without_sustained();
        assert_eq!(
            without.broken_rule(Evidence { outage: (9, secs(99)), ..Evidence::default() }),
            None
        );
    }

    #[test]
    fn breaker_rates_are_asked_of_enough_results() {
        let second = Duration::from_secs(1);
        let config = BreakerConfig::failure_rate(Percent::HALF, SPAN)
            .or_slow_calls(second, Percent::HALF)
            .min_samples(4);
        assert_eq!(broken(&config, 9, counts(3, 3, 3)), None);
        assert_eq!(broken(&config, 0, counts(4, 1, 1)), None);
        assert_eq!(broken(&config, 0, counts(4, 2, 2)), Some(ChangeReason::FailureRate));
        assert_eq!(broken(&config, 0, counts(5, 2, 3)), Some(ChangeReason::SlowCallRate));
        assert!(config.is_slow(second) && !config.is_slow(second / 2));
        assert_eq!(config.slow_from(), 1_000_000_000);

        let config = config.without_slow_calls();
        assert_eq!(broken(&config, 0, counts(5, 2, 3)), None);
        assert!(!config.is_slow(Duration::MAX));
        assert_eq!(config.slow_from(), u64::MAX);
    }

    #[test]
    fn breaker_failures_in_a_row_count_always_or_while_results_are_few() {
        let (few, enough) = (counts(19, 3, 0), counts(20, 3, 0));
        let in_a_row = Some(ChangeReason::ConsecutiveFailures);
        let always = BreakerConfig::consecutive(3);
        assert_eq!(broken(&always, 2, few), None);
        assert_eq!(broken(&always, 3, few), in_a_row);
        assert_eq!(broken(&always, 3, enough), in_a_row);
        let while_few = always.or_consecutive_while_few(3);
        assert_eq!(broken(&while_few, 3, few), in_a_row);
        assert_eq!(broken(&while_few, 3, enough), None);
    }

    #[test]
    fn breaker_needs_twenty_samples_or_what_is_set_or_what_fits() {
        let config = |window| BreakerConfig::failure_rate(Percent::HALF, window);
        assert_eq!(config(SPAN).min_samples_needed(), 20);
        assert_eq!(config(Window::Count(100)).min_samples_needed(), 20);
        assert_eq!(config(Window::Count(10)).min_samples_needed(), 10);
        assert_eq!(config(Window::Count(10)).min_samples(7).min_samples_needed(), 7);
    }
}
