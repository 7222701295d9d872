//! The decision after an attempt: classified, reported to the host, decided, recorded.

use std::{mem, time::Duration};

use http::StatusCode;
use reqwest::Request;

use crate::breaker::{CircuitOpen, Health, Report};
use crate::common::clock::{self, Instant};
use crate::config::policy::{Policy, RetryAfter};
use crate::execution::decide::{DecisionInput, Judged};
use crate::execution::original::Original;
use crate::execution::queue;
use crate::execution::route::Plan;
use crate::execution::run::Execution;
use crate::host::admission::Admission;
use crate::host::gate::{Closing, Throttle};
use crate::outcome::classify::{self, Throttling, Verdict};
use crate::outcome::hint::{self, Advice, QuotaUse};
use crate::outcome::{FailureKind, Heard, Outcome, OutcomeResult};
use crate::retry::budget::Success;
use crate::retry::decision::{Decision, StopReason, WaitSource};

impl<'p> Execution<'p> {
    /// Asks the circuit breaker for a permit.
    pub(super) fn enter(&mut self) -> Result<(), CircuitOpen> {
        let entered = self.admission.enter(self.now, &self.policy.sources, &mut self.changes);
        if let Some(change) = self.admission.take_fleet_change() {
            self.recorder.fleet_changed(&change);
        }
        self.recorder.breakers_changed(&mut self.changes);
        entered
    }

