//! Waiters in order, each woken by a grant: how requests wait for a gate, a token or a breaker.
//!
//! A grant is never lost. A waiter that is dropped with a grant passes it to the next one, and a
//! grant without any waiter stays for the next to join, or until its owner takes it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use crate::common::lock::lock;

/// The most waiters of one queue.
pub(crate) const MOST_WAITERS: usize = 10_000;

/// A bounded queue of waiters, served by their key, then by arrival.
///
/// With the start of its request as key the oldest request goes first; with `()` the order is that
/// of arrival. No lock is held while a waker runs.
pub(crate) struct WaitQueue<K> {
    entries: Mutex<Entries<K>>,
}

struct Entries<K> {
    /// Waiters without a grant, and their wakers; no waker before the first poll.
    waiting: BTreeMap<(K, u64), Option<Waker>>,
    /// Waiters that have a grant and have not taken it yet.
    granted: BTreeSet<(K, u64)>,
    /// Grants of dropped waiters without a successor; zero while any request waits.
    unclaimed: usize,
    arrivals: u64,
}

impl<K: Copy + Ord> WaitQueue<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::new(Entries {
                waiting: BTreeMap::new(),
                granted: BTreeSet::new(),
                unclaimed: 0,
                arrivals: 0,
            }),
        })
    }

    /// Adds a waiter, which is ready at once if a grant is unclaimed.
    ///
    /// # Errors
    ///
    /// [`Full`] if [`MOST_WAITERS`] wait already.
    pub(crate) fn join(self: &Arc<Self>, key: K) -> Result<Waiter<K>, Full> {
        let mut entries = lock(&self.entries);
        if entries.waiting.len() >= MOST_WAITERS {
            return Err(Full);
        }
        let key = (key, entries.arrivals);
        entries.arrivals += 1;
        if entries.unclaimed > 0 {
            entries.unclaimed -= 1;
            entries.granted.insert(key);
        } else {
            entries.waiting.insert(key, None);
        }
        drop(entries);
        Ok(Waiter { queue: Some(Arc::clone(self)), key })
    }

    /// Returns the number of waiters without a grant.
    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).waiting.len()
    }

    #[cfg(test)]
    /// Grants to the first `n` waiters, wakes them and returns their number.
    pub(crate) fn grant(&self, n: usize) -> usize {
        let granted = self.select(n);
        granted.wake()
    }

    /// Grants to the first `n` waiters, and returns them to be woken once no lock is held.
    pub(crate) fn select(&self, n: usize) -> Granted {
        let mut entries = lock(&self.entries);
        let mut granted = Granted::default();
        while granted.count < n {
            let Some(waker) = entries.grant_first() else { break };
            granted.count += 1;
            granted.wakers.extend(waker);
        }
        granted
    }

    /// Wakes all waiters without a grant, so that they check their limits again.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> =
            lock(&self.entries).waiting.values_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes back the grants of dropped waiters without a successor, and returns their number.
    pub(crate) fn reclaim(&self) -> usize {
        mem::take(&mut lock(&self.entries).unclaimed)
    }
}

impl<K> fmt::Debug for WaitQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}

impl<K: Copy + Ord> Entries<K> {
    /// Gives the first waiter a grant and returns its waker; `None` if there is no waiter.
    fn grant_first(&mut self) -> Option<Option<Waker>> {
        let (key, waker) = self.waiting.pop_first()?;
        self.granted.insert(key);
        Some(waker)
    }
}

/// New grants, the waiters of which are to be woken.
#[derive(Default)]
#[must_use = "the waiters have to be woken"]
pub(crate) struct Granted {
    count: usize,
    wakers: Vec<Waker>,
}

impl Granted {
    /// Returns the number of grants.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Wakes the waiters and returns the number of grants. Must be called without a lock.
    pub(crate) fn wake(self) -> usize {
        self.wakers.into_iter().for_each(Waker::wake);
        self.count
    }
}

/// A place in the queue, and a future that is ready with a grant.
///
/// Dropping it leaves the queue, at any time. Once ready, the grant belongs to the caller.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiter<K: Copy + Ord> {
    /// `None` once ready.
    queue: Option<Arc<WaitQueue<K>>>,
    key: (K, u64),
}

