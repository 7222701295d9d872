//! HTTP/1.1: what arrives at the server, over how many connections.

use std::io;
use std::time::Instant;

use futures_util::stream;
use reqwest::{Body, Method};

use super::{client, get, ms, status};
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

#[tokio::test]
async fn a_script_runs_over_as_many_connections_as_it_leaves_alive() {
    let server = Server::h1([
        Reply::status(503).body(vec![b'x'; 4096]).into(),
        Fault::Unanswered(End::Reset).into(),
        Reply::status(200).into(),
    ]);
    let client = client();
    assert_eq!(status(&client, server.url("/a")).await, 503);
    get(&client, server.url("/a")).await.unwrap_err();
    assert_eq!(status(&client, server.url("/a")).await, 200);
    assert_eq!(status(&client, server.url("/b?c")).await, 200);
    assert_eq!((server.requests(), server.begun(), server.connections()), (4, 4, 2));
    assert_eq!(server.duplicates(), 2);
    let paths: Vec<_> =
        server.seen().into_iter().map(|seen| (seen.path, seen.connection)).collect();
    let expected = [("/a", 1), ("/a", 1), ("/a", 2), ("/b?c", 2)];
    assert_eq!(paths, expected.map(|(path, connection)| (path.to_owned(), connection)));
}

#[tokio::test]
async fn ten_responses_dropped_unread_cost_connections() {
    let small = Reply::status(503).body(vec![b'x'; 4096]);
    let large = Reply::status(503).body(vec![b'x'; 1 << 20]);
    assert_eq!(ten(small.clone(), true).await, 1);
    assert_eq!(ten(large.clone(), true).await, 1);
    assert!(ten(small.clone(), false).await <= 10);
    // On a busy machine a late body may come in time all the same.
    assert!(ten(small.body_late(ms(5)), false).await > 5);
    assert_eq!(ten(large, false).await, 10);
}

async fn ten(reply: Reply, read: bool) -> usize {
    let server = Server::h1([reply.into()]);
    let client = client();
    for _ in 0..10 {
        let answer = get(&client, server.url("/")).await.unwrap();
        if read {
            answer.bytes().await.unwrap();
        }
    }
    assert_eq!(server.requests(), 10);
    server.connections()
}

#[tokio::test]
async fn a_connection_ends_at_any_point_of_the_request() {
    for end in [End::Close, End::Drop, End::Reset] {
        let faults = [Fault::AtAccept(end), Fault::After(0, end), Fault::After(50_000, end)];
        let server =
            Server::h1(faults.map(Step::from).into_iter().chain([Reply::status(200).into()]));
        let client = client();
        for _ in faults {
            let upload = client.post(server.url("/")).body(vec![b'x'; 500_000]);
            assert!(upload.send().await.unwrap_err().is_request());
        }
        assert_eq!((server.requests(), server.begun(), server.connections()), (0, 2, 3));
        assert_eq!(status(&client, server.url("/")).await, 200);
    }
}

#[tokio::test]
async fn no_more_is_read_than_the_fault_allows() {
    let server = Server::h1([Fault::After(50_000, End::Drop).into()]);
    client().post(server.url("/")).body(vec![b'x'; 500_000]).send().await.unwrap_err();
    assert_eq!(server.bytes(), 50_000);
}

#[tokio::test]
async fn a_stall_lasts_longer_than_the_client() {
    let answer = || Reply::status(200).body("hello");
    let stalls: [(Step, usize); 5] = [
        (Fault::AtAccept(End::Stall).into(), 0),
        (Fault::After(0, End::Stall).into(), 0),
        (Fault::Unanswered(End::Stall).into(), 1),
        (answer().cut_head(End::Stall).into(), 1),
        (answer().cut_body(2, End::Stall).into(), 1),
    ];
    for (step, requests) in stalls {
        let server = Server::h1([step]);
        let answer = client().get(server.url("/")).timeout(ms(20)).send().await;
        let error = match answer {
            Ok(answer) => answer.bytes().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.is_timeout());
        assert_eq!(server.requests(), requests);
    }
}

