//! The permit of a call, and the report of its result.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
    time::Duration,
};

use crate::breaker::{
    circuit::Circuit,
    report::{Health, Report, Ticket},
    status::StateChange,
};
use crate::common::clock::Instant;

/// Permission for a call, given by a breaker and consumed by the report of the result.
///
/// Dropped without a result, for example because the call was cancelled, it only frees its place. A
/// result after the breaker has changed its state is ignored: it is out of date. Only the success
/// of a replaced probe still counts while the breaker is half-open.
///
/// # Examples
///
/// ```
/// use std::time::Instant;
/// use reqwest_resilient::{BreakerConfig, CircuitBreaker};
///
/// let breaker = CircuitBreaker::new(BreakerConfig::default())?;
/// let permit = breaker.try_enter(Instant::now())?;
/// // The work that the breaker guards, then its result:
/// permit.success(Instant::now());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a permit that is dropped reports nothing"]
pub struct Permit {
    lane: Arc<LaneHandle>,
    /// `None` once the result is in.
    ticket: Option<Ticket>,
}

/// A handle to the circuit with a reference count of its own, so that threads in other lanes do not
/// contend for it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct LaneHandle {
    pub(super) circuit: Arc<Circuit>,
    pub(super) lane: usize,
}

impl Permit {
    pub(super) fn new(lane: Arc<LaneHandle>, ticket: Ticket) -> Self {
        Self { lane, ticket: Some(ticket) }
    }

    /// Reports a success.
    pub fn success(self, now: impl Into<std::time::Instant>) {
        self.exit(Health::Success, None, now);
    }

    /// Reports a failure.
    pub fn failure(self, now: impl Into<std::time::Instant>) {
        self.exit(Health::Failure, None, now);
    }

    /// Reports the result of the call.
    ///
    /// If this result opens the breaker, it stays open for `retry_after` at least, within
    /// [`max_retry_after`](crate::BreakerConfig::max_retry_after). The time from the permit to
    /// `now` determines whether the call was slow. It counts as the first attempt of its request.
    pub fn exit(
        mut self,
        health: Health,
        retry_after: Option<Duration>,
        now: impl Into<std::time::Instant>,
    ) {
        let report = Report { health, retry_after, first: true };
        let _ = self.report(report, Instant::from_std(now.into()), rand::random);
    }

    /// Reports a result. `random` is called for the open time if the breaker opens.
    /// Returns the change of state that this result made; a second result changes nothing.
    #[inline]
    pub(crate) fn report(
        &mut self,
        report: Report,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<StateChange> {
        let ticket = self.ticket.take()?;
        let LaneHandle { circuit, lane } = &*self.lane;
        circuit.exit(*lane, &ticket, report, now, random)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.lane.circuit.abandon(ticket);
        }
    }
}

impl Debug for Permit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let generation = self.ticket.map(|ticket| ticket.generation);
        f.debug_struct("Permit").field("generation", &generation).finish_non_exhaustive()
    }
}
