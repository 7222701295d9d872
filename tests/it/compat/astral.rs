//! The same middleware in a client of astral-reqwest-middleware.

use std::io::ErrorKind;
use std::time::Duration;

use astral_reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BodyFactory, BreakerConfig, CircuitBreaker, FailureKind, HttpRequestError, RequestBuilderExt,
    Resilient, ResilientConfig, ResponseExt, RetryOverride, StopReason,
};
use tokio::time::Instant;

use crate::support::{URL, idle_client, steady};

const SECOND: Duration = Duration::from_secs(1);

fn scripted(
    config: ResilientConfig,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    let script = Script::new(replies);
    let client =
        ClientBuilder::new(idle_client()).with(Resilient::new(config)).with(script.clone()).build();
    (client, script)
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_survived() {
    let replies = [
        Reply::status(503),
        Reply::io_error(ErrorKind::ConnectionReset),
        Reply::status(200).body("here"),
    ];
    let (client, script) = scripted(steady().build().unwrap(), replies);
    let start = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!((response.attempts(), script.sent().len(), start.elapsed()), (3, 3, 2 * SECOND));
    assert_eq!(response.history().unwrap().attempts()[1].result, Err(FailureKind::Disconnect));
    assert_eq!(response.text().await.unwrap(), "here");
}

#[tokio::test]
async fn a_transport_s_error_comes_back_untouched() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = steady().max_retries(1).backoff(|_| Duration::ZERO).build().unwrap();
    let client = ClientBuilder::new(idle_client()).with(Resilient::new(config)).build();
    let url = format!("http://{closed}/");
    let error = client.get(&url).send().await.unwrap_err();
    assert!(matches!(&error, Error::Reqwest(it) if it.is_connect()), "{error:?}");
    assert!(HttpRequestError::find(&error).is_none());

    let error = client.get(&url).send_resilient().await.unwrap_err();
    assert_eq!((error.is_connect(), error.attempts()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_s_error_is_found() {
    let once = BreakerConfig::consecutive(1).open_for(5 * SECOND).without_open_jitter();
    let config = steady().max_retries(0).circuit_breaker(CircuitBreaker::new(once).unwrap());
    let (client, script) = scripted(config.build().unwrap(), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    let error = client.get(URL).send().await.unwrap_err();
    let ours = HttpRequestError::find(&error).unwrap();
    assert!(ours.is_circuit_open());
    assert_eq!((ours.retry_in(), script.sent().len()), (Some(5 * SECOND), 1));

    let ours = client.get(URL).send_resilient().await.unwrap_err();
    assert!(ours.is_circuit_open());
    assert!(HttpRequestError::find(&ours).is_some(), "it is one itself");
}

#[tokio::test(start_paused = true)]
async fn a_request_has_settings_of_its_own() {
    let (client, script) = scripted(steady().build().unwrap(), [Reply::status(503)]);
    let once = RetryOverride::new().max_retries(1);
    client.get(URL).with_extension(once.clone()).send().await.unwrap();
    assert_eq!(script.sent().len(), 2);
    let error = once.scope(async { client.get(URL).send_resilient().await.unwrap_err() }).await;
    assert_eq!((error.stop_reason(), error.attempts()), (StopReason::Exhausted, 2));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_made_is_the_caller_s_error() {
    let (client, script) = scripted(steady().build().unwrap(), [Reply::status(200)]);
    let broken = BodyFactory::new(|| async { Err("no file".into()) });
    let error = client.put(URL).with_extension(broken).send_resilient().await.unwrap_err();
    assert_eq!((error.status(), script.sent().len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn one_middleware_serves_clients_of_both_crates() {
    let twice = BreakerConfig::consecutive(2);
    let config = steady().max_retries(0).circuit_breaker(CircuitBreaker::new(twice).unwrap());
    let config = config.max_open_wait(Duration::ZERO);
    let resilient = Resilient::new(config.build().unwrap());
    let script = Script::new([Reply::status(503)]);
    let fork =
        ClientBuilder::new(idle_client()).with(resilient.clone()).with(script.clone()).build();
    let original = reqwest_middleware::ClientBuilder::new(idle_client())
        .with(resilient)
        .with(script.clone())
        .build();
    fork.get(URL).send().await.unwrap();
    original.get(URL).send().await.unwrap();
    // Both clients share the state.
    let error = original.get(URL).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).unwrap().is_circuit_open());
    let error = fork.get(URL).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).unwrap().is_circuit_open());
    assert_eq!(script.sent().len(), 2);
}
