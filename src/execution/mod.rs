//! One request under way: the loop, each attempt within its limits, bodies.

use std::time::Duration;

use http::Extensions;
use reqwest::{Request, Response};

use crate::config::policy::Policy;
use crate::execution::body::stall::{self, WatchesItself};
use crate::host::map::HostMap;
use crate::observe::misuses::Misuses;

mod admit;
pub(crate) mod attempt;
#[cfg(feature = "test-util")]
pub mod bench;
pub(crate) mod body;
pub(crate) mod decide;
mod end;
pub(crate) mod endpoint;
pub(crate) mod fast_path;
mod judge;
mod not_sent;
pub(crate) mod original;
mod other_endpoint;
mod queue;
mod race;
mod racer;
pub(crate) mod record;
mod recorder;
pub(crate) mod redirect;
pub(crate) mod route;
pub(crate) mod run;

/// The parts of a client that its requests use.
#[derive(Clone, Copy)]
pub(crate) struct ClientParts<'a> {
    pub(crate) hosts: &'a HostMap,
    pub(crate) misuses: &'a Misuses,
    /// The attempt timeout of requests without a limit.
    pub(crate) timeout: Option<Duration>,
    /// Set if the end of the chain is the client's own, which records what is sent.
    pub(crate) records: bool,
}

impl ClientParts<'_> {
    /// Returns the longest that an attempt of `request` may take.
    #[inline]
    pub(crate) fn attempt_timeout(&self, policy: &Policy, request: &Request) -> Option<Duration> {
        policy
            .attempt_timeout
            .unwrap_or_else(|| self.timeout.filter(|_| request.timeout().is_none()))
    }

    /// Watches the body of a response for stalls, in a client of our own: any other has its own limits.
    #[inline]
    pub(crate) fn guarded(
        &self,
        policy: &Policy,
        response: Response,
        extensions: &Extensions,
    ) -> Response {
        let guards = self.records && extensions.get::<WatchesItself>().is_none();
        match policy.stall_timeout.filter(|_| guards) {
            Some(timeout) => stall::guarded(response, timeout),
            None => response,
        }
    }
}
