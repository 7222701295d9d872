//! The permits of one host behind a lock, as requests hold them and wait for them.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::common::opaque::opaque;
use crate::host::limit::aimd::{Aimd, Load};
use crate::host::limit::limited::{Limited, LimitedBy};
use crate::host::limit::queue::{Left, Queue};
use crate::host::limit::{ConcurrencyLimit, Kind, LimitRules, LimitUse};

/// The share of a new duration in the usual one.
const NEW_SHARE: f64 = 0.1;

/// The permits of one host or key, shared by all requests there.
///
/// No lock is held while a waker runs.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// The version of the rules in `state`.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue<Option<Waker>>,
    /// `None` until the limit is an adaptive one; kept while it is fixed.
    aimd: Option<Aimd>,
    is_fixed: bool,
    /// The usual duration of an attempt that succeeds, up to its head.
    usual: Option<Duration>,
}

/// The result of asking for a permit.
#[derive(Debug)]
pub(crate) enum Occupied {
    /// It has to wait.
    Wait(LimitWaiter),
    /// As many as may wait do so already.
    Full,
}

impl State {
    fn adopt(&mut self, rules: &LimitRules) {
        self.is_fixed = matches!(rules.limit.kind, Kind::Fixed(_));
        let limit = match rules.limit.kind {
            Kind::Fixed(limit) => limit,
            Kind::Adaptive(bounds) => {
                let learned = self.aimd.map(|it| it.with_rules(bounds));
                self.aimd.insert(learned.unwrap_or_else(|| Aimd::new(bounds))).permits()
            }
        };
        self.queue.set(limit, rules.order);
    }

    /// Grants all free permits, and returns the wakers of the requests that got them.
    fn grant_all(&mut self, now: impl Fn() -> Instant) -> Vec<Waker> {
        let mut wakers = vec![];
        while self.queue.len() != 0 {
            let Some(waker) = self.queue.grant(now()) else { break };
            wakers.extend(waker);
        }
        wakers
    }
}

impl Limiter {
    pub(crate) fn new(rules: &ConcurrencyLimit) -> Self {
        let queue = Queue::new(1, rules.rules.order);
        let mut state = State { queue, aimd: None, is_fixed: true, usual: None };
        state.adopt(&rules.rules);
        Self { version: AtomicU64::new(rules.version), state: Mutex::new(state) }
    }

    /// Adopts `rules`, unless it has them already. Permits in use stay, and so does what an adaptive
    /// limit has learned, also while a fixed one takes its place.
    #[inline]
    pub(crate) fn adopt(&self, rules: &ConcurrencyLimit) {
        if self.version.load(Ordering::Relaxed) != rules.version {
            self.follow(rules);
        }
    }

