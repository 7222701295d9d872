//! `limit_req` and `limit_conn`.

use reqwest_resilient::{ConcurrencyLimit, Limit, Rate, RateLimit, ResilientConfig};

use crate::real::client::{
    Kind, Load, MIXED, Setup, all_succeed, no_worse_than_the_peer, none_twice, processed, reached,
    report,
};
use crate::real::ms;
use crate::real::server::nginx;
use crate::support::program::free_address;
use crate::support::reply::Reply;
use crate::support::server::Server;

/// What a limit of the client's own makes of it.
const LIMITED: &str = "RateLimit";

/// Sends 60 requests at once to a limit of 10 a second after a first ten.
async fn sixty_at_once(test: &str, kinds: &'static [Kind], refusal: &str, all_pass: bool) {
    let address = free_address();
    let part = format!(
        "limit_req_zone $uri zone=each:1m rate=10r/s;\n\
         server {{ listen {address}; {refusal}\n\
         location / {{ limit_req zone=each burst=10 nodelay; try_files /none @good; }}\n\
         location @good {{ return 200 'hello'; }} }}"
    );
    let Some(server) = nginx(address, &part) else { return };
    let mut clients = Setup::new().contestants();
    let rate = RateLimit::per_host(Rate::per_second(9));
    let limited = Setup::with(ResilientConfig::builder().rate_limit(rate)).ours();
    clients.push((LIMITED, limited));
    let load = Load::new(60, 60, kinds);
    let tallies = load.by_each(&clients, |who| server.url(&format!("/{who}"))).await;
    let log = server.log();
    let seen = report(test, &tallies, &log, processed(&log));
    no_worse_than_the_peer(&seen);
    none_twice(&seen);
    let limited = seen.iter().find(|it| it.who == LIMITED).unwrap();
    assert_eq!((limited.good, limited.requests), (60, 60), "{LIMITED}");
    if all_pass {
        all_succeed(&tallies);
    }
}

#[tokio::test]
async fn sixty_at_once_at_429() {
    let hint = "limit_req_status 429; error_page 429 @hint;\n\
         location @hint { add_header retry-after 1 always; return 429; }";
    tokio::join!(
        sixty_at_once("nginx limit_req 429", MIXED, "limit_req_status 429;", true),
        sixty_at_once("nginx limit_req 429, retry-after", MIXED, hint, true),
    );
}

#[tokio::test]
async fn sixty_at_once_at_503() {
    // A POST that got a 503 may have been processed.
    const GETS: &[Kind] = &[Kind::Get];
    let hint = "limit_req_status 503; error_page 503 @hint;\n\
         location @hint { add_header retry-after 1 always; return 503; }";
    tokio::join!(
        // Without a hint a 503 is an outage, which closes no gate.
        sixty_at_once("nginx limit_req 503", GETS, "limit_req_status 503;", false),
        sixty_at_once("nginx limit_req 503, retry-after", GETS, hint, true),
    );
}

#[tokio::test]
async fn forty_at_once_at_five_connections() {
    let application = Server::h1([Reply::status(200).body("hello").late(ms(50)).into()]);
    let address = free_address();
    let part = format!(
        "limit_conn_zone $uri zone=each:1m;\n\
         server {{ listen {address}; limit_conn_status 429; limit_conn each 5;\n\
         location / {{ proxy_pass http://{}; }} }}",
        application.addr()
    );
    let Some(server) = nginx(address, &part) else { return };
    let mut clients = Setup::new().contestants();
    // One less than the server's limit, as that counts a request until it is logged.
    let limit = ConcurrencyLimit::per_host(Limit::fixed(4));
    let limited = Setup::with(ResilientConfig::builder().concurrency_limit(limit)).ours();
    clients.push((LIMITED, limited));
    let load = Load::new(40, 40, MIXED);
    let tallies = load.by_each(&clients, |who| server.url(&format!("/{who}"))).await;
    let seen = report("nginx limit_conn 429", &tallies, &server.log(), reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
    let limited = seen.iter().find(|it| it.who == LIMITED).unwrap();
    assert_eq!((limited.good, limited.requests), (40, 40), "{LIMITED}");
}
