//! The loop: admit an attempt, send it, decide; then wait, or return.

use std::{mem, time::Duration};

use reqwest::Response;

use crate::breaker::StateChange;
use crate::common::clock::{self, Instant};
use crate::config::policy::Policy;
use crate::error::BoxError;
use crate::execution::attempt::{self, AttemptLimits, AttemptResult, Chain};
use crate::execution::body::BodyFactory;
use crate::execution::decide::{Judged, Retry};
use crate::execution::original::Original;
use crate::execution::record::OwnConnection;
use crate::execution::recorder::{Recorder, Standing};
use crate::execution::route::Route;
use crate::execution::{AttemptTimeout, ClientParts};
use crate::host::admission::Admission;
use crate::host::hedge::Hedge;
use crate::observe::misuse::Misuse;
use crate::outcome::{AttemptKind, idempotency};
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// One request under way.
pub(crate) struct Execution<'p> {
    pub(super) policy: &'p Policy,
    pub(super) retry: Retry,
    pub(super) recorder: Recorder<'p>,
    /// Host, permit, token and gate pass of the attempt under way.
    pub(super) admission: Admission<'p>,
    /// The changes of breakers that this request caused, not yet notified.
    pub(super) changes: Vec<StateChange>,
    /// The time of the last step.
    pub(super) now: Instant,
    /// The longest an attempt may take.
    pub(super) timeout: Option<AttemptTimeout>,
    /// The longest wait at an open breaker, and for a token.
    pub(super) longest_open_wait: Duration,
    /// The time that it may still wait at the gate.
    pub(super) gate_time: Duration,
    /// The number and kind of the last attempt.
    pub(super) attempt: (u32, AttemptKind),
    /// The duration of the last attempt.
    pub(super) last_took: Duration,
    /// The end of the last attempt: before `now`, if it failed while its hedges went on.
    pub(super) last_ended: Instant,
    /// The verdict on the last attempt, if a race needed it.
    pub(super) judged: Option<Box<Judged>>,
    pub(super) keyed: bool,
    /// The end of the wait at the gate before the next attempt; `None` if there is none.
    pub(super) waits_at_gate: Option<Instant>,
    /// Set once a hinted 503 has given it a free retry.
    pub(super) was_invited: bool,
    /// Set once a response said that its connection is for another host (421).
    pub(super) was_misdirected: bool,
    /// Set if the next attempt needs a connection of its own.
    pub(super) distrusts_pool: bool,
    /// Set once an attempt that is retried, or one that lost a race, may have been applied.
    pub(super) maybe_applied: bool,
    /// The change of the concurrency limit by the last attempt, not yet notified.
    pub(super) limit_change: Option<(u32, u32)>,
    /// The error that the caller's own verdict ends the request with.
    pub(super) own_error: Option<BoxError>,
    /// Set if the request has several endpoints. Boxed, because most have one.
    pub(super) route: Option<Box<Route<'p>>>,
    pub(super) client: ClientParts<'p>,
}

impl<'p> Execution<'p> {
    /// Begins a request, which gets the key it needs.
    pub(crate) fn new(
        policy: &'p Policy,
        admission: Admission<'p>,
        original: &mut Original<'_>,
        client: ClientParts<'p>,
        now: Instant,
    ) -> Self {
        let log = original.log.clone();
        let (request, extensions) = original.parts();
        if let Some(key) = &policy.idempotency_key {
            key.apply(request, rand::random);
        }
        let retry = Retry::of_request(policy, request, extensions, now);
        let timeout = client.attempt_timeout(policy, request);
        let shortest =
            timeout.map(|it| it.after).into_iter().chain(request.timeout().copied()).min();
        Self {
            policy,
            retry,
            recorder: Recorder::new(policy, log),
            admission,
            changes: vec![],
            now,
            timeout,
            longest_open_wait: policy.open_wait(shortest),
            gate_time: policy.max_wait_time,
            attempt: (0, AttemptKind::First),
            last_took: Duration::ZERO,
            last_ended: now,
            judged: None,
            keyed: !idempotency::is_idempotent(request.method())
                && idempotency::is_keyed(request.headers(), policy.idempotency_key.as_ref()),
            waits_at_gate: None,
            was_invited: false,
            was_misdirected: false,
            distrusts_pool: false,
            maybe_applied: false,
            limit_change: None,
            own_error: None,
            route: None,
            client,
        }
    }

