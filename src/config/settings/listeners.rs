//! Setters: callbacks and observers, and the sources that tests set.
//!
//! All listeners add up: those of the client come first, then those of a scope, then those of the
//! request, each in the order in which they were added.

use crate::config::ResilientConfigBuilder;
use crate::config::overrides::RetryOverride;
use crate::observe::event::{Event, FailureInfo, RequestInfo, ResponseInfo, RetryInfo};
use crate::observe::listeners::{Observer, OnEvent};

setters! {
    /// Calls `callback` before each attempt.
    ///
    /// Callbacks and [observers](Self::observer) add up: those of an override are called after the
    /// client's, and several of a kind in the order in which they were added. A panic in a callback
    /// is caught and changes nothing.
    fn on_request(callback: impl Fn(&RequestInfo<'_>) + Send + Sync + 'static) => listen(
        OnEvent(move |event: &Event<'_>| if let Event::AttemptStarted(info) = event { callback(info) })
    );

    /// Calls `callback` before each wait for another attempt.
    fn on_retry(callback: impl Fn(&RetryInfo<'_>) + Send + Sync + 'static) => listen(
        OnEvent(move |event: &Event<'_>| if let Event::Waiting(info) = event { callback(info) })
    );

    /// Calls `callback` once a request has succeeded.
    fn on_success(callback: impl Fn(&ResponseInfo<'_>) + Send + Sync + 'static) => listen(
        OnEvent(move |event: &Event<'_>| if let Event::Succeeded(info) = event { callback(info) })
    );

    /// Calls `callback` once a request has ended without success: every request ends in exactly one
    /// of `on_success` and `on_failure`, unless its future is dropped.
    fn on_failure(callback: impl Fn(&FailureInfo<'_>) + Send + Sync + 'static) => listen(
        OnEvent(move |event: &Event<'_>| if let Event::GaveUp(info) = event { callback(info) })
    );

    /// Calls `callback` at every [`Event`](crate::Event): an [`observer`](Self::observer) that is a
    /// closure.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::ResilientConfig;
    ///
    /// let config = ResilientConfig::builder().on_event(|event| eprintln!("{event}")).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    fn on_event(callback: impl Fn(&Event<'_>) + Send + Sync + 'static) => listen(OnEvent(callback));

    /// Adds an observer of every [`Event`](crate::Event), besides those there are. Clients share
    /// one by an `Arc`; a closure is added by [`on_event`](Self::on_event).
    fn observer(observer: impl Observer) => listen(observer);

    /// Sets the source of jitter: samples of the unit interval. For tests and simulations.
    #[cfg(feature = "test-util")]
    fn random(random: impl Fn() -> f64 + Send + Sync + 'static) => draw_from(std::sync::Arc::new(random));

    /// Sets the wall clock by which HTTP-dates are read. For tests and simulations.
    #[cfg(feature = "test-util")]
    fn wall_clock(
        clock: impl Fn() -> std::time::SystemTime + Send + Sync + 'static
    ) => read_clock(std::sync::Arc::new(clock));
}
