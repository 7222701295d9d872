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
        Self { version: AtomicU64::new(rules.version), rates, learner: OnceLock::new() }
    }

    /// Returns the learned quotas.
    pub(crate) fn learner(&self) -> &Arc<Learner> {
        self.learner.get_or_init(Arc::default)
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
        let costs = rules.costs(request).map(|it| it.saturating_mul(nodes));
        let mut rates = self.lock();
        let at = rates.iter().zip(&costs).try_fold(now, |at, (lane, cost)| {
            Some(at.max(lane.slots.next(&lane.pace, *cost, now)?))
        });
        let wait = at.map_or(Duration::MAX, |it| it.saturating_duration_since(now));
        let too_long = Limited(LimitedBy::Rate { retry_in: wait });
        let at = at.filter(|_| wait.is_zero() || wait <= longest).ok_or(too_long)?;
        let mut taken = [None; MOST_RATES];
        for ((lane, cost), taken) in rates.iter().zip(&costs).zip(&mut taken) {
            let mut slots = lane.slots;
            *taken = Some(slots.take(&lane.pace, *cost, at).ok_or(too_long)?);
        }
        for (lane, taken) in rates.iter_mut().zip(&taken) {
            lane.slots = taken.map_or(lane.slots, |it| it.after());
        }
        drop(rates);
        Ok(Slot { pacer: Arc::clone(self), at, costs, taken, is_used: false })
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
    at: Instant,
    costs: [u32; MOST_RATES],
    taken: [Option<Taken>; MOST_RATES],
    is_used: bool,
}

impl Slot {
    /// Returns the time of the slot.
    pub(crate) fn at(&self) -> Instant {
        self.at
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
        let settled = rules.settled(outcome);
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
