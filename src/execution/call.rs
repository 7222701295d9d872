//! One logical request under way: what it knows, what it tells, and what it comes back with.

use std::{mem, time::Duration};

use http::Extensions;
use reqwest::{Request, Response};

use crate::breaker::{CircuitOpen, StateChange};
use crate::common::clock::Instant;
use crate::config::policy::{Policy, RetryAfter};
use crate::error::{BoxError, Cause, HttpRequestError, Inner};
use crate::execution::attempt::{AttemptLimits, AttemptResult, Chain};
use crate::execution::body::{self, BodyFactory};
use crate::execution::decide::{DecisionInput, Repeat, Retry, Upload};
use crate::host::admission::Admission;
use crate::host::gate::{Closing, Patience, RateLimited, Throttle};
use crate::observe::event::{
    BudgetInfo, Event, FailureInfo, GateInfo, HeldInfo, RequestInfo, ResponseInfo, RetryInfo,
    Scopes,
};
use crate::observe::history::{Attempt, AttemptLog, Heard, History, Hold};
use crate::outcome::classify::{self, Throttling, Verdict};
use crate::outcome::hint::{self, Advice};
use crate::outcome::idempotency;
use crate::outcome::{Failure, FailureKind, Outcome, OutcomeResult};
use crate::retry::budget::Success;
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// A longer body may be refused while it is still being sent.
const LARGE: usize = 64 * 1024;

pub(crate) struct Execution<'p> {
    pub(crate) retry: Retry,
    /// What observers put around the attempt under way.
    pub(crate) scopes: Scopes,
    guard: Admission<'p>,
    /// What breakers changed by this request's doing, and nobody has told yet.
    changes: Vec<StateChange>,
    pub(crate) policy: &'p Policy,
    /// How long it may still wait at the gate.
    gate_time: Duration,
    waits_at_gate: bool,
    keyed: bool,
    /// Whether a hinted 503 has given it a free retry.
    was_invited: bool,
    /// Boxed, because most have none.
    history: Option<Box<History>>,
    log: Option<AttemptLog>,
}

impl<'p> Execution<'p> {
    /// Begins a request, which gets the key it needs.
    pub(crate) fn new(
        policy: &'p Policy,
        guard: Admission<'p>,
        request: &mut Request,
        extensions: &Extensions,
        now: Instant,
    ) -> Self {
        if let Some(key) = &policy.idempotency_key {
            key.apply(request, rand::random);
        }
        let made = extensions.get::<BodyFactory>().is_some();
        if made {
            // Each attempt gets a body of its own.
            *request.body_mut() = None;
        }
        let repeat = match request.body() {
            Some(body) if body.as_bytes().is_none() => Repeat::Never,
            _ if policy.may_repeat(request.method(), request.headers()) => Repeat::Always,
            _ => Repeat::IfNotProcessed,
        };
        let length = request.body().map_or(0, |it| it.as_bytes().map_or(usize::MAX, <[u8]>::len));
        let upload = if made || length > LARGE { Upload::Large } else { Upload::Small };
        Self {
            retry: Retry::new(policy, repeat, upload, now),
            scopes: Scopes::default(),
            guard,
            changes: vec![],
            policy,
            gate_time: policy.max_wait_time,
            waits_at_gate: false,
            keyed: !idempotency::is_idempotent(request.method())
                && idempotency::is_keyed(request.headers(), policy.idempotency_key.as_ref()),
            was_invited: false,
            history: None,
            log: extensions.get().cloned(),
        }
    }

    /// Returns whether a gate of the host may be closed.
    #[inline]
    pub(crate) fn may_be_held_back(&self) -> bool {
        self.guard.may_be_held_back()
    }

    /// Returns whether the wait before the next attempt is spent at the gate.
    pub(crate) fn waits_at_gate(&self) -> bool {
        self.waits_at_gate
    }

