//! The slots of one host behind a lock: reserved in all rates or in none.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Request;

use crate::common::clock::Instant;
use crate::host::limit::{Limited, LimitedBy};
use crate::host::rate::buckets::{Buckets, Route};
use crate::host::rate::gcra::{Gcra, Pace, Taken};
use crate::host::rate::{Learner, MOST_RATES, RateLimit};
use crate::outcome::Outcome;

/// The rates of one host or key, shared by all requests there.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// The version of the rules in `rates`.
    version: AtomicU64,
    rates: Mutex<Vec<Lane>>,
    /// Created when the first request learns.
    learner: OnceLock<Arc<Learner>>,
    buckets: OnceLock<Arc<Buckets>>,
}

/// The costs of a request, one a rate.
type Costs = [u32; MOST_RATES];

/// Reserves the next slot for a request in all rates, or in none; in an even share of those of a
/// fleet with so many nodes, and not in those if the fleet has let the request go (`None`).
///
/// # Errors
///
/// [`Limited`] if it begins later than after `longest`; then nothing is reserved.
pub(crate) fn reserve(
    rates: &[(&RateLimit, Arc<Pacer>)],
    request: &Request,
    nodes: Option<u32>,
    longest: Duration,
    now: Instant,
) -> Result<Vec<Slot>, Limited> {
    if let ([(rules, pacer)], Some(nodes)) = (rates, nodes) {
        return Ok(vec![pacer.reserve(rules, request, nodes, longest, now)?]);
    }
    // The rates that are left do not divide.
    let share = nodes.unwrap_or(1);
    let asked = rates.iter().enumerate();
    let asked = asked.filter(|(_, (rules, _))| nodes.is_some() || !rules.is_of_fleet);
    // Outside of the locks: it is the caller's code.
    let mut all: Vec<_> =
        asked.map(|(of, (rules, pacer))| (of, pacer, rules.costs(request, share))).collect();
    // All are locked at once, in one order for all requests, so that none waits for another.
    all.sort_by_key(|it| Arc::as_ptr(it.1));
    all.dedup_by_key(|it| Arc::as_ptr(it.1));
    let mut lanes: Vec<_> = all.iter().map(|it| it.1.lock()).collect();
    let at = all
        .iter()
        .zip(&lanes)
        .try_fold(now, |at, ((.., costs), lanes)| Some(at.max(next(lanes, costs, now)?)));
    let at = within(at, longest, now)?;
    let taken = all.iter().zip(&lanes).map(|((.., costs), lanes)| plan(lanes, costs, at));
    let taken: Vec<_> = taken.collect::<Option<_>>().ok_or_else(|| too_long(at, now))?;
    lanes.iter_mut().zip(&taken).for_each(|(lanes, taken)| take(lanes, taken));
    drop(lanes);
    let slots = all.into_iter().zip(taken).map(|((of, pacer, costs), taken)| Slot {
        pacer: Arc::clone(pacer),
        of,
        nodes: share,
        at,
        costs,
        taken,
        is_used: false,
    });
    Ok(slots.collect())
}

/// Returns when all rates let a request go: now, or later. `None` if that is beyond the clock.
fn next(lanes: &[Lane], costs: &Costs, now: Instant) -> Option<Instant> {
    lanes
        .iter()
        .zip(costs)
        .try_fold(now, |at, (lane, cost)| Some(at.max(lane.slots.next(&lane.pace, *cost, now)?)))
}

fn within(at: Option<Instant>, longest: Duration, now: Instant) -> Result<Instant, Limited> {
    let at = at.ok_or(Limited(LimitedBy::Rate { retry_in: Duration::MAX }))?;
    if at > now && at.saturating_duration_since(now) > longest {
        return Err(too_long(at, now));
    }
    Ok(at)
}

fn too_long(at: Instant, now: Instant) -> Limited {
    Limited(LimitedBy::Rate { retry_in: at.saturating_duration_since(now) })
}

/// Returns the slots of a request that goes at `at`; `None` if they end beyond the clock.
fn plan(lanes: &[Lane], costs: &Costs, at: Instant) -> Option<[Option<Taken>; MOST_RATES]> {
    let mut planned = [None; MOST_RATES];
    for ((lane, cost), planned) in lanes.iter().zip(costs).zip(&mut planned) {
        let mut slots = lane.slots;
        *planned = Some(slots.take(&lane.pace, *cost, at)?);
    }
    Some(planned)
}

