//! Changes of a rate limit that only configuration files make.

use http::HeaderName;

use crate::common::scope::next_version;
use crate::host::rate::route::RouteOf;
use crate::host::rate::{Rate, RateLimit};

impl RateLimit {
    /// Returns a limit that learns the quotas of the buckets that responses name in this header.
    pub(crate) fn with_buckets(self, name: HeaderName) -> Self {
        Self { learns: true, version: next_version(), ..self.bucket_header(name) }
    }

    /// Returns a limit whose routes are so many segments of the path.
    pub(crate) fn route_of_segments(self, count: u32) -> Self {
        Self { route_of: Some(RouteOf::Segments(count)), ..self }
    }

    /// Returns the first rate, and what is learned, without further limits.
    pub(crate) fn alone(mut self) -> Self {
        self.rates.truncate(1);
        Self { others: vec![], version: next_version(), ..self }
    }

    /// Returns this with another first rate, one a second if there was none.
    pub(crate) fn map_first(mut self, change: impl FnOnce(Rate) -> Rate) -> Self {
        let first = self.rates.first().cloned().unwrap_or(Rate::per_second(1));
        let rest = self.rates.drain(..).skip(1);
        self.rates = [change(first)].into_iter().chain(rest).collect();
        self.version = next_version();
        self
    }

    /// Returns whether both have the same rates, waits and routes.
    pub(crate) fn has_rules_of(&self, other: &Self) -> bool {
        let segments = |it: &Self| match it.route_of {
            Some(RouteOf::Segments(count)) => Some(count),
            _ => None,
        };
        let others = || self.others.iter().zip(&other.others);
        self.max_wait == other.max_wait
            && self.learns == other.learns
            && self.bucket == other.bucket
            && segments(self) == segments(other)
            && self.others.len() == other.others.len()
            && others().all(|(one, other)| one.scope.is_shared() == other.scope.is_shared())
            && others().all(|(one, other)| one.has_rules_of(other))
            && self.is_of_fleet == other.is_of_fleet
            && self.paces().eq(other.paces())
    }
}