#[tokio::test]
async fn a_response_is_cut() {
    let answer = || Reply::status(200).body("hello");
    for (reply, length) in [
        (answer().cut_head(End::Close), None),
        (answer().cut_head(End::Reset), None),
        (answer().cut_body(2, End::Reset), None),
        (Reply::status(200).chunked("hello").cut_body(5, End::Close), None),
        (Reply::status(200).chunked("hello"), Some(5)),
        // This one is indistinguishable from a whole body.
        (Reply::status(200).until_close("hello").cut_body(2, End::Close), Some(2)),
        (Reply::status(200).interim(103).body("hello"), Some(5)),
    ] {
        let server = Server::h1([reply.into()]);
        let body = match get(&client(), server.url("/")).await {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        assert_eq!(body.ok().map(|body| body.len()), length);
    }
}

#[tokio::test]
async fn a_response_takes_its_time() {
    let slow = Reply::status(200).body("hello").late(ms(10)).body_late(ms(10)).drip(1, ms(4));
    let server = Server::h1([slow.into()]);
    let start = Instant::now();
    assert_eq!(status(&client(), server.url("/")).await, 200);
    assert!(start.elapsed() >= ms(36));
}

#[tokio::test]
async fn an_idle_connection_that_is_closed_is_not_used_again() {
    for reply in [Reply::status(200).idle_close(ms(100)), Reply::status(200).idle_408(ms(100))] {
        let server = Server::h1([reply.into()]);
        let client = client();
        assert_eq!(status(&client, server.url("/")).await, 200);
        assert_eq!(status(&client, server.url("/")).await, 200);
        assert_eq!(server.connections(), 1);
        tokio::time::sleep(ms(300)).await;
        assert_eq!(status(&client, server.url("/")).await, 200);
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_connection_closed_under_a_request_fails_it() {
    let server = Server::h1([
        Reply::status(200).into(),
        Fault::After(0, End::Close).into(),
        Reply::status(200).into(),
        Reply::status(408).early().into(),
        Reply::status(200).close().into(),
    ]);
    let client = client();
    assert_eq!(status(&client, server.url("/")).await, 200);
    get(&client, server.url("/")).await.unwrap_err();
    assert_eq!(status(&client, server.url("/")).await, 200);
    assert_eq!(status(&client, server.url("/")).await, 408);
    assert_eq!((server.requests(), server.begun(), server.connections()), (2, 4, 2));
    for connections in [3, 4] {
        assert_eq!(status(&client, server.url("/")).await, 200);
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn an_early_413_may_be_lost_in_the_upload() {
    let server = Server::h1([Reply::status(413).early().into()]);
    match client().put(server.url("/")).body(vec![b'x'; 8 << 20]).send().await {
        Ok(answer) => assert_eq!(answer.status(), 413),
        Err(error) => assert!(error.is_request()),
    }
    assert_eq!((server.requests(), server.begun()), (0, 1));
    assert!(server.bytes() < 1 << 20);
}

#[tokio::test]
async fn uploads_arrive_as_they_were_sent() {
    let echo = Step::ask(|seen| Reply::status(200).header("x-was", seen.method.as_str()));
    let server = Server::h1([echo]);
    let pieces = stream::iter(["some ", "pieces"].map(Ok::<_, io::Error>));
    let whole = client().post(server.url("/")).header("x-request-id", "7").body("some pieces");
    assert_eq!(whole.send().await.unwrap().headers()["x-was"], "POST");
    let streamed = client().put(server.url("/")).header("x-request-id", "7");
    let streamed = streamed.body(Body::wrap_stream(pieces)).send().await.unwrap();
    assert_eq!(streamed.headers()["x-was"], "PUT");
    for seen in server.seen() {
        assert_eq!((seen.header("x-request-id"), &seen.body[..]), (Some("7"), &b"some pieces"[..]));
    }
    assert_eq!((server.requests(), server.duplicates()), (2, 1));
}

#[tokio::test]
async fn a_redirect_turns_post_into_get() {
    let server = Server::h1([Reply::redirect(302, "/there").into(), Reply::status(200).into()]);
    let answer = client().post(server.url("/here")).body("x").send().await.unwrap();
    assert_eq!(answer.url().path(), "/there");
    let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, [Method::POST, Method::GET]);
}

#[tokio::test]
#[should_panic(expected = "on purpose")]
async fn a_server_that_panics_fails_the_test() {
    let server = Server::h1([Step::ask(|_| panic!("on purpose"))]);
    get(&client(), server.url("/")).await.unwrap_err();
}
