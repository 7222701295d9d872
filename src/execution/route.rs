//! The endpoints of one request, and where it stands with them: which were asked, which one is next.

use std::{mem, sync::Arc, time::Duration};

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue, Method};
use reqwest::{Request, Url};

use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::config::reload::EndpointPolicies;
use crate::execution::ClientParts;
use crate::host::gate::{GateKey, HostGates};
use crate::host::mirrors::{
    Endpoint, Mirrors, Places, UnderWay, Withheld, choose, restore, withhold_range,
};
use crate::host::parts::Parts;
use crate::outcome::classify::Verdict;
use crate::outcome::idempotency::is_idempotent;
use crate::outcome::{AttemptKind, Outcome};

/// The endpoints of one request.
pub(crate) struct Endpoints {
    pub(super) mirrors: Arc<Mirrors>,
    /// The settings of attempts at each of them.
    pub(super) policies: Vec<Arc<Policy>>,
    /// The request's own URL.
    pub(super) url: Url,
}

/// Marks a request for the rest of a download, in its extensions.
#[derive(Clone)]
pub(crate) struct ResumesFrom {
    /// The endpoint of the bytes so far, if it is known.
    pub(crate) endpoint: Option<Url>,
    /// Set if another endpoint may give the rest; if not, it is asked for the whole.
    pub(crate) may_move: bool,
}

/// The endpoints whose bytes were wrong, in the extensions of a download's requests.
#[derive(Clone)]
pub(crate) struct Avoids(pub(crate) Vec<Url>);

impl Endpoints {
    pub(crate) fn new(of: EndpointPolicies, url: Url) -> Self {
        Self { mirrors: of.mirrors, policies: of.policies, url }
    }

    pub(super) fn endpoint(&self, at: usize) -> Option<&Arc<Endpoint>> {
        self.mirrors.endpoints().get(at)
    }
}

/// Returns whether a request for the rest of a download may be sent to an endpoint as it is.
pub(super) fn may_resume_at(endpoint: &Endpoint, extensions: &Extensions) -> bool {
    let resumes = extensions.get::<ResumesFrom>().filter(|it| !it.may_move);
    resumes.is_none_or(|it| it.endpoint.as_ref() == Some(endpoint.url()))
}

/// Where a request stands with its endpoints.
pub(super) struct Route<'p> {
    pub(super) of: &'p Endpoints,
    pub(super) hosts: ClientParts<'p>,
    /// The endpoint that the request is rewritten for.
    pub(super) current: Option<usize>,
    /// The endpoint of the last attempt, and its URL.
    pub(super) last: Option<(usize, Url)>,
    /// The endpoint that the next attempt is meant for.
    pub(super) planned: Option<usize>,
    /// Those asked in this round.
    pub(super) tried: Places,
    /// Those that do not have the resource.
    pub(super) missing: Places,
    /// The one whose 404 is kept.
    pub(super) kept: Option<usize>,
    /// Set if the last attempt got a 404, and the next endpoint is to be asked.
    pub(super) is_missing: bool,
    /// Set if the next attempt is to be at an endpoint that was not asked in this round.
    pub(super) is_failing_over: bool,
    /// Set if the request must stay with its endpoint.
    pub(super) is_pinned: bool,
    pub(super) withheld: Withheld,
    pub(super) under_way: Option<UnderWay>,
}

/// The endpoint that is planned for the next attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) at: usize,
    /// `true` if it was not asked in this round.
    pub(super) is_fresh: bool,
}

impl<'p> Route<'p> {
    pub(super) fn new(of: &'p Endpoints, hosts: ClientParts<'p>, extensions: &Extensions) -> Self {
        let avoided = extensions.get().map_or(&[][..], |Avoids(all)| all);
        let endpoints = of.mirrors.endpoints();
        let is_avoided = |at: &usize| avoided.contains(endpoints[*at].url());
        let missing: Places = (0..endpoints.len()).filter(is_avoided).collect();
        // Without any other, one of them is asked again.
        let missing = match Places::first(endpoints.len()) == missing {
            true => Places::default(),
            false => missing,
        };
        Self {
            of,
            hosts,
            current: None,
            last: None,
            planned: None,
            tried: missing,
            missing,
            kept: None,
            is_missing: false,
            is_failing_over: false,
            is_pinned: false,
            withheld: vec![],
            under_way: None,
        }
    }

    /// Returns whether a request that one endpoint may have processed may be sent to another, which
    /// knows nothing of the first.
    pub(super) fn may_repeat_elsewhere(&self, method: &Method) -> bool {
        is_idempotent(method) || self.of.mirrors.shares_idempotency()
    }

