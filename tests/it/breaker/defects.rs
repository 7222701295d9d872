//! Defects found in other circuit breakers, one test each, named after where they were found.

use std::sync::{Arc, OnceLock};

use reqwest_resilient::{
    BreakerConfig, BreakerState, CircuitBreaker, Health, HostStates, Percent, Window,
};
use tokio::time::{Duration, Instant};

use super::{consecutive, fail, fixed, log, report, secs, succeed};

fn last(results: u16) -> Window {
    Window::Count(results)
}

/// Opened at `now`; a probe may run 5 s later.
fn opened(config: BreakerConfig, failures: u32, now: Instant) -> CircuitBreaker {
    let breaker = CircuitBreaker::new(config).unwrap();
    fail(&breaker, failures, now);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

#[test]
fn tower_resilience_1_count_window_slides() {
    let now = Instant::now();
    let breaker =
        CircuitBreaker::new(BreakerConfig::failure_rate(Percent::HALF, last(10))).unwrap();
    succeed(&breaker, 1_000, now);
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(), BreakerState::Closed);
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn tower_resilience_2_reset_while_closed_clears_counts() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(5)).unwrap();
    fail(&breaker, 4, now);
    breaker.reset();
    fail(&breaker, 4, now);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.snapshot(now).window.failures, 4);
}

