//! The rules that open a breaker.

use std::{num::NonZeroU32, time::Duration};

use crate::breaker::{
    config::{BreakerConfig, Window},
    facts::ChangeReason,
    percent::Percent,
    window::WindowCounts,
};
use crate::time::nanos;

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
