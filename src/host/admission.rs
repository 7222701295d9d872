//! Admission of a request's attempts: asks breaker, budget, gate and limits before, and reports to
//! them after.

use std::{
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use http::Extensions;
use reqwest::{Request, Url};

use crate::breaker::{BreakerHandle, CircuitOpen, Health, Permit, Report, StateChange};
use crate::common::clock::{Instant, Sources};
use crate::host::fleet::member::{FleetEntry, ViewChange};
use crate::host::gate::{Entry, GatePass, Patience, RateLimited, Waiting};
use crate::host::parts::{Parts, breaker_member};
use crate::retry::budget::{Account, Success, Token, TokenWaiter};

/// The host of an attempt, and its permits of breaker, budget, gate and limits.
///
/// When dropped it releases all of them: permits free their places, the token goes back.
#[derive(Debug)]
pub(crate) struct Admission<'p> {
    pub(super) parts: Parts<'p>,
    /// Set if a `Resilient` further out has this request as its breaker's probe.
    pub(super) is_outer_probe: bool,
    pub(super) permit: Option<Permit>,
    /// Lives as long as a permit that is a probe.
    pub(super) probing: Option<Arc<()>>,
    /// The fleet's breaker, as the attempt found it.
    pub(super) fleet_entry: FleetEntry,
    pub(super) fleet_change: Option<ViewChange>,
    token: Option<Token>,
    token_waiter: Option<TokenWaiter>,
    gate_pass: GatePass,
    /// The key of the gate, if the copy of the request lacks the headers that make it.
    pub(super) gate_key: Option<u64>,
}

impl<'p> Admission<'p> {
    pub(crate) fn new(mut parts: Parts<'p>, extensions: &Extensions) -> Self {
        let is_outer_probe = parts.breaker().is_some_and(|it| Probe::covers(extensions, it));
        if is_outer_probe {
            parts = parts.without_breaker();
        }
        if let Some(limits) = &mut parts.limits {
            limits.look_outside(extensions);
        }
        Self {
            parts,
            is_outer_probe,
            permit: None,
            probing: None,
            fleet_entry: FleetEntry::default(),
            fleet_change: None,
            token: None,
            token_waiter: None,
            gate_pass: GatePass::FREE,
            gate_key: None,
        }
    }

    /// Moves to the host of another endpoint: what follows is asked of it, and reported to it. A token
    /// that was taken stays that of its budget.
    pub(crate) fn move_to(&mut self, parts: Parts<'p>, extensions: &Extensions) {
        let moved = Self::new(parts, extensions);
        (self.parts, self.gate_key) = (moved.parts, None);
        self.is_outer_probe = moved.is_outer_probe;
    }

    /// Turns to the host of the next attempt's endpoint, whose token it waits for.
    pub(crate) fn turn_to(&mut self, parts: Parts<'p>) {
        (self.parts, self.gate_key) = (parts, None);
    }

    /// Returns the breaker of the request.
    pub(crate) fn breaker(&self) -> Option<&Arc<BreakerHandle>> {
        self.parts.breaker()
    }

    /// Adopts the permit of an attempt that is under way, and what it found of the fleet.
    pub(crate) fn with(self, permit: Option<Permit>, fleet_entry: FleetEntry) -> Self {
        Self { permit, fleet_entry, ..self }
    }

    /// Saves the key of a request's gate: the copy of the request has no headers.
    pub(crate) fn keep_gate_key(&mut self, request: &Request) {
        self.gate_key = Some(self.parts.gate_key(request));
    }

    /// Returns whether a gate of the host may be closed.
    #[inline]
    pub(crate) fn may_be_held_back(&self) -> bool {
        self.parts.may_be_held_back()
    }

    /// Enters the gate of a request; `None` if it passes at once.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if the gate opens too late for this request.
    pub(crate) fn enter_gate(
        &mut self,
        request: &Request,
        started: Instant,
        patience: Patience,
        now: Instant,
    ) -> Result<Option<Waiting>, RateLimited> {
        let Some(gates) = self.parts.gates() else { return Ok(None) };
        match gates.enter(|| self.parts.gate_key(request), started, patience, now)? {
            Entry::Pass(pass) => {
                self.gate_pass = pass;
                Ok(None)
            }
            Entry::Wait(waiting) => Ok(Some(waiting)),
        }
    }

    /// Returns whether it holds a pass of a gate that opens.
    pub(crate) fn has_gate_pass(&self) -> bool {
        !self.gate_pass.is_free()
    }