#[test]
fn tower_resilience_3_probes_further_apart_than_the_window_close_it() {
    let now = Instant::now();
    let window = Window::Time(Duration::from_millis(100));
    let breaker = opened(consecutive(1).window(window).close_after(3), 1, now);
    for nth in 1..=3 {
        succeed(&breaker, 1, now + secs(5 * nth));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn tower_resilience_4_late_results_do_not_decide_recovery() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1).close_after(2)).unwrap();
    let late = [breaker.try_enter(now).unwrap(), breaker.try_enter(now).unwrap()];
    fail(&breaker, 1, now);
    let now = now + secs(5);
    let probe = breaker.try_enter(now).unwrap();
    for permit in late {
        permit.success(now);
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    probe.failure(now);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn tower_resilience_5_hanging_calls_open_it() {
    let breaker = CircuitBreaker::new(consecutive(3)).unwrap();
    for _ in 0..3 {
        // The permit is outside the call, so that the code around a timeout can report it.
        let permit = breaker.try_enter(Instant::now()).unwrap();
        let hung = tokio::time::timeout(secs(1), std::future::pending::<()>()).await;
        assert!(hung.is_err());
        permit.failure(Instant::now());
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn tower_resilience_6_each_change_names_the_state_it_leaves() {
    let now = Instant::now();
    let (breaker, told) = log(CircuitBreaker::new(consecutive(1)).unwrap());
    fail(&breaker, 1, now);
    fail(&breaker, 1, now + secs(5));
    succeed(&breaker, 1, now + secs(10));
    // A gauge fed by this lowers `from` and raises `to`: never two states at a time.
    let mut state = BreakerState::Closed;
    for change in told.lock().unwrap().iter() {
        assert_eq!(change.from, state);
        state = change.to;
    }
    assert_eq!(state, breaker.state());
}

#[test]
fn failsafe_rs_1_half_open_does_not_admit_everyone() {
    let now = Instant::now();
    let breaker = opened(consecutive(1).max_probes(3), 1, now);
    let later = now + secs(5);
    let admitted: Vec<_> = (0..20).filter_map(|_| breaker.try_enter(later).ok()).collect();
    assert_eq!(admitted.len(), 3);
}

#[test]
fn failsafe_rs_2_state_can_be_read_and_changes_carry_data() {
    let now = Instant::now();
    let (breaker, told) = log(HostStates::new().breaker("https://example.com"));
    fail(&breaker, 4, now);
    fail(&breaker, 1, now + secs(2));
    let snapshot = breaker.snapshot(now + secs(2));
    assert_eq!(snapshot.state, BreakerState::Open);
    assert!(snapshot.retry_in.is_some_and(|it| (secs(1)..=secs(2)).contains(&it)));
    assert_eq!(&*told.lock().unwrap()[0].key, "https://example.com");
}

#[test]
fn failsafe_rs_3_late_failures_do_not_prolong_the_opening() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    let late = breaker.try_enter(now).unwrap();
    fail(&breaker, 1, now);
    late.failure(now + secs(4));
    let snapshot = breaker.snapshot(now + secs(5));
    assert_eq!((snapshot.consecutive_failures, snapshot.last_failure), (1, Some(now.into_std())));
    assert!(breaker.try_enter(now + secs(5)).is_ok());
}

#[test]
fn failsafe_rs_4_no_full_window_is_needed_after_start_or_recovery() {
    let mut now = Instant::now();
    let window = Window::Time(secs(30));
    let config = fixed(BreakerConfig::failure_rate(Percent::HALF, window));
    let breaker = CircuitBreaker::new(config).unwrap();
    for _ in 0..2 {
        fail(&breaker, 20, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        now += secs(5);
        succeed(&breaker, 1, now);
    }
}

#[test]
fn failsafe_rs_5_windows_may_be_shorter_than_a_second() {
    let now = Instant::now();
    let zero = BreakerConfig::failure_rate(Percent::HALF, Window::Time(Duration::ZERO));
    assert!(CircuitBreaker::new(zero).is_err());
    for span in [Duration::from_millis(500), Duration::from_nanos(3)] {
        let config = BreakerConfig::failure_rate(Percent::HALF, Window::Time(span));
        let breaker = CircuitBreaker::new(config).unwrap();
        fail(&breaker, 19, now);
        assert_eq!(breaker.snapshot(now + span + span + secs(1)).window.total, 0);
        fail(&breaker, 20, now + secs(2));
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}

#[test]
fn failsafe_rs_6_open_times_are_fine_grained_and_never_shortened() {
    let now = Instant::now();
    for _ in 0..100 {
        let time = Duration::from_millis(150);
        let config = BreakerConfig::consecutive(1).open_for(time);
        let breaker = opened(config, 1, now);
        let retry_in = breaker.try_enter(now).unwrap_err().retry_in().unwrap();
        assert!(retry_in >= time && retry_in <= time * 5 / 4, "{retry_in:?}");
    }
}

#[test]
fn failsafe_rs_7_observer_may_call_back() {
    let now = Instant::now();
    let myself: Arc<OnceLock<CircuitBreaker>> = Arc::default();
    let handle = Arc::clone(&myself);
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    breaker.on_state_change(move |change| {
        let breaker = handle.get().unwrap();
        assert_eq!(breaker.snapshot(now).state, change.to);
        match change.to {
            BreakerState::Open => breaker.force_open(),
            BreakerState::ForcedOpen => breaker.reset(),
            _ => {}
        }
    });
    let (breaker, told) = log(breaker);
    myself.set(breaker.clone()).unwrap();
    fail(&breaker, 1, now);
    assert_eq!(breaker.state(), BreakerState::Closed);
    let to: Vec<_> = told.lock().unwrap().iter().map(|change| change.to).collect();
    assert_eq!(to, [BreakerState::Open, BreakerState::ForcedOpen, BreakerState::Closed]);
}

#[test]
fn polly_cancelled_probe_does_not_close_the_circuit() {
    let now = Instant::now();
    let breaker = opened(consecutive(1), 1, now);
    drop(breaker.try_enter(now + secs(5)).unwrap());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.snapshot(now + secs(5)).probes_out, 0);
    fail(&breaker, 1, now + secs(5));
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn resilience4j_12_stale_failure_neither_reopens_nor_adds_places() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    let stale = [breaker.try_enter(now).unwrap(), breaker.try_enter(now).unwrap()];
    fail(&breaker, 1, now);
    let later = now + secs(5);
    let _probe = breaker.try_enter(later).unwrap();
    let [reported, dropped] = stale;
    reported.failure(later);
    drop(dropped);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.try_enter(later).is_err());
}

#[test]
fn resilience4j_13_lost_probe_does_not_block_half_open() {
    let now = Instant::now();
    let breaker = opened(consecutive(1), 1, now);
    let lost = breaker.try_enter(now + secs(5)).unwrap();
    assert!(breaker.try_enter(now + secs(34)).is_err());
    let probe = breaker.try_enter(now + secs(35)).unwrap();
    assert!(breaker.try_enter(now + secs(35)).is_err(), "its place was freed once");
    lost.failure(now + secs(36));
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "a replaced probe cannot open it");
    probe.success(now + secs(36));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// A healthy service that takes 40 s would otherwise leave it half-open for ever: each probe is
/// replaced before its response comes.
#[test]
fn resilience4j_13_a_service_slower_than_the_wait_for_probes_closes_it() {
    let now = Instant::now();
    let slow = consecutive(1).or_slow_calls(secs(2), Percent::HALF);
    for config in [consecutive(1), slow, consecutive(1).close_unless(Percent::HALF, 1)] {
        let breaker = opened(config, 1, now);
        let probe = breaker.try_enter(now + secs(5)).unwrap();
        let second = breaker.try_enter(now + secs(35)).unwrap();
        probe.success(now + secs(45));
        assert_eq!(breaker.state(), BreakerState::Closed);
        second.failure(now + secs(46));
        assert_eq!(breaker.state(), BreakerState::Closed, "that is of another generation");
    }
}

#[test]
fn resilience4j_14_half_open_waits_for_all_its_probes() {
    let now = Instant::now();
    let config = consecutive(1).min_samples(2).close_unless(Percent::HALF, 10);
    let breaker = opened(config, 1, now);
    let later = now + secs(5);
    succeed(&breaker, 2, later);
    fail(&breaker, 4, later);
    succeed(&breaker, 3, later);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "9 of 10");
    succeed(&breaker, 1, later);
    assert_eq!(breaker.state(), BreakerState::Closed, "4 of 10 failed");
}

#[test]
fn resilience4j_15_a_clock_that_steps_back_neither_empties_nor_prolongs() {
    let now = Instant::now() + secs(3_600);
    let window = Window::Time(secs(10));
    let config = fixed(BreakerConfig::failure_rate(Percent::HALF, window));
    let breaker = CircuitBreaker::new(config).unwrap();
    fail(&breaker, 19, now);
    assert_eq!(breaker.snapshot(now - secs(3_000)).window.total, 19);
    fail(&breaker, 1, now);
    assert_eq!(breaker.try_enter(now - secs(3_000)).unwrap_err().retry_in(), Some(secs(5)));
    assert!(breaker.try_enter(now + secs(5)).is_ok());
}

#[test]
fn failsafe_go_2_cancelled_hedge_loser_is_no_failure() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    let loser = breaker.try_enter(now).unwrap();
    succeed(&breaker, 1, now);
    drop(loser);
    let snapshot = breaker.snapshot(now);
    assert_eq!((snapshot.state, snapshot.window.total), (BreakerState::Closed, 1));
}

