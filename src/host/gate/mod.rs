//! The gate of a host, which holds back requests after a rate limit.
//!
//! Without it each of a hundred requests would find out the rate limit by itself, and all would
//! retry at the same moment. The first such response closes the gate for all; it opens like slow
//! start, oldest request first.

mod opening;
mod rate_limited;

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::header::{self, HeaderValue};
use reqwest::Request;
use tokio::time::sleep_until;

pub(crate) use opening::{Closing, Patience, Throttle};
pub use rate_limited::RateLimited;

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::common::opaque::opaque;
use crate::common::queue::{MOST_WAITERS, WaitQueue, Waiter};
use crate::common::scope::KeyOf;
use crate::common::stable_hash::fnv1a;
use opening::{End, Gate, Turn, Visit};

/// The key of the gates of one host.
#[derive(Clone, Default)]
pub(crate) enum GateKey {
    /// A hash of `Authorization`: one tenant's limit does not stop another.
    #[default]
    Authorization,
    /// A key that the caller finds in the request.
    Own(KeyOf),
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
        match key {
            GateKey::Own(key_of) => self.hash(key_of(request).as_bytes()),
            GateKey::Authorization => {
                self.key_of_authorization(request.headers().get(header::AUTHORIZATION))
            }
        }
    }

    /// Returns the key of the gate of requests with this `Authorization`.
    pub(crate) fn key_of_authorization(&self, authorization: Option<&HeaderValue>) -> u64 {
        authorization.map_or(0, |it| self.hash(it.as_bytes()))
    }

    /// The same in every process, as a fleet's nodes name gates by it.
    fn hash(&self, key: &[u8]) -> u64 {
        fnv1a(key.iter().copied()).max(1)
    }

    /// Returns how long the gate of a key is closed; zero if it is open, or opens.
    ///
    /// `key` is called only while some gate of the host is closed.
    pub(crate) fn opens_in(&self, key: impl FnOnce() -> u64, now: Instant) -> Duration {
        if !self.is_any_closed() {
            return Duration::ZERO;
        }
        self.find(key(), now).map_or(Duration::ZERO, |it| lock(&it.gate).opens_in(now))
    }

    /// Returns whether the gate of some key holds requests back: it is closed, or opens.
    pub(crate) fn hold_back(&self, now: Instant) -> bool {
        self.is_any_closed() && lock(&self.gates).iter().any(|it| !it.1.is_open(now))
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
        let (gate, closing) =
            self.change(key, now, |gate| gate.close(now, throttle, hint, unit))?;
        if closing.concerns_waiters {
            gate.queue.wake_all();
        }
        Some(closing)
    }

    /// Closes the gate of `key` for `remaining` on another process's word; `unit` is as for `close`.
    pub(crate) fn close_for(&self, key: u64, remaining: Duration, unit: f64, now: Instant) {
        let _ = self.close(key, now, Throttle::Fleet, Some(remaining), unit);
    }

    /// Begins an opening of the gate of `key` though nothing has closed it: the host is back, and the
    /// requests that waited for it go like slow start. A closed gate stays closed.
    pub(crate) fn reopen(&self, key: u64, now: Instant) {
        self.change(key, now, |gate| gate.reopen(now));
    }

    /// Changes the gate of `key`, a new one if there is none; `None` if `change` leaves it as it was.
    fn change<T>(
        &self,
        key: u64,
        now: Instant,
        change: impl FnOnce(&mut Gate) -> Option<T>,
    ) -> Option<(Arc<KeyGate>, T)> {
        let mut gates = lock(&self.gates);
        let found = gates.iter().find(|it| it.0 == key).map(|it| Arc::clone(&it.1));
        let is_new = found.is_none();
        let gate = found.unwrap_or_else(|| Arc::new(KeyGate::new()));
        let changed = change(&mut lock(&gate.gate))?;
        if is_new {
            if gates.len() >= MOST_GATES {
                evict(&mut gates, now);
            }
            gates.push((key, Arc::clone(&gate)));
        }
        self.is_busy.store(true, Ordering::Relaxed);
        Some((gate, changed))
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

    /// Returns whether another process of the fleet heard of the limit.
    pub(crate) fn is_of_fleet(&self) -> bool {
        lock(&self.gate.gate).is_of_fleet()
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

opaque!(Waiting { opens_in });

/// The pass of one attempt. Its end releases others, also if it is dropped without a result.
#[must_use = "the gate waits for the end of the attempt"]
pub(crate) struct GatePass {
    /// `None` if the gate was open: its end has no effect.
    released: Option<(Arc<KeyGate>, u64)>,
}

impl GatePass {
    /// The pass of an open gate.
    pub(crate) const FREE: Self = Self { released: None };

    /// Returns whether the gate was open.
    pub(crate) fn is_free(&self) -> bool {
        self.released.is_none()
    }

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

#[cfg(test)]
mod tests {
    use std::{future::Future, task::Context};

    use tokio::{
        task::JoinSet,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::retry::backoff::widest_spread;

    const SECOND: Duration = Duration::from_secs(1);

    const PATIENT: Patience = Patience { wait: Duration::MAX, left: Duration::MAX };

    const MINUTE: Patience = Patience { wait: Duration::from_secs(60), left: Duration::MAX };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A small generator of random numbers from 0 to 1.
    struct Random(Mutex<u64>);

    impl Random {
        fn unit(&self) -> f64 {
            let mut state = lock(&self.0);
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// A host that takes so many requests a second, in windows fixed by the first.
    struct Host {
        limit: usize,
        hint: Option<Duration>,
        gates: HostGates,
        start: Instant,
        /// The window, and how many it took.
        window: Mutex<(u64, usize)>,
        random: Random,
        /// The mean time to the host or back, in seconds.
        way: f64,
        sends: std::sync::atomic::AtomicUsize,
    }

    impl Host {
        /// One request with at most three retries, which wait at the gate only.
        async fn request(self: Arc<Self>, started: Instant) -> bool {
            for _ in 0..4 {
                let Ok(pass) = self.gates.pass(|| 0, started, MINUTE).await else { return false };
                self.sends.fetch_add(1, Ordering::SeqCst);
                self.travel().await;
                let is_good = {
                    let mut window = lock(&self.window);
                    let number = self.start.elapsed().as_secs();
                    if window.0 != number {
                        *window = (number, 0);
                    }
                    window.1 += 1;
                    window.1 <= self.limit
                };
                self.travel().await;
                let now = Instant::now();
                if !is_good {
                    self.gates.close(0, now, Throttle::RateLimit, self.hint, self.random.unit());
                }
                pass.finish(is_good, now);
                if is_good {
                    return true;
                }
            }
            false
        }

        async fn travel(&self) {
            sleep(Duration::from_secs_f64(self.way * (0.5 + self.random.unit()))).await;
        }
    }

    /// Sends `n` requests at once; returns how many succeeded, how many were sent, how long it took.
    async fn at_once(
        n: usize,
        limit: usize,
        hint: Option<Duration>,
        way: f64,
        seed: u64,
    ) -> (usize, usize, f64) {
        let start = Instant::now();
        let host = Arc::new(Host {
            limit,
            hint,
            gates: HostGates::default(),
            start,
            window: Mutex::new((0, 0)),
            random: Random(Mutex::new(seed)),
            way,
            sends: 0.into(),
        });
        let mut requests = JoinSet::new();
        for i in 0..n {
            requests.spawn(Arc::clone(&host).request(start + Duration::from_micros(i as u64)));
        }
        let good = requests.join_all().await.into_iter().filter(|it| *it).count();
        let is_forgotten = host.gates.find(0, Instant::now()).is_none();
        assert!(is_forgotten && !host.gates.is_any_closed(), "the gate is open at the end");
        (good, host.sends.load(Ordering::SeqCst), start.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_once_keep_to_a_limit_and_succeed() {
        let hint = Some(SECOND);
        for (n, limit, hint, good, sends, time) in [
            (60, 10, hint, 60, 150, 7.0),
            (200, 10, hint, 198, 500, 25.0),
            // All at once, the 200 that come in again, and one too many for each in the first opening.
            (300, 100, hint, 300, 610, 3.0),
            (60, 10, None, 60, 150, 7.0),
        ] {
            for seed in 0..20 {
                let got = at_once(n, limit, hint, 0.002, seed).await;
                let is_met = got.0 >= good && got.1 <= sends && got.2 <= time;
                assert!(is_met, "{n} at {limit}/s, hint {hint:?}, seed {seed}: {got:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_once_succeed_however_far_the_host_is() {
        for (n, limit, way, good, sends, time) in [
            (60, 10, 0.05, 60, 150, 9.0),
            (60, 10, 0.15, 60, 150, 12.0),
            (200, 10, 0.15, 198, 500, 40.0),
        ] {
            for seed in 0..20 {
                let got = at_once(n, limit, Some(SECOND), way, seed).await;
                let is_met = got.0 >= good && got.1 <= sends && got.2 <= time;
                assert!(is_met, "{n} at {limit}/s, {way} s away, seed {seed}: {got:?}");
            }
        }
    }

    /// Released requests that fail, without a hint or dropped, let the others go all the same.
    #[tokio::test(start_paused = true)]
    async fn a_released_request_that_ends_in_any_way_strands_none() {
        for is_dropped in [false, true] {
            let gates = closed_gates(SECOND);
            let start = Instant::now();
            let mut requests = JoinSet::new();
            for _ in 0..100 {
                let gates = Arc::clone(&gates);
                requests.spawn(async move {
                    let pass = gates.pass(|| 0, start, PATIENT).await.unwrap();
                    sleep(Duration::from_millis(10)).await;
                    if is_dropped { drop(pass) } else { pass.finish(false, Instant::now()) }
                });
            }
            requests.join_all().await;
            assert!(start.elapsed() < seconds(4), "{:?}", start.elapsed());
        }
    }

    fn closed_gates(hint: Duration) -> Arc<HostGates> {
        let gates = Arc::new(HostGates::default());
        gates.close(0, Instant::now(), Throttle::RateLimit, Some(hint), 0.0).unwrap();
        gates
    }

    #[tokio::test(start_paused = true)]
    async fn one_tenants_limit_does_not_stop_another() {
        let gates = closed_gates(seconds(10));
        let (start, now) = (Instant::now(), Instant::now());
        let key = |tenant: Option<&str>| {
            let mut request = Request::new(http::Method::GET, "http://a/".parse().unwrap());
            if let Some(tenant) = tenant {
                request.headers_mut().insert(header::AUTHORIZATION, tenant.parse().unwrap());
            }
            gates.key_of(&GateKey::Authorization, &request)
        };
        let [one, other] = ["Bearer 1", "Bearer 2"].map(|it| key(Some(it)));
        assert!(one != other && one != 0 && key(None) == 0);
        assert_eq!(one, key(Some("Bearer 1")));
        assert!(gates.is_any_closed());
        for (key, waits) in [(0, true), (one, false), (other, false)] {
            let entry = gates.enter(|| key, start, PATIENT, now).unwrap();
            assert_eq!(matches!(entry, Entry::Wait(_)), waits);
        }
    }

    #[tokio::test]
    async fn without_a_closed_gate_no_key_is_needed() {
        let gates = HostGates::default();
        let no_key = || panic!("the key is computed");
        gates.pass(no_key, Instant::now(), PATIENT).await.unwrap().finish(true, Instant::now());
        assert!(!gates.is_any_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn gates_are_bounded_and_those_that_wait_at_an_evicted_one_go_on() {
        let gates = closed_gates(SECOND);
        let start = Instant::now();
        let waiting = gates.enter(|| 0, start, PATIENT, start).unwrap();
        for key in 1..200 {
            gates.close(key, start, Throttle::RateLimit, Some(seconds(10 + key)), 0.0).unwrap();
        }
        assert_eq!(lock(&gates.gates).len(), MOST_GATES);
        assert!(gates.find(0, start).is_none() && gates.find(199, start).is_some());
        let Entry::Wait(waiting) = waiting else { panic!() };
        waiting.wait().await.unwrap().finish(true, Instant::now());
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_request_goes_first() {
        let gates = closed_gates(SECOND);
        let start = Instant::now();
        let order = Arc::new(Mutex::new(vec![]));
        let mut requests = JoinSet::new();
        for age in [3_u64, 1, 4, 0, 2] {
            let (gates, order) = (Arc::clone(&gates), Arc::clone(&order));
            requests.spawn(async move {
                let pass =
                    gates.pass(|| 0, start + Duration::from_micros(age), PATIENT).await.unwrap();
                lock(&order).push(age);
                sleep(Duration::from_millis(20)).await;
                pass.finish(true, Instant::now());
            });
        }
        requests.join_all().await;
        assert_eq!(*lock(&order), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_hint_rejects_at_once_those_that_wait() {
        let gates = closed_gates(seconds(30));
        let start = Instant::now();
        let later = Arc::clone(&gates);
        let waits = tokio::spawn(async move { later.pass(|| 0, start, MINUTE).await });
        sleep(SECOND).await;
        gates.close(0, Instant::now(), Throttle::RateLimit, Some(seconds(3590)), 0.0).unwrap();
        let error = waits.await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "host is rate limited: asked for 3590 s, next try in 3590.0 s"
        );
        assert_eq!(start.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn those_behind_others_wait_no_longer_than_they_may() {
        let gates = closed_gates(seconds(4));
        let start = Instant::now();
        let mut requests = JoinSet::new();
        for i in 0..40 {
            let gates = Arc::clone(&gates);
            let wait = seconds(4 + i % 5);
            requests.spawn(async move {
                let patience = Patience { wait, left: seconds(7) };
                let ended = gates.pass(|| 0, start, patience).await;
                let most = (wait + widest_spread(seconds(4))).min(seconds(7));
                assert!(start.elapsed() <= most + Duration::from_millis(2));
                // Hangs.
                sleep(seconds(60)).await;
                ended.is_ok()
            });
        }
        let passed = requests.join_all().await.into_iter().filter(|it| *it).count();
        // One by one, each second.
        assert!((3..=4).contains(&passed), "{passed}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_the_bound() {
        let gates = closed_gates(SECOND);
        let start = Instant::now();
        let enter = || gates.enter(|| 0, start, PATIENT, start);
        let mut waiting: Vec<_> = (0..MOST_WAITERS).map(|_| enter().unwrap()).collect();
        let error = enter().unwrap_err();
        assert_eq!(
            error.to_string(),
            "host is rate limited: asked for 1 s, 10000 requests wait already, next try in 1.0 s"
        );
        waiting.pop();
        assert!(enter().is_ok());
    }

    /// Requests that are cancelled anywhere: waiting, let go, under way.
    #[tokio::test(start_paused = true)]
    async fn all_requests_end_whatever_is_dropped() {
        for seed in 0..200 {
            let gates = closed_gates(SECOND);
            let random = Arc::new(Random(Mutex::new(seed)));
            let start = Instant::now();
            let mut requests = JoinSet::new();
            for i in 0..50 {
                let (gates, random) = (Arc::clone(&gates), Arc::clone(&random));
                requests.spawn(async move {
                    let limit = Duration::from_secs_f64(2.0 * random.unit());
                    let work = async {
                        sleep(Duration::from_secs_f64(random.unit() / 10.0)).await;
                        let started = start + Duration::from_micros(i);
                        let pass = gates.pass(|| 0, started, PATIENT).await.unwrap();
                        sleep(Duration::from_secs_f64(random.unit() / 50.0)).await;
                        let now = Instant::now();
                        match (random.unit() * 8.0) as u8 {
                            0 => _ = gates.close(0, now, Throttle::RateLimit, None, random.unit()),
                            1 => return,
                            _ => {}
                        }
                        pass.finish(random.unit() < 0.7, now);
                    };
                    if i % 2 == 0 { work.await } else { drop(timeout(limit, work).await) }
                });
            }
            timeout(seconds(600), requests.join_all()).await.unwrap();
            let late = Instant::now() + seconds(120);
            assert!(gates.find(0, late).is_none() && !gates.is_any_closed(), "{seed}");
        }
    }

    /// The grant of a dropped request passes to the next one; without a next one, a later closing
    /// of the gate takes it back.
    #[tokio::test(start_paused = true)]
    async fn a_release_that_no_request_takes_is_not_lost_and_opens_no_closed_gate() {
        let gates = closed_gates(SECOND);
        let start = Instant::now();
        let gate = gates.find(0, start).unwrap();
        let mut waiting = vec![];
        for _ in 0..2 {
            let Entry::Wait(it) = gates.enter(|| 0, start, PATIENT, start).unwrap() else {
                panic!()
            };
            waiting.push(it);
        }
        sleep(seconds(2)).await;
        let (released, _) = gate.look(&waiting[0].visit, Instant::now());
        assert_eq!(released, 1);
        drop(waiting.remove(0));
        let pending = pin!(waiting.remove(0).wait());
        let mut pending = pending;
        let pass = pending.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(pass, Poll::Ready(Ok(_))));
        drop(pass);

        let Entry::Pass(pass) = gates.enter(|| 0, start, PATIENT, Instant::now()).unwrap() else {
            panic!()
        };
        let Entry::Wait(last) = gates.enter(|| 0, start, PATIENT, Instant::now()).unwrap() else {
            panic!()
        };
        pass.finish(false, Instant::now());
        drop(last);
        gates.close(0, Instant::now(), Throttle::RateLimit, Some(SECOND), 0.0).unwrap();
        let entry = gates.enter(|| 0, start, PATIENT, Instant::now()).unwrap();
        assert!(matches!(entry, Entry::Wait(_)));
    }
}
