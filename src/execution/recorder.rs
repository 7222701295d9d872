//! The recorder of a request: notifies its listeners, and keeps its history.

use std::{mem, sync::Arc, time::Duration};

use http::{Extensions, Method};
use reqwest::{Request, Url};

use crate::breaker::StateChange;
use crate::config::policy::Policy;
use crate::host::fleet::member::ViewChange;
use crate::host::hedge::HedgeRefusal;
use crate::host::limit::LimitUse;
use crate::observe::attempt_log::AttemptLog;
use crate::observe::event::{Event, FailureInfo, RequestInfo, ResponseInfo, RetryInfo};
use crate::observe::history::{Attempt, History, Hold, Holder, server_of};
use crate::observe::info::{
    BudgetInfo, FailoverInfo, FleetInfo, GateInfo, HedgeInfo, HedgeRefusedInfo, HeldInfo,
    LimitInfo, QueueInfo,
};
use crate::observe::listeners::Scopes;
use crate::outcome::{AttemptKind, Heard, Outcome};
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// Where a request stands when something is recorded.
#[derive(Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) attempts: u32,
    /// The time since its beginning.
    pub(crate) elapsed: Duration,
    /// The tokens in the budget, if there are one and listeners.
    pub(crate) tokens: Option<f64>,
}

/// Notifies the listeners of one request, and keeps its history.
pub(crate) struct Recorder<'p> {
    policy: &'p Policy,
    /// Boxed, because most have none.
    history: Option<Box<History>>,
    pub(crate) log: Option<AttemptLog>,
    /// The scopes of observers around the attempt under way.
    pub(crate) scopes: Scopes,
    /// The retry hints of the last response.
    pub(crate) heard: Heard,
    /// The endpoint of the attempt under way, and its host if that is not the request's own.
    endpoint: Option<(&'p Url, Option<String>)>,
}

/// An endpoint as attempts at it are recorded.
pub(crate) struct RecordedEndpoint<'p> {
    policy: &'p Policy,
    endpoint: Option<(&'p Url, Option<String>)>,
}

impl<'p> RecordedEndpoint<'p> {
    /// Describes an endpoint, with the settings of its host; `own` is the request's own URL.
    pub(crate) fn new(policy: &'p Policy, endpoint: &'p Url, own: &Url) -> Self {
        let (host, own) = (server_of(endpoint), server_of(own));
        Self { policy, endpoint: Some((endpoint, host.filter(|it| own.as_ref() != Some(it)))) }
    }
}

impl<'p> Recorder<'p> {
    pub(crate) fn new(policy: &'p Policy, log: Option<AttemptLog>) -> Self {
        let (scopes, heard) = (Scopes::default(), Heard::default());
        Self { policy, history: None, log, scopes, heard, endpoint: None }
    }

    /// Follows the settings of an endpoint's host.
    pub(crate) fn follow(&mut self, policy: &'p Policy) {
        self.policy = policy;
    }

    /// Sets the endpoint of the attempts that follow; `own` is the request's own URL.
    pub(crate) fn set_endpoint(&mut self, endpoint: &'p Url, own: &Url) {
        self.endpoint = RecordedEndpoint::new(self.policy, endpoint, own).endpoint;
    }

    /// Exchanges the endpoint of what is recorded, and the settings of its host.
    pub(crate) fn swap_endpoint(&mut self, other: &mut RecordedEndpoint<'p>) {
        mem::swap(&mut self.policy, &mut other.policy);
        mem::swap(&mut self.endpoint, &mut other.endpoint);
    }

    /// Notifies that an attempt goes to another endpoint than the one before, which was at `from`.
    pub(crate) fn failed_over(&self, request: &Request, from: &Url, attempt: u32) {
        if self.is_observed() {
            let (url, from) = (self.policy.redacted(request.url()), self.policy.redacted(from));
            let info = FailoverInfo { method: request.method(), url, from, attempt };
            self.notify(&Event::FailedOver(&info));
        }
    }

    /// Returns whether there are listeners.
    #[inline]
    pub(crate) fn is_observed(&self) -> bool {
        !self.policy.listeners.is_empty()
    }

    fn notify(&self, event: &Event<'_>) {
        self.policy.listeners.notify(event);
    }

    /// Notifies that an attempt is about to be sent, and opens the scopes around it.
    pub(crate) fn attempt_started(
        &mut self,
        request: &Request,
        extensions: &Extensions,
        (attempt, kind): (u32, AttemptKind),
        limit: Option<LimitUse>,
    ) {
        if self.is_observed() {
            let (method, url) = (request.method(), self.policy.redacted(request.url()));
            let max_retries = self.policy.max_retries;
            let endpoint = self.endpoint.as_ref().map(|it| self.policy.redacted(it.0));
            let info = RequestInfo {
                method,
                url,
                attempt,
                kind,
                max_retries,
                limit,
                extensions,
                endpoint,
            };
            self.notify(&Event::AttemptStarted(&info));
            self.scopes = self.policy.listeners.scopes(&info);
        }
    }

