//! The circuit breaker on its own: its promises, and the defects of others it must not have.

mod by_hand;
mod defects;
mod in_loop;
mod model;
mod waiting;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest_resilient::{
    BreakerConfig, BreakerState, ChangeReason, CircuitBreaker, CircuitBreakers, Health, HostStates,
    Percent, StateChange, Window, testing::Reply,
};
use tokio::time::Instant;

use crate::support::{scripted_on, steady};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Opens after `failures` in a row, for exactly 5 s.
fn consecutive(failures: u32) -> BreakerConfig {
    fixed(BreakerConfig::consecutive(failures))
}

/// The same rule, with every opening exactly 5 s long.
fn fixed(config: BreakerConfig) -> BreakerConfig {
    config.open_for(secs(5)).without_open_growth().without_open_jitter()
}

/// Opens at half of at least 20 results in 10 s, and after 5 failures in a row while there are
/// fewer, for exactly 5 s.
fn joined() -> BreakerConfig {
    let window = Window::Time(secs(10));
    fixed(BreakerConfig::failure_rate(Percent::HALF, window).or_consecutive_while_few(5))
}

fn report(breaker: &CircuitBreaker, health: Health, times: u32, now: Instant) {
    for _ in 0..times {
        breaker.try_enter(now).unwrap().exit(health, None, now);
    }
}

fn fail(breaker: &CircuitBreaker, times: u32, now: Instant) {
    report(breaker, Health::Failure, times, now);
}

fn succeed(breaker: &CircuitBreaker, times: u32, now: Instant) {
    report(breaker, Health::Success, times, now);
}

fn log(breaker: CircuitBreaker) -> (CircuitBreaker, Arc<Mutex<Vec<StateChange>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let push = move |change: &StateChange| log.lock().unwrap().push(change.clone());
    breaker.on_state_change(push);
    (breaker, told)
}

#[test]
fn default_opens_after_two_seconds_without_success_and_five_failures() {
    let now = Instant::now();
    for failures in [4, 100] {
        let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
        fail(&breaker, failures, now);
        let just_before = now + secs(2) - Duration::from_nanos(1);
        succeed(&breaker, 1, just_before);
        fail(&breaker, 4, now + secs(2));
        assert_eq!(breaker.state(), BreakerState::Closed, "a success starts it over");
        fail(&breaker, 1, now + secs(4) - Duration::from_nanos(1));
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1, now + secs(4));
        assert_eq!(breaker.state(), BreakerState::Open);
    }
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    for second in [0, 1, 2, 3] {
        fail(&breaker, 1, now + secs(second));
        assert_eq!(breaker.state(), BreakerState::Closed, "{} failures", second + 1);
    }
    fail(&breaker, 1, now + secs(4));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn joined_rule_opens_on_few_failures_in_a_row_and_on_half_of_many() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(joined()).unwrap();
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(), BreakerState::Closed);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Open);

    let breaker = CircuitBreaker::new(joined()).unwrap();
    succeed(&breaker, 20, now);
    fail(&breaker, 19, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "19 of 39, however many in a row");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Open, "20 of 40");
}

#[test]
fn open_time_is_jittered_upward_by_a_quarter_at_most() {
    let now = Instant::now();
    let times: Vec<Duration> = (0..200)
        .map(|_| {
            let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
            fail(&breaker, 1, now);
            breaker.try_enter(now).unwrap_err().retry_in().unwrap()
        })
        .collect();
    let most = Duration::from_millis(1_250);
    assert!(times.iter().all(|&time| time >= secs(1) && time <= most), "{times:?}");
    assert!(times.iter().max() > times.iter().min(), "all the same: {times:?}");
}

#[test]
fn rejection_says_why_it_opened_and_for_how_long() {
    let now = Instant::now();
    let window = Window::Time(secs(10));
    let rate = fixed(BreakerConfig::failure_rate(Percent::HALF, window));
    let step = Duration::from_millis(1);
    let slow = fixed(BreakerConfig::slow_call_rate(step, Percent::HALF, window));
    let sustained = fixed(BreakerConfig::sustained(step, 2));
    for (config, succeeded, failed, reason, text) in [
        (consecutive(1), 9, 1, ChangeReason::ConsecutiveFailures, "1 failure in a row"),
        (rate, 8, 12, ChangeReason::FailureRate, "12 of 20 calls failed"),
        (slow, 19, 1, ChangeReason::SlowCallRate, "20 of 20 calls were slow"),
        (sustained, 1, 2, ChangeReason::Sustained, "no success for 0.0 s, 2 failures"),
    ] {
        let (breaker, told) = log(CircuitBreaker::new(config).unwrap());
        let mut at = now;
        for i in 0..succeeded + failed {
            let permit = breaker.try_enter(at).unwrap();
            at += step;
            permit.exit(if i < succeeded { Health::Success } else { Health::Failure }, None, at);
        }
        let rejected = breaker.try_enter(at).unwrap_err();
        assert_eq!((rejected.cause().reason, rejected.cause().failures), (reason, failed));
        let expected = format!("circuit breaker is open: {text}; retry in 5.0 s");
        assert_eq!(rejected.to_string(), expected);
        let change = told.lock().unwrap()[0].clone();
        assert_eq!(
            change.to_string(),
            format!("circuit breaker: closed to open ({reason}: {text})")
        );
        assert_eq!(change.cause, Some(rejected.cause()));
    }
}

