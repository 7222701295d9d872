//! What is told: one event type, and the four callbacks as views of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, sync::Arc, time::Duration};

use http::Method;

use crate::decision::{StopReason, WaitSource};
use crate::error::{Message, Reported};
use crate::outcome::Outcome;
use crate::redact::RedactedUrl;

/// Something that happened to a request, in the order in which it happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt is about to be sent.
    AttemptStarted(&'a RequestInfo<'a>),
    /// The gate of the host is closed, and the request waits there.
    HeldBack(&'a HeldInfo<'a>),
    /// An attempt ended, one way or the other.
    AttemptEnded(&'a Outcome<'a>),
    /// A wait begins, after which the request is sent again.
    Waiting(&'a RetryInfo<'a>),
    /// The request succeeded.
    Succeeded(&'a ResponseInfo<'a>),
    /// The request ended without success.
    GaveUp(&'a FailureInfo<'a>),
}

/// Takes every [`Event`]. Any `Fn(&Event<'_>)` is one.
///
/// Called on the task that makes the request, with no lock held: be quick. A panic is caught and
/// changes nothing.
pub trait Observer: Send + Sync + 'static {
    /// Takes one event.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
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

/// A wait at the closed gate of a host.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HeldInfo<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's url.
    pub url: RedactedUrl<'a>,
    /// How long the wait is, the spread after the opening included.
    pub wait: Duration,
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
    /// What the last attempt gave.
    pub outcome: &'a Outcome<'a>,
}

impl fmt::Display for FailureInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, stop_reason: stop, attempts, outcome, .. } = *self;
        Message { method, url: &url, stop, attempts, cause: Reported::from(outcome) }.fmt(f)
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
    pub(crate) fn tell(&self, event: &Event<'_>) {
        match event {
            Event::AttemptStarted(info) => {
                isolated(|| self.on_request.iter().for_each(|it| it(info)))
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
}

fn isolated(call: impl FnOnce()) {
    // The panic hook has already reported it.
    let _ = catch_unwind(AssertUnwindSafe(call));
}
