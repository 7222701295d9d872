//! What nginx says for a server behind it, or before it asks one.

use std::net::SocketAddr;

use crate::real::client::{
    CHAIN, Kind, Load, MIXED, OURS, Setup, TURNS, all_but_posts, all_succeed, asked, none_twice,
    reached, report,
};
use crate::real::server::{nginx, nginx_in, twice};
use crate::support::folder::Folder;
use crate::support::program::free_address;
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

fn application() -> Server {
    Server::h1([Reply::status(200).body("hello").into()])
}

/// Sends 32 requests by each client to a bad and a good back end in turns. Returns the POSTs without
/// a key that reached the good one, of 32.
async fn beside(test: &str, bad: SocketAddr, next: &str, lost_posts: usize) -> Option<Vec<String>> {
    let (good, address) = (application(), free_address());
    let part = format!(
        "upstream both {{ server {bad} max_fails=0; server {} max_fails=0; }}\n\
         server {{ listen {address}; proxy_read_timeout 100ms; proxy_next_upstream {next};\n\
         location / {{ proxy_pass http://both; }} }}",
        good.addr()
    );
    let server = nginx(address, &part)?;
    let mut tallies = vec![];
    // One request at a time: the retry of one that failed is the next that the good one gets.
    for (who, client) in [(OURS, Setup::quick().ours()), (CHAIN, Setup::quick().chain())] {
        tallies.push(Load::new(32, 1, TURNS).by(who, &client, &server.url("/")).await);
    }
    let log = server.log();
    // What we send is counted by nginx: what it sends again by itself is not ours.
    let seen = report(test, &tallies, &log, asked(&log));
    none_twice(&seen);
    all_but_posts(&tallies, lost_posts);
    Some(reached([&good]).collect())
}

#[tokio::test]
async fn a_dead_back_end_costs_no_request_that_may_be_repeated() {
    let test = "nginx proxy_next_upstream off, 502";
    let Some(posts) = beside(test, free_address(), "off", 8).await else { return };
    assert_eq!((posts.len(), twice(posts)), (16, 0));
    // nginx asks the next one itself.
    let test = "nginx proxy_next_upstream error, 502";
    let posts = beside(test, free_address(), "error timeout", 0).await.unwrap();
    assert_eq!((posts.len(), twice(posts)), (32, 0));
}

#[tokio::test]
async fn a_hanging_back_end_costs_no_request_that_may_be_repeated() {
    let hanging = Server::h1([Fault::Unanswered(End::Stall).into()]);
    let test = "nginx proxy_next_upstream off, 504";
    let Some(posts) = beside(test, hanging.addr(), "off", 8).await else { return };
    let all: Vec<_> = posts.into_iter().chain(reached([&hanging])).collect();
    assert_eq!((all.len(), twice(all)), (32, 0));
    // nginx itself sends a POST twice, if it is told to.
    let hanging = Server::h1([Fault::Unanswered(End::Stall).into()]);
    let test = "nginx proxy_next_upstream non_idempotent, 504";
    let next = "error timeout http_502 http_504 non_idempotent";
    let posts = beside(test, hanging.addr(), next, 0).await.unwrap();
    let by_nginx = twice(posts.into_iter().chain(reached([&hanging])));
    println!("  {by_nginx} POSTs of 32 were sent twice by nginx, none by us");
    assert!(by_nginx > 0);
}

#[tokio::test]
async fn a_body_too_large_is_sent_once() {
    let address = free_address();
    let part = format!(
        "server {{ listen {address}; client_max_body_size 1k; location / {{ return 200; }} }}"
    );
    let Some(server) = nginx(address, &part) else { return };
    let client = Setup::new().ours();
    for (number, size) in [(0, 2_000), (1, 1_000_000)] {
        let body = vec![b'x'; size];
        let sent = client.put(&server.url("/"), &format!("{OURS} {number}"), body).await;
        assert!(sent.is_err());
    }
    let log = server.log();
    println!("real nginx 413: {} requests for 2 bodies", log.len());
    assert!(log.iter().all(|it| it.status == 413), "{log:?}");
    // The second may be cut before its response is read: that is repeated once.
    assert!([2, 3].contains(&log.len()), "{log:?}");
}

#[tokio::test]
async fn a_request_that_expects_100_is_sent_once() {
    let (application, address) = (application(), free_address());
    let pass = format!("location / {{ proxy_pass http://{}; }}", application.addr());
    let part = format!("server {{ listen {address}; {pass} }}");
    let Some(server) = nginx(address, &part) else { return };
    let expecting = Setup::new().inner(|it| {
        let expect = [(http::header::EXPECT, http::HeaderValue::from_static("100-continue"))];
        it.default_headers(expect.into_iter().collect())
    });
    let clients = expecting.contestants();
    let tallies = Load::new(30, 3, MIXED).by_each(&clients, |_| server.url("/")).await;
    let log = server.log();
    let seen = report("nginx 100-continue", &tallies, &log, reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
    assert!(seen.iter().all(|it| it.requests == 30));
}

#[tokio::test]
async fn error_pages_are_drained_or_left() {
    let (address, folder) = (free_address(), Folder::new());
    std::fs::write(folder.file("small.html"), vec![b'x'; 60_000]).unwrap();
    std::fs::write(folder.file("large.html"), vec![b'x'; 200_000]).unwrap();
    let root = folder.0.display();
    let part = format!(
        "map $http_x_attempt $first {{ 1 1; default 0; }}\n\
         server {{ listen {address}; root {root};\n\
         location /small {{ error_page 503 /small.html; if ($first) {{ return 503; }} return 200; }}\n\
         location /large {{ error_page 503 /large.html; if ($first) {{ return 503; }} return 200; }}\n\
         location /sorry {{ error_page 503 =200 /small.html; return 503; }}\n\
         location = /small.html {{ }} location = /large.html {{ }} }}"
    );
    let Some(server) = nginx_in(folder, address, &part) else { return };
    let expected = [("small", 20, 1), ("large", 20, 11), ("sorry", 10, 1)];
    for (page, requests, connections) in expected {
        let (client, path) = (Setup::quick().ours(), format!("/{page}"));
        let tally = Load::new(10, 1, &[Kind::Get]).by(page, &client, &server.url(&path)).await;
        let log: Vec<_> = server.log().into_iter().filter(|it| it.path == path).collect();
        let seen = report(&format!("nginx error_page {page}"), &[tally], &log, []);
        assert_eq!((seen[0].good, seen[0].requests), (10, requests), "{page}");
        assert!(seen[0].connections <= connections, "{page}: {}", seen[0].connections);
    }
}
