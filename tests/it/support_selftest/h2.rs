//! HTTP/2: what arrives at the server, over how many connections.

use std::io;
use std::sync::Arc;

use futures_util::stream;
use h2::Reason;
use reqwest::{Body, Client};

use super::{get, ms, status};
use crate::support::h2::Stream;
use crate::support::reply::{End, Reply};
use crate::support::server::Server;

#[tokio::test]
async fn streams_share_a_connection() {
    let server = Server::h2([
        Stream::Ask(Arc::new(|seen| Reply::status(200).header("x-was", seen.method.as_str()))),
        Reply::status(503).body("busy").late(ms(5)).body_late(ms(5)).into(),
    ]);
    let client = client();
    let pieces = stream::iter(["some ", "pieces"].map(Ok::<_, io::Error>));
    let upload = client.post(server.url("/a?b")).body(Body::wrap_stream(pieces)).send();
    assert_eq!(upload.await.unwrap().headers()["x-was"], "POST");
    assert_eq!(status(&client, server.url("/")).await, 503);
    assert_eq!((server.requests(), server.begun(), server.connections()), (2, 2, 1));
    let seen = server.seen().remove(0);
    assert_eq!((&*seen.path, &seen.body[..]), ("/a?b", &b"some pieces"[..]));
    assert_eq!(server.bytes(), 11);
}

#[tokio::test]
async fn reqwest_alone_sends_a_refused_stream_three_times() {
    for (step, connections) in [(Stream::Refuse, 1), (Stream::GoAwayBefore(Reason::NO_ERROR), 3)] {
        let server = Server::h2([step]);
        get(&retrying(), server.url("/")).await.unwrap_err();
        assert_eq!((server.begun(), server.connections(), server.requests()), (3, connections, 0));
        get(&client(), server.url("/")).await.unwrap_err();
        assert_eq!(server.begun(), 4);
    }
}

#[tokio::test]
async fn reqwest_alone_sends_all_else_once() {
    for (step, requests) in [
        (Stream::GoAwayAfter(Reason::NO_ERROR), 1),
        (Stream::GoAwayBefore(Reason::ENHANCE_YOUR_CALM), 0),
        (Stream::Reset(Reason::CANCEL), 1),
        (Stream::Reset(Reason::ENHANCE_YOUR_CALM), 1),
        (Stream::Unanswered(End::Close), 1),
        (Stream::Unanswered(End::Drop), 1),
        (Stream::Unanswered(End::Reset), 1),
    ] {
        let server = Server::h2([step]);
        get(&retrying(), server.url("/")).await.unwrap_err();
        assert_eq!((server.begun(), server.requests()), (1, requests));
    }
}

#[tokio::test]
async fn after_a_farewell_comes_another_connection() {
    let server = Server::h2([Stream::Farewell(Reply::status(200).body("bye"))]);
    let client = client();
    for connections in [1, 2, 3] {
        assert_eq!(status(&client, server.url("/")).await, 200);
        assert_eq!(server.connections(), connections);
        // Else the next request may cross the GOAWAY on the wire.
        tokio::time::sleep(ms(20)).await;
    }
}

#[tokio::test]
async fn a_stall_holds_its_stream_alone() {
    let server = Server::h2([Stream::Unanswered(End::Stall), Reply::status(200).into()]);
    let client = client();
    let stalled = client.get(server.url("/")).timeout(ms(20)).send().await.unwrap_err();
    assert!(stalled.is_timeout());
    assert_eq!(status(&client, server.url("/")).await, 200);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_body_is_cut() {
    for end in [End::Close, End::Drop, End::Reset, End::Stall] {
        let server = Server::h2([Reply::status(200).body("hello").cut_body(2, end).into()]);
        let answer = client().get(server.url("/")).timeout(ms(50)).send().await.unwrap();
        let error = answer.bytes().await.unwrap_err();
        assert!(error.is_decode());
        assert_eq!(error.is_timeout(), end == End::Stall);
    }
}

fn client() -> Client {
    let settings = crate::support::client_builder().http2_prior_knowledge();
    settings.retry(reqwest::retry::never()).build().unwrap()
}

/// A client as reqwest makes it.
fn retrying() -> Client {
    crate::support::client_builder().http2_prior_knowledge().build().unwrap()
}
