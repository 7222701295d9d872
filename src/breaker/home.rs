//! Where a circuit lives while nobody calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::breaker::{
    circuit::Circuit,
    facts::{CircuitOpen, StateChange},
    lane::LANES,
    permit::Permit,
};
use crate::common::clock::Instant;
use crate::host::registry::Part;

/// The one holder of a circuit's doors that is not a permit.
///
/// Handles and the registry share the home, permits a door: so the count that keeps the door
/// alive is also the number of permits given out there, and counting them costs nothing.
#[derive(Debug)]
pub(crate) struct BreakerHandle {
    circuit: Arc<Circuit>,
    doors: [Arc<LaneHandle>; LANES],
}

/// A way to the circuit with a count of its own, so that threads at other doors need not wait
/// for it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct LaneHandle {
    pub(super) circuit: Arc<Circuit>,
    pub(super) lane: usize,
}

impl BreakerHandle {
    pub(super) fn new(circuit: Circuit) -> Self {
        let circuit = Arc::new(circuit);
        let door = |lane| Arc::new(LaneHandle { circuit: Arc::clone(&circuit), lane });
        Self { doors: std::array::from_fn(door), circuit }
    }

    pub(super) fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Takes over the rules in force.
    #[inline]
    pub(crate) fn keep_up(&self) {
        self.circuit.keep_up();
    }

    /// A permit, if every call gets one.
    #[inline]
    pub(crate) fn pass(&self, now: Instant) -> Option<Permit> {
        let ticket = self.circuit.pass(now)?;
        Some(Permit::new(Arc::clone(self.door()), ticket))
    }

    /// Asks for a permit. Gives the change of state as well, if the asking made one.
    #[inline]
    pub(crate) fn enter(&self, now: Instant) -> (Result<Permit, CircuitOpen>, Option<StateChange>) {
        let (entered, change) = self.circuit.enter(now);
        (entered.map(|ticket| Permit::new(Arc::clone(self.door()), ticket)), change)
    }

    /// Whether not every call is let through; a permit that it gives is then a probe's.
    pub(crate) fn is_probing(&self) -> bool {
        self.circuit.is_probing()
    }

    /// The rejection of a call that would come at `now`; `None` if it would be let through.
    pub(crate) fn rejects(&self, now: Instant) -> Option<CircuitOpen> {
        self.circuit.rejects(now)
    }

    /// The door of this thread.
    #[inline]
    fn door(&self) -> &Arc<LaneHandle> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        // A thread that is about to end may have lost its number.
        let mine = MINE.try_with(|it| *it).unwrap_or_default();
        &self.doors[mine % LANES]
    }

    pub(super) fn permits_out(&self) -> usize {
        self.doors.iter().map(|it| Arc::strong_count(it) - 1).sum()
    }
}

impl Part for BreakerHandle {
    /// A breaker that is not closed knows something: that the service is down, or what someone
    /// decided by hand.
    fn pinned(&self) -> bool {
        !self.circuit.is_closed()
    }
}