#[test]
fn failsafe_go_8_rates_are_not_rounded() {
    let now = Instant::now();
    let config = BreakerConfig::failure_rate(Percent::HALF, last(200)).min_samples(200);
    let breaker = CircuitBreaker::new(config).unwrap();
    succeed(&breaker, 101, now);
    fail(&breaker, 99, now);
    assert_eq!(breaker.state(), BreakerState::Closed, "99 of 200 are not half");
}

#[test]
fn failsafe_go_9_places_do_not_inflate() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(consecutive(1).max_probes(3)).unwrap();
    let stale: Vec<_> = (0..2).map(|_| breaker.try_enter(now).unwrap()).collect();
    fail(&breaker, 1, now);
    let later = now + secs(5);
    let probes: Vec<_> = (0..3).map(|_| breaker.try_enter(later).unwrap()).collect();
    for permit in stale {
        permit.success(later);
    }
    assert!(breaker.try_enter(later).is_err());
    assert_eq!(breaker.snapshot(later).probes_out, 3);
    drop(probes);
}

#[test]
fn gobreaker_22_a_key_is_local_and_needs_no_turn() {
    let now = Instant::now();
    let hosts = HostStates::new();
    let calls: Vec<_> = (0..20).map(|_| hosts.breaker("a").try_enter(now).unwrap()).collect();
    assert_eq!(hosts.breaker("a").snapshot(now).permits_out, 20, "none waits for another");
    for permit in calls {
        permit.exit(Health::Success, None, now);
    }
    assert_eq!(hosts.breaker("a").snapshot(now).window.total, 20, "none is lost");
}

#[test]
fn gobreaker_23_forgotten_probe_is_replaced() {
    let now = Instant::now();
    let breaker = opened(consecutive(1), 1, now);
    std::mem::forget(breaker.try_enter(now + secs(5)).unwrap());
    assert!(breaker.try_enter(now + secs(5)).is_err());
    report(&breaker, Health::Success, 1, now + secs(35));
    assert_eq!(breaker.state(), BreakerState::Closed);
}