    /// Returns the endpoint that the request is rewritten for.
    pub(super) fn endpoint(&self) -> Option<&'p Arc<Endpoint>> {
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
        let (open, closed) = self.held_back_by(at, request, now);
        open.max(closed)
    }

    /// Returns how long the breaker of an endpoint holds back this request, and how long its gate does.
    pub(super) fn held_back_by(
        &self,
        at: usize,
        request: &Request,
        now: Instant,
    ) -> (Duration, Duration) {
        let (Some(endpoint), Some(policy)) = (self.of.endpoint(at), self.of.policies.get(at))
        else {
            return (Duration::MAX, Duration::MAX);
        };
        let rules = policy.host_rules();
        let gate_key = |gates: &HostGates| match rules.gate {
            Some(GateKey::Authorization) => {
                let trusts = self.of.mirrors.trusts(endpoint, &self.of.url);
                let authorization = self.authorization(request);
                gates.key_of_authorization(authorization.filter(|_| trusts))
            }
            Some(own) => gates.key_of(own, request),
            None => 0,
        };
        Parts::held_back_by(self.hosts.hosts, rules, endpoint.url(), gate_key, now)
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

    /// Plans the next attempt: at an endpoint that was not asked in this round, or else at any, or at
    /// the one that will be available first; not at those in `except`.
    pub(super) fn plan(
        &self,
        request: &Request,
        policy: &Policy,
        now: Instant,
        except: Places,
    ) -> Option<Plan> {
        let available = self.available(request, now).without(except);
        if let Some(at) = self.choose(available.without(self.tried), policy, now) {
            return Some(Plan { at, is_fresh: true });
        }
        let again = self.choose(available, policy, now);
        let soonest = || self.soonest(request, now).filter(|it| !except.contains(*it));
        let at = again.or_else(soonest)?;
        Some(Plan { at, is_fresh: false })
    }

    /// Picks the endpoint of the next attempt: the planned one if it is available. `None` if none is,
    /// but for those that have `rejected` the request.
    pub(super) fn pick(
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

    /// Chooses the endpoint of a hedge: an available one that was not asked in this round, or else any
    /// available one; none in `except`.
    pub(super) fn for_hedge(
        &self,
        request: &Request,
        policy: &Policy,
        now: Instant,
        except: Places,
    ) -> Option<usize> {
        let available = self.available(request, now).without(except);
        let fresh = self.choose(available.without(self.tried), policy, now);
        fresh.or_else(|| self.choose(available, policy, now))
    }

    /// Returns the URL of the request at an endpoint.
    pub(super) fn url_at(&self, at: usize) -> Option<Url> {
        self.of.endpoint(at)?.with(self.of.mirrors.rest_of(&self.of.url).unwrap_or_default())
    }

    /// Returns the state of an endpoint's host.
    pub(super) fn parts_of(&self, at: usize, request: &Request, now: Instant) -> Option<Parts<'p>> {
        let (endpoint, policy) = (self.of.endpoint(at)?, self.of.policies.get(at)?);
        let (hosts, rules) = (self.hosts.hosts, policy.host_rules());
        Some(Parts::find_at(hosts, rules, endpoint.url(), request, now))
    }

    /// Rewrites the request for an endpoint, unless it is written for it.
    pub(super) fn turn_to(&mut self, at: usize, request: &mut Request, extensions: &Extensions) {
        if self.current != Some(at) {
            let mut withheld = mem::take(&mut self.withheld);
            self.rewrite(at, request, &mut withheld, extensions);
            (self.withheld, self.current) = (withheld, Some(at));
        }
    }

    /// Rewrites a request for an endpoint. `withheld` is what the request lacks of the caller's headers.
    pub(super) fn rewrite(
        &self,
        at: usize,
        request: &mut Request,
        withheld: &mut Withheld,
        extensions: &Extensions,
    ) {
        let Some(endpoint) = self.of.endpoint(at) else { return };
        let (mirrors, url) = (&self.of.mirrors, &self.of.url);
        if let Some(url) = self.url_at(at) {
            *request.url_mut() = url;
        }
        restore(request.headers_mut(), mem::take(withheld));
        *withheld = mirrors.withhold(request.headers_mut(), url, endpoint);
        if !may_resume_at(endpoint, extensions) {
            withheld.extend(withhold_range(request.headers_mut()));
        }
    }

    /// Records an attempt that lost a race, at an endpoint that is not the winner's; `result` is the
    /// verdict on its own result, if it had one, and whether that is a 404.
    pub(super) fn lost(
        &mut self,
        at: Option<usize>,
        under_way: Option<UnderWay>,
        age: Duration,
        result: Option<(Verdict, bool)>,
        now: Instant,
    ) {
        if let Some(under_way) = under_way {
            // One that was under way would have taken longer still.
            under_way.record(age, result.is_some_and(|it| it.0 == Verdict::Transient), now);
        }
        if let Some((_, is_missing)) = result {
            self.tried.extend(at);
            self.missing.extend(at.filter(|_| is_missing));
        }
    }

    /// Returns the endpoint that will be available first, of those not asked yet if there are any.
    pub(super) fn soonest(&self, request: &Request, now: Instant) -> Option<usize> {
        let all = self.all();
        let fresh = all.without(self.tried);
        let of = if fresh.is_empty() { all } else { fresh };
        of.iter().min_by_key(|it| self.held_back_for(*it, request, now))
    }

    /// Records the result of an attempt for the choices to come.
    pub(super) fn record(
        &mut self,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        stays: bool,
        now: Instant,
    ) {
        let Some(at) = self.current else { return };
        self.tried.insert(at);
        self.is_pinned |= stays;
        (self.is_missing, self.is_failing_over) = (false, false);
        if let Some(under_way) = self.under_way.take() {
            under_way.record(outcome.elapsed, verdict == Verdict::Transient, now);
        }
        let (mirrors, favourites) = (&self.of.mirrors, &self.hosts.hosts.favourites);
        if let (Some(time), Some(endpoint)) = (mirrors.sticky_time(), self.of.endpoint(at)) {
            let (set, endpoint) = (mirrors.name(), endpoint.as_str());
            match verdict {
                // That a hedge was quicker is no reason to leave the endpoint.
                Verdict::Success if outcome.kind == AttemptKind::Hedge => {}
                Verdict::Success => favourites.succeeded(set, endpoint, time, now),
                Verdict::Transient => favourites.failed(set, endpoint),
                Verdict::Final => {}
            }
        }
    }
}
