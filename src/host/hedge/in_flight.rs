//! The requests in flight to a host that may be a crowd, beside their mean.

use std::time::Duration;

use crate::common::clock::Instant;

/// The time over which the mean is taken.
const MEAN_TIME: Duration = Duration::from_secs(30);

/// The mean of a host that is new follows sooner: over a second, for the first five.
const FIRST_MEAN_TIME: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_secs(5);

/// So many times the mean, and so many more, are a crowd.
const CROWD: (f64, f64) = (2.7, 3.0);

/// The requests in flight to one host, without those that were overtaken, and their mean over 30 s.
///
/// A host that has become slow has more requests in flight than usual: more hedges would make it
/// slower. A request that many later ones have overtaken is slow for a reason of its own, and no sign
/// of that: it is the tail, and what hedges are for. If it counted, a few slow requests without a hedge
/// would keep the next ones from theirs.
///
/// In a simulation of a host that becomes half as fast and works on for requests that were cancelled,
/// the median so is 120 to 400 ms, and 607 ms and more without it. A factor of 2.5 can cost a host that
/// notices cancels what hedges bring: 196 in place of 43 ms.
///
/// A request belongs to the generation in which it is sent. A generation ends when as many of its
/// requests as are a crowd have their responses. What is left of the generation before it was sent
/// earlier than all of these, and is no longer counted.
#[derive(Debug)]
pub(super) struct InFlight {
    generation: u64,
    /// Of this generation: in flight, and with a response.
    current: u32,
    responded: u32,
    /// In flight of the generation before.
    previous: u32,
    mean: f64,
    began: Option<Instant>,
    last: Instant,
}

impl InFlight {
    pub(super) fn new(now: Instant) -> Self {
        let (generation, current, responded, previous) = (0, 0, 0, 0);
        Self { generation, current, responded, previous, mean: 0.0, began: None, last: now }
    }

    /// Counts a request that is sent. Returns its generation.
    #[must_use]
    pub(super) fn enter(&mut self, now: Instant) -> u64 {
        let began = *self.began.get_or_insert(now);
        let is_new = now.saturating_duration_since(began) < FIRST;
        let over = if is_new { FIRST_MEAN_TIME } else { MEAN_TIME };
        let passed = now.saturating_duration_since(self.last);
        let weight = (passed.as_secs_f64() / over.as_secs_f64()).min(1.0);
        self.mean += (f64::from(self.count()) - self.mean) * weight;
        self.last = self.last.max(now);
        self.current = self.current.saturating_add(1);
        self.generation
    }

    /// Counts a request of this generation that has failed, or was dropped.
    pub(super) fn leave(&mut self, generation: u64) {
        match self.generation.wrapping_sub(generation) {
            0 => self.current = self.current.saturating_sub(1),
            1 => self.previous = self.previous.saturating_sub(1),
            _ => {}
        }
    }

    /// Counts a request of this generation that has its response.
    pub(super) fn respond(&mut self, generation: u64) {
        self.leave(generation);
        if generation != self.generation {
            return;
        }
        self.responded = self.responded.saturating_add(1);
        if f64::from(self.responded) > self.usual() {
            self.generation = self.generation.wrapping_add(1);
            (self.previous, self.current, self.responded) = (self.current, 0, 0);
        }
    }

    /// Returns whether so many more requests than usual are in flight that the host must be slow.
    pub(super) fn is_crowded(&self) -> bool {
        f64::from(self.count()) > self.usual()
    }

    /// Returns the most requests in flight that are no crowd.
    fn usual(&self) -> f64 {
        self.mean.mul_add(CROWD.0, CROWD.1)
    }

