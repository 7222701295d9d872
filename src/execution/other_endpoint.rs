//! Hedges at another endpoint than their attempt's: admitted by its host, and reported to it.

use std::time::Duration;

use http::StatusCode;
use reqwest::{Request, Url};

use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::execution::original::Original;
use crate::execution::recorder::RecordedEndpoint;
use crate::execution::route::may_resume_at;
use crate::execution::run::Execution;
use crate::host::admission::Admission;
use crate::host::hedge::lanes::HedgeTurn;
use crate::host::hedge::{Hedge, HedgeRefusal};
use crate::host::hedging::HedgePermit;
use crate::host::mirrors::{Order, Places, UnderWay};
use crate::host::parts::Parts;
use crate::outcome::Outcome;

/// The endpoint of a hedge that is not its attempt's.
pub(super) struct OtherEndpoint<'p> {
    pub(super) at: usize,
    /// The settings of its host.
    pub(super) policy: &'p Policy,
    pub(super) url: Url,
    pub(super) recorded: RecordedEndpoint<'p>,
    pub(super) admission: Admission<'p>,
    /// Counts the hedge as in flight to the host; `None` once it has ended.
    turn: Option<HedgeTurn>,
    /// Counts it for the choice of endpoints, where they are spread.
    pub(super) under_way: Option<UnderWay>,
}

/// A hedge that was admitted, with the request to send.
pub(super) struct Admitted<'p> {
    pub(super) request: Request,
    pub(super) permit: HedgePermit<'p>,
    /// `None` if it is sent to where its attempt is.
    pub(super) other: Option<Box<OtherEndpoint<'p>>>,
}

impl OtherEndpoint<'_> {
    /// Ends the hedge, and records its latency.
    pub(super) fn end(&mut self, latency: Option<Duration>, now: Instant) {
        if let Some(turn) = self.turn.take() {
            turn.end(latency, now);
        }
    }
}

impl<'p> Execution<'p> {
    /// Has a hedge admitted: by the next endpoint that is available and was not yet asked by this
    /// race, or by the attempt's own if there is no such other. `None` if the request has no copy.
    ///
    /// # Errors
    ///
    /// The reason why the first of them gets no hedge now.
    pub(super) fn admit_hedge(
        &self,
        hedge: &Hedge,
        original: &mut Original<'_>,
        turn: &HedgeTurn,
        mut asked: Places,
    ) -> Option<Result<Admitted<'p>, HedgeRefusal>> {
        let mut refusal = None;
        while let Some(at) = self.other_place(original.request, asked) {
            asked.insert(at);
            let Some((request, other)) = self.other_endpoint(at, hedge, original)? else {
                continue;
            };
            match other.admission.admit_hedge(&request, turn, other.turn.as_ref(), self.now) {
                Ok(permit) => {
                    return Some(Ok(Admitted { request, permit, other: Some(Box::new(other)) }));
                }
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        if let Some(why) = refusal {
            return Some(Err(why));
        }
        let request = original.request.try_clone()?;
        let permit = self.admission.admit_hedge(&request, turn, None, self.now);
        Some(permit.map(|permit| Admitted { request, permit, other: None }))
    }

    fn other_place(&self, request: &Request, asked: Places) -> Option<usize> {
        let route = self.route.as_ref().filter(|it| it.may_repeat_elsewhere(request.method()))?;
        let mut asked = asked;
        asked.extend(route.current);
        route.for_hedge(request, self.policy, self.now, asked)
    }

    /// Writes the request for another endpoint. The outer `None` is that of a request without a copy,
    /// the inner one of an endpoint that gets no hedges of it.
    fn other_endpoint(
        &self,
        at: usize,
        hedge: &Hedge,
        original: &mut Original<'_>,
    ) -> Option<Option<(Request, OtherEndpoint<'p>)>> {
        let mut copy = original.request.try_clone()?;
        let (_, extensions) = original.parts();
        let Some(route) = &self.route else { return Some(None) };
        let (Some(endpoint), Some(policy)) = (route.of.endpoint(at), route.of.policies.get(at))
        else {
            return Some(None);
        };
        let policy: &'p Policy = policy;
        // Another server may give the whole of what this one gives the rest of.
        if policy.hedge.is_none() || !may_resume_at(endpoint, extensions) {
            return Some(None);
        }
        route.rewrite(at, &mut copy, &mut route.withheld.clone(), extensions);
        let parts = Parts::find(route.hosts.hosts, policy.host_rules(), &copy, self.now);
        let mut admission = Admission::new(parts, extensions);
        admission.keep_gate_key(&copy);
        let is_spread = route.of.mirrors.order() == Order::Spread;
        let under_way =
            is_spread.then(|| route.hosts.hosts.find(endpoint.url(), self.now).load().begin());
        let other = OtherEndpoint {
            at,
            policy,
            url: copy.url().clone(),
            recorded: RecordedEndpoint::new(policy, endpoint.url(), &route.of.url),
            turn: Some(admission.begin_hedging(hedge, &copy, false, self.now)),
            admission,
            under_way,
        };
        Some(Some((copy, other)))
    }

    /// Makes the endpoint of the hedge that won that of the request.
    pub(super) fn adopt_endpoint(
        &mut self,
        mut other: OtherEndpoint<'p>,
        permit: Option<HedgePermit<'p>>,
        original: &mut Original<'_>,
    ) {
        let (request, extensions) = original.parts();
        if let Some(route) = &mut self.route {
            route.turn_to(other.at, request, extensions);
            route.last = Some((other.at, other.url));
            route.under_way = other.under_way;
        }
        self.follow(other.policy, request);
        self.recorder.swap_endpoint(&mut other.recorded);
        if let Some(permit) = permit {
            other.admission.adopt_hedge(permit);
        }
        self.admission = other.admission;
    }

    /// Returns whether an outcome is a 404 for which another endpoint is asked, if there is one.
    pub(super) fn is_missing(&self, outcome: &Outcome<'_>) -> bool {
        let is_strict = self.route.as_ref().is_none_or(|it| it.of.mirrors.is_strict());
        !is_strict && matches!(outcome.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE))
    }
}
