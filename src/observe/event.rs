//! What is told: one event type, the four callbacks as views of it, and what observers put around
//! attempts.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::{fmt, sync::Arc, time::Duration};

use http::Method;

use crate::breaker::StateChange;
use crate::observe::message::{Attempts, Message, Reported};
use crate::observe::redact::RedactedUrl;
use crate::outcome::Outcome;
use crate::retry::decision::{StopReason, WaitSource};

/// Something that happened to a request, in the order in which it happened.
///
/// `Display` is a line for a log, without secrets.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt is about to be sent.
    AttemptStarted(&'a RequestInfo<'a>),
    /// The gate of the host is closed, and the request waits there.
    HeldBack(&'a HeldInfo<'a>),
    /// An attempt ended, one way or the other.
    AttemptEnded(&'a Outcome<'a>),
    /// Breaker or gate refused to let the request through: nothing was sent. The outcome is that
    /// refusal, and its number that of the attempt before.
    Rejected(&'a Outcome<'a>),
    /// A circuit breaker changed its state by this request's doing. RequestIdentity once, by the request that
    /// did it, however many clients share the breaker; see [`Observer`].
    BreakerChanged(&'a StateChange),
    /// The answer closed the gate of the host, or keeps it closed for longer.
    GateClosed(&'a GateInfo<'a>),
    /// The retry budget had nothing left.
    BudgetRefused(&'a BudgetInfo<'a>),
    /// A wait begins, after which the request is sent again.
    Waiting(&'a RetryInfo<'a>),
    /// The request succeeded.
    Succeeded(&'a ResponseInfo<'a>),
    /// The request ended without success.
    GaveUp(&'a FailureInfo<'a>),
}

impl<'a> Event<'a> {
    /// The method and the url of the request; `None` for [`BreakerChanged`](Self::BreakerChanged),
    /// which is about more than one.
    pub fn request(&self) -> Option<(&'a Method, RedactedUrl<'a>)> {
        Some(match *self {
            Self::AttemptStarted(it) => (it.method, it.url),
            Self::HeldBack(it) => (it.method, it.url),
            Self::AttemptEnded(it) | Self::Rejected(it) => {
                (it.method, RedactedUrl::new(it.url, it.redact_path))
            }
            Self::BreakerChanged(_) => return None,
            Self::GateClosed(it) => (it.method, it.url),
            Self::BudgetRefused(it) => (it.method, it.url),
            Self::Waiting(it) => (it.method, it.url),
            Self::Succeeded(it) => (it.method, it.url),
            Self::GaveUp(it) => (it.method, it.url),
        })
    }
}

/// `GET https://example.com/: attempt 2 in 0.600s by backoff, after status 503`
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |it: Duration| it.as_secs_f64();
        if let (Some((method, url)), false) = (self.request(), matches!(self, Self::GaveUp(_))) {
            write!(f, "{method} {url}: ")?;
        }
        match self {
            Self::AttemptStarted(it) => {
                let most = it.max_retries.saturating_add(1);
                write!(f, "attempt {} of {most} at most", it.attempt)
            }
            Self::HeldBack(it) => {
                write!(f, "held back for {:.3}s by {}", seconds(it.wait), it.source)
            }
            Self::AttemptEnded(it) => {
                write!(f, "attempt {} gave {it} after {:.3}s", it.attempt, seconds(it.elapsed))
            }
            Self::Rejected(it) => write!(f, "rejected after {}: {it}", Attempts(it.attempt)),
            Self::BreakerChanged(it) => it.fmt(f),
            Self::GateClosed(it) => {
                write!(f, "gate closed for {:.3}s", seconds(it.closed_for))
            }
            Self::BudgetRefused(it) => {
                write!(f, "no retry after {}: budget at {:.2}", Attempts(it.attempts), it.tokens)
            }
            Self::Waiting(it) => {
                let (attempt, wait) = (it.attempt, seconds(it.wait));
                write!(f, "attempt {attempt} in {wait:.3}s by {}, after {}", it.source, it.outcome)
            }
            Self::Succeeded(it) => {
                let (attempts, elapsed) = (Attempts(it.attempts), seconds(it.elapsed));
                write!(f, "success after {attempts} in {elapsed:.3}s: {}", it.outcome)
            }
            Self::GaveUp(it) => it.fmt(f),
        }
    }
}

