//! Where a circuit lives while nobody calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::breaker::{
    circuit::{Circuit, Observers},
    facts::{BreakerSnapshot, BreakerState, CircuitOpen, StateChange},
    lane::LANES,
    permit::Permit,
    rule_set::RuleSet,
    state::Machine,
};
use crate::common::clock::Instant;

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
    pub(crate) fn new(key: &str, rules: &RuleSet, observers: Arc<Observers>) -> Self {
        let circuit = Arc::new(Circuit::new(key, rules, observers));
        let door = |lane| Arc::new(LaneHandle { circuit: Arc::clone(&circuit), lane });
        Self { doors: std::array::from_fn(door), circuit }
    }

    pub(super) fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Follows `rules` from now on; the state and the window stay.
    #[inline]
    pub(crate) fn adopt(&self, rules: &RuleSet) {
        self.circuit.adopt(rules);
    }

    /// Follows `rules` from now on; a window of another size starts empty.
    pub(crate) fn adopt_window(&self, rules: &RuleSet) {
        self.circuit.adopt_window(rules);
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.circuit.state()
    }

    pub(crate) fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        self.circuit.snapshot(self.permits_out(), now)
    }

    pub(crate) fn force_open(&self) {
        self.circuit.command(Machine::force_open);
    }

    pub(crate) fn force_closed(&self) {
        self.circuit.command(Machine::disable);
    }

    pub(crate) fn metrics_only(&self) {
        self.circuit.command(Machine::only_measure);
    }

    pub(crate) fn reset(&self) {
        self.circuit.command(Machine::reset);
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

    fn permits_out(&self) -> usize {
        self.doors.iter().map(|it| Arc::strong_count(it) - 1).sum()
    }
}
