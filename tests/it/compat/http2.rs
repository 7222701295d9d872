//! HTTP/2 by prior knowledge, from the client with everything in place to a server's frames.

use std::time::Duration;

use h2::Reason;
use http::Version;
use reqwest_resilient::{
    Constant, FailureKind, Resilient, ResilientClient, ResilientConfig, ResponseExt, StopReason,
};

use crate::support::h2::Stream;
use crate::support::reply::Reply;
use crate::support::server::Server;
use crate::support::steady;

fn client() -> ResilientClient {
    let inner = Resilient::reqwest_builder().no_proxy().http2_prior_knowledge().build();
    let config: ResilientConfig =
        steady().backoff(Constant::new(Duration::from_millis(1))).build().unwrap();
    ResilientClient::builder().reqwest_client(inner.unwrap()).config(config).build().unwrap()
}

#[tokio::test]
async fn a_success_takes_one_stream() {
    let server = Server::h2([Reply::status(200).body("here").into()]);
    let response = client().post(server.url("/")).body("x").send_resilient().await.unwrap();
    assert_eq!((response.version(), response.attempts()), (Version::HTTP_2, 1));
    assert_eq!(response.text().await.unwrap(), "here");
    assert_eq!((server.begun(), server.connections()), (1, 1));
}

#[tokio::test]
async fn a_refused_post_is_sent_again_by_the_same_connection() {
    let server = Server::h2([Stream::Refuse, Reply::status(200).into()]);
    let response = client().post(server.url("/")).body("x").send_resilient().await.unwrap();
    let history = response.history().unwrap();
    assert_eq!(history.attempts()[0].result, Err(FailureKind::Refused));
    assert_eq!((response.attempts(), server.begun(), server.requests()), (2, 2, 1));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn after_a_goaway_a_post_that_was_not_taken_on_goes_by_another_connection() {
    let server = Server::h2([Stream::GoAwayBefore(Reason::NO_ERROR), Reply::status(200).into()]);
    let response = client().post(server.url("/")).body("x").send_resilient().await.unwrap();
    assert_eq!((response.attempts(), server.requests(), server.connections()), (2, 1, 2));
}

#[tokio::test]
async fn after_a_goaway_a_post_that_was_taken_on_is_not_sent_again() {
    let server = Server::h2([Stream::GoAwayAfter(Reason::NO_ERROR), Reply::status(200).into()]);
    let error = client().post(server.url("/")).body("x").send_resilient().await.unwrap_err();
    assert_eq!(error.stop_reason(), StopReason::UnsafeToRepeat);
    assert_eq!(server.requests(), 1);
    // A GET is.
    let server = Server::h2([Stream::GoAwayAfter(Reason::NO_ERROR), Reply::status(200).into()]);
    let response = client().get(server.url("/")).send_resilient().await.unwrap();
    assert_eq!((response.attempts(), server.requests()), (2, 2));
}
