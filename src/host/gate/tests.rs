//! Tests of the gate: the machine by itself, then requests in virtual time.

use std::{future::Future, task::Context};

use proptest::{num::f64::ANY, prelude::*};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    opening::{End, Gate, Turn, Visit},
    *,
};
use crate::retry::backoff::{spread, widest_spread};

const SECOND: Duration = Duration::from_secs(1);

const PATIENT: Patience = Patience { wait: Duration::MAX, left: Duration::MAX };

const MINUTE: Patience = Patience { wait: Duration::from_secs(60), left: Duration::MAX };

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A gate closed by a 429 just now, without spread.
fn closed(hint: Duration) -> (Gate, Instant) {
    let (mut gate, now) = (Gate::default(), Instant::now());
    gate.close(now, Throttle::RateLimit, Some(hint), 0.0).unwrap();
    (gate, now)
}

fn enter(gate: &mut Gate, now: Instant, patience: Patience, waiting: usize) -> Turn {
    gate.enter(now, &Visit::new(now, patience), waiting)
}

#[test]
fn open_until_closed() {
    let mut gate = Gate::default();
    assert_eq!(enter(&mut gate, Instant::now(), PATIENT, 0), Turn::Free);
}

#[test]
fn a_rate_limit_holds_for_its_length_up_to_an_hour() {
    for (hint, hold) in [(1, 1), (90, 90), (3590, 3590), (7200, 3600), (u64::MAX, 3600)] {
        let (mut gate, now) = closed(seconds(hint));
        let before = now + seconds(hold) - Duration::from_millis(1);
        assert!(!matches!(enter(&mut gate, before, PATIENT, 0), Turn::Released(_)), "{hint}");
        let turn = enter(&mut gate, now + seconds(hold), MINUTE, 0);
        assert_eq!(turn, Turn::Released(1), "{hint}");
    }
}

#[test]
fn an_outage_holds_for_as_long_as_a_request_would_wait() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    let throttle = Throttle::Unavailable { longest: seconds(60) };
    gate.close(now, throttle, Some(seconds(3600)), 0.0).unwrap();
    // The hint is beyond what this request accepts, though the gate opens sooner.
    let Turn::Reject(error) = enter(&mut gate, now + seconds(1), MINUTE, 0) else { panic!() };
    assert_eq!(error.to_string(), "host is rate limited: asked for 3600 s, next try in 59.0 s");
    // Then one asks again, and the next ones wait for it.
    assert_eq!(enter(&mut gate, now + seconds(60), MINUTE, 0), Turn::Released(1));
    assert_eq!(enter(&mut gate, now + seconds(60), MINUTE, 0), Turn::Wait);
    assert_eq!(gate.close(now, throttle, None, 0.0), None);
}

#[test]
fn a_hint_of_an_hour_is_not_tried_after_a_minute() {
    let (mut gate, now) = closed(seconds(3590));
    gate.close(now + seconds(1), Throttle::RateLimit, Some(seconds(55)), 0.0).unwrap();
    for (at, retry_in) in [(1, 3589), (61, 3529), (3500, 90)] {
        let turn = enter(&mut gate, now + seconds(at), MINUTE, 0);
        let Turn::Reject(error) = turn else { panic!("{turn:?} after {at} s") };
        assert_eq!(error.retry_in(), seconds(retry_in));
        assert_eq!(error.asked_for(), Some(seconds(3590)));
    }
    assert_eq!(enter(&mut gate, now + seconds(3540), MINUTE, 0), Turn::Wait);
}

#[test]
fn rate_limits_without_a_hint_double_until_a_success() {
    let (mut gate, mut now) = (Gate::default(), Instant::now());
    for hold in [1, 2, 4, 8, 16, 30, 30] {
        for late in 0..3 {
            // A burst counts once; a hint of zero says nothing.
            let hint = (late == 1).then_some(Duration::ZERO);
            now += Duration::from_millis(late);
            let closing = gate.close(now, Throttle::RateLimit, hint, 0.0).unwrap();
            assert_eq!(closing.opens_in, seconds(hold));
        }
        now += seconds(hold);
        assert!(matches!(enter(&mut gate, now, PATIENT, 0), Turn::Released(_)));
    }
    gate.finished(now, gate.opening(), End::Good, 0);
    let closing = gate.close(now, Throttle::RateLimit, None, 0.0).unwrap();
    assert_eq!(closing.opens_in, SECOND);
}

