//! Back ends that are down, or have too much to do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use reqwest_resilient::{ConcurrencyLimit, Limit, ResilientConfig};
use tokio::time::sleep;

use super::application;
use crate::real::client::{
    Kind, Load, MIXED, PEER, Setup, all_succeed, none_twice, reached, report,
};
use crate::real::ms;
use crate::real::server::{Real, frontend, haproxy};
use crate::support::program::free_address;
use crate::support::reply::Reply;
use crate::support::server::Server;

/// Gives an order to a haproxy under way.
fn order(server: &Real, order: &str) {
    let mut socket = UnixStream::connect(server.folder().file("socket")).unwrap();
    writeln!(socket, "{order}").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), "");
}

#[tokio::test]
async fn an_outage_without_a_hint() {
    let (application, address) = (application(), free_address());
    let part = format!(
        "{} default_backend both\nbackend both\n server only {}\n",
        frontend("front", address, ""),
        application.addr()
    );
    let Some(server) = haproxy(address, &part) else { return };
    let clients = Setup::new().contestants();
    // 100 a second by each for 3 s, a second of it without a back end.
    let load = Load { pause: |number| ms(number as u64 * 10), ..Load::new(300, 300, &[Kind::Get]) };
    let outage = async {
        sleep(ms(1_000)).await;
        order(&server, "set server both/only state maint");
        sleep(ms(1_000)).await;
        order(&server, "set server both/only state ready");
    };
    let url = |who: &str| server.url(&format!("/{who}"));
    let (tallies, ()) = tokio::join!(load.by_each(&clients, url), outage);
    let seen = report("haproxy back end down", &tallies, &server.log(), reached([&application]));
    // In an outage ours may give up half a second of traffic.
    let peer = seen.iter().find(|it| it.who == PEER).unwrap().good;
    assert!(seen.iter().all(|it| it.good + 50 >= peer));
}

#[tokio::test]
async fn a_queue_that_is_too_long() {
    let application = Server::h1([Reply::status(200).body("hello").late(ms(50)).into()]);
    let address = free_address();
    // Two at a time; those that wait for more than 200 ms get a 503.
    let part = format!(
        "{} default_backend two\nbackend two\n timeout queue 200ms\n server only {} maxconn 2\n",
        frontend("front", address, ""),
        application.addr()
    );
    for limited in [false, true] {
        let Some(server) = haproxy(address, &part) else { return };
        let config = ResilientConfig::builder();
        let limit = ConcurrencyLimit::per_host(Limit::fixed(2));
        let config = if limited { config.concurrency_limit(limit) } else { config };
        let client = [("ResilientClient", Setup::with(config).ours())];
        let kinds = if limited { MIXED } else { &[Kind::Get] };
        let load = Load::new(40, 40, kinds);
        let tallies = load.by_each(&client, |_| server.url("/")).await;
        let test = if limited { "haproxy queue, limit of 2" } else { "haproxy queue" };
        let seen = report(test, &tallies, &server.log(), reached([&application]));
        none_twice(&seen);
        if limited {
            all_succeed(&tallies);
            assert_eq!(seen[0].requests, 40);
        }
        drop(client);
        // The same by the peer, which has no such limit.
        if !limited {
            let peer = [("reqwest-retry", Setup::new().reqwest_retry())];
            let peer = load.by_each(&peer, |_| server.url("/")).await;
            let peers = report(test, &peer, &server.log(), []);
            assert!(seen[0].good >= peers[0].good, "{} {}", seen[0].good, peers[0].good);
        }
    }
}
