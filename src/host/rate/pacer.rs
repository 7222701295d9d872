//! The slots of one host behind a lock: reserved in all rates or in none.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use reqwest::Request;

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::host::limit::{Limited, LimitedBy};
use crate::host::rate::buckets::{Buckets, Route};
use crate::host::rate::lanes::{Costs, Lanes, Slots};
use crate::host::rate::{Learner, RateLimit};
use crate::outcome::Outcome;

/// The rates of one host or key, shared by all requests there.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    rates: Mutex<Lanes>,
    /// Created when the first request learns.
    learner: OnceLock<Arc<Learner>>,
    buckets: OnceLock<Arc<Buckets>>,
}

/// The rates of one scope that a request keeps to, and the slot that its attempt has there.
///
/// A slot is released before the next one is reserved, and when this is dropped.
#[derive(Debug)]
pub(crate) struct Paced<'p> {
    pub(crate) rules: &'p RateLimit,
    pub(crate) pacer: Arc<Pacer>,
    slot: Option<Slot>,
}

/// A reserved slot. Plain data, so that it costs no reference count: [`Paced`] gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    at: Instant,
    /// The nodes that a fleet's rate was shared by.
    nodes: u32,
    costs: Costs,
    taken: Slots,
    is_used: bool,
}

/// Reserves the next slot for a request in all rates, or in none; in an even share of those of a
/// fleet with so many nodes, and not in those if the fleet has let the request go (`None`). Returns
/// its time; `None` if there is no rate to keep to.
///
/// # Errors
///
/// [`Limited`] if it begins later than after `longest`; then nothing is reserved.
pub(crate) fn reserve(
    rates: &mut [Paced<'_>],
    request: &Request,
    nodes: Option<u32>,
    longest: Duration,
    now: Instant,
) -> Result<Option<Instant>, Limited> {
    rates.iter_mut().for_each(Paced::release);
    if let ([Paced { rules, pacer, slot }], Some(nodes)) = (&mut *rates, nodes) {
        let reserved = slot.insert(pacer.reserve(rules, request, nodes, longest, now)?);
        return Ok(Some(reserved.at));
    }
    // The rates that are left do not divide.
    let share = nodes.unwrap_or(1);
    let asked = rates.iter_mut().filter(|it| nodes.is_some() || !it.rules.is_of_fleet);
    // Outside of the locks: it is the caller's code.
    let with_costs = asked.map(|it| (it.rules.costs(request, share), it));
    let mut all: Vec<_> = with_costs.collect();
    // All are locked at once, in one order for all requests, so that none waits for another.
    all.sort_by_key(|it| Arc::as_ptr(&it.1.pacer));
    all.dedup_by_key(|it| Arc::as_ptr(&it.1.pacer));
    let mut lanes: Vec<_> = all.iter().map(|it| it.1.pacer.lanes(it.1.rules)).collect();
    let at = all.iter().zip(&mut lanes).try_fold(now, |at, ((costs, _), lanes)| {
        let moment = lanes.moment(now);
        Some(at.max(later(now, lanes.next(costs, moment) - moment)?))
    });
    let at = within(at, longest, now)?;
    let taken = all.iter().zip(&mut lanes).map(|((costs, _), lanes)| {
        let moment = lanes.moment(at);
        lanes.plan(costs, moment)
    });
    let taken: Vec<_> = taken.collect::<Option<_>>().ok_or_else(|| too_long(at, now))?;
    lanes.iter_mut().zip(&taken).for_each(|(lanes, taken)| lanes.take(taken));
    drop(lanes);
    let at_all = (!all.is_empty()).then_some(at);
    for ((costs, paced), taken) in all.into_iter().zip(taken) {
        paced.slot = Some(Slot { at, nodes: share, costs, taken, is_used: false });
    }
    Ok(at_all)
}

/// Returns the time so many nanoseconds later; `None` if that is beyond the clock.
fn later(now: Instant, wait: i64) -> Option<Instant> {
    if wait <= 0 { Some(now) } else { now.checked_add(Duration::from_nanos(wait.unsigned_abs())) }
}

fn within(at: Option<Instant>, longest: Duration, now: Instant) -> Result<Instant, Limited> {
    let at = at.ok_or(Limited(LimitedBy::Rate { retry_in: Duration::MAX }))?;
    if at.saturating_duration_since(now) > longest {
        return Err(too_long(at, now));
    }
    Ok(at)
}

fn too_long(at: Instant, now: Instant) -> Limited {
    Limited(LimitedBy::Rate { retry_in: at.saturating_duration_since(now) })
}

impl Pacer {
    /// Returns the learned quotas.
    pub(crate) fn learner(&self) -> &Arc<Learner> {
        self.learner.get_or_init(Arc::default)
    }

    /// Returns the learned quotas if a request has learned them.
    pub(crate) fn used_learner(&self) -> Option<&Arc<Learner>> {
        self.learner.get()
    }

    /// Returns the route of a request, if quotas are those of buckets.
    pub(crate) fn route(&self, rules: &RateLimit, request: &Request) -> Option<Route> {
        let route = rules.route_of(request)?;
        Some(self.buckets.get_or_init(Arc::default).route(&route))
    }

    /// Locks the lanes of these rules.
    fn lanes(&self, rules: &RateLimit) -> MutexGuard<'_, Lanes> {
        let mut lanes = lock(&self.rates);
        lanes.adopt(rules);
        lanes
    }

    /// Reserves the next slot for a request, if that begins within `longest`; in an even share of the
    /// rates, if so many nodes share them.
    ///
    /// # Errors
    ///
    /// [`Limited`] if it is later; then nothing is reserved.
    pub(crate) fn reserve(
        &self,
        rules: &RateLimit,
        request: &Request,
        nodes: u32,
        longest: Duration,
        now: Instant,
    ) -> Result<Slot, Limited> {
        // Outside of the lock: it is the caller's code.
        let costs = rules.costs(request, nodes);
        let mut lanes = self.lanes(rules);
        let moment = lanes.moment(now);
        let next = lanes.next(&costs, moment);
        let at = match next - moment {
            0 => now,
            wait => within(later(now, wait), longest, now)?,
        };
        let taken = lanes.plan(&costs, next).ok_or_else(|| too_long(at, now))?;
        lanes.take(&taken);
        drop(lanes);
        Ok(Slot { at, nodes, costs, taken, is_used: false })
    }

    /// Returns whether slots are reserved that have not come yet.
    pub(crate) fn is_ahead(&self, now: Instant) -> bool {
        let mut lanes = lock(&self.rates);
        let now = lanes.moment(now);
        lanes.end() > now
    }
}

