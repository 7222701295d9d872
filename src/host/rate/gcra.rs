//! The slots of one rate: a pure step of GCRA, the generic cell rate algorithm.

use std::time::Duration;

use crate::common::clock::nanos;

/// A moment, in nanoseconds since the epoch of its pacer; negative before that.
pub(crate) type Moment = i64;

/// The longest time that the slots of one request take: 36 years. The clock ends after 292.
const LONGEST: i64 = i64::MAX / 8;

/// A rate, as the distance between requests and the number that may go at once after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// In nanoseconds.
    interval: i64,
    burst: u32,
}

impl Pace {
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        let interval = i64::try_from(nanos(interval)).unwrap_or(LONGEST).min(LONGEST);
        Self { interval, burst }
    }

    /// Returns the length of so many slots, in nanoseconds.
    fn slots(&self, count: u32) -> i64 {
        self.interval.saturating_mul(i64::from(count)).min(LONGEST)
    }
}

/// The moment at which all slots taken so far are over; the earliest there is before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra(Moment);

/// A slot that was taken, as it changed the state; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    before: Gcra,
    after: Gcra,
}

impl Taken {
    /// Returns the state with the slot.
    pub(crate) fn after(&self) -> Gcra {
        self.after
    }
}

impl Default for Gcra {
    fn default() -> Self {
        Self(Moment::MIN)
    }
}

impl Gcra {
    /// Returns when a request of this cost may go: now, or later.
    ///
    /// A cost above the burst waits for the end of all slots, and makes the next requests wait for
    /// its own.
    pub(crate) fn next(&self, pace: &Pace, cost: u32, now: Moment) -> Moment {
        let room = pace.slots(pace.burst.saturating_sub(cost.clamp(1, pace.burst.max(1))));
        self.0.saturating_sub(room).max(now)
    }

    /// Takes the slots of a request that goes at `at`; `None` if they end beyond the clock.
    pub(crate) fn take(&mut self, pace: &Pace, cost: u32, at: Moment) -> Option<Taken> {
        let before = *self;
        *self = Self(before.0.max(at).checked_add(pace.slots(cost))?);
        Some(Taken { before, after: *self })
    }

    /// Gives back a slot that was not used; returns `false` if others were taken after it.
    pub(crate) fn give_back(&mut self, taken: &Taken) -> bool {
        let is_last = *self == taken.after;
        if is_last {
            *self = taken.before;
        }
        is_last
    }

    /// Corrects the cost of an earlier request from `reserved` to `actual`.
    pub(crate) fn settle(&mut self, pace: &Pace, reserved: u32, actual: u32) {
        let more = pace.slots(actual.saturating_sub(reserved));
        let less = pace.slots(reserved.saturating_sub(actual));
        self.0 = self.0.saturating_add(more).saturating_sub(less);
    }

    /// Returns the same slots, which are over at `end` at the latest.
    pub(crate) fn until(self, end: Moment) -> Self {
        Self(self.0.min(end))
    }

    /// Returns the moment at which all slots are over.
    pub(crate) fn end(&self) -> Moment {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use governor::{Quota, RateLimiter};
    use proptest::prelude::*;

    use super::*;

    const MILLI: Moment = 1_000_000;
    const HOUR: Moment = 3_600_000 * MILLI;

    fn pace(millis: u32, burst: u32) -> Pace {
        Pace::new(Duration::from_millis(millis.into()), burst)
    }

    /// Takes the next slot and returns how far away it is, in milliseconds.
    fn take(slots: &mut Gcra, pace: &Pace, cost: u32, now: Moment) -> i64 {
        let at = slots.next(pace, cost, now);
        slots.take(pace, cost, at).unwrap();
        (at - now) / MILLI
    }

    #[test]
    fn requests_are_spread_evenly() {
        let (mut slots, now) = (Gcra::default(), 0);
        let waits: Vec<_> = (0..4).map(|_| take(&mut slots, &pace(100, 1), 1, now)).collect();
        assert_eq!(waits, [0, 100, 200, 300]);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let (mut slots, now) = (Gcra::default(), 0);
        for start in [now - HOUR, now, now + HOUR] {
            let waits: Vec<_> = (0..5).map(|_| take(&mut slots, &pace(100, 3), 1, start)).collect();
            assert_eq!(waits, [0, 0, 0, 100, 200]);
        }
    }

    #[test]
    fn a_cost_above_the_burst_is_paid_afterwards() {
        let (mut slots, now) = (Gcra::default(), 0);
        let pace = pace(10, 5);
        assert_eq!(take(&mut slots, &pace, 50, now), 0);
        assert_eq!(take(&mut slots, &pace, 5, now), 500);
        assert_eq!(take(&mut slots, &pace, 1, now), 510);
    }

    #[test]
    fn costs_are_settled() {
        let (mut slots, now) = (Gcra::default(), 0);
        let pace = pace(10, 1);
        assert_eq!(take(&mut slots, &pace, 50, now), 0);
        slots.settle(&pace, 50, 20);
        assert_eq!(take(&mut slots, &pace, 1, now), 200);
        slots.settle(&pace, 1, 11);
        assert_eq!(take(&mut slots, &pace, 1, now), 310);
    }

    #[test]
    fn only_the_last_slot_goes_back() {
        let (mut slots, now) = (Gcra::default(), 0);
        let pace = pace(100, 1);
        let taken: Vec<_> = (0..3)
            .map(|_| {
                let at = slots.next(&pace, 1, now);
                slots.take(&pace, 1, at).unwrap()
            })
            .collect();
        assert!(!slots.give_back(&taken[0]));
        assert!(slots.give_back(&taken[2]) && slots.give_back(&taken[1]));
        assert_eq!(take(&mut slots, &pace, 1, now), 100);
    }

    #[test]
    fn a_slot_beyond_the_clock_is_none() {
        let (mut slots, now) = (Gcra::default(), 0);
        let slow = Pace::new(Duration::MAX, 1);
        let ends = (0..100).map_while(|_| {
            let at = slots.next(&slow, u32::MAX, now);
            slots.take(&slow, u32::MAX, at).map(|it| it.after().end())
        });
        let ends: Vec<_> = ends.collect();
        assert!(ends.is_sorted() && (1..100).contains(&ends.len()), "{ends:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// 100,000 checks that never wait, beside those of governor.
        #[test]
        fn grants_equal_governors(
            interval in 1..200_u32,
            burst in 1..10_u32,
            steps in proptest::collection::vec((0..400_u32, 0..4_u32), 250),
            start in -HOUR..HOUR,
        ) {
            let pace = pace(interval, burst);
            let period = Duration::from_millis(interval.into());
            let burst = NonZeroU32::new(burst).unwrap();
            let quota = Quota::with_period(period).unwrap().allow_burst(burst);
            let clock = FakeRelativeClock::default();
            let governor = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut slots, mut now) = (Gcra::default(), start);
            for (pause, cost) in steps {
                let cost = NonZeroU32::new(1 + cost % burst).unwrap();
                clock.advance(Duration::from_millis(pause.into()));
                now += i64::from(pause) * MILLI;
                let ours = slots.next(&pace, cost.get(), now) == now;
                prop_assert_eq!(ours, governor.check_n(cost).unwrap().is_ok());
                if ours {
                    slots.take(&pace, cost.get(), now).unwrap();
                }
            }
        }
    }
}
