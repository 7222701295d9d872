//! The permits of one limit, and the order in which requests wait for them, without locks and clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::{mem, time::Duration};

use crate::common::clock::Instant;
use crate::common::queue::MOST_WAITERS;
use crate::host::limit::QueueOrder;

/// A queue that has not been empty for this long is a standing one.
const STANDING: Duration = Duration::from_millis(100);

/// The permits of one limit and the requests without one. `W` wakes a request.
///
/// Invariant: no request waits while a permit is free.
#[derive(Debug)]
pub(super) struct Queue<W> {
    limit: u32,
    order: QueueOrder,
    in_flight: u32,
    /// The permits in use whose response head has arrived.
    bodies: u32,
    /// By arrival.
    waiting: BTreeMap<u64, Place<W>>,
    /// Requests that have a permit and have not noticed yet.
    granted: BTreeSet<u64>,
    arrivals: u64,
    /// The time at which the first of the requests that wait joined an empty queue; `None` before any
    /// request waited.
    emptied: Option<Instant>,
}

#[derive(Debug)]
struct Place<W> {
    wake: W,
    /// Set if the request is of no use after some time.
    is_hurried: bool,
}

/// The place that a request left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left<W> {
    Waiting(W),
    Granted,
    Nothing,
}

/// The error of a queue in which as many wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<W> Queue<W> {
    pub(super) fn new(limit: u32, order: QueueOrder) -> Self {
        Self {
            limit,
            order,
            in_flight: 0,
            bodies: 0,
            waiting: BTreeMap::new(),
            granted: BTreeSet::new(),
            arrivals: 0,
            emptied: None,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the number of permits in use.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the number of permits that responses hold whose body has not ended.
    pub(super) fn bodies(&self) -> u32 {
        self.bodies
    }

    /// Returns the number of requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Sets limit and order. A lower limit takes effect as permits come back; after a higher one
    /// [`grant`](Self::grant) has to follow.
    pub(super) fn set(&mut self, limit: u32, order: QueueOrder) {
        (self.limit, self.order) = (limit, order);
    }

    /// Sets the limit alone; see [`set`](Self::set).
    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Takes a permit if one is free.
    pub(super) fn acquire(&mut self) -> bool {
        let is_free = self.in_flight < self.limit && self.waiting.is_empty();
        self.in_flight += u32::from(is_free);
        is_free
    }

    /// Takes a permit even if none is free.
    pub(super) fn force(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Adds a request that waits, and returns its place.
    pub(super) fn join(&mut self, wake: W, is_hurried: bool, now: Instant) -> Result<u64, Full> {
        if self.waiting.len() >= MOST_WAITERS {
            return Err(Full);
        }
        if self.waiting.is_empty() {
            self.emptied = Some(now);
        }
        let place = self.arrivals;
        self.arrivals += 1;
        self.waiting.insert(place, Place { wake, is_hurried });
        Ok(place)
    }

    /// Replaces what wakes a request, and returns the former; the new one if the request does not
    /// wait.
    pub(super) fn replace(&mut self, place: u64, wake: W) -> Result<W, W> {
        match self.waiting.get_mut(&place) {
            Some(it) => Ok(mem::replace(&mut it.wake, wake)),
            None => Err(wake),
        }
    }

    /// Takes the permit that a request was granted; `false` if there is none.
    pub(super) fn take(&mut self, place: u64) -> bool {
        self.granted.remove(&place)
    }

    /// Takes a request out. A permit that it was granted has to be [released](Self::release).
    pub(super) fn leave(&mut self, place: u64) -> Left<W> {
        match self.waiting.remove(&place) {
            Some(it) => Left::Waiting(it.wake),
            None if self.granted.remove(&place) => Left::Granted,
            None => Left::Nothing,
        }
    }

    /// Records that the head of a response arrived whose body holds its permit.
    pub(super) fn hold_body(&mut self) {
        self.bodies = self.bodies.saturating_add(1);
    }

    /// Returns a permit to the limit. [`grant`](Self::grant) has to follow.
    pub(super) fn release(&mut self, held_body: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bodies = self.bodies.saturating_sub(u32::from(held_body));
    }

    /// Gives a free permit to the next request, and returns what wakes it.
    pub(super) fn grant(&mut self, now: Instant) -> Option<W> {
        if self.in_flight >= self.limit {
            return None;
        }
        let place = *self.next(now)?;
        let next = self.waiting.remove(&place)?;
        self.in_flight += 1;
        self.granted.insert(place);
        Some(next.wake)
    }

    /// Returns the next request: the oldest, or the newest of a standing queue. The oldest also where
    /// it has all the time there is, because it would starve.
    fn next(&self, now: Instant) -> Option<&u64> {
        let (oldest, place) = self.waiting.first_key_value()?;
        let is_standing =
            self.emptied.is_some_and(|it| now.saturating_duration_since(it) > STANDING);
        match self.order {
            QueueOrder::Adaptive if is_standing && place.is_hurried => {
                self.waiting.last_key_value().map(|(newest, _)| newest)
            }
            QueueOrder::Adaptive | QueueOrder::Fair => Some(oldest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A limit of one that is in use, and so many requests that wait.
    fn busy(order: QueueOrder, waiting: u64, is_hurried: bool, now: Instant) -> Queue<u64> {
        let mut queue = Queue::new(1, order);
        assert!(queue.acquire());
        for place in 0..waiting {
            assert_eq!(queue.join(place, is_hurried, now), Ok(place));
        }
        queue
    }

    /// The order in which requests get permits from `at` on.
    fn served(mut queue: Queue<u64>, at: Instant) -> Vec<u64> {
        let mut order = vec![];
        loop {
            queue.release(false);
            let Some(next) = queue.grant(at) else { return order };
            assert!(queue.take(next) && !queue.take(next));
            order.push(next);
        }
    }

    #[test]
    fn a_short_queue_is_served_in_order_of_arrival() {
        let now = Instant::now();
        assert_eq!(
            served(busy(QueueOrder::Adaptive, 4, true, now), now + 100 * MILLI),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn a_standing_queue_is_served_newest_first() {
        let now = Instant::now();
        assert_eq!(
            served(busy(QueueOrder::Adaptive, 4, true, now), now + 101 * MILLI),
            [3, 2, 1, 0]
        );
    }

    #[test]
    fn requests_without_a_limit_of_time_keep_their_order() {
        let (now, late) = (Instant::now(), Instant::now() + 1_000 * MILLI);
        assert_eq!(served(busy(QueueOrder::Adaptive, 4, false, now), late), [0, 1, 2, 3]);
        assert_eq!(served(busy(QueueOrder::Fair, 4, true, now), late), [0, 1, 2, 3]);
    }

    #[test]
    fn a_queue_that_was_empty_in_between_is_not_standing() {
        let now = Instant::now();
        let mut queue = busy(QueueOrder::Adaptive, 1, true, now);
        let late = now + 1_000 * MILLI;
        assert_eq!(queue.leave(0), Left::Waiting(0));
        for place in 1..4 {
            assert_eq!(queue.join(place, true, late), Ok(place));
        }
        assert_eq!(served(queue, late + 100 * MILLI), [1, 2, 3]);
    }

    #[test]
    fn a_lower_limit_takes_effect_as_permits_come_back() {
        let now = Instant::now();
        let mut queue = Queue::new(3, QueueOrder::Fair);
        assert!((0..3).all(|_| queue.acquire()) && !queue.acquire());
        queue.set(1, QueueOrder::Fair);
        queue.join(0, false, now).unwrap();
        for _ in 0..2 {
            queue.release(false);
            assert_eq!(queue.grant(now), None);
        }
        queue.release(false);
        assert_eq!((queue.grant(now), queue.in_flight()), (Some(0), 1));
        queue.join(1, false, now).unwrap();
        queue.set(2, QueueOrder::Fair);
        assert_eq!((queue.grant(now), queue.grant(now)), (Some(1), None));
    }

    #[test]
    fn a_probe_goes_beyond_the_limit() {
        let mut queue = busy(QueueOrder::Fair, 0, false, Instant::now());
        queue.force();
        assert_eq!((queue.in_flight(), queue.limit()), (2, 1));
        queue.release(false);
        assert!(!queue.acquire());
        queue.set_limit(2);
        assert!(queue.acquire());
        assert_eq!((queue.in_flight(), queue.limit()), (2, 2));
    }

    #[test]
    fn bodies_are_counted_until_their_permits_return() {
        let mut queue = busy(QueueOrder::Fair, 0, false, Instant::now());
        queue.force();
        queue.hold_body();
        queue.hold_body();
        assert_eq!(queue.bodies(), 2);
        queue.release(false);
        assert_eq!(queue.bodies(), 2);
        queue.release(true);
        assert_eq!(queue.bodies(), 1);
    }

    #[test]
    fn a_request_that_has_left_leaves_nothing() {
        let mut queue = busy(QueueOrder::Fair, 1, false, Instant::now());
        assert_eq!(queue.leave(0), Left::Waiting(0));
        assert_eq!(queue.leave(0), Left::Nothing);
    }

    #[test]
    fn no_more_wait_than_the_bound() {
        let now = Instant::now();
        let mut queue = busy(QueueOrder::Fair, MOST_WAITERS as u64, false, now);
        assert_eq!(queue.join(0, false, now), Err(Full));
        assert_eq!(queue.leave(7), Left::Waiting(7));
        assert!(queue.join(0, false, now).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever comes in whatever order: permits are as many as holders, never more than the
        /// limit allowed when they were given, and none is free while a request waits.
        #[test]
        fn permits_are_exact(steps in proptest::collection::vec((0..7_u8, any::<u8>()), 0..300)) {
            let mut now = Instant::now();
            let mut queue = Queue::new(3, QueueOrder::Adaptive);
            let (mut held, mut waiting, mut granted) = (0_u32, vec![], vec![]);
            for (step, number) in steps {
                now += u32::from(number) * MILLI;
                match step {
                    0 | 1 => match queue.acquire() {
                        true => held += 1,
                        false => waiting.push(queue.join(0_u8, number % 2 == 0, now).unwrap()),
                    },
                    2 if held > 0 => {
                        held -= 1;
                        queue.release(false);
                    }
                    3 if !waiting.is_empty() => {
                        let place = waiting.swap_remove(usize::from(number) % waiting.len());
                        prop_assert_eq!(queue.leave(place), Left::Waiting(0));
                    }
                    4 if !granted.is_empty() => {
                        let place = granted.swap_remove(usize::from(number) % granted.len());
                        // A wake-up that races the drop: the permit goes back.
                        prop_assert_eq!(queue.leave(place), Left::Granted);
                        queue.release(false);
                    }
                    5 if !granted.is_empty() => {
                        prop_assert!(queue.take(granted.pop().unwrap()));
                        held += 1;
                    }
                    6 => queue.set(u32::from(number % 5), QueueOrder::Adaptive),
                    _ => {}
                }
                while queue.grant(now).is_some() {
                    prop_assert!(queue.in_flight() <= queue.limit());
                    let at = waiting.iter().position(|it| queue.granted.contains(it)).unwrap();
                    granted.push(waiting.swap_remove(at));
                }
                prop_assert_eq!(queue.in_flight(), held + granted.len() as u32);
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert!(waiting.is_empty() || queue.in_flight() >= queue.limit());
            }
        }
    }
}
