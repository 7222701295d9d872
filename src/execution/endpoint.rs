//! The endpoint of each attempt, where the settings name several for one base URL.
//!
//! One call at the top of the loop picks it, rewrites the request, and has its host admit the
//! attempt; after the attempt the next one is planned, so that its budget pays for it.

use std::sync::Arc;
use std::{mem, time::Duration};

use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use reqwest::{Request, Url};

use crate::breaker::CircuitOpen;
use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::config::reload::EndpointPolicies;
use crate::execution::ClientParts;
use crate::execution::attempt::{AttemptResult, Rejection};
use crate::execution::original::Original;
use crate::execution::run::Execution;
use crate::host::gate::{HostGates, Patience};
use crate::host::mirrors::{
    Endpoint, EndpointsUnavailable, Mirrors, Places, UnderWay, Withheld, choose, restore,
};
use crate::host::parts::Parts;
use crate::outcome::idempotency::is_idempotent;
use crate::outcome::{FailureKind, Outcome};
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// The endpoints of one request.
pub(crate) struct Endpoints {
    mirrors: Arc<Mirrors>,
    /// The settings of attempts at each of them.
    policies: Vec<Arc<Policy>>,
    /// The request's own URL.
    url: Url,
}

impl Endpoints {
    pub(crate) fn new(of: EndpointPolicies, url: Url) -> Self {
        Self { mirrors: of.mirrors, policies: of.policies, url }
    }

    fn endpoint(&self, at: usize) -> Option<&Arc<Endpoint>> {
        self.mirrors.endpoints().get(at)
    }
}

/// Where a request stands with its endpoints.
pub(super) struct Route<'p> {
    of: &'p Endpoints,
    hosts: ClientParts<'p>,
    /// The endpoint that the request is rewritten for.
    current: Option<usize>,
    /// The endpoint of the last attempt, and its URL.
    last: Option<(usize, Url)>,
    /// The endpoint that the next attempt is meant for.
    planned: Option<usize>,
    /// Those asked in this round.
    tried: Places,
    /// Those that do not have the resource.
    missing: Places,
    /// The one whose 404 is kept.
    kept: Option<usize>,
    /// Set if the last attempt got a 404, and the next endpoint is to be asked.
    is_missing: bool,
    /// Set if the next attempt is to be at an endpoint that was not asked in this round.
    is_failing_over: bool,
    /// Set if the request must stay with its endpoint.
    is_pinned: bool,
    withheld: Withheld,
    under_way: Option<UnderWay>,
}

/// The endpoint that is planned for the next attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    at: usize,
    /// `true` if it was not asked in this round.
    pub(super) is_fresh: bool,
}

impl<'p> Route<'p> {
    pub(super) fn new(of: &'p Endpoints, hosts: ClientParts<'p>) -> Self {
        Self {
            of,
            hosts,
            current: None,
            last: None,
            planned: None,
            tried: Places::default(),
            missing: Places::default(),
            kept: None,
            is_missing: false,
            is_failing_over: false,
            is_pinned: false,
            withheld: vec![],
            under_way: None,
        }
    }

