//! What haproxy does to requests by itself: it refuses them, repeats them, and lets them hang.

use super::application;
use http::Method;
use reqwest_resilient::{Constant, FailureKind, ResilientConfig, RetryVerdict};

use crate::real::client::{
    CHAIN, Kind, Load, MIXED, OURS, Setup, TURNS, all_but_posts, asked, no_worse_than_the_peer,
    none_twice, processed, reached, report,
};
use crate::real::ms;
use crate::real::server::{frontend, haproxy, twice};
use crate::support::program::free_address;
use crate::support::reply::{End, Fault};
use crate::support::server::Server;

#[tokio::test]
async fn forty_at_once_at_429_of_a_stick_table() {
    let address = free_address();
    let part = format!(
        "backend rates\n stick-table type string len 64 size 100 expire 1m store http_req_rate(1s)\n\
         {} http-request track-sc0 path table rates\n\
         \x20http-request return status 429 hdr retry-after 1 if {{ sc_http_req_rate(0) gt 10 }}\n\
         \x20http-request return status 200 content-type text/plain string hello\n",
        frontend("front", address, "")
    );
    let Some(server) = haproxy(address, &part) else { return };
    let clients = Setup::new().contestants();
    let load = Load::new(40, 40, MIXED);
    let tallies = load.by_each(&clients, |who| server.url(&format!("/{who}"))).await;
    let log = server.log();
    let seen = report("haproxy 429", &tallies, &log, processed(&log));
    no_worse_than_the_peer(&seen);
    none_twice(&seen);
}

/// Sends a load by each of ours to haproxy with these rules, one after the other.
async fn ruled(test: &str, rules: &str, back_ends: &str, load: Load, lost: usize) -> bool {
    let address = free_address();
    let part = format!(
        "{}{rules}\n default_backend all\nbackend all\n{back_ends}\n",
        frontend("front", address, "")
    );
    let Some(server) = haproxy(address, &part) else { return false };
    let setup = Setup::quick().attempt_timeout(ms(500));
    let clients = [(OURS, setup.ours()), (CHAIN, setup.chain())];
    let mut tallies = vec![];
    for (who, client) in &clients {
        tallies.push(load.by(who, client, &server.url("/")).await);
    }
    let log = server.log();
    let seen = report(test, &tallies, &log, asked(&log));
    none_twice(&seen);
    all_but_posts(&tallies, lost);
    true
}

#[tokio::test]
async fn a_back_end_that_breaks_off_is_asked_again_by_us_alone() {
    // In turns it closes the connection without a response.
    let breaking = || Server::h1([Fault::Unanswered(End::Close).into()]);
    let (good, bad) = (application(), breaking());
    let servers = format!(" server bad {}\n server good {}", bad.addr(), good.addr());
    let load = Load::new(32, 1, TURNS);
    // haproxy closes the client's connection without a response, and without a line of the log, if
    // that had requests before.
    let none = format!(" balance roundrobin\n retry-on none\n{servers}");
    if !ruled("haproxy retry-on none, 502", "", &none, load, 8).await {
        return;
    }
    let all: Vec<_> = reached([&good, &bad]).collect();
    assert_eq!((all.len(), twice(all)), (32, 0));
    // haproxy itself sends a POST twice, if it is told to.
    let (good, bad) = (application(), breaking());
    let servers = format!(" server bad {}\n server good {}", bad.addr(), good.addr());
    let own = format!(
        " balance roundrobin\n retries 2\n option redispatch 1\n\
         \x20retry-on all-retryable-errors\n{servers}"
    );
    ruled("haproxy retry-on all, 502", "", &own, load, 0).await;
    let by_haproxy = twice(reached([&good, &bad]));
    println!("  {by_haproxy} POSTs of 32 were sent twice by haproxy, none by us");
    assert!(by_haproxy > 0);
}

#[tokio::test]
async fn a_dead_back_end_is_left_by_redispatch() {
    let good = application();
    let servers = format!(
        " balance roundrobin\n retries 1\n option redispatch 1\n server dead {}\n server good {}",
        free_address(),
        good.addr()
    );
    let load = Load::new(30, 1, MIXED);
    if ruled("haproxy redispatch, dead", "", &servers, load, 0).await {
        assert_eq!(twice(reached([&good])), 0);
    }
}

#[tokio::test]
async fn silent_drop_costs_an_attempt_timeout() {
    let good = application();
    let server = format!(" server good {}", good.addr());
    // As another user than root haproxy resets the connection instead.
    let drop = " http-request silent-drop if { req.hdr(x-attempt) 1 }";
    let load = Load::new(12, 12, MIXED);
    ruled("haproxy silent-drop", drop, &server, load, 4).await;
}

#[tokio::test]
async fn tarpit_costs_an_attempt_timeout_or_a_late_500() {
    let good = application();
    let server = format!(" server good {}", good.addr());
    let load = Load::new(12, 12, MIXED);
    for patience in ["100ms", "5s"] {
        let pit = format!(
            " timeout tarpit {patience}\n http-request tarpit deny_status 500 if {{ req.hdr(x-attempt) 1 }}"
        );
        ruled(&format!("haproxy tarpit of {patience}"), &pit, &server, load, 4).await;
    }
}

/// haproxy says REFUSED_STREAM also if its back end broke off and had the request, against RFC 9113,
/// section 8.7.
#[tokio::test]
async fn a_refusal_over_http2_that_is_not_true_is_believed_unless_told_otherwise() {
    for believes in [true, false] {
        let closing = Server::h1([Fault::Unanswered(End::Close).into()]);
        let address = free_address();
        let part = format!(
            "{} default_backend closing\nbackend closing\n server only {}\n",
            frontend("front", address, "proto h2"),
            closing.addr()
        );
        let Some(server) = haproxy(address, &part) else { return };
        let config = ResilientConfig::builder().backoff(Constant::new(ms(5))).max_retries(1);
        // As the guide on what a client cannot know has it.
        let config = match believes {
            true => config,
            false => config.retry_if(|outcome| match outcome.failure() {
                Some(FailureKind::Refused) if outcome.method() == Method::POST => {
                    RetryVerdict::Stop
                }
                _ => outcome.default_verdict(),
            }),
        };
        let client = Setup::with(config).inner(|it| it.http2_prior_knowledge()).ours();
        let tally = Load::new(4, 1, &[Kind::Post]).by(OURS, &client, &server.url("/")).await;
        let test = format!("haproxy h2 REFUSED_STREAM, believed: {believes}");
        let seen = report(&test, &[tally], &server.log(), reached([&closing]));
        assert_eq!(seen[0].twice, if believes { 4 } else { 0 });
    }
}
