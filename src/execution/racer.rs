//! The racers of one turn: an attempt and its hedges, under way or failed.

use std::{
    array,
    error::Error,
    fmt,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::ClientWithMiddleware;

use crate::common::clock::Instant;
use crate::execution::attempt::{self, AttemptLimits, AttemptResult, Chain};
use crate::execution::body::{BodyFactory, BoxFuture};
use crate::execution::decide::Judged;
use crate::execution::other_endpoint::OtherEndpoint;
use crate::host::hedging::HedgePermit;
use crate::observe::listeners::Scopes;
use crate::outcome::statuses::Statuses;
use crate::outcome::{AttemptKind, FailureKind};

/// The most racers: an attempt and four hedges.
pub(super) const MOST: usize = 5;

/// The racers of one turn, in the order of their sends.
pub(super) struct Racers<'p, 'a, E>(pub(super) [Option<Racer<'p, 'a, E>>; MOST]);

/// An attempt or a hedge.
pub(super) struct Racer<'p, 'a, E> {
    pub(super) attempt: (u32, AttemptKind),
    pub(super) started: Instant,
    /// Of a hedge; that of the attempt is the request's.
    pub(super) permit: Option<HedgePermit<'p>>,
    /// Of a hedge that is sent to another endpoint than its attempt.
    pub(super) other: Option<Box<OtherEndpoint<'p>>>,
    /// Set if the end of its chain records what is sent.
    pub(super) records: bool,
    pub(super) run: Run<'a, E>,
}

pub(super) enum Run<'a, E> {
    /// Of the attempt itself, whose future is in that of the race: most attempts are alone.
    Own,
    UnderWay(BoxFuture<'a, Finish<E>>),
    /// With a result that another one may better.
    Failed(Box<Failed<E>>),
    /// Dropped, because another one has won.
    Dropped,
}

pub(super) struct Failed<E> {
    pub(super) finish: Finish<E>,
    pub(super) judged: Judged,
    pub(super) at: Instant,
    /// Set for a 404 that another endpoint may not give.
    pub(super) is_missing: bool,
}

impl<E> Failed<E> {
    pub(super) fn is_response(&self) -> bool {
        matches!(self.finish.result, AttemptResult::Response { .. })
    }
}

/// The end of a racer.
pub(super) struct Finish<E> {
    pub(super) result: AttemptResult<E>,
    pub(super) extensions: Extensions,
    pub(super) scopes: Scopes,
}

/// The racer whose result counts.
pub(super) struct Winner<E> {
    pub(super) at: usize,
    pub(super) finish: Finish<E>,
    /// The time at which it ended: before the race did, if it failed and none was better.
    pub(super) ended: Instant,
    /// `None` if it was alone.
    pub(super) judged: Option<Box<Judged>>,
}

impl<'p, 'a, E> Racers<'p, 'a, E> {
    pub(super) fn new(first: Racer<'p, 'a, E>) -> Self {
        let mut racers = array::from_fn(|_| None);
        racers[0] = Some(first);
        Self(racers)
    }

    pub(super) fn push(&mut self, racer: Racer<'p, 'a, E>) {
        if let Some(free) = self.0.iter_mut().find(|it| it.is_none()) {
            *free = Some(racer);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Racer<'p, 'a, E>> {
        self.0.iter().flatten()
    }

    pub(super) fn hedges(&self) -> usize {
        self.all().count() - 1
    }

    /// Returns the first one that ends, with its place. `own` is the future of the attempt itself.
    pub(super) fn poll<F: Future<Output = Finish<E>>>(
        &mut self,
        mut own: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, Finish<E>)> {
        for (at, racer) in self.0.iter_mut().flatten().enumerate() {
            let polled = match &mut racer.run {
                Run::Own => own.as_mut().as_pin_mut().map(|it| it.poll(cx)),
                Run::UnderWay(run) => Some(run.as_mut().poll(cx)),
                Run::Failed(_) | Run::Dropped => None,
            };
            if let Some(Poll::Ready(finish)) = polled {
                racer.run = Run::Dropped;
                return Poll::Ready((at, finish));
            }
        }
        Poll::Pending
    }

    /// Returns whether one has failed with a response.
    pub(super) fn have_response(&self) -> bool {
        self.all().any(|it| matches!(&it.run, Run::Failed(it) if it.is_response()))
    }

    /// Returns whether one is under way.
    pub(super) fn are_under_way(&self) -> bool {
        self.all().any(|it| matches!(it.run, Run::Own | Run::UnderWay(_)))
    }
}

/// Runs one racer within its limits and scopes.
pub(super) fn run<'a, C: Chain + 'a>(
    way: Way<C>,
    mut request: Request,
    mut extensions: Extensions,
    scopes: Scopes,
    limits: AttemptLimits<'a>,
) -> impl Future<Output = Finish<C::Error>> + Send + 'a {
    let is_bounded = limits.apply(&mut request) || !scopes.are_none();
    async move {
        let factory = extensions.get::<BodyFactory>().cloned();
        let sending = match factory {
            None => way.send(request, &mut extensions),
            Some(factory) => {
                let send = |it, extensions| way.send(it, extensions);
                attempt::with_body::<C>(send, request, &mut extensions, factory)
            }
        };
        let result = match is_bounded {
            false => AttemptResult::of(sending.await, false),
            true => {
                let attempt = pin!(attempt::attempt::<C>(sending, limits));
                scopes.around(attempt).await
            }
        };
        Finish { result, extensions, scopes }
    }
}

/// Returns whether the time of a result is a latency: of a response that is not retried, or of a
/// timeout, which tells how slow it was at least. Failures are quick for reasons of their own.
pub(super) fn is_sample<E>(result: &AttemptResult<E>, retried: &Statuses) -> bool {
    match result {
        AttemptResult::Response { response, .. } => {
            let status = response.status();
            status.as_u16() < 500 && !retried.contains(status)
        }
        AttemptResult::Failed { failure, .. } | AttemptResult::Local { failure, .. } => {
            failure.kind == FailureKind::Timeout
        }
    }
}

/// The way of a racer: down the chain, or through the client that hedges are sent by.
pub(super) enum Way<C> {
    Chain(C),
    Client(ClientWithMiddleware),
}

impl<C: Chain> Way<C> {
    fn send<'a>(
        self,
        request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, C::Error>>
    where
        C: 'a,
    {
        match self {
            Self::Chain(chain) => chain.send(request, extensions),
            Self::Client(client) => Box::pin(async move {
                let sent = client.execute_with_extensions(request, extensions).await;
                sent.map_err(C::of_other_client)
            }),
        }
    }
}

/// The error of a racer that was dropped.
#[derive(Debug)]
pub(super) struct Superseded;

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another attempt of the same request was quicker")
    }
}

impl Error for Superseded {}
