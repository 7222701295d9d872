//! The signals of requests to the one task of a fleet.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// The settings of a fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetSettings {
    pub(crate) report_every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) shares_breaker: bool,
    pub(crate) shares_gate: bool,
}

/// The least time without contact after which a node decides alone.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// Wakes the task of a fleet; also outlives the fleet, to end the task.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) settings: FleetSettings,
    pub(crate) wake: Notify,
    urgency: AtomicU8,
    is_closed: AtomicBool,
    nodes: AtomicU32,
}

/// The urgency of the next exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// There is nothing to report.
    None,
    /// Attempts were counted: with the next exchange.
    Count,
    /// An attempt failed: at once after a quiet second.
    Failure,
    /// A probe ended or a gate was closed: at once.
    Now,
}

impl Signals {
    pub(crate) fn new(settings: FleetSettings) -> Self {
        Self {
            settings,
            wake: Notify::new(),
            urgency: AtomicU8::new(0),
            is_closed: AtomicBool::new(false),
            nodes: AtomicU32::new(1),
        }
    }

    /// Asks for an exchange. One load, unless it is the first request since the last exchange.
    #[inline]
    pub(crate) fn raise(&self, urgency: Urgency) {
        let urgency = urgency as u8;
        if self.urgency.load(Ordering::Relaxed) < urgency {
            self.urgency.fetch_max(urgency, Ordering::AcqRel);
            self.wake.notify_one();
        }
    }

    /// Returns what was asked for since the last call of [`take`](Self::take).
    pub(crate) fn urgency(&self) -> Urgency {
        Self::named(self.urgency.load(Ordering::Acquire))
    }

    /// Takes what was asked for. To be called before the counts are taken.
    pub(crate) fn take(&self) -> Urgency {
        Self::named(self.urgency.swap(0, Ordering::AcqRel))
    }

    fn named(urgency: u8) -> Urgency {
        match urgency {
            0 => Urgency::None,
            1 => Urgency::Count,
            2 => Urgency::Failure,
            _ => Urgency::Now,
        }
    }

    /// Ends the task.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Returns the time without contact after which a node decides alone: three reports, but 5 s at
    /// least.
    pub(crate) fn stale_after(&self) -> Duration {
        self.settings.report_every.saturating_mul(3).max(STALE_AFTER)
    }

    /// Returns the number of nodes that use the store, as of the last exchange.
    pub(crate) fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn signals() -> Signals {
        let (report_every, timeout) = (SECOND, SECOND);
        let [shares_breaker, shares_gate] = [true; 2];
        Signals::new(FleetSettings { report_every, timeout, shares_breaker, shares_gate })
    }

    fn is_woken(signals: &Signals) -> bool {
        let notified = pin!(signals.wake.notified());
        notified.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_task_wakes_when_something_is_more_urgent_than_before() {
        let signals = signals();
        assert_eq!(signals.urgency(), Urgency::None);
        for (raised, wakes, urgency) in [
            (Urgency::Count, true, Urgency::Count),
            (Urgency::Count, false, Urgency::Count),
            (Urgency::Failure, true, Urgency::Failure),
            (Urgency::Count, false, Urgency::Failure),
            (Urgency::Now, true, Urgency::Now),
        ] {
            signals.raise(raised);
            assert_eq!((is_woken(&signals), signals.urgency()), (wakes, urgency), "{raised:?}");
        }
        assert_eq!((signals.take(), signals.take()), (Urgency::Now, Urgency::None));
        signals.raise(Urgency::Count);
        assert!(is_woken(&signals));
    }

    #[test]
    fn the_task_wakes_to_end() {
        let signals = signals();
        assert!(!signals.is_closed() && !is_woken(&signals));
        signals.close();
        assert!(signals.is_closed() && is_woken(&signals));
    }

    #[test]
    fn a_node_is_alone_until_the_store_counts_more() {
        let signals = signals();
        assert_eq!(signals.nodes(), 1);
        signals.set_nodes(3);
        assert_eq!(signals.nodes(), 3);
    }
}
