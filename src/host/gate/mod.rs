//! The gate of a host, which holds back requests after a rate limit.
//!
//! Without it each of a hundred requests would find out the rate limit by itself, and all would
//! retry at the same moment. The first such response closes the gate for all; it opens like slow
//! start, oldest request first.

mod opening;
mod rate_limited;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::poll_fn,
    hash::BuildHasher,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::header;
use reqwest::Request;
use tokio::time::sleep_until;

pub(crate) use opening::{Closing, Patience, Throttle};
pub use rate_limited::RateLimited;

use crate::common::clock::Instant;
use crate::common::queue::{MOST_WAITERS, WaitQueue, Waiter};
use opening::{End, Gate, Turn, Visit};

/// The key of the gates of one host.
#[derive(Clone, Default)]
pub(crate) enum GateKey {
    /// A hash of `Authorization`: one tenant's limit does not stop another.
    #[default]
    Authorization,
    /// A key that the caller finds in the request.
    Own(Arc<dyn Fn(&Request) -> String + Send + Sync>),
}

impl fmt::Debug for GateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorization => "Authorization",
            Self::Own(_) => "Own",
        })
    }
}

/// The most gates of one host.
const MOST_GATES: usize = 64;

/// The gates of one host, one per key: so one tenant's limit does not stop another.
///
/// At most 64; open ones and those that open soonest are evicted first. Requests that wait
/// at an evicted gate go on waiting there; new ones do not find it.
#[derive(Default)]
pub(crate) struct HostGates {
    /// `true` if some gate may be closed. Set and cleared under the lock of `gates`.
    is_busy: AtomicBool,
    gates: Mutex<Vec<(u64, Arc<KeyGate>)>>,
    hasher: foldhash::quality::RandomState,
}

impl HostGates {
    /// Returns whether any gate of this host may be closed: one relaxed load. While it is `false`,
    /// no request has to wait and no key is needed.
    #[inline]
    pub(crate) fn is_any_closed(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// Returns the key of a request's gate; 0 without `Authorization`.
    pub(crate) fn key_of(&self, key: &GateKey, request: &Request) -> u64 {
        let hash = |it: &[u8]| self.hasher.hash_one(it).max(1);
        match key {
            GateKey::Own(key_of) => hash(key_of(request).as_bytes()),
            GateKey::Authorization => {
                let authorization = request.headers().get(header::AUTHORIZATION);
                authorization.map_or(0, |it| hash(it.as_bytes()))
            }
        }
    }

    /// Closes the gate of `key` after a response that came just now; `unit` is random from 0 to 1.
    ///
    /// Must be called before the pass of the request is finished, as that would release others.
    /// Returns `None` if a response like this closes no gate.
    pub(crate) fn close(
        &self,
        key: u64,
        now: Instant,
        throttle: Throttle,
        hint: Option<Duration>,
        unit: f64,
    ) -> Option<Closing> {
        let mut gates = lock(&self.gates);
        let found = gates.iter().find(|it| it.0 == key).map(|it| Arc::clone(&it.1));
        let is_new = found.is_none();
        let gate = found.unwrap_or_else(|| Arc::new(KeyGate::new()));
        let closing = lock(&gate.gate).close(now, throttle, hint, unit)?;
        if is_new {
            if gates.len() >= MOST_GATES {
                evict(&mut gates, now);
            }
            gates.push((key, Arc::clone(&gate)));
        }
        self.is_busy.store(true, Ordering::Relaxed);
        drop(gates);
        if closing.concerns_waiters {
            gate.queue.wake_all();
        }
        Some(closing)
    }

    /// Admits a request that arrives now, or gives it a place in the queue of its gate.
    ///
    /// `key` is called only while some gate of the host is closed. `started` is the start of the
    /// logical request: the oldest goes first.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if the gate opens too late for this request or too many wait already.
    #[inline]
    pub(crate) fn enter(
        &self,
        key: impl FnOnce() -> u64,
        started: Instant,
        patience: Patience,
        now: Instant,
    ) -> Result<Entry, RateLimited> {
        if !self.is_any_closed() {
            return Ok(Entry::Pass(GatePass::FREE));
        }
        match self.find(key(), now) {
            Some(gate) => gate.enter(started, patience, now),
            None => Ok(Entry::Pass(GatePass::FREE)),
        }
    }

    #[cfg(test)]
    /// Waits until the request may pass. Like [`enter`](Self::enter) and [`Waiting::wait`].
    ///
    /// Dropping the future at any time leaves the queue.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if the request may not wait, or not for any longer.
    pub(crate) async fn pass(
        &self,
        key: impl FnOnce() -> u64,
        started: Instant,
        patience: Patience,
    ) -> Result<GatePass, RateLimited> {
        if !self.is_any_closed() {
            return Ok(GatePass::FREE);
        }
        match self.enter(key, started, patience, Instant::now())? {
            Entry::Pass(pass) => Ok(pass),
            Entry::Wait(waiting) => waiting.wait().await,
        }
    }

    /// Returns the gate of a key; `None` if it is open. Evicts all gates once all are open.
    fn find(&self, key: u64, now: Instant) -> Option<Arc<KeyGate>> {
        let mut gates = lock(&self.gates);
        let found = gates.iter().find(|it| it.0 == key).map(|it| Arc::clone(&it.1));
        let found = found.filter(|it| !it.is_open(now));
        if found.is_none() && gates.iter().all(|it| it.1.is_open(now)) {
            gates.clear();
            self.is_busy.store(false, Ordering::Relaxed);
        }
        found
    }
}

impl fmt::Debug for HostGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostGates").field("is_busy", &self.is_any_closed()).finish_non_exhaustive()
    }
}

