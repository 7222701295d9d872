//! The slots of one rate: a pure step of GCRA, the generic cell rate algorithm.

use std::time::Duration;

use crate::common::clock::{Instant, nanos};

/// A rate, as the distance between requests and the number that may go at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

impl Pace {
    /// Returns the length of so many slots.
    fn slots(&self, count: u32) -> Duration {
        Duration::from_nanos(nanos(self.interval).saturating_mul(u64::from(count)))
    }
}

/// The time at which all slots taken so far are over; `None` before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gcra(Option<Instant>);

/// A slot that was taken, as it changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Gcra {
    /// Returns when a request of this cost may go: now, or later. `None` if that is beyond the clock.
    ///
    /// A cost above the burst waits for the end of all slots, and makes the next requests wait for
    /// its own.
    pub(crate) fn next(&self, pace: &Pace, cost: u32, now: Instant) -> Option<Instant> {
        let Some(tat) = self.0 else { return Some(now) };
        let room = pace.slots(pace.burst.saturating_sub(cost.clamp(1, pace.burst.max(1))));
        if tat.saturating_duration_since(now) <= room { Some(now) } else { tat.checked_sub(room) }
    }

    /// Takes the slots of a request that goes at `at`; `None` if they end beyond the clock.
    pub(crate) fn take(&mut self, pace: &Pace, cost: u32, at: Instant) -> Option<Taken> {
        let before = *self;
        let end = before.0.map_or(at, |tat| tat.max(at)).checked_add(pace.slots(cost))?;
        *self = Self(Some(end));
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
        let settled = self.0.and_then(|tat| tat.checked_add(more)?.checked_sub(less));
        self.0 = settled.or(self.0);
    }

    /// Returns the time at which all slots are over.
    pub(crate) fn end(&self) -> Option<Instant> {
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

    const MILLI: Duration = Duration::from_millis(1);

    fn pace(millis: u32, burst: u32) -> Pace {
        Pace { interval: millis * MILLI, burst }
    }

    /// Takes the next slot and returns how far away it is, in milliseconds.
    fn take(slots: &mut Gcra, pace: &Pace, cost: u32, now: Instant) -> u128 {
        let at = slots.next(pace, cost, now).unwrap();
        slots.take(pace, cost, at).unwrap();
        (at - now).as_millis()
    }

    #[test]
    fn requests_are_spread_evenly() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        let waits: Vec<_> = (0..4).map(|_| take(&mut slots, &pace(100, 1), 1, now)).collect();
        assert_eq!(waits, [0, 100, 200, 300]);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        for start in [now, now + Duration::from_secs(3_600)] {
            let waits: Vec<_> = (0..5).map(|_| take(&mut slots, &pace(100, 3), 1, start)).collect();
            assert_eq!(waits, [0, 0, 0, 100, 200]);
        }
    }

    #[test]
    fn a_cost_above_the_burst_is_paid_afterwards() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        let pace = pace(10, 5);
        assert_eq!(take(&mut slots, &pace, 50, now), 0);
        assert_eq!(take(&mut slots, &pace, 5, now), 500);
        assert_eq!(take(&mut slots, &pace, 1, now), 510);
    }

    #[test]
    fn costs_are_settled() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        let pace = pace(10, 1);
        assert_eq!(take(&mut slots, &pace, 50, now), 0);
        slots.settle(&pace, 50, 20);
        assert_eq!(take(&mut slots, &pace, 1, now), 200);
        slots.settle(&pace, 1, 11);
        assert_eq!(take(&mut slots, &pace, 1, now), 310);
    }

    #[test]
    fn only_the_last_slot_goes_back() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        let pace = pace(100, 1);
        let taken: Vec<_> = (0..3)
            .map(|_| {
                let at = slots.next(&pace, 1, now).unwrap();
                slots.take(&pace, 1, at).unwrap()
            })
            .collect();
        assert!(!slots.give_back(&taken[0]));
        assert!(slots.give_back(&taken[2]) && slots.give_back(&taken[1]));
        assert_eq!(take(&mut slots, &pace, 1, now), 100);
    }

    #[test]
    fn a_slot_beyond_the_clock_is_none() {
        let (mut slots, now) = (Gcra::default(), Instant::now());
        let slow = Pace { interval: Duration::MAX, burst: 1 };
        for _ in 0..3 {
            let Some(at) = slots.next(&slow, u32::MAX, now) else { return };
            if slots.take(&slow, u32::MAX, at).is_none() {
                return;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// 100,000 checks that never wait, beside those of governor.
        #[test]
        fn grants_equal_governors(
            interval in 1..200_u32,
            burst in 1..10_u32,
            steps in proptest::collection::vec((0..400_u32, 0..4_u32), 250),
        ) {
            let (pace, start) = (pace(interval, burst), Instant::now());
            let burst = NonZeroU32::new(burst).unwrap();
            let quota = Quota::with_period(pace.interval).unwrap().allow_burst(burst);
            let clock = FakeRelativeClock::default();
            let governor = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut slots, mut now) = (Gcra::default(), start);
            for (pause, cost) in steps {
                let cost = NonZeroU32::new(1 + cost % burst).unwrap();
                clock.advance(pause * MILLI);
                now += pause * MILLI;
                let ours = slots.next(&pace, cost.get(), now) == Some(now);
                prop_assert_eq!(ours, governor.check_n(cost).unwrap().is_ok());
                if ours {
                    slots.take(&pace, cost.get(), now).unwrap();
                }
            }
        }
    }
}
