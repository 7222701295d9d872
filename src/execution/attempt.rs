//! One attempt: sent, bounded in time, its body read where that is asked for.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderValue};
use reqwest::{Request, Response};

use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::error::{BoxError, Elapsed, HttpRequestError};
use crate::execution::body::{self, BodyFactory, BoxFuture};
use crate::execution::redirect;
use crate::outcome::transport_error::{self, BodyFactoryError};
use crate::outcome::{Delivery, Failure, FailureKind, OutcomeResult};
use crate::retry::decision::StopReason;

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

    /// An error of the caller's own body factory.
    fn body_factory_error(error: BodyFactoryError) -> Self::Error;
}

/// What came of an attempt.
pub(crate) enum AttemptResult<E> {
    Response {
        response: Response,
        body: Option<Bytes>,
        followed: bool,
    },
    Failed(Failure, E),
    /// Ended here: cut by one of our limits, or not sent at all.
    Local(Failure, BoxError),
}

impl<E> AttemptResult<E> {
    /// Nothing was sent.
    pub(crate) fn unsent(kind: FailureKind, error: BoxError) -> Self {
        Self::Local(Failure::new(kind, Delivery::NotSent), error)
    }

    #[inline]
    pub(crate) fn of<C: Chain<Error = E>>(result: Result<Response, E>, followed: bool) -> Self {
        match result {
            Ok(response) => Self::Response { response, body: None, followed },
            Err(error) => {
                let mut failure = transport_error::read(C::as_error(&error));
                if followed {
                    // What is known of the last hop is not true of the first, which was answered.
                    failure.delivery = Delivery::MaybeProcessed;
                }
                Self::Failed(failure, error)
            }
        }
    }

    /// Gives up the connection of a response, within the wait before the next attempt.
    pub(crate) async fn drained(self, wait: Duration, left: Option<Duration>) -> Self {
        match self {
            Self::Response { response, body: None, followed } => {
                let response = body::drain(response, wait, left).await;
                Self::Response { response, body: None, followed }
            }
            other => other,
        }
    }

    pub(crate) fn outcome_result<C: Chain<Error = E>>(&self) -> OutcomeResult<'_> {
        match self {
            Self::Response { response, body, followed } => OutcomeResult::Response {
                status: response.status(),
                headers: response.headers(),
                url: response.url(),
                body: body.as_deref(),
                followed: *followed,
            },
            Self::Failed(failure, error) => OutcomeResult::Failure(*failure, C::as_error(error)),
            Self::Local(failure, error) => OutcomeResult::Failure(*failure, error.as_ref()),
        }
    }
}

/// Why an attempt is not sent, and since when.
pub(crate) struct Refusal {
    pub(crate) kind: FailureKind,
    pub(crate) error: BoxError,
    pub(crate) now: Instant,
}

impl Refusal {
    /// Returns what the request ends by.
    pub(crate) fn stop(&self) -> StopReason {
        match self.kind {
            FailureKind::CircuitOpen => StopReason::CircuitOpen,
            FailureKind::RateLimited => StopReason::RateLimited,
            _ => StopReason::Final,
        }
    }
}

/// What one attempt has to keep to.
pub(crate) struct AttemptLimits<'a> {
    pub(crate) policy: &'a Policy,
    /// The attempt's number.
    pub(crate) number: u32,
    pub(crate) now: Instant,
    /// The longest the attempt may take.
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    /// Whether a redirect that the client follows is to be noticed.
    pub(crate) watches_redirects: bool,
}

/// Sends the request down the chain with a body made for this attempt.
pub(crate) fn with_body<'a, C: Chain + 'a>(
    chain: C,
    request: Request,
    extensions: &'a mut Extensions,
    factory: &'a BodyFactory,
) -> BoxFuture<'a, Result<Response, C::Error>> {
    Box::pin(async move {
        let request = factory.fill(request).await;
        let request = request.map_err(|it| C::body_factory_error(BodyFactoryError(it)))?;
        chain.send(request, extensions).await
    })
}

impl AttemptLimits<'_> {
    /// Writes into the request what the attempt's number and limits say. Whether the attempt has
    /// nothing else to keep to, so that it need only be sent.
    #[inline]
    pub(crate) fn apply(&self, request: &mut Request) -> bool {
        let Self { policy, number, now, timeout, deadline, watches_redirects } = *self;
        if let Some(name) = &policy.attempt_header {
            request.headers_mut().insert(name, HeaderValue::from(number));
        }
        if let Some(header) = &policy.deadline_header {
            let limit = Limit::nearest(self);
            let left = limit.map(|it| it.at.saturating_duration_since(now));
            if let Some(left) = left.into_iter().chain(request.timeout().copied()).min() {
                let (name, value) = header.line(left);
                request.headers_mut().insert(name, value);
            }
        }
        // The request's own timeout, which bounds the body too, is only ever lowered; setting one
        // where there is none would replace, and maybe loosen, the client's. And asking for the
        // mutable one would make a place for it.
        if let (Some(own), Some(deadline)) = (request.timeout().copied(), deadline) {
            *request.timeout_mut() = Some(own.min(deadline.saturating_duration_since(now)));
        }
        timeout.is_none() && deadline.is_none() && !watches_redirects && policy.read_body.is_none()
    }
}

/// Sees one attempt through, within its limits.
pub(crate) async fn attempt<C: Chain>(
    sending: BoxFuture<'_, Result<Response, C::Error>>,
    terms: AttemptLimits<'_>,
) -> AttemptResult<C::Error> {
    let sending = complete::<C>(sending, &terms);
    let Some(limit) = Limit::nearest(&terms) else { return sending.await };
    match tokio::time::timeout_at(limit.at, sending).await {
        Ok(sent) => sent,
        // Nobody knows how far it got.
        Err(_) => {
            let failure = Failure::new(limit.kind, Delivery::MaybeProcessed);
            AttemptResult::Local(failure, Box::new(limit.elapsed))
        }
    }
}

async fn complete<C: Chain>(
    sending: BoxFuture<'_, Result<Response, C::Error>>,
    terms: &AttemptLimits<'_>,
) -> AttemptResult<C::Error> {
    let (result, followed) = if terms.watches_redirects {
        redirect::watch(sending).await
    } else {
        (sending.await, false)
    };
    match (AttemptResult::of::<C>(result, followed), terms.policy.read_body) {
        (AttemptResult::Response { response, .. }, Some(limit)) => {
            match body::read(response, limit).await {
                Ok((response, body)) => AttemptResult::Response { response, body, followed },
                Err(error) => {
                    // The connection was not stale: a head came by it.
                    let failure = Failure { may_be_stale: false, ..transport_error::read(&error) };
                    AttemptResult::Failed(failure, error.into())
                }
            }
        }
        (sent, _) => sent,
    }
}

/// The limit that comes first: the attempt's or the whole request's.
struct Limit {
    at: Instant,
    kind: FailureKind,
    elapsed: Elapsed,
}

impl Limit {
    fn nearest(terms: &AttemptLimits<'_>) -> Option<Self> {
        let AttemptLimits { policy, now, timeout, deadline, .. } = *terms;
        let attempt = timeout.and_then(|after| {
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
