//! Shows with a plain client what each fault of the test-bed looks like from outside.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, Instant};

use reqwest::{Client, Error};

use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

#[tokio::test]
async fn answers_keep_the_connection() {
    let server = Server::h1([
        Reply::status(503).body(vec![b'x'; 4096]).into(),
        Fault::Unanswered(End::Reset).into(),
        Reply::status(200).into(),
    ]);
    let client = client();
    let first = client.get(server.url("/a")).send().await.unwrap();
    assert_eq!(first.bytes().await.unwrap().len(), 4096);
    dbg!(client.get(server.url("/a")).send().await.unwrap_err());
    assert_eq!(client.get(server.url("/a")).send().await.unwrap().status(), 200);
    assert_eq!((server.requests(), server.connections()), (3, 2));
}

#[tokio::test]
async fn probe() {
    let script: Vec<(&str, Step)> = vec![
        ("accept close", Fault::AtAccept(End::Close).into()),
        ("accept drop", Fault::AtAccept(End::Drop).into()),
        ("accept reset", Fault::AtAccept(End::Reset).into()),
        ("0 drop", Fault::After(0, End::Drop).into()),
        ("0 close", Fault::After(0, End::Close).into()),
        ("10 close", Fault::After(10, End::Close).into()),
        ("10 drop", Fault::After(10, End::Drop).into()),
        ("10 reset", Fault::After(10, End::Reset).into()),
        ("eof", Fault::Unanswered(End::Close).into()),
        ("reset", Fault::Unanswered(End::Reset).into()),
        ("stall", Fault::Unanswered(End::Stall).into()),
        ("garbage", Fault::Garbage.into()),
        ("head eof", Reply::status(200).cut_head(End::Close).into()),
        ("head reset", Reply::status(200).cut_head(End::Reset).into()),
        ("head stall", Reply::status(200).cut_head(End::Stall).into()),
        ("body eof", Reply::status(200).body("hello").cut_body(2, End::Close).into()),
        ("body reset", Reply::status(200).body("hello").cut_body(2, End::Reset).into()),
        ("body stall", Reply::status(200).body("hello").cut_body(2, End::Stall).into()),
        ("chunk eof", Reply::status(200).chunked("hello").cut_body(5, End::Close).into()),
        ("chunk eof2", Reply::status(200).chunked("hello").cut_body(10, End::Close).into()),
        ("until close", Reply::status(200).until_close("hello").cut_body(2, End::Close).into()),
        ("until close reset", Reply::status(200).until_close("hello").cut_body(2, End::Reset).into()),
        ("interim", Reply::status(200).interim(103).into()),
        ("413", Reply::status(413).early().into()),
    ];
    for (name, step) in script {
        for reused in [false, true] {
            for post in [None, Some(40_000), Some(8_000_000)] {
                let at_accept = name.starts_with("accept");
                if at_accept && reused { continue; }
                let server = if reused { Server::h1([Reply::status(200).into(), step.clone()]) } else { Server::h1([step.clone()]) };
                let client = client();
                if reused { client.get(server.url("/a")).send().await.unwrap(); }
                let mut outs = vec![];
                let t = Instant::now();
                for _ in 0..if reused {1} else {3} {
                    let req = match post { None => client.get(server.url("/a")), Some(n) => client.post(server.url("/a")).body(vec![b'x'; n]) };
                    let out = req.timeout(Duration::from_millis(100)).send().await;
                    let out = match out { Err(e) => format!("SEND {}", chain(&e)), Ok(r) => { let s = r.status(); match r.bytes().await { Ok(b) => format!("{s} {}", b.len()), Err(e) => format!("{s} BODY {}", chain(&e)) } } };
                    if !outs.contains(&out) { outs.push(out) }
                }
                eprintln!("{name} reused={reused} {post:?} conns={} begun={} reqs={} {:?}", server.connections(), server.begun(), server.requests(), t.elapsed());
                for o in outs { eprintln!("      {o}"); }
            }
        }
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn chain(e: &Error) -> String {
    let mut s = String::new();
    for (n, b) in [("req", e.is_request()), ("conn", e.is_connect()), ("time", e.is_timeout()), ("body", e.is_body()), ("decode", e.is_decode()), ("redir", e.is_redirect()), ("builder", e.is_builder())] { if b { s += n; s += "+"; } }
    let mut x = e.source();
    while let Some(c) = x {
        s += &format!(" -> {c}");
        if let Some(h) = c.downcast_ref::<hyper::Error>() { s += &format!("[hyper inc={} parse={} cancel={} closed={} user={} bodywrite={}]", h.is_incomplete_message(), h.is_parse(), h.is_canceled(), h.is_closed(), h.is_user(), h.is_body_write_aborted()); }
        if let Some(h) = c.downcast_ref::<io::Error>() { s += &format!("[io {:?}]", h.kind()); }
        x = c.source();
    }
    s
}
