//! The scripted end of a chain, as its users meet it.

use std::time::Duration;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Delivery, FailureKind, RequestBuilderExt, Resilient};
use tokio::time::Instant;

use crate::support::{URL, idle_client, steady};

const SECOND: Duration = Duration::from_secs(1);

fn client(script: &Script) -> ClientWithMiddleware {
    let config = steady().max_retries(1).build().unwrap();
    ClientBuilder::new(idle_client()).with(Resilient::new(config)).with(script.clone()).build()
}

#[tokio::test]
async fn replies_may_differ_by_host_and_by_path() {
    let replies =
        |statuses: &[u16]| statuses.iter().copied().map(Reply::status).collect::<Vec<_>>();
    let script = Script::new(replies(&[204]))
        .for_path("/orders", replies(&[201, 202]))
        .for_host("B.example", replies(&[404]));
    let client = client(&script);
    for (url, status) in [
        ("http://a.example/", 204),
        ("http://a.example/orders?page=2", 201),
        ("http://b.example:8080/", 404),
        ("http://b.example/orders", 202),
        ("http://a.example/orders", 202),
        ("http://a.example/orders/7", 204),
    ] {
        let got = client.get(url).send().await.unwrap().status().as_u16();
        assert_eq!(got, status, "{url}");
    }
    assert_eq!(script.sent().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn bodies_break_and_stall() {
    let broken = Reply::status(200).body("0123456789").body_breaks_after(4);
    let script = Script::new([broken.clone(), Reply::status(200).body("whole")]);
    let mut response = client(&script).get(URL).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "0123");
    assert!(response.chunk().await.is_err());

    // Read within the attempt, it is retried.
    let script = Script::new([broken, Reply::status(200).body("whole")]);
    let config = steady().read_body(64).build().unwrap();
    let read = ClientBuilder::new(idle_client()).with(Resilient::new(config)).with(script).build();
    assert_eq!(read.get(URL).send().await.unwrap().text().await.unwrap(), "whole");

    let script = Script::new([Reply::status(200).body("0123456789").body_stalls_after(4)]);
    let mut response = client(&script).get(URL).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "0123");
    assert!(tokio::time::timeout(3_600 * SECOND, response.chunk()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_s_own_timeout_ends_the_wait_for_a_reply() {
    let script = Script::new([Reply::status(200).after(60 * SECOND)]);
    let start = Instant::now();
    let get = client(&script).get(URL).timeout(3 * SECOND);
    let error = get.send_resilient().await.unwrap_err();
    // Two attempts, and the wait between them.
    assert_eq!((error.attempts(), start.elapsed()), (2, 7 * SECOND));
    let attempt = &error.history().attempts()[0];
    assert_eq!(attempt.result, Err(FailureKind::Timeout));
    assert_eq!(attempt.delivery, Delivery::MaybeProcessed);
    assert!(error.is_timeout());

    let long = client(&script).get(URL).timeout(61 * SECOND).send().await.unwrap();
    assert_eq!(long.status(), 200);
}
