//! One attempt: sent, bounded in time, its body read where that is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderValue};
use reqwest::{Request, Response, Url};

use crate::breaker::CircuitOpen;
use crate::common::clock::Instant;
use crate::config::policy::Policy;
use crate::error::{BoxError, HttpRequestError};
use crate::execution::AttemptTimeout;
use crate::execution::body::stall::ReadError;
use crate::execution::body::{self, BodyFactory, BoxFuture};
use crate::execution::record::SendRecord;
use crate::execution::redirect;
use crate::host::gate::RateLimited;
use crate::observe::message::{Elapsed, TimeLimit};
use crate::outcome::transport_error::{AttemptError, BodyFactoryError};
use crate::outcome::{self, Delivery, Failure, FailureKind, OutcomeResult, not_sent};
use crate::retry::decision::StopReason;

/// The rest of a client's chain of middleware after `Resilient`: all that the loop needs to know of
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

    /// Returns the error as a standard error.
    fn as_error(error: &Self::Error) -> &(dyn Error + 'static);

    /// Returns the error, if it is of the transport's own type.
    fn transport_error(error: &Self::Error) -> Option<&reqwest::Error>;

    /// Builds an error that this crate decided on.
    fn local(error: HttpRequestError) -> Self::Error;

    /// Converts an error of a client by which hedges are sent.
    fn of_other_client(error: reqwest_middleware::Error) -> Self::Error;

    /// Builds an error of the caller's own body factory.
    fn body_factory_error(error: BodyFactoryError) -> Self::Error;
}

/// The result of an attempt.
pub(crate) enum AttemptResult<E> {
    Response {
        response: Response,
        body: Option<Bytes>,
        /// `true` if a redirect led to it.
        redirected: bool,
    },
    Failed {
        failure: Failure,
        error: E,
        /// `true` if the client was seen to follow a redirect.
        followed: bool,
        /// `true` if the response head had arrived.
        after_head: bool,
    },
    /// Ended by this crate: cut by a limit, or not sent at all.
    Local {
        failure: Failure,
        error: BoxError,
        /// `true` if it was cut while the body of the response was read.
        in_body: bool,
    },
}

impl<E> AttemptResult<E> {
    /// Builds the result of an attempt that sent nothing.
    pub(crate) fn unsent(kind: FailureKind, error: BoxError) -> Self {
        Self::local(Failure::new(kind, Delivery::NotSent), error)
    }

    /// Builds the result of an attempt that this crate decided on.
    pub(crate) fn local(failure: Failure, error: BoxError) -> Self {
        Self::Local { failure, error, in_body: false }
    }

    /// Builds the result of an attempt that ran into a limit: it is unknown how far it got.
    pub(crate) fn cut(limit: Limit, in_body: bool) -> Self {
        Self::cut_by(limit.kind, limit.elapsed, in_body)
    }

    fn cut_by(kind: FailureKind, elapsed: Elapsed, in_body: bool) -> Self {
        let failure = Failure::new(kind, Delivery::MaybeProcessed);
        Self::Local { failure, error: Box::new(elapsed), in_body }
    }

    /// Builds the result of sending, which is yet to be [classified](Self::classify).
    #[inline]
    pub(crate) fn of(result: Result<Response, E>, followed: bool) -> Self {
        match result {
            Ok(response) => Self::Response { response, body: None, redirected: followed },
            Err(error) => Self::failed(error, followed, false),
        }
    }

    fn failed(error: E, followed: bool, after_head: bool) -> Self {
        let failure = Failure::local(FailureKind::Other, Delivery::MaybeProcessed);
        Self::Failed { failure, error, followed, after_head }
    }

    /// Classifies the result by the URL that was asked for and the extensions of the attempt.
    /// `records` is set if the end of the chain is our own, which records what is sent.
    pub(crate) fn classify<C: Chain<Error = E>>(
        &mut self,
        asked: &Url,
        extensions: &Extensions,
        records: bool,
    ) {
        let record = extensions.get::<SendRecord>().filter(|_| records);
        let is_unsent =
            not_sent::is_marked(extensions) && record.is_none_or(|it| !it.may_be_processed());
        match self {
            Self::Response { response, redirected, .. } => {
                // What a middleware responds with by itself was not redirected.
                let sent = record.map(|it| &it.url).or_else(|| (!records).then_some(asked));
                let url = response.url();
                // Most URLs are the same to the letter, which is quick to see.
                *redirected |=
                    sent.is_some_and(|it| it != url && outcome::tells_of_redirect(it, url));
            }
            Self::Failed { failure, error, followed, after_head } => {
                let transport = C::transport_error(error);
                let (error, after_head) = (C::as_error(error), *after_head);
                let sent = record.map_or(asked, |it| &it.url);
                *failure = AttemptError { error, transport, sent, after_head }.read();
                let is_status = failure.status.is_some();
                // Facts of the last hop are not true of the first, which got a response.
                let mut may_be_processed = *followed;
                if records && !is_status {
                    may_be_processed |= record.is_none_or(SendRecord::may_be_processed)
                        && failure.kind != FailureKind::Unsent;
                    // Of the response's own body, or before any response came.
                    let is_of_host = |it: &SendRecord| after_head || it.has_no_response();
                    failure.concerns_host &= record.is_some_and(is_of_host);
                }
                if is_unsent && !is_status {
                    *failure = Failure::local(FailureKind::Unsent, Delivery::NotSent);
                } else if may_be_processed {
                    failure.delivery = Delivery::MaybeProcessed;
                }
            }
            Self::Local { failure, in_body, .. }
                if failure.delivery == Delivery::MaybeProcessed =>
            {
                if is_unsent {
                    *failure = Failure::local(failure.kind, Delivery::NotSent);
                }
                let is_of_host = |it: &SendRecord| *in_body || it.has_no_response();
                failure.concerns_host &= !records || record.is_some_and(is_of_host);
            }
            Self::Local { .. } => {}
        }
    }