    /// Returns the requests in flight that were not overtaken.
    pub(super) fn count(&self) -> u32 {
        self.current.saturating_add(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends so many requests a second that each take as long, for some seconds. They go on after that.
    fn run(state: &mut InFlight, now: &mut Instant, per_second: u32, took: Duration, time: u32) {
        let mut under_way = VecDeque::<(Instant, u64)>::new();
        for _ in 0..time * per_second {
            *now += SECOND / per_second;
            while under_way.front().is_some_and(|it| it.0 <= *now) {
                under_way.pop_front().into_iter().for_each(|it| state.respond(it.1));
            }
            under_way.push_back((*now + took, state.enter(*now)));
        }
    }

    #[test]
    fn the_mean_is_quick_to_learn_at_first() {
        let now = Instant::now();
        for (passed, over) in [(FIRST / 2, FIRST_MEAN_TIME), (FIRST, MEAN_TIME)] {
            let mut state = InFlight::new(now);
            let _ = (state.enter(now), state.enter(now + passed));
            let expected = (passed.as_secs_f64() / over.as_secs_f64()).min(1.0);
            assert_eq!(state.mean, expected, "after {passed:?}");
        }
    }

    #[test]
    fn a_steady_host_is_not_crowded_and_a_slow_one_is() {
        let mut now = Instant::now();
        let mut state = InFlight::new(now);
        run(&mut state, &mut now, 100, Duration::from_millis(50), 60);
        assert!(!state.is_crowded(), "{state:?}");
        let usual = state.count();
        run(&mut state, &mut now, 100, Duration::from_millis(400), 2);
        assert!(state.is_crowded() && state.count() > 4 * usual, "{state:?}");
    }

    #[test]
    fn a_few_requests_are_no_crowd() {
        let now = Instant::now();
        let mut state = InFlight::new(now);
        let mut generations: Vec<_> = (0..3).map(|_| state.enter(now)).collect();
        assert!(!state.is_crowded());
        generations.push(state.enter(now));
        assert!(state.is_crowded());
        generations.into_iter().for_each(|it| state.leave(it));
        assert_eq!((state.count(), state.is_crowded()), (0, false));
    }

    #[test]
    fn a_new_host_is_known_after_seconds() {
        let mut now = Instant::now();
        let mut state = InFlight::new(now);
        run(&mut state, &mut now, 1_000, Duration::from_millis(100), 4);
        assert!(!state.is_crowded() && state.mean > 80.0, "{state:?}");
    }

    #[test]
    fn requests_that_others_overtake_are_no_crowd() {
        let now = Instant::now();
        let mut state = InFlight::new(now);
        let slow: Vec<_> = (0..20).map(|_| state.enter(now)).collect();
        assert!(state.is_crowded());
        // Failures and requests that are dropped overtake nothing.
        for _ in 0..100 {
            let failed = state.enter(now);
            state.leave(failed);
        }
        assert!(state.is_crowded());
        for _ in 0..8 {
            let quick = state.enter(now);
            state.respond(quick);
        }
        assert_eq!((state.count(), state.is_crowded()), (0, false));
        slow.into_iter().for_each(|it| state.respond(it));
        assert_eq!((state.count(), state.responded), (0, 0));
    }

    proptest! {
        /// The request at an index of those in flight ends, with a response or without; or one is sent.
        #[test]
        fn all_are_counted_but_those_that_were_overtaken(
            steps in proptest::collection::vec((0_usize..40, 0_u8..4), 1..400),
        ) {
            let mut now = Instant::now();
            let mut state = InFlight::new(now);
            // By the order of sends: the generation, and the responses to requests sent later.
            let mut in_flight = BTreeMap::<usize, (u64, u32)>::new();
            for (order, (which, step)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(5);
                let chosen = in_flight.keys().nth(which).copied().filter(|_| step < 2);
                match chosen.and_then(|it| Some((it, in_flight.remove(&it)?.0))) {
                    None => drop(in_flight.insert(order, (state.enter(now), 0))),
                    Some((_, generation)) if step == 0 => state.leave(generation),
                    Some((ended, generation)) => {
                        state.respond(generation);
                        in_flight.range_mut(..ended).for_each(|(_, it)| it.1 += 1);
                    }
                }
                let counted = in_flight.values().filter(|it| state.generation - it.0 < 2).count();
                prop_assert_eq!(state.count() as usize, counted);
                for (generation, overtaken) in in_flight.values() {
                    let is_left_out = state.generation - generation >= 2;
                    prop_assert!(!is_left_out || *overtaken > 3, "{:?}", state);
                }
            }
        }
    }
}
