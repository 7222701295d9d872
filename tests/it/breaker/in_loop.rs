//! The breaker inside the loop, in virtual time: what opens it, what it does to requests.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Extensions, HeaderValue, StatusCode, header};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    AttemptLog, BodyFactory, BreakerConfig, BreakerSnapshot, BreakerState, CircuitBreaker,
    CircuitBreakers, Constant, Event, Health, HostStates, HttpRequestError, Jitter,
    RequestBuilderExt, Resilient, ResilientConfig, ResilientConfigBuilder, ResponseExt,
    RetryOverride, StopReason, WaitSource, testing::Reply,
};
use tokio::time::{Instant, timeout};

use super::{consecutive, fail, secs};
use crate::support::{URL, scripted, scripted_on};

const HOST: &str = "https://api.example.com";

/// The loop with nothing but this breaker: waits of one second, without jitter.
fn guarded(breaker: impl Into<CircuitBreakers>) -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .backoff(Constant::new(secs(1)))
        .jitter(Jitter::None)
        .without_retry_budget()
        .without_gate()
        .circuit_breaker(breaker)
}

/// A single breaker that opens after `failures` in a row, for 5 s.
fn breaker(failures: u32) -> CircuitBreaker {
    CircuitBreaker::new(consecutive(failures)).unwrap()
}

fn opened() -> CircuitBreaker {
    let breaker = breaker(1);
    fail(&breaker, 1, Instant::now());
    breaker
}

fn retry_after(status: u16, value: &'static str) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from_static(value))
}

fn stop_reason(response: &Response) -> Option<StopReason> {
    response.history().and_then(|it| it.stop_reason())
}

/// Returns the state of a closed breaker with one earlier failure after one reply.
async fn after_one(
    config: fn(ResilientConfigBuilder) -> ResilientConfigBuilder,
    reply: Reply,
) -> BreakerSnapshot {
    let breaker = breaker(100);
    fail(&breaker, 1, Instant::now());
    let config = config(guarded(breaker.clone()).max_retries(0)).build().unwrap();
    let (client, script) = scripted(config, [reply]);
    let _ = client.get(URL).send().await;
    assert_eq!(script.sent().len(), 1);
    breaker.snapshot(Instant::now())
}