    /// Returns the outcome of the last attempt, as it is judged.
    pub(super) fn outcome<'a>(
        &self,
        original: &'a Original<'_>,
        result: OutcomeResult<'a>,
    ) -> Outcome<'a>
    where
        'p: 'a,
    {
        let (method, url) = (original.request.method(), original.request.url());
        let ((attempt, kind), elapsed) = (self.attempt, self.last_took);
        let redact_path = self.policy.redact_path.as_ref();
        Outcome {
            method,
            url,
            attempt,
            kind,
            elapsed,
            keyed: self.keyed,
            hedged: self.retry.attempts() > attempt,
            extensions: Some(original.extensions()),
            redact_path,
            heard: self.recorder.heard,
            defaults: None,
            result,
        }
    }

    /// Decides what follows an attempt, and records it. `nested` is set if a `Resilient` further in
    /// gave the attempt up.
    pub(super) fn decide(
        &mut self,
        original: &Original<'_>,
        result: OutcomeResult<'_>,
        nested: bool,
    ) -> Decision {
        // An earlier wait may have ended without a visit to the gate.
        self.waits_at_gate = None;
        self.recorder.heard = Heard::default();
        let mut outcome = self.outcome(original, result);
        // The caller's functions are asked once for an attempt, be it in a race.
        let judged = self.judged.take().map_or_else(|| judge(self.policy, &mut outcome), |it| *it);
        let Judged { advice, heard, verdict, error, closing } = judged;
        self.own_error = error;
        self.recorder.heard = heard;
        outcome.heard = heard;
        let outcome = &outcome;
        let is_misdirected = verdict == Verdict::Final && self.is_misdirected(outcome);
        let verdict = if is_misdirected { Verdict::Transient } else { verdict };
        // By this attempt, or by one that lost the race with it.
        let may_be_applied = self.maybe_applied || may_be_applied(self.policy, outcome, &advice);
        let closing = self.report(original.request, outcome, verdict, &advice, closing);
        self.record_endpoint(outcome, verdict, may_be_applied);
        let request = &*original.request;
        let decision = match verdict {
            _ if outcome.failure() == Some(FailureKind::Deadline) => {
                Decision::Return(StopReason::Deadline)
            }
            Verdict::Success => Decision::Return(StopReason::Success),
            Verdict::Final => {
                let elsewhere =
                    if nested { None } else { self.look_elsewhere(request, outcome, advice) };
                elsewhere.unwrap_or(Decision::Return(StopReason::Final))
            }
            Verdict::Transient if nested => Decision::Return(StopReason::Vetoed),
            Verdict::Transient => match self.plan(request) {
                Some(plan) => self.follow_up_elsewhere(request, outcome, advice, plan, None),
                None => self.follow_up(outcome, advice, closing.as_ref()),
            },
        };
        if matches!(decision, Decision::Retry { .. }) {
            self.maybe_applied |= may_be_applied;
            self.distrusts_pool = is_misdirected || outcome.makes_pool_suspect();
        }
        if !self.recorder.ignores(outcome, &decision) {
            self.record(request, outcome, heard, &decision, closing);
        }
        decision
    }

    /// Records an attempt and the decision, and notifies the listeners in the order of events.
    fn record(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        heard: Heard,
        decision: &Decision,
        closing: Option<Closing>,
    ) {
        // Whether a retry follows is known once it has its token.
        let is_open =
            matches!(decision, Decision::Retry { .. }) && self.admission.waits_for_token();
        let decision = Some(decision).filter(|_| !is_open);
        let now = self.standing();
        let ended = self.retry.elapsed(self.last_ended);
        self.recorder.attempt_ended(outcome, ended, heard, decision, now);
        self.recorder.breakers_changed(&mut self.changes);
        if let (Some(change), Some(usage)) = (self.limit_change.take(), self.admission.limit_use())
        {
            self.recorder.limit_changed(outcome, change, usage);
        }
        if let Some(closing) = closing.filter(|it| it.is_longer) {
            self.recorder.gate_closed(outcome, closing.opens_in);
        }
        match decision {
            None => {}
            Some(Decision::Return(stop)) => self.notify_end(request, outcome, *stop, now),
            Some(Decision::Retry { after, source }) => {
                self.recorder.waiting(outcome, *after, source, self.standing_before_retry());
            }
        }
    }

    /// Returns whether a 421 is to be retried: once, over another connection (RFC 9110 §15.5.20),
    /// which only our own client can choose.
    fn is_misdirected(&mut self, outcome: &Outcome<'_>) -> bool {
        let is_first = outcome.status() == Some(StatusCode::MISDIRECTED_REQUEST)
            && self.client.records
            && !self.was_misdirected
            && self.policy.retry_if.is_none();
        self.was_misdirected |= is_first;
        is_first
    }

    /// Reports an attempt to breaker, budget, gate and limits. Returns how its response closed the gate;
    /// `closed` is set if it has done so already.
    fn report(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        advice: &Advice,
        closed: Option<Closing>,
    ) -> Option<Closing> {
        let now = self.now;
        let hint = self.policy.heeded_hint(advice);
        // The client's own timeout may be what ran out first, at the very moment of the deadline.
        let is_deadline =
            outcome.is_timeout() && self.retry.left(now).is_some_and(|it| it.is_zero());
        let health = self.policy.health(outcome, verdict, advice).filter(|_| !is_deadline);
        let cross_host_url = outcome.cross_host_url();
        if outcome.status().is_some() {
            self.admission.note_response();
        }
        if self.policy.waits_out_outages && health == Some(Health::Success) {
            self.admission.begin_slow_start(request, now);
        }
        let first = self.retry.is_first();
        let result = health.map(|health| Report { health, retry_after: hint, first });
        let (sources, changes) = (&self.policy.sources, &mut self.changes);
        self.admission.exit(result, cross_host_url, now, sources, changes);
        if verdict == Verdict::Success {
            self.admission.deposit(if first { Success::OfFirstAttempt } else { Success::OfRetry });
        }
        let throttle = throttle(self.policy, outcome, advice);
        let is_throttled = throttle.is_some();
        let closing = closed
            .or_else(|| close_gate(self.policy, &self.admission, request, outcome, advice, now));
        let load = queue::load(outcome, advice).filter(|_| !is_deadline);
        let quotas = self.quotas(outcome);
        let (took, ended) = (self.last_took, self.last_ended);
        self.limit_change =
            self.admission.report_to_limits(outcome, load, quotas.as_deref(), took, ended);
        // Only now: another one must not go into the limit before the gate is closed.
        self.admission.leave_gate(outcome.status().map(|_| !is_throttled), now);
        closing
    }

    /// Reads the quotas that a response names, if they are learned.
    fn quotas(&self, outcome: &Outcome<'_>) -> Option<Vec<QuotaUse>> {
        let headers = outcome.headers().filter(|_| self.admission.learns())?;
        let (clock, passed) =
            (self.policy.sources.wall_clock(), self.now.saturating_duration_since(self.last_ended));
        let ended = clock.checked_sub(passed).unwrap_or(clock);
        Some(hint::quotas(headers, &self.policy.hints, ended))
    }

    /// Decides what follows an attempt that another one may better: takes its token, and sends its
    /// wait to the gate if this one's response has closed it.
    fn follow_up(
        &mut self,
        outcome: &Outcome<'_>,
        advice: Advice,
        closing: Option<&Closing>,
    ) -> Decision {
        let throttling = classify::throttling(outcome, &advice);
        let is_throttled = closing.is_none() && throttling == Some(Throttling::RateLimit);
        let (now, open_wait, has_hint) = (self.now, self.open_wait(), advice.hint.is_some());
        // Nothing is drawn for a wait that cannot follow.
        let waits = self.retry.may_repeat(self.policy);
        let random = if waits { self.policy.sources.random() } else { 0.0 };
        let rejected_for = self.admission.rejects_for(now);
        let failover = false;
        let input =
            DecisionInput { now, random, advice, is_throttled, rejected_for, open_wait, failover };
        let decision = self.retry.decide(self.policy, outcome, &input);
        let Decision::Retry { after, source } = decision else { return decision };
        // The server asked for this retry, so that it costs no token: after a rate limit, and once
        // a request after a 503 or 529 that says when.
        let is_invited = match throttling {
            Some(Throttling::RateLimit) => true,
            Some(Throttling::Unavailable) => has_hint && !mem::replace(&mut self.was_invited, true),
            None => false,
        };
        let timed_out = outcome.failure() == Some(FailureKind::Timeout);
        if !is_invited && !self.admission.withdraw(timed_out, !open_wait.is_zero(), now) {
            return Decision::Return(StopReason::Budget);
        }
        match closing {
            Some(closing) => self.wait_at_gate(closing, source),
            None => Decision::Retry { after, source },
        }
    }

    /// Decides what follows an attempt if another endpoint is available: neither the hint nor the
    /// breaker of the one that failed delays the request, and the other's budget pays. The other's
    /// breaker rejects it for `rejected_for`, if that is known.
    pub(super) fn follow_up_elsewhere(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        advice: Advice,
        plan: Plan,
        rejected_for: Option<Duration>,
    ) -> Decision {
        let (now, open_wait) = (self.now, self.open_wait());
        let (advice, is_throttled) = (Advice { hint: None, ..advice }, false);
        let (failover, random) = (plan.is_fresh, self.policy.sources.random());
        let input =
            DecisionInput { now, random, advice, is_throttled, rejected_for, open_wait, failover };
        let decision = self.retry.decide(self.policy, outcome, &input);
        let Decision::Retry { source, .. } = &decision else { return decision };
        // A stale connection is replaced at the same endpoint, if its budget pays at once.
        let stays = *source == WaitSource::Immediate;
        if stays && self.admission.withdraw(false, false, now) {
            self.stay();
            return decision;
        }
        let decision = if stays && failover { self.retry.fail_over() } else { decision };
        if outcome.failure() == Some(FailureKind::Timeout) {
            self.admission.charge_timeout(now);
        }
        match self.withdraw_elsewhere(plan, !open_wait.is_zero(), request) {
            true => decision,
            false => Decision::Return(StopReason::Budget),
        }
    }

    /// Spends the wait before the next attempt at the gate: the oldest request goes first when it
    /// opens.
    fn wait_at_gate(&mut self, closing: &Closing, source: WaitSource) -> Decision {
        let after = closing.opens_in;
        if self.retry.left(self.now).is_some_and(|left| after >= left) {
            return Decision::Return(StopReason::Deadline);
        }
        if closing.announced_in > self.gate_time {
            return Decision::Return(StopReason::RateLimited);
        }
        self.waits_at_gate = Some(clock::after(self.now, after));
        let source = match source {
            WaitSource::Hint(_) | WaitSource::HintFrom => source,
            _ => WaitSource::Gate,
        };
        Decision::Retry { after, source }
    }

    /// Returns how long the request waits at an open breaker, and for a token, as things stand.
    pub(super) fn open_wait(&self) -> Duration {
        let is_in_vain = self.policy.waits_out_outages && !self.admission.has_responded();
        if is_in_vain { Duration::ZERO } else { self.longest_open_wait }
    }
}