/// Evicts an open gate, or the one that opens soonest.
fn evict(gates: &mut Vec<(u64, Arc<KeyGate>)>, now: Instant) {
    let rank = |gate: &KeyGate| (!gate.is_open(now), lock(&gate.gate).opens_in(now));
    let first = gates.iter().enumerate().min_by_key(|(_, it)| rank(&it.1));
    if let Some((at, _)) = first {
        gates.swap_remove(at);
    }
}

/// One gate and the requests that wait at it.
struct KeyGate {
    /// Locked before the queue. Requests join and are released under it, so that none joins
    /// unnoticed between the two.
    gate: Mutex<Gate>,
    queue: Arc<WaitQueue<Instant>>,
}

impl KeyGate {
    fn new() -> Self {
        Self { gate: Mutex::default(), queue: WaitQueue::new() }
    }

    fn is_open(&self, now: Instant) -> bool {
        lock(&self.gate).is_open(now, self.queue.len())
    }

    fn enter(
        self: Arc<Self>,
        started: Instant,
        patience: Patience,
        now: Instant,
    ) -> Result<Entry, RateLimited> {
        let visit = Visit::new(now, patience);
        let mut gate = lock(&self.gate);
        gate.take_back(self.queue.reclaim());
        let pass = match gate.enter(now, &visit, self.queue.len()) {
            Turn::Free => GatePass::FREE,
            Turn::Released(opening) => GatePass { released: Some((Arc::clone(&self), opening)) },
            Turn::Reject(error) => return Err(error),
            Turn::Wait => {
                let waiter = self.queue.join(started).map_err(|_| gate.full(now, MOST_WAITERS))?;
                let opens_in = gate.opens_in(now);
                drop(gate);
                return Ok(Entry::Wait(Waiting { waiter, visit, opens_in, gate: self }));
            }
        };
        Ok(Entry::Pass(pass))
    }

    /// Releases the requests that may go, and returns their number and the time of the next check.
    fn look(&self, visit: &Visit, now: Instant) -> (usize, Result<Instant, RateLimited>) {
        let mut gate = lock(&self.gate);
        let released = gate.release(now, self.queue.len());
        let granted = self.queue.select(released);
        let next = gate.rejects(now, visit).map_or_else(|| Ok(gate.next_look(now, visit)), Err);
        drop(gate);
        (granted.wake(), next)
    }

    fn finished(&self, opening: u64, end: End, now: Instant) {
        let mut gate = lock(&self.gate);
        let released = gate.finished(now, opening, end, self.queue.len());
        let granted = self.queue.select(released);
        drop(gate);
        granted.wake();
    }
}

/// The result of asking a gate.
#[derive(Debug)]
pub(crate) enum Entry {
    Pass(GatePass),
    Wait(Waiting),
}

/// A request's place at a closed gate; dropping it leaves the queue.
#[must_use = "the request has to wait"]
pub(crate) struct Waiting {
    waiter: Waiter<Instant>,
    visit: Visit,
    opens_in: Duration,
    gate: Arc<KeyGate>,
}

impl Waiting {
    /// Returns the least wait of the request: until the gate opens; zero while it opens.
    pub(crate) fn opens_in(&self) -> Duration {
        self.opens_in
    }

    /// Waits until the request may go.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] once it may not wait any longer: its time is up, or a later hint is too
    /// long.
    pub(crate) async fn wait(mut self) -> Result<GatePass, RateLimited> {
        let mut timer = pin!(sleep_until(self.visit.joined));
        poll_fn(|cx| {
            loop {
                if Pin::new(&mut self.waiter).poll(cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                let (released, next) = self.gate.look(&self.visit, Instant::now());
                if released > 0 && Pin::new(&mut self.waiter).poll(cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                let next = match next {
                    Ok(next) => next,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                timer.as_mut().reset(next);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await?;
        let opening = lock(&self.gate.gate).opening();
        Ok(GatePass { released: Some((Arc::clone(&self.gate), opening)) })
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("opens_in", &self.opens_in).finish_non_exhaustive()
    }
}

/// The pass of one attempt. Its end releases others, also if it is dropped without a result.
#[must_use = "the gate waits for the end of the attempt"]
pub(crate) struct GatePass {
    /// `None` if the gate was open: its end has no effect.
    released: Option<(Arc<KeyGate>, u64)>,
}

impl GatePass {
    /// The pass of an open gate.
    pub(crate) const FREE: Self = Self { released: None };

    /// Reports whether the attempt was good. After a response that closes the gate, close first.
    pub(crate) fn finish(mut self, is_good: bool, now: Instant) {
        if let Some((gate, opening)) = self.released.take() {
            gate.finished(opening, if is_good { End::Good } else { End::Bad }, now);
        }
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        if let Some((gate, opening)) = self.released.take() {
            gate.finished(opening, End::Dropped, Instant::now());
        }
    }
}

impl fmt::Debug for GatePass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatePass").field("is_free", &self.released.is_none()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
