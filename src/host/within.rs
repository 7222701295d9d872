//! Admission within the limits of the client: the slot of a rate, and the permit of an attempt.

use std::{sync::Arc, time::Duration};

use http::Extensions;
use reqwest::Request;

use crate::common::clock::Instant;
use crate::host::admission::Admission;
use crate::host::fleet::member::FleetEntry;
use crate::host::limit::{
    LimitPermit, LimitRules, LimitUse, LimitWaiter, Limited, Limiter, Load, Occupied,
};
use crate::host::rate::{self, Learner, Paced, Ticket};
use crate::outcome::Outcome;
use crate::outcome::hint::QuotaUse;

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
        self.parts.limits.as_ref()?.rates.iter().filter_map(|it| it.rules.max_wait).min()
    }

    /// Reserves the next slot of all rate limits, and returns its time; `None` if there is none to
    /// take. Of a fleet's rate it is one of so many nodes' share, or nothing if the fleet has let the
    /// request go.
    ///
    /// # Errors
    ///
    /// [`Limited`] if the next slot is further away than `longest`.
    pub(crate) fn reserve_slot(
        &mut self,
        request: &Request,
        nodes: Option<u32>,
        longest: Duration,
        now: Instant,
    ) -> Result<Option<Instant>, Limited> {
        let Some(limits) = &mut self.parts.limits else { return Ok(None) };
        if limits.rates.is_empty() || limits.outer.has_slots {
            return Ok(None);
        }
        rate::reserve(&mut limits.rates, request, nodes, longest, now)
    }

    /// Returns the learned quotas that the attempt has to keep to.
    pub(crate) fn learner(&self) -> Option<Arc<Learner>> {
        let limits = self.parts.limits.as_ref()?;
        if limits.outer.has_slots { None } else { limits.learner() }
    }

    /// Returns whether responses are read for quotas.
    pub(crate) fn learns(&self) -> bool {
        self.parts.limits.as_ref().is_some_and(|it| it.learns())
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
        let has_outer = self.parts.limits.as_ref().is_some_and(|it| it.outer.has_permit);
        match self.concurrency() {
            Some((_, limiter)) if !has_outer => limiter.try_acquire().map(Some),
            _ => Some(None),
        }
    }

    /// Takes a permit for a hedge: one that is free while no request waits.
    pub(super) fn try_hedge_permit(&self) -> Option<Option<LimitPermit>> {
        match self.concurrency() {
            // A permit further out is that of the attempt.
            Some((_, limiter)) => limiter.try_acquire().map(Some),
            None => Some(None),
        }
    }

    /// Marks what an attempt holds of the limits in its extensions.
    pub(crate) fn mark_limits(&mut self, extensions: &mut Extensions) {
        if let Some(limits) = &mut self.parts.limits {
            limits.mark(extensions);
        }
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
            (limits.permit, limits.ticket) = (None, None);
            limits.rates.iter_mut().for_each(Paced::release);
        }
    }

    /// Reports an attempt to the limits: its slot is settled, or goes back if nothing was sent.
    /// Returns the concurrency limit before and after, if it changed. `ended` is the time at which the
    /// attempt ended.
    pub(crate) fn report_to_limits(
        &mut self,
        outcome: &Outcome<'_>,
        load: Option<Load>,
        quotas: Option<&[QuotaUse]>,
        took: Duration,
        ended: Instant,
    ) -> Option<(u32, u32)> {
        let limits = self.parts.limits.as_mut()?;
        limits.settle(outcome, quotas, ended);
        let permit = limits.permit.as_ref()?;
        permit.limiter().record(permit, load?, took, ended)
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
