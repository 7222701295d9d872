//! The endpoint of each attempt, where the settings name several for one base URL.
//!
//! One call at the top of the loop picks it, rewrites the request, and has its host admit the
//! attempt; after the attempt the next one is planned, so that its budget pays for it.

use std::sync::Arc;
use std::{ptr, time::Duration};

use http::{Extensions, StatusCode};
use reqwest::{Request, Response, Url};

use crate::breaker::CircuitOpen;
use crate::config::policy::Policy;
use crate::execution::attempt::{AttemptResult, Rejection};
use crate::execution::original::Original;
use crate::execution::route::{Endpoints, Plan, Route};
use crate::execution::run::Execution;
use crate::host::gate::Patience;
use crate::host::mirrors::{Endpoint, EndpointsUnavailable, GivenBy, Order, Places};
use crate::host::parts::Parts;
use crate::outcome::classify::Verdict;
use crate::outcome::hint::Advice;
use crate::outcome::{FailureKind, Outcome};
use crate::retry::decision::{Decision, StopReason};

impl<'p> Execution<'p> {
    /// Sends each attempt to one of `endpoints`.
    pub(crate) fn with_endpoints(
        mut self,
        endpoints: Option<&'p Endpoints>,
        extensions: &Extensions,
    ) -> Self {
        self.route = endpoints.map(|it| Box::new(Route::new(it, self.client, extensions)));
        self
    }

    /// Follows the settings of an endpoint's host.
    pub(super) fn follow(&mut self, policy: &'p Policy, request: &Request) {
        if !ptr::eq(self.policy, policy) {
            self.policy = policy;
            self.recorder.follow(policy);
            self.timeout = self.client.attempt_timeout(policy, request);
            let timeout = self.timeout.map(|it| it.after);
            let shortest = timeout.into_iter().chain(request.timeout().copied()).min();
            self.longest_open_wait = policy.open_wait(shortest);
        }
    }

    /// Attaches the endpoint that gave it to a response.
    pub(super) fn name_endpoint(&self, response: &mut Response) {
        if let Some(endpoint) = self.route.as_ref().and_then(|it| it.given_by()) {
            response.extensions_mut().insert(GivenBy(Arc::clone(endpoint)));
        }
    }

    /// Picks the endpoint of the next attempt, and asks its gate and breaker. Returns whether the
    /// request may have to wait for them, as no endpoint is available.
    pub(super) fn enter_endpoint(&mut self, original: &mut Original<'_>) -> bool {
        let mut rejected = Places::default();
        let picked = loop {
            let (policy, now) = (self.policy, self.now);
            let Some(route) = &mut self.route else { return false };
            let Some(at) = route.pick(original.request, rejected, policy, now) else { break None };
            self.go_to(at, original);
            if self.enter_at_once(original.request) {
                break Some(at);
            }
            rejected.insert(at);
        };
        if picked.is_none() {
            let soonest = self.route.as_ref().and_then(|it| it.soonest(original.request, self.now));
            if let Some(at) = soonest {
                self.go_to(at, original);
            }
        }
        self.arrive(original.request);
        picked.is_none()
    }

    /// Returns whether another endpoint is available.
    pub(super) fn has_other_endpoint(&self, request: &Request) -> bool {
        let Some(route) = &self.route else { return false };
        let own = route.current.into_iter().collect();
        route.for_hedge(request, self.policy, self.now, own).is_some()
    }

    /// Passes gate and breaker, if that needs no wait.
    pub(super) fn enter_at_once(&mut self, request: &Request) -> bool {
        if self.admission.may_be_held_back() {
            let left = self.retry.left(self.now).unwrap_or(Duration::MAX);
            let patience = Patience { wait: Duration::ZERO, left };
            let started = self.retry.started();
            let entered = self.admission.enter_gate(request, started, patience, self.now);
            if !matches!(entered, Ok(None)) {
                return false;
            }
        }
        let entered = self.enter().is_ok();
        if !entered {
            self.admission.leave_gate(None, self.now);
        }
        entered
    }

    /// Rewrites the request for an endpoint, and turns to the state of its host.
    fn go_to(&mut self, at: usize, original: &mut Original<'_>) {
        let Some(route) = &mut self.route else { return };
        let Some(policy) = route.of.policies.get(at) else { return };
        if route.current != Some(at) {
            // That wait is for another host.
            self.waits_at_gate = None;
        }
        let (request, extensions) = original.parts();
        route.turn_to(at, request, extensions);
        let parts = Parts::find(route.hosts.hosts, policy.host_rules(), request, self.now);
        self.follow(policy, request);
        self.admission.move_to(parts, extensions);
    }

