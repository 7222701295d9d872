//! The way through a breaker and back.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
    time::Duration,
};

use crate::breaker::{facts::StateChange, handle::LaneHandle};
use crate::common::clock::Instant;

/// Proof that a call may run, given by a breaker and handed back with the result.
///
/// Dropped without a result, because the call was cancelled for instance, it says nothing about
/// the service and only frees its place. A result that comes after the breaker has changed its
/// state is ignored: it tells of another time.
#[must_use = "a permit that is dropped reports nothing"]
pub struct Permit {
    door: Arc<LaneHandle>,
    /// `None` once the result is in.
    ticket: Option<Ticket>,
}

/// What a call says about the health of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The service did its work, though the answer may be a refusal such as 404.
    Success,
    /// The service did not do its work.
    Failure,
    /// The service is there and asks for less (429): a failure to the rates and to half-open,
    /// which should not close on it; failures in a row are neither continued nor interrupted.
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
pub(super) struct Report {
    pub(super) health: Health,
    pub(super) retry_after: Option<Duration>,
}

impl Permit {
    pub(super) fn new(door: Arc<LaneHandle>, ticket: Ticket) -> Self {
        Self { door, ticket: Some(ticket) }
    }

    /// Reports a success.
    pub fn success(self, now: Instant) {
        self.exit(Health::Success, None, now);
    }

    /// Reports a failure.
    pub fn failure(self, now: Instant) {
        self.exit(Health::Failure, None, now);
    }

    /// Reports what the call ended with.
    ///
    /// If this very result opens the breaker, it stays open for `retry_after` at least, within
    /// [`max_retry_after`](crate::BreakerConfig::max_retry_after). Whether the call was slow
    /// follows from `now` and the moment the permit was given.
    pub fn exit(mut self, health: Health, retry_after: Option<Duration>, now: Instant) {
        let _ = self.report(health, retry_after, now, rand::random);
    }

    /// The same, with the random number for the open time drawn from `random`, if it is needed.
    /// Gives the change of state that this result made; a further one says nothing.
    #[inline]
    pub(crate) fn report(
        &mut self,
        health: Health,
        retry_after: Option<Duration>,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<StateChange> {
        let ticket = self.ticket.take()?;
        let LaneHandle { circuit, lane } = &*self.door;
        circuit.exit(*lane, &ticket, Report { health, retry_after }, now, random)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.door.circuit.abandon(ticket);
        }
    }
}

impl Debug for Permit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let generation = self.ticket.map(|ticket| ticket.generation);
        f.debug_struct("Permit").field("generation", &generation).finish_non_exhaustive()
    }
}