    /// Runs the request to its end; `first` is the result of an attempt that the fast path began.
    pub(crate) async fn run<C: Chain>(
        &mut self,
        chain: &C,
        original: &mut Original<'_>,
        mut first: Option<Box<AttemptResult<C::Error>>>,
    ) -> Result<Response, C::Error> {
        let mut last = None;
        loop {
            self.retry.turn();
            if first.is_none() && self.must_wait(original) {
                if let Err(rejection) = Box::pin(self.admit(original)).await {
                    let rejection = self.of_all_endpoints(rejection);
                    return self.reject::<C>(original, last, rejection);
                }
            }
            // A scope, so that the result is not held twice: it is boxed while the request waits.
            let wait = {
                let attempt = match first.take() {
                    Some(first) => self.adopt::<C>(*first, original),
                    None => self.send(chain.clone(), original).await,
                };
                let nested = original.was_given_up();
                if nested {
                    self.client.misuses.report(Misuse::Stacked, &self.policy.listeners);
                }
                match self.decide(original, attempt.view::<C>(), nested) {
                    Decision::Return(stop) => {
                        let result = self.best(last, attempt, stop);
                        return self.finish::<C>(original, result, stop);
                    }
                    Decision::Retry { after, source } => {
                        original.retry();
                        let attempt = Box::new(attempt);
                        self.wait::<C>(original, attempt, after, source)
                    }
                }
            };
            match wait.await {
                Ok(attempt) => last = Some(self.keep(last, attempt)),
                Err((attempt, stop)) => {
                    let attempt = Box::new(self.best(last, *attempt, stop));
                    return self.give_up::<C>(original, *attempt, stop);
                }
            }
        }
    }

    /// Asks gate and breaker, those of the next endpoint if there are several. Returns whether the
    /// request may have to wait for one of them, or for a limit.
    #[inline]
    pub(super) fn must_wait(&mut self, original: &mut Original<'_>) -> bool {
        if self.route.is_some() {
            let waits = self.enter_endpoint(original);
            if self.admission.is_limited() {
                // It asks again once it has its turn by the limits: a permit is no place to wait with.
                self.admission.step_back();
                self.admission.leave_gate(None, self.now);
            }
            return waits || self.admission.is_limited();
        }
        let admission = &self.admission;
        admission.may_be_held_back() || admission.is_limited() || self.enter().is_err()
    }

    /// Sends one attempt.
    async fn send<C: Chain>(
        &mut self,
        chain: C,
        original: &mut Original<'_>,
    ) -> AttemptResult<C::Error> {
        if let Some(hedge) = self.hedging(original) {
            // Boxed, because few clients hedge.
            return Box::pin(self.race(hedge, chain, original)).await;
        }
        // A scope, so that the request is not kept while it is under way.
        let (sending, limits) = {
            let mut request = original.take(self.retry.may_repeat(self.policy));
            if !original.is_copied() {
                self.retry.forbid_retry();
                self.admission.keep_gate_key(&request);
            }
            self.begin_attempt(original);
            let limits = self.limits();
            let is_bounded = limits.apply(&mut request) || !self.recorder.scopes.are_none();
            let extensions = original.extensions_mut();
            let factory = extensions.get::<BodyFactory>().cloned();
            let sending = match factory {
                None => chain.send(request, extensions),
                Some(factory) => {
                    let send = |it, extensions| chain.send(it, extensions);
                    attempt::with_body::<C>(send, request, extensions, factory)
                }
            };
            (sending, is_bounded.then_some(limits))
        };
        let mut result = match limits {
            None => AttemptResult::of(sending.await, false),
            Some(limits) => {
                let attempt = Box::pin(attempt::attempt::<C>(sending, limits));
                self.recorder.scopes.around(attempt).await
            }
        };
        self.end_attempt::<C>(&mut result, original);
        result
    }

    /// Takes over an attempt that the fast path sent.
    fn adopt<C: Chain>(
        &mut self,
        mut first: AttemptResult<C::Error>,
        original: &Original<'_>,
    ) -> AttemptResult<C::Error> {
        self.count_attempt();
        self.end_attempt::<C>(&mut first, original);
        first
    }