    /// Waits until the gate lets the request pass, if there is the time for it.
    ///
    /// The waits of one request at the gate add up to no more than `max_wait_time` and the spread.
    pub(crate) async fn pass_gate(
        &mut self,
        request: &Request,
    ) -> Result<Instant, (RateLimited, Instant)> {
        let now = Instant::now();
        let left = self.retry.left(now).unwrap_or(Duration::MAX);
        let patience = Patience { wait: self.gate_time, left };
        let entered = self.guard.enter_gate(request, self.retry.started(), patience, now);
        let Some(waiting) = entered.map_err(|it| (it, now))? else { return Ok(now) };
        // The wait after a response that closed the gate has been reported with that.
        if !mem::take(&mut self.waits_at_gate) {
            let wait = waiting.opens_in();
            self.held_up(FailureKind::RateLimited, Some((wait, WaitSource::Gate)), now);
            self.notify(|call| {
                let (method, url) = (request.method(), call.policy.redacted(request.url()));
                call.policy.listeners.notify(&Event::HeldBack(&HeldInfo { method, url, wait }));
            });
        }
        let passed = waiting.wait().await;
        let later = Instant::now();
        self.gate_time = self.gate_time.saturating_sub(later.saturating_duration_since(now));
        self.guard.hold_gate(passed.map_err(|it| (it, later))?);
        Ok(later)
    }

    /// Asks the circuit breaker.
    #[inline]
    pub(crate) fn enter(&mut self, now: Instant) -> Result<(), CircuitOpen> {
        let entered = self.guard.enter(now, &mut self.changes);
        self.notify_changes();
        entered
    }

    /// Says to whoever is further in what it has to know of this attempt.
    #[inline]
    pub(crate) fn mark(&self, extensions: &mut Extensions) {
        self.guard.mark(extensions);
    }

    /// Counts an attempt about to be sent and tells it.
    #[inline]
    pub(crate) fn starts(&mut self, request: &Request) {
        self.retry.attempt();
        if !self.policy.listeners.is_empty() {
            let info = RequestInfo {
                method: request.method(),
                url: self.policy.redacted(request.url()),
                attempt: self.retry.attempts(),
                max_retries: self.policy.max_retries,
            };
            self.policy.listeners.notify(&Event::AttemptStarted(&info));
            self.scopes = self.policy.listeners.scopes(&info);
        }
    }