#[test]
fn promised_time_is_exact() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    fail(&breaker, 1, now);
    let retry_in = breaker.try_enter(now).unwrap_err().retry_in().unwrap();
    assert!(breaker.try_enter(now + retry_in - Duration::from_nanos(1)).is_err());
    assert!(breaker.try_enter(now + retry_in).is_ok());
}

#[test]
fn retry_after_lengthens_the_opening_it_came_with() {
    let now = Instant::now();
    for (hint, open) in [(secs(1), secs(5)), (secs(40), secs(40)), (secs(86_400), secs(60))] {
        let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
        breaker.try_enter(now).unwrap().exit(Health::Failure, Some(hint), now);
        assert_eq!(breaker.try_enter(now).unwrap_err().retry_in(), Some(open));
    }
}

#[test]
fn open_time_grows_up_to_its_bound_and_shrinks_after_a_close() {
    let mut now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1).open_growth(2.0, secs(12))).unwrap();
    for open in [5, 10, 12, 12] {
        fail(&breaker, 1, now);
        let retry_in = breaker.try_enter(now).unwrap_err().retry_in().unwrap();
        assert_eq!(retry_in, secs(open));
        now += retry_in;
    }
    succeed(&breaker, 1, now);
    fail(&breaker, 1, now);
    assert_eq!(breaker.try_enter(now).unwrap_err().retry_in(), Some(secs(5)));
}

#[test]
fn growing_open_time_stays_within_its_bound_with_jitter() {
    let mut now = Instant::now();
    let config = BreakerConfig::consecutive(1).open_for(secs(5)).open_growth(3.0, secs(60));
    let breaker = CircuitBreaker::new(config).unwrap();
    for _ in 0..40 {
        fail(&breaker, 1, now);
        let retry_in = breaker.try_enter(now).unwrap_err().retry_in().unwrap();
        assert!(retry_in >= secs(5) && retry_in <= secs(60), "{retry_in:?}");
        now += retry_in;
    }
}

#[test]
fn absurd_times_do_not_overflow() {
    let now = Instant::now();
    let config = BreakerConfig::consecutive(1)
        .open_for(Duration::MAX)
        .open_growth(f64::MAX, Duration::MAX)
        .max_retry_after(Duration::MAX)
        .half_open_max_wait(Duration::MAX);
    let breaker = CircuitBreaker::new(config).unwrap();
    breaker.try_enter(now).unwrap().exit(Health::Failure, Some(Duration::MAX), now);
    assert_eq!(breaker.try_enter(now).unwrap_err().retry_in(), Some(Duration::MAX));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn throttled_is_neutral() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(3)).unwrap();
    fail(&breaker, 2, now);
    report(&breaker, Health::Throttled, 10, now);
    assert_eq!(breaker.snapshot(now).consecutive_failures, 2, "neither continued nor reset");
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Open);
    let later = now + secs(5);
    report(&breaker, Health::Throttled, 10, later);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "a throttled probe only frees its place");
    succeed(&breaker, 1, later);
    assert_eq!(breaker.state(), BreakerState::Closed);

    for config in [BreakerConfig::default(), joined()] {
        let breaker = CircuitBreaker::new(config).unwrap();
        report(&breaker, Health::Throttled, 20, now);
        report(&breaker, Health::Throttled, 20, now + secs(3));
        let snapshot = breaker.snapshot(now + secs(3));
        assert_eq!((snapshot.state, snapshot.window.total), (BreakerState::Closed, 0));
        assert_eq!((snapshot.last_failure, snapshot.permits_out), (None, 0));
    }
}

