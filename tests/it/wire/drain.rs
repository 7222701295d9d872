//! Reuse of the connections of failed responses: ten failures in a row, and their connections.

use std::time::{Duration, Instant};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{Constant, ResilientConfigBuilder};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{Jitter, RetryTransientMiddleware};

use super::{ms, plain, quick, resilient};
use crate::support::reply::{End, Reply};
use crate::support::server::Server;

#[tokio::test]
async fn connections_of_ten_failed_attempts() {
    let body = |length: usize| Reply::status(503).body(vec![b'x'; length]);
    let late = |length| body(length).body_late(ms(5));
    // The name of the case, and the number of connections that may be opened.
    let rows = [
        ("0", body(0), 1),
        ("4 KiB", body(4 << 10), 1),
        ("4 KiB, 5 ms late", late(4 << 10), 1),
        ("64 KiB", body(64 << 10), 1),
        ("64 KiB, 5 ms late", late(64 << 10), 1),
        ("64 KiB, chunked", Reply::status(503).chunked(vec![b'x'; 64 << 10]), 1),
        ("1 MiB", body(1 << 20), 10),
        ("1 MiB, chunked", Reply::status(503).chunked(vec![b'x'; 1 << 20]), 10),
        ("stalls", body(4 << 10).cut_body(2, End::Stall), 10),
    ];
    println!("{:20}{:>10}{:>16}", "body of ten 503s", "resilient", "reqwest-retry");
    for (name, reply, most) in rows {
        let ours = connections(&resilient(quick().max_retries(9), plain()), reply.clone()).await;
        let theirs = connections(&reqwest_retry(), reply).await;
        println!("{name:20}{ours:10}{theirs:16}");
        // A busy machine may take longer than the drain has; it drops the connection then.
        let slack = if most == 1 && name.contains("KiB") { 2 } else { 0 };
        assert!(ours <= most + slack, "{name}: {ours} connections");
    }
}

#[tokio::test]
async fn a_body_that_stalls_costs_no_more_than_its_share() {
    let stalls = Reply::status(503).body("hello").cut_body(2, End::Stall);
    let server = Server::h1([stalls.into()]);
    let start = Instant::now();
    resilient(quick().max_retries(9), plain()).get(server.url("/")).send().await.unwrap();
    let took = start.elapsed();
    assert_eq!(server.requests(), 10);
    assert!((ms(9 * 50)..ms(9 * 50 + 500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn draining_is_part_of_the_wait() {
    let slow = Reply::status(503).body("hello").body_late(ms(40));
    let server = Server::h1([slow.into()]);
    let start = Instant::now();
    let config = quick().max_retries(5).backoff(Constant::new(ms(200)));
    resilient(config, plain()).get(server.url("/")).send().await.unwrap();
    let took = start.elapsed();
    // Five waits; one after the other it would be 200 ms more.
    assert!((ms(5 * 200)..ms(5 * 200 + 150)).contains(&took), "{took:?}");
    assert!(server.connections() <= 2);
}

#[tokio::test]
async fn a_late_body_is_drained_within_the_wait() {
    let late = || Reply::status(503).body(vec![b'x'; 34 << 10]).drip(17 << 10, ms(120));
    let sends = async |config: ResilientConfigBuilder, reply: Reply| {
        let server = Server::h1([reply.into(), Reply::status(200).into()]);
        let start = Instant::now();
        resilient(config, plain()).get(server.url("/")).send().await.unwrap();
        (server.requests(), server.connections(), start.elapsed())
    };
    let patient = || quick().backoff(Constant::new(ms(500)));
    let (requests, connections, took) = sends(patient(), late()).await;
    assert_eq!((requests, connections), (2, 1));
    assert!((ms(500)..ms(700)).contains(&took), "{took:?}");

    // The wait for a hint, in the loop and at the gate.
    let busy = || late().header("retry-after-ms", "400");
    assert_eq!(sends(quick(), busy()).await.1, 1);
    let gated = quick().gate().random(|| 0.0);
    let (requests, connections, took) = sends(gated, busy()).await;
    assert_eq!((requests, connections), (2, 1));
    assert!((ms(400)..ms(600)).contains(&took), "{took:?}");

    // A body that arrives after the end of the wait costs its connection, and no time.
    let slow = Reply::status(503).body("hello").body_late(ms(2_000));
    let (requests, connections, took) = sends(patient(), slow).await;
    assert_eq!((requests, connections), (2, 2));
    assert!((ms(500)..ms(700)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn draining_leaves_the_next_attempt_its_time() {
    let stalls = Reply::status(503).body("hello").cut_body(2, End::Stall);
    let server = Server::h1([stalls.into(), Reply::status(200).into()]);
    for _ in 0..2 {
        let config = quick().max_total_time(ms(50));
        let response = resilient(config, plain()).get(server.url("/")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
    }
}

async fn connections(client: &ClientWithMiddleware, reply: Reply) -> usize {
    let server = Server::h1([reply.into()]);
    client.get(server.url("/")).send().await.unwrap();
    assert_eq!(server.requests(), 10);
    server.connections()
}

/// Nine retries as fast as ours.
fn reqwest_retry() -> ClientWithMiddleware {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(ms(1), Duration::from_millis(1))
        .jitter(Jitter::None)
        .build_with_max_retries(9);
    ClientBuilder::new(plain()).with(RetryTransientMiddleware::new_with_policy(policy)).build()
}
