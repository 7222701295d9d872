//! What is kept for the host of a request: asked before each attempt, told after it.

use std::{sync::Arc, time::Duration};

use reqwest::Request;

use crate::breaker::{CircuitBreaker, CircuitOpen, Health, Permit};
use crate::budget::{Account, Token};
use crate::gate::{Answer, HostGate};
use crate::policy::Policy;
use crate::registry::host_key;
use crate::time::Instant;

/// One request's dealings with breaker, budget and gate.
///
/// Dropped at any moment, it leaves nothing behind: the permit frees its place, the token goes
/// back.
#[derive(Debug)]
pub(crate) struct Guard {
    breaker: Option<CircuitBreaker>,
    account: Option<Arc<Account>>,
    gate: Option<Arc<HostGate>>,
    permit: Option<Permit>,
    token: Option<Token>,
}

impl Guard {
    pub(crate) fn new(policy: &Policy, request: &Request, now: Instant) -> Self {
        let found = &mut None;
        Self {
            breaker: policy.breaker.as_ref().map(|it| it.of_request(request, found)),
            account: policy.budget.as_ref().map(|it| it.of_request(request, found, now)),
            gate: policy
                .gates
                .as_ref()
                .map(|it| it.of_request(request, found, |_| HostGate::default())),
            permit: None,
            token: None,
        }
    }

    /// Whether the host's gate lets a request pass.
    pub(crate) fn gate(&self, now: Instant, random: impl FnOnce() -> f64) -> Answer {
        self.gate.as_ref().map_or(Answer::Pass, |it| it.ask(now, random))
    }

    /// Asks the breaker for a permit; with it, a token that was taken is spent.
    pub(crate) fn enter(&mut self, now: Instant) -> Result<(), CircuitOpen> {
        if let Some(breaker) = &self.breaker {
            self.permit = Some(breaker.try_enter(now)?);
        }
        if let Some(token) = self.token.take() {
            token.spend();
        }
        Ok(())
    }

    /// Tells the breaker what the attempt said about the health of the service, `None` if nothing.
    ///
    /// After a redirect to `elsewhere` the host that was asked did its work; the other one is
    /// judged, unless its breaker is open and nothing would be counted.
    pub(crate) fn exit(
        &mut self,
        health: Option<Health>,
        elsewhere: Option<&reqwest::Url>,
        retry_after: Option<Duration>,
        now: Instant,
        policy: &Policy,
    ) {
        let (Some(permit), Some(health)) = (self.permit.take(), health) else { return };
        let random = || policy.sources.random();
        let other =
            elsewhere.and_then(|url| policy.breaker.as_ref()?.of_other_host(&host_key(url)));
        let Some(other) = other else {
            return permit.exit_drawing(health, retry_after, now, random);
        };
        permit.success(now);
        if let Ok(permit) = other.try_enter(now) {
            permit.exit_drawing(health, retry_after, now, random);
        }
    }

    /// How long the breaker will reject attempts from now on.
    pub(crate) fn rejects_for(&self, now: Instant) -> Option<Duration> {
        Some(self.breaker.as_ref()?.rejection(now)?.retry_in())
    }

    /// Takes a token for a retry, unless one is held already; `false` if there is none.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        let Some(account) = self.account.as_ref().filter(|_| self.token.is_none()) else {
            return true;
        };
        self.token = Token::withdraw(account, now);
        self.token.is_some()
    }

    /// The request succeeded.
    pub(crate) fn deposit(&self) {
        if let Some(account) = &self.account {
            account.deposit();
        }
    }

    /// The host said when to come back: all requests of this client shall hear it.
    pub(crate) fn close_gate(&self, hint: Duration, now: Instant) {
        if let Some(gate) = &self.gate {
            gate.close(now, hint);
        }
    }
}
