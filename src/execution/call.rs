//! One logical request under way: what it knows, what it tells, and what it comes back with.

use std::{mem, time::Duration};

use http::{Extensions, StatusCode};
use reqwest::{Request, Response};

use crate::breaker::{CircuitOpen, Health, StateChange};
use crate::common::clock::Instant;
use crate::config::policy::{Policy, RetryAfter};
use crate::error::{BoxError, Cause, HttpRequestError, Inner};
use crate::execution::attempt::{AttemptLimits, AttemptResult, Chain, Refusal};
use crate::execution::body::{self, BodyFactory};
use crate::execution::decide::{DecisionInput, Repeat, Retry, Upload};
use crate::host::admission::Admission;
use crate::host::gate::{Closing, Throttle};
use crate::observe::event::{
    BudgetInfo, Event, FailureInfo, GateInfo, RequestInfo, ResponseInfo, RetryInfo, Scopes,
};
use crate::observe::history::{Attempt, AttemptLog, Heard, History, Hold};
use crate::outcome::classify::{self, Throttling, Verdict};
use crate::outcome::hint::{self, Advice};
use crate::outcome::idempotency;
use crate::outcome::{Delivery, Failure, FailureKind, Outcome, OutcomeResult};
use crate::retry::budget::Success;
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// A longer body may be refused while it is still being sent.
const LARGE: usize = 64 * 1024;

