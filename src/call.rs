//! One logical request under way: what it knows, what it tells, and what it comes back with.

use std::time::Duration;

use http::{Extensions, Method};
use reqwest::{Request, Response, Url};

use crate::body;
use crate::classify::Verdict;
use crate::decision::{Decision, StopReason};
use crate::error::{BoxError, Cause, HttpRequestError, Inner};
use crate::event::{Event, FailureInfo, RequestInfo, ResponseInfo, RetryInfo};
use crate::hint::{self, Advice};
use crate::history::{Attempt, AttemptLog, History};
use crate::outcome::{Failure, FailureKind, Gave, Outcome};
use crate::policy::Policy;
use crate::redact::RedactedUrl;
use crate::retry::{Facts, Repeat, Retry};
use crate::send::{Chain, Sent};
use crate::time::Instant;

pub(crate) struct Call<'p> {
    pub(crate) retry: Retry,
    policy: &'p Policy,
    history: History,
    log: Option<AttemptLog>,
}

impl<'p> Call<'p> {
    pub(crate) fn new(
        policy: &'p Policy,
        request: &Request,
        extensions: &Extensions,
        now: Instant,
    ) -> Self {
        let repeat = match request.body() {
            Some(body) if body.as_bytes().is_none() => Repeat::Never,
            _ if policy.may_repeat(request.method(), request.headers()) => Repeat::Always,
            _ => Repeat::IfNotProcessed,
        };
        Self {
            retry: Retry::new(policy, repeat, now),
            policy,
            history: History::default(),
            log: extensions.get().cloned(),
        }
    }

    /// Tells that an attempt is about to be sent.
    pub(crate) fn starts(&self, method: &Method, url: &Url) {
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

    /// Decides what follows an attempt, records it and tells it.
    pub(crate) fn judge(&mut self, outcome: &Outcome<'_>, now: Instant) -> Decision {
        let advice = self.advice(outcome);
        let decision = match self.policy.verdict(outcome, &advice) {
            _ if outcome.failure() == Some(FailureKind::Deadline) => {
                Decision::Return(StopReason::Deadline)
            }
            Verdict::Success => Decision::Return(StopReason::Success),
            Verdict::Final => Decision::Return(StopReason::Final),
            Verdict::Transient => {
                // Nothing is drawn for a wait that cannot follow.
                let waits = self.retry.may_repeat(self.policy);
                let random = if waits { self.policy.sources.random() } else { 0.0 };
                let facts = Facts { now, random, advice, rejected_for: None };
                self.retry.decide(self.policy, outcome, &facts)
            }
        };
        self.record(outcome, &decision, now);
        self.tell(|call| call.policy.listeners.tell(&Event::AttemptEnded(outcome)));
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

    /// Ends a request before anything of it was sent.
    pub(crate) fn reject<C: Chain>(
        self,
        request: &Request,
        failure: Failure,
        error: BoxError,
        stop: StopReason,
        now: Instant,
    ) -> Result<Response, C::Error> {
        let (method, url) = (request.method(), request.url());
        let sent = Sent::Local(failure, error);
        let gave = sent.gave::<C>();
        let outcome = Outcome { method, url, attempt: 0, elapsed: Duration::ZERO, gave };
        self.ends(&outcome, stop, now);
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
            Sent::Answer(mut response, _) => {
                if let (Some(at), Some(limit)) = (self.retry.deadline(), self.policy.max_total_time)
                {
                    response = body::until(response, at, limit);
                }
                if self.history.total() > 0 {
                    response.extensions_mut().insert(self.history);
                }
                Ok(response)
            }
            Sent::Failed(error) => Err(error),
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