impl<'p> Paced<'p> {
    /// Creates it without a slot.
    pub(crate) fn new(rules: &'p RateLimit, pacer: Arc<Pacer>) -> Self {
        Self { rules, pacer, slot: None }
    }

    /// Uses the slot: the attempt is sent.
    pub(crate) fn spend(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.is_used = true;
        }
    }

    /// Ends the slot, if there is one: unless the attempt was sent, it goes back.
    pub(crate) fn release(&mut self) {
        if self.slot.as_ref().is_some_and(|it| !it.is_used) {
            self.refund();
        }
        self.slot = None;
    }

    /// Gives the slot back, unless another was taken after it: nothing was sent.
    pub(crate) fn refund(&mut self) {
        if let Some(slot) = self.slot.take() {
            lock(&self.pacer.rates).give_back(self.rules, &slot.taken);
        }
    }

    /// Ends the slot of an attempt that was sent, and corrects its costs by the outcome.
    pub(crate) fn settle(&mut self, outcome: &Outcome<'_>) {
        let Some(slot) = self.slot.take().filter(|_| self.rules.settles()) else { return };
        // Outside of the lock: it is the caller's code.
        let settled = self.rules.settled(outcome, slot.nodes);
        lock(&self.pacer.rates).settle(self.rules, &slot.costs, settled);
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, Url};

    use super::*;
    use crate::host::rate::Rate;
    use crate::outcome::{Delivery, Failure, FailureKind, OutcomeResult};

    const SECOND: Duration = Duration::from_secs(1);

    fn a_second() -> (Arc<Pacer>, RateLimit) {
        let rules = RateLimit::from(Rate::per_second(1));
        (Arc::<Pacer>::default(), rules)
    }

    impl Pacer {
        fn next<'p>(
            self: &Arc<Self>,
            rules: &'p RateLimit,
            longest: Duration,
            now: Instant,
        ) -> Result<Paced<'p>, Limited> {
            let request = Request::new(Method::GET, "http://a.example/".parse().unwrap());
            let mut paced = [Paced::new(rules, Arc::clone(self))];
            reserve(&mut paced, &request, Some(1), longest, now)?;
            let [paced] = paced;
            Ok(paced)
        }
    }

    impl Paced<'_> {
        fn at(&self) -> Instant {
            self.slot.as_ref().unwrap().at
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
    fn slots_are_as_far_apart_as_the_rate_says() {
        let (rules, now) = (RateLimit::from(Rate::per(4, 2 * SECOND)), Instant::now());
        let pacer = Arc::<Pacer>::default();
        pacer.next(&rules, Duration::ZERO, now).unwrap().spend();
        assert_eq!(pacer.next(&rules, SECOND, now).unwrap().at(), now + SECOND / 2);
        let shown = "Rate { count: 4, per: 2s, burst: 1, has_costs: false }";
        assert_eq!(format!("{:?}", Rate::per(4, 2 * SECOND)), shown);
    }

    #[test]
    fn other_rules_count_from_the_next_slot_on() {
        let ((pacer, rules), now) = (a_second(), Instant::now());
        pacer.next(&rules, Duration::ZERO, now).unwrap().spend();
        assert_eq!(pacer.next(&rules, SECOND, now).unwrap().at(), now + SECOND);
        let slower = RateLimit::from(Rate::per(1, 10 * SECOND));
        let later = now + 20 * SECOND;
        pacer.next(&slower, Duration::ZERO, later).unwrap().spend();
        assert_eq!(pacer.next(&slower, 10 * SECOND, later).unwrap().at(), later + 10 * SECOND);
    }

    /// Takes this many slots at once.
    fn fill(pacer: &Arc<Pacer>, rules: &RateLimit, count: u32, now: Instant) {
        (0..count).for_each(|_| pacer.next(rules, Duration::MAX, now).unwrap().spend());
    }

    /// Returns how long the next request waits after a change to these rules.
    fn wait(pacer: &Arc<Pacer>, rules: impl Into<RateLimit>, now: Instant) -> Duration {
        let rules = rules.into();
        let next = pacer.next(&rules, Duration::MAX, now).unwrap();
        next.at() - now
    }

    #[test]
    fn a_rate_goes_on_with_the_slots_of_its_kind_wherever_it_is() {
        let second = || RateLimit::from(Rate::per_second(1));
        let (hour, tokens) = (Rate::per_hour(60), Rate::per_hour(60).cost(|_| 10));
        let (rules, now) = (second().and(hour.clone()).and(tokens.clone()), Instant::now());
        let pacer = Arc::<Pacer>::default();
        fill(&pacer, &rules, 1, now);
        let minutes = |count: u32| 60 * count * SECOND;
        for _ in 0..2 {
            assert_eq!(wait(&pacer, second(), now), SECOND);
            assert_eq!(wait(&pacer, hour.clone(), now), minutes(1));
            assert_eq!(
                wait(&pacer, RateLimit::from(hour.clone()).and(Rate::per_second(1)), now),
                minutes(1)
            );
            assert_eq!(wait(&pacer, tokens.clone(), now), minutes(10));
            assert_eq!(wait(&pacer, second().and(tokens.clone()), now), minutes(10));
        }
        assert_eq!(wait(&pacer, Rate::per_hour(120), now), minutes(1), "of another number");
    }

    #[test]
    fn a_rate_of_a_new_kind_neither_forgets_slots_nor_waits_for_longer_than_its_period() {
        let now = Instant::now();
        for (before, taken, after, expected) in [
            (Rate::per_hour(2), 1, Rate::per_second(1), SECOND),
            (Rate::per_second(1), 1, Rate::per_hour(2), SECOND),
            (Rate::per_second(1), 60, Rate::per_minute(60), 60 * SECOND),
            (Rate::per_minute(60).burst(60), 60, Rate::per_hour(3_600).burst(60), SECOND),
            (Rate::per_hour(60).burst(60), 60, Rate::per_minute(60).burst(9), 52 * SECOND),
        ] {
            let rules = RateLimit::from(before);
            let pacer = Arc::<Pacer>::default();
            fill(&pacer, &rules, taken, now);
            assert_eq!(wait(&pacer, after.clone(), now), expected, "{rules:?}, then {after:?}");
        }
    }

    #[test]
    fn a_slot_is_given_back_where_it_was_taken() {
        let (plain, now) = (RateLimit::from(Rate::per_second(1)), Instant::now());
        let rules = RateLimit::from(Rate::per_hour(60)).and(Rate::per_second(1));
        let pacer = Arc::<Pacer>::default();
        let slot = pacer.next(&rules, SECOND, now).unwrap();
        lock(&pacer.rates).adopt(&plain);
        drop(slot);
        assert_eq!(wait(&pacer, plain, now), Duration::ZERO);
        assert_eq!(wait(&pacer, Rate::per_hour(60), now), Duration::ZERO);
    }

    #[test]
    fn a_cost_is_settled_at_the_pace_at_which_it_was_taken() {
        let now = Instant::now();
        let tokens = Rate::per_minute(60).burst(10).cost(|_| 1).settle(|_| Some(6));
        let rules = RateLimit::from(tokens);
        let pacer = Arc::<Pacer>::default();
        let mut paced = pacer.next(&rules, SECOND, now).unwrap();
        paced.spend();
        lock(&pacer.rates).adopt(&Rate::per_minute(1).cost(|_| 1).into());
        let url: Url = "http://a.example/".parse().unwrap();
        let failure = Failure::new(FailureKind::Other, Delivery::Responded);
        let result = OutcomeResult::Failure(failure, &std::fmt::Error);
        paced.settle(&Outcome::new(&Method::GET, &url, result));
        assert_eq!(wait(&pacer, Rate::per_minute(60).cost(|_| 1), now), 6 * SECOND);
    }

    #[test]
    fn slots_outlast_a_learned_limit() {
        let (hour, now) = (RateLimit::from(Rate::per_hour(60)), Instant::now());
        let pacer = Arc::<Pacer>::default();
        fill(&pacer, &hour, 1, now);
        lock(&pacer.rates).adopt(&RateLimit::learned());
        assert_eq!(wait(&pacer, Rate::per_minute(1), now), 60 * SECOND);
    }

    #[test]
    fn a_request_keeps_to_its_own_rates_though_others_were_adopted_since() {
        let (second, hour) = (Rate::per_second(1), Rate::per_hour(60));
        let (rules, now) = (RateLimit::from(hour.clone()), Instant::now());
        let pacer = Arc::<Pacer>::default();
        lock(&pacer.rates).adopt(&second.into());
        fill(&pacer, &rules, 1, now);
        assert_eq!(wait(&pacer, hour, now), 60 * SECOND);
    }

    #[test]
    fn it_is_ahead_while_a_lane_that_rests_is() {
        let (rules, now) = (RateLimit::from(Rate::per_hour(60)), Instant::now());
        let pacer = Arc::<Pacer>::default();
        fill(&pacer, &rules, 1, now);
        lock(&pacer.rates).adopt(&Rate::per_second(1).into());
        assert!(pacer.is_ahead(now + 59 * SECOND) && !pacer.is_ahead(now + 60 * SECOND));
    }

    #[test]
    fn as_many_lanes_rest_as_are_used() {
        let (kind, now) = (|at: u32| Rate::per(1, at * SECOND), Instant::now());
        let four = |all: [u32; 4]| {
            let [first, rest @ ..] = all.map(kind);
            rest.into_iter().fold(RateLimit::from(first), RateLimit::and)
        };
        let (pacer, slow) = (Arc::<Pacer>::default(), [400, 300, 200, 100]);
        for rules in [four(slow), four([4, 3, 2, 1])] {
            fill(&pacer, &rules, 1, now);
        }
        for at in slow {
            assert_eq!(wait(&pacer, kind(at), now), at * SECOND);
        }
    }

    #[test]
    fn of_more_kinds_than_it_keeps_the_emptiest_is_forgotten() {
        let (kind, now) = (|at: u32| Rate::per(1, at * SECOND), Instant::now());
        let first = RateLimit::from(kind(3_600));
        let pacer = Arc::<Pacer>::default();
        fill(&pacer, &first, 1, now);
        for at in 1..100 {
            wait(&pacer, kind(at), now);
        }
        assert_eq!(wait(&pacer, first, now), 3_600 * SECOND);
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
        let pacer = Arc::<Pacer>::default();
        let interval = Duration::from_millis(1);
        let (start, mut now, mut random) = (Instant::now(), Instant::now(), 1_u64);
        let (mut waiting, mut used, mut dropped) = (vec![], 0_u32, 0_u32);
        let mut last = None;
        for _ in 0..1_000_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize;
            match random >> 61 {
                0..4 if waiting.len() < 100 => {
                    waiting.push(pacer.next(&rules, Duration::MAX, now).unwrap());
                }
                4 if !waiting.is_empty() => {
                    dropped += 1;
                    drop(waiting.swap_remove(at % waiting.len()));
                }
                _ => {
                    let next = (0..waiting.len()).min_by_key(|it| waiting[*it].at());
                    let Some(next) = next else { continue };
                    let mut slot: Paced<'_> = waiting.swap_remove(next);
                    now = now.max(slot.at());
                    assert!(last.is_none_or(|it| slot.at() >= it + interval));
                    last = Some(slot.at());
                    used += 1;
                    slot.spend();
                }
            }
        }
        drop(waiting);
        let (end, start) = {
            let mut lanes = lock(&pacer.rates);
            (lanes.end(), lanes.moment(start))
        };
        let took = Duration::from_nanos((end - start).unsigned_abs());
        let most = interval * (used + dropped + 100);
        assert!(took <= most, "{took:?} for {used} and {dropped} dropped");
    }
}
