//! Admission of hedges: now, or not at all.

use reqwest::Request;

use crate::breaker::Permit;
use crate::common::clock::Instant;
use crate::host::admission::Admission;
use crate::host::fleet::member::FleetEntry;
use crate::host::hedge::lanes::HedgeTurn;
use crate::host::hedge::{Hedge, HedgeRefusal};
use crate::host::limit::LimitPermit;
use crate::host::limits::HedgeSlots;

/// The permits of a hedge. When dropped it releases them; nothing is reported.
#[derive(Debug)]
pub(crate) struct HedgePermit<'p> {
    breaker: Option<Permit>,
    limit: Option<LimitPermit>,
    slots: HedgeSlots<'p>,
    /// The fleet's breaker, as the hedge found it.
    fleet_entry: FleetEntry,
}

impl HedgePermit<'_> {
    /// Gives the slots back: nothing was sent.
    pub(crate) fn refund_slots(&mut self) {
        self.slots.refund();
    }
}

impl<'p> Admission<'p> {
    /// Begins an attempt that may be hedged. `is_first` is set for the first one of its request.
    pub(crate) fn begin_hedging(
        &self,
        hedge: &Hedge,
        request: &Request,
        is_first: bool,
        now: Instant,
    ) -> HedgeTurn {
        let key = hedge.key_of(request);
        self.parts.hedges(now).begin(key, hedge.rules(), is_first, now)
    }

