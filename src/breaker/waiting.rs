//! Requests that wait for the breaker to change.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, futures::Notified};

use crate::common::queue::MOST_WAITERS;

/// The requests that wait at one breaker. Free of cost while none waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    changed: Notify,
    waiters: AtomicUsize,
}

/// A place among the waiters, freed when dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'b>(&'b Waiting);

impl Waiting {
    /// Takes a place; `None` if 10,000 are taken.
    pub(crate) fn join(&self) -> Option<Waiter<'_>> {
        // Only a number: it orders no other memory access.
        let more = |waiters| (waiters < MOST_WAITERS).then_some(waiters + 1);
        self.waiters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Waiter(self))
    }

    /// Wakes all waiters.
    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }
}

impl Waiter<'_> {
    /// Ends at the next change after this call that may admit a request: the breaker has closed,
    /// has opened again or was changed by hand, or a probe freed its place.
    ///
    /// A change between this call and the first poll is noticed too: check the breaker in between.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn breaker_wakes_all_that_wait_and_no_change_is_missed() {
        let waiting = Waiting::default();
        let (one, two) = (waiting.join().unwrap(), waiting.join().unwrap());
        let second = Duration::from_secs(1);
        waiting.wake();
        assert!(timeout(second, one.changed()).await.is_err(), "that was before");
        let changes = (one.changed(), two.changed());
        waiting.wake();
        timeout(second, changes.0).await.unwrap();
        timeout(second, changes.1).await.unwrap();
    }

    #[test]
    fn breaker_bounds_those_that_wait() {
        let waiting = Waiting::default();
        let mut all: Vec<_> = (0..MOST_WAITERS).map(|_| waiting.join().unwrap()).collect();
        assert!(waiting.join().is_none());
        all.pop();
        assert!(waiting.join().is_some());
        drop(all);
        assert_eq!(waiting.waiters.into_inner(), 0);
    }
}
