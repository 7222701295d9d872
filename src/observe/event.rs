//! Events: one type.

use std::{fmt, time::Duration};

use http::{Extensions, Method};

use crate::breaker::StateChange;
use crate::common::amount::Counted;
use crate::host::limit::LimitUse;
use crate::observe::info::{
    BudgetInfo, FailoverInfo, FleetInfo, GateInfo, HedgeInfo, HedgeRefusedInfo, HeldInfo,
    LimitInfo, QueueInfo, ResumeInfo,
};
use crate::observe::message::{Message, Reported};
use crate::observe::misuse::Misuse;
use crate::observe::redact::RedactedUrl;
use crate::outcome::{AttemptKind, Outcome};
use crate::retry::decision::{StopReason, WaitSource};

/// An event of a request. Listeners are notified in the order of events.
///
/// `Display` is a line for a log, without secrets.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| eprintln!("{event}"))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt is about to be sent.
    AttemptStarted(&'a RequestInfo<'a>),
    /// The request waits at the closed gate of its host, at an open circuit breaker, or for a token
    /// of the retry budget.
    HeldBack(&'a HeldInfo<'a>),
    /// The request waited for a concurrency or rate limit of the client.
    Queued(&'a QueueInfo<'a>),
    /// An attempt is slow, and a [hedge](crate::Hedge) is about to be sent beside it, which is an
    /// attempt, too: an [`AttemptStarted`](Self::AttemptStarted) follows.
    HedgeStarted(&'a HedgeInfo<'a>),
    /// An attempt is slow, but a hedge is refused. The attempt goes on.
    HedgeRefused(&'a HedgeRefusedInfo<'a>),
    /// An attempt lost the race with its hedge, or a hedge with its attempt: its outcome does not
    /// count. That is [`FailureKind::Superseded`](crate::FailureKind) if it was still under way, or
    /// else its own failure.
    Superseded(&'a Outcome<'a>),
    /// An attempt ended, with or without success: of those that raced, the one whose result counts.
    AttemptEnded(&'a Outcome<'a>),
    /// Breaker, gate or a limit rejected the request: nothing was sent. The outcome is the rejection, and
    /// its number that of the previous attempt.
    Rejected(&'a Outcome<'a>),
    /// This request changed the state of a circuit breaker. Reported once, by the request that did
    /// it, however many clients share the breaker; see [`Observer`](crate::Observer).
    BreakerChanged(&'a StateChange),
    /// The fleet's breaker of a host changed, as this node sees it. Reported once, by the first request
    /// that sees it; a host without requests has no such events.
    FleetChanged(&'a FleetInfo<'a>),
    /// The outcome changed the adaptive concurrency limit of the host. Reported once, by the request
    /// that did it.
    LimitChanged(&'a LimitInfo<'a>),
    /// The response closed the gate of the host, or keeps it closed for longer.
    GateClosed(&'a GateInfo<'a>),
    /// The retry budget had nothing left.
    BudgetRefused(&'a BudgetInfo<'a>),
    /// A wait begins, after which the request is sent again.
    Waiting(&'a RetryInfo<'a>),
    /// The next attempt goes to another endpoint of the request's [`Mirrors`](crate::Mirrors).
    FailedOver(&'a FailoverInfo<'a>),
    /// A download broke off, and goes on after a wait: with the rest, or from zero.
    Resuming(&'a ResumeInfo<'a>),
    /// The request succeeded.
    Succeeded(&'a ResponseInfo<'a>),
    /// The request ended without success.
    GaveUp(&'a FailureInfo<'a>),
    /// The settings of a client were replaced; see [`ResilientHandle`](crate::ResilientHandle).
    /// Observers of the old settings receive it first, then those of the new ones, each once.
    Reloaded,
    /// The client is put together in a way that does not do what it seems to; reported once.
    Misuse(Misuse),
}