fn take(lanes: &mut [Lane], taken: &[Option<Taken>]) {
    for (lane, taken) in lanes.iter_mut().zip(taken) {
        lane.slots = taken.map_or(lane.slots, |it| it.after());
    }
}

/// One rate and its slots.
#[derive(Clone, Copy, Debug)]
struct Lane {
    pace: Pace,
    slots: Gcra,
}

impl Pacer {
    pub(crate) fn new(rules: &RateLimit) -> Self {
        let lane = |pace| Lane { pace, slots: Gcra::default() };
        let rates = Mutex::new(rules.paces().map(lane).collect());
        let (learner, buckets) = (OnceLock::new(), OnceLock::new());
        Self { version: AtomicU64::new(rules.version), rates, learner, buckets }
    }

    /// Returns the learned quotas.
    pub(crate) fn learner(&self) -> &Arc<Learner> {
        self.learner.get_or_init(Arc::default)
    }

    /// Returns the route of a request, if quotas are those of buckets.
    pub(crate) fn route(&self, rules: &RateLimit, request: &Request) -> Option<Route> {
        let route = rules.route_of(request)?;
        Some(self.buckets.get_or_init(Arc::default).route(&route))
    }

    /// Adopts `rules`, unless it has them already. Slots that are taken stay taken.
    #[inline]
    pub(crate) fn adopt(&self, rules: &RateLimit) {
        if self.version.load(Ordering::Relaxed) != rules.version {
            self.follow(rules);
        }
    }

    #[cold]
    fn follow(&self, rules: &RateLimit) {
        let mut rates = self.lock();
        let slots: Vec<_> = rates.iter().map(|it| it.slots).collect();
        let lane = |(at, pace)| Lane { pace, slots: slots.get(at).copied().unwrap_or_default() };
        *rates = rules.paces().enumerate().map(lane).collect();
        self.version.store(rules.version, Ordering::Relaxed);
    }