#[test]
fn slow_calls_open_it_and_a_slow_probe_that_succeeds_closes_it() {
    let now = Instant::now();
    let config = consecutive(1_000).or_slow_calls(secs(2), Percent::HALF).min_samples(4);
    let breaker = CircuitBreaker::new(config).unwrap();
    succeed(&breaker, 2, now);
    for _ in 0..2 {
        breaker.try_enter(now).unwrap().success(now + secs(2));
    }
    let now = now + secs(2);
    assert_eq!(breaker.state(), BreakerState::Open);
    let probe = breaker.try_enter(now + secs(5)).unwrap();
    probe.success(now + secs(7));
    assert_eq!(breaker.state(), BreakerState::Closed, "the service is back, if not yet fast");
}

#[test]
fn while_a_probe_runs_the_rejection_says_when_to_ask_again() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    fail(&breaker, 1, now);
    let now = now + secs(5);
    let probe = breaker.try_enter(now).unwrap();
    assert_eq!(breaker.try_enter(now).unwrap_err().retry_in(), Some(secs(5)));
    assert_eq!(breaker.try_enter(now + secs(28)).unwrap_err().retry_in(), Some(secs(2)));
    drop(probe);
    assert!(breaker.try_enter(now + secs(28)).is_ok());
}

#[test]
fn changes_are_notified_in_order_with_their_reasons() {
    let now = Instant::now();
    let (breaker, told) = log(CircuitBreaker::new(consecutive(1)).unwrap());
    fail(&breaker, 1, now);
    fail(&breaker, 1, now + secs(5));
    succeed(&breaker, 1, now + secs(10));
    breaker.force_open();
    breaker.force_open();
    breaker.disable();
    breaker.metrics_only();
    breaker.reset();
    breaker.reset();
    use BreakerState::*;
    use ChangeReason::*;
    let told: Vec<_> =
        told.lock().unwrap().iter().map(|change| (change.from, change.to, change.why)).collect();
    assert_eq!(
        told,
        [
            (Closed, Open, ConsecutiveFailures),
            (Open, HalfOpen, OpenTimeOver),
            (HalfOpen, Open, ProbesFailed),
            (Open, HalfOpen, OpenTimeOver),
            (HalfOpen, Closed, ProbesSucceeded),
            (Closed, ForcedOpen, Manual),
            (ForcedOpen, Disabled, Manual),
            (Disabled, MetricsOnly, Manual),
            (MetricsOnly, Closed, Manual),
        ]
    );
}

#[test]
fn manual_states_hold_until_another_command() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();

    breaker.force_open();
    let rejected = breaker.try_enter(now + secs(1_000_000)).unwrap_err();
    assert_eq!((rejected.retry_in(), rejected.cause().reason), (None, ChangeReason::Manual));
    assert_eq!(rejected.to_string(), "circuit breaker is forced open");

    breaker.disable();
    fail(&breaker, 100, now);
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.window.total), (BreakerState::Disabled, 0));

    breaker.metrics_only();
    fail(&breaker, 100, now);
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.window.failures), (BreakerState::MetricsOnly, 100));

    breaker.reset();
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.window.failures), (BreakerState::Closed, 0));
    assert_eq!(snapshot.last_failure, None);
}

#[test]
fn panicking_observer_is_harmless() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    breaker.on_state_change(|_| panic!("observer"));
    let (breaker, told) = log(breaker);
    fail(&breaker, 1, now);
    succeed(&breaker, 1, now + secs(5));
    assert_eq!(told.lock().unwrap().len(), 3);
}

/// Asks for `url` once, which fails; the hosts that are then known.
async fn hosts_after_a_failure(breaker: impl Into<CircuitBreakers>, url: &str) -> HostStates {
    let hosts = HostStates::new();
    let config = steady().max_retries(0).circuit_breaker(breaker).build().unwrap();
    let (client, _) = scripted_on(&hosts, config, [Reply::status(503)]);
    client.get(url).send().await.unwrap();
    hosts
}

