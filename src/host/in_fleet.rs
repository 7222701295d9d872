//! Admission by the fleet's breaker, and the evidence that goes to the fleet.

use std::{sync::Arc, time::Duration};

use reqwest::Request;

use crate::breaker::{BreakerState, CircuitOpen, StateChange};
use crate::common::clock::{Instant, Sources};
use crate::host::admission::Admission;
use crate::host::fleet::member::{Member, ViewChange};
use crate::host::fleet::report::FleetGate;
use crate::host::fleet::share::Turn;

impl Admission<'_> {
    /// Asks the fleet's breaker, which may only reject what the local one would admit.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] if the fleet rejects the attempt.
    #[inline]
    pub(super) fn ask_fleet(
        &mut self,
        now: Instant,
        sources: &Sources,
        changes: &mut Vec<StateChange>,
    ) -> Result<(), CircuitOpen> {
        let Some(member) = self.parts.member() else { return Ok(()) };
        if member.is_settled() {
            self.fleet_entry = member.entry();
            return Ok(());
        }
        self.look_at_fleet(now, sources, changes)
    }

    #[cold]
    fn look_at_fleet(
        &mut self,
        now: Instant,
        sources: &Sources,
        changes: &mut Vec<StateChange>,
    ) -> Result<(), CircuitOpen> {
        let Some(member) = self.parts.member() else { return Ok(()) };
        if let Some(change) = member.take_change(now) {
            if change.has_closed {
                changes.extend(self.parts.breaker().and_then(|it| it.restart()));
            }
            self.fleet_change = Some(change);
        }
        // A breaker that was switched off by hand admits all.
        let is_off =
            |it: BreakerState| matches!(it, BreakerState::Disabled | BreakerState::MetricsOnly);
        if self.parts.breaker().is_some_and(|it| is_off(it.state())) {
            self.fleet_entry = member.entry();
            return Ok(());
        }
        self.fleet_entry = member.ask(now, || sources.random())?;
        Ok(())
    }

    /// Takes the change of the fleet's breaker that this request is the first to see.
    pub(crate) fn take_fleet_change(&mut self) -> Option<(Arc<str>, ViewChange, u32)> {
        let change = self.fleet_change.take()?;
        let member = self.parts.member()?;
        Some((Arc::clone(member.key()), change, member.signals().nodes()))
    }

    /// Returns the host in its fleet, if the fleet shares the breaker of this request.
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.parts.member()
    }

    /// Returns the turn of an attempt in a rate that the fleet shares; `None` if there is no such rate.
    pub(crate) fn fleet_turn(
        &self,
        request: &Request,
        now: Instant,
        sources: &Sources,
    ) -> Option<Turn> {
        let rates = &self.parts.limits.as_ref()?.rates;
        let (limit, cost) = rates.iter().find_map(|it| it.rules.of_fleet(request))?;
        let Some(member) = self.parts.rate_member() else { return Some(Turn::Local { nodes: 1 }) };
        Some(member.take_turn(limit, cost, || sources.random(), now))
    }

    /// Hands a gate on to the fleet that a response closed for `hint`, but no longer than `longest`.
    pub(super) fn hand_gate_on(&self, key: u64, hint: Duration, longest: Duration, now: Instant) {
        if let Some(member) = self.parts.gate_member() {
            member.hand_on(FleetGate::new(key, hint.min(longest)), now);
        }
    }
}
