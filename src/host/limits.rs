//! The limits of one request, and what its attempt holds of them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Extensions;
use reqwest::Request;

use crate::common::clock::Instant;
use crate::host::limit::{ConcurrencyLimit, LimitPermit, Limiter};
use crate::host::rate::{Learner, Paced, Pacer, RateLimit, Route, Ticket, reserve};
use crate::outcome::hint::QuotaUse;
use crate::outcome::{Delivery, Outcome};

/// The limits that one request keeps to, and what its attempt holds of them.
#[derive(Debug)]
pub(crate) struct Limits<'p> {
    pub(super) concurrency: Option<(&'p ConcurrencyLimit, Arc<Limiter>)>,
    /// One for each scope, with the slot of the attempt.
    pub(super) rates: Vec<Paced<'p>>,
    /// Set where quotas are learned.
    learning: Option<Learning<'p>>,
    /// The turn by the learned quotas.
    pub(super) ticket: Option<Ticket>,
    /// The permit of the concurrency limit.
    pub(super) permit: Option<LimitPermit>,
    /// The permits and slots that a `Resilient` further out holds for this request.
    pub(super) outer: Outer,
    /// Lives as long as the request, which holds what it marked.
    holding: Option<Arc<()>>,
}

/// The learned quotas of one request.
#[derive(Debug)]
struct Learning<'p> {
    rules: &'p RateLimit,
    /// Where there are no buckets.
    learner: Option<Arc<Learner>>,
    route: Option<Route>,
}

/// The slots of a hedge, which count from its admission on.
#[derive(Debug, Default)]
pub(super) struct HedgeSlots<'p> {
    rates: Vec<Paced<'p>>,
    ticket: Option<Ticket>,
}

/// The permits and slots of a `Resilient` further out, which shares the limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outer {
    pub(super) has_permit: bool,
    /// Of the first attempt; further ones are sends that the outer one does not see.
    pub(super) has_slots: bool,
}

/// In the extensions of an attempt within limits: a further `Resilient` inside that shares them takes
/// no second permit, which it might wait for forever, and no second slot.
#[derive(Clone)]
struct Holds {
    holding: Weak<()>,
    limiter: Option<Arc<Limiter>>,
    pacers: Vec<Arc<Pacer>>,
}

impl<'p> Limits<'p> {
    pub(super) fn new(
        concurrency: Option<(&'p ConcurrencyLimit, Arc<Limiter>)>,
        rates: Vec<Paced<'p>>,
        request: &Request,
    ) -> Self {
        let learning =
            rates.iter().find(|it| it.rules.learns).map(|Paced { rules, pacer, .. }| {
                let route = pacer.route(rules, request);
                let learner = route.is_none().then(|| Arc::clone(pacer.learner()));
                Learning { rules, learner, route }
            });
        Self {
            concurrency,
            rates,
            learning,
            ticket: None,
            permit: None,
            outer: Outer::default(),
            holding: None,
        }
    }

    /// Looks for what a `Resilient` further out holds for the request.
    pub(super) fn look_outside(&mut self, extensions: &Extensions) {
        let holds = extensions.get::<Holds>().filter(|it| it.holding.strong_count() > 0);
        let Some(holds) = holds else { return };
        let is_held =
            |it: &Arc<Limiter>| holds.limiter.as_ref().is_some_and(|own| Arc::ptr_eq(own, it));
        let is_paced = |it: &Arc<Pacer>| holds.pacers.iter().any(|own| Arc::ptr_eq(own, it));
        self.outer = Outer {
            has_permit: self.concurrency.as_ref().is_some_and(|it| is_held(&it.1)),
            has_slots: !self.rates.is_empty() && self.rates.iter().all(|it| is_paced(&it.pacer)),
        };
    }

    /// Marks what the attempt holds in its extensions.
    pub(super) fn mark(&mut self, extensions: &mut Extensions) {
        let holding = Arc::downgrade(self.holding.get_or_insert_with(Arc::default));
        let limiter = self.concurrency.as_ref().map(|it| Arc::clone(&it.1));
        let pacers = self.rates.iter().map(|it| Arc::clone(&it.pacer)).collect();
        extensions.insert(Holds { holding, limiter, pacers });
    }

    /// Returns the learned quotas, if the request keeps to some.
    pub(super) fn learner(&self) -> Option<Arc<Learner>> {
        let learning = self.learning.as_ref()?;
        match &learning.route {
            Some(route) => Some(route.learner()),
            None => learning.learner.clone(),
        }
    }

    /// Takes the slots of a hedge; `None` if they are not there at once, or are those of a fleet, which
    /// only requests wait for.
    pub(super) fn hedge_slots(&self, request: &Request, now: Instant) -> Option<HedgeSlots<'p>> {
        if self.rates.iter().any(|it| it.rules.is_of_fleet) {
            return None;
        }
        let again = |it: &Paced<'p>| Paced::new(it.rules, Arc::clone(&it.pacer));
        let mut rates: Vec<_> = self.rates.iter().map(again).collect();
        reserve(&mut rates, request, Some(1), Duration::ZERO, now).ok()?;
        let ticket = match self.learner() {
            Some(learner) => Some(learner.spare_turn(now)?),
            None => None,
        };
        Some(HedgeSlots { rates, ticket })
    }