// No field is ever pinned.
impl<K: Copy + Ord> Unpin for Waiter<K> {}

impl<K: Copy + Ord> Future for Waiter<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(queue) = &self.queue else { return Poll::Ready(()) };
        // Wakers are cloned and dropped outside of the lock: both run code of the executor.
        let waker = cx.waker().clone();
        let mut entries = lock(&queue.entries);
        if let Some(place) = entries.waiting.get_mut(&self.key) {
            let old = place.replace(waker);
            drop(entries);
            drop(old);
            return Poll::Pending;
        }
        entries.granted.remove(&self.key);
        drop(entries);
        self.queue = None;
        Poll::Ready(())
    }
}

impl<K: Copy + Ord> Drop for Waiter<K> {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let mut entries = lock(&queue.entries);
        let waker = match entries.waiting.remove(&self.key) {
            Some(own) => {
                drop(entries);
                drop(own);
                return;
            }
            None if entries.granted.remove(&self.key) => match entries.grant_first() {
                Some(next) => next,
                None => {
                    entries.unclaimed += 1;
                    None
                }
            },
            None => None,
        };
        drop(entries);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<K: Copy + Ord> fmt::Debug for Waiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("arrival", &self.key.1).finish_non_exhaustive()
    }
}

/// The error of a queue in which [`MOST_WAITERS`] wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        thread,
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_ready<K: Copy + Ord>(waiter: &mut Waiter<K>) -> bool {
        Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn grants_go_to_the_lowest_key_then_by_arrival() {
        let queue = WaitQueue::new();
        let mut waiters: Vec<_> = [2, 1, 1, 3].map(|it| queue.join(it).unwrap()).into();
        assert_eq!(queue.grant(2), 2);
        let ready: Vec<_> = waiters.iter_mut().map(is_ready).collect();
        assert_eq!(ready, [false, true, true, false]);
        assert_eq!(queue.grant(9), 2);
        assert_eq!(queue.grant(1), 0);
        assert!(waiters.iter_mut().all(is_ready));
        drop(waiters);
        assert_eq!((queue.len(), queue.reclaim()), (0, 0));
    }

    #[test]
    fn a_waiter_is_woken_by_the_waker_of_its_last_poll() {
        let queue = WaitQueue::new();
        let mut waiter = queue.join(()).unwrap();
        let [first, last] = [Arc::new(Count::default()), Arc::new(Count::default())];
        for count in [&first, &last] {
            let waker = Arc::clone(count).into();
            assert!(Pin::new(&mut waiter).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        queue.wake_all();
        assert!(!is_ready(&mut waiter));
        let waker = Arc::clone(&last).into();
        assert!(Pin::new(&mut waiter).poll(&mut Context::from_waker(&waker)).is_pending());
        queue.grant(1);
        assert_eq!((first.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)), (0, 2));
        assert!(is_ready(&mut waiter));
    }

    #[test]
    fn a_grant_passes_from_a_dropped_waiter_to_the_next() {
        let queue = WaitQueue::new();
        let mut waiters: Vec<_> = (0..3).map(|it| queue.join(it).unwrap()).collect();
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        assert!(Pin::new(&mut waiters[1]).poll(&mut Context::from_waker(&waker)).is_pending());
        queue.grant(1);
        drop(waiters.remove(0));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(is_ready(&mut waiters[0]));
        assert!(!is_ready(&mut waiters[1]));
    }

    #[test]
    fn a_grant_without_waiters_stays_for_the_next_or_its_owner() {
        let queue = WaitQueue::new();
        let waiters = [queue.join(0).unwrap(), queue.join(0).unwrap()];
        queue.grant(2);
        drop(waiters);
        assert!(is_ready(&mut queue.join(1).unwrap()));
        assert_eq!((queue.reclaim(), queue.reclaim()), (1, 0));
        assert!(!is_ready(&mut queue.join(1).unwrap()));
    }

    #[test]
    fn no_more_wait_than_the_bound() {
        let queue = WaitQueue::new();
        let mut waiters: Vec<_> = (0..MOST_WAITERS).map(|it| queue.join(it).unwrap()).collect();
        assert_eq!(queue.join(0).unwrap_err(), Full);
        waiters.pop();
        assert!(queue.join(0).is_ok());
    }

    /// A waker that calls back into the queue, as an executor that polls at once would.
    struct Reenters(Arc<WaitQueue<u8>>, AtomicUsize);

    impl Wake for Reenters {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            let _ = self.0.join(0);
            self.0.grant(0);
        }
    }

    #[test]
    fn no_lock_is_held_while_wakers_run() {
        let queue = WaitQueue::new();
        let inner = Arc::new(Reenters(Arc::clone(&queue), AtomicUsize::new(0)));
        let waker = Arc::clone(&inner).into();
        let mut waiters: Vec<_> = (0..4).map(|it| queue.join(it).unwrap()).collect();
        for waiter in &mut waiters {
            assert!(Pin::new(waiter).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        queue.grant(1);
        drop(waiters.remove(0));
        queue.wake_all();
        // Once by the grant, once by its passing on, twice by waking the two that still waited.
        assert_eq!(inner.1.load(Ordering::SeqCst), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// A model of the queue: the waiters, their order, and the place of each grant.
        #[test]
        fn grants_given_are_consumed_passed_on_or_unclaimed(
            steps in proptest::collection::vec((0..5_u8, 0..8_u8), 0..200),
        ) {
            let queue = WaitQueue::new();
            let mut waiters: Vec<(u8, usize, Waiter<u8>)> = vec![];
            let (mut given, mut consumed) = (0, 0);
            for (arrival, (step, number)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => waiters.push((number, arrival, queue.join(number).unwrap())),
                    2 => given += queue.grant(usize::from(number % 3)),
                    3 if !waiters.is_empty() => {
                        drop(waiters.swap_remove(usize::from(number) % waiters.len()));
                    }
                    _ if !waiters.is_empty() => {
                        let at = usize::from(number) % waiters.len();
                        if is_ready(&mut waiters[at].2) {
                            consumed += 1;
                            drop(waiters.swap_remove(at));
                        }
                    }
                    _ => {}
                }
                let entries = lock(&queue.entries);
                prop_assert_eq!(given, consumed + entries.granted.len() + entries.unclaimed);
                prop_assert_eq!(entries.waiting.len() + entries.granted.len(), waiters.len());
                prop_assert!(entries.unclaimed == 0 || entries.waiting.is_empty());
            }
            let all = waiters.len();
            waiters.retain_mut(|it| !is_ready(&mut it.2));
            consumed += all - waiters.len();
            waiters.sort_unstable_by_key(|it| (it.0, it.1));
            for (_, _, waiter) in &mut waiters {
                prop_assert!(!is_ready(waiter));
                given += queue.grant(1);
                prop_assert!(is_ready(waiter));
                consumed += 1;
            }
            prop_assert_eq!(given, consumed + queue.reclaim());
        }
    }

    #[test]
    fn threads_lose_no_grant_and_no_wake_up() {
        const EACH: usize = 2_000;
        let queue = WaitQueue::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .unwrap();
        let consumed = Arc::new(AtomicUsize::new(0));
        let mut tasks = vec![];
        for task in 0..4_usize {
            let (queue, consumed) = (Arc::clone(&queue), Arc::clone(&consumed));
            tasks.push(runtime.spawn(async move {
                for i in 0..EACH {
                    let waiter = queue.join((i * 7 + task) % 5).unwrap();
                    if (i + task) % 3 == 0 {
                        let limit = Duration::from_micros((i % 200) as u64);
                        if tokio::time::timeout(limit, waiter).await.is_ok() {
                            consumed.fetch_add(1, Ordering::SeqCst);
                        }
                    } else {
                        waiter.await;
                        consumed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }));
        }
        let mut given = 0;
        while !tasks.iter().all(|it| it.is_finished()) {
            given += queue.grant(1);
            thread::yield_now();
        }
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let entries = lock(&queue.entries);
        assert_eq!((entries.waiting.len(), entries.granted.len()), (0, 0));
        assert_eq!(given, consumed.load(Ordering::SeqCst) + entries.unclaimed);
    }
}
