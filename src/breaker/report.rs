//! The ticket of an admitted call, and its report.

use std::time::Duration;

use crate::common::clock::Instant;

/// The health of the service, as one call found it.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Health, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .breaker_health(|outcome| match outcome.status().map(|it| it.as_u16()) {
///         // This server says 404 while it starts.
///         Some(404) => Some(Health::Failure),
///         _ => outcome.default_health(),
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The service did its work, though the response may be a refusal such as 404.
    Success,
    /// The service did not do its work.
    Failure,
    /// The service is up and asks for fewer requests (429, or a 403 that is a rate limit). It is
    /// evidence neither of health nor of failure, so the breaker ignores it; a throttled probe only
    /// frees its place.
    Throttled,
}

/// Proof of admission: by which generation, and at which moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) entered: Instant,
}

/// The result of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) health: Health,
    pub(crate) retry_after: Option<Duration>,
    /// `true` for the first attempt of its request. Only those are samples of the window: retries
    /// would give a failing endpoint more weight than a good one.
    pub(crate) first: bool,
}
