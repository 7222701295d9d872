//! What a call is let through with, and what it reports.

use std::time::Duration;

use crate::common::clock::Instant;

/// What a call says about the health of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The service did its work, though the answer may be a refusal such as 404.
    Success,
    /// The service did not do its work.
    Failure,
    /// The service is there and asks for less (429, or a 403 that is a rate limit). It proves the
    /// service neither well nor ill, so the breaker ignores it; a throttled probe only frees its
    /// place.
    Throttled,
}

/// Proof of having been let through: which generation's, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) entered: Instant,
}

/// What a call ended with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) health: Health,
    pub(crate) retry_after: Option<Duration>,
    /// Whether it was the first attempt of its request. Only those are samples of the window:
    /// retries would give a failing endpoint more weight than a good one.
    pub(crate) first: bool,
}
