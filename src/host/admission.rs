//! What is kept for the host of a request: asked before each attempt, told after it.

use std::{
    borrow::Cow,
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use http::Extensions;
use reqwest::Url;

use crate::breaker::{BreakerHandle, CircuitOpen, Health, Permit, Report, StateChange};
use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::host::gate::{Answer, Patience};
use crate::host::registry::host_key;
use crate::host::state::Kept;
use crate::retry::budget::Token;

/// One request's dealings with breaker, budget and gate.
///
/// Dropped at any moment, it leaves nothing behind: the permit frees its place, the token goes
/// back.
#[derive(Debug)]
pub(crate) struct Guard<'p> {
    kept: Cow<'p, Kept>,
    permit: Option<Permit>,
    /// Whether no attempt has ended yet.
    first: bool,
    /// Lives as long as a permit that is a probe.
    probing: Option<Arc<()>>,
    token: Option<Token>,
}

impl<'p> Guard<'p> {
    pub(crate) fn new(mut kept: Cow<'p, Kept>, extensions: &Extensions) -> Self {
        if kept.breaker.as_ref().is_some_and(|it| Probe::covers(extensions, it)) {
            kept.to_mut().breaker = None;
        }
        Self { kept, permit: None, first: true, probing: None, token: None }
    }

    /// The same, with what let the request in already.
    pub(crate) fn with(self, permit: Option<Permit>) -> Self {
        Self { permit, ..self }
    }

    /// Whether the host's gate is closed.
    #[inline]
    pub(crate) fn is_held_back(&self, now: Instant) -> bool {
        self.kept.is_held_back(now)
    }

    /// Whether the host's gate lets a request pass.
    pub(crate) fn gate(
        &self,
        now: Instant,
        patience: Patience,
        random: impl FnOnce() -> f64,
    ) -> Answer {
        self.kept.gate.as_ref().map_or(Answer::Pass, |it| it.ask(now, patience, random))
    }

    /// Asks the breaker for a permit; with it, a token that was taken is spent. Adds to `changes`
    /// what that changed about the breaker.
    #[inline]
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        changes: &mut Vec<StateChange>,
    ) -> Result<(), CircuitOpen> {
        if let Some(breaker) = &self.kept.breaker {
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
        let Some(breaker) = &self.kept.breaker else { return Ok(()) };
        let (permit, change) = breaker.enter(now);
        let is_probe = breaker.is_probing();
        changes.extend(change);
        self.permit = Some(permit?);
        self.probing = is_probe.then(Arc::default);
        Ok(())
    }

    /// Says in the extensions of the attempt whether it is a probe.
    #[inline]
    pub(crate) fn mark(&self, extensions: &mut Extensions) {
        if let (Some(breaker), Some(probing)) = (&self.kept.breaker, &self.probing) {
            let breaker = Arc::clone(breaker);
            extensions.insert(Probe { breaker, probing: Arc::downgrade(probing) });
        }
    }

    /// Tells the breaker what the attempt said about the health of the service, `None` if nothing.
    #[inline]
    pub(crate) fn exit(
        &mut self,
        health: Option<Health>,
        cross_host_url: Option<&Url>,
        retry_after: Option<Duration>,
        now: Instant,
        policy: &Policy,
        changes: &mut Vec<StateChange>,
    ) {
        self.probing = None;
        let first = mem::take(&mut self.first);
        if let (Some(permit), Some(health)) = (&mut self.permit, health) {
            let result = Report { health, retry_after, first };
            report(permit, result, cross_host_url, now, policy, changes);
        }
        self.permit = None;
    }

    /// How long the breaker will reject attempts from now on.
    pub(crate) fn rejects_for(&self, now: Instant) -> Option<Duration> {
        let rejection = self.kept.breaker.as_ref()?.rejects(now)?;
        // No wait helps where it was forced open.
        Some(rejection.retry_in().unwrap_or(Duration::MAX))
    }

    /// Takes a token for a retry, unless one is held already; `false` if there is none.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let account = self.kept.account.as_ref().filter(|_| self.token.is_none());
        let Some(account) = account else { return true };
        self.token = Token::withdraw(Arc::clone(account), now);
        self.token.is_some()
    }

    /// How many retries are paid for.
    pub(crate) fn budget_left(&self, now: Instant) -> Option<f64> {
        self.kept.account.as_ref().map(|it| it.balance(now))
    }

    /// The request succeeded.
    pub(crate) fn deposit(&self, now: Instant) {
        if let Some(account) = &self.kept.account {
            account.deposit(now);
        }
    }

    /// The host said when to come back: all requests of this client shall hear it. Says whether
    /// that is news.
    pub(crate) fn close_gate(&self, hint: Duration, longest: Duration, now: Instant) -> bool {
        self.kept.gate.as_ref().is_some_and(|it| it.close(now, hint, longest))
    }
}

/// A way in, if there is no more to it: the gate is open, and the breaker lets every call through.
/// There is no permit where no breaker asks for one.
#[inline]
pub(crate) fn pass(kept: &Kept, extensions: &Extensions, now: Instant) -> Option<Option<Permit>> {
    if kept.is_held_back(now) {
        return None;
    }
    match &kept.breaker {
        Some(breaker) if !Probe::covers(extensions, breaker) => breaker.pass(now).map(Some),
        _ => Some(None),
    }
}

/// Tells of the success of an attempt that nobody watches, and so of the request.
#[inline]
pub(crate) fn succeeded(
    kept: &Kept,
    permit: Option<Permit>,
    cross_host_url: Option<&Url>,
    now: Instant,
    policy: &Policy,
) {
    if let Some(mut permit) = permit {
        let result = Report { health: Health::Success, retry_after: None, first: true };
        // Nobody is told what that changes.
        if cross_host_url.is_some() {
            report(&mut permit, result, cross_host_url, now, policy, &mut vec![]);
        } else {
            permit.report(result, now, || policy.sources.random());
        }
    }
    if let Some(account) = &kept.account {
        account.deposit(now);
    }
}

/// Tells the breaker what an attempt said about the health of the service.
///
/// After a redirect to `elsewhere` the host that was asked did its work; the other one is
/// judged, unless its breaker is open and nothing would be counted.
fn report(
    permit: &mut Permit,
    result: Report,
    cross_host_url: Option<&Url>,
    now: Instant,
    policy: &Policy,
    changes: &mut Vec<StateChange>,
) {
    let random = || policy.sources.random();
    let other =
        cross_host_url.and_then(|url| policy.breaker.as_ref()?.of_other_host(&host_key(url)));
    let own = match other {
        None => result,
        Some(_) => Report { health: Health::Success, retry_after: None, ..result },
    };
    changes.extend(permit.report(own, now, random));
    let Some(other) = other else { return };
    let (entered, change) = other.enter(now);
    changes.extend(change);
    if let Ok(mut permit) = entered {
        changes.extend(permit.report(result, now, random));
    }
}

/// In the extensions of an attempt that is a breaker's probe: a further `Resilient` inside that
/// shares the breaker is let through by the same permit. Asking for another, it would be rejected
/// for ever, as the probe itself then ends without a result.
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
