//! The loop, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{io, time::Duration};

use http::{Extensions, HeaderValue, StatusCode, header};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_resilient::testing::{Reply, Script, SentRequest};
use reqwest_resilient::{
    AttemptLog, BodyFactory, BreakerConfig, BreakerState, CircuitBreaker, Constant, Delivery,
    FailureKind, HttpRequestError, IdempotencyKey, Jitter, RequestBuilderExt, Resilient,
    ResilientConfig, ResponseExt, RetryMethods, RetryOverride, StopReason, WaitSource,
};
use tokio::time::Instant;

use crate::support::{URL, idle_client, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

fn retry_after(status: u16, value: &'static str) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from_static(value))
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_survived() {
    let (client, script) = scripted(
        steady().build().unwrap(),
        [
            Reply::status(503),
            Reply::io_error(io::ErrorKind::ConnectionReset),
            Reply::status(200).body("here"),
        ],
    );
    let start = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.attempts(), 3);
    let history = response.history().unwrap().clone();
    assert_eq!(history.attempts()[0].wait, Some((SECOND, WaitSource::Backoff)));
    assert_eq!(history.attempts()[1].result, Err(FailureKind::Disconnect));
    assert_eq!(history.stop_reason(), Some(StopReason::Success));
    assert_eq!(response.text().await.unwrap(), "here");
    assert_eq!((script.sent().len(), start.elapsed()), (3, 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_last_response_is_returned_as_by_reqwest() {
    let (client, script) = scripted(steady().build().unwrap(), [Reply::status(503)]);
    let response = client.get(URL).send().await.unwrap();
    assert_eq!((response.status(), script.sent().len()), (StatusCode::SERVICE_UNAVAILABLE, 4));
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn send_resilient_returns_an_error_with_all_details() {
    let (client, _) = scripted(steady().build().unwrap(), [Reply::status(503).body("sorry")]);
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "GET request to https://api.example.com/data failed with status 503 after 4 attempts"
    );
    assert_eq!((error.attempts(), error.elapsed()), (4, 3 * SECOND));
    assert_eq!(error.stop_reason(), StopReason::Exhausted);
    assert_eq!(error.history().attempts().len(), 4);
    assert_eq!(error.into_response().unwrap().text().await.unwrap(), "sorry");
}

#[tokio::test(start_paused = true)]
async fn a_post_that_may_have_been_processed_is_not_sent_again() {
    let attempts = async |reply: Reply, methods: RetryMethods| {
        let (client, script) = scripted(steady().retry_methods(methods).build().unwrap(), [reply]);
        let _ = client.post(URL).body("once").send().await;
        script.sent().len()
    };
    let reset = || Reply::io_error(io::ErrorKind::ConnectionReset);
    let refused = || Reply::io_error(io::ErrorKind::ConnectionRefused);
    let guarded = RetryMethods::Idempotent;
    assert_eq!(attempts(Reply::status(503), guarded.clone()).await, 1);
    assert_eq!(attempts(Reply::status(500), guarded.clone()).await, 1);
    assert_eq!(attempts(reset(), guarded.clone()).await, 1);
    assert_eq!(attempts(refused(), guarded.clone()).await, 4);
    assert_eq!(attempts(Reply::status(429), guarded.clone()).await, 4);
    assert_eq!(attempts(Reply::status(425), guarded.clone()).await, 4);
    assert_eq!(attempts(retry_after(503, "1"), guarded).await, 1);
    assert_eq!(attempts(reset(), RetryMethods::All).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_a_floor_and_one_too_long_ends_the_request() {
    let check = async |value, sent, waited| {
        let config = steady().max_wait_time(60 * SECOND).build().unwrap();
        let (client, script) = scripted(config, [retry_after(503, value), Reply::status(200)]);
        let start = Instant::now();
        client.get(URL).send().await.unwrap();
        assert_eq!((script.sent().len(), start.elapsed()), (sent, waited), "{value}");
    };
    check("30", 2, 30 * SECOND).await;
    check("0", 2, SECOND).await;
    check("60", 2, 60 * SECOND).await;
    check("61", 1, Duration::ZERO).await;
    check("99999999999999999999999", 1, Duration::ZERO).await;
    check("-5", 2, SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_cuts_an_attempt_under_way() {
    let config = steady().max_total_time(3 * SECOND).build().unwrap();
    let (client, script) =
        scripted(config, [Reply::status(503), Reply::status(200).after(3600 * SECOND)]);
    let start = Instant::now();
    let error = client.get(URL).send().await.unwrap_err();
    let ours = HttpRequestError::find(&error).unwrap();
    assert!(ours.is_deadline() && ours.is_timeout());
    assert_eq!((ours.attempts(), script.sent().len()), (2, 2));
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(
        ours.to_string(),
        "GET request to https://api.example.com/data timed out after 3 s (max_total_time), 2 attempts"
    );
}

#[tokio::test(start_paused = true)]
async fn no_wait_begins_that_would_end_too_late() {
    let config = steady().max_total_time(SECOND).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503)]);
    let start = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Deadline));
    assert_eq!((script.sent().len(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_is_retried_and_reported() {
    let config = steady().attempt_timeout(2 * SECOND).max_retries(1).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(200).after(3600 * SECOND)]);
    let start = Instant::now();
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_deadline());
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(error.history().attempts()[0].delivery, Delivery::MaybeProcessed);
    assert!(
        error.to_string().ends_with("timed out after 2 s (attempt timeout), 2 attempts"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn our_limits_never_loosen_the_request_s_own_timeout() {
    let timeouts = async |own, total| {
        let config = steady().max_total_time(total).build().unwrap();
        let (client, script) = scripted(config, [Reply::status(200)]);
        client.get(URL).timeout(own).send().await.unwrap();
        script.sent()[0].timeout.unwrap()
    };
    assert_eq!(timeouts(2 * SECOND, 9 * SECOND).await, 2 * SECOND);
    assert_eq!(timeouts(9 * SECOND, 2 * SECOND).await, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_innermost_override_wins_setting_by_setting() {
    let (client, script) = scripted(steady().build().unwrap(), [Reply::status(503)]);
    let outer = RetryOverride::new().max_retries(5).backoff(Constant::new(3 * SECOND));
    let inner = RetryOverride::new().max_retries(1);
    let own = RetryOverride::new().backoff(Constant::new(7 * SECOND));
    let start = Instant::now();
    outer
        .scope(inner.scope(async {
            client.get(URL).with_extension(own).send().await.unwrap();
            assert_eq!((script.sent().len(), start.elapsed()), (2, 7 * SECOND));
            client.get(URL).send().await.unwrap();
            assert_eq!((script.sent().len(), start.elapsed()), (4, 10 * SECOND));
        }))
        .await;
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), start.elapsed()), (8, 13 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_impossible_override_is_refused_before_anything_is_sent() {
    let (client, script) = scripted(steady().build().unwrap(), [Reply::status(200)]);
    let wrong =
        RetryOverride::new().max_wait_time(Duration::ZERO).jitter(Jitter::Proportional(f64::NAN));
    let error = client.get(URL).with_extension(wrong).send_resilient().await.unwrap_err();
    assert_eq!((script.sent().len(), error.attempts()), (0, 0));
    let source = std::error::Error::source(&error).unwrap();
    let faults = source.downcast_ref::<reqwest_resilient::ConfigError>().unwrap();
    assert_eq!(
        faults.to_string(),
        "jitter must be finite, got NaN; max_wait_time must be > 0, got 0ns"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_callback_changes_nothing() {
    let seen = Arc::new(Mutex::new(vec![]));
    let tell = |what: &'static str| {
        let seen = Arc::clone(&seen);
        move || {
            seen.lock().unwrap().push(what);
            panic!("in a callback");
        }
    };
    let (request, retry, success) = (tell("request"), tell("retry"), tell("success"));
    let config = steady()
        .on_request(move |_| request())
        .on_retry(move |_| retry())
        .on_success(move |_| success())
        .build()
        .unwrap();
    let (client, script) = scripted(config, [Reply::status(503), Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), 2);
    assert_eq!(*seen.lock().unwrap(), ["request", "retry", "request", "success"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_within_the_attempt_can_be_judged() {
    let config = steady()
        .read_body(1024)
        .retry_if(|it| it.body().is_some_and(|body| body.starts_with(b"pending")))
        .build()
        .unwrap();
    let (client, script) = scripted(
        config,
        [Reply::status(200).body("pending"), Reply::status(200).body("x".repeat(2000))],
    );
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.url().as_str(), URL);
    assert_eq!(response.text().await.unwrap(), "x".repeat(2000));
    assert_eq!(script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_records_a_successful_first_attempt() {
    let (client, _) = scripted(steady().build().unwrap(), [Reply::status(200)]);
    let log = AttemptLog::new();
    let response = client.get(URL).with_extension(log.clone()).send().await.unwrap();
    assert_eq!((log.attempts(), response.attempts()), (1, 1));
    assert_eq!(log.history().to_string(), "#1 +0.000s 0.000s status 200\nended: success");
}

#[tokio::test(start_paused = true)]
async fn two_layers_do_not_multiply() {
    let check = async |reply: Reply| {
        let script = Script::new([reply]);
        let client = ClientBuilder::new(idle_client())
            .with(Resilient::new(steady().build().unwrap()))
            .with(Resilient::new(steady().max_retries(2).build().unwrap()))
            .with(script.clone())
            .build();
        let _ = client.get(URL).send().await;
        script.sent().len()
    };
    assert_eq!(check(Reply::status(503)).await, 3);
    assert_eq!(check(Reply::io_error(io::ErrorKind::ConnectionReset)).await, 3);
}

/// Adds a signature that is good for one attempt.
struct Sign(AtomicUsize);

#[async_trait::async_trait]
impl Middleware for Sign {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let nonce = self.0.fetch_add(1, Ordering::Relaxed);
        request.headers_mut().append("x-signature", nonce.into());
        next.run(request, extensions).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_middleware_inside_signs_each_attempt_anew() {
    let script = Script::new([Reply::status(503), Reply::status(503), Reply::status(200)]);
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(steady().build().unwrap()))
        .with(Sign(AtomicUsize::new(7)))
        .with(script.clone())
        .build();
    client.put(URL).body("once").send().await.unwrap();
    let signatures = |it: &SentRequest| -> Vec<HeaderValue> {
        it.headers.get_all("x-signature").iter().cloned().collect()
    };
    let sent: Vec<_> = script.sent().iter().map(signatures).collect();
    assert_eq!(sent, [["7"], ["8"], ["9"]]);
}

#[tokio::test(start_paused = true)]
async fn a_body_made_anew_is_sent_each_time() {
    let made = Arc::new(Mutex::new(0));
    let count = Arc::clone(&made);
    let upload = BodyFactory::new(move || {
        let count = Arc::clone(&count);
        async move {
            *count.lock().unwrap() += 1;
            Ok(format!("part {}", count.lock().unwrap()).into())
        }
    });
    let (client, script) =
        scripted(steady().build().unwrap(), [Reply::status(503), Reply::status(200)]);
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, io::Error>("x")]));
    client.put(URL).body(stream).with_extension(upload).send().await.unwrap();
    let bodies: Vec<_> = script.sent().into_iter().map(|it| it.body.unwrap()).collect();
    assert_eq!(bodies, ["part 1", "part 2"]);
}

#[tokio::test(start_paused = true)]
async fn one_key_serves_all_attempts_of_a_request() {
    let config = steady().idempotency_key(IdempotencyKey::random()).build().unwrap();
    let (client, script) = scripted(
        config,
        [Reply::status(500), Reply::status(409), Reply::status(201), Reply::status(409)],
    );
    client.post(URL).send().await.unwrap();
    client.post(URL).send().await.unwrap();
    let key = |it: &SentRequest| it.headers["idempotency-key"].clone();
    let keys: Vec<_> = script.sent().iter().map(key).collect();
    assert_eq!((&keys[0], &keys[0]), (&keys[1], &keys[2]));
    // The first response to another request: a conflict like any other.
    assert_eq!(keys.len(), 4);
    assert_ne!(keys[0], keys[3]);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_request_is_final_even_if_the_body_is_gone() {
    let config = steady().retry_statuses([StatusCode::UNPROCESSABLE_ENTITY]).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(422)]);
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, io::Error>("x")]));
    let request = client.post(URL).header("idempotency-key", "mine").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Final));
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_before_is_no_concern_of_the_next_request() {
    let (client, script) = scripted(
        steady().build().unwrap(),
        [Reply::status(401), Reply::status(503), Reply::status(200)],
    );
    // As a middleware further out would that repeats a request with a fresh token.
    let mut extensions = Extensions::new();
    for expected in [401, 200] {
        let request = client.get(URL).build().unwrap();
        let response = client.execute_with_extensions(request, &mut extensions).await.unwrap();
        assert_eq!(response.status(), expected);
    }
    assert_eq!(script.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_refused_statuses_prove_that_a_post_was_not_processed() {
    let hinted = |status, name| {
        let name = header::HeaderName::from_static(name);
        let quota = name.as_str() == "ratelimit";
        let value = if quota { "\"d\";r=0;t=3" } else { "3" };
        Reply::status(status).header(name, HeaderValue::from_static(value))
    };
    let sends = async |refused: Option<&[u16]>, reply: Reply| {
        let mut config = steady();
        if let Some(refused) = refused {
            config = config.refused_statuses(refused.to_vec());
        }
        let (client, script) = scripted(config.build().unwrap(), [reply, Reply::status(200)]);
        client.post(URL).send().await.unwrap();
        script.sent().len()
    };
    for hint in ["retry-after", "retry-after-ms", "ratelimit"] {
        assert_eq!(sends(None, hinted(503, hint)).await, 1, "{hint}");
        assert_eq!(sends(Some(&[503]), hinted(503, hint)).await, 2, "{hint}");
        assert_eq!(sends(None, hinted(429, hint)).await, 2, "{hint}");
        assert_eq!(sends(Some(&[503]), hinted(429, hint)).await, 1, "{hint}");
    }
    // A 403 that is a rate limit was refused; one of permissions is not retried.
    assert_eq!(sends(None, hinted(403, "retry-after")).await, 2);
    assert_eq!(sends(Some(&[]), hinted(403, "retry-after")).await, 1);
    assert_eq!(sends(None, Reply::status(425)).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_made_says_nothing_of_the_server() {
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    let config = steady().circuit_breaker(breaker.clone()).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200)]);
    let body =
        BodyFactory::new(async || Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()));
    let error = client.post(URL).with_extension(body).send_resilient().await.unwrap_err();
    assert_eq!((error.attempts(), script.sent().len()), (1, 0));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_too_long_to_make_was_not_sent() {
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    let config = steady().circuit_breaker(breaker.clone()).attempt_timeout(SECOND);
    let (client, script) = scripted(config.build().unwrap(), [Reply::status(200)]);
    let made = AtomicUsize::new(0);
    let body = BodyFactory::new(move || {
        let is_first = made.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            tokio::time::sleep(if is_first { 2 * SECOND } else { SECOND / 2 }).await;
            Ok("order".into())
        }
    });
    let response = client.post(URL).with_extension(body).send().await.unwrap();
    let first = &response.history().unwrap().attempts()[0];
    assert_eq!((first.result, first.delivery), (Err(FailureKind::Timeout), Delivery::NotSent));
    assert_eq!((response.attempts(), script.sent().len()), (2, 1));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_whole_shortens_the_attempts() {
    let config = steady().attempt_timeout(10 * SECOND).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(200).after(3600 * SECOND)]);
    let hurried = RetryOverride::new().max_total_time(2 * SECOND);
    let start = Instant::now();
    let error = client.get(URL).with_extension(hurried).send_resilient().await.unwrap_err();
    assert!(error.is_deadline());
    assert_eq!(start.elapsed(), 2 * SECOND);
}

#[test]
fn every_fault_is_named_at_once() {
    let error = ResilientConfig::builder()
        .jitter(Jitter::Proportional(-1.0))
        .attempt_timeout(5 * SECOND)
        .max_total_time(2 * SECOND)
        .max_wait_time(Duration::ZERO)
        .build()
        .unwrap_err();
    let fields: Vec<_> = error.faults().iter().map(|it| &*it.field).collect();
    assert_eq!(fields, ["jitter", "attempt_timeout", "max_wait_time"]);
}

#[tokio::test(start_paused = true)]
async fn the_error_says_that_an_earlier_attempt_may_have_been_applied() {
    const SAID: &str = " (an earlier attempt may have been applied)";
    let reset = || Reply::io_error(io::ErrorKind::ConnectionReset);
    let refused = || Reply::io_error(io::ErrorKind::ConnectionRefused);
    let check = async |method: http::Method, first: Reply, status, said: bool| {
        let told = Arc::new(Mutex::new(String::new()));
        let teller = Arc::clone(&told);
        let config = steady().on_failure(move |it| *teller.lock().unwrap() = it.to_string());
        let (client, _) = scripted(config.build().unwrap(), [first, Reply::status(status)]);
        let request = client.request(method.clone(), URL).header(header::IF_NONE_MATCH, "*");
        let error = request.send_resilient().await.unwrap_err();
        assert_eq!((error.attempts(), error.may_have_been_applied()), (2, said), "{method}");
        assert_eq!(
            error.to_string().ends_with(&format!("after 2 attempts{SAID}")),
            said,
            "{error}"
        );
        assert_eq!(error.to_string(), *told.lock().unwrap());
    };
    for first in [reset(), Reply::status(503), Reply::io_error(io::ErrorKind::TimedOut)] {
        check(http::Method::PUT, first.clone(), 412, true).await;
        check(http::Method::DELETE, first.clone(), 404, true).await;
        check(http::Method::GET, first, 404, false).await;
    }
    for first in [refused(), Reply::status(429)] {
        check(http::Method::PUT, first.clone(), 412, false).await;
        check(http::Method::DELETE, first, 404, false).await;
    }
    // The first attempt has nothing before it.
    let (client, _) = scripted(steady().build().unwrap(), [Reply::status(404)]);
    let error = client.delete(URL).send_resilient().await.unwrap_err();
    assert!(!error.may_have_been_applied() && !error.to_string().contains("attempt"), "{error}");
}

/// A backoff that finds a fault in itself once it is in use.
#[derive(Clone, Default)]
struct Worn(Arc<std::sync::atomic::AtomicBool>);

impl reqwest_resilient::Backoff for Worn {
    fn delay(&self, _: u32) -> Duration {
        SECOND
    }

    fn fault(&self) -> Option<reqwest_resilient::ConfigFault> {
        let is_worn = self.0.load(Ordering::Relaxed);
        is_worn.then(|| reqwest_resilient::ConfigFault::new("backoff.worn", "must not be", true))
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_an_override_does_not_bring_fails_no_request() {
    let worn = Worn::default();
    let host = RetryOverride::new().backoff(worn.clone());
    let config = steady().host("api.example.com", host).build().unwrap();
    worn.0.store(true, Ordering::Relaxed);
    let (client, script) = scripted(config, [Reply::status(503)]);
    let own = RetryOverride::new().max_retries(1);
    client.get(URL).with_extension(own.clone()).send().await.unwrap();
    assert_eq!(script.sent().len(), 2);

    // Settings of the override are validated still.
    let invalid = own.max_wait_time(Duration::ZERO);
    client.get(URL).with_extension(invalid).send().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn limits_of_an_override_shorten_and_do_not_contradict() {
    let rule = BreakerConfig::failure_rate(
        reqwest_resilient::Percent::HALF,
        reqwest_resilient::Window::Time(10 * SECOND),
    );
    let config = steady()
        .attempt_timeout(10 * SECOND)
        .backoff(reqwest_resilient::Exponential::new(SECOND).max_delay(30 * SECOND))
        .circuit_breaker(rule)
        .build()
        .unwrap();
    let (client, _) = scripted(config, [Reply::status(200)]);
    let outer = RetryOverride::new().attempt_timeout(20 * SECOND);
    let own = RetryOverride::new().max_total_time(5 * SECOND).max_wait_time(2 * SECOND);
    for own in [RetryOverride::new(), own] {
        let sent = client.get(URL).with_extension(own).send();
        outer.clone().scope(sent).await.unwrap();
    }
}