    /// Notifies that a hedge is about to be sent.
    pub(crate) fn hedge_started(&self, request: &Request, attempt: u32, delay: Duration) {
        if self.is_observed() {
            let (method, url) = (request.method(), self.policy.redacted(request.url()));
            self.notify(&Event::HedgeStarted(&HedgeInfo { method, url, attempt, delay }));
        }
    }

    /// Notifies that a hedge was due and refused.
    pub(crate) fn hedge_refused(&self, request: &Request, delay: Duration, why: HedgeRefusal) {
        if self.is_observed() {
            let (method, url) = (request.method(), self.policy.redacted(request.url()));
            self.notify(&Event::HedgeRefused(&HedgeRefusedInfo { method, url, delay, why }));
        }
    }

    /// Records an attempt that lost a race and `ended` then, counted from the beginning of the
    /// request. Its scopes end with its own failure; those of one that was under way are dropped.
    pub(crate) fn superseded(
        &mut self,
        outcome: &Outcome<'_>,
        ended: Duration,
        scopes: Option<&mut Scopes>,
    ) {
        let host = self.endpoint.as_ref().and_then(|it| it.1.clone());
        let attempt = Attempt { host, ..Attempt::new(outcome, ended) };
        self.history().push_superseded(attempt);
        if self.is_observed() {
            self.notify(&Event::Superseded(outcome));
            if let Some(scopes) = scopes {
                scopes.end(outcome);
            }
        }
    }

    /// Returns whether there is nothing to record of an attempt: a success that has no listeners.
    #[inline]
    pub(crate) fn ignores(&self, outcome: &Outcome<'_>, decision: &Decision) -> bool {
        let is_silent = !self.is_observed() && self.log.is_none() && self.history.is_none();
        is_silent && is_plain(outcome, Some(decision))
    }

    /// Records an attempt that `ended` then, counted from the beginning of the request, and the
    /// decision after it; `None` if a retry has no token yet. A first attempt that succeeds leaves
    /// no history but in a log.
    pub(crate) fn attempt_ended(
        &mut self,
        outcome: &Outcome<'_>,
        ended: Duration,
        heard: Heard,
        decision: Option<&Decision>,
        now: Standing,
    ) {
        let host = || self.endpoint.as_ref().and_then(|it| it.1.clone());
        let attempt = || Attempt { host: host(), ..Attempt::new(outcome, ended) };
        if self.history.is_none() && is_plain(outcome, decision) {
            if let Some(log) = &self.log {
                let history = History::of_success(attempt(), heard);
                log.set(history, now.elapsed, self.policy.redact_path.as_ref());
            }
        } else {
            let attempt = attempt();
            let history = self.history();
            history.push(attempt, heard);
            match decision {
                None => {}
                Some(Decision::Return(stop)) => history.end(*stop),
                Some(Decision::Retry { after, source }) => history.waits(*after, source),
            }
            self.keep_log(now);
        }
        if self.is_observed() {
            self.notify(&Event::AttemptEnded(outcome));
            self.scopes.end(outcome);
        }
    }

    /// Notifies of the changes of circuit breakers, and clears them.
    #[inline]
    pub(crate) fn breakers_changed(&self, changes: &mut Vec<StateChange>) {
        if !changes.is_empty() {
            let changes = mem::take(changes);
            changes.iter().for_each(|it| self.notify(&Event::BreakerChanged(it)));
        }
    }

    /// Notifies of a change of the fleet's breaker.
    #[cold]
    pub(crate) fn fleet_changed(&self, (host, change, nodes): &(Arc<str>, ViewChange, u32)) {
        if self.is_observed() {
            let (from, to, nodes) = (change.from, change.to, *nodes);
            self.notify(&Event::FleetChanged(&FleetInfo { host, from, to, nodes }));
        }
    }

    /// Notifies that a response closed the gate of its host, or keeps it closed for longer.
    pub(crate) fn gate_closed(&self, outcome: &Outcome<'_>, closed_for: Duration) {
        if self.is_observed() {
            let (method, url) = (outcome.method, self.policy.redacted(outcome.url));
            self.notify(&Event::GateClosed(&GateInfo { method, url, closed_for }));
        }
    }

    /// Records that the request waits before an attempt.
    pub(crate) fn held_back(
        &mut self,
        request: &Request,
        source: WaitSource,
        wait: Duration,
        now: Standing,
    ) {
        let by = match source {
            WaitSource::CircuitBreaker | WaitSource::Fleet => StopReason::CircuitOpen,
            WaitSource::Budget => StopReason::Budget,
            _ => StopReason::RateLimited,
        };
        if self.is_observed() {
            let (method, url) = (request.method(), self.policy.redacted(request.url()));
            let info = HeldInfo { method, url, wait, source: &source };
            self.notify(&Event::HeldBack(&info));
        }
        let by_fleet = matches!(source, WaitSource::Fleet | WaitSource::FleetGate);
        self.hold((by, by_fleet), Some((wait, source)), now);
    }

