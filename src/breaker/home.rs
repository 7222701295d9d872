//! Where a circuit lives while nobody calls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::breaker::{
    circuit::Circuit,
    facts::{CircuitOpen, StateChange},
    lane::LANES,
    permit::{LaneHandle, Permit},
    waiting::Waiter,
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

    /// Takes a place among those that wait for the breaker to change; `None` if 10,000 wait.
    #[allow(dead_code, reason = "the loop does not wait at an open breaker yet")]
    pub(crate) fn wait(&self) -> Option<Waiter<'_>> {
        self.circuit.wait()
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

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::breaker::{
        BreakerConfig,
        circuit::Common,
        report::{Health, Report},
        state::Machine,
    };

    fn home(config: BreakerConfig) -> BreakerHandle {
        BreakerHandle::new(Circuit::new("", Arc::new(Common::new(config))))
    }

    fn report(home: &BreakerHandle, health: Health, first: bool, now: Instant) {
        let mut permit = home.enter(now).0.unwrap();
        permit.report(Report { health, retry_after: None, first }, now, || 0.0);
    }

    /// A success that takes no lock ends an outage like any other, one of a retry too.
    #[test]
    fn breaker_success_in_a_lane_ends_an_outage() {
        for first in [true, false] {
            let home = home(BreakerConfig::default());
            let mut now = Instant::now();
            for _ in 0..100 {
                // Calm in between: the second success goes to a lane.
                report(&home, Health::Success, first, now);
                report(&home, Health::Success, first, now);
                for _ in 0..9 {
                    report(&home, Health::Failure, first, now);
                    now += Duration::from_millis(220);
                }
            }
            let snapshot = home.circuit().snapshot(0, now);
            assert_eq!(snapshot.generation, 0, "it never opened");
            assert_eq!(snapshot.consecutive_failures, 9);
            assert_eq!(snapshot.window.total > 0, first, "retries are no samples");
            report(&home, Health::Failure, first, now + Duration::from_millis(20));
            assert!(home.rejects(now).is_some(), "2 s after the first failure");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_wakes_those_that_wait_when_a_request_may_go() {
        let config = BreakerConfig::consecutive(NonZeroU32::MIN).without_open_jitter();
        let (home, second) = (home(config), Duration::from_secs(1));
        let waiter = home.wait().unwrap();
        let mut now = Instant::now();
        report(&home, Health::Failure, true, now);
        let mut woken = async |act: &dyn Fn(Instant), expected: bool| {
            let changed = waiter.changed();
            act(now);
            now += 3 * second;
            assert_eq!(timeout(second, changed).await.is_ok(), expected);
        };
        woken(&|now| assert!(home.rejects(now).is_some()), false).await;
        woken(&|now| report(&home, Health::Failure, true, now), true).await;
        woken(&|now| drop(home.enter(now).0.unwrap()), true).await;
        woken(&|now| report(&home, Health::Throttled, true, now), true).await;
        woken(&|now| report(&home, Health::Success, true, now), true).await;
        woken(&|now| report(&home, Health::Success, true, now), false).await;
        woken(&|_| home.circuit().command(Machine::force_open), true).await;
        woken(&|_| home.circuit().command(Machine::reset), true).await;
    }
}