    /// Reserves the next slot for a request, if that begins within `longest`; in an even share of the
    /// rates, if so many nodes share them.
    ///
    /// # Errors
    ///
    /// [`Limited`] if it is later; then nothing is reserved.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        rules: &RateLimit,
        request: &Request,
        nodes: u32,
        longest: Duration,
        now: Instant,
    ) -> Result<Slot, Limited> {
        // Outside of the lock: it is the caller's code.
        let costs = rules.costs(request, nodes);
        let mut lanes = self.lock();
        let at = within(next(&lanes, &costs, now), longest, now)?;
        let taken = plan(&lanes, &costs, at).ok_or_else(|| too_long(at, now))?;
        take(&mut lanes, &taken);
        drop(lanes);
        Ok(Slot { pacer: Arc::clone(self), of: 0, nodes, at, costs, taken, is_used: false })
    }

    /// Returns whether slots are reserved that have not come yet.
    pub(crate) fn is_ahead(&self, now: Instant) -> bool {
        self.lock().iter().any(|it| it.slots.end().is_some_and(|end| end > now))
    }

    fn give_back(&self, taken: &[Option<Taken>]) {
        let mut rates = self.lock();
        for (lane, taken) in rates.iter_mut().zip(taken.iter().flatten()) {
            lane.slots.give_back(taken);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reserved slot; dropping it before the attempt is sent gives it back, if no other was taken after
/// it.
#[must_use = "dropping a slot gives it back"]
pub(crate) struct Slot {
    pacer: Arc<Pacer>,
    /// The place of its limit among those of the request.
    of: usize,
    /// The nodes that a fleet's rate was shared by.
    nodes: u32,
    at: Instant,
    costs: Costs,
    taken: [Option<Taken>; MOST_RATES],
    is_used: bool,
}

impl Slot {
    /// Returns the time of the slot.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Returns the place of its limit among those of the request.
    pub(crate) fn of(&self) -> usize {
        self.of
    }

    /// Uses the slot: the attempt is sent.
    pub(crate) fn spend(&mut self) {
        self.is_used = true;
    }

    /// Gives the slot back: nothing was sent.
    pub(crate) fn refund(mut self) {
        self.is_used = false;
    }

    /// Corrects the costs of the attempt by its outcome.
    pub(crate) fn settle(mut self, rules: &RateLimit, outcome: &Outcome<'_>) {
        self.is_used = true;
        if !rules.settles() {
            return;
        }
        // Outside of the lock: it is the caller's code.
        let settled = rules.settled(outcome, self.nodes);
        let mut rates = self.pacer.lock();
        for ((lane, reserved), actual) in rates.iter_mut().zip(&self.costs).zip(settled) {
            if let Some(actual) = actual {
                lane.slots.settle(&lane.pace, *reserved, actual);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_used {
            self.pacer.give_back(&self.taken);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Method;

    use super::*;
    use crate::host::rate::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn a_second() -> (Arc<Pacer>, RateLimit) {
        let rules = RateLimit::from(Rate::per_second(1));
        (Arc::new(Pacer::new(&rules)), rules)
    }

    impl Pacer {
        fn next(
            self: &Arc<Self>,
            rules: &RateLimit,
            longest: Duration,
            now: Instant,
        ) -> Result<Slot, Limited> {
            let request = Request::new(Method::GET, "http://a.example/".parse().unwrap());
            self.reserve(rules, &request, 1, longest, now)
        }
    }

    #[test]
    fn a_slot_is_taken_if_it_begins_in_time() {
        let ((pacer, rules), now) = (a_second(), Instant::now());
        pacer.next(&rules, Duration::ZERO, now).unwrap().spend();
        assert!(pacer.next(&rules, SECOND - Duration::from_nanos(1), now).is_err());
        assert_eq!(pacer.next(&rules, SECOND, now).unwrap().at(), now + SECOND);
    }

    #[test]
    fn it_is_ahead_until_the_last_slot_is_over() {
        let ((pacer, rules), now) = (a_second(), Instant::now());
        assert!(!pacer.is_ahead(now));
        pacer.next(&rules, SECOND, now).unwrap().spend();
        assert!(pacer.is_ahead(now) && pacer.is_ahead(now + SECOND - Duration::from_nanos(1)));
        assert!(!pacer.is_ahead(now + SECOND));
    }

    #[test]
    fn a_refunded_slot_is_free_again_though_it_was_spent() {
        let ((pacer, rules), now) = (a_second(), Instant::now());
        let mut slot = pacer.next(&rules, SECOND, now).unwrap();
        slot.spend();
        slot.refund();
        assert_eq!(pacer.next(&rules, SECOND, now).unwrap().at(), now);
    }

    /// Whatever is dropped in whatever order: slots are never closer than the rate, and each dropped
    /// request loses one at most.
    #[test]
    fn a_million_random_drops_lose_one_slot_each_at_most() {
        let rules = RateLimit::from(Rate::per_second(1_000));
        let pacer = Arc::new(Pacer::new(&rules));
        let request = Request::new(Method::GET, "http://a.example/".parse().unwrap());
        let interval = Duration::from_millis(1);
        let (start, mut now, mut random) = (Instant::now(), Instant::now(), 1_u64);
        let (mut waiting, mut used, mut dropped) = (vec![], 0_u32, 0_u32);
        let mut last = None;
        for _ in 0..1_000_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize;
            match random >> 61 {
                0..4 if waiting.len() < 100 => {
                    waiting.push(pacer.reserve(&rules, &request, 1, Duration::MAX, now).unwrap());
                }
                4 if !waiting.is_empty() => {
                    dropped += 1;
                    drop(waiting.swap_remove(at % waiting.len()));
                }
                _ => {
                    let next = (0..waiting.len()).min_by_key(|it| waiting[*it].at());
                    let Some(next) = next else { continue };
                    let mut slot: Slot = waiting.swap_remove(next);
                    now = now.max(slot.at());
                    assert!(last.is_none_or(|it| slot.at() >= it + interval));
                    last = Some(slot.at());
                    used += 1;
                    slot.spend();
                }
            }
        }
        drop(waiting);
        let end = pacer.lock()[0].slots.end().unwrap();
        let most = interval * (used + dropped + 100);
        assert!(end - start <= most, "{:?} for {used} and {dropped} dropped", end - start);
    }
}