    /// Returns whether a body is to be drained, to free the connection.
    pub(crate) fn has_body(&self) -> bool {
        matches!(self, Self::Response { response, body: None, .. }
            if response.content_length() != Some(0))
    }

    /// Drains a response within the wait before the next attempt.
    pub(crate) async fn drained(
        self: Box<Self>,
        wait: Duration,
        left: Option<Duration>,
    ) -> Box<Self> {
        match *self {
            Self::Response { response, body: None, redirected } => {
                let response = body::drain(response, wait, left).await;
                Box::new(Self::Response { response, body: None, redirected })
            }
            other => Box::new(other),
        }
    }

    /// Returns the result as it is judged.
    pub(crate) fn view<C: Chain<Error = E>>(&self) -> OutcomeResult<'_> {
        match self {
            Self::Response { response, body, redirected } => OutcomeResult::Response {
                status: response.status(),
                headers: response.headers(),
                url: response.url(),
                body: body.as_deref(),
                redirected: *redirected,
            },
            Self::Failed { failure, error, .. } => {
                OutcomeResult::Failure(*failure, C::as_error(error))
            }
            Self::Local { failure, error, .. } => OutcomeResult::Failure(*failure, error.as_ref()),
        }
    }
}

/// The reason why an attempt is not sent.
pub(crate) struct Rejection {
    pub(crate) kind: FailureKind,
    pub(crate) error: BoxError,
}

impl Rejection {
    /// Returns whether the fleet rejects, and not what this client found itself.
    pub(crate) fn is_of_fleet(&self) -> bool {
        let Self { error, .. } = self;
        error.downcast_ref::<CircuitOpen>().is_some_and(CircuitOpen::is_of_fleet)
            || error.downcast_ref::<RateLimited>().is_some_and(RateLimited::is_of_fleet)
    }

    /// Returns the stop reason of the request.
    pub(crate) fn stop(&self) -> StopReason {
        match self.kind {
            FailureKind::CircuitOpen => StopReason::CircuitOpen,
            FailureKind::RateLimited => StopReason::RateLimited,
            FailureKind::Limited => StopReason::Limited,
            _ => StopReason::Final,
        }
    }
}

/// The limits of one attempt.
pub(crate) struct AttemptLimits<'a> {
    pub(crate) policy: &'a Policy,
    /// The attempt's number.
    pub(crate) number: u32,
    pub(crate) now: Instant,
    /// The longest the attempt may take.
    pub(crate) timeout: Option<AttemptTimeout>,
    pub(crate) deadline: Option<Instant>,
    /// `true` if redirects that the client follows are to be noticed.
    pub(crate) watches_redirects: bool,
    /// `true` if the client is our own, whose redirect policy notes what it follows.
    pub(crate) is_own_client: bool,
    /// `true` if the attempt goes on until the first byte of the body.
    pub(crate) until_first_byte: bool,
}

/// Sends the request by `send`, with a body made for this attempt.
pub(crate) fn with_body<'a, C: Chain + 'a>(
    send: impl FnOnce(Request, &'a mut Extensions) -> BoxFuture<'a, Result<Response, C::Error>>
    + Send
    + 'a,
    request: Request,
    extensions: &'a mut Extensions,
    factory: BodyFactory,
) -> BoxFuture<'a, Result<Response, C::Error>> {
    Box::pin(async move {
        // Until it has a body nothing is sent, also if the attempt's time runs out meanwhile.
        not_sent::mark(extensions);
        let request = factory.fill(request).await;
        not_sent::forget(extensions);
        let request = request.map_err(|it| C::body_factory_error(BodyFactoryError(it)))?;
        send(request, extensions).await
    })
}

