//! The race of one attempt with its hedges, inside one turn of the loop.
//!
//! - Invariant: whatever ran, one result comes out, which is judged like that of any attempt. Losers
//!   are dropped in place before anything is recorded, never awaited, and say nothing to breaker and
//!   budget.
//! - Bound: an attempt and at most four hedges.

use std::{future::poll_fn, mem, pin::pin, task::Poll, time::Duration};

use http::StatusCode;
use reqwest::Request;
use tokio::time::sleep_until;

use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::execution::attempt::{AttemptLimits, AttemptResult, Chain};
use crate::execution::judge::{close_gate, judge, may_be_applied};
use crate::execution::original::Original;
use crate::execution::other_endpoint::{Admitted, OtherEndpoint};
use crate::execution::racer::{
    Failed, Finish, MOST, Racer, Racers, Run, Superseded, Way, Winner, is_sample, run,
};
use crate::execution::run::Execution;
use crate::host::gate::Closing;
use crate::host::hedge::Hedge;
use crate::host::hedge::decide::{self, Candidate};
use crate::host::hedge::lanes::HedgeTurn;
use crate::host::mirrors::Places;
use crate::outcome::classify::Verdict;
use crate::outcome::hint::Advice;
use crate::outcome::{AttemptKind, Delivery, Failure, FailureKind, Outcome, OutcomeResult};

