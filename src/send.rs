//! One attempt: sent, bounded in time, its body read where that is asked for.

use std::error::Error;

use bytes::Bytes;
use http::Extensions;
use reqwest::{Request, Response};

use crate::body::{self, BodyFactory, BoxFuture};
use crate::error::{BoxError, Elapsed, HttpRequestError};
use crate::failure;
use crate::followed;
use crate::outcome::{Delivery, Failure, FailureKind, Gave};
use crate::policy::Policy;
use crate::time::Instant;

/// What follows `Resilient` in a client's chain of middleware: all that the loop needs to know of
/// the crate that defines the chain.
pub(crate) trait Chain: Clone + Send + Sync {
    type Error: From<reqwest::Error> + Send;

    fn send<'a>(
        self,
        request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, Self::Error>>
    where
        Self: 'a;

    /// The error as its sources see it.
    fn as_error(error: &Self::Error) -> &(dyn Error + 'static);

    /// An error that was decided upon here.
    fn local(error: HttpRequestError) -> Self::Error;
}

/// What came of an attempt.
pub(crate) enum Sent<E> {
    Answer {
        response: Response,
        body: Option<Bytes>,
        followed: bool,
    },
    Failed(Failure, E),
    /// Ended here: cut by one of our limits, or not sent at all.
    Local(Failure, BoxError),
}

impl<E> Sent<E> {
    /// Nothing was sent.
    pub(crate) fn unsent(kind: FailureKind, error: BoxError) -> Self {
        Self::Local(Failure::new(kind, Delivery::NotSent), error)
    }

    pub(crate) fn gave<C: Chain<Error = E>>(&self) -> Gave<'_> {
        match self {
            Self::Answer { response, body, followed } => Gave::Answer {
                status: response.status(),
                headers: response.headers(),
                url: response.url(),
                body: body.as_deref(),
                followed: *followed,
            },
            Self::Failed(failure, error) => Gave::Failure(*failure, C::as_error(error)),
            Self::Local(failure, error) => Gave::Failure(*failure, error.as_ref()),
        }
    }
}

/// What one attempt has to keep to.
pub(crate) struct Terms<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) factory: Option<&'a BodyFactory>,
    pub(crate) now: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Whether a redirect that the client follows is to be noticed.
    pub(crate) minds_redirects: bool,
}

/// Makes one attempt.
pub(crate) async fn attempt<C: Chain>(
    chain: C,
    mut request: Request,
    extensions: &mut Extensions,
    terms: &Terms<'_>,
) -> Sent<C::Error> {
    let Terms { policy, now, deadline, .. } = *terms;
    let Some(limit) = Limit::nearest(policy, now, deadline) else {
        return complete(chain, request, extensions, terms).await;
    };
    // The request's own timeout also bounds the body; it is only ever lowered, because setting
    // one where there is none would replace, and maybe loosen, the client's.
    if let (Some(own), Some(deadline)) = (request.timeout_mut(), deadline) {
        *own = (*own).min(deadline.saturating_duration_since(now));
    }
    let sent = complete(chain, request, extensions, terms);
    match tokio::time::timeout_at(limit.at, sent).await {
        Ok(sent) => sent,
        // Nobody knows how far it got.
        Err(_) => {
            let failure = Failure::new(limit.kind, Delivery::MaybeProcessed);
            Sent::Local(failure, Box::new(limit.elapsed))
        }
    }
}

async fn complete<C: Chain>(
    chain: C,
    request: Request,
    extensions: &mut Extensions,
    terms: &Terms<'_>,
) -> Sent<C::Error> {
    let request = match terms.factory {
        Some(factory) => match factory.fill(request).await {
            Ok(request) => request,
            Err(error) => return Sent::unsent(FailureKind::Builder, error),
        },
        None => request,
    };
    let sent = chain.send(request, extensions);
    let (result, followed) =
        if terms.minds_redirects { followed::watch(sent).await } else { (sent.await, false) };
    match (result, terms.policy.read_body) {
        (Ok(response), None) => Sent::Answer { response, body: None, followed },
        (Ok(response), Some(limit)) => match body::read(response, limit).await {
            Ok((response, body)) => Sent::Answer { response, body, followed },
            Err(error) => {
                // The connection was not stale: a head came by it.
                let failure = Failure { may_be_stale: false, ..failure::read(&error) };
                Sent::Failed(failure, error.into())
            }
        },
        (Err(error), _) => {
            let mut failure = failure::read(C::as_error(&error));
            if followed {
                // What is known of the last hop is not true of the first, which was answered.
                failure.delivery = Delivery::MaybeProcessed;
            }
            Sent::Failed(failure, error)
        }
    }
}

/// The limit that comes first: the attempt's or the whole request's.
struct Limit {
    at: Instant,
    kind: FailureKind,
    elapsed: Elapsed,
}

impl Limit {
    fn nearest(policy: &Policy, now: Instant, deadline: Option<Instant>) -> Option<Self> {
        let attempt = policy.attempt_timeout.and_then(|after| {
            let elapsed = Elapsed { limit: "attempt_timeout", after };
            Some(Self { at: now.checked_add(after)?, kind: FailureKind::Timeout, elapsed })
        });
        let total = deadline.map(|at| {
            let after = policy.max_total_time.unwrap_or_default();
            let elapsed = Elapsed { limit: "max_total_time", after };
            Self { at, kind: FailureKind::Deadline, elapsed }
        });
        // On a tie the whole request is over.
        match (attempt, total) {
            (Some(attempt), Some(total)) if attempt.at < total.at => Some(attempt),
            (attempt, total) => total.or(attempt),
        }
    }
}
