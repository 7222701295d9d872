//! nghttpx, whose HTTP/2 is nghttp2: GOAWAY, refused streams, and back ends that break off.

use std::net::SocketAddr;

use futures_util::future::join_all;
use reqwest_resilient::{ResilientClient, ResponseExt};
use tokio::time::sleep;

use super::client::{Load, MIXED, Setup, all_succeed, none_twice, reached, report};
use super::ms;
use super::server::{nghttpx, twice};
use crate::support::program::free_address;
use crate::support::reply::Reply;
use crate::support::server::Server;

fn application() -> Server {
    Server::h1([Reply::status(200).body("hello").late(ms(10)).into()])
}

/// Returns the lines of a frontend for HTTP/2 without TLS.
fn lines(address: SocketAddr, application: &Server) -> String {
    let (own, behind) = (address.port(), application.addr().port());
    format!("frontend=127.0.0.1,{own};no-tls\nbackend=127.0.0.1,{behind}")
}

#[tokio::test]
async fn a_goaway_costs_no_request() {
    let (application, address) = (application(), free_address());
    // By a reload, and after each twentieth stream of a connection.
    let part = format!("{}\nfrontend-max-requests=20", lines(address, &application));
    let Some(server) = nghttpx(address, &part) else { return };
    let clients = Setup::new().inner(|it| it.http2_prior_knowledge()).contestants();
    let reloads = async {
        for _ in 0..3 {
            sleep(ms(300)).await;
            server.reload();
        }
    };
    let load = Load::steady().by_each(&clients, |who| server.url(&format!("/{who}")));
    let (tallies, ()) = tokio::join!(load, reloads);
    let seen = report("nghttpx GOAWAY", &tallies, &server.log(), reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
}

#[tokio::test]
async fn a_refused_post_is_sent_again_and_processed_once() {
    let (application, address) = (application(), free_address());
    let part = format!("{}\nfrontend-http2-max-concurrent-streams=4", lines(address, &application));
    let Some(server) = nghttpx(address, &part) else { return };
    // More streams than allowed, opened before the client has heard how many are.
    let mut refused = 0;
    let mut sent = 0;
    while refused == 0 && sent < 200 {
        let client =
            ResilientClient::builder().with_reqwest(|it| it.no_proxy().http2_prior_knowledge());
        let client = client.build().unwrap();
        let posts = (0..20).map(|number| {
            let id = format!("ResilientClient Post {}", sent + number);
            client.post(server.url("/")).header("x-request-id", id).body("once").send_resilient()
        });
        for response in join_all(posts.map(IntoFuture::into_future)).await {
            refused += response.unwrap().attempts() - 1;
        }
        sent += 20;
    }
    let log = server.log();
    let posts: Vec<_> = reached([&application]).collect();
    println!(
        "real nghttpx REFUSED_STREAM: {sent} of {sent}, {} requests and {refused} refused, {} POSTs twice",
        log.len(),
        twice(posts.clone()),
    );
    assert!(refused > 0, "no stream was refused");
    assert_eq!((posts.len(), twice(posts)), (sent, 0));
    drop(server);

    // The same by all.
    let (application, address) = (self::application(), free_address());
    let part = format!("{}\nfrontend-http2-max-concurrent-streams=4", lines(address, &application));
    let Some(server) = nghttpx(address, &part) else { return };
    let clients = Setup::new().inner(|it| it.http2_prior_knowledge()).contestants();
    let tallies = Load::new(60, 60, MIXED).by_each(&clients, |_| server.url("/")).await;
    let seen = report("nghttpx 4 streams", &tallies, &server.log(), reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
}
