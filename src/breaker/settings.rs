//! The values of a breaker's config.

use std::time::Duration;

use crate::breaker::percent::Percent;

/// Failures in a row that open a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Consecutive {
    pub(super) failures: u32,
    /// `true` if it applies only while the window has too few results for rates.
    pub(super) only_while_few: bool,
}

/// A stretch of time without a success, with enough failures in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sustained {
    pub(super) no_success_for: Duration,
    pub(super) min_failures: u32,
}

impl Sustained {
    /// Returns the longest pause between two failures of one outage. Failures before a longer pause
    /// are no evidence about the service now.
    pub(super) fn longest_pause(self) -> Duration {
        self.no_success_for.saturating_mul(10)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowCalls {
    pub(super) slower_than: Duration,
    pub(super) percent: Percent,
}

/// The growth of the open time: each further opening in a row lasts `factor` times as long, up to
/// `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) factor: f64,
    /// Twice `open_for` unless set.
    pub(super) max: Option<Duration>,
}

/// The condition that ends half-open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Recovery {
    /// This many successes close it, one failure opens it.
    Successes(u32),
    /// Of `probes` results, `percent` failures open it; with fewer it closes.
    Rate { probes: u32, percent: Percent },
}
