//! Requests that wait at an open breaker, in virtual time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use http::{HeaderValue, StatusCode, header};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BreakerState, CircuitBreaker, Constant, ErrorKind, Event,
    FailureKind, HttpRequestError, Jitter, RequestBuilderExt, ResilientConfig,
    ResilientConfigBuilder, ResponseExt, StopReason, WaitSource, testing::Reply,
};
use tokio::time::{Instant, sleep};

use super::{consecutive, fail, secs};
use crate::support::{URL, fault, scripted};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A breaker that has just opened, for one second.
fn opened() -> CircuitBreaker {
    breaker_with(consecutive(1))
}

fn breaker_with(config: BreakerConfig) -> CircuitBreaker {
    let breaker = CircuitBreaker::new(config.open_for(secs(1))).unwrap();
    fail(&breaker, 1, Instant::now());
    breaker
}

/// Nothing but this breaker; retries follow at once.
fn guarded(breaker: &CircuitBreaker) -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .backoff(Constant::new(Duration::ZERO))
        .jitter(Jitter::None)
        .without_retry_budget()
        .without_gate()
        .circuit_breaker(breaker.clone())
}

/// Returns the result of a request, and its duration.
async fn ask(client: &ClientWithMiddleware) -> (Result<StatusCode, HttpRequestError>, Duration) {
    let start = Instant::now();
    let result = client.get(URL).send_resilient().await;
    (result.map(|it| it.status()), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn requests_beside_a_probe_that_succeeds_return_within_a_tenth_of_a_second_of_it() {
    for callers in [10, 1_000] {
        let config = guarded(&opened()).max_retries(0).build().unwrap();
        let (client, script) = scripted(config, [Reply::status(200).after(millis(50))]);
        let ended = join_all((0..callers).map(|_| ask(&client))).await;
        let mut took: Vec<_> = ended.into_iter().map(|it| (it.0.unwrap(), it.1).1).collect();
        took.sort_unstable();
        assert_eq!(took[0], millis(1_050), "the probe");
        let released = &took[1..];
        let expected = millis(1_100)..=millis(1_200);
        assert!(released.iter().all(|it| expected.contains(it)), "{took:?}");
        let width = released[callers - 2] - released[0];
        assert!(width > millis(30), "they are spread: {width:?}");
        assert_eq!(script.sent().len(), callers);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_probe_that_succeeds_the_next_one_goes_if_more_are_needed() {
    let breaker = breaker_with(consecutive(1).close_after(2));
    let config = guarded(&breaker).max_retries(0).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(200).after(millis(50))]);
    let ended = join_all((0..3).map(|_| ask(&client))).await;
    let longest = ended.into_iter().map(|it| (it.0.unwrap(), it.1).1).max().unwrap();
    assert!(longest < millis(1_500), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_no_longer_than_two_seconds_or_half_its_attempt() {
    type Limit = fn(ResilientConfigBuilder) -> ResilientConfigBuilder;
    let cases: [(Limit, u64, bool); 8] = [
        (|it| it, 2_000, true),
        (|it| it, 2_001, false),
        (|it| it.attempt_timeout(secs(3)), 1_500, true),
        (|it| it.attempt_timeout(secs(3)), 1_501, false),
        (|it| it.attempt_timeout(secs(60)), 2_001, false),
        (|it| it.attempt_timeout(secs(3)).max_open_wait(secs(9)), 9_000, true),
        (|it| it.max_open_wait(Duration::ZERO), 1, false),
        (|it| it.max_total_time(secs(1)), 1_001, false),
    ];
    for (limit, opens_in, waits) in cases {
        let breaker = CircuitBreaker::new(consecutive(1).open_for(millis(opens_in))).unwrap();
        fail(&breaker, 1, Instant::now());
        let (client, script) =
            scripted(limit(guarded(&breaker)).build().unwrap(), [Reply::status(200)]);
        let (result, took) = ask(&client).await;
        assert_eq!((result.is_ok(), script.sent().len()), (waits, usize::from(waits)));
        assert_eq!(took, if waits { millis(opens_in) } else { Duration::ZERO });
        if let Err(error) = result {
            assert!(error.is_circuit_open());
            assert_eq!(error.retry_in(), Some(millis(opens_in)));
            assert!(error.to_string().contains("1 failure in a row"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_takes_long_is_not_waited_for_any_longer() {
    let breaker = breaker_with(consecutive(1).half_open_max_wait(secs(100)));
    let config = guarded(&breaker).max_open_wait(millis(1_500)).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200).after(secs(60))]);
    let (one, two) = tokio::join!(ask(&client), ask(&client));
    let (probe, other) = if one.0.is_ok() { (one, two) } else { (two, one) };
    assert_eq!((probe.0.unwrap(), probe.1), (StatusCode::OK, secs(61)));
    assert!(other.0.unwrap_err().is_circuit_open());
    assert_eq!(other.1, millis(1_500));
    assert_eq!((script.sent().len(), breaker.state()), (1, BreakerState::Closed));
}

/// Probe after probe fails, until the one that the last waiter is.
#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_costs_each_that_waits_a_retry() {
    let breaker = opened();
    let config = guarded(&breaker).max_retries(2).build().unwrap();
    let replies = [Reply::status(503), Reply::status(503), Reply::status(503), Reply::status(200)];
    let (client, script) = scripted(config, replies);
    let logs: Vec<_> = (0..5).map(|_| AttemptLog::new()).collect();
    let ended = join_all(logs.iter().map(async |log| {
        let result = client.get(URL).with_extension(log.clone()).send_resilient().await;
        (result.map(|it| it.status()), Instant::now())
    }))
    .await;
    assert_eq!(script.sent().len(), 3, "probes after one, two and three seconds");
    for ((result, _), log) in ended.iter().zip(&logs) {
        let error = result.as_ref().unwrap_err();
        let turns = log.history().holds().len() as u32 + log.history().total();
        assert!(turns <= 6, "{}", log.history());
        assert!(error.is_circuit_open() || error.status().is_some(), "{error}\n{}", log.history());
    }
    assert_eq!(breaker.snapshot(Instant::now()).permits_out, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_lets_the_next_one_go() {
    let breaker = opened();
    let (client, script) = scripted(
        guarded(&breaker).build().unwrap(),
        [Reply::status(200).after(secs(60)), Reply::status(200)],
    );
    let probe = tokio::time::timeout(millis(1_500), ask(&client));
    let (probe, other) = tokio::join!(probe, async {
        sleep(millis(1)).await;
        ask(&client).await
    });
    assert!(probe.is_err());
    assert_eq!((other.0.unwrap(), other.1), (StatusCode::OK, millis(1_499)));
    assert_eq!((script.sent().len(), breaker.state()), (2, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_change_by_hand_is_heard_by_those_that_wait() {
    type Change = fn(&CircuitBreaker);
    let reset: (Change, bool) = (CircuitBreaker::reset, true);
    let forced: (Change, bool) = (CircuitBreaker::force_open, false);
    for ((change, sends), waits_long) in [(reset, false), (forced, false), (forced, true)] {
        let breaker = opened();
        let config = match waits_long {
            true => ResilientConfig::batch().to_builder().circuit_breaker(breaker.clone()),
            false => guarded(&breaker),
        };
        let (client, script) = scripted(config.build().unwrap(), [Reply::status(200)]);
        // A host that has responded is waited for.
        breaker.reset();
        ask(&client).await.0.unwrap();
        fail(&breaker, 1, Instant::now());
        let ((result, took), ()) = tokio::join!(ask(&client), async {
            sleep(millis(300)).await;
            change(&breaker);
        });
        assert!((millis(300)..=millis(400)).contains(&took), "{took:?}");
        assert_eq!((result.is_ok(), script.sent().len()), (sends, 1 + usize::from(sends)));
        if let Err(error) = result {
            assert_eq!((error.is_circuit_open(), error.retry_in()), (true, None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_are_notified_and_recorded() {
    let told = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&told);
    let config = guarded(&opened()).on_event(move |event| {
        if let Event::HeldBack(it) = event {
            seen.lock().unwrap().push((it.wait, it.source.clone(), event.to_string()));
        }
    });
    let (client, _) = scripted(config.build().unwrap(), [Reply::status(200)]);
    let log = AttemptLog::new();
    client.get(URL).with_extension(log.clone()).send().await.unwrap();
    let text =
        "GET https://api.example.com/data: held back for 1.000s by circuit breaker".to_owned();
    assert_eq!(*told.lock().unwrap(), [(secs(1), WaitSource::CircuitBreaker, text)]);
    assert_eq!(
        log.history().to_string(),
        "-- +0.000s circuit_open, then 1.000s by circuit breaker\n\
         #1 +1.000s 0.000s status 200\n\
         ended: success"
    );
}

/// The retry comes too late: another request has opened the breaker during its backoff.
#[tokio::test(start_paused = true)]
async fn a_retry_that_is_rejected_ends_with_what_came_before() {
    let open_later = || {
        let breaker = CircuitBreaker::new(consecutive(9)).unwrap();
        let config = guarded(&breaker).backoff(Constant::new(secs(1)));
        (breaker, config.build().unwrap())
    };
    let busy = Reply::status(503)
        .header(header::SERVER, HeaderValue::from_static("one"))
        .body("come back later");
    let (breaker, config) = open_later();
    let (client, _) = scripted(config, [busy]);
    let (response, ()) = tokio::join!(client.get(URL).send(), async {
        sleep(millis(500)).await;
        breaker.force_open();
    });
    let response = response.unwrap();
    assert_eq!(
        (response.status(), response.url().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, URL)
    );
    assert_eq!(response.headers()[header::SERVER], "one");
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::CircuitOpen));
    assert_eq!(response.history().unwrap().holds().len(), 1);
    assert_eq!(response.text().await.unwrap(), "come back later");

    let (breaker, config) = open_later();
    let (client, _) = scripted(config, [Reply::error(|| fault::refused().into())]);
    let log = AttemptLog::new();
    let asked = client.get(URL).with_extension(log.clone()).send_resilient();
    let (result, ()) = tokio::join!(asked, async {
        breaker.force_open();
    });
    let error = result.unwrap_err();
    assert_eq!((error.is_circuit_open(), error.attempts()), (true, 1));
    assert_eq!(error.kind(), ErrorKind::Failure(FailureKind::Connect));
}