    /// Notifies of a failover, and counts the attempt that begins.
    fn arrive(&mut self, request: &Request) {
        let (attempts, now) = (self.retry.attempts(), self.now);
        let Some(route) = &mut self.route else { return };
        let (Some(at), Some(endpoint)) = (route.current, route.endpoint()) else { return };
        if route.of.mirrors.order() == Order::Spread {
            route.under_way = Some(route.hosts.hosts.find(endpoint.url(), now).load().begin());
        }
        self.recorder.set_endpoint(endpoint.url(), &route.of.url);
        let last = route.last.replace((at, request.url().clone()));
        if let Some((_, from)) = last.filter(|(last, _)| *last != at && attempts > 0) {
            self.recorder.failed_over(request, &from, attempts.saturating_add(1));
        }
    }

    /// Records the result of an attempt at an endpoint. `may_be_applied` is set if the request changes
    /// something, and the endpoint may have done so.
    pub(super) fn record_endpoint(
        &mut self,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        may_be_applied: bool,
    ) {
        let now = self.now;
        if let Some(route) = &mut self.route {
            let may_repeat = route.may_repeat_elsewhere(outcome.method);
            route.record(outcome, verdict, may_be_applied && !may_repeat, now);
        }
    }

    /// Decides to ask another endpoint for what this one does not have: the next one at once, or else
    /// one that failed before, as a retry like any other. `None` if neither may follow.
    pub(super) fn look_elsewhere(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
        advice: Advice,
    ) -> Option<Decision> {
        let (policy, now) = (self.policy, self.now);
        if !self.is_missing(outcome) || !self.retry.may_look_elsewhere(policy, outcome.method, now)
        {
            return None;
        }
        let route = self.route.as_mut()?;
        route.missing.extend(route.current);
        let has_failed = !route.tried.without(route.missing).is_empty();
        let plan = route.plan(request, policy, now, Places::default())?;
        let decision = if plan.is_fresh {
            route.planned = Some(plan.at);
            route.is_failing_over = true;
            self.retry.fail_over()
        } else {
            let (_, closed) = route.held_back_by(plan.at, request, now);
            let parts = route.parts_of(plan.at, request, now);
            let longest = self.gate_time.min(self.retry.left(now).unwrap_or(Duration::MAX));
            if !has_failed || closed > longest {
                return None;
            }
            let rejected_for = parts.and_then(|it| it.rejects_for(now));
            let decision = self.follow_up_elsewhere(request, outcome, advice, plan, rejected_for);
            // Without a retry the request ends with the 404, which is not worth a wait for a token.
            let waits = self.admission.token_waiter().is_some();
            Some(decision).filter(|it| !waits && matches!(it, Decision::Retry { .. }))?
        };
        if let Some(route) = &mut self.route {
            route.is_missing = true;
        }
        Some(decision)
    }

    /// Returns the plan for the next attempt, if it is at another endpoint.
    pub(super) fn plan(&self, request: &Request) -> Option<Plan> {
        let route = self.route.as_ref().filter(|it| !it.is_pinned)?;
        let plan = route.plan(request, self.policy, self.now, Places::default())?;
        Some(plan).filter(|it| route.current != Some(it.at))
    }

    /// Returns whether the next attempt is one at another endpoint.
    pub(super) fn goes_elsewhere(&self) -> bool {
        self.route.as_ref().is_some_and(|it| it.planned.is_some() && it.planned != it.current)
    }

    /// Makes the next attempt one at the same endpoint.
    pub(super) fn stay(&mut self) {
        if let Some(route) = &mut self.route {
            route.planned = route.current;
        }
    }

    /// Takes a token for the planned endpoint, or for another one like it whose budget has one at once;
    /// or else a place in the queue for one, if the request `may_wait`. Returns `false` if it gets
    /// neither.
    pub(super) fn withdraw_elsewhere(
        &mut self,
        first: Plan,
        may_wait: bool,
        request: &Request,
    ) -> bool {
        let (mut plan, mut poor) = (first, Places::default());
        let is_paid = loop {
            if self.withdraw_at(plan, false, request) {
                break true;
            }
            poor.insert(plan.at);
            let (policy, now) = (self.policy, self.now);
            let next = self.route.as_ref().and_then(|it| it.plan(request, policy, now, poor));
            match next.filter(|it| it.is_fresh == first.is_fresh) {
                Some(next) => plan = next,
                None => break self.withdraw_at(first, may_wait, request),
            }
        };
        if let Some(route) = self.route.as_mut().filter(|_| !first.is_fresh) {
            // Another round.
            route.tried = route.missing;
        }
        is_paid
    }

