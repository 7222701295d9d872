//! The fast path: a first attempt that succeeds, without listeners, around the loop.
//!
//! - Claim: a request that succeeds at once adds 1.24 times the instructions of reqwest-retry by
//!   this path, 2.10 times by the loop alone (`scripts/instructions`, rows `Resilient` and
//!   `Resilient, loop alone`); 1.1 is the bar.
//! - Invariant: it ends only with a success, and then breaker, budget and gate, extensions and response
//!   are as the loop would have left them. All else is left to the loop, which takes over the
//!   attempt under way. The property `who_watches_changes_nothing` holds this.

use std::sync::Arc;

use http::Extensions;
use reqwest::{Request, Response};

use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::execution::ClientParts;
use crate::execution::attempt::{self, AttemptResult, Chain, Limit};
use crate::execution::body::{BodyFactory, BoxFuture};
use crate::execution::original::Original;
use crate::execution::run::Execution;
use crate::host::admission::{self, Admission};
use crate::host::parts::Parts;
use crate::observe::history::server_of;
use crate::outcome;
use crate::outcome::idempotency::is_idempotent;
use crate::retry::decision::StopReason;

/// Returns whether no more than the status of a response is needed to see that a request is done,
/// and it may be sent again if it is not.
#[inline]
pub(crate) fn applies(policy: &Policy, request: &Request, extensions: &Extensions) -> bool {
    let is_bounded = policy.max_total_time.is_some() || policy.read_body.is_some();
    let is_marked = policy.idempotency_key.is_some()
        || policy.deadline_header.is_some()
        || policy.attempt_header.is_some();
    let is_judged = policy.retry_if.is_some()
        || policy.breaker_health.is_some()
        || policy.waits_out_outages
        || policy.hedge.is_some()
        || policy.redact_path.is_some();
    let is_limited = policy.concurrency.is_some() || policy.rate.is_some();
    let is_observed = !policy.listeners.is_empty();
    let may_move = policy.mirrors.is_some();
    let has_body = request.body().is_some() || extensions.get::<BodyFactory>().is_some();
    let may_repeat = policy.max_retries > 0
        && is_idempotent(request.method())
        && policy.idempotent.unwrap_or_else(|| policy.methods.contains(request.method()));
    may_repeat
        && !(is_bounded
            || is_marked
            || is_judged
            || is_limited
            || is_observed
            || may_move
            || has_body)
}

/// Sends the first attempt, and returns a success; hands any other result to the loop.
pub(crate) fn run<'a, C: Chain + 'a>(
    client: ClientParts<'a>,
    policy: Arc<Policy>,
    chain: C,
    mut request: Request,
    extensions: &'a mut Extensions,
) -> BoxFuture<'a, Result<Response, C::Error>> {
    Box::pin(async move {
        let started = Instant::now();
        let parts = Parts::find(client.hosts, policy.host_rules(), &request, started);
        let passed = admission::pass(&parts, extensions, started);
        let original = &mut Original::new(&mut request, extensions);
        let (mut permit, mut first, entry) = (None, None, parts.fleet_entry());
        if let Some(admitted) = passed {
            let timeout = client.attempt_timeout(&policy, original.request);
            let request = original.take(true);
            let sending = chain.clone().send(request, original.extensions_mut());
            let sent = match timeout.and_then(|it| Limit::of_attempt(it, started)) {
                None => Ok(sending.await),
                // Boxed, because a timer is large.
                limit => Box::pin(attempt::within(limit, sending)).await,
            };
            match sent {
                Ok(Ok(response)) if is_good(&policy, &response) => {
                    let (asked, now) = (original.request.url(), Instant::now());
                    let by = outcome::cross_host_url(asked, response.url());
                    admission::succeeded(&parts, admitted, by, now, &policy.sources);
                    if let Some(log) = &original.log {
                        let took = now.saturating_duration_since(started);
                        log.set_success(response.status(), took, by.and_then(server_of));
                    }
                    original.end(StopReason::Success, 1);
                    return Ok(client.guarded(&policy, response, original.extensions()));
                }
                Ok(sent) => first = Some(Box::new(AttemptResult::of(sent, false))),
                Err(limit) => first = Some(Box::new(AttemptResult::cut(limit, false))),
            }
            permit = admitted;
        }
        let admission = Admission::new(parts, original.extensions()).with(permit, entry);
        let mut execution = Execution::new(&policy, admission, original, client, started);
        // Boxed, because most requests end before.
        Box::pin(async move { execution.run(&chain, original, first).await }).await
    })
}

/// Returns whether a response succeeds by its status alone.
fn is_good(policy: &Policy, response: &Response) -> bool {
    response.status().is_success() && !policy.statuses.contains(response.status())
}