impl<'p> Execution<'p> {
    /// Returns how the attempt that begins is hedged; `None` if it may not be.
    #[inline]
    pub(super) fn hedging(&self, original: &Original<'_>) -> Option<&'p Hedge> {
        let hedge = self.policy.hedge.as_ref()?;
        let may = self.retry.may_race() && !original.is_hedged() && hedge.covers(original.request);
        may.then_some(hedge)
    }

    /// Sends one attempt, and hedges beside it while it is slow. Returns the result that counts.
    pub(super) async fn race<C: Chain>(
        &mut self,
        hedge: &'p Hedge,
        chain: C,
        original: &mut Original<'_>,
    ) -> AttemptResult<C::Error> {
        let is_first = self.retry.attempts() == 0;
        let turn = self.admission.begin_hedging(hedge, original.request, is_first, self.now);
        let (first, run) = self.first_racer(hedge, chain.clone(), original);
        let (mut racers, mut own) = (Racers::new(first), pin!(Some(run)));
        let delay = self.hedge_delay(&turn, original);
        let mut due = delay.and_then(|it| self.now.checked_add(it));
        // Registers with the clock only when it is polled.
        let mut timer = pin!(sleep_until(due.unwrap_or(self.now)));
        let winner = loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(ended) = racers.poll(own.as_mut(), cx) {
                    return Poll::Ready(Some(ended));
                }
                match due {
                    Some(_) => timer.as_mut().poll(cx).map(|()| None),
                    None => Poll::Pending,
                }
            });
            let next = next.await;
            self.now = Instant::now();
            let Some((at, finish)) = next else {
                let delay = delay.unwrap_or_default();
                let asked = racers.all().filter_map(|it| Some(it.other.as_ref()?.at)).collect();
                let sent = self.hedge_racer(hedge, &chain, original, (&turn, delay), asked);
                let is_sent = sent.map(|it| racers.push(it)).is_some();
                let has_more = is_sent && racers.hedges() < hedge.most() as usize;
                // From now on: after a standstill those that are late would go all at once.
                due = self.now.checked_add(delay).filter(|_| has_more);
                if let Some(due) = due {
                    timer.as_mut().reset(due);
                }
                continue;
            };
            // A failure is the backoff's business, not that of another hedge.
            due = None;
            if let Some(winner) = self.ended::<C>(&mut racers, at, finish, original) {
                break winner;
            }
        };
        own.set(None);
        self.settle::<C>(racers, winner, turn, original)
    }

    /// Begins the attempt itself. Its future is dropped before the race is settled.
    fn first_racer<'a, C: Chain + 'a>(
        &mut self,
        hedge: &Hedge,
        chain: C,
        original: &mut Original<'_>,
    ) -> (Racer<'p, 'a, C::Error>, impl Future<Output = Finish<C::Error>> + Send + use<'p, 'a, C>)
    where
        'p: 'a,
    {
        let request = original.take(true);
        original.isolate();
        self.begin_attempt(original);
        let (extensions, scopes) =
            (original.take_extensions(), mem::take(&mut self.recorder.scopes));
        let limits = self.race_limits(hedge);
        let racer = Racer {
            attempt: self.attempt,
            started: self.now,
            permit: None,
            other: None,
            records: self.client.records,
            run: Run::Own,
        };
        (racer, run(Way::Chain(chain), request, extensions, scopes, limits))
    }

    /// Begins a hedge, if it is admitted: at an endpoint that is not among those `asked`, if there are
    /// several. It comes after this delay.
    fn hedge_racer<'a, C: Chain + 'a>(
        &mut self,
        hedge: &Hedge,
        chain: &C,
        original: &mut Original<'_>,
        (turn, delay): (&HedgeTurn, Duration),
        asked: Places,
    ) -> Option<Racer<'p, 'a, C::Error>>
    where
        'p: 'a,
    {
        let Admitted { request, permit, mut other } =
            match self.admit_hedge(hedge, original, turn, asked)? {
                Ok(admitted) => admitted,
                Err(why) => {
                    self.recorder.hedge_refused(original.request, delay, why);
                    return None;
                }
            };
        self.retry.hedge();
        let attempt = (self.retry.attempts(), AttemptKind::Hedge);
        let mut extensions = original.hedge_extensions(attempt.0);
        let admission = other.as_mut().map_or(&mut self.admission, |it| &mut it.admission);
        admission.mark_limits(&mut extensions);
        let (limit, limits) = match &other {
            None => (self.admission.limit_use(), self.race_limits(hedge)),
            Some(it) => {
                let timeout = self.client.attempt_timeout(it.policy, &request);
                let limits =
                    AttemptLimits { policy: it.policy, timeout, ..self.race_limits(hedge) };
                (it.admission.limit_use(), limits)
            }
        };
        self.swap_endpoint(&mut other);
        self.recorder.hedge_started(&request, attempt.0, delay);
        self.recorder.attempt_started(&request, &extensions, attempt, limit);
        let scopes = mem::take(&mut self.recorder.scopes);
        self.swap_endpoint(&mut other);
        let way = match hedge.client() {
            Some(client) => Way::Client(client.clone()),
            None => Way::Chain(chain.clone()),
        };
        Some(Racer {
            attempt,
            started: self.now,
            permit: Some(permit),
            other,
            records: self.client.records && hedge.client().is_none(),
            run: Run::UnderWay(Box::pin(run(way, request, extensions, scopes, limits))),
        })
    }

    /// Exchanges the endpoint of what is recorded for that of a hedge, and back.
    fn swap_endpoint(&mut self, other: &mut Option<Box<OtherEndpoint<'p>>>) {
        if let Some(other) = other {
            self.recorder.swap_endpoint(&mut other.recorded);
        }
    }

    /// Returns the delay of hedges; `None` if there are to be none.
    fn hedge_delay(&self, turn: &HedgeTurn, original: &Original<'_>) -> Option<Duration> {
        let own = original.request.timeout().copied();
        let timeout = self.timeout.map(|it| it.after);
        let limit = timeout.into_iter().chain(self.retry.left(self.now)).chain(own).min();
        turn.delay().filter(|it| decide::has_time(*it, limit))
    }

    /// Judges a racer that has ended. Returns the winner, if that is decided.
    fn ended<C: Chain>(
        &self,
        racers: &mut Racers<'p, '_, C::Error>,
        at: usize,
        mut finish: Finish<C::Error>,
        original: &Original<'_>,
    ) -> Option<Winner<C::Error>> {
        let is_alone = racers.hedges() == 0;
        let has_response = racers.have_response();
        let racer = racers.0.get_mut(at)?.as_mut()?;
        let url = racer.other.as_ref().map_or_else(|| original.request.url(), |it| &it.url);
        finish.result.classify::<C>(url, &finish.extensions, racer.records);
        if is_alone {
            return Some(Winner { at, finish, ended: self.now, judged: None });
        }
        let (judged, is_missing) = {
            let mut outcome = self.outcome_of::<C>(racer, &finish, self.now, original);
            let mut judged = judge(self.policy_of(racer), &mut outcome);
            // 409 with an idempotency key: the twin is at work. 404: others may have the resource.
            let is_twins = outcome.keyed && outcome.status() == Some(StatusCode::CONFLICT);
            let is_missing = self.is_missing(&outcome);
            let may_be_bettered = is_twins || is_missing;
            let wins = match outcome.failure() {
                // It ends the others, too.
                Some(FailureKind::Deadline) => !has_response,
                _ => judged.verdict != Verdict::Transient && !may_be_bettered,
            };
            if wins {
                let judged = Some(Box::new(judged));
                return Some(Winner { at, finish, ended: self.now, judged });
            }
            judged.closing = self.close_gate_now(racer, &outcome, &judged.advice, original.request);
            (judged, is_missing)
        };
        racer.run = Run::Failed(Box::new(Failed { finish, judged, at: self.now, is_missing }));
        if racers.are_under_way() {
            return None;
        }
        // All have failed.
        let at = decide::choose(racers.all().map(|it| match &it.run {
            Run::Failed(it) => Candidate {
                is_missing: it.is_missing,
                has_hint: it.judged.has_hint(),
                is_response: it.is_response(),
            },
            _ => Candidate::default(),
        }));
        match mem::replace(&mut racers.0.get_mut(at)?.as_mut()?.run, Run::Dropped) {
            Run::Failed(it) => {
                let Failed { finish, judged, at: ended, .. } = *it;
                Some(Winner { at, finish, ended, judged: Some(Box::new(judged)) })
            }
            _ => None,
        }
    }

    /// Returns the outcome of a racer that ended at `at`.
    fn outcome_of<'a, C: Chain>(
        &self,
        racer: &'a Racer<'p, '_, C::Error>,
        finish: &'a Finish<C::Error>,
        at: Instant,
        original: &'a Original<'_>,
    ) -> Outcome<'a>
    where
        'p: 'a,
    {
        let outcome = self.outcome(original, finish.result.view::<C>());
        Outcome { extensions: Some(&finish.extensions), ..self.as_of(racer, at, outcome) }
    }

    /// Returns an outcome as that of a racer which ended at `at`.
    fn as_of<'a, E>(
        &self,
        racer: &'a Racer<'p, '_, E>,
        at: Instant,
        outcome: Outcome<'a>,
    ) -> Outcome<'a>
    where
        'p: 'a,
    {
        let (attempt, kind) = racer.attempt;
        let elapsed = at.saturating_duration_since(racer.started);
        let url = racer.other.as_ref().map_or(outcome.url, |it| &it.url);
        let redact_path = self.policy_of(racer).redact_path.as_ref();
        Outcome { url, attempt, kind, elapsed, redact_path, ..outcome }
    }

    /// Returns the settings of a racer's host.
    fn policy_of<E>(&self, racer: &Racer<'p, '_, E>) -> &'p Policy {
        racer.other.as_ref().map_or(self.policy, |it| it.policy)
    }

    /// Closes the gate of a racer's host if its response asks for that, and notifies: the race may go on
    /// for longer than others should wait for it.
    fn close_gate_now<E>(
        &self,
        racer: &Racer<'p, '_, E>,
        outcome: &Outcome<'_>,
        advice: &Advice,
        request: &Request,
    ) -> Option<Closing> {
        let admission = racer.other.as_ref().map_or(&self.admission, |it| &it.admission);
        let policy = self.policy_of(racer);
        let mut closing = close_gate(policy, admission, request, outcome, advice, self.now)?;
        if mem::take(&mut closing.is_longer) {
            self.recorder.gate_closed(outcome, closing.opens_in);
        }
        Some(closing)
    }

    /// Ends a race: drops the losers, records them and the latencies, and goes on with the winner.
    fn settle<C: Chain>(
        &mut self,
        mut racers: Racers<'p, '_, C::Error>,
        winner: Winner<C::Error>,
        turn: HedgeTurn,
        original: &mut Original<'_>,
    ) -> AttemptResult<C::Error> {
        let Winner { at, finish, ended, mut judged } = winner;
        let now = self.now;
        let mut latencies = [None; MOST];
        for (i, (racer, latency)) in racers.0.iter_mut().flatten().zip(&mut latencies).enumerate() {
            let took = |ended: Instant| ended.saturating_duration_since(racer.started);
            let statuses = &self.policy_of(racer).statuses;
            let took = match &racer.run {
                _ if i == at => is_sample(&finish.result, statuses).then(|| took(ended)),
                Run::Own | Run::UnderWay(_) => {
                    let age = took(now);
                    (racer.run, racer.permit) = (Run::Dropped, None);
                    Some(age)
                }
                Run::Failed(it) => is_sample(&it.finish.result, statuses).then(|| took(it.at)),
                Run::Dropped => None,
            };
            match &mut racer.other {
                Some(other) => other.end(took, now),
                None => *latency = took,
            }
        }
        turn.end(latencies.into_iter().flatten(), now);
        let moves = racers.all().nth(at).is_some_and(|it| it.other.is_some());
        let losers = racers.0.iter_mut().flatten().enumerate().filter(|it| it.0 != at);
        losers.for_each(|(_, racer)| self.superseded::<C>(racer, moves, original));
        // Last, as its endpoint becomes that of the request.
        if let Some(racer) = racers.0.iter_mut().flatten().nth(at) {
            (self.attempt, self.last_ended) = (racer.attempt, ended);
            self.last_took = ended.saturating_duration_since(racer.started);
            match (racer.other.take(), racer.permit.take()) {
                (Some(other), permit) => self.adopt_endpoint(*other, permit, original),
                (None, Some(permit)) => self.admission.adopt_hedge(permit),
                (None, None) => {}
            }
        }
        if let Some(judged) = &mut judged {
            judged.shorten_waits(now.saturating_duration_since(ended));
        }
        self.judged = judged;
        self.recorder.scopes = finish.scopes;
        original.keep_extensions(finish.extensions);
        finish.result
    }

    /// Records a racer that has lost; `moves` is set if the winner's endpoint is not that of the attempt.
    fn superseded<C: Chain>(
        &mut self,
        racer: &mut Racer<'p, '_, C::Error>,
        moves: bool,
        original: &Original<'_>,
    ) {
        self.swap_endpoint(&mut racer.other);
        let mut ended = self.now;
        let result = match mem::replace(&mut racer.run, Run::Dropped) {
            Run::Failed(mut failed) => {
                let mut scopes = mem::take(&mut failed.finish.scopes);
                ended = failed.at;
                let outcome = self.outcome_of::<C>(racer, &failed.finish, ended, original);
                let policy = self.policy_of(racer);
                self.maybe_applied |= may_be_applied(policy, &outcome, &failed.judged.advice);
                self.recorder.superseded(&outcome, self.retry.elapsed(ended), Some(&mut scopes));
                if outcome.delivery() == Delivery::NotSent {
                    match &mut racer.permit {
                        Some(permit) => permit.refund_slots(),
                        None => self.admission.refund_slots(),
                    }
                }
                Some((failed.judged.verdict, failed.is_missing))
            }
            Run::Own | Run::UnderWay(_) | Run::Dropped => {
                let failure = Failure::local(FailureKind::Superseded, Delivery::MaybeProcessed);
                let outcome = self.outcome(original, OutcomeResult::Failure(failure, &Superseded));
                let outcome = self.as_of(racer, ended, outcome);
                self.maybe_applied |= !outcome.method.is_safe();
                self.recorder.superseded(&outcome, self.retry.elapsed(ended), None);
                None
            }
        };
        self.swap_endpoint(&mut racer.other);
        if let Some(route) = &mut self.route {
            let (at, under_way) = match &mut racer.other {
                Some(other) => (Some(other.at), other.under_way.take()),
                None if moves => (route.current, route.under_way.take()),
                None => (None, None),
            };
            let age = ended.saturating_duration_since(racer.started);
            route.lost(at, under_way, age, result, self.now);
        }
    }
}
