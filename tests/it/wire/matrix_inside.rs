//! Every fault under a POST that goes through a middleware inside: how many reach the application.

use std::io;

use futures_util::future::join_all;
use reqwest::Client;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use reqwest_resilient::{Resilient, ResilientClient};

use super::{ms, plain, quick};
use crate::support::URL;
use crate::support::inside::Inside;
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

/// The columns: what the middleware inside does.
const COLUMNS: [&str; 7] =
    ["nothing", "signs", "picks", "rebuilds", "checks", "fails after", "own task"];

fn inside(column: &str, server: &Server, own: &Client) -> Inside {
    match column {
        "nothing" => Inside::Nothing,
        "signs" => Inside::Signs,
        "picks" => Inside::Picks(server.url("/").parse().unwrap()),
        "rebuilds" => Inside::Rebuilds,
        "checks" => Inside::ChecksStatus,
        "fails after" => Inside::fails_after(|| {
            Error::middleware(io::Error::from(io::ErrorKind::ConnectionRefused))
        }),
        _ => Inside::Spawns(own.clone()),
    }
}

#[tokio::test]
async fn no_post_is_sent_twice_because_of_what_a_middleware_does() {
    use End::*;

    const ONCE: [usize; 7] = [1; 7];
    // Another origin may be a redirect, where the client is not ours.
    const REFUSED: [usize; 7] = [2, 2, 1, 2, 2, 1, 2];
    // Requests outside of our own chain are not recorded.
    const REFUSED_OURS: [usize; 7] = [2, 2, 2, 2, 2, 1, 2];
    let ok = || Reply::status(200).body("hello");
    let rows: Vec<(&str, Step, [usize; 7], [usize; 7])> = vec![
        ("200", ok().into(), ONCE, ONCE),
        ("request, FIN", Fault::Unanswered(Close).into(), ONCE, ONCE),
        ("request, RST", Fault::Unanswered(Reset).into(), ONCE, ONCE),
        ("request, stall", Fault::Unanswered(Stall).into(), ONCE, ONCE),
        ("garbage", Fault::Garbage.into(), ONCE, ONCE),
        ("half a head, RST", ok().cut_head(Reset).into(), ONCE, ONCE),
        ("half a body, FIN", ok().cut_body(2, Close).into(), ONCE, ONCE),
        ("half a body, RST", ok().cut_body(2, Reset).into(), ONCE, ONCE),
        ("404", Reply::status(404).into(), ONCE, ONCE),
        ("408", Reply::status(408).into(), ONCE, ONCE),
        ("500", Reply::status(500).into(), ONCE, ONCE),
        ("503", Reply::status(503).into(), ONCE, ONCE),
        ("503, Retry-After", Reply::status(503).header("retry-after", "0").into(), ONCE, ONCE),
        ("425", Reply::status(425).into(), REFUSED, REFUSED_OURS),
        ("429", Reply::status(429).into(), REFUSED, REFUSED_OURS),
    ];
    let own = &plain();
    let cells = |stalls: bool| {
        let rows = rows.iter().filter(move |it| it.0.contains("stall") == stalls);
        rows.flat_map(move |(fault, step, foreign, ours)| {
            COLUMNS.iter().enumerate().flat_map(move |(at, column)| {
                [(false, foreign[at]), (true, ours[at])].map(|(is_ours, expected)| async move {
                    let server = Server::h1([step.clone(), Reply::status(200).into()]);
                    let url = if *column == "picks" { URL.to_owned() } else { server.url("/data") };
                    let client = client(fault, is_ours, inside(column, &server, own));
                    let _ = client.post(url).body("once").send().await;
                    let reached = server.requests();
                    let cell =
                        format!("{fault}, {column}, ours {is_ours}: {reached} of {expected}");
                    (reached == expected, cell)
                })
            })
        })
    };
    // Stalling cases run last: their attempts have a limit, so there is less to wait for.
    let mut results = join_all(cells(false)).await;
    results.extend(join_all(cells(true)).await);
    let wrong: Vec<_> = results.into_iter().filter(|it| !it.0).map(|it| it.1).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn client(fault: &str, is_ours: bool, inside: Inside) -> ClientWithMiddleware {
    let limit = if fault.contains("stall") { ms(3_000) } else { ms(10_000) };
    let config = quick().read_body(1024).attempt_timeout(limit).build().unwrap();
    if is_ours {
        let client = ResilientClient::builder().config(config).with(inside).build().unwrap();
        return client.inner().clone();
    }
    ClientBuilder::new(plain()).with(Resilient::new(config)).with(inside).build()
}
