//! Time limits with a server that does not respond, or not to the end.

use std::time::{Duration, Instant};

use reqwest::Response;
use reqwest_resilient::{HttpRequestError, ResponseExt};

use super::{ms, plain, quick, resilient, settings};
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

/// The time that a busy machine may add.
const SLACK: Duration = Duration::from_millis(600);

#[tokio::test]
async fn the_deadline_cuts_a_server_that_does_not_respond() {
    let ok = || Reply::status(200).body("hello");
    let stalls: [Step; 4] = [
        Fault::AtAccept(End::Stall).into(),
        Fault::Unanswered(End::Stall).into(),
        ok().cut_head(End::Stall).into(),
        ok().interim(103).cut_head(End::Stall).into(),
    ];
    for stall in stalls {
        let server = Server::h1([stall]);
        let client = resilient(quick().max_total_time(ms(100)), plain());
        let start = Instant::now();
        let error = client.get(server.url("/")).send().await.unwrap_err();
        assert!(HttpRequestError::find(&error).unwrap().is_deadline());
        assert_took(ms(100), start);
    }
}

#[tokio::test]
async fn the_deadline_reaches_into_the_body() {
    let stall = Reply::status(200).body("hello").cut_body(2, End::Stall);
    // With a timeout of the request's own, longer or shorter, and without.
    for (own, limit) in [(None, 100), (Some(5_000), 100), (Some(50), 50)] {
        let server = Server::h1([stall.clone().into()]);
        let client = resilient(quick().max_total_time(ms(100)), plain());
        let mut request = client.get(server.url("/"));
        if let Some(own) = own {
            request = request.timeout(ms(own));
        }
        let start = Instant::now();
        let response = request.send().await.unwrap();
        let (url, length) = (response.url().clone(), response.content_length());
        assert_eq!((url.as_str(), length), (&*server.url("/"), Some(5)));
        assert!(response.bytes().await.unwrap_err().is_timeout());
        assert_took(ms(limit), start);
    }
}

#[tokio::test]
async fn the_deadline_bounds_attempts_and_waits_together() {
    let server = Server::h1([Reply::status(503).late(ms(30)).into()]);
    let client = resilient(quick().max_retries(1_000).max_total_time(ms(200)), plain());
    let start = Instant::now();
    let _ = client.get(server.url("/")).send().await;
    assert_took(ms(170), start);
    assert!((1..=7).contains(&server.requests()), "{}", server.requests());
}

#[tokio::test]
async fn a_body_that_takes_long_to_make_is_cut_too() {
    use reqwest_resilient::BodyFactory;

    let server = Server::h1([Reply::status(200).into()]);
    let client = resilient(quick().max_total_time(ms(100)), plain());
    let never = BodyFactory::new(async || std::future::pending().await);
    let start = Instant::now();
    let error = client.put(server.url("/")).with_extension(never).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).unwrap().is_deadline());
    assert_took(ms(100), start);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn the_client_s_own_timeout_is_not_loosened() {
    let stalls: [Step; 2] = [
        Fault::Unanswered(End::Stall).into(),
        Reply::status(200).body("hello").cut_body(2, End::Stall).into(),
    ];
    let long = Duration::from_secs(5);
    for stall in stalls {
        let server = Server::h1([stall]);
        let config = quick().max_retries(0).attempt_timeout(long).max_total_time(long);
        let client = resilient(config, settings().timeout(ms(100)).build().unwrap());
        let start = Instant::now();
        let error = match client.get(server.url("/")).send().await {
            Ok(response) => response.bytes().await.unwrap_err(),
            Err(reqwest_middleware::Error::Reqwest(error)) => error,
            Err(other) => panic!("{other}"),
        };
        assert!(error.is_timeout());
        assert_took(ms(100), start);
    }
}

#[tokio::test]
async fn the_client_s_read_timeout_is_not_loosened() {
    let server = Server::h1([Reply::status(200).body("hello").cut_body(2, End::Stall).into()]);
    let client = settings().read_timeout(ms(100)).build().unwrap();
    let client = resilient(quick().max_total_time(Duration::from_secs(5)), client);
    let start = Instant::now();
    let response = client.get(server.url("/")).send().await.unwrap();
    assert!(response.bytes().await.unwrap_err().is_timeout());
    assert_took(ms(100), start);
}

#[tokio::test]
async fn an_attempt_timeout_spares_a_body_on_its_way() {
    let slow = || Reply::status(200).body("hello, world").drip(1, ms(30));
    let server = Server::h1([Fault::Unanswered(End::Stall).into(), slow().into()]);
    let client = resilient(quick().attempt_timeout(ms(200)), plain());
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.attempts(), server.requests()), (2, 2));
    assert_eq!(response.text().await.unwrap(), "hello, world");
}

#[tokio::test]
async fn a_deadline_that_is_kept_changes_nothing() {
    let server = Server::h1([Reply::status(200).header("x-kept", "yes").body("hello").into()]);
    let client = resilient(quick().max_total_time(Duration::from_secs(5)), plain());
    let response: Response = client.get(server.url("/path?query")).send().await.unwrap();
    assert_eq!((response.url().query(), response.content_length()), (Some("query"), Some(5)));
    assert_eq!(
        (response.headers()["x-kept"].as_bytes(), response.remote_addr()),
        (&b"yes"[..], Some(server.addr()))
    );
    assert_eq!(response.text().await.unwrap(), "hello");
}

#[track_caller]
fn assert_took(expected: Duration, start: Instant) {
    let took = start.elapsed();
    assert!((expected..expected + SLACK).contains(&took), "{took:?} instead of {expected:?}");
}
