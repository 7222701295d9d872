//! Mistakes in the way a client is put together, each reported once by its client.

use std::fmt;

/// A mistake in the way a client is put together, as far as a middleware can see it.
///
/// `Display` says what to do. A [`Resilient`](crate::Resilient) and its clones report each mistake
/// once: by [`Event::Misuse`](crate::Event::Misuse), and with the feature `tracing` by a log line at
/// level warn, whether there are observers or not.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Event, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .on_event(|event| {
///         if let Event::Misuse(it) = event {
///             eprintln!("{it}");
///         }
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Misuse {
    /// A request has no known time limit: neither the settings nor the request has one. An attempt that
    /// hangs is never retried.
    ///
    /// The client inside may have a timeout, which a middleware cannot see.
    /// [`without_attempt_timeout`](crate::ResilientConfigBuilder::without_attempt_timeout) says so.
    NoAttemptTimeout,
    /// A request passed two `Resilient`s, and the inner one gave it up. The outer one does not retry
    /// it, so that attempts do not multiply.
    Stacked,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAttemptTimeout => {
                "no time limit is known, so that an attempt that hangs is never retried: set \
                 attempt_timeout, or without_attempt_timeout if the client inside has a timeout"
            }
            Self::Stacked => {
                "two Resilients in one client: the inner one alone retries, and breaker and budget \
                 of the outer one count its results again: remove one"
            }
        })
    }
}