    /// Goes on with the slots of the hedge that won; those of its attempt stay used.
    pub(super) fn adopt(&mut self, slots: HedgeSlots<'p>) {
        (self.rates, self.ticket) = (slots.rates, slots.ticket);
    }

    /// Returns whether responses are read for quotas.
    pub(super) fn learns(&self) -> bool {
        self.learning.is_some()
    }

    /// Uses the slots: the attempt is sent now.
    pub(super) fn spend(&mut self) {
        self.outer.has_slots = false;
        self.rates.iter_mut().for_each(Paced::spend);
        if let Some(ticket) = &mut self.ticket {
            ticket.spend();
        }
    }

    /// Settles the slots of an attempt, or gives them back if nothing was sent, and learns from its
    /// response.
    pub(super) fn settle(
        &mut self,
        outcome: &Outcome<'_>,
        quotas: Option<&[QuotaUse]>,
        now: Instant,
    ) {
        if outcome.delivery() == Delivery::NotSent {
            return self.refund();
        }
        if let Some(ticket) = self.ticket.take() {
            self.learn(ticket, outcome, quotas, now);
        }
        self.rates.iter_mut().for_each(|it| it.settle(outcome));
    }

    /// Gives the slots back: nothing was sent.
    pub(super) fn refund(&mut self) {
        refund(&mut self.rates, &mut self.ticket);
    }

    /// Ends a turn by the quotas of a response, which are those of the bucket that it names.
    fn learn(
        &self,
        ticket: Ticket,
        outcome: &Outcome<'_>,
        quotas: Option<&[QuotaUse]>,
        now: Instant,
    ) {
        let right = || {
            let learning = self.learning.as_ref()?;
            let name = outcome.headers()?.get(learning.rules.bucket.as_ref()?)?;
            let own = ticket.learner()?;
            let right = learning.route.as_ref()?.is_in(name.as_bytes(), own);
            (!Arc::ptr_eq(&right, own)).then_some(right)
        };
        match (right(), quotas) {
            (Some(right), Some(quotas)) => ticket.end_elsewhere(&right, quotas, now),
            _ => ticket.end(quotas, now),
        }
    }
}

impl HedgeSlots<'_> {
    /// Uses the slots: the hedge is sent now.
    pub(super) fn spend(&mut self) {
        self.rates.iter_mut().for_each(Paced::spend);
        self.ticket.iter_mut().for_each(Ticket::spend);
    }

    /// Gives the slots back: nothing was sent.
    pub(super) fn refund(&mut self) {
        refund(&mut self.rates, &mut self.ticket);
    }
}

fn refund(rates: &mut [Paced<'_>], ticket: &mut Option<Ticket>) {
    rates.iter_mut().for_each(Paced::refund);
    if let Some(ticket) = ticket.take() {
        ticket.refund();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use http::Method;
    use reqwest::Url;

    use super::*;
    use crate::host::rate::{Pacing, Rate};
    use crate::outcome::{Failure, FailureKind, OutcomeResult};

    const PACING: Pacing = Pacing { longest: Duration::ZERO, unit: 0.0 };

    #[test]
    fn slots_of_a_resilient_further_out_are_those_of_the_same_rates() {
        let url = Url::parse("https://a.example/").unwrap();
        let (request, rules) =
            (Request::new(Method::GET, url), RateLimit::from(Rate::per_second(1)));
        let [own, other] = [(); 2].map(|()| Arc::<Pacer>::default());
        let limits =
            |pacer| Limits::new(None, vec![Paced::new(&rules, Arc::clone(pacer))], &request);
        for (outside, has_slots) in [(&own, true), (&other, false)] {
            let (mut outer, mut inner) = (limits(outside), limits(&own));
            let mut extensions = Extensions::new();
            outer.mark(&mut extensions);
            inner.look_outside(&extensions);
            assert_eq!(inner.outer.has_slots, has_slots);
        }
    }

    #[test]
    fn an_attempt_that_was_not_sent_takes_nothing_of_a_learned_quota() {
        let (now, url) = (Instant::now(), Url::parse("https://a.example/").unwrap());
        let request = Request::new(Method::GET, url.clone());
        for (delivery, left) in [(Delivery::NotSent, 2), (Delivery::MaybeProcessed, 1)] {
            let learner = Arc::new(Learner::default());
            let (name, reset) = ("requests".into(), Duration::from_secs(60));
            let quota = QuotaUse { name, remaining: 2, limit: Some(9), reset, window: None };
            learner.try_turn(PACING, now).unwrap().end(Some(&[quota]), now);

            let mut limits = Limits::new(None, vec![], &request);
            limits.ticket = learner.try_turn(PACING, now);
            limits.spend();
            let failure = Failure::new(FailureKind::Disconnect, delivery);
            let result = OutcomeResult::Failure(failure, &fmt::Error);
            limits.settle(&Outcome::new(&Method::GET, &url, result), None, now);
            let tickets = std::iter::from_fn(|| learner.try_turn(PACING, now));
            assert_eq!(tickets.collect::<Vec<_>>().len(), left, "{delivery:?}");
        }
    }
}
