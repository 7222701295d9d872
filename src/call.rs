//! One logical request under way: what it knows, what it tells, and what it comes back with.

use std::time::Duration;

use http::{Extensions, Method, StatusCode};
use reqwest::{Request, Response, Url};

use crate::body::{self, BodyFactory};
use crate::breaker::Health;
use crate::classify::{self, Verdict};
use crate::decision::{Decision, StopReason, WaitSource};
use crate::error::{BoxError, Cause, HttpRequestError, Inner};
use crate::event::{Event, FailureInfo, HeldInfo, RequestInfo, ResponseInfo, RetryInfo};
use crate::gate::{Answer, RateLimited};
use crate::guard::Guard;
use crate::hint::{self, Advice};
use crate::history::{Attempt, AttemptLog, History};
use crate::idempotency;
use crate::outcome::{Failure, FailureKind, Gave, Outcome};
use crate::policy::Policy;
use crate::redact::RedactedUrl;
use crate::retry::{Facts, Repeat, Retry, Upload};
use crate::send::{Chain, Sent};
use crate::time::Instant;

/// A longer body may be refused while it is still being sent.
const LARGE: usize = 64 * 1024;

pub(crate) struct Call<'p> {
    pub(crate) retry: Retry,
    pub(crate) guard: Guard,
    policy: &'p Policy,
    keyed: bool,
    history: History,
    log: Option<AttemptLog>,
}

impl<'p> Call<'p> {
    /// Begins a request, which gets the key it needs.
    pub(crate) fn new(
        policy: &'p Policy,
        request: &mut Request,
        extensions: &Extensions,
        now: Instant,
    ) -> Self {
        if let Some(key) = &policy.idempotency_key {
            key.apply(request, rand::random());
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
            guard: Guard::new(policy, request, now),
            policy,
            keyed: idempotency::is_keyed(request.headers(), policy.idempotency_key.as_ref()),
            history: History::default(),
            log: extensions.get().cloned(),
        }
    }

    /// Waits until the gate of the host is open, if there is the time for it.
    ///
    /// The waits of one request at the gate add up to no more than `max_wait_time`.
    pub(crate) async fn pass_gate(
        &self,
        request: &Request,
        mut now: Instant,
    ) -> Result<Instant, (RateLimited, Instant)> {
        let mut allowed = self.policy.max_wait_time;
        while let Answer::Wait { opens_in, after } =
            self.guard.gate(now, || self.policy.sources.random())
        {
            let left = self.retry.left(now).unwrap_or(Duration::MAX).min(allowed);
            if opens_in >= left {
                return Err((RateLimited { retry_in: opens_in }, now));
            }
            let wait = after.min(left);
            self.tell(|call| {
                let (method, url) = (request.method(), RedactedUrl::new(request.url()));
                call.policy.listeners.tell(&Event::HeldBack(&HeldInfo { method, url, wait }));
            });
            tokio::time::sleep(wait).await;
            allowed = allowed.saturating_sub(wait);
            now = Instant::now();
        }
        Ok(now)
    }

    /// Counts an attempt about to be sent and tells it.
    pub(crate) fn starts(&mut self, method: &Method, url: &Url) {
        self.retry.attempt();
        self.tell(|call| {
            let info = RequestInfo {
                method,
                url: RedactedUrl::new(url),
                attempt: call.retry.attempts(),
                max_retries: call.policy.max_retries,
            };
            call.policy.listeners.tell(&Event::AttemptStarted(&info));
        });
    }

    /// Decides what follows an attempt or a rejection, records it and tells it.
    pub(crate) fn judge(
        &mut self,
        method: &Method,
        url: &Url,
        elapsed: Duration,
        gave: Gave<'_>,
        now: Instant,
    ) -> Decision {
        let (attempt, keyed) = (self.retry.attempts(), self.keyed);
        let outcome = &Outcome { method, url, attempt, elapsed, keyed, gave };
        let decision = match outcome.failure() {
            Some(FailureKind::CircuitOpen) => self.rejected(outcome, now),
            _ => self.attempted(outcome, now),
        };
        match &decision {
            Decision::Return(stop) => self.ends(outcome, *stop, now),
            Decision::Retry { after, source } => self.tell(|call| {
                let info = RetryInfo {
                    method: outcome.method,
                    url: RedactedUrl::new(outcome.url),
                    attempt: call.retry.attempts().saturating_add(1),
                    max_retries: call.policy.max_retries,
                    wait: *after,
                    source,
                    outcome,
                };
                call.policy.listeners.tell(&Event::Waiting(&info));
            }),
        }
        decision
    }

    fn attempted(&mut self, outcome: &Outcome<'_>, now: Instant) -> Decision {
        let advice = self.advice(outcome);
        let verdict = self.policy.verdict(outcome, &advice);
        self.report(outcome, verdict, &advice, now);
        let decision = match verdict {
            _ if outcome.failure() == Some(FailureKind::Deadline) => {
                Decision::Return(StopReason::Deadline)
            }
            Verdict::Success => Decision::Return(StopReason::Success),
            Verdict::Final => Decision::Return(StopReason::Final),
            Verdict::Transient => self.decide(outcome, advice, self.guard.rejects_for(now), now),
        };
        self.record(outcome, &decision, now);
        self.tell(|call| call.policy.listeners.tell(&Event::AttemptEnded(outcome)));
        decision
    }

    /// A first attempt that is rejected ends the request; a later one uses up a retry.
    fn rejected(&mut self, outcome: &Outcome<'_>, now: Instant) -> Decision {
        if self.retry.attempts() == 0 {
            return Decision::Return(StopReason::CircuitOpen);
        }
        let rejected_for = self.guard.rejects_for(now).unwrap_or_default();
        match self.decide(outcome, Advice::default(), Some(rejected_for), now) {
            Decision::Return(StopReason::Exhausted) => Decision::Return(StopReason::CircuitOpen),
            decision => decision,
        }
    }

