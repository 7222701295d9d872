//! The learned quotas of one host behind a lock, and the line of requests that wait for them.

use std::{
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::common::opaque::opaque;
use crate::common::queue::MOST_WAITERS;
use crate::host::rate::learned::{Learned, LearnedQuota, Pacing, Turn};
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
    /// The key of its bucket; 0 if that is not known, or there are no buckets.
    bucket: AtomicU64,
    /// The quotas that those who wait here are to keep to.
    moved: OnceLock<Weak<Self>>,
}

/// The pace of a hedge: the slowest there is.
const AT_ONCE: Pacing = Pacing { longest: Duration::MAX, unit: 1.0 };

/// The place of the first request in the line.
pub(crate) type First = OwnedSemaphorePermit;

impl Default for Learner {
    fn default() -> Self {
        let (first, waiting) = (Arc::new(Semaphore::new(1)), AtomicUsize::new(0));
        let (bucket, moved) = (AtomicU64::new(0), OnceLock::new());
        Self { learned: Mutex::default(), news: Notify::new(), first, waiting, bucket, moved }
    }
}

impl Learner {
    /// Returns the key of its bucket.
    pub(super) fn bucket(&self) -> Option<u64> {
        Some(self.bucket.load(Ordering::Relaxed)).filter(|it| *it != 0)
    }

    pub(super) fn set_bucket(&self, bucket: u64) {
        self.bucket.store(bucket, Ordering::Relaxed);
    }

    /// Has those that wait here keep to other quotas.
    pub(super) fn move_to(&self, other: &Arc<Self>) {
        let _ = self.moved.set(Arc::downgrade(other));
        self.news.notify_waiters();
    }

    /// Returns the quotas that those who wait here are to keep to in place of these.
    pub(crate) fn moved(&self) -> Option<Arc<Self>> {
        self.moved.get()?.upgrade()
    }

    /// Returns the quotas as they are at `now`.
    pub(crate) fn quotas(&self, now: Instant) -> Vec<LearnedQuota> {
        lock(&self.learned).quotas(now)
    }

    /// Takes the turn of a request if it may go at once and none waits.
    pub(crate) fn try_turn(self: &Arc<Self>, pacing: Pacing, now: Instant) -> Option<Ticket> {
        lock(&self.learned).arrive(now);
        let first = Arc::clone(&self.first).try_acquire_owned().ok()?;
        self.turn(first, pacing, now).ok()
    }

    /// Takes the turn of a hedge if no pace holds it back and none waits. One that is refused is no
    /// request that arrives.
    pub(crate) fn spare_turn(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        let first = Arc::clone(&self.first).try_acquire_owned().ok()?;
        let ticket = self.turn(first, AT_ONCE, now).ok()?;
        lock(&self.learned).arrive(now);
        Some(ticket)
    }

    /// Returns how long a request that joins the line now will probably wait; `None` if as many as
    /// may wait do so already.
    pub(crate) fn expected_wait(&self, longest: Duration, now: Instant) -> Option<Duration> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting >= MOST_WAITERS {
            return None;
        }
        Some(lock(&self.learned).expected_wait(waiting, longest, now))
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
        pacing: Pacing,
        now: Instant,
    ) -> Result<Ticket, (First, Instant)> {
        let behind = self.waiting.load(Ordering::Relaxed).saturating_sub(1);
        let mut learned = lock(&self.learned);
        match learned.next(behind, pacing, now) {
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

    /// Records what a response said about these quotas to a request that kept to others.
    fn hear(&self, started: Instant, said: &[QuotaUse], now: Instant) {
        self.change(|it| it.hear(started, said, now));
    }

    fn change(&self, change: impl FnOnce(&mut Learned)) {
        change(&mut lock(&self.learned));
        self.news.notify_waiters();
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

    /// Returns the quotas that it counts against.
    pub(crate) fn learner(&self) -> Option<&Arc<Learner>> {
        self.learner.as_ref()
    }

    /// Ends the turn of an attempt whose response named these quotas, which are not those that it
    /// counted against.
    pub(crate) fn end_elsewhere(self, right: &Learner, said: &[QuotaUse], now: Instant) {
        right.hear(self.started, said, now);
        self.refund();
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

opaque!(Ticket { started });

#[cfg(test)]
mod tests {
    use super::*;

    const PACING: Pacing = Pacing { longest: Duration::ZERO, unit: 0.0 };

    /// Quotas of which two requests are left.
    fn learner(now: Instant) -> Arc<Learner> {
        let learner = Arc::new(Learner::default());
        let reset = Duration::from_secs(60);
        let limit = Some(10);
        let said = QuotaUse { name: "requests".into(), remaining: 2, limit, reset, window: None };
        learner.hear(now, &[said], now);
        learner
    }

    /// Returns how many requests may go at once.
    fn left(learner: &Arc<Learner>, now: Instant) -> usize {
        let tickets = std::iter::from_fn(|| learner.try_turn(PACING, now));
        tickets.collect::<Vec<_>>().len()
    }

    #[test]
    fn a_request_that_was_sent_counts_though_it_was_dropped() {
        let now = Instant::now();
        let learner = learner(now);
        assert_eq!(left(&learner, now), 2);
        let mut ticket = learner.try_turn(PACING, now).unwrap();
        assert!(format!("{ticket:?}").starts_with("Ticket { started: "));
        assert_eq!(left(&learner, now), 1, "one is under way");
        ticket.spend();
        drop(ticket);
        assert_eq!(left(&learner, now), 1);
    }

    #[test]
    fn a_hedge_that_is_refused_is_no_arrival() {
        let now = Instant::now();
        let learner = Arc::new(Learner::default());
        let (name, reset) = ("requests".into(), Duration::from_secs(10));
        let said = QuotaUse { name, remaining: 2, limit: Some(2), reset, window: None };
        learner.hear(now, &[said], now);
        let first = Arc::clone(&learner.first).try_acquire_owned();
        assert!((0..9).all(|_| learner.spare_turn(now).is_none()));
        drop(first);
        let patient = Pacing { longest: Duration::from_secs(60), unit: 0.0 };
        assert!(learner.try_turn(patient, now).is_some(), "ten arrivals would be too many");
    }

    #[test]
    fn a_request_that_was_not_sent_does_not_count() {
        let now = Instant::now();
        let learner = learner(now);
        drop(learner.try_turn(PACING, now));
        assert_eq!(left(&learner, now), 2);
        let mut ticket = learner.try_turn(PACING, now).unwrap();
        ticket.spend();
        ticket.refund();
        assert_eq!(left(&learner, now), 2);
    }
}