    /// Classifies the result of an attempt, and takes its time.
    fn end_attempt<C: Chain>(
        &mut self,
        result: &mut AttemptResult<C::Error>,
        original: &Original<'_>,
    ) {
        result.classify::<C>(original.request.url(), original.extensions(), self.client.records);
        let started = mem::replace(&mut self.now, Instant::now());
        (self.last_took, self.last_ended) = (self.now.saturating_duration_since(started), self.now);
    }

    /// Counts an attempt, records it, and marks it for middleware further in.
    pub(super) fn begin_attempt(&mut self, original: &mut Original<'_>) {
        self.count_attempt();
        if mem::take(&mut self.maybe_applied) {
            self.recorder.note_maybe_applied();
        }
        original.mark_resend(self.attempt.0);
        let limit = match self.recorder.is_observed() {
            true => self.admission.limit_use(),
            false => None,
        };
        self.recorder.attempt_started(original.request, original.extensions(), self.attempt, limit);
        self.admission.spend();
        let extensions = original.extensions_mut();
        self.admission.mark(extensions);
        if mem::take(&mut self.distrusts_pool) {
            extensions.insert(OwnConnection);
        }
    }

    fn count_attempt(&mut self) {
        let kind = if self.retry.attempts() == 0 { AttemptKind::First } else { AttemptKind::Retry };
        self.retry.attempt();
        self.attempt = (self.retry.attempts(), kind);
    }

    /// Returns the limits of the attempt that begins now.
    pub(super) fn limits(&self) -> AttemptLimits<'p> {
        AttemptLimits {
            policy: self.policy,
            number: self.retry.attempts(),
            now: self.now,
            timeout: self.timeout,
            deadline: self.retry.deadline(),
            watches_redirects: self.retry.watches_redirects(),
            is_own_client: self.client.records,
            until_first_byte: false,
        }
    }

    /// Returns the limits of a racer that begins now.
    pub(super) fn race_limits(&self, hedge: &Hedge) -> AttemptLimits<'p> {
        AttemptLimits { until_first_byte: hedge.waits_for_byte(), ..self.limits() }
    }

    /// Drains the last response, returns its permit, waits for the token of the retry, and then as
    /// long as decided, unless that wait is spent at the gate. Returns the result of the last attempt,
    /// as an error if there was no token, or one that came too late.
    async fn wait<C: Chain>(
        &mut self,
        original: &Original<'_>,
        mut last: Box<AttemptResult<C::Error>>,
        after: Duration,
        source: WaitSource,
    ) -> Result<Box<AttemptResult<C::Error>>, (Box<AttemptResult<C::Error>>, StopReason)> {
        // Boxed, because most responses have no body that is left, and most retries a token.
        if last.has_body() && !self.keeps_last() {
            last = Box::pin(last.drained(after, self.retry.left(self.now))).await;
        }
        self.admission.leave_limits();
        if self.admission.waits_for_token() {
            self.turn_to_planned(original.request);
            if !Box::pin(self.wait_for_token(original.request)).await {
                return Err((last, StopReason::Budget));
            }
            let is_late = self.retry.left(self.now).is_some_and(|left| after >= left);
            if is_late && self.waits_at_gate.is_none() {
                return Err((last, StopReason::Deadline));
            }
            // The backoff begins now: what has just worked may have used up a rate limit.
            let outcome = self.outcome(original, last.view::<C>());
            self.recorder.has_token(&outcome, after, &source, self.standing_before_retry());
        }
        if !after.is_zero() && self.waits_at_gate.is_none() {
            tokio::time::sleep_until(clock::after(self.now, after)).await;
        }
        self.now = Instant::now();
        Ok(last)
    }

    /// Returns where the request stands.
    pub(super) fn standing(&self) -> Standing {
        let tokens = self.recorder.is_observed().then(|| self.admission.budget_left(self.now));
        let (attempts, elapsed) = (self.retry.attempts(), self.retry.elapsed(self.now));
        Standing { attempts, elapsed, tokens: tokens.flatten() }
    }

    /// Returns the same before a retry, without the tokens of another host's budget, which pays for an
    /// attempt there.
    pub(super) fn standing_before_retry(&self) -> Standing {
        let now = self.standing();
        Standing { tokens: now.tokens.filter(|_| !self.goes_elsewhere()), ..now }
    }
}