    /// Holds the pass of the gate until the outcome is known.
    pub(crate) fn hold_gate(&mut self, pass: GatePass) {
        self.gate_pass = pass;
    }

    /// Returns the pass of the gate: this attempt is over, or will not be sent now. `None` if it is
    /// no evidence about the host.
    pub(crate) fn leave_gate(&mut self, is_good: Option<bool>, now: Instant) {
        let pass = mem::replace(&mut self.gate_pass, GatePass::FREE);
        match is_good {
            Some(is_good) => pass.finish(is_good, now),
            None => drop(pass),
        }
    }

    /// Asks the breakers of fleet and host for a permit. Adds state changes of the breaker to
    /// `changes`.
    #[inline]
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        sources: &Sources,
        changes: &mut Vec<StateChange>,
    ) -> Result<(), CircuitOpen> {
        self.ask_fleet(now, sources, changes)?;
        if let Some(breaker) = self.parts.breaker() {
            match breaker.pass(now) {
                Some(permit) => self.permit = Some(permit),
                None => self.ask(now, changes)?,
            }
        }
        Ok(())
    }

    /// Spends the token that was taken for an attempt, and its slot: it is sent now.
    #[inline]
    pub(crate) fn spend(&mut self) {
        if let Some(token) = self.token.take() {
            token.spend();
        }
        if let Some(limits) = &mut self.parts.limits {
            limits.spend();
        }
    }

    fn ask(&mut self, now: Instant, changes: &mut Vec<StateChange>) -> Result<(), CircuitOpen> {
        let Some(breaker) = self.parts.breaker() else { return Ok(()) };
        let (permit, change) = breaker.enter(now);
        let is_probe = breaker.is_probing();
        changes.extend(change);
        self.permit = Some(permit?);
        self.probing = is_probe.then(Arc::default);
        Ok(())
    }

    /// Marks what the attempt holds in its extensions.
    #[inline]
    pub(crate) fn mark(&mut self, extensions: &mut Extensions) {
        self.mark_limits(extensions);
        if let (Some(breaker), Some(probing)) = (self.parts.breaker(), &self.probing) {
            let breaker = Arc::clone(breaker);
            extensions.insert(Probe { breaker, probing: Arc::downgrade(probing) });
        }
    }

    /// Reports to the breaker the attempt's evidence about the health of the service, `None` if it
    /// has none.
    #[inline]
    pub(crate) fn exit(
        &mut self,
        result: Option<Report>,
        cross_host_url: Option<&Url>,
        now: Instant,
        sources: &Sources,
        changes: &mut Vec<StateChange>,
    ) {
        self.probing = None;
        if let (Some(permit), Some(result)) = (&mut self.permit, result) {
            report(&self.parts, permit, result, cross_host_url, now, sources, changes);
            if let Some(member) = self.parts.member() {
                member.hear(self.fleet_entry, result.health);
            }
        }
        (self.permit, self.fleet_entry) = (None, FleetEntry::default());
    }

    /// Returns how long the breaker rejects attempts from now on, if it does.
    pub(crate) fn rejects_for(&self, now: Instant) -> Option<Duration> {
        self.parts.rejects_for(now)
    }

    /// Takes a token for a retry, or a place in the queue for one if it `may_wait`; `false` if it
    /// gets neither.
    pub(crate) fn withdraw(&mut self, after_timeout: bool, may_wait: bool, now: Instant) -> bool {
        if after_timeout {
            self.charge_timeout(now);
        }
        let account = self.parts.budget().cloned();
        self.take_token(account, self.parts.overdraft, may_wait, now)
    }

    /// Takes a token, or a place in the queue for one, from the budget of the host that the retry goes
    /// to.
    pub(crate) fn withdraw_from(
        &mut self,
        other: &Parts<'_>,
        may_wait: bool,
        now: Instant,
    ) -> bool {
        self.take_token(other.budget().cloned(), other.overdraft, may_wait, now)
    }

    fn take_token(
        &mut self,
        account: Option<Arc<Account>>,
        overdraft: u32,
        may_wait: bool,
        now: Instant,
    ) -> bool {
        let Some(account) = account else { return true };
        self.token = Token::withdraw(Arc::clone(&account), now, overdraft);
        if self.token.is_none() && may_wait {
            self.token_waiter = Token::queue(account);
        }
        self.token.is_some() || self.token_waiter.is_some()
    }

    /// Charges an attempt that timed out to the budget.
    pub(crate) fn charge_timeout(&self, now: Instant) {
        if let Some(account) = self.parts.budget() {
            account.charge_timeout(now);
        }
    }

    /// Returns whether the next attempt has no token yet.
    pub(crate) fn waits_for_token(&self) -> bool {
        self.token_waiter.is_some()
    }

    /// Takes out the place in the queue for a token.
    pub(crate) fn token_waiter(&mut self) -> Option<TokenWaiter> {
        self.token_waiter.take()
    }

    /// Keeps a token for the next attempt, which spends it.
    pub(crate) fn hold_token(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// Records that the host responded.
    pub(crate) fn note_response(&self) {
        self.parts.note_response();
    }

    /// Returns whether the host ever responded.
    pub(crate) fn has_responded(&self) -> bool {
        self.parts.has_responded()
    }

    /// Has requests like this one pass the gate like slow start, if the attempt under way is a probe.
    ///
    /// To be called before the breaker hears of the probe's success, which wakes those that wait.
    pub(crate) fn begin_slow_start(&self, request: &Request, now: Instant) {
        if let (Some(gates), Some(_)) = (self.parts.gates(), &self.probing) {
            gates.reopen(self.gate_key.unwrap_or_else(|| self.parts.gate_key(request)), now);
        }
    }

    /// Returns the number of tokens in the budget.
    pub(crate) fn budget_left(&self, now: Instant) -> Option<f64> {
        self.parts.budget().map(|it| it.balance(now))
    }

    /// Adds the deposit of a success to the budget.
    pub(crate) fn deposit(&self, success: Success) {
        if let Some(account) = self.parts.budget() {
            account.deposit(success);
        }
    }
}

