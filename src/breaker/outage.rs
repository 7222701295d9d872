//! The failures since the last success: how many, and for how long.

use std::time::Duration;

use crate::common::clock::Instant;

/// A row of failures without a success in between.
///
/// It starts with the first failure, not with the last success before: an hour without requests is
/// no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    since: Instant,
    last: Instant,
    failures: u32,
}

impl Outage {
    /// Adds a failure. A pause longer than `longest_pause` before it starts a new outage.
    pub(super) fn add(before: Option<Self>, longest_pause: Duration, now: Instant) -> Self {
        match before {
            Some(it) if now.saturating_duration_since(it.last) <= longest_pause => {
                Self { last: it.last.max(now), failures: it.failures.saturating_add(1), ..it }
            }
            _ => Self { since: now, last: now, failures: 1 },
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the time since its first failure.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_outage_lasts_from_its_first_failure() {
        let (start, secs) = (Instant::now(), Duration::from_secs);
        let mut outage = Outage::add(None, secs(20), start);
        assert_eq!((outage.failures(), outage.lasts(start)), (1, secs(0)));
        outage = Outage::add(Some(outage), secs(20), start + secs(20));
        assert_eq!((outage.failures(), outage.lasts(start + secs(21))), (2, secs(21)));
        outage = Outage::add(Some(outage), secs(20), start + secs(3));
        assert_eq!(outage.failures(), 3, "a late report is part of it");
        outage = Outage::add(Some(outage), secs(20), start + secs(40));
        assert_eq!(outage.failures(), 4, "and does not lengthen the pause");
        outage = Outage::add(Some(outage), secs(20), start + secs(61));
        assert_eq!((outage.failures(), outage.lasts(start + secs(61))), (1, secs(0)));
    }
}
