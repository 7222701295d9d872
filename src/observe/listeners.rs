//! The listeners of a request: callbacks, observers, and their scopes around attempts.

use std::collections::HashSet;
use std::future::poll_fn;
use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::{pin::Pin, sync::Arc};

use crate::observe::event::{Event, RequestInfo};
use crate::outcome::Outcome;

/// A listener to every [`Event`]. For a closure there is
/// [`on_event`](crate::ResilientConfigBuilder::on_event).
///
/// Called on the task that makes the request, with no lock held: it must be fast. A panic is caught
/// and changes nothing.
///
/// # Circuit breakers
///
/// The request that changes a breaker's state notifies its own observers. Clients that share a
/// breaker should therefore share their observers too, by an `Arc`. A change by hand has no
/// request: forward it if it matters.
///
/// ```
/// use std::sync::Arc;
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
/// let log = Arc::new(Log);
/// let config = ResilientConfig::builder().observer(Arc::clone(&log)).build()?;
/// let resilient = Resilient::new(config);
/// resilient.hosts().on_state_change(move |change| {
///     if change.why == ChangeReason::Manual {
///         log.on_event(&Event::BreakerChanged(change));
///     }
/// });
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Handles one event.
    fn on_event(&self, event: &Event<'_>);

    /// Returns a scope around an attempt, such as a span. `None`, the default, costs nothing.
    ///
    /// Called after [`Event::AttemptStarted`].
    fn around_attempt(&self, info: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        let _ = info;
        None
    }

    /// Returns the address of the observer itself, by which an `Arc` of it is the same one.
    #[doc(hidden)]
    fn address(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }
}

/// The observer that the clients share.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }

    fn around_attempt(&self, info: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        (**self).around_attempt(info)
    }

    fn address(&self) -> *const () {
        (**self).address()
    }
}

/// An observer that is a function.
pub(crate) struct OnEvent<F>(pub(crate) F);

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for OnEvent<F> {
    fn on_event(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}

/// A scope that an [`Observer`] puts around one attempt: inner middleware and client run inside it.
///
/// Dropped without [`end`](Self::end) if the caller drops the request's future, which is no
/// failure.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{AttemptScope, Event, Observer, Outcome, RequestInfo};
///
/// /// Prints how each attempt ends.
/// struct Printed;
///
/// impl AttemptScope for Printed {
///     fn run(&self, step: &mut dyn FnMut()) {
///         step();
///     }
///
///     fn end(&self, outcome: &Outcome<'_>) {
///         println!("{outcome}");
///     }
/// }
///
/// struct Printer;
///
/// impl Observer for Printer {
///     fn on_event(&self, _: &Event<'_>) {}
///
///     fn around_attempt(&self, _: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
///         Some(Box::new(Printed))
///     }
/// }
/// ```
pub trait AttemptScope: Send + Sync {
    /// Runs one step of the attempt, by calling `step` once. An attempt has several, maybe on
    /// different threads.
    fn run(&self, step: &mut dyn FnMut());

    /// Ends the scope: the attempt has this outcome.
    fn end(&self, outcome: &Outcome<'_>);
}

/// The listeners of a request.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

impl Listeners {
    /// Adds the listeners of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.observers.extend(other.observers.iter().cloned());
    }

    /// Returns whether there are no listeners.
    pub(crate) fn is_empty(&self) -> bool {
        self.observers.is_empty()
    }

    /// Notifies all listeners. A listener cannot disturb the request: its panic is caught.
    pub(crate) fn notify(&self, event: &Event<'_>) {
        for observer in &self.observers {
            isolated(|| observer.on_event(event));
        }
    }

    /// Notifies each of the observers in `all` once.
    pub(crate) fn notify_each_once<'a>(all: impl Iterator<Item = &'a Self>, event: &Event<'_>) {
        // An `Arc` of a type without size has an address of its own as well.
        let mut notified = HashSet::new();
        let observers = all.flat_map(|it| &it.observers);
        observers.filter(|it| notified.insert(it.address())).for_each(|it| {
            isolated(|| it.on_event(event));
        });
    }

    /// Returns the scopes that observers put around an attempt.
    pub(crate) fn scopes(&self, info: &RequestInfo<'_>) -> Scopes {
        let mut scopes = vec![];
        for observer in &self.observers {
            isolated(|| scopes.extend(observer.around_attempt(info)));
        }
        Scopes(scopes)
    }
}

/// The scopes around an attempt, the outermost first.
#[derive(Default)]
pub(crate) struct Scopes(Vec<Box<dyn AttemptScope>>);

impl Scopes {
    /// Wraps the attempt in all of them.
    pub(crate) fn around<P: DerefMut<Target: Future> + Unpin>(
        &self,
        mut attempt: Pin<P>,
    ) -> impl Future<Output = <P::Target as Future>::Output> {
        poll_fn(move |context| match &*self.0 {
            [] => attempt.as_mut().poll(context),
            scopes => within(scopes, &mut || attempt.as_mut().poll(context)),
        })
    }

    /// Returns whether there are none.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends all of them: the attempt has this outcome.
    pub(crate) fn end(&mut self, outcome: &Outcome<'_>) {
        // The innermost first, like nested scopes.
        while let Some(scope) = self.0.pop() {
            isolated(move || scope.end(outcome));
        }
    }
}

/// Runs one step inside of `scopes`. It runs exactly once, whatever they do, and a panic in it
/// unwinds as if they were absent.
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
