//! Faults of real servers under every kind of request: how many of them reach the server, by its own
//! log, if it is healthy afterwards.

use std::net::SocketAddr;

use futures_util::stream::{StreamExt, iter};
use http::HeaderName;
use reqwest_resilient::{Constant, Jitter, ResilientClient, ResilientConfig};

use super::ms;
use super::server::{Real, frontend, haproxy, nghttpx, nginx};
use crate::support::log::Seen;
use crate::support::program::free_address;
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;
use crate::wire::matrix::{KINDS, agrees};

type Row = (&'static str, [&'static str; 6]);

//                                 GET  PUT  POST KEYED STREAM FACTORY
const PROCESSED: [&str; 6] = ["2", "2", "1", "2", "1", "1"];
const DISOWNED: [&str; 6] = ["2", "2", "2", "2", "1", "2"];
const FINAL: [&str; 6] = ["1"; 6];

/// Rows that are statuses.
const STATUSES: [Row; 12] = [
    ("404", FINAL),
    ("408", PROCESSED),
    ("409", FINAL),
    ("422", FINAL),
    ("425", DISOWNED),
    ("429", DISOWNED),
    ("500", PROCESSED),
    ("501", FINAL),
    ("502", PROCESSED),
    ("503", PROCESSED),
    ("504", PROCESSED),
    ("507", FINAL),
];

/// Breaks off in the first attempt's response, by the request's path.
fn application() -> Server {
    Server::h1([Step::ask(|seen: &Seen| {
        let whole = || Reply::status(200).body(vec![b'x'; 2_000]);
        match (seen.header("x-attempt"), seen.path.as_str()) {
            (Some("1"), "/cut") => whole().cut_body(1_000, End::Reset),
            (Some("1"), "/cut-chunks") => {
                whole().chunked(vec![b'x'; 2_000]).cut_body(1_000, End::Close)
            }
            (Some("1"), "/cut-head") => whole().cut_head(End::Close),
            (Some("1"), "/hang") => whole().late(ms(1_500)),
            _ => whole(),
        }
    })])
}

#[tokio::test]
async fn of_nginx() {
    for http2 in ["", "http2"] {
        let (application, dead, address) = (application(), free_address(), free_address());
        let up = application.addr();
        let statuses = STATUSES.map(|(status, _)| {
            format!("location = /{status} {{ if ($first) {{ return {status}; }} {PASS} }}\n")
        });
        let part = format!(
            "map $http_x_attempt $first {{ 1 1; default ''; }}\n\
             upstream application {{ server {up}; }}\n\
             server {{ listen {address} {http2}; proxy_read_timeout 300ms; gzip on; gzip_types *;\n\
             proxy_next_upstream off;\n\
             {}\n\
             location = /444 {{ if ($first) {{ return 444; }} {PASS} }}\n\
             location = /retry-after {{ error_page 503 @hint; if ($first) {{ return 503; }} {PASS} }}\n\
             location @hint {{ add_header retry-after 0 always; return 503; }}\n\
             location = /dead {{ if ($first) {{ proxy_pass http://{dead}; }} {PASS} }}\n\
             location / {{ {PASS} }} }}",
            statuses.concat()
        );
        let Some(server) = nginx(address, &part) else { return };
        let rows = STATUSES.into_iter().chain([
            ("444", PROCESSED),
            ("retry-after", PROCESSED),
            ("dead", PROCESSED),
            ("hang", PROCESSED),
            ("cut", PROCESSED),
            ("cut-chunks", PROCESSED),
            ("cut-head", PROCESSED),
        ]);
        let name = if http2.is_empty() { "nginx h1" } else { "nginx h2" };
        check(name, &server, rows.collect(), !http2.is_empty(), &[]).await;
    }
}

const PASS: &str = "proxy_pass http://application;";

