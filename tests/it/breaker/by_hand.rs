//! Breakers that are set by hand, and what a snapshot counts.

use std::time::{Duration, Instant};

use reqwest_resilient::{BreakerConfig, BreakerState, CircuitBreaker, Percent, Window};

#[test]
fn rejections_are_counted() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    breaker.try_enter(now).unwrap().failure(now);
    for _ in 0..3 {
        breaker.try_enter(now).unwrap_err();
    }
    assert!(breaker.rejection(now).is_some(), "asking is no call");
    assert_eq!(breaker.snapshot(now).rejections, 3);
    breaker.reset();
    breaker.try_enter(now).unwrap().success(now);
    assert_eq!(breaker.snapshot(now).rejections, 3);
}

#[test]
fn a_breaker_that_only_measures_tells_how_often_it_would_have_opened() {
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(3)).unwrap();
    let mut now = Instant::now();
    breaker.metrics_only();
    let prevented = |now| {
        let snapshot = breaker.snapshot(now);
        (snapshot.would_have_opened, snapshot.would_open_by.map(|it| it.to_string()))
    };
    let fail = |times, now| (0..times).for_each(|_| breaker.try_enter(now).unwrap().failure(now));
    fail(2, now);
    assert_eq!(prevented(now), (0, None));
    fail(2, now);
    assert_eq!(prevented(now), (1, Some("3 failures in a row".into())), "it would be open now");
    now += Duration::from_secs(1);
    fail(1, now);
    assert_eq!(prevented(now), (2, Some("5 failures in a row".into())));
    assert_eq!(breaker.state(), BreakerState::MetricsOnly);
    breaker.reset();
    assert_eq!(prevented(now), (0, None));
}

#[test]
fn a_breaker_that_only_measures_counts_no_outage_that_a_closed_one_would_not() {
    let start = Instant::now();
    for measures in [false, true] {
        let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
        if measures {
            breaker.metrics_only();
        }
        // After a pause of more than 20 s old failures are no evidence.
        let hours = (0..9).map(|it| start + it * Duration::from_secs(3_600));
        hours.for_each(|now| breaker.try_enter(now).unwrap().failure(now));
        assert_ne!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.snapshot(start).would_have_opened, 0, "measures: {measures}");
    }
}

#[test]
fn successes_that_fill_a_window_would_open_a_breaker_that_only_measures() {
    let window = Window::Time(Duration::from_secs(100));
    let config = BreakerConfig::failure_rate(Percent::HALF, window).min_samples(4);
    let breaker = CircuitBreaker::new(config).unwrap();
    breaker.metrics_only();
    let now = Instant::now();
    for fails in [true, true, false, false] {
        let permit = breaker.try_enter(now).unwrap();
        if fails { permit.failure(now) } else { permit.success(now) }
    }
    assert_eq!(breaker.snapshot(now).would_have_opened, 1);
}

#[test]
fn a_breaker_is_opened_by_hand_for_a_time() {
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let now = Instant::now();
    let minute = Duration::from_secs(60);
    breaker.open_for(minute, now);
    let open = breaker.try_enter(now + Duration::from_secs(20)).unwrap_err();
    assert_eq!(open.to_string(), "circuit breaker is open: opened by hand; retry in 40 s");
    breaker.open_for(2 * minute, now);
    assert_eq!(breaker.snapshot(now).retry_in, Some(2 * minute), "in place of the first");
    let later = now + 2 * minute;
    breaker.try_enter(later).unwrap().success(later);
    assert_eq!(breaker.state(), BreakerState::Closed);
}