    /// Admits a hedge, which never waits: asks gate, breaker and budget, then whether the host is
    /// crowded, the bucket of hedges, and last for the slots of `request`: a slot that came back would
    /// have delayed others. `turn` is that of the attempt, whose bucket pays; `there` is that of the
    /// hedge, if it is sent to another host.
    ///
    /// # Errors
    ///
    /// The reason why there is no hedge now. Nothing is taken then.
    pub(crate) fn admit_hedge(
        &self,
        request: &Request,
        turn: &HedgeTurn,
        there: Option<&HedgeTurn>,
        now: Instant,
    ) -> Result<HedgePermit<'p>, HedgeRefusal> {
        if self.parts.may_be_held_back() {
            return Err(HedgeRefusal::Gate);
        }
        let is_settled = self.parts.is_fleet_settled();
        if self.is_outer_probe || self.probing.is_some() || !is_settled {
            return Err(HedgeRefusal::CircuitBreaker);
        }
        if self.parts.budget().is_some_and(|it| it.is_short(now)) {
            return Err(HedgeRefusal::RetryBudget);
        }
        let limit = self.try_hedge_permit().ok_or(HedgeRefusal::Limited)?;
        let breaker = match self.parts.breaker() {
            Some(breaker) => Some(breaker.pass(now).ok_or(HedgeRefusal::CircuitBreaker)?),
            None => None,
        };
        if there.unwrap_or(turn).is_crowded() {
            return Err(HedgeRefusal::Crowded);
        }
        if !turn.withdraw(now) {
            return Err(HedgeRefusal::Share);
        }
        let slots = match &self.parts.limits {
            Some(limits) => limits.hedge_slots(request, now),
            None => Some(HedgeSlots::default()),
        };
        let Some(mut slots) = slots else {
            turn.put_back(now);
            return Err(HedgeRefusal::Limited);
        };
        slots.spend();
        Ok(HedgePermit { breaker, limit, slots, fleet_entry: self.parts.fleet_entry() })
    }

    /// Gives the slots of the attempt back: nothing was sent.
    pub(crate) fn refund_slots(&mut self) {
        if let Some(limits) = &mut self.parts.limits {
            limits.refund();
        }
    }

    /// Goes on with the permit of the hedge that won, in place of its attempt's.
    pub(crate) fn adopt_hedge(&mut self, permit: HedgePermit<'p>) {
        (self.permit, self.fleet_entry) = (permit.breaker, permit.fleet_entry);
        if let Some(limits) = &mut self.parts.limits {
            limits.adopt(permit.slots);
        }
        if let Some(permit) = permit.limit {
            self.hold_permit(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::{Extensions, Method};

    use super::*;
    use crate::breaker::{Health, Report};
    use crate::config::policy::Policy;
    use crate::host::fleet::advice::{BreakerAdvice, FleetState};
    use crate::host::fleet::hub::Hub;
    use crate::host::fleet::signals::FleetSettings;
    use crate::host::fleet::view::Source;
    use crate::host::map::HostMap;
    use crate::host::parts::Parts;
    use crate::host::rate::{Pacing, Rate, RateLimit};
    use crate::outcome::hint::QuotaUse;

    const SECOND: Duration = Duration::from_secs(1);
    const PACING: Pacing = Pacing { longest: SECOND, unit: 0.0 };

    /// Returns a request to the one host of these tests.
    fn request() -> Request {
        Request::new(Method::GET, "https://a.example/".parse().unwrap())
    }

    /// Returns the admission of that request by `policy`.
    fn admission<'p>(hosts: &'p HostMap, policy: &'p Policy, now: Instant) -> Admission<'p> {
        let parts = Parts::find(hosts, policy.host_rules(), &request(), now);
        Admission::new(parts, &Extensions::new())
    }

    /// Has the hosts share breaker and gate with a fleet.
    fn join_fleet(hosts: &HostMap) {
        let [shares_breaker, shares_gate] = [true; 2];
        let (report_every, timeout) = (SECOND, SECOND);
        let settings = FleetSettings { report_every, timeout, shares_breaker, shares_gate };
        hosts.join(&Arc::new(Hub::new(settings)));
    }

    /// Changes an admission before it is asked for a hedge.
    type Change = fn(&mut Admission<'_>);

    fn refusal(hosts: &HostMap, change: Change, now: Instant) -> Option<HedgeRefusal> {
        let (policy, hedge) = (Policy::default(), Hedge::after(SECOND));
        let (request, mut admission) = (request(), admission(hosts, &policy, now));
        change(&mut admission);
        let turn = admission.begin_hedging(&hedge, &request, true, now);
        admission.admit_hedge(&request, &turn, None, now).err()
    }

    #[test]
    fn a_probe_is_never_hedged() {
        let (hosts, now) = (HostMap::default(), Instant::now());
        let refused = Some(HedgeRefusal::CircuitBreaker);
        for (change, expected) in [
            ((|_| {}) as Change, None),
            (|it| it.is_outer_probe = true, refused),
            (|it| it.probing = Some(Arc::default()), refused),
        ] {
            assert_eq!(refusal(&hosts, change, now), expected);
        }
    }

    /// Returns an admission to a host whose learned quota has two requests left for ten seconds.
    fn with_quota<'p>(hosts: &'p HostMap, policy: &'p Policy, now: Instant) -> Admission<'p> {
        let admission = admission(hosts, policy, now);
        let (name, reset) = ("requests".into(), 10 * SECOND);
        let quota = QuotaUse { name, remaining: 2, limit: Some(3), reset, window: None };
        admission.learner().unwrap().try_turn(PACING, now).unwrap().end(Some(&[quota]), now);
        admission
    }

    #[test]
    fn a_hedge_that_is_refused_is_no_request_to_a_learned_quota() {
        let (hosts, now, hedge) = (HostMap::default(), Instant::now(), Hedge::after(SECOND));
        let policy = Policy { rate: Some(RateLimit::learned()), ..Policy::default() };
        let (request, admission) = (request(), with_quota(&hosts, &policy, now));
        let turn = admission.begin_hedging(&hedge, &request, true, now);
        while turn.withdraw(now) {}
        for _ in 0..9 {
            let refused = admission.admit_hedge(&request, &turn, None, now).err();
            assert_eq!(refused, Some(HedgeRefusal::Share));
        }
        // At the rate of nine requests the next one would wait.
        assert!(admission.learner().unwrap().try_turn(PACING, now).is_some());
    }

    #[test]
    fn a_hedge_that_won_brings_its_slots_which_go_back_if_it_was_not_sent() {
        let (hosts, now, hedge) = (HostMap::default(), Instant::now(), Hedge::after(SECOND));
        let policy = Policy { rate: Some(RateLimit::learned()), ..Policy::default() };
        let (request, mut admission) = (request(), with_quota(&hosts, &policy, now));
        let left = |it: &Admission<'_>| it.learner().unwrap().quotas(now)[0].remaining;
        let turn = admission.begin_hedging(&hedge, &request, true, now);
        let permit = admission.admit_hedge(&request, &turn, None, now).unwrap();
        assert_eq!(left(&admission), 1);
        admission.adopt_hedge(permit);
        admission.refund_slots();
        assert_eq!(left(&admission), 2);
    }

    #[test]
    fn a_hedge_that_a_limit_refuses_costs_no_share() {
        let (hosts, now, hedge) = (HostMap::default(), Instant::now(), Hedge::after(SECOND));
        let rate = Some(RateLimit::from(Rate::per_second(1)));
        let policy = Policy { rate, ..Policy::default() };
        let (request, mut admission) = (request(), admission(&hosts, &policy, now));
        let turn = admission.begin_hedging(&hedge, &request, true, now);
        admission.reserve_slot(&request, Some(1), SECOND, now).unwrap();
        admission.spend();
        for _ in 0..9 {
            let refused = admission.admit_hedge(&request, &turn, None, now).err();
            assert_eq!(refused, Some(HedgeRefusal::Limited));
        }
        let tokens = std::iter::from_fn(|| turn.withdraw(now).then_some(())).count();
        assert_eq!(tokens, 3);
    }

    #[test]
    fn the_fleet_hears_of_a_hedge_that_won() {
        let (hosts, now) = (HostMap::default(), Instant::now());
        let (policy, hedge) = (Policy::default(), Hedge::after(SECOND));
        join_fleet(&hosts);
        let (request, mut admission) = (request(), admission(&hosts, &policy, now));
        let member = Arc::clone(admission.parts.member().unwrap());
        for (epoch, state) in
            [FleetState::Closed, FleetState::Open { remaining: SECOND }, FleetState::Closed]
                .into_iter()
                .enumerate()
        {
            member.heed(&BreakerAdvice::new(7, epoch as u64, state), Source::Exchange, 0.0, now);
        }
        member.take_change(now).unwrap();
        let turn = admission.begin_hedging(&hedge, &request, true, now);
        let permit = admission.admit_hedge(&request, &turn, None, now).unwrap();
        admission.adopt_hedge(permit);
        let report = Report { health: Health::Failure, retry_after: None, first: true };
        admission.exit(Some(report), None, now, &policy.sources, &mut vec![]);
        assert_eq!(member.take_report(now).unwrap().failed, 1);
    }

    #[test]
    fn there_is_no_hedge_while_the_fleet_is_open() {
        let (hosts, now) = (HostMap::default(), Instant::now());
        join_fleet(&hosts);
        assert_eq!(refusal(&hosts, |_| {}, now), None);
        let host = hosts.find(&"https://a.example/".parse().unwrap(), now).into_owned();
        let open = BreakerAdvice::new(7, 1, FleetState::Open { remaining: SECOND });
        host.used_member().unwrap().heed(&open, Source::Exchange, 0.0, now);
        assert_eq!(refusal(&hosts, |_| {}, now), Some(HedgeRefusal::CircuitBreaker));
    }
}