pub(crate) struct Execution<'p> {
    pub(crate) retry: Retry,
    /// The scopes of observers around the attempt under way.
    pub(crate) scopes: Scopes,
    pub(crate) guard: Admission<'p>,
    /// The changes of breakers that this request caused, not yet notified.
    changes: Vec<StateChange>,
    pub(crate) policy: &'p Policy,
    /// The time that it may still wait at the gate.
    pub(crate) gate_time: Duration,
    pub(crate) waits_at_gate: bool,
    /// The longest wait at an open breaker, and for a token.
    longest_open_wait: Duration,
    /// The duration of the last attempt.
    last_took: Duration,
    keyed: bool,
    /// Set once a hinted 503 has given it a free retry.
    was_invited: bool,
    /// Set once a response said that its connection is for another host (421).
    was_misdirected: bool,
    /// Set if the next attempt needs a connection of its own.
    distrusts_pool: bool,
    /// Set once an attempt that is retried may have been applied.
    maybe_applied: bool,
    /// The error that the caller's own verdict ends the request with.
    own_error: Option<BoxError>,
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
            _ if policy.may_repeat_unprocessed(request.method()) => Repeat::IfNotProcessed,
            _ => Repeat::NotAllowed,
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
            longest_open_wait: Duration::ZERO,
            last_took: Duration::ZERO,
            keyed: !idempotency::is_idempotent(request.method())
                && idempotency::is_keyed(request.headers(), policy.idempotency_key.as_ref()),
            was_invited: false,
            was_misdirected: false,
            distrusts_pool: false,
            maybe_applied: false,
            own_error: None,
            history: None,
            log: extensions.get().cloned(),
        }
    }

    /// Takes the limit of each attempt for the measure of its other waits.
    pub(crate) fn limit_attempts(&mut self, timeout: Option<Duration>) {
        self.longest_open_wait = self.policy.open_wait(timeout);
    }

    /// Returns how long the request waits at an open breaker, and for a token, as things stand.
    pub(crate) fn open_wait(&self) -> Duration {
        let is_in_vain = self.policy.waits_out_outages && !self.guard.has_responded();
        if is_in_vain { Duration::ZERO } else { self.longest_open_wait }
    }

    /// Remembers the key of the gate of a request that is about to be sent without a copy.
    pub(crate) fn keep_gate_key(&mut self, request: &Request) {
        self.guard.keep_gate_key(request);
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

    /// Asks the circuit breaker.
    #[inline]
    pub(crate) fn enter(&mut self, now: Instant) -> Result<(), CircuitOpen> {
        let entered = self.guard.enter(now, &mut self.changes);
        self.notify_changes();
        entered
    }

    /// Tells middleware further in what it has to know of this attempt.
    #[inline]
    pub(crate) fn mark(&self, extensions: &mut Extensions) {
        self.guard.mark(extensions);
    }

    /// Returns whether the attempt that begins now needs a connection of its own.
    pub(crate) fn needs_own_connection(&mut self) -> bool {
        mem::take(&mut self.distrusts_pool)
    }

    /// Returns whether a 421 is to be retried: once, over another connection (RFC 9110 §15.5.20).
    fn is_misdirected(&mut self, outcome: &Outcome<'_>) -> bool {
        let first = outcome.status() == Some(StatusCode::MISDIRECTED_REQUEST)
            && !self.was_misdirected
            && self.policy.retry_if.is_none();
        self.was_misdirected |= first;
        first
    }

    /// Counts an attempt about to be sent and tells it.
    #[inline]
    pub(crate) fn starts(&mut self, request: &Request) {
        self.retry.attempt();
        if mem::take(&mut self.maybe_applied) {
            self.history().note_maybe_applied();
        }
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

    /// Returns the limits of the attempt that begins now.
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
        self.last_took = elapsed;
        let outcome = &self.outcome(request, result);
        let decision = self.attempted(request, outcome, nested, now);
        match &decision {
            Decision::Return(stop) => self.ends(outcome, *stop, now),
            // Whether it follows is known once it has its token.
            Decision::Retry { .. } if self.guard.waits_for_token() => {}
            Decision::Retry { after, source } => self.tell_wait(outcome, *after, source, now),
        }
        decision
    }

    fn outcome<'a>(&self, request: &'a Request, result: OutcomeResult<'a>) -> Outcome<'a>
    where
        'p: 'a,
    {
        let (method, url) = (request.method(), request.url());
        let (attempt, elapsed) = (self.retry.attempts(), self.last_took);
        let redact_path = self.policy.redact_path.as_ref();
        Outcome {
            method,
            url,
            attempt,
            elapsed,
            keyed: self.keyed,
            redact_path,
            defaults: None,
            result,
        }
    }

    fn tell_wait(&self, outcome: &Outcome<'_>, wait: Duration, source: &WaitSource, now: Instant) {
        self.notify(|call| {
            let info = RetryInfo {
                method: outcome.method,
                url: call.policy.redacted(outcome.url),
                attempt: call.retry.attempts().saturating_add(1),
                max_retries: call.policy.max_retries,
                wait,
                source,
                tokens: call.guard.budget_left(now),
                outcome,
            };
            call.policy.listeners.notify(&Event::Waiting(&info));
        });
    }

    /// Records and tells the wait before a retry that has its token now.
    pub(crate) fn waits(
        &mut self,
        request: &Request,
        last: OutcomeResult<'_>,
        wait: Duration,
        source: &WaitSource,
        now: Instant,
    ) {
        self.history().waits(wait, source);
        self.keep_log(now);
        self.tell_wait(&self.outcome(request, last), wait, source, now);
    }

    fn attempted(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        nested: bool,
        now: Instant,
    ) -> Decision {
        let mut advice = self.advice(outcome);
        let retry_in = advice.hint.as_ref().map(|it| it.after);
        let heard = Heard { retry_in, rate_limited: advice.rate_limited };
        if let Some(hint) = &mut advice.hint {
            hint.after = self.policy.cut_hint(hint.after);
        }
        let verdict = self.policy.verdict(outcome, &mut advice, &mut self.own_error);
        let is_misdirected = verdict == Verdict::Final && self.is_misdirected(outcome);
        let verdict = if is_misdirected { Verdict::Transient } else { verdict };
        let may_be_applied = !outcome.method.is_safe()
            && !classify::not_processed(outcome, &self.policy.refused, &advice);
        let closing = self.report(request, outcome, verdict, &advice, now);
        let decision = match verdict {
            _ if outcome.failure() == Some(FailureKind::Deadline) => {
                Decision::Return(StopReason::Deadline)
            }
            Verdict::Success => Decision::Return(StopReason::Success),
            Verdict::Final => Decision::Return(StopReason::Final),
            Verdict::Transient if nested => Decision::Return(StopReason::Vetoed),
            Verdict::Transient => {
                let is_throttled = closing.is_none()
                    && classify::throttling(outcome, &advice) == Some(Throttling::RateLimit);
                let rejected_for = self.guard.rejects_for(now);
                self.decide(outcome, advice, is_throttled, rejected_for, now)
            }
        };
        let decision = match (decision, &closing) {
            (Decision::Retry { source, .. }, Some(closing)) => {
                self.wait_at_gate(closing, source, now)
            }
            (decision, _) => decision,
        };
        self.maybe_applied |= may_be_applied && matches!(decision, Decision::Retry { .. });
        if matches!(decision, Decision::Retry { .. }) {
            self.distrusts_pool = is_misdirected || outcome.makes_pool_suspect();
        }
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

    fn decide(
        &mut self,
        outcome: &Outcome<'_>,
        advice: Advice,
        is_throttled: bool,
        rejected_for: Option<Duration>,
        now: Instant,
    ) -> Decision {
        let open_wait = self.open_wait();
        // Nothing is drawn for a wait that cannot follow.
        let waits = self.retry.may_repeat(self.policy);
        let random = if waits { self.policy.sources.random() } else { 0.0 };
        let facts = DecisionInput { now, random, advice, is_throttled, rejected_for, open_wait };
        match self.retry.decide(self.policy, outcome, &facts) {
            Decision::Retry { .. }
                if !self.is_invited(outcome, &facts.advice)
                    && !self.guard.withdraw(!open_wait.is_zero(), now) =>
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
        // The client's own timeout may be what ran out first, at the very moment of the deadline.
        let is_deadline =
            outcome.is_timeout() && self.retry.left(now).is_some_and(|it| it.is_zero());
        let health = self.policy.health(outcome, verdict, advice).filter(|_| !is_deadline);
        let cross_host_url = outcome.cross_host_url();
        if outcome.status().is_some() {
            self.guard.note_response();
        }
        if self.policy.waits_out_outages && health == Some(Health::Success) {
            self.guard.begin_slow_start(request, now);
        }
        self.guard.exit(health, cross_host_url, hint, now, &self.policy.sources, &mut self.changes);
        if verdict == Verdict::Success {
            let first = self.retry.attempts() <= 1;
            self.guard.deposit(if first { Success::OfFirstAttempt } else { Success::OfRetry });
        }
        let longest = self.policy.max_wait_time;
        let throttling = classify::throttling(outcome, advice);
        let throttling = throttling.filter(|_| listens);
        let throttle = throttling.map(|it| match it {
            Throttling::RateLimit => Throttle::RateLimit,
            Throttling::Unavailable => Throttle::Unavailable { longest },
        });
        let closing = throttle.and_then(|it| {
            let unit = || self.policy.sources.random();
            if let Some(other) = cross_host_url {
                self.guard.close_gate_of(other, request, it, hint, now, unit);
            }
            self.guard.close_gate(request, it, hint, now, unit)
        });
        // Only now: another one must not go into the limit before the gate is closed.
        let is_good = outcome.status().map(|_| throttle.is_none());
        self.guard.leave_gate(is_good, now);
        closing
    }

    /// Reads what the response says about retries; a success is not read, unless a predicate may
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
            // Of a response that a middleware made an error of, the status alone is known.
            OutcomeResult::Failure(failure, _) => Advice {
                rate_limited: failure.status == Some(StatusCode::TOO_MANY_REQUESTS),
                ..Advice::default()
            },
        };
        match self.policy.hint_from.as_ref().and_then(|find| find(outcome)) {
            Some(after) => advice.with_found(outcome.status(), after),
            None => advice,
        }
    }

    /// A first attempt that succeeds leaves no record, unless a log is kept.
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
            Decision::Retry { .. } if self.guard.waits_for_token() => {}
            Decision::Retry { after, source } => self.history().waits(*after, source),
        }
        self.keep_log(now);
    }

    /// Records that nothing was sent, and why.
    pub(crate) fn hold(
        &mut self,
        by: StopReason,
        wait: Option<(Duration, WaitSource)>,
        now: Instant,
    ) {
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
            let info = FailureInfo {
                method,
                url,
                attempts,
                max_retries,
                elapsed,
                stop_reason,
                may_have_been_applied: call
                    .history
                    .as_ref()
                    .is_some_and(|it| it.may_have_been_applied()),
                outcome,
            };
            listeners.notify(&Event::GaveUp(&info));
        });
    }

    /// Ends a request that gets no further attempt, with what the last one gave if there was one.
    pub(crate) fn refuse<C: Chain>(
        &mut self,
        request: &Request,
        kept: Option<AttemptResult<C::Error>>,
        refusal: Refusal,
    ) -> Result<Response, C::Error> {
        let stop = refusal.stop();
        let Refusal { kind, error, now } = refusal;
        self.history().end(stop);
        self.keep_log(now);
        let unsent = AttemptResult::unsent(kind, error);
        if kind != FailureKind::Builder {
            self.hold(stop, None, now);
            let outcome = &self.outcome(request, unsent.outcome_result::<C>());
            self.notify(|call| call.policy.listeners.notify(&Event::Rejected(outcome)));
        }
        self.give_up::<C>(request, kept.unwrap_or(unsent), stop, now)
    }

    /// Ends a request with the result of its last attempt.
    pub(crate) fn give_up<C: Chain>(
        &mut self,
        request: &Request,
        last: AttemptResult<C::Error>,
        stop: StopReason,
        now: Instant,
    ) -> Result<Response, C::Error> {
        self.history().end(stop);
        self.keep_log(now);
        let outcome = &self.outcome(request, last.outcome_result::<C>());
        self.ends(outcome, stop, now);
        self.finish::<C>(last, request, stop, now)
    }

    /// Returns what the caller gets.
    pub(crate) fn finish<C: Chain>(
        &mut self,
        sent: AttemptResult<C::Error>,
        request: &Request,
        stop: StopReason,
        now: Instant,
    ) -> Result<Response, C::Error> {
        let sent = match self.own_error.take() {
            Some(error) => {
                let failure = Failure::local(FailureKind::Other, Delivery::Answered);
                AttemptResult::Local(failure, error)
            }
            None => sent,
        };
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
            AttemptResult::Failed { error, .. } => Err(error),
            AttemptResult::Local(Failure { kind, .. }, source) => {
                Err(C::local(HttpRequestError::new(Inner {
                    method: Some(request.method().clone()),
                    url: Some(request.url().clone()),
                    stop,
                    attempts: self.retry.attempts(),
                    elapsed: self.retry.elapsed(now),
                    history: self.history.take().map_or_else(History::default, |it| *it),
                    log: self.log.clone(),
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
    pub(crate) fn notify(&self, event: impl FnOnce(&Self)) {
        if !self.policy.listeners.is_empty() {
            event(self);
        }
    }
}