/// Takes every [`Event`]. Any `Fn(&Event<'_>)` is one.
///
/// Called on the task that makes the request, with no lock held: be quick. A panic is caught and
/// changes nothing.
///
/// # Circuit breakers
///
/// The request that changes a breaker's state tells its own observers. Clients that share a
/// breaker should therefore share their observers too. A change by hand has no request: where it
/// matters, pass it on.
///
/// ```
/// use reqwest_resilient::{ChangeReason, Event, Observer, Resilient, ResilientConfig};
///
/// struct Log;
///
/// impl Observer for Log {
///     fn on_event(&self, event: &Event<'_>) {
///         eprintln!("{event}");
///     }
/// }
///
/// let resilient = Resilient::new(ResilientConfig::builder().observer(Log).build()?);
/// resilient.hosts().on_state_change(|change| {
///     if change.why == ChangeReason::Manual {
///         Log.on_event(&Event::BreakerChanged(change));
///     }
/// });
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Takes one event.
    fn on_event(&self, event: &Event<'_>);

    /// Puts something around an attempt, such as a span. `None`, the default, costs nothing.
    ///
    /// Called after [`Event::AttemptStarted`] was told.
    fn around_attempt(&self, info: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        let _ = info;
        None
    }
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// What an [`Observer`] puts around one attempt: everything further in runs inside it.
///
/// Dropped without [`end`](Self::end) if the caller drops the request's future, which is no
/// failure of anybody.
pub trait AttemptScope: Send + Sync {
    /// Runs one step of the attempt, by calling `step` once. An attempt takes several, maybe on
    /// different threads.
    fn run(&self, step: &mut dyn FnMut());

    /// The attempt is over.
    fn end(&self, outcome: &Outcome<'_>);
}

/// An attempt about to be sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// The number of this attempt, counted from 1.
    pub attempt: u32,
    /// The most retries this request may have.
    pub max_retries: u32,
}

/// A wait before an attempt: at the closed gate of a host, at an open circuit breaker, or for a token
/// of the retry budget.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HeldInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How long the wait is at least, as far as it is known when it begins: until the gate opens or
    /// the breaker lets a probe through. Zero where it depends on another request: on a probe under
    /// way, or on a retry that earns the token.
    pub wait: Duration,
    /// What the request waits for.
    pub source: &'a WaitSource,
}

/// A gate that an answer closed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GateInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How long it stays closed from now on.
    pub closed_for: Duration,
}

/// A retry that the budget does not pay for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BudgetInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How many attempts were made.
    pub attempts: u32,
    /// What is left in the budget: less than one retry.
    pub tokens: f64,
}

/// A wait before the next attempt.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// The number of the attempt that comes after the wait: 2 for the first retry.
    pub attempt: u32,
    /// The most retries this request may have.
    pub max_retries: u32,
    /// How long the wait is, jitter included.
    pub wait: Duration,
    /// Where the length of the wait came from.
    pub source: &'a WaitSource,
    /// How many retries are left in the budget after this one, if there is a budget.
    pub tokens: Option<f64>,
    /// What the attempt before it gave.
    pub outcome: &'a Outcome<'a>,
}

/// A request that succeeded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResponseInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How many attempts it took.
    pub attempts: u32,
    /// The most retries this request might have had.
    pub max_retries: u32,
    /// How long the request took, waits included.
    pub elapsed: Duration,
    /// How many retries are in the budget, if there is one; this success has paid in.
    pub tokens: Option<f64>,
    /// What the last attempt gave.
    pub outcome: &'a Outcome<'a>,
}

/// A request that ended without success. `Display` is the message of the error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailureInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The most retries this request might have had.
    pub max_retries: u32,
    /// How long the request took, waits included.
    pub elapsed: Duration,
    /// Why no further attempt is made.
    pub stop_reason: StopReason,
    /// Whether an earlier attempt may have been applied; see
    /// [`History::may_have_been_applied`](crate::History::may_have_been_applied).
    pub may_have_been_applied: bool,
    /// What the last attempt gave.
    pub outcome: &'a Outcome<'a>,
}

impl fmt::Display for FailureInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, stop_reason: stop, attempts, outcome, .. } = *self;
        let (cause, maybe_applied) = (Reported::from(outcome), self.may_have_been_applied);
        let message = Message { method, url, stop, attempts, cause, maybe_applied };
        // There is no chain of sources beside it.
        write!(f, "{message:#}")
    }
}