    /// Returns the endpoint that the request is rewritten for.
    fn endpoint(&self) -> Option<&'p Arc<Endpoint>> {
        self.of.endpoint(self.current?)
    }

    /// Returns the endpoint that gave the response which the caller gets.
    pub(super) fn given_by(&self) -> Option<&'p Arc<Endpoint>> {
        self.of.endpoint(self.kept.or(self.current)?)
    }

    fn all(&self) -> Places {
        match (self.is_pinned, self.current) {
            (true, Some(current)) => [current].into_iter().collect(),
            _ => Places::first(self.of.mirrors.endpoints().len()).without(self.missing),
        }
    }

    /// Returns how long an endpoint holds back this request.
    fn held_back_for(&self, at: usize, request: &Request, now: Instant) -> Duration {
        let (Some(endpoint), Some(policy)) = (self.of.endpoint(at), self.of.policies.get(at))
        else {
            return Duration::MAX;
        };
        let rules = policy.host_rules();
        let gate_key = |gates: &HostGates| {
            use crate::host::gate::GateKey;
            match rules.gate {
                Some(GateKey::Authorization) => {
                    let trusts = self.of.mirrors.trusts(endpoint, &self.of.url);
                    let authorization = self.authorization(request);
                    gates.key_of_authorization(authorization.filter(|_| trusts))
                }
                Some(own) => gates.key_of(own, request),
                None => 0,
            }
        };
        Parts::held_back_for(self.hosts.hosts, rules, endpoint.url(), gate_key, now)
    }

    /// Returns the `Authorization` of the request, be it withheld at the moment.
    fn authorization<'r>(&'r self, request: &'r Request) -> Option<&'r HeaderValue> {
        let withheld = self.withheld.iter().find(|it| it.0 == AUTHORIZATION).map(|it| &it.1);
        withheld.or_else(|| request.headers().get(AUTHORIZATION))
    }

    fn available(&self, request: &Request, now: Instant) -> Places {
        self.all().iter().filter(|it| self.held_back_for(*it, request, now).is_zero()).collect()
    }

    /// Chooses among `candidates`.
    fn choose(&self, candidates: Places, policy: &Policy, now: Instant) -> Option<usize> {
        let (mirrors, hosts) = (&self.of.mirrors, self.hosts.hosts);
        let is_favourite = |at: &usize| {
            let endpoint = self.of.endpoint(*at).map(|it| it.as_str());
            endpoint.is_some_and(|it| hosts.favourites.is(mirrors.name(), it, now))
        };
        let favourite = mirrors.sticky_time().and_then(|_| candidates.iter().find(is_favourite));
        let cost = |at| {
            let endpoint = self.of.endpoint(at);
            endpoint.map_or(f64::MAX, |it| hosts.find(it.url(), now).load().cost(now))
        };
        choose(mirrors.order(), candidates, favourite, cost, || policy.sources.random())
    }

    /// Plans the next attempt: at an endpoint that was not asked in this round, or else at any.
    fn plan(&self, request: &Request, policy: &Policy, now: Instant) -> Option<Plan> {
        let available = self.available(request, now);
        let fresh = self.choose(available.without(self.tried), policy, now);
        let again = || self.choose(available, policy, now);
        let plan = fresh.map(|at| Plan { at, is_fresh: true });
        plan.or_else(|| again().map(|at| Plan { at, is_fresh: false }))
    }

    /// Picks the endpoint of the next attempt: the planned one if it is available. `None` if none is,
    /// but for those that have `rejected` the request.
    fn pick(
        &mut self,
        request: &Request,
        rejected: Places,
        policy: &Policy,
        now: Instant,
    ) -> Option<usize> {
        let available = self.available(request, now).without(rejected);
        if let Some(planned) = self.planned.take().filter(|it| available.contains(*it)) {
            return Some(planned);
        }
        let fresh = available.without(self.tried);
        if fresh.is_empty() && !self.is_failing_over {
            self.tried = self.missing;
            return self.choose(available, policy, now);
        }
        self.choose(fresh, policy, now)
    }

    /// Returns the endpoint that will be available first, of those not asked yet if there are any.
    fn soonest(&self, request: &Request, now: Instant) -> Option<usize> {
        let all = self.all();
        let fresh = all.without(self.tried);
        let of = if fresh.is_empty() { all } else { fresh };
        of.iter().min_by_key(|it| self.held_back_for(*it, request, now))
    }

    /// Records the result of an attempt for the choices to come.
    fn record(&mut self, outcome: &Outcome<'_>, is_good: bool, stays: bool, now: Instant) {
        let Some(at) = self.current else { return };
        self.tried.insert(at);
        self.is_pinned |= stays;
        (self.is_missing, self.is_failing_over) = (false, false);
        if let Some(under_way) = self.under_way.take() {
            under_way.record(outcome.elapsed, !is_good, now);
        }
        let (mirrors, favourites) = (&self.of.mirrors, &self.hosts.hosts.favourites);
        if let (Some(time), Some(endpoint)) = (mirrors.sticky_time(), self.of.endpoint(at)) {
            match is_good {
                true => favourites.succeeded(mirrors.name(), endpoint.as_str(), time, now),
                false => favourites.failed(mirrors.name(), endpoint.as_str()),
            }
        }
    }
}

