//! Owns a circuit and the handles that permits clone.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::breaker::{
    circuit::Circuit,
    lane::LANES,
    observers::Observers,
    permit::{LaneHandle, Permit},
    rule_set::RuleSet,
    state::Machine,
    status::{BreakerSnapshot, BreakerState, CircuitOpen, StateChange},
    waiting::Waiter,
};
use crate::common::clock::Instant;

/// The owner of a circuit and, beside the permits, of its lane handles.
///
/// Breakers and the host map share this handle, permits share a lane handle: so the reference count
/// of a lane handle is also the number of its permits. The first permit of a lane creates its
/// handle.
#[derive(Debug)]
pub(crate) struct BreakerHandle {
    circuit: Arc<Circuit>,
    lanes: [OnceLock<Arc<LaneHandle>>; LANES],
}

impl BreakerHandle {
    pub(crate) fn new(key: Arc<str>, rules: &RuleSet, observers: Arc<Observers>) -> Self {
        Self { circuit: Arc::new(Circuit::new(key, rules, observers)), lanes: Default::default() }
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

    pub(crate) fn open_for(&self, time: Duration, now: Instant) {
        self.circuit.command(|machine| machine.open_by_hand(time, now));
    }

    pub(crate) fn disable(&self) {
        self.circuit.command(Machine::disable);
    }

    pub(crate) fn metrics_only(&self) {
        self.circuit.command(Machine::only_measure);
    }

    pub(crate) fn reset(&self) {
        self.circuit.command(Machine::reset);
    }

    /// Restarts closed, with an empty window: the fleet found the service back.
    pub(crate) fn restart(&self) -> Option<StateChange> {
        self.circuit.restart()
    }

    /// Returns a permit if every call gets one.
    #[inline]
    pub(crate) fn pass(&self, now: Instant) -> Option<Permit> {
        let ticket = self.circuit.pass(now)?;
        Some(Permit::new(Arc::clone(self.lane()), ticket))
    }

    /// Admits or rejects a call. Returns the change of state as well, if this call made one.
    #[inline]
    pub(crate) fn enter(&self, now: Instant) -> (Result<Permit, CircuitOpen>, Option<StateChange>) {
        let (entered, change) = self.circuit.enter(now);
        (entered.map(|ticket| Permit::new(Arc::clone(self.lane()), ticket)), change)
    }

    /// Returns whether only probes are admitted, or no call; a permit is then a probe's.
    pub(crate) fn is_probing(&self) -> bool {
        self.circuit.is_probing()
    }

    /// Returns the rejection of a call that would come at `now`; `None` if it would be admitted.
    pub(crate) fn rejects(&self, now: Instant) -> Option<CircuitOpen> {
        self.circuit.rejects(now)
    }

    /// Takes a place among the requests that wait for the breaker to change; `None` if 10,000 wait.
    pub(crate) fn wait(&self) -> Option<Waiter<'_>> {
        self.circuit.wait()
    }

    /// Returns the lane handle of this thread.
    #[inline]
    fn lane(&self) -> &Arc<LaneHandle> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        // The number of a thread that is ending may be gone.
        let mine = MINE.try_with(|it| *it).unwrap_or_default();
        let lane = mine % LANES;
        self.lanes[lane]
            .get_or_init(|| Arc::new(LaneHandle { circuit: Arc::clone(&self.circuit), lane }))
    }

    fn permits_out(&self) -> usize {
        self.lanes.iter().filter_map(OnceLock::get).map(|it| Arc::strong_count(it) - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::breaker::{
        BreakerConfig,
        report::{Health, Report},
        state::Machine,
    };

    fn handle(config: BreakerConfig) -> BreakerHandle {
        BreakerHandle::new("".into(), &RuleSet::new(config), Arc::default())
    }

    fn report(handle: &BreakerHandle, health: Health, first: bool, now: Instant) {
        let mut permit = handle.enter(now).0.unwrap();
        permit.report(Report { health, retry_after: None, first }, now, || 0.0);
    }

    /// A success that takes no lock ends an outage like any other, one of a retry too.
    #[test]
    fn breaker_success_in_a_lane_ends_an_outage() {
        for first in [true, false] {
            let handle = handle(BreakerConfig::default());
            let mut now = Instant::now();
            for _ in 0..100 {
                // Calm in between: the second success goes to a lane.
                report(&handle, Health::Success, first, now);
                report(&handle, Health::Success, first, now);
                for _ in 0..9 {
                    report(&handle, Health::Failure, first, now);
                    now += Duration::from_millis(220);
                }
            }
            let snapshot = handle.circuit().snapshot(0, now);
            assert_eq!(snapshot.generation, 0, "it never opened");
            assert_eq!(snapshot.consecutive_failures, 9);
            assert_eq!(snapshot.window.total > 0, first, "retries are no samples");
            report(&handle, Health::Failure, first, now + Duration::from_millis(20));
            assert!(handle.rejects(now).is_some(), "2 s after the first failure");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_wakes_those_that_wait_when_a_request_may_go() {
        let config = BreakerConfig::consecutive(1).without_open_jitter();
        let (handle, second) = (handle(config), Duration::from_secs(1));
        let waiter = handle.wait().unwrap();
        let mut now = Instant::now();
        report(&handle, Health::Failure, true, now);
        let mut woken = async |act: &dyn Fn(Instant), expected: bool| {
            let changed = waiter.changed();
            act(now);
            now += 3 * second;
            assert_eq!(timeout(second, changed).await.is_ok(), expected);
        };
        woken(&|now| assert!(handle.rejects(now).is_some()), false).await;
        woken(&|now| report(&handle, Health::Failure, true, now), true).await;
        woken(&|now| drop(handle.enter(now).0.unwrap()), true).await;
        woken(&|now| report(&handle, Health::Throttled, true, now), true).await;
        woken(&|now| report(&handle, Health::Success, true, now), true).await;
        woken(&|now| report(&handle, Health::Success, true, now), false).await;
        woken(&|_| handle.circuit().command(Machine::force_open), true).await;
        woken(&|_| handle.circuit().command(Machine::reset), true).await;
    }
}
