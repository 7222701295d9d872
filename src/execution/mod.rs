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

/// The time by which an attempt may exceed the request's own timeout, so that the client of
/// reqwest, whose clock starts later, ends what it does itself, with an error of its own.
const SLACK: Duration = Duration::from_millis(100);

/// The longest that an attempt may take, and the time after that until it is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttemptTimeout {
    pub(crate) after: Duration,
    pub(crate) slack: Duration,
}

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
    ///
    /// The request's own timeout comes in place of the client's. The client of reqwest holds it for
    /// what it does itself; inner middleware and body factories take time besides.
    #[inline]
    pub(crate) fn attempt_timeout(
        &self,
        policy: &Policy,
        request: &Request,
    ) -> Option<AttemptTimeout> {
        let exact = |after| AttemptTimeout { after, slack: Duration::ZERO };
        let Some(own) = request.timeout().copied().filter(|_| self.records) else {
            let of_client = || self.timeout.filter(|_| request.timeout().is_none());
            return policy.attempt_timeout.unwrap_or_else(of_client).map(exact);
        };
        let own = AttemptTimeout { after: own, slack: SLACK };
        let of_settings = policy.attempt_timeout.flatten().map(exact);
        Some(of_settings.map_or(own, |it| it.min(own)))
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