#[tokio::test(start_paused = true)]
async fn it_opens_during_a_request_and_no_more_is_sent() {
    let breaker = breaker(2);
    let config = guarded(breaker.clone()).max_retries(9).max_wait_time(secs(4)).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503).body("sorry")]);
    let start = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(stop_reason(&response), Some(StopReason::CircuitOpen));
    assert_eq!((response.attempts(), script.sent().len(), start.elapsed()), (2, 2, secs(1)));
    assert_eq!(response.text().await.unwrap(), "sorry", "the last answer, in hand");

    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert!(error.is_circuit_open());
    assert_eq!(script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_is_rejected_at_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = |what: &'static str| {
        let told = Arc::clone(&told);
        move || told.lock().unwrap().push(what)
    };
    let (request, retry, failure) = (tell("request"), tell("retry"), tell("failure"));
    let breaker = opened();
    let config = guarded(breaker.clone())
        .on_request(move |_| request())
        .on_retry(move |_| retry())
        .on_failure(move |it| {
            assert_eq!((it.stop_reason, it.attempts), (StopReason::CircuitOpen, 0));
            failure();
        })
        .build()
        .unwrap();
    let (client, script) = scripted(config, [Reply::status(200)]);
    tokio::time::advance(secs(2)).await;
    let start = Instant::now();
    let error = client.get(URL).send().await.unwrap_err();
    let ours = HttpRequestError::find(&error).unwrap();
    assert!(ours.is_circuit_open() && !ours.is_timeout());
    assert_eq!((ours.retry_in(), ours.attempts()), (Some(secs(3)), 0));
    assert_eq!(
        ours.to_string(),
        "GET request to https://api.example.com/data was rejected after 0 attempts: \
         circuit breaker is open: 1 failure in a row; retry in 3.0 s"
    );
    assert_eq!((script.sent().len(), start.elapsed()), (0, Duration::ZERO));
    assert_eq!(*told.lock().unwrap(), ["failure"]);
    assert_eq!(breaker.snapshot(start).window.total, 1, "a rejection is no result");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_is_logged_and_its_body_is_not_made() {
    let (client, script) = scripted(guarded(opened()).build().unwrap(), [Reply::status(200)]);
    let log = AttemptLog::new();
    let off = RetryOverride::new().without_circuit_breaker();
    let sent = client.get(URL).with_extension(off).with_extension(log.clone());
    sent.send().await.unwrap();
    assert_eq!(log.attempts(), 1);

    let body = BodyFactory::new(async || -> Result<_, _> { panic!("nobody will send it") });
    let rejected = client.put(URL).with_extension(body).with_extension(log.clone());
    assert!(rejected.send_resilient().await.unwrap_err().is_circuit_open());
    assert_eq!(log.history().to_string(), "-- +0.000s circuit_open\nended: circuit_open");
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_its_open_time_after_the_backoff() {
    for (backoff, waited) in [(1, Some(secs(4))), (8, None)] {
        let breaker = breaker(1);
        let config = guarded(breaker.clone()).backoff(Constant::new(secs(backoff)));
        let config = config.max_open_wait(secs(4));
        let replies = [Reply::status(503), Reply::status(200)];
        let (client, script) = scripted(config.build().unwrap(), replies);
        let start = Instant::now();
        let response = client.get(URL).send().await.unwrap();
        let took = secs(backoff) + waited.unwrap_or_default();
        assert_eq!((response.status(), start.elapsed()), (StatusCode::OK, took));
        let history = response.history().unwrap();
        assert_eq!(history.attempts()[0].wait, Some((secs(backoff), WaitSource::Backoff)));
        let held = history.holds().first().map(|it| it.wait.clone().unwrap());
        assert_eq!(held, waited.map(|it| (it, WaitSource::CircuitBreaker)));
        assert_eq!((script.sent().len(), breaker.state()), (2, BreakerState::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_not_replaced_at_once_while_it_is_open() {
    let stale = || Reply::status(408).header(header::CONNECTION, HeaderValue::from_static("close"));
    for (failures, waited) in [(2, Duration::ZERO), (1, secs(5))] {
        let config = guarded(breaker(failures)).max_open_wait(secs(4)).build().unwrap();
        let (client, _) = scripted(config, [stale(), Reply::status(200)]);
        let start = Instant::now();
        client.get(URL).send().await.unwrap();
        assert_eq!(start.elapsed(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_response_ends_a_request_that_cannot_wait_for_the_breaker() {
    type Limit = fn(ResilientConfigBuilder) -> ResilientConfigBuilder;
    let cases: [(Limit, StopReason); 6] = [
        (|it| it.max_open_wait(secs(3)), StopReason::CircuitOpen),
        (|it| it.max_total_time(secs(4)), StopReason::CircuitOpen),
        (|it| it.max_total_time(secs(5)), StopReason::CircuitOpen),
        (|it| it.max_total_time(secs(1)), StopReason::CircuitOpen),
        (|it| it.max_retries(0), StopReason::Exhausted),
        (|it| it.max_total_time(secs(6)), StopReason::Success),
    ];
    for (limit, stop) in cases {
        let config = limit(guarded(breaker(1)).max_open_wait(secs(4))).build().unwrap();
        let (client, script) = scripted(config, [Reply::status(503), Reply::status(200)]);
        let start = Instant::now();
        let response = client.get(URL).send().await.unwrap();
        assert_eq!(stop_reason(&response), Some(stop));
        let ended_at_once = script.sent().len() == 1 && start.elapsed().is_zero();
        assert_eq!(ended_at_once, stop != StopReason::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn forced_open_it_ends_a_request_under_way() {
    let breaker = breaker(9);
    let handle = breaker.clone();
    let config = guarded(breaker).on_request(move |_| handle.force_open()).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503)]);
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(stop_reason(&response), Some(StopReason::CircuitOpen));
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!((error.retry_in(), script.sent().len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn each_host_has_its_own() {
    let config = guarded(CircuitBreakers::per_host(consecutive(1))).max_retries(0).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503), Reply::status(200)]);
    client.get("http://down.example/a").send().await.unwrap();
    assert!(client.get("http://down.example/b").send().await.is_err());
    for other in ["https://down.example/", "http://down.example:81/", "http://up.example/"] {
        client.get(other).send().await.unwrap();
    }
    assert_eq!(script.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_asked_for_once_a_request() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let breakers = CircuitBreakers::per_key(consecutive(1), move |request| {
        *count.lock().unwrap() += 1;
        request.url().path().to_owned()
    });
    let config = guarded(breakers).max_retries(0).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200), Reply::status(503)]);
    for (request, sent) in [(1, 1), (2, 2), (3, 2)] {
        let _ = client.get(URL).send().await;
        assert_eq!((*asked.lock().unwrap(), script.sent().len()), (request, sent));
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own() {
    let by_path = |request: &Request| request.url().path().to_owned();
    let breakers = CircuitBreakers::per_key(consecutive(1), by_path);
    let config = guarded(breakers).max_retries(0).build().unwrap();
    let hosts = HostStates::new();
    let (client, script) = scripted_on(&hosts, config, [Reply::status(503), Reply::status(200)]);
    client.get("http://one.example/search").send().await.unwrap();
    assert!(client.get("http://two.example/search").send().await.is_err());
    client.get("http://one.example/pay").send().await.unwrap();
    assert_eq!(script.sent().len(), 2);
    assert_eq!(hosts.breaker("/search").state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_request_may_ask_another_one_or_none() {
    let (client, script) = scripted(guarded(opened()).build().unwrap(), [Reply::status(200)]);
    let other = breaker(1);
    let another = RetryOverride::new().circuit_breaker(other.clone());
    let none = RetryOverride::new().without_circuit_breaker();
    client.get(URL).with_extension(another.clone()).send().await.unwrap();
    client.get(URL).with_extension(none).send().await.unwrap();
    assert!(client.get(URL).send().await.is_err());
    assert_eq!((script.sent().len(), other.snapshot(Instant::now()).window.total), (2, 1));
    other.force_open();
    assert!(client.get(URL).with_extension(another).send().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_says_nothing() {
    let breaker = breaker(1);
    let config = guarded(breaker.clone()).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503).after(secs(3600))]);
    assert!(timeout(secs(9), client.get(URL).send()).await.is_err());
    let snapshot = breaker.snapshot(Instant::now());
    assert_eq!((snapshot.state, snapshot.window.total), (BreakerState::Closed, 0));

    // A cancelled probe neither closes it nor keeps its place.
    fail(&breaker, 1, Instant::now());
    tokio::time::advance(secs(5)).await;
    for _ in 0..3 {
        assert!(timeout(secs(1), client.get(URL).send()).await.is_err());
        let snapshot = breaker.snapshot(Instant::now());
        assert_eq!((snapshot.state, snapshot.probes_out), (BreakerState::HalfOpen, 0));
        assert_eq!(snapshot.permits_out, 0);
    }
    assert_eq!(script.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_counts_and_the_caller_s_deadline_does_not() {
    let hanging = || Reply::status(200).after(secs(3600));
    let snapshot = after_one(|it| it.attempt_timeout(secs(3)), hanging()).await;
    assert_eq!((snapshot.window.failures, snapshot.consecutive_failures), (2, 2));
    let snapshot = after_one(|it| it.max_total_time(secs(3)), hanging()).await;
    assert_eq!((snapshot.window.failures, snapshot.consecutive_failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_proof_of_life_and_server_errors_of_none() {
    for status in [200, 204, 304, 400, 401, 403, 404, 409, 410, 422] {
        let snapshot = after_one(|it| it, Reply::status(status)).await;
        let counted = (snapshot.window.total, snapshot.consecutive_failures);
        assert_eq!(counted, (2, 0), "{status}");
    }
    for status in [408, 500, 501, 502, 503, 504, 599] {
        let snapshot = after_one(|it| it, Reply::status(status)).await;
        let counted = (snapshot.window.failures, snapshot.consecutive_failures);
        assert_eq!(counted, (2, 2), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_is_neutral() {
    let snapshot = after_one(|it| it, Reply::status(429)).await;
    assert_eq!((snapshot.window.total, snapshot.consecutive_failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn broken_connections_count_and_errors_of_other_middleware_do_not() {
    let broken = Reply::io_error(io::ErrorKind::ConnectionReset);
    assert_eq!(after_one(|it| it, broken).await.consecutive_failures, 2);
    let foreign = || reqwest_middleware::Error::middleware(io::Error::other("no token"));
    assert_eq!(after_one(|it| it, Reply::error(foreign)).await.window.total, 1);
}

#[tokio::test(start_paused = true)]
async fn breaker_health_decides_what_an_outcome_says() {
    let judged = |it: ResilientConfigBuilder| {
        it.breaker_health(|outcome| match outcome.status()?.as_u16() {
            404 => Some(Health::Failure),
            503 => Some(Health::Success),
            _ => None,
        })
    };
    for (status, total, consecutive) in [(404, 2, 2), (503, 2, 0), (200, 1, 1)] {
        let snapshot = after_one(judged, Reply::status(status)).await;
        assert_eq!((snapshot.window.total, snapshot.consecutive_failures), (total, consecutive));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_lengthens_the_open_time() {
    for (hint, open) in [("30", secs(30)), ("3", secs(5)), ("3600", secs(60))] {
        let breaker = breaker(1);
        let config = guarded(breaker.clone()).max_retries(0).build().unwrap();
        let (client, _) = scripted(config, [retry_after(503, hint)]);
        client.get(URL).send().await.unwrap();
        assert_eq!(breaker.snapshot(Instant::now()).retry_in, Some(open), "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn its_jitter_is_drawn_from_where_all_jitter_is() {
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1).open_for(secs(4))).unwrap();
    let config = guarded(breaker.clone()).max_retries(0).random(|| 0.5).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    assert_eq!(breaker.snapshot(Instant::now()).retry_in, Some(Duration::from_millis(4_500)));
}

/// A client that was redirected: responds as if the request had ended at another URL.
struct Redirected(&'static str, u16);

#[async_trait::async_trait]
impl Middleware for Redirected {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let answer = http::Response::builder().status(self.1).url(Url::parse(self.0).unwrap());
        Ok(answer.body("").unwrap().into())
    }
}

fn redirected(
    hosts: &HostStates,
    breaker: impl Into<CircuitBreakers>,
    to: &'static str,
    status: u16,
) -> ClientWithMiddleware {
    let config = guarded(breaker).max_retries(0).build().unwrap();
    ClientBuilder::new(crate::support::idle_client())
        .with(Resilient::new(config).with_hosts(hosts.clone()))
        .with(Redirected(to, status))
        .build()
}

/// Results and failures in a row.
fn counted(breaker: &CircuitBreaker) -> (u32, u32) {
    let snapshot = breaker.snapshot(Instant::now());
    (snapshot.window.total, snapshot.consecutive_failures)
}

const CDN: &str = "https://cdn.example";

#[tokio::test(start_paused = true)]
async fn after_a_redirect_both_hosts_hear_of_a_failure() {
    let hosts = HostStates::new();
    let config = guarded(consecutive(2)).build().unwrap();
    let (client, _) = scripted_on(&hosts, config, [Reply::status(200)]);
    client.get(CDN).send().await.unwrap();

    let client = redirected(&hosts, consecutive(2), "https://cdn.example/file", 503);
    client.get(URL).send().await.unwrap();
    assert_eq!(counted(&hosts.breaker(HOST)), (1, 1));
    assert_eq!(counted(&hosts.breaker(CDN)), (2, 1));

    client.get(URL).send().await.unwrap();
    assert_eq!(hosts.breaker(CDN).state(), BreakerState::Open);
    assert_eq!(hosts.breaker(HOST).state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn after_a_redirect_to_a_host_that_was_never_asked_the_one_that_was_asked_is_blamed() {
    let hosts = HostStates::new();
    let client = redirected(&hosts, consecutive(2), "https://cdn.example/file", 503);
    client.get(URL).send().await.unwrap();
    assert_eq!(counted(&hosts.breaker(HOST)), (1, 1));
    assert_eq!(hosts.snapshot(Instant::now()).len(), 1, "the other one is not kept");
}

#[tokio::test(start_paused = true)]
async fn after_a_redirect_a_success_is_that_of_both_hosts() {
    let hosts = HostStates::new();
    fail(&hosts.breaker(CDN), 1, Instant::now());
    let client = redirected(&hosts, consecutive(2), "https://cdn.example/file", 200);
    client.get(URL).send().await.unwrap();
    assert_eq!(counted(&hosts.breaker(HOST)), (1, 0));
    assert_eq!(counted(&hosts.breaker(CDN)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_redirect_within_a_host_counts_once() {
    let hosts = HostStates::new();
    let client = redirected(&hosts, consecutive(9), "https://api.example.com/login", 503);
    for _ in 0..3 {
        client.get(URL).send().await.unwrap();
    }
    assert_eq!(counted(&hosts.breaker(HOST)), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_single_breaker_is_one_for_redirects_too() {
    let (hosts, breaker) = (HostStates::new(), breaker(9));
    let client = redirected(&hosts, breaker.clone(), "https://cdn.example/file", 503);
    client.get(URL).send().await.unwrap();
    assert_eq!(counted(&breaker), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn there_is_one_by_default_and_none_in_the_python_library_s_defaults() {
    let sent = async |config: ResilientConfig, pause: Duration| {
        let (client, script) = scripted(config, [Reply::status(503)]);
        let once = RetryOverride::new().max_retries(0);
        for _ in 0..9 {
            let _ = client.get(URL).with_extension(once.clone()).send().await;
            tokio::time::advance(pause).await;
        }
        script.sent().len()
    };
    let tenth = Duration::from_millis(100);
    assert_eq!(sent(ResilientConfig::default(), tenth).await, 9, "two seconds have not passed");
    // It opens at the fifth failure, 2.4 s after the first, and is open for a second or a little
    // more: of the next four requests the first one is rejected, or two.
    let at_once = ResilientConfig::builder().max_open_wait(Duration::ZERO).build().unwrap();
    let sends = sent(at_once, 6 * tenth).await;
    assert!((6..=8).contains(&sends), "{sends}");
    assert_eq!(sent(ResilientConfig::aresilient(), 6 * tenth).await, 9);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_by_the_thousand_find_one_outage() {
    let breaker = CircuitBreaker::new(BreakerConfig::default().max_probes(1)).unwrap();
    let told = Arc::new(Mutex::new(0));
    let failures = Arc::clone(&told);
    let config = guarded(breaker.clone())
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .on_event(move |event| {
            *failures.lock().unwrap() += u32::from(matches!(event, Event::GaveUp(_)));
        })
        .build()
        .unwrap();
    let (client, script) = scripted(config, [Reply::status(503)]);
    for _ in 0..1_000 {
        let _ = client.get(URL).send().await;
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    // The requests of two seconds open it; in the eight that follow, probes come 1 to 2 s apart.
    assert!((204..=207).contains(&script.sent().len()), "{}", script.sent().len());
    assert_eq!(*told.lock().unwrap(), 1_000, "each of them is told");
}