impl AttemptLimits<'_> {
    /// Writes the attempt's number and limits into the request. Returns whether there are other
    /// limits, so that it is not enough to send the request.
    #[inline]
    pub(crate) fn apply(&self, request: &mut Request) -> bool {
        let Self { policy, number, now, timeout, deadline, .. } = *self;
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
        // where there is none would replace, and maybe loosen, the client's. And `timeout_mut`
        // would allocate a place for it.
        if let (Some(own), Some(deadline)) = (request.timeout().copied(), deadline) {
            *request.timeout_mut() = Some(own.min(deadline.saturating_duration_since(now)));
        }
        timeout.is_some() || deadline.is_some() || self.does_more_than_send()
    }

    /// Returns whether the attempt is more than a request that is sent.
    fn does_more_than_send(&self) -> bool {
        self.watches_redirects || self.policy.read_body.is_some() || self.until_first_byte
    }
}

/// Runs one attempt within its limits.
pub(crate) async fn attempt<C: Chain>(
    sending: BoxFuture<'_, Result<Response, C::Error>>,
    limits: AttemptLimits<'_>,
) -> AttemptResult<C::Error> {
    let (limit, in_body) = (Limit::nearest(&limits), AtomicBool::new(false));
    let result = if limits.does_more_than_send() {
        // Boxed, because most attempts do not.
        within(limit, Box::pin(complete::<C>(sending, limits, &in_body))).await
    } else {
        within(limit, sending).await.map(|it| AttemptResult::of(it, false))
    };
    result.unwrap_or_else(|limit| AttemptResult::cut(limit, in_body.into_inner()))
}

/// Runs a future up to a limit; that is the error if it comes first.
pub(crate) async fn within<F: Future>(
    limit: Option<Limit>,
    sending: F,
) -> Result<F::Output, Limit> {
    match limit {
        None => Ok(sending.await),
        Some(limit) => tokio::time::timeout_at(limit.at, sending).await.map_err(|_| limit),
    }
}

/// Sends, watches for redirects, and reads the body, or its first byte, which it says in `in_body`.
async fn complete<C: Chain>(
    sending: BoxFuture<'_, Result<Response, C::Error>>,
    limits: AttemptLimits<'_>,
    in_body: &AtomicBool,
) -> AttemptResult<C::Error> {
    let (result, followed) = match limits.watches_redirects {
        true => redirect::watch(sending, limits.is_own_client).await,
        false => (sending.await, false),
    };
    let response = match result {
        Ok(response) => response,
        Err(error) => return AttemptResult::failed(error, followed, false),
    };
    in_body.store(true, Ordering::Relaxed);
    match read(response, &limits).await {
        Ok((response, body)) => AttemptResult::Response { response, body, redirected: followed },
        Err(ReadError::Failed(error)) => AttemptResult::failed(error.into(), followed, true),
        Err(ReadError::Stalled(it)) => AttemptResult::cut_by(FailureKind::Timeout, it, true),
    }
}

/// Reads as much of the body as the attempt is to wait for. Returns the bytes if that is all of them.
async fn read(
    response: Response,
    limits: &AttemptLimits<'_>,
) -> Result<(Response, Option<Bytes>), ReadError> {
    // Any other client has its own limits.
    let stall = limits.policy.stall_timeout.filter(|_| limits.is_own_client);
    let (response, body) = match limits.policy.read_body {
        Some(limit) => body::read(response, limit, stall).await?,
        None => (response, None),
    };
    match body {
        None if limits.until_first_byte && response.status().is_success() => {
            Ok((body::begin(response, stall).await?, None))
        }
        body => Ok((response, body)),
    }
}

/// The earlier limit: the attempt's or the whole request's.
pub(crate) struct Limit {
    at: Instant,
    kind: FailureKind,
    elapsed: Elapsed,
}

impl Limit {
    /// Builds the limit of an attempt that begins at `now`; none if it is too far away for the clock.
    #[inline]
    pub(crate) fn of_attempt(timeout: AttemptTimeout, now: Instant) -> Option<Self> {
        let AttemptTimeout { after, slack } = timeout;
        let elapsed = Elapsed { limit: TimeLimit::AttemptTimeout, after };
        let at = now.checked_add(after)?.checked_add(slack)?;
        Some(Self { at, kind: FailureKind::Timeout, elapsed })
    }

    fn nearest(terms: &AttemptLimits<'_>) -> Option<Self> {
        let AttemptLimits { policy, now, timeout, deadline, .. } = *terms;
        let attempt = timeout.and_then(|it| Self::of_attempt(it, now));
        let total = deadline.map(|at| {
            let after = policy.max_total_time.unwrap_or_default();
            let elapsed = Elapsed { limit: TimeLimit::MaxTotalTime, after };
            Self { at, kind: FailureKind::Deadline, elapsed }
        });
        // On a tie the whole request ends.
        match (attempt, total) {
            (Some(attempt), Some(total)) if attempt.at < total.at => Some(attempt),
            (attempt, total) => total.or(attempt),
        }
    }
}