impl<'a> Event<'a> {
    /// Returns the method and the URL of the request; `None` for
    /// [`BreakerChanged`](Self::BreakerChanged), [`FleetChanged`](Self::FleetChanged),
    /// [`Reloaded`](Self::Reloaded) and [`Misuse`](Self::Misuse), which concern more than one.
    pub fn request(&self) -> Option<(&'a Method, RedactedUrl<'a>)> {
        Some(match *self {
            Self::AttemptStarted(it) => (it.method, it.url),
            Self::HeldBack(it) => (it.method, it.url),
            Self::Queued(it) => (it.method, it.url),
            Self::LimitChanged(it) => (it.method, it.url),
            Self::HedgeStarted(it) => (it.method, it.url),
            Self::HedgeRefused(it) => (it.method, it.url),
            Self::AttemptEnded(it) | Self::Rejected(it) | Self::Superseded(it) => {
                (it.method, RedactedUrl::new(it.url, it.redact_path))
            }
            Self::BreakerChanged(_) | Self::FleetChanged(_) | Self::Reloaded | Self::Misuse(_) => {
                return None;
            }
            Self::GateClosed(it) => (it.method, it.url),
            Self::BudgetRefused(it) => (it.method, it.url),
            Self::Waiting(it) => (it.method, it.url),
            Self::FailedOver(it) => (it.method, it.url),
            Self::Resuming(it) => (it.method, it.url),
            Self::Succeeded(it) => (it.method, it.url),
            Self::GaveUp(it) => (it.method, it.url),
        })
    }
}

/// `GET https://example.com/: attempt 2 in 0.600s by backoff, after status 503`
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |it: Duration| it.as_secs_f64();
        let attempts = |it| Counted(it, "attempt");
        if let (Some((method, url)), false) = (self.request(), matches!(self, Self::GaveUp(_))) {
            write!(f, "{method} {url}: ")?;
        }
        match self {
            Self::AttemptStarted(it) if it.kind == AttemptKind::Hedge => {
                write!(f, "attempt {}, a hedge", it.attempt)
            }
            Self::AttemptStarted(it) => {
                // Hedges are attempts beside those.
                let most = it.max_retries.saturating_add(1).max(it.attempt);
                write!(f, "attempt {} of {most} at most", it.attempt)
            }
            Self::HeldBack(it) => {
                write!(f, "held back for {:.3}s by {}", seconds(it.wait), it.source)
            }
            Self::Queued(it) => {
                write!(f, "waited {:.3}s for the {}", seconds(it.waited), it.source)
            }
            Self::LimitChanged(it) => {
                write!(f, "concurrency limit from {} to {}", it.from, it.to)
            }
            Self::AttemptEnded(it) => {
                write!(f, "attempt {} gave {it} after {:.3}s", it.attempt, seconds(it.elapsed))
            }
            Self::HedgeStarted(it) => {
                write!(f, "hedged by attempt {} after {:.3}s", it.attempt, seconds(it.delay))
            }
            Self::HedgeRefused(it) => {
                write!(f, "no hedge after {:.3}s: {}", seconds(it.delay), it.why)
            }
            Self::Superseded(it) => {
                write!(
                    f,
                    "attempt {} lost the race after {:.3}s: {it}",
                    it.attempt,
                    seconds(it.elapsed)
                )
            }
            Self::Rejected(it) => {
                write!(f, "rejected after {}: {it}", attempts(it.attempt))
            }
            Self::BreakerChanged(it) => it.fmt(f),
            Self::FleetChanged(it) => it.fmt(f),
            Self::GateClosed(it) => {
                write!(f, "gate closed for {:.3}s", seconds(it.closed_for))
            }
            Self::BudgetRefused(it) => {
                write!(f, "no retry after {}: budget at {:.2}", attempts(it.attempts), it.tokens)
            }
            Self::Waiting(it) => {
                let (attempt, wait) = (it.attempt, seconds(it.wait));
                write!(f, "attempt {attempt} in {wait:.3}s by {}, after {}", it.source, it.outcome)
            }
            Self::FailedOver(it) => write!(f, "attempt {} is here, after {}", it.attempt, it.from),
            Self::Resuming(it) => {
                write!(f, "download broke off at byte {}", it.received)?;
                let how = if it.restarts { "starts over" } else { "goes on" };
                write!(f, ", {how} in {:.3}s", seconds(it.wait))
            }
            Self::Succeeded(it) => {
                let (attempts, elapsed) = (attempts(it.attempts), seconds(it.elapsed));
                write!(f, "success after {attempts} in {elapsed:.3}s: {}", it.outcome)
            }
            Self::GaveUp(it) => it.fmt(f),
            Self::Reloaded => f.write_str("settings reloaded"),
            Self::Misuse(it) => it.fmt(f),
        }
    }
}