pub(crate) type OnRequest = Arc<dyn Fn(&RequestInfo<'_>) + Send + Sync>;
pub(crate) type OnRetry = Arc<dyn Fn(&RetryInfo<'_>) + Send + Sync>;
pub(crate) type OnSuccess = Arc<dyn Fn(&ResponseInfo<'_>) + Send + Sync>;
pub(crate) type OnFailure = Arc<dyn Fn(&FailureInfo<'_>) + Send + Sync>;

/// Whoever listens to a request.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) on_request: Option<OnRequest>,
    pub(crate) on_retry: Option<OnRetry>,
    pub(crate) on_success: Option<OnSuccess>,
    pub(crate) on_failure: Option<OnFailure>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

impl Listeners {
    /// Takes over what `other` sets: its callbacks replace, its observers join.
    pub(crate) fn add(&mut self, other: &Self) {
        fn replace<T: Clone>(target: &mut Option<T>, with: &Option<T>) {
            if with.is_some() {
                target.clone_from(with);
            }
        }
        replace(&mut self.on_request, &other.on_request);
        replace(&mut self.on_retry, &other.on_retry);
        replace(&mut self.on_success, &other.on_success);
        replace(&mut self.on_failure, &other.on_failure);
        self.observers.extend(other.observers.iter().cloned());
    }

    /// Whether nobody listens, so that nothing need be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.observers.is_empty()
            && self.on_request.is_none()
            && self.on_retry.is_none()
            && self.on_success.is_none()
            && self.on_failure.is_none()
    }

    /// Tells everyone. A listener cannot change what happens: its panic is caught.
    pub(crate) fn notify(&self, event: &Event<'_>) {
        match event {
            Event::AttemptStarted(info) => {
                isolated(|| self.on_request.iter().for_each(|it| it(info)));
            }
            Event::Waiting(info) => isolated(|| self.on_retry.iter().for_each(|it| it(info))),
            Event::Succeeded(info) => isolated(|| self.on_success.iter().for_each(|it| it(info))),
            Event::GaveUp(info) => isolated(|| self.on_failure.iter().for_each(|it| it(info))),
            _ => {}
        }
        for observer in &self.observers {
            isolated(|| observer.on_event(event));
        }
    }

    /// What observers put around an attempt.
    pub(crate) fn scopes(&self, info: &RequestInfo<'_>) -> Scopes {
        let mut scopes = vec![];
        for observer in &self.observers {
            isolated(|| scopes.extend(observer.around_attempt(info)));
        }
        Scopes(scopes)
    }
}

/// What is around an attempt, the outermost first.
#[derive(Default)]
pub(crate) struct Scopes(Vec<Box<dyn AttemptScope>>);

impl Scopes {
    /// The attempt, inside of all of them.
    pub(crate) fn around<F: Future>(
        &self,
        mut attempt: Pin<Box<F>>,
    ) -> impl Future<Output = F::Output> {
        poll_fn(move |context| match &*self.0 {
            [] => attempt.as_mut().poll(context),
            scopes => within(scopes, &mut || attempt.as_mut().poll(context)),
        })
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The attempt is over, and so are they.
    pub(crate) fn end(&mut self, outcome: &Outcome<'_>) {
        // The innermost first, as they would go out of scope.
        while let Some(scope) = self.0.pop() {
            isolated(move || scope.end(outcome));
        }
    }
}

/// Takes one step inside of `scopes`. It is taken once, whatever they do, and a panic in it is the
/// caller's as if they were not there.
fn within<T>(scopes: &[Box<dyn AttemptScope>], step: &mut dyn FnMut() -> T) -> T {
    let [scope, inner @ ..] = scopes else { return step() };
    let mut result = None;
    isolated(|| {
        scope.run(&mut || {
            if result.is_none() {
                result = Some(catch_unwind(AssertUnwindSafe(|| within(inner, step))));
            }
        });
    });
    match result {
        Some(Ok(result)) => result,
        Some(Err(panic)) => resume_unwind(panic),
        None => within(inner, step),
    }
}

fn isolated(call: impl FnOnce()) {
    // The panic hook has already reported it.
    let _ = catch_unwind(AssertUnwindSafe(call));
}
