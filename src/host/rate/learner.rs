//! The learned quotas of one host behind a lock, and the line of requests that wait for them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::common::clock::Instant;
use crate::common::queue::MOST_WAITERS;
use crate::host::rate::learned::{Learned, Turn};
use crate::outcome::hint::QuotaUse;

/// The quotas of one host, shared by all requests there.
///
/// Requests wait in a line; only the first one looks when it may go, so that a news wakes one.
#[derive(Debug)]
pub(crate) struct Learner {
    learned: Mutex<Learned>,
    /// Notified when a response has brought something.
    news: Notify,
    /// Held by the first request of the line. Fair: the others follow in order of arrival.
    first: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The place of the first request in the line.
pub(crate) type First = OwnedSemaphorePermit;

impl Default for Learner {
    fn default() -> Self {
        let (first, waiting) = (Arc::new(Semaphore::new(1)), AtomicUsize::new(0));
        Self { learned: Mutex::default(), news: Notify::new(), first, waiting }
    }
}

impl Learner {
    /// Takes the turn of a request if it may go at once and none waits.
    pub(crate) fn try_turn(self: &Arc<Self>, longest: Duration, now: Instant) -> Option<Ticket> {
        self.lock().arrive(now);
        let first = Arc::clone(&self.first).try_acquire_owned().ok()?;
        self.turn(first, longest, now).ok()
    }

    /// Returns how long a request that joins the line now will probably wait; `None` if as many as
    /// may wait do so already.
    pub(crate) fn expected_wait(&self, longest: Duration, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting >= MOST_WAITERS {
            return None;
        }
        Some(self.lock().expected_wait(waiting, longest, now))
    }

    /// Joins the line.
    pub(crate) fn join(self: &Arc<Self>) -> InLine {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        InLine(Arc::clone(self))
    }

    /// Takes the turn of the first request.
    ///
    /// # Errors
    ///
    /// The place, and the time at which it may go, unless news comes before.
    pub(crate) fn turn(
        self: &Arc<Self>,
        first: First,
        longest: Duration,
        now: Instant,
    ) -> Result<Ticket, (First, Instant)> {
        let behind = self.waiting.load(Ordering::Relaxed).saturating_sub(1);
        let mut learned = self.lock();
        match learned.next(behind, longest, now) {
            Turn::At(at) => Err((first, at)),
            Turn::Now => {
                learned.send(now);
                let learner = Some(Arc::clone(self));
                Ok(Ticket { learner, started: now, is_sent: false })
            }
        }
    }

    /// Returns what the first request waits at.
    pub(crate) fn news(&self) -> &Notify {
        &self.news
    }

    /// Returns the line, at the end of which a request gets the first place.
    pub(crate) fn line(&self) -> Arc<Semaphore> {
        Arc::clone(&self.first)
    }

    fn change(&self, change: impl FnOnce(&mut Learned)) {
        change(&mut self.lock());
        self.news.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in the line.
#[derive(Debug)]
pub(crate) struct InLine(Arc<Learner>);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The turn of one attempt; it counts against the quotas until it has ended.
#[must_use = "the quotas wait for the end of the attempt"]
pub(crate) struct Ticket {
    /// `None` once ended.
    learner: Option<Arc<Learner>>,
    started: Instant,
    is_sent: bool,
}

impl Ticket {
    /// Records that the attempt is sent.
    pub(crate) fn spend(&mut self) {
        self.is_sent = true;
    }

    /// Ends the turn of an attempt of which nothing was sent.
    pub(crate) fn refund(mut self) {
        self.is_sent = false;
    }

    /// Ends the turn of an attempt with the quotas that its response named; `None` if there was no
    /// response.
    pub(crate) fn end(mut self, said: Option<&[QuotaUse]>, now: Instant) {
        if let Some(learner) = self.learner.take() {
            learner.change(|it| it.end(self.started, said, now));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(learner) = self.learner.take() else { return };
        learner.change(|it| match self.is_sent {
            // Dropped under way: the server may have counted it.
            true => it.end(self.started, None, self.started),
            false => it.cancel(),
        });
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("started", &self.started).finish_non_exhaustive()
    }
}