#[test]
fn the_spread_is_a_quarter_within_bounds_and_drawn_once() {
    for (hint, widest) in [(100, 250), (1_000, 250), (4_000, 1_000), (60_000, 5_000)] {
        let hint = Duration::from_millis(hint);
        assert_eq!(spread(hint, 1.0), Duration::from_millis(widest));
        assert_eq!(spread(hint, 0.0), Duration::ZERO);
    }
    let (mut gate, now) = (Gate::default(), Instant::now());
    let close = |gate: &mut Gate, at, unit| {
        gate.close(at, Throttle::RateLimit, Some(seconds(4)), unit).unwrap().opens_in
    };
    assert_eq!(close(&mut gate, now, 0.5), Duration::from_millis(4_500));
    assert_eq!(close(&mut gate, now + SECOND, 1.0), Duration::from_millis(4_500));
}

#[test]
fn who_lacks_the_time_is_rejected_at_once() {
    let (mut gate, now) = closed(seconds(2));
    let mut ask = |wait, left| enter(&mut gate, now, Patience { wait, left }, 0);
    let ever = Duration::MAX;
    assert_eq!(ask(seconds(2), ever), Turn::Wait);
    assert!(matches!(ask(SECOND, ever), Turn::Reject(_)));
    assert!(matches!(ask(ever, seconds(2)), Turn::Reject(_)));
    assert_eq!(ask(ever, seconds(3)), Turn::Wait);
}

#[test]
fn opens_like_slow_start_and_remembers_how_many_succeeded() {
    let (mut gate, now) = closed(SECOND);
    let mut at = now + SECOND;
    assert_eq!(gate.release(at, 99), 1);
    assert_eq!(gate.release(at, 98), 0);
    assert_eq!(gate.finished(at, 1, End::Good, 98), 2);
    assert_eq!(gate.finished(at, 1, End::Bad, 96), 1);
    assert_eq!(gate.finished(at, 1, End::Dropped, 95), 1);
    assert_eq!(gate.finished(at, 1, End::Good, 94), 2);
    gate.close(at, Throttle::RateLimit, Some(SECOND), 0.0).unwrap();
    // Late, but a success of that opening.
    assert_eq!(gate.finished(at, 1, End::Good, 92), 0);
    at += SECOND;
    // Half of the three that succeeded.
    assert_eq!(gate.release(at, 92), 2);
    assert_eq!(gate.finished(at, 1, End::Good, 90), 0);
    // Now the limit is known, until clearly more succeed.
    let released: Vec<_> = (0..8).map(|_| gate.finished(at, 2, End::Good, 80)).collect();
    assert_eq!(released, [1, 1, 1, 1, 1, 1, 2, 2]);
}

#[test]
fn none_overtakes_those_that_wait() {
    let (mut gate, now) = closed(SECOND);
    let at = now + SECOND;
    assert_eq!(enter(&mut gate, at, PATIENT, 3), Turn::Wait);
    assert_eq!(gate.release(at, 4), 1);
    assert_eq!(gate.finished(at, 1, End::Good, 3), 2);
    assert_eq!(gate.finished(at, 1, End::Good, 1), 1);
    // The queue is empty, but the opening is not over.
    assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Released(1));
    assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Wait);
    assert_eq!(gate.finished(at, 1, End::Good, 0), 0);
    assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Free);
}

#[test]
fn a_released_request_that_hangs_does_not_hold_all_back() {
    let (mut gate, now) = closed(SECOND);
    assert_eq!(gate.release(now + SECOND, 3), 1);
    assert_eq!(gate.release(now + SECOND * 3 / 2, 2), 0);
    assert_eq!(gate.release(now + SECOND * 2, 2), 1);
    assert_eq!(gate.release(now + SECOND * 2, 1), 0);
}

