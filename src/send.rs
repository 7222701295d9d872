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

    /// An error of the caller's own code.
    fn foreign(error: BoxError) -> Self::Error;
}

/// What came of an attempt.
pub(crate) enum Sent<E> {
    Answer(Response, Option<Bytes>),
    Failed(E),
    /// Ended here: cut by one of our limits, or not sent at all.
    Local(Failure, BoxError),
}

impl<E> From<Result<Response, E>> for Sent<E> {
    fn from(result: Result<Response, E>) -> Self {
        match result {
            Ok(response) => Self::Answer(response, None),
            Err(error) => Self::Failed(error),
        }
    }
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

/// Sends the request down the chain, with a body made for this attempt where that is asked for.
///
/// Nothing happens before the future is polled.
pub(crate) fn begin<'a, C: Chain + 'a>(
    chain: C,
    mut request: Request,
    extensions: &'a mut Extensions,
    body: Option<&'a BodyFactory>,
    left: Option<Duration>,
) -> BoxFuture<'a, Result<Response, C::Error>> {
    tighten(&mut request, left);
    match body {
        None => chain.send(request, extensions),
        Some(factory) => Box::pin(async move {
            let request = factory.fill(request).await.map_err(C::foreign)?;
            chain.send(request, extensions).await
        }),
    }
}

/// Lowers the request's own timeout, which bounds the body too, to the time that is left. Where
/// there is none, none is set: it would replace, and maybe loosen, the client's.
fn tighten(request: &mut Request, left: Option<Duration>) {
    // Asking for the mutable one would make a place for it.
    if let (Some(own), Some(left)) = (request.timeout().copied(), left) {
        *request.timeout_mut() = Some(own.min(left));
    }
}

/// Sees one attempt through, within its limits.
pub(crate) async fn attempt<C: Chain>(
    sending: BoxFuture<'_, Result<Response, C::Error>>,
    policy: &Policy,
    now: Instant,
    limits: Limits,
) -> Sent<C::Error> {
    let Some(limit) = Limit::nearest(policy, now, limits) else {
        return match policy.read_body {
            None => Sent::from(sending.await),
            Some(limit) => Box::pin(read(sending, limit)).await,
        };
    };
    let sending = async {
        match policy.read_body {
            None => Sent::from(sending.await),
            Some(limit) => read(sending, limit).await,
        }
    };
    match Box::pin(tokio::time::timeout_at(limit.at, sending)).await {
        Ok(sent) => sent,
        // Nobody knows how far it got.
        Err(_) => {
            let failure = Failure::new(limit.kind, Delivery::MaybeProcessed);
            Sent::Local(failure, Box::new(limit.elapsed))
        }
    }
}

/// An attempt whose body belongs to it.
async fn read<E: From<reqwest::Error>>(
    sending: BoxFuture<'_, Result<Response, E>>,
    limit: usize,
) -> Sent<E> {
    let response = match sending.await {
        Ok(response) => response,
        Err(error) => return Sent::Failed(error),
    };
    match body::read(response, limit).await {
        Ok((response, body)) => Sent::Answer(response, body),
        Err(error) => Sent::Failed(error.into()),
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
