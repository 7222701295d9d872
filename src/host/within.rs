//! Admission within the limits of the client: the slot of a rate, and the permit of an attempt.

use std::{sync::Arc, time::Duration};

use reqwest::Request;

use crate::common::clock::Instant;
use crate::host::admission::Admission;
use crate::host::fleet::member::FleetEntry;
use crate::host::limit::{
    LimitPermit, LimitRules, LimitUse, LimitWaiter, Limited, Limiter, Load, Occupied,
};
use crate::host::rate::{Learner, Ticket};
use crate::outcome::hint::QuotaUse;
use crate::outcome::{Delivery, Outcome};

/// The result of asking for a permit.
#[derive(Debug)]
pub(crate) enum Place {
    /// The request has one, or needs none.
    Permit,
    /// It has to wait.
    Wait(LimitWaiter),
}

impl Admission<'_> {
    /// Returns whether there are limits.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.parts.limits.is_some()
    }

    /// Returns the permit of the breaker: the request waits for a limit, and others may go meanwhile.
    ///
    /// A pass of the gate stays: those behind it would wait for the limit as well, and a pass that
    /// came back unused would slow the opening down.
    pub(crate) fn step_back(&mut self) {
        (self.permit, self.probing, self.fleet_entry) = (None, None, FleetEntry::default());
    }

    /// Returns the longest wait for a slot, if the settings name one.
    pub(crate) fn longest_slot_wait(&self) -> Option<Duration> {
        self.parts.limits.as_ref()?.rate.as_ref()?.0.max_wait
    }

    /// Reserves the next slot of the rate limit, in a share of one of so many nodes, and returns its time; `None` if there is no limit.
    ///
    /// # Errors
    ///
    /// [`Limited`] if the next slot is further away than `longest`.
    pub(crate) fn reserve_slot(
        &mut self,
        request: &Request,
        nodes: u32,
        longest: Duration,
        now: Instant,
    ) -> Result<Option<Instant>, Limited> {
        let Some(limits) = &mut self.parts.limits else { return Ok(None) };
        let Some((rules, pacer)) = &limits.rate else { return Ok(None) };
        let slot = pacer.reserve(rules, request, nodes, longest, now)?;
        let at = slot.at();
        limits.slot = Some(slot);
        Ok(Some(at))
    }

    /// Returns the learned quotas of the host, if the rate limit learns.
    pub(crate) fn learner(&self) -> Option<&Arc<Learner>> {
        let rate = self.parts.limits.as_ref()?.rate.as_ref();
        rate.filter(|it| it.0.learns).map(|it| it.1.learner())
    }

    /// Holds the turn of an attempt by the learned quotas.
    pub(crate) fn hold_ticket(&mut self, ticket: Ticket) {
        if let Some(limits) = &mut self.parts.limits {
            limits.ticket = Some(ticket);
        }
    }

    /// Returns the concurrency limit and its rules.
    pub(crate) fn concurrency(&self) -> Option<(&LimitRules, &Arc<Limiter>)> {
        let concurrency = self.parts.limits.as_ref()?.concurrency.as_ref();
        concurrency.map(|(rules, limiter)| (&rules.rules, limiter))
    }

    /// Takes a permit if one is free and no request waits. `Some(None)` if there is no limit, `None`
    /// if there is no room.
    pub(crate) fn try_permit(&self) -> Option<Option<LimitPermit>> {
        match self.concurrency() {
            None => Some(None),
            Some((_, limiter)) => limiter.try_acquire().map(Some),
        }
    }

    /// Takes a permit for a hedge: one that is free while no request waits, and none where there is a
    /// rate limit.
    pub(super) fn try_hedge_permit(&self) -> Option<Option<LimitPermit>> {
        let has_rate = self.parts.limits.as_ref().is_some_and(|it| it.rate.is_some());
        if has_rate { None } else { self.try_permit() }
    }

    /// Takes a permit, or a place in the queue for one.
    ///
    /// # Errors
    ///
    /// [`Limited`] if as many wait as may; `unit` is random from 0 to 1.
    pub(crate) fn take_permit(
        &mut self,
        is_hurried: bool,
        now: Instant,
        unit: impl FnOnce() -> f64,
    ) -> Result<Place, Limited> {
        let free = self.try_permit();
        let Some(limits) = &mut self.parts.limits else { return Ok(Place::Permit) };
        let Some((_, limiter)) = &limits.concurrency else { return Ok(Place::Permit) };
        if let Some(permit) = free {
            limits.permit = permit;
            return Ok(Place::Permit);
        }
        if self.probing.is_some() {
            // The host has nothing else to do, and a probe in a queue would keep its breaker open.
            limits.permit = Some(limiter.force());
            return Ok(Place::Permit);
        }
        match limiter.acquire(is_hurried, now) {
            Ok(permit) => {
                limits.permit = Some(permit);
                Ok(Place::Permit)
            }
            Err(Occupied::Wait(waiter)) => Ok(Place::Wait(waiter)),
            Err(Occupied::Full) => Err(limiter.rejection(Duration::ZERO, unit())),
        }
    }

    /// Holds a permit that the request waited for.
    pub(crate) fn hold_permit(&mut self, permit: LimitPermit) {
        if let Some(limits) = &mut self.parts.limits {
            limits.permit = Some(permit);
        }
    }

    /// Returns the use of the concurrency limit.
    pub(crate) fn limit_use(&self) -> Option<LimitUse> {
        self.concurrency().map(|(_, limiter)| limiter.usage())
    }

    /// Gives back permit and slot: the attempt is over, or will not be sent now.
    #[inline]
    pub(crate) fn leave_limits(&mut self) {
        if let Some(limits) = &mut self.parts.limits {
            (limits.permit, limits.slot, limits.ticket) = (None, None, None);
        }
    }

    /// Reports an attempt to the limits: its slot is settled, or goes back if nothing was sent.
    /// Returns the concurrency limit before and after, if it changed.
    pub(crate) fn report_to_limits(
        &mut self,
        outcome: &Outcome<'_>,
        load: Option<Load>,
        quotas: Option<&[QuotaUse]>,
        took: Duration,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let limits = self.parts.limits.as_mut()?;
        let was_sent = outcome.delivery() != Delivery::NotSent;
        match limits.ticket.take() {
            Some(ticket) if was_sent => ticket.end(quotas, now),
            Some(ticket) => ticket.refund(),
            None => {}
        }
        match (limits.slot.take(), &limits.rate) {
            (Some(slot), Some((rules, _))) if was_sent => slot.settle(rules, outcome),
            (Some(slot), _) => slot.refund(),
            (None, _) => {}
        }
        let permit = limits.permit.as_ref()?;
        permit.limiter().record(permit, load?, took, now)
    }

    /// Takes the permit out for the body of the response; `None` if there is none, or it ends with
    /// the head.
    pub(crate) fn permit_of_body(&mut self) -> Option<LimitPermit> {
        let limits = self.parts.limits.as_mut()?;
        let permit = limits.permit.take()?;
        let ends = limits.concurrency.as_ref().is_some_and(|(rules, _)| rules.rules.until_head);
        (!ends).then(|| permit.with_body())
    }
}