#[tokio::test(start_paused = true)]
async fn hosts_are_apart_and_userinfo_is_no_part_of_them() {
    let now = Instant::now();
    let url = "http://user:secret@a.example/x?token=1";
    let hosts = hosts_after_a_failure(consecutive(1), url).await;
    let config = steady().max_retries(0).circuit_breaker(consecutive(1)).build().unwrap();
    let (client, _) = scripted_on(&hosts, config, [Reply::status(200)]);
    for same in ["http://a.example:80/y", "http://user:secret@a.example", "http://b@a.example/"] {
        assert!(client.get(same).send().await.is_err(), "{same}");
    }
    for other in ["https://a.example/", "http://a.example:81/", "http://b.example/"] {
        client.get(other).send().await.unwrap();
    }
    let keys: BTreeSet<_> = hosts.snapshot(now).iter().map(|it| it.key.to_string()).collect();
    let expected =
        ["http://a.example", "http://a.example:81", "http://b.example", "https://a.example"];
    assert!(keys.iter().eq(expected.iter()), "{keys:?}");
    assert_eq!(hosts.breaker("http://a.example").state(), BreakerState::Open);
    hosts.reset();
    assert!(hosts.snapshot(now).iter().all(|one| one.state == BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn keys_come_from_the_request_and_a_single_breaker_has_none() {
    let url = "http://a.example/tenant/7";
    let by_path = CircuitBreakers::per_key(consecutive(1), |it| it.url().path().to_owned());
    let hosts = hosts_after_a_failure(by_path, url).await;
    assert_eq!(hosts.breaker("/tenant/7").state(), BreakerState::Open);
    assert_eq!(hosts.breaker("/tenant/8").state(), BreakerState::Closed);

    let hosts = hosts_after_a_failure(CircuitBreakers::shared(consecutive(1)), url).await;
    assert_eq!(hosts.breaker("").state(), BreakerState::Open);

    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    let hosts = hosts_after_a_failure(breaker.clone(), url).await;
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(hosts.snapshot(Instant::now()).len(), 0, "it stays the caller's");
}

#[test]
fn hosts_are_bounded_and_an_open_breaker_is_evicted_last() {
    let now = Instant::now();
    let hosts = HostStates::with_max_hosts(10);
    fail(&hosts.breaker("down"), 4, now);
    fail(&hosts.breaker("down"), 1, now + secs(2));
    for n in 0..500 {
        succeed(&hosts.breaker(&n.to_string()), 1, now);
    }
    assert_eq!(hosts.snapshot(now).len(), 10);
    assert_eq!(hosts.breaker("down").state(), BreakerState::Open);
}

#[test]
fn neither_permit_nor_report_allocates() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(joined()).unwrap();
    let allocations = |work: &dyn Fn()| allocation_counter::measure(work).count_total;
    succeed(&breaker, 1, now);
    assert_eq!(allocations(&|| succeed(&breaker, 1_000, now)), 0, "calm");
    assert_eq!(allocations(&|| fail(&breaker, 1, now)), 0, "no longer calm");
    assert_eq!(allocations(&|| drop(breaker.try_enter(now).unwrap())), 0, "cancelled");
    fail(&breaker, 1_000, now);
    assert_eq!(allocations(&|| assert!(breaker.try_enter(now).is_err())), 0, "rejected");
}

#[test]
fn a_success_finds_what_the_passing_of_time_has_done_to_the_rate() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(joined().min_samples(4)).unwrap();
    succeed(&breaker, 5, now);
    let later = now + secs(5);
    fail(&breaker, 4, later);
    succeed(&breaker, 1, later);
    assert_eq!(breaker.state(), BreakerState::Closed, "4 of 10");
    let later = now + secs(10);
    assert_eq!(breaker.snapshot(later).window.failures, 4);
    assert_eq!(breaker.state(), BreakerState::Closed, "4 of 5, but looking changes nothing");
    succeed(&breaker, 1, later);
    assert_eq!(breaker.state(), BreakerState::Open, "4 of 6");
}

#[test]
fn successes_of_many_threads_are_all_counted() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| succeed(&breaker, 10_000, now));
        }
    });
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.window.total, snapshot.permits_out), (80_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_a_third_of_them_dropped_leave_nothing_behind() {
    let config = joined().open_for(Duration::from_millis(1)).max_probes(3).close_after(2);
    let breaker = CircuitBreaker::new(config).unwrap();
    let tasks: Vec<_> = (0..10_000_u32)
        .map(|n| {
            let breaker = breaker.clone();
            let call = async move {
                let Ok(permit) = breaker.try_enter(Instant::now()) else { return };
                assert!(breaker.snapshot(Instant::now()).probes_out <= 3);
                for _ in 0..n % 5 {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_micros((n % 13 * 100).into())).await;
                let health = if n % 7 < 4 { Health::Failure } else { Health::Success };
                permit.exit(health, None, Instant::now());
            };
            tokio::spawn(async move {
                if n % 3 == 0 {
                    let cut = Duration::from_micros(u64::from(n % 11) * 100);
                    let _cancelled = tokio::time::timeout(cut, call).await;
                } else {
                    call.await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let now = Instant::now();
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.permits_out, snapshot.probes_out), (0, 0));
    assert!(snapshot.generation > 0, "it never opened");

    // The breaker recovers from every resulting state, once the window is over.
    let later = now + secs(3_600);
    for _ in 0..2 {
        breaker.try_enter(later).unwrap().success(later);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}
