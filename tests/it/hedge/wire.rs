//! What hedges cost in connections, on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest_resilient::{Hedge, ResilientClient, ResilientConfig};

use super::ms;
use crate::support::client_builder;
use crate::support::reply::{Reply, Step};
use crate::support::server::Server;

/// Every twentieth request is slow.
fn slow_at_times() -> impl Fn() -> Duration + Send + Sync {
    let count = Arc::new(AtomicUsize::new(0));
    move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number % 21 == 19 { ms(2_000) } else { Duration::ZERO }
    }
}

fn config() -> ResilientConfig {
    ResilientConfig::builder().hedge(Hedge::after(ms(200))).build().unwrap()
}

/// Sends 1,000 requests, one after the other. Returns how many hedges reached the server besides.
async fn hedges_of_a_thousand(client: &ResilientClient, server: &Server) -> usize {
    for _ in 0..1_000 {
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        response.bytes().await.unwrap();
    }
    server.begun() - 1_000
}

#[tokio::test]
async fn over_http_1_each_hedge_costs_a_connection_at_most() {
    let late = slow_at_times();
    let server = Server::h1([Step::ask(move |_| Reply::status(200).late(late()))]);
    let client = ResilientClient::builder()
        .config(config())
        .with_reqwest(|_| client_builder())
        .build()
        .unwrap();
    let hedges = hedges_of_a_thousand(&client, &server).await;
    // Most of them by far are those of slow responses, on a busy machine too.
    assert!((40..=60).contains(&hedges), "{hedges} hedges");
    let most = 60.max(hedges + hedges / 3);
    assert!(server.connections() <= most, "{} for {hedges} hedges", server.connections());
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn over_http_2_hedges_share_the_connection() {
    let late = slow_at_times();
    let ask = move |_: &_| Reply::status(200).late(late());
    let server = Server::h2([crate::support::h2::Stream::Ask(Arc::new(ask))]);
    let client = ResilientClient::builder()
        .config(config())
        .with_reqwest(|_| client_builder().http2_prior_knowledge())
        .build()
        .unwrap();
    let hedges = hedges_of_a_thousand(&client, &server).await;
    assert!((40..=60).contains(&hedges), "{hedges} hedges");
    assert_eq!(server.connections(), 1);
}