#[test]
fn a_gate_without_visitors_is_open_after_a_while() {
    let (mut gate, now) = closed(seconds(60));
    assert!(!gate.is_open(now + seconds(119), 0) && gate.is_open(now + seconds(120), 0));
    assert!(!gate.is_open(now + seconds(120), 1));
    // The same if the one that asked ended without a result.
    assert_eq!(enter(&mut gate, now + seconds(60), PATIENT, 0), Turn::Released(1));
    gate.finished(now + seconds(61), 1, End::Dropped, 0);
    assert!(!gate.is_open(now + seconds(61), 0) && gate.is_open(now + seconds(121), 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn none_passes_before_the_longest_hint_is_over(
        hints in proptest::collection::vec((0..10_000_u64, 1..20_000_u64), 1..20),
        (asked, wait, left) in (0..40_000_u64, 0..40_000_u64, 0..40_000_u64),
        unit in ANY,
    ) {
        let (start, millis) = (Instant::now(), Duration::from_millis);
        let mut gate = Gate::default();
        let mut hints = hints;
        hints.sort_unstable();
        for &(came, hint) in &hints {
            gate.close(start + millis(came), Throttle::RateLimit, Some(millis(hint)), unit);
        }
        let until = start + millis(hints.iter().map(|it| it.0 + it.1).max().unwrap_or(0));
        let last = start + millis(hints.iter().map(|it| it.0).max().unwrap_or(0));
        let now = last + millis(asked);
        let patience = Patience { wait: millis(wait), left: millis(left) };
        let visit = Visit::new(now, patience);
        match gate.enter(now, &visit, 0) {
            Turn::Free | Turn::Released(_) => prop_assert!(now >= until),
            Turn::Wait => {
                let opens = gate.next_look(now, &visit);
                prop_assert!(opens >= until && opens <= until + widest_spread(millis(20_000)));
                prop_assert!(until <= now + patience.wait && opens < now + patience.left);
            }
            Turn::Reject(error) => {
                let opens = now + error.retry_in();
                prop_assert!(opens >= until);
                prop_assert!(until > now + patience.wait || opens >= now + patience.left);
            }
        }
    }

    /// Every released request ends in some way, and time goes on: so all that wait are let go.
    #[test]
    fn all_that_wait_are_let_go(
        ends in proptest::collection::vec(0..4_u8, 1..50),
        mut waiting in 1..100_usize,
    ) {
        let (mut gate, mut now) = closed(SECOND);
        let mut running = vec![];
        let mut ends = ends.into_iter();
        for _ in 0..1_000 {
            let (released, opening) = (gate.release(now, waiting), gate.opening());
            waiting -= released;
            running.extend((0..released).map(|_| opening));
            let Some(opening) = running.pop() else {
                if waiting == 0 {
                    break;
                }
                now += SECOND;
                continue;
            };
            let end = match ends.next() {
                Some(0) => End::Bad,
                Some(1) => End::Dropped,
                Some(2) => {
                    gate.close(now, Throttle::RateLimit, Some(SECOND), 0.5);
                    End::Bad
                }
                // Hangs for ever.
                Some(3) => continue,
                _ => End::Good,
            };
            let released = gate.finished(now, opening, end, waiting);
            waiting -= released;
            running.extend((0..released).map(|_| gate.opening()));
        }
        prop_assert_eq!((waiting, running.len()), (0, 0));
    }
}

/// A small generator of random numbers from 0 to 1.
struct Random(Mutex<u64>);

impl Random {
    fn unit(&self) -> f64 {
        let mut state = lock(&self.0);
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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
            let pass = gates.pass(|| 0, start + Duration::from_micros(age), PATIENT).await.unwrap();
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
    assert_eq!(error.to_string(), "host is rate limited: asked for 3590 s, next try in 3590.0 s");
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
                        0 => drop(gates.close(0, now, Throttle::RateLimit, None, random.unit())),
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
        let Entry::Wait(it) = gates.enter(|| 0, start, PATIENT, start).unwrap() else { panic!() };
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
