//! What is kept for the host of a request: asked before each attempt, told after it.

use std::{
    borrow::Cow,
    sync::{Arc, Weak},
    time::Duration,
};

use http::Extensions;
use reqwest::Request;

use crate::breaker::{CircuitOpen, Health, Home, Permit, StateChange};
use crate::budget::{Account, Token};
use crate::gate::{Answer, HostGate, Patience};
use crate::policy::Policy;
use crate::registry::{Entry, host_key};
use crate::time::Instant;

/// One request's dealings with breaker, budget and gate.
///
/// Dropped at any moment, it leaves nothing behind: the permit frees its place, the token goes
/// back.
#[derive(Debug)]
pub(crate) struct Guard<'p> {
    breaker: Option<Cow<'p, Arc<Home>>>,
    account: Option<Cow<'p, Arc<Account>>>,
    gate: Option<Cow<'p, Arc<HostGate>>>,
    permit: Option<Permit>,
    /// Lives as long as a permit that is a probe.
    probing: Option<Arc<()>>,
    token: Option<Token>,
}

impl<'p> Guard<'p> {
    #[inline(always)]
    pub(crate) fn new(
        policy: &'p Policy,
        found: Option<&'p Arc<Entry>>,
        request: &Request,
        extensions: &Extensions,
        now: Instant,
    ) -> Self {
        let breaker = policy.breaker.as_ref().map(|it| it.of_request(request, found));
        let gates = policy.gates.as_ref();
        Self {
            breaker: breaker.filter(|it| !Probe::covers(extensions, it)),
            account: policy.budget.as_ref().map(|it| it.of_request(request, found, now)),
            gate: gates.map(|it| it.of_request(request, found, |_| HostGate::default())),
            permit: None,
            probing: None,
            token: None,
        }
    }

    /// Whether the host's gate is closed.
    #[inline]
    pub(crate) fn is_held_back(&self, now: Instant) -> bool {
        self.gate.as_ref().is_some_and(|it| it.is_closed(now))
    }

    /// Whether the host's gate lets a request pass.
    pub(crate) fn gate(
        &self,
        now: Instant,
        patience: Patience,
        random: impl FnOnce() -> f64,
    ) -> Answer {
        self.gate.as_ref().map_or(Answer::Pass, |it| it.ask(now, patience, random))
    }

    /// Asks the breaker for a permit where there is no more to it: the gate is open, and every
    /// call is let through.
    #[inline]
    pub(crate) fn passes(&mut self, now: Instant) -> bool {
        if self.is_held_back(now) {
            return false;
        }
        if let Some(breaker) = &self.breaker {
            self.permit = breaker.pass(now);
            return self.permit.is_some();
        }
        true
    }

