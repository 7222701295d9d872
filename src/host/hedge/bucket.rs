//! The bucket that pays for hedges.

use std::time::Duration;

use crate::common::clock::Instant;

/// One hedge, in the unit of the bucket: shares are exact to a millionth.
pub(super) const TOKEN: u64 = 1_000_000;

/// The fewest and the most hedges that can be saved up.
const SIZES: (f64, f64) = (3.0, 100.0);

/// The bucket holds the deposits of this time.
const SAVED_TIME: Duration = Duration::from_secs(2);

/// A token bucket that requests fill: a share of a token each.
///
/// It holds the deposits of about two seconds, so that the hedges of a stall of the host can go
/// together: at least 3, at most 100. A new one is full.
#[derive(Debug)]
pub(super) struct HedgeBucket {
    /// In millionths.
    balance: u64,
    /// The deposits of the last two seconds, in millionths, older ones counting less.
    recent: f64,
    last: Instant,
}

impl HedgeBucket {
    pub(super) fn new(now: Instant) -> Self {
        Self { balance: SIZES.0 as u64 * TOKEN, recent: 0.0, last: now }
    }

    /// Adds the share of a request, in millionths.
    pub(super) fn deposit(&mut self, share: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.last);
        let kept = (-passed.as_secs_f64() / SAVED_TIME.as_secs_f64()).exp();
        self.recent = self.recent.mul_add(kept, share as f64);
        self.last = self.last.max(now);
        self.balance = self.balance.saturating_add(share).min(self.size());
    }

    /// Takes the token of a hedge; `false` if there is none.
    #[must_use]
    pub(super) fn withdraw(&mut self) -> bool {
        let rest = self.balance.checked_sub(TOKEN);
        self.balance = rest.unwrap_or(self.balance);
        rest.is_some()
    }

    /// Puts the token of a hedge back that was not sent.
    pub(super) fn put_back(&mut self) {
        self.balance = self.balance.saturating_add(TOKEN).min(self.size());
    }

    /// Returns the balance, in millionths.
    #[cfg(test)]
    pub(super) fn balance(&self) -> u64 {
        self.balance
    }

    fn size(&self) -> u64 {
        let (least, most) = SIZES;
        (self.recent.clamp(least * TOKEN as f64, most * TOKEN as f64)) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: u64 = 60_000;

    #[test]
    fn hedges_are_a_share_of_the_requests() {
        for per_second in [1, 10, 1_000] {
            let start = Instant::now();
            let mut bucket = HedgeBucket::new(start);
            let hedges = (0..10_000_u32).filter(|it| {
                bucket.deposit(SHARE, start + Duration::from_secs(1) * *it / per_second);
                bucket.withdraw()
            });
            assert_eq!(hedges.count(), 602, "{per_second} a second");
        }
    }

    #[test]
    fn it_holds_two_seconds_of_deposits_between_three_and_a_hundred() {
        for (per_second, most) in [(1, 3), (10, 3), (100, 12), (500, 60), (10_000, 100)] {
            let start = Instant::now();
            let mut bucket = HedgeBucket::new(start);
            for it in 0..per_second * 20 {
                bucket.deposit(SHARE, start + Duration::from_secs(1) * it / per_second);
            }
            let hedges = std::iter::from_fn(|| bucket.withdraw().then_some(())).count();
            let range = most - most / 20..=most;
            assert!(range.contains(&hedges), "{per_second} a second: {hedges}");
        }
    }

    #[test]
    fn what_a_busy_time_saved_up_does_not_last() {
        let start = Instant::now();
        let mut bucket = HedgeBucket::new(start);
        (0..100_000).for_each(|_| bucket.deposit(SHARE, start));
        assert_eq!(bucket.balance(), 100 * TOKEN);
        bucket.deposit(SHARE, start + Duration::from_secs(60));
        assert_eq!(bucket.balance(), 3 * TOKEN);
    }

    proptest! {
        #[test]
        fn every_hedge_is_paid_for(
            steps in proptest::collection::vec((0_u64..5_000, 0_u64..1_000_000, any::<bool>()), 1..300),
        ) {
            let mut now = Instant::now();
            let mut bucket = HedgeBucket::new(now);
            let (mut paid, mut hedges) = (3 * TOKEN, 0);
            for (millis, share, hedge) in steps {
                now += Duration::from_millis(millis);
                bucket.deposit(share, now);
                paid += share;
                if hedge && bucket.withdraw() {
                    hedges += 1;
                }
                prop_assert!(hedges * TOKEN + bucket.balance() <= paid);
                prop_assert!(bucket.balance() <= 100 * TOKEN);
            }
        }
    }
}