    /// What the attempt that begins now has to keep to.
    #[inline]
    pub(crate) fn terms(&self, now: Instant, timeout: Option<Duration>) -> AttemptLimits<'p> {
        AttemptLimits {
            policy: self.policy,
            number: self.retry.attempts(),
            now,
            timeout,
            deadline: self.retry.deadline(),
            watches_redirects: self.retry.watches_redirects(),
        }
    }

    /// Decides what follows an attempt or a rejection, records it and tells it.
    pub(crate) fn judge(
        &mut self,
        request: &Request,
        elapsed: Duration,
        result: OutcomeResult<'_>,
        nested: bool,
        now: Instant,
    ) -> Decision {
        // An earlier wait may have ended without a visit to the gate.
        self.waits_at_gate = false;
        let outcome = &self.outcome(request, elapsed, result);
        let decision = match outcome.failure() {
            Some(FailureKind::CircuitOpen) => self.rejected(outcome, now),
            _ => self.attempted(request, outcome, nested, now),
        };
        match &decision {
            Decision::Return(stop) => self.ends(outcome, *stop, now),
            Decision::Retry { after, source } => self.notify(|call| {
                let info = RetryInfo {
                    method: outcome.method,
                    url: call.policy.redacted(outcome.url),
                    attempt: call.retry.attempts().saturating_add(1),
                    max_retries: call.policy.max_retries,
                    wait: *after,
                    source,
                    tokens: call.guard.budget_left(now),
                    outcome,
                };
                call.policy.listeners.notify(&Event::Waiting(&info));
            }),
        }
        decision
    }

    fn outcome<'a>(
        &self,
        request: &'a Request,
        elapsed: Duration,
        result: OutcomeResult<'a>,
    ) -> Outcome<'a>
    where
        'p: 'a,
    {
        let (method, url) = (request.method(), request.url());
        Outcome {
            method,
            url,
            attempt: self.retry.attempts(),
            elapsed,
            keyed: self.keyed,
            redact_path: self.policy.redact_path.as_ref(),
            result,
        }
    }

    fn attempted(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        nested: bool,
        now: Instant,
    ) -> Decision {
        let advice = self.advice(outcome);
        let verdict = self.policy.verdict(outcome, &advice);
        let closing = self.report(request, outcome, verdict, &advice, now);
        let retry_in = advice.hint.as_ref().map(|it| it.after);
        let heard = Heard { retry_in, rate_limited: advice.rate_limited };
        let decision = match verdict {
            _ if outcome.failure() == Some(FailureKind::Deadline) => {
                Decision::Return(StopReason::Deadline)
            }
            Verdict::Success => Decision::Return(StopReason::Success),
            Verdict::Final => Decision::Return(StopReason::Final),
            Verdict::Transient if nested => Decision::Return(StopReason::Vetoed),
            Verdict::Transient => self.decide(outcome, advice, self.guard.rejects_for(now), now),
        };
        let decision = match (decision, &closing) {
            (Decision::Retry { source, .. }, Some(closing)) => {
                self.wait_at_gate(closing, source, now)
            }
            (decision, _) => decision,
        };
        self.record(outcome, heard, &decision, now);
        self.notify(|call| call.policy.listeners.notify(&Event::AttemptEnded(outcome)));
        self.scopes.end(outcome);
        self.notify_changes();
        if let Some(Closing { opens_in: closed_for, .. }) = closing.filter(|it| it.is_longer) {
            self.notify(|call| {
                let (method, url) = (outcome.method, call.policy.redacted(outcome.url));
                let info = GateInfo { method, url, closed_for };
                call.policy.listeners.notify(&Event::GateClosed(&info));
            });
        }
        decision
    }

    /// Spends the wait before the next attempt at the gate, which this one's response has closed: the
    /// oldest request goes first when it opens.
    fn wait_at_gate(&mut self, closing: &Closing, source: WaitSource, now: Instant) -> Decision {
        let after = closing.opens_in;
        if self.retry.left(now).is_some_and(|left| after >= left) {
            return Decision::Return(StopReason::Deadline);
        }
        if closing.announced_in > self.gate_time {
            return Decision::Return(StopReason::RateLimited);
        }
        self.waits_at_gate = true;
        let source = match source {
            WaitSource::Hint(_) | WaitSource::HintFrom => source,
            _ => WaitSource::Gate,
        };
        Decision::Retry { after, source }
    }

    /// A first attempt that is rejected ends the request; a later one uses up a retry.
    fn rejected(&mut self, outcome: &Outcome<'_>, now: Instant) -> Decision {
        self.guard.leave_gate(None, now);
        let decision = match self.retry.attempts() {
            0 => Decision::Return(StopReason::CircuitOpen),
            _ => {
                let rejected_for = self.guard.rejects_for(now).unwrap_or_default();
                self.decide(outcome, Advice::default(), Some(rejected_for), now)
            }
        };
        let (decision, wait) = match decision {
            Decision::Retry { after, source } => {
                let wait = Some((after, source.clone()));
                (Decision::Retry { after, source }, wait)
            }
            Decision::Return(StopReason::Exhausted) => {
                (Decision::Return(StopReason::CircuitOpen), None)
            }
            decision => (decision, None),
        };
        if let Decision::Return(stop) = decision {
            self.history().end(stop);
        }
        self.held_up(FailureKind::CircuitOpen, wait, now);
        self.notify(|call| call.policy.listeners.notify(&Event::Rejected(outcome)));
        decision
    }

    fn decide(
        &mut self,
        outcome: &Outcome<'_>,
        advice: Advice,
        rejected_for: Option<Duration>,
        now: Instant,
    ) -> Decision {
        // Nothing is drawn for a wait that cannot follow.
        let waits = self.retry.may_repeat(self.policy);
        let random = if waits { self.policy.sources.random() } else { 0.0 };
        let facts = DecisionInput { now, random, advice, rejected_for };
        match self.retry.decide(self.policy, outcome, &facts) {
            Decision::Retry { .. }
                if !self.is_invited(outcome, &facts.advice) && !self.guard.withdraw(now) =>
            {
                Decision::Return(StopReason::Budget)
            }
            decision => decision,
        }
    }

    /// Returns whether the server asked for this retry, so that it costs no token: after a rate limit,
    /// and once a request after a 503 or 529 that says when.
    fn is_invited(&mut self, outcome: &Outcome<'_>, advice: &Advice) -> bool {
        match classify::throttling(outcome, advice) {
            Some(Throttling::RateLimit) => true,
            Some(Throttling::Unavailable) => {
                advice.hint.is_some() && !mem::replace(&mut self.was_invited, true)
            }
            None => false,
        }
    }

    /// Reports an attempt to breaker, budget and gate. Returns how its response closed the gate.
    fn report(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        advice: &Advice,
        now: Instant,
    ) -> Option<Closing> {
        let listens = self.policy.retry_after != RetryAfter::Ignored;
        let hint = advice.hint.as_ref().map(|it| it.after).filter(|_| listens);
        let health = match &self.policy.breaker_health {
            Some(judge) => judge(outcome),
            None => classify::health(outcome, verdict, advice),
        };
        let cross_host_url = outcome.cross_host_url();
        self.guard.exit(health, cross_host_url, hint, now, &self.policy.sources, &mut self.changes);
        if verdict == Verdict::Success {
            let first = self.retry.attempts() <= 1;
            self.guard.deposit(if first { Success::OfFirstAttempt } else { Success::OfRetry });
        }
        let longest = self.policy.max_wait_time;
        let throttling = classify::throttling(outcome, advice);
        let throttling = throttling.filter(|_| listens && cross_host_url.is_none());
        let throttle = throttling.map(|it| match it {
            Throttling::RateLimit => Throttle::RateLimit,
            Throttling::Unavailable => Throttle::Unavailable { longest },
        });
        let closing = throttle.and_then(|it| {
            let unit = || self.policy.sources.random();
            self.guard.close_gate(request, it, hint, now, unit)
        });
        // Only now: another one must not go into the limit before the gate is closed.
        let is_good = outcome.status().map(|_| throttle.is_none());
        self.guard.leave_gate(is_good, now);
        closing
    }

    /// What the answer says about coming back; a success is not asked, unless somebody may
    /// retry it.
    fn advice(&self, outcome: &Outcome<'_>) -> Advice {
        let advice = match outcome.result {
            OutcomeResult::Response { status, headers, .. }
                if status.as_u16() >= 300
                    || self.policy.retry_if.is_some()
                    || self.policy.statuses.contains(status) =>
            {
                let now = self.policy.sources.wall_clock();
                hint::read(status, headers, &self.policy.hints, now)
            }
            OutcomeResult::Response { .. } => return Advice::default(),
            OutcomeResult::Failure(..) => Advice::default(),
        };
        match self.policy.hint_from.as_ref().and_then(|find| find(outcome)) {
            Some(after) => advice.with_found(outcome.status(), after),
            None => advice,
        }
    }

    /// A first attempt that succeeds leaves no record, unless somebody keeps a log.
    fn record(&mut self, outcome: &Outcome<'_>, heard: Heard, decision: &Decision, now: Instant) {
        let plain = outcome.attempt == 1 && *decision == Decision::Return(StopReason::Success);
        if plain && self.log.is_none() && self.history.is_none() {
            return;
        }
        let at = self.retry.elapsed(now);
        self.history().push(Attempt::new(outcome, at), heard);
        self.record_decision(decision, now);
    }

    fn record_decision(&mut self, decision: &Decision, now: Instant) {
        match decision {
            Decision::Return(stop) => self.history().end(*stop),
            Decision::Retry { after, source } => self.history().waits(*after, source),
        }
        self.keep_log(now);
    }

    /// Records that nothing was sent, and why.
    fn held_up(&mut self, by: FailureKind, wait: Option<(Duration, WaitSource)>, now: Instant) {
        let (attempts, at) = (self.retry.attempts(), self.retry.elapsed(now));
        self.history().hold(Hold { attempts, at, by, wait });
        self.keep_log(now);
    }

    fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    fn keep_log(&self, now: Instant) {
        if let (Some(log), Some(history)) = (&self.log, &self.history) {
            let redact_path = self.policy.redact_path.as_ref();
            log.set(history, self.retry.elapsed(now), redact_path);
        }
    }

    fn ends(&self, outcome: &Outcome<'_>, stop: StopReason, now: Instant) {
        let Outcome { method, url, .. } = *outcome;
        let url = self.policy.redacted(url);
        self.notify(|call| {
            let listeners = &call.policy.listeners;
            let (attempts, elapsed) = (call.retry.attempts(), call.retry.elapsed(now));
            let (max_retries, stop_reason) = (call.policy.max_retries, stop);
            let tokens = call.guard.budget_left(now);
            if stop == StopReason::Success {
                let info =
                    ResponseInfo { method, url, attempts, max_retries, elapsed, tokens, outcome };
                return listeners.notify(&Event::Succeeded(&info));
            }
            if let (StopReason::Budget, Some(tokens)) = (stop, tokens) {
                let info = BudgetInfo { method, url, attempts, tokens };
                listeners.notify(&Event::BudgetRefused(&info));
            }
            let info =
                FailureInfo { method, url, attempts, max_retries, elapsed, stop_reason, outcome };
            listeners.notify(&Event::GaveUp(&info));
        });
    }

    /// Ends a request before its next attempt.
    pub(crate) fn reject<C: Chain>(
        &mut self,
        request: &Request,
        kind: FailureKind,
        error: BoxError,
        now: Instant,
    ) -> Result<Response, C::Error> {
        let stop = match kind {
            FailureKind::RateLimited => StopReason::RateLimited,
            _ => StopReason::Final,
        };
        self.record_decision(&Decision::Return(stop), now);
        let sent = AttemptResult::unsent(kind, error);
        let outcome = &self.outcome(request, Duration::ZERO, sent.outcome_result::<C>());
        if kind == FailureKind::RateLimited {
            self.held_up(kind, None, now);
            self.notify(|call| call.policy.listeners.notify(&Event::Rejected(outcome)));
        }
        self.ends(outcome, stop, now);
        self.finish::<C>(sent, request, stop, now)
    }

    /// What the caller gets.
    pub(crate) fn finish<C: Chain>(
        &mut self,
        sent: AttemptResult<C::Error>,
        request: &Request,
        stop: StopReason,
        now: Instant,
    ) -> Result<Response, C::Error> {
        match sent {
            AttemptResult::Response { mut response, body, .. } => {
                let limit = self.policy.max_total_time.filter(|_| body.is_none());
                if let (Some(at), Some(limit)) = (self.retry.deadline(), limit) {
                    response = body::until(response, at, limit);
                }
                if let Some(history) = self.history.take().filter(|it| it.total() > 0) {
                    response.extensions_mut().insert(*history);
                }
                if let Some(redact_path) = &self.policy.redact_path {
                    response.extensions_mut().insert(redact_path.clone());
                }
                Ok(response)
            }
            AttemptResult::Failed(_, error) => Err(error),
            AttemptResult::Local(Failure { kind, .. }, source) => {
                Err(C::local(HttpRequestError::new(Inner {
                    method: Some(request.method().clone()),
                    url: Some(request.url().clone()),
                    stop,
                    attempts: self.retry.attempts(),
                    elapsed: self.retry.elapsed(now),
                    history: self.history.take().map_or_else(History::default, |it| *it),
                    redact_path: self.policy.redact_path.clone(),
                    cause: Cause::Failure(kind, source),
                })))
            }
        }
    }

    #[inline]
    fn notify_changes(&mut self) {
        for change in mem::take(&mut self.changes) {
            self.notify(|call| call.policy.listeners.notify(&Event::BreakerChanged(&change)));
        }
    }

    #[inline]
    fn notify(&self, event: impl FnOnce(&Self)) {
        if !self.policy.listeners.is_empty() {
            event(self);
        }
    }
}