    /// Asks the breaker for a permit; with it, a token that was taken is spent. Adds to `changes`
    /// what that changed about the breaker.
    #[inline]
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        changes: &mut Vec<StateChange>,
    ) -> Result<(), CircuitOpen> {
        if let Some(breaker) = &self.breaker {
            match breaker.pass(now) {
                Some(permit) => self.permit = Some(permit),
                None => self.ask(now, changes)?,
            }
        }
        if let Some(token) = self.token.take() {
            token.spend();
        }
        Ok(())
    }

    fn ask(&mut self, now: Instant, changes: &mut Vec<StateChange>) -> Result<(), CircuitOpen> {
        let Some(breaker) = &self.breaker else { return Ok(()) };
        let (permit, change) = breaker.enter(now);
        let is_probe = breaker.is_choosy();
        changes.extend(change);
        self.permit = Some(permit?);
        self.probing = is_probe.then(Arc::default);
        Ok(())
    }

    /// Says in the extensions of the attempt whether it is a probe.
    #[inline]
    pub(crate) fn mark(&self, extensions: &mut Extensions) {
        if let (Some(breaker), Some(probing)) = (&self.breaker, &self.probing) {
            let breaker = Arc::clone(breaker);
            extensions.insert(Probe { breaker, probing: Arc::downgrade(probing) });
        }
    }

    /// Tells the breaker what the attempt said about the health of the service, `None` if nothing.
    ///
    /// After a redirect to `elsewhere` the host that was asked did its work; the other one is
    /// judged, unless its breaker is open and nothing would be counted.
    #[inline]
    pub(crate) fn exit(
        &mut self,
        health: Option<Health>,
        elsewhere: Option<&reqwest::Url>,
        retry_after: Option<Duration>,
        now: Instant,
        policy: &Policy,
        changes: &mut Vec<StateChange>,
    ) {
        self.probing = None;
        if let (Some(_), Some(health)) = (&self.permit, health) {
            self.report(health, elsewhere, retry_after, now, policy, changes);
        }
        self.permit = None;
    }

    #[inline]
    fn report(
        &mut self,
        health: Health,
        elsewhere: Option<&reqwest::Url>,
        retry_after: Option<Duration>,
        now: Instant,
        policy: &Policy,
        changes: &mut Vec<StateChange>,
    ) {
        let random = || policy.sources.random();
        let other =
            elsewhere.and_then(|url| policy.breaker.as_ref()?.of_other_host(&host_key(url)));
        let (own, hint) = match other {
            None => (health, retry_after),
            Some(_) => (Health::Success, None),
        };
        let permit = self.permit.as_mut();
        changes.extend(permit.and_then(|it| it.report(own, hint, now, random)));
        let Some(other) = other else { return };
        let (entered, change) = other.enter(now);
        changes.extend(change);
        if let Ok(mut permit) = entered {
            changes.extend(permit.report(health, retry_after, now, random));
        }
    }

    /// Whether there is anything to tell of a success.
    #[inline]
    pub(crate) fn reports(&self) -> bool {
        self.permit.is_some() || self.account.is_some()
    }

    /// How long the breaker will reject attempts from now on.
    pub(crate) fn rejects_for(&self, now: Instant) -> Option<Duration> {
        Some(self.breaker.as_ref()?.rejects(now)?.retry_in())
    }

    /// Takes a token for a retry, unless one is held already; `false` if there is none.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let account = self.account.as_ref().filter(|_| self.token.is_none());
        let Some(account) = account else { return true };
        self.token = Token::withdraw(Arc::clone(account), now);
        self.token.is_some()
    }

    /// How many retries are paid for.
    pub(crate) fn budget_left(&self, now: Instant) -> Option<f64> {
        self.account.as_ref().map(|it| it.balance(now))
    }

    /// Tells of the success of an attempt that nobody watches, and so of the request.
    #[inline]
    pub(crate) fn succeeded(
        &mut self,
        elsewhere: Option<&reqwest::Url>,
        now: Instant,
        policy: &Policy,
    ) {
        // Nobody is told.
        let changes = &mut vec![];
        self.exit(Some(Health::Success), elsewhere, None, now, policy, changes);
        self.deposit(now);
    }

    /// The request succeeded.
    pub(crate) fn deposit(&self, now: Instant) {
        if let Some(account) = &self.account {
            account.deposit(now);
        }
    }

    /// The host said when to come back: all requests of this client shall hear it. Says whether
    /// that is news.
    pub(crate) fn close_gate(&self, hint: Duration, longest: Duration, now: Instant) -> bool {
        self.gate.as_ref().is_some_and(|it| it.close(now, hint, longest))
    }
}

/// In the extensions of an attempt that is a breaker's probe: a further `Resilient` inside that
/// shares the breaker is let through by the same permit. Asking for another, it would be rejected
/// for ever, as the probe itself then ends without a result.
#[derive(Clone)]
struct Probe {
    breaker: Arc<Home>,
    probing: Weak<()>,
}

impl Probe {
    fn covers(extensions: &Extensions, breaker: &Arc<Home>) -> bool {
        let Some(probe) = extensions.get::<Self>() else { return false };
        Arc::ptr_eq(breaker, &probe.breaker) && probe.probing.strong_count() > 0
    }
}