    fn decide(
        &mut self,
        outcome: &Outcome<'_>,
        advice: Advice,
        rejected_for: Option<Duration>,
        now: Instant,
    ) -> Decision {
        let random = self.policy.sources.random();
        let facts = Facts { now, random, advice, rejected_for };
        match self.retry.decide(self.policy, outcome, &facts) {
            Decision::Retry { source, .. }
                if source != WaitSource::Immediate && !self.guard.withdraw(now) =>
            {
                Decision::Return(StopReason::Budget)
            }
            decision => decision,
        }
    }

    /// Tells breaker, budget and gate of an attempt.
    fn report(&mut self, outcome: &Outcome<'_>, verdict: Verdict, advice: &Advice, now: Instant) {
        let hint = advice.hint.as_ref().map(|it| it.after);
        let health = match &self.policy.breaker_health {
            Some(judge) => judge(outcome),
            None => classify::health(outcome, verdict),
        };
        let elsewhere = outcome.elsewhere();
        self.guard.exit(health, elsewhere, hint, now, self.policy);
        if verdict == Verdict::Success {
            self.guard.deposit();
        }
        let throttles = health == Some(Health::Throttled)
            || outcome.status() == Some(StatusCode::SERVICE_UNAVAILABLE);
        if let (Some(hint), true, None) = (hint, throttles, elsewhere) {
            self.guard.close_gate(hint.min(self.policy.max_wait_time), now);
        }
    }

    /// What the answer says about coming back; a success is not asked, unless somebody may
    /// retry it.
    fn advice(&self, outcome: &Outcome<'_>) -> Advice {
        match outcome.gave {
            Gave::Answer { status, headers, .. }
                if status.as_u16() >= 300
                    || self.policy.retry_if.is_some()
                    || self.policy.statuses.contains(status) =>
            {
                hint::read(headers, &self.policy.hints, self.policy.sources.wall_clock())
            }
            _ => Advice::default(),
        }
    }

    /// A first attempt that succeeds leaves no record, unless somebody keeps a log.
    fn record(&mut self, outcome: &Outcome<'_>, decision: &Decision, now: Instant) {
        let plain = outcome.attempt == 1 && *decision == Decision::Return(StopReason::Success);
        if plain && self.log.is_none() {
            return;
        }
        let elapsed = self.retry.elapsed(now);
        self.history.push(Attempt::new(outcome, elapsed));
        match decision {
            Decision::Return(stop) => self.history.end(*stop),
            Decision::Retry { after, source } => self.history.waits(*after, source),
        }
        if let Some(log) = &self.log {
            log.set(&self.history, elapsed);
        }
    }

    pub(crate) fn ends(&self, outcome: &Outcome<'_>, stop: StopReason, now: Instant) {
        let Outcome { method, url, .. } = *outcome;
        let url = RedactedUrl::new(url);
        self.tell(|call| {
            let (attempts, elapsed) = (call.retry.attempts(), call.retry.elapsed(now));
            let max_retries = call.policy.max_retries;
            if stop == StopReason::Success {
                let info = ResponseInfo { method, url, attempts, max_retries, elapsed, outcome };
                call.policy.listeners.tell(&Event::Succeeded(&info));
            } else {
                let stop_reason = stop;
                let info = FailureInfo {
                    method,
                    url,
                    attempts,
                    max_retries,
                    elapsed,
                    stop_reason,
                    outcome,
                };
                call.policy.listeners.tell(&Event::GaveUp(&info));
            }
        });
    }

    /// Ends a request before its next attempt.
    pub(crate) fn reject<C: Chain>(
        self,
        request: &Request,
        kind: FailureKind,
        error: BoxError,
        now: Instant,
    ) -> Result<Response, C::Error> {
        let stop = match kind {
            FailureKind::RateLimited => StopReason::RateLimited,
            _ => StopReason::Final,
        };
        let (method, url) = (request.method(), request.url());
        let sent = Sent::unsent(kind, error);
        let (attempt, keyed) = (self.retry.attempts(), self.keyed);
        let (gave, elapsed) = (sent.gave::<C>(), Duration::ZERO);
        self.ends(&Outcome { method, url, attempt, elapsed, keyed, gave }, stop, now);
        self.finish::<C>(sent, method, url, stop, now)
    }

    /// What the caller gets.
    pub(crate) fn finish<C: Chain>(
        self,
        sent: Sent<C::Error>,
        method: &Method,
        url: &Url,
        stop: StopReason,
        now: Instant,
    ) -> Result<Response, C::Error> {
        match sent {
            Sent::Answer { mut response, .. } => {
                if let (Some(at), Some(limit)) = (self.retry.deadline(), self.policy.max_total_time)
                {
                    response = body::until(response, at, limit);
                }
                if self.history.total() > 0 {
                    response.extensions_mut().insert(self.history);
                }
                Ok(response)
            }
            Sent::Failed(_, error) => Err(error),
            Sent::Local(Failure { kind, .. }, source) => {
                Err(C::local(HttpRequestError::new(Inner {
                    method: Some(method.clone()),
                    url: Some(url.clone()),
                    stop,
                    attempts: self.retry.attempts(),
                    elapsed: self.retry.elapsed(now),
                    history: self.history,
                    cause: Cause::Failure(kind, source),
                })))
            }
        }
    }

    fn tell(&self, event: impl FnOnce(&Self)) {
        if !self.policy.listeners.is_empty() {
            event(self);
        }
    }
}