    /// Makes the next attempt one at the planned endpoint, whose budget pays for it.
    fn withdraw_at(&mut self, plan: Plan, may_wait: bool, request: &Request) -> bool {
        let Some(route) = &mut self.route else { return false };
        route.planned = Some(plan.at);
        route.is_failing_over = plan.is_fresh;
        let parts = route.parts_of(plan.at, request, self.now);
        parts.is_none_or(|it| self.admission.withdraw_from(&it, may_wait, self.now))
    }

    /// Turns to the host of the next attempt, if that is another one: from now on its state counts.
    pub(super) fn turn_to_planned(&mut self, request: &Request) {
        if let Some((_, parts)) = self.planned_elsewhere(request) {
            self.admission.turn_to(parts);
        }
    }

    /// Returns URL and state of the host of the next attempt, if it is at another endpoint.
    pub(super) fn planned_elsewhere(&self, request: &Request) -> Option<(Url, Parts<'p>)> {
        let route = self.route.as_ref().filter(|_| self.goes_elsewhere())?;
        let at = route.planned?;
        Some((route.url_at(at)?, route.parts_of(at, request, self.now)?))
    }

    /// Returns the result to keep while another attempt is made: a failure replaces no 404, as that
    /// one is the response if the other endpoints do not have the resource either.
    pub(super) fn keep<E>(
        &mut self,
        before: Option<Box<AttemptResult<E>>>,
        new: Box<AttemptResult<E>>,
    ) -> Box<AttemptResult<E>> {
        let Some(route) = &mut self.route else { return new };
        let (Some(at), Some(before)) = (route.last.as_ref().map(|it| it.0), before) else {
            route.kept = route.last.as_ref().map(|it| it.0).filter(|_| route.is_missing);
            return new;
        };
        match route.kept {
            Some(kept) if !route.is_missing || kept < at => before,
            _ => {
                route.kept = Some(at).filter(|_| route.is_missing);
                new
            }
        }
    }

    /// Returns whether the last result is a 404 that is kept, unread.
    pub(super) fn keeps_last(&self) -> bool {
        self.route.as_ref().is_some_and(|it| it.is_missing)
    }

    /// Returns the result that ends the request: the 404 that was kept, if the last attempt gave none
    /// that is better.
    pub(super) fn best<E>(
        &mut self,
        kept: Option<Box<AttemptResult<E>>>,
        last: AttemptResult<E>,
        stop: StopReason,
    ) -> AttemptResult<E> {
        let Some(route) = &mut self.route else { return last };
        let (Some(at), Some(kept)) = (route.kept, kept) else { return last };
        let status = match &last {
            AttemptResult::Response { response, .. } => Some(response.status()),
            _ => None,
        };
        let is_missing = matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::GONE));
        let is_final = stop == StopReason::Final && !is_missing;
        let is_preferred = is_missing && route.current.is_some_and(|it| it < at);
        if stop == StopReason::Success || is_final || is_preferred {
            route.kept = None;
            return last;
        }
        // The permit of the last attempt belongs to another host than the response.
        self.admission.leave_limits();
        *kept
    }

    /// Returns a rejection by the breaker that names the hosts of all endpoints.
    pub(super) fn of_all_endpoints(&self, rejection: Rejection) -> Rejection {
        let Some(route) = &self.route else { return rejection };
        let Rejection { kind, error } = rejection;
        match error.downcast::<CircuitOpen>() {
            Ok(open) if kind == FailureKind::CircuitOpen => {
                let host = |it: &Arc<Endpoint>| it.url().host_str().map(str::to_owned);
                let hosts = route.of.mirrors.endpoints().iter().filter_map(host).collect();
                Rejection { kind, error: Box::new(EndpointsUnavailable { hosts, open: *open }) }
            }
            Ok(open) => Rejection { kind, error: open },
            Err(error) => Rejection { kind, error },
        }
    }
}