#[tokio::test]
async fn of_haproxy() {
    for proto in ["", "proto h2"] {
        let (application, closing, dead, address) =
            (application(), closing(), free_address(), free_address());
        // Where a back end breaks off, haproxy ends what is not the first request of a connection
        // without a response and a line of the log: these are counted at the back ends. And it reads
        // a request to its end before it responds: uploads that are cut short are another matter,
        // and over HTTP/2 they use up the window of the connection.
        let statuses = STATUSES.map(|(status, _)| {
            format!(" http-request return status {status} if first {{ path /{status} }}\n")
        });
        let part = format!(
            "{} option http-buffer-request\n timeout tarpit 100ms\n acl first req.hdr(x-attempt) 1\n\
             {} http-request reject if first {{ path /reject }}\n\
             \x20http-request tarpit deny_status 500 if first {{ path /tarpit }}\n\
             \x20use_backend none if first {{ path /none }}\n\
             \x20use_backend dead if first {{ path /dead }}\n\
             \x20use_backend closing if first {{ path /closing }}\n\
             \x20default_backend application\n\
             backend none\n\
             backend dead\n server only {dead}\n\
             backend closing\n server only {}\n\
             backend application\n timeout server 300ms\n server only {}\n",
            frontend("front", address, proto),
            statuses.concat(),
            closing.addr(),
            application.addr(),
        );
        let Some(server) = haproxy(address, &part) else { return };
        let rows = STATUSES.into_iter().chain([
            ("tarpit", PROCESSED),
            ("none", PROCESSED),
            ("dead", PROCESSED),
            ("hang", PROCESSED),
            ("cut", PROCESSED),
        ]);
        let more: &[Row] = match proto {
            // Over HTTP/2 haproxy says REFUSED_STREAM if its back end breaks off before it responds,
            // though that has the request, and makes a whole body of one that is cut.
            "proto h2" => &[("closing", DISOWNED), ("cut-head", DISOWNED), ("cut-chunks", FINAL)],
            _ => &[
                ("closing", PROCESSED),
                ("cut-head", PROCESSED),
                ("cut-chunks", PROCESSED),
                // Over HTTP/2 it ends the connection, with all other streams.
                ("reject", PROCESSED),
            ],
        };
        let rows = rows.chain(more.iter().copied()).collect();
        let is_h2 = !proto.is_empty();
        let name = if is_h2 { "haproxy h2" } else { "haproxy h1" };
        check(name, &server, rows, is_h2, &[&application, &closing]).await;
    }
}

/// Closes each connection after the request.
fn closing() -> Server {
    Server::h1([Fault::Unanswered(End::Close).into()])
}

#[tokio::test]
async fn of_nghttpx() {
    let (application, address) = (application(), free_address());
    let port = |address: SocketAddr| address.port();
    let part = format!(
        "frontend=127.0.0.1,{};no-tls\nbackend=127.0.0.1,{}\nbackend-read-timeout=300ms",
        port(address),
        port(application.addr())
    );
    let Some(server) = nghttpx(address, &part) else { return };
    let rows = [
        ("hang", PROCESSED),
        ("cut", PROCESSED),
        ("cut-chunks", PROCESSED),
        ("cut-head", PROCESSED),
    ];
    for is_h2 in [false, true] {
        let name = if is_h2 { "nghttpx h2" } else { "nghttpx h1" };
        check(name, &server, rows.to_vec(), is_h2, &[]).await;
    }
}

/// Sends a request for each cell and prints the table with what differs. Counted are lines of the log,
/// or the requests that reached the servers behind, if those are more.
async fn check(name: &str, server: &Real, rows: Vec<Row>, is_h2: bool, behind: &[&Server]) {
    let config = ResilientConfig::builder()
        .max_retries(2)
        .backoff(Constant::new(ms(1)))
        .jitter(Jitter::None)
        .without_circuit_breaker()
        .without_retry_budget()
        .without_gate()
        .read_body(64 << 10)
        .attempt_header(HeaderName::from_static("x-attempt"));
    let client = ResilientClient::builder().config(config.build().unwrap());
    let client = client.with_reqwest(move |it| {
        let it = it.no_proxy();
        if is_h2 { it.http2_prior_knowledge() } else { it }
    });
    let client = &client.build().unwrap();
    let sent = rows.iter().flat_map(|(fault, _)| {
        KINDS.map(|kind| async move {
            let url = server.url(&format!("/{fault}"));
            let request = kind.request(client.inner(), url).header("accept-encoding", "gzip");
            let _ =
                request.header("x-request-id", format!("{fault} {kind:?} {is_h2}")).send().await;
        })
    });
    // Fewer than the streams that one connection of HTTP/2 may have: those above are refused.
    iter(sent).buffer_unordered(40).collect::<()>().await;
    let log = server.log();
    let behind: Vec<_> = behind.iter().flat_map(|it| it.seen()).collect();
    let (mut wrong, mut all) = (vec![], 0);
    println!("{name:24}{}", KINDS.map(|kind| format!("{:10}", format!("{kind:?}"))).concat());
    for (fault, expected) in rows {
        let count = |id: String| {
            let reached = behind.iter().filter(|it| it.header("x-request-id") == Some(&id)).count();
            log.iter().filter(|it| it.id == id).count().max(reached)
        };
        let counts = KINDS.map(|kind| count(format!("{fault} {kind:?} {is_h2}")));
        println!("{fault:24}{}", counts.map(|it| format!("{it:<10}")).concat());
        for ((kind, expected), count) in KINDS.iter().zip(expected).zip(counts) {
            all += count;
            if !agrees(&format!("{expected}/{expected}"), (count, count)) {
                wrong.push(format!("{fault} {kind:?}: {count} instead of {expected}"));
            }
        }
    }
    println!("real {name} matrix: {all} requests, {} cells differ", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
