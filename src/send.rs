//! One attempt: sent, bounded in time, its body read where that is asked for.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::Extensions;
use reqwest::{Request, Response};

use crate::body::{self, BodyFactory, BoxFuture};
use crate::error::{BoxError, Elapsed, HttpRequestError};
use crate::failure;
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
    Answer(Response, Option<Bytes>),
    Failed(E),
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
            Self::Answer(response, body) => Gave::Answer {
                status: response.status(),
                headers: response.headers(),
                url: response.url(),
                body: body.as_deref(),
            },
            Self::Failed(error) => {
                let error = C::as_error(error);
                Gave::Failure(failure::read(error), error)
            }
            Self::Local(failure, error) => Gave::Failure(*failure, error.as_ref()),
        }
    }
}

/// Makes one attempt.
pub(crate) async fn attempt<C: Chain>(
    chain: C,
    mut request: Request,
    extensions: &mut Extensions,
    policy: &Policy,
    body: Option<&BodyFactory>,
    now: Instant,
    limits: Limits,
) -> Sent<C::Error> {
    let read_body = policy.read_body;
    let Some(limit) = Limit::nearest(policy, now, limits) else {
        return complete(chain, request, extensions, body, read_body).await;
    };
    // The request's own timeout also bounds the body; it is only ever lowered, because setting
    // one where there is none would replace, and maybe loosen, the client's.
    if let (Some(own), Some(deadline)) = (request.timeout_mut(), limits.deadline) {
        *own = (*own).min(deadline.saturating_duration_since(now));
    }
    let sent = complete(chain, request, extensions, body, read_body);
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
    mut request: Request,
    extensions: &mut Extensions,
    body: Option<&BodyFactory>,
    read_body: Option<usize>,
) -> Sent<C::Error> {
    if let Some(factory) = body {
        request = match factory.fill(request).await {
            Ok(request) => request,
            Err(error) => return Sent::unsent(FailureKind::Builder, error),
        };
    }
    match (chain.send(request, extensions).await, read_body) {
        (Ok(response), None) => Sent::Answer(response, None),
        (Ok(response), Some(limit)) => match body::read(response, limit).await {
            Ok((response, body)) => Sent::Answer(response, body),
            Err(error) => Sent::Failed(error.into()),
        },
        (Err(error), _) => Sent::Failed(error),
    }
}

/// When an attempt has to end.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) attempt: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
}

/// The limit that comes first: the attempt's or the whole request's.
struct Limit {
    at: Instant,
    kind: FailureKind,
    elapsed: Elapsed,
}

impl Limit {
    fn nearest(policy: &Policy, now: Instant, limits: Limits) -> Option<Self> {
        let attempt = limits.attempt.and_then(|after| {
            let elapsed = Elapsed { limit: "attempt_timeout", after };
            Some(Self { at: now.checked_add(after)?, kind: FailureKind::Timeout, elapsed })
        });
        let total = limits.deadline.map(|at| {
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