/// Admits a request if the gate is open and the breaker closed; `None` if the slow path has to
/// decide. There is no permit without a breaker.
#[inline]
pub(crate) fn pass(
    parts: &Parts<'_>,
    extensions: &Extensions,
    now: Instant,
) -> Option<Option<Permit>> {
    if parts.may_be_held_back() || !parts.is_fleet_settled() {
        return None;
    }
    match parts.breaker() {
        Some(breaker) if !Probe::covers(extensions, breaker) => breaker.pass(now).map(Some),
        _ => Some(None),
    }
}

/// Reports the success of an unobserved request at its first attempt: the end of the fast path.
#[inline]
pub(crate) fn succeeded(
    parts: &Parts<'_>,
    permit: Option<Permit>,
    cross_host_url: Option<&Url>,
    now: Instant,
    sources: &Sources,
) {
    parts.note_response();
    if let Some(mut permit) = permit {
        let result = Report { health: Health::Success, retry_after: None, first: true };
        // There are no listeners to notify of state changes.
        if cross_host_url.is_some() {
            report(parts, &mut permit, result, cross_host_url, now, sources, &mut vec![]);
        } else {
            permit.report(result, now, || sources.random());
        }
        if let Some(member) = parts.member() {
            member.record(member.entry(), false);
        }
    }
    if let Some(account) = parts.budget() {
        account.deposit(Success::OfFirstAttempt);
    }
}

/// Reports to the breaker an attempt's evidence about the health of the service.
///
/// The breaker that admitted the attempt always gets the report. After a redirect to another host
/// the breaker of that host gets it as well, if the host was asked before.
fn report(
    parts: &Parts<'_>,
    permit: &mut Permit,
    result: Report,
    cross_host_url: Option<&Url>,
    now: Instant,
    sources: &Sources,
    changes: &mut Vec<StateChange>,
) {
    let random = || sources.random();
    changes.extend(permit.report(result, now, random));
    let elsewhere = cross_host_url.filter(|_| parts.is_per_host());
    let Some(host) = elsewhere.and_then(|url| parts.known_host(url)) else { return };
    if let Some(member) = breaker_member(&host) {
        member.hear(member.entry(), result.health);
    }
    let Some(other) = host.used_breaker() else { return };
    let (entered, change) = other.enter(now);
    changes.extend(change);
    if let Ok(mut permit) = entered {
        changes.extend(permit.report(result, now, random));
    }
}

/// A marker in the extensions of an attempt that is a breaker's probe: the same permit admits an
/// inner `Resilient` that shares the breaker. If that one needed another permit, it would be
/// rejected for ever, as the probe itself would then end without a result.
#[derive(Clone)]
struct Probe {
    breaker: Arc<BreakerHandle>,
    probing: Weak<()>,
}

impl Probe {
    #[inline]
    fn covers(extensions: &Extensions, breaker: &Arc<BreakerHandle>) -> bool {
        let Some(probe) = extensions.get::<Self>() else { return false };
        Arc::ptr_eq(breaker, &probe.breaker) && probe.probing.strong_count() > 0
    }
}