    /// Records that the request waited for a limit of the client.
    pub(crate) fn queued(
        &mut self,
        request: &Request,
        source: WaitSource,
        waited: Duration,
        limit: Option<LimitUse>,
        now: Standing,
    ) {
        if self.is_observed() {
            let (method, url) = (request.method(), self.policy.redacted(request.url()));
            self.notify(&Event::Queued(&QueueInfo { method, url, waited, source: &source, limit }));
        }
        let began = Standing { elapsed: now.elapsed.saturating_sub(waited), ..now };
        self.hold((StopReason::Limited, false), Some((waited, source)), began);
    }

    /// Notifies that an attempt changed the concurrency limit of its host.
    pub(crate) fn limit_changed(
        &self,
        outcome: &Outcome<'_>,
        (from, to): (u32, u32),
        usage: LimitUse,
    ) {
        if self.is_observed() {
            let (method, url) = (outcome.method, self.policy.redacted(outcome.url));
            self.notify(&Event::LimitChanged(&LimitInfo { method, url, from, to, usage }));
        }
    }

    /// Records that the request is rejected, and whether the fleet did: nothing is sent.
    pub(crate) fn rejected(&mut self, outcome: &Outcome<'_>, by: Holder, now: Standing) {
        self.history().end(by.0);
        self.hold(by, None, now);
        if self.is_observed() {
            self.notify(&Event::Rejected(outcome));
        }
    }

    fn hold(&mut self, by: Holder, wait: Option<(Duration, WaitSource)>, now: Standing) {
        let (by, by_fleet) = by;
        let Standing { attempts, elapsed: at, .. } = now;
        self.history().hold(Hold { attempts, at, by, by_fleet, wait });
        self.keep_log(now);
    }

    /// Records the wait before a retry that has its token only now.
    pub(crate) fn has_token(
        &mut self,
        outcome: &Outcome<'_>,
        wait: Duration,
        source: &WaitSource,
        now: Standing,
    ) {
        self.history().waits(wait, source);
        self.keep_log(now);
        self.waiting(outcome, wait, source, now);
    }

    /// Notifies that a wait begins, after which the request is sent again.
    pub(crate) fn waiting(
        &self,
        outcome: &Outcome<'_>,
        wait: Duration,
        source: &WaitSource,
        now: Standing,
    ) {
        if self.is_observed() {
            let info = RetryInfo {
                method: outcome.method,
                url: self.policy.redacted(outcome.url),
                attempt: now.attempts.saturating_add(1),
                max_retries: self.policy.max_retries,
                wait,
                source,
                tokens: now.tokens,
                outcome,
            };
            self.notify(&Event::Waiting(&info));
        }
    }

    /// Records that an attempt that is retried may have been applied.
    pub(crate) fn note_maybe_applied(&mut self) {
        self.history().note_maybe_applied();
    }

    /// Notifies that a budget had no token for a retry to `url`.
    pub(crate) fn budget_refused(&self, method: &Method, url: &Url, attempts: u32, tokens: f64) {
        let url = self.policy.redacted(url);
        self.notify(&Event::BudgetRefused(&BudgetInfo { method, url, attempts, tokens }));
    }

    /// Notifies that the request ended.
    pub(crate) fn ended(&self, outcome: &Outcome<'_>, stop: StopReason, now: Standing) {
        if !self.is_observed() {
            return;
        }
        let (method, url) = (outcome.method, self.policy.redacted(outcome.url));
        let (Standing { attempts, elapsed, tokens }, max_retries) = (now, self.policy.max_retries);
        if stop == StopReason::Success {
            let info =
                ResponseInfo { method, url, attempts, max_retries, elapsed, tokens, outcome };
            return self.notify(&Event::Succeeded(&info));
        }
        let may_have_been_applied =
            self.history.as_ref().is_some_and(|it| it.may_have_been_applied());
        let stop_reason = stop;
        self.notify(&Event::GaveUp(&FailureInfo {
            method,
            url,
            attempts,
            max_retries,
            elapsed,
            stop_reason,
            may_have_been_applied,
            outcome,
        }));
    }

    /// Records that a request ends for which a retry had been decided.
    pub(crate) fn give_up(&mut self, stop: StopReason, now: Standing) {
        self.history().end(stop);
        self.keep_log(now);
    }

    /// Takes out the history; `None` if there is none.
    pub(crate) fn take_history(&mut self) -> Option<Box<History>> {
        self.history.take()
    }

    fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    fn keep_log(&self, now: Standing) {
        if let (Some(log), Some(history)) = (&self.log, &self.history) {
            log.set(History::clone(history), now.elapsed, self.policy.redact_path.as_ref());
        }
    }
}

/// Returns whether an attempt was the first and succeeded.
fn is_plain(outcome: &Outcome<'_>, decision: Option<&Decision>) -> bool {
    outcome.attempt == 1 && decision == Some(&Decision::Return(StopReason::Success))
}