/// Classifies an outcome by the rules and the functions of the caller.
/// The outcome then knows what the response says about retries.
pub(super) fn judge(policy: &Policy, outcome: &mut Outcome<'_>) -> Judged {
    let mut advice = advice(policy, outcome);
    let retry_in = advice.hint.as_ref().map(|it| it.after);
    let heard = Heard { retry_in, rate_limited: advice.rate_limited };
    let mut error = None;
    outcome.heard = heard;
    let verdict = policy.verdict(outcome, &mut advice, &mut error);
    // That of the caller's verdict, too.
    if let Some(hint) = &mut advice.hint {
        hint.after = policy.cut_hint(hint.after);
    }
    Judged { advice, heard, verdict, error, closing: None }
}

/// Returns whether an attempt changes something, and the server may have done so.
pub(super) fn may_be_applied(policy: &Policy, outcome: &Outcome<'_>, advice: &Advice) -> bool {
    !outcome.method.is_safe() && !classify::not_processed(outcome, &policy.refused, advice)
}

/// Reads what the response says about retries; a success is not read, unless a predicate may
/// retry it.
fn advice(policy: &Policy, outcome: &Outcome<'_>) -> Advice {
    let advice = match outcome.result {
        OutcomeResult::Response { status, headers, .. }
            if status.as_u16() >= 300
                || policy.retry_if.is_some()
                || policy.statuses.contains(status) =>
        {
            hint::read(status, headers, &policy.hints, || policy.sources.wall_clock())
        }
        OutcomeResult::Response { .. } => return Advice::default(),
        // Of a response that a middleware made an error of, the status alone is known.
        OutcomeResult::Failure(failure, _) => Advice {
            rate_limited: failure.status == Some(StatusCode::TOO_MANY_REQUESTS),
            ..Advice::default()
        },
    };
    match policy.hint_from.as_ref().and_then(|find| find(outcome)) {
        Some(after) => advice.with_found(outcome.status(), after),
        None => advice,
    }
}

/// Returns how an outcome closes gates; `None` if it closes none.
fn throttle(policy: &Policy, outcome: &Outcome<'_>, advice: &Advice) -> Option<Throttle> {
    if policy.retry_after == RetryAfter::Ignored {
        return None;
    }
    let longest = policy.max_wait_time;
    classify::throttling(outcome, advice).map(|it| match it {
        Throttling::RateLimit => Throttle::RateLimit,
        Throttling::Unavailable => Throttle::Unavailable { longest },
    })
}

/// Closes the gate of the host that gave the outcome, and that of another one which a redirect led
/// to, if it asks for that.
pub(super) fn close_gate(
    policy: &Policy,
    admission: &Admission<'_>,
    request: &Request,
    outcome: &Outcome<'_>,
    advice: &Advice,
    now: Instant,
) -> Option<Closing> {
    let throttle = throttle(policy, outcome, advice)?;
    let (hint, unit) = (policy.heeded_hint(advice), || policy.sources.random());
    if let Some(other) = outcome.cross_host_url() {
        admission.close_gate_of(other, request, throttle, hint, now, unit);
    }
    admission.close_gate(request, throttle, hint, policy.max_wait_time, now, unit)
}