    #[cold]
    fn follow(&self, rules: &ConcurrencyLimit) {
        let wakers = {
            let mut state = lock(&self.state);
            state.adopt(&rules.rules);
            self.version.store(rules.version, Ordering::Relaxed);
            state.grant_all(Instant::now)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes a permit if one is free and no request waits.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<LimitPermit> {
        let mut state = lock(&self.state);
        let in_flight = state.queue.acquire().then(|| state.queue.in_flight())?;
        drop(state);
        Some(LimitPermit::new(self, in_flight))
    }

    /// Takes a permit even if none is free: for a probe.
    pub(crate) fn force(self: &Arc<Self>) -> LimitPermit {
        let mut state = lock(&self.state);
        state.queue.force();
        let in_flight = state.queue.in_flight();
        drop(state);
        LimitPermit::new(self, in_flight)
    }

    /// Takes a permit, or a place in the queue for one.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        is_hurried: bool,
        now: Instant,
    ) -> Result<LimitPermit, Occupied> {
        let mut state = lock(&self.state);
        if state.queue.acquire() {
            let in_flight = state.queue.in_flight();
            drop(state);
            return Ok(LimitPermit::new(self, in_flight));
        }
        let place = state.queue.join(None, is_hurried, now);
        drop(state);
        Err(match place {
            Ok(place) => Occupied::Wait(LimitWaiter { limiter: Some(Arc::clone(self)), place }),
            Err(_) => Occupied::Full,
        })
    }

    /// Records what an attempt says about the load of the host; it took `took`. Returns the limit
    /// before and after, if that changed it.
    pub(crate) fn record(
        &self,
        permit: &LimitPermit,
        load: Load,
        took: Duration,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let mut state = lock(&self.state);
        if load == Load::Good {
            let usual = state.usual.map_or(took, |usual| {
                usual.mul_f64(1.0 - NEW_SHARE).saturating_add(took.mul_f64(NEW_SHARE))
            });
            state.usual = Some(usual);
        }
        let before = state.queue.limit();
        let is_fixed = state.is_fixed;
        let aimd = state.aimd.as_mut().filter(|_| !is_fixed)?;
        aimd.record(load, permit.in_flight, took, now);
        let after = aimd.permits();
        if after == before {
            return None;
        }
        state.queue.set_limit(after);
        let wakers = state.grant_all(|| now);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        Some((before, after))
    }

    /// Returns how long a request may wait that has to be done within `left`: its attempt takes a
    /// time, too.
    pub(crate) fn longest_wait(&self, left: Option<Duration>) -> Duration {
        let Some(left) = left else { return Duration::MAX };
        left.saturating_sub(lock(&self.state).usual.unwrap_or_default())
    }

    /// Returns the error of a request that waited `waited` in vain; `unit` is random from 0 to 1.
    pub(crate) fn rejection(&self, waited: Duration, unit: f64) -> Limited {
        let state = lock(&self.state);
        let (limit, queued) = (state.queue.limit(), state.queue.len());
        // The requests that wait go first, as many at a time as the limit allows.
        let rounds = 1.0 + queued as f64 / f64::from(limit.max(1));
        let retry_in = state.usual.map(|it| {
            Duration::try_from_secs_f64(it.as_secs_f64() * rounds * (1.0 + unit / 4.0))
                .unwrap_or(Duration::MAX)
        });
        let bodies = state.queue.bodies();
        Limited(LimitedBy::Concurrency { limit, bodies, queued, waited, retry_in })
    }

    /// Returns limit, permits in use and requests that wait.
    pub(crate) fn usage(&self) -> LimitUse {
        let queue = &lock(&self.state).queue;
        let (limit, in_flight, queued) = (queue.limit(), queue.in_flight(), queue.len());
        LimitUse { limit, in_flight, queued }
    }

    /// Returns whether permits are out, or requested.
    pub(crate) fn is_in_use(&self) -> bool {
        lock(&self.state).queue.in_flight() != 0
    }

    fn release(&self, held_body: bool) {
        let mut state = lock(&self.state);
        state.queue.release(held_body);
        if state.queue.len() == 0 {
            return;
        }
        let wakers = state.grant_all(Instant::now);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A permit; dropping it returns it to its limit, and wakes the next request.
#[must_use = "dropping a permit returns it"]
pub(crate) struct LimitPermit {
    limiter: Arc<Limiter>,
    /// The permits in use when this one was taken, itself included.
    in_flight: u32,
    holds_body: bool,
}

impl LimitPermit {
    fn new(limiter: &Arc<Limiter>, in_flight: u32) -> Self {
        Self { limiter: Arc::clone(limiter), in_flight, holds_body: false }
    }

    /// Returns the limit that it belongs to.
    pub(crate) fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// Records that the response head has arrived: what holds the permit from now on is a body.
    pub(crate) fn with_body(mut self) -> Self {
        if !self.holds_body {
            self.holds_body = true;
            lock(&self.limiter.state).queue.hold_body();
        }
        self
    }
}

impl Drop for LimitPermit {
    fn drop(&mut self) {
        self.limiter.release(self.holds_body);
    }
}

opaque!(LimitPermit { in_flight });

/// A place in the queue, and a future that is ready with a permit.
///
/// Dropping it leaves the queue, at any time; a permit that it was granted goes to the next.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct LimitWaiter {
    /// `None` once ready.
    limiter: Option<Arc<Limiter>>,
    place: u64,
}

impl Future for LimitWaiter {
    type Output = LimitPermit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LimitPermit> {
        let Some(limiter) = self.limiter.take() else { return Poll::Pending };
        // Wakers are cloned and dropped outside of the lock: both run code of the executor.
        let waker = cx.waker().clone();
        let mut state = lock(&limiter.state);
        let replaced = state.queue.replace(self.place, Some(waker));
        if replaced.is_ok() {
            drop(state);
            drop(replaced);
            self.limiter = Some(limiter);
            return Poll::Pending;
        }
        state.queue.take(self.place);
        let in_flight = state.queue.in_flight();
        drop(state);
        Poll::Ready(LimitPermit { limiter, in_flight, holds_body: false })
    }
}

impl Drop for LimitWaiter {
    fn drop(&mut self) {
        let Some(limiter) = self.limiter.take() else { return };
        let left = lock(&limiter.state).queue.leave(self.place);
        if matches!(left, Left::Granted) {
            limiter.release(false);
        }
    }
}

opaque!(LimitWaiter { place });

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::host::limit::Limit;

    fn poll(waiter: &mut LimitWaiter) -> Option<LimitPermit> {
        match Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    fn limiter(limit: u32) -> Arc<Limiter> {
        Arc::new(Limiter::new(&Limit::fixed(limit).into()))
    }

    #[test]
    fn it_is_in_use_while_a_permit_is_out() {
        let limiter = limiter(1);
        assert!(!limiter.is_in_use());
        let permit = limiter.try_acquire().unwrap();
        assert!(limiter.is_in_use());
        assert_eq!(format!("{permit:?}"), "LimitPermit { in_flight: 1, .. }");
        drop(permit);
        assert!(!limiter.is_in_use());
    }

    #[test]
    fn a_rejection_says_when_a_permit_may_be_free() {
        let (limiter, second) = (limiter(2), Duration::from_secs(1));
        assert_eq!(limiter.rejection(second, 0.4).retry_in(), None);
        lock(&limiter.state).usual = Some(2 * second);
        let _held = [limiter.try_acquire(), limiter.try_acquire()];
        let waiter = limiter.acquire(false, Instant::now());
        assert!(format!("{waiter:?}").starts_with("Err(Wait(LimitWaiter { place: "));
        // A round of those that go, a half of those that wait, and a tenth by chance.
        let rejection = limiter.rejection(second, 0.4);
        let retry_in = rejection.retry_in().unwrap().as_secs_f64();
        assert!((retry_in - 2.0 * 1.5 * 1.1).abs() < 1e-6, "{retry_in}");
        assert_eq!(rejection.waited(), second);
    }

    #[test]
    fn a_million_random_drops_leave_permits_exact() {
        let (limiter, now) = (limiter(5), Instant::now());
        let (mut held, mut waiting) = (vec![], vec![]);
        let mut random = 1_u64;
        for _ in 0..1_000_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (step, at) = (random >> 60, (random >> 33) as usize);
            match step {
                0..6 if waiting.len() < 50 => match limiter.acquire(at % 2 == 0, now) {
                    Ok(permit) => held.push(permit),
                    Err(Occupied::Wait(waiter)) => waiting.push(waiter),
                    Err(Occupied::Full) => unreachable!("fifty at most"),
                },
                6..10 if !held.is_empty() => drop(held.swap_remove(at % held.len())),
                // Some of them have a permit and do not know it.
                10..13 if !waiting.is_empty() => drop(waiting.swap_remove(at % waiting.len())),
                _ if !waiting.is_empty() => {
                    let at = at % waiting.len();
                    if let Some(permit) = poll(&mut waiting[at]) {
                        held.push(permit);
                        drop(waiting.swap_remove(at));
                    }
                }
                _ => {}
            }
            assert!(limiter.usage().in_flight <= 5 && held.len() <= 5);
        }
        (held, waiting) = (vec![], vec![]);
        assert_eq!((limiter.usage().in_flight, limiter.usage().queued), (0, 0));
        drop((held, waiting));
    }

    #[test]
    fn threads_lose_no_permit_and_no_wake_up() {
        let limiter = limiter(3);
        let most = Arc::new(AtomicU32::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .unwrap();
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let (limiter, most) = (Arc::clone(&limiter), Arc::clone(&most));
                runtime.spawn(async move {
                    for number in 0..2_000_u64 {
                        let permit = match limiter.acquire(false, Instant::now()) {
                            Ok(permit) => permit,
                            Err(Occupied::Wait(waiter)) if (number + task) % 3 == 0 => {
                                let limit = Duration::from_micros(number % 200);
                                match tokio::time::timeout(limit, waiter).await {
                                    Ok(permit) => permit,
                                    Err(_) => continue,
                                }
                            }
                            Err(Occupied::Wait(waiter)) => waiter.await,
                            Err(Occupied::Full) => unreachable!("eight at most"),
                        };
                        most.fetch_max(limiter.usage().in_flight, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        drop(permit);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!((limiter.usage().in_flight, limiter.usage().queued), (0, 0));
    }
}