/// An attempt about to be sent.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_request(|it| println!("{} {}, attempt {}", it.method, it.url, it.attempt))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of this attempt, counted from 1.
    pub attempt: u32,
    /// The reason why it is sent.
    pub kind: AttemptKind,
    /// The most retries this request may have.
    pub max_retries: u32,
    /// The use of the concurrency limit, if there is one: this attempt included.
    pub limit: Option<LimitUse>,
    /// The extensions of this attempt, with what the caller and other middleware put there.
    pub extensions: &'a Extensions,
    /// The base URL of the endpoint that is asked, of those that [`Mirrors`](crate::Mirrors) name.
    pub endpoint: Option<RedactedUrl<'a>>,
}

/// A wait before the next attempt.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_retry(|it| eprintln!("{}: {}, again in {:?} by {}", it.url, it.outcome, it.wait, it.source))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of the attempt that comes after the wait: 2 for the first retry.
    pub attempt: u32,
    /// The most retries this request may have.
    pub max_retries: u32,
    /// The length of the wait, jitter included.
    pub wait: Duration,
    /// The source of the wait's length.
    pub source: &'a WaitSource,
    /// The tokens left in the budget after this retry, if there is a budget. `None` where the next
    /// attempt goes to another endpoint, whose budget pays.
    pub tokens: Option<f64>,
    /// The outcome of the previous attempt.
    pub outcome: &'a Outcome<'a>,
}

/// A request that succeeded.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_success(|it| println!("{}: {:?}, {} attempts", it.url, it.elapsed, it.attempts))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of attempts.
    pub attempts: u32,
    /// The most retries this request might have had.
    pub max_retries: u32,
    /// The duration of the request, waits included.
    pub elapsed: Duration,
    /// The tokens in the budget, if there is one, with the deposit of this success.
    pub tokens: Option<f64>,
    /// The outcome of the last attempt.
    pub outcome: &'a Outcome<'a>,
}

/// A request that ended without success. `Display` is the message of the error.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_failure(|it| eprintln!("{it} ({})", it.stop_reason))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailureInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URL.
    pub url: RedactedUrl<'a>,
    /// The number of attempts so far.
    pub attempts: u32,
    /// The most retries this request might have had.
    pub max_retries: u32,
    /// The duration of the request, waits included.
    pub elapsed: Duration,
    /// The reason why no further attempt is made.
    pub stop_reason: StopReason,
    /// `true` if an earlier attempt may have been applied; see
    /// [`History::may_have_been_applied`](crate::History::may_have_been_applied).
    pub may_have_been_applied: bool,
    /// The outcome of the last attempt.
    pub outcome: &'a Outcome<'a>,
}

impl fmt::Display for FailureInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, stop_reason: stop, attempts, outcome, .. } = *self;
        let (cause, maybe_applied) = (Reported::from(outcome), self.may_have_been_applied);
        let message = Message { method, url, stop, attempts, cause, maybe_applied };
        // Nothing else shows the chain of sources.
        write!(f, "{message:#}")
    }
}