impl<'p> Execution<'p> {
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

    /// Passes gate and breaker, if that needs no wait.
    fn enter_at_once(&mut self, request: &Request) -> bool {
        if self.admission.may_be_held_back() {
            let left = self.retry.left(self.now).unwrap_or(Duration::MAX);
            let patience = Patience { wait: Duration::ZERO, left };
            let started = self.retry.started();
            match self.admission.enter_gate(request, started, patience, self.now) {
                Ok(None) => {}
                // It leaves the queue at once.
                Ok(Some(_)) | Err(_) => return false,
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
        let (Some(endpoint), Some(policy)) = (route.of.endpoint(at), route.of.policies.get(at))
        else {
            return;
        };
        let (request, extensions) = original.parts();
        if route.current != Some(at) {
            let url = &route.of.url;
            let rest = route.of.mirrors.rest_of(url).unwrap_or_default();
            if let Some(url) = endpoint.with(rest) {
                *request.url_mut() = url;
            }
            restore(request.headers_mut(), mem::take(&mut route.withheld));
            route.withheld = route.of.mirrors.withhold(request.headers_mut(), url, endpoint);
            route.current = Some(at);
        }
        let parts = Parts::find(route.hosts.hosts, policy.host_rules(), request, self.now);
        self.follow(policy, request);
        self.admission.move_to(parts, extensions);
    }

    /// Notifies of a failover, and counts the attempt that begins.
    fn arrive(&mut self, request: &Request) {
        let (attempts, now) = (self.retry.attempts(), self.now);
        let Some(route) = &mut self.route else { return };
        let (Some(at), Some(endpoint)) = (route.current, route.endpoint()) else { return };
        if route.of.mirrors.order() == crate::host::mirrors::Order::Spread {
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
        is_good: bool,
        may_be_applied: bool,
    ) {
        let now = self.now;
        if let Some(route) = &mut self.route {
            // Another data centre does not know the first attempt.
            let may_repeat = is_idempotent(outcome.method) || route.of.mirrors.shares_idempotency();
            route.record(outcome, is_good, may_be_applied && !may_repeat, now);
        }
    }

    /// Decides to ask the next endpoint for what this one does not have, if there is one.
    pub(super) fn look_elsewhere(
        &mut self,
        request: &Request,
        outcome: &Outcome<'_>,
    ) -> Option<Decision> {
        let (policy, now) = (self.policy, self.now);
        let route = self.route.as_mut()?;
        let is_missing = matches!(outcome.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE));
        if !is_missing || route.of.mirrors.is_strict() {
            return None;
        }
        let plan = route.plan(request, policy, now).filter(|it| it.is_fresh)?;
        let decision = self.retry.look_elsewhere(policy, outcome.method, now)?;
        route.missing.extend(route.current);
        route.planned = Some(plan.at);
        (route.is_missing, route.is_failing_over) = (true, true);
        Some(decision)
    }

    /// Returns the plan for the next attempt, if it is at another endpoint.
    pub(super) fn plan(&self, request: &Request) -> Option<Plan> {
        let route = self.route.as_ref().filter(|it| !it.is_pinned)?;
        let plan = route.plan(request, self.policy, self.now)?;
        Some(plan).filter(|it| route.current != Some(it.at))
    }

    /// Makes the next attempt one at the planned endpoint, or at the same one if its connection was
    /// stale. From now on the budget is that of its host.
    pub(super) fn turn_to(&mut self, plan: Plan, request: &Request, source: &WaitSource) {
        let Some(route) = &mut self.route else { return };
        if *source == WaitSource::Immediate {
            route.planned = route.current;
            return;
        }
        route.planned = Some(plan.at);
        route.is_failing_over = plan.is_fresh;
        if let (Some(endpoint), Some(policy)) =
            (route.of.endpoint(plan.at), route.of.policies.get(plan.at))
        {
            let (hosts, rules) = (route.hosts.hosts, policy.host_rules());
            let parts = Parts::find_at(hosts, rules, endpoint.url(), request, self.now);
            self.admission.turn_to(parts);
        }
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
