//! Failures after a redirect: the first server may have processed the request.

use reqwest::redirect::Policy;
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BreakerState, Delivery, FailureKind, HostStates, StopReason,
};
use tokio::time::Instant;

use super::{plain, quick, resilient, resilient_on, settings};
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

#[tokio::test]
async fn a_post_that_failed_after_a_redirect_is_not_sent_again() {
    let busy = Reply::status(503).header("retry-after", "0");
    let seconds: [Step; 4] = [
        busy.into(),
        Reply::status(429).into(),
        Fault::Unanswered(End::Reset).into(),
        Fault::AtAccept(End::Reset).into(),
    ];
    for second in seconds {
        for status in [301, 302, 303, 307, 308] {
            let second = Server::h1([second.clone()]);
            let first = Server::h1([Reply::redirect(status, second.url("/done")).into()]);
            let log = post(&first).await;
            assert_eq!(
                (first.requests(), first.duplicates(), log.attempts()),
                (1, 0, 1),
                "{status}"
            );
            assert_eq!(log.history().stop_reason(), Some(StopReason::UnsafeToRepeat));
        }
    }
}

#[tokio::test]
async fn not_even_if_the_second_host_refuses_connections() {
    for status in [302, 303, 307] {
        let first = Server::h1([Reply::redirect(status, closed_port()).into()]);
        let log = post(&first).await;
        // The error alone says that nothing was sent, to the host that was asked.
        let history = log.history();
        let attempt = &history.attempts()[0];
        assert_eq!(attempt.result, Err(FailureKind::Connect));
        assert_eq!(attempt.delivery, Delivery::MaybeProcessed);
        assert_eq!((first.requests(), log.attempts()), (1, 1));
    }
}

#[tokio::test]
async fn nor_if_it_was_sent_back_to_where_it_came_from() {
    let server = Server::h1([Reply::redirect(303, "/").into(), Reply::status(429).into()]);
    assert_eq!(post(&server).await.attempts(), 1);
    assert_eq!(server.requests(), 2);
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn nor_if_the_second_server_refuses_the_stream() {
    use crate::support::h2::Stream;

    let server = Server::h2([Reply::redirect(303, "/done").into(), Stream::Refuse]);
    let log = AttemptLog::new();
    let client = resilient(quick(), super::plain_h2());
    let request = client.post(server.url("/")).body("once").with_extension(log.clone());
    request.send().await.unwrap_err();
    assert_eq!((server.requests(), server.begun(), log.attempts()), (1, 2, 1));
}

#[tokio::test]
async fn a_post_that_was_not_redirected_is_sent_again() {
    let client = resilient(quick(), plain());
    for url in [closed_port(), format!("{}#part", closed_port())] {
        let log = AttemptLog::new();
        client.post(url).body("x").with_extension(log.clone()).send().await.unwrap_err();
        assert_eq!((log.attempts(), log.history().attempts()[0].delivery), (3, Delivery::NotSent));
    }
    let server = Server::h1([Reply::status(429).into()]);
    client.post(server.url("/#part")).body("x").send().await.unwrap();
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_get_starts_at_the_first_url_again() {
    let second = Server::h1([Reply::status(503).into(), Reply::status(200).into()]);
    let first = Server::h1([Reply::redirect(307, second.url("/there")).into()]);
    let response = resilient(quick(), plain()).get(first.url("/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().path()), (200, "/there"));
    assert_eq!((first.requests(), second.requests()), (2, 2));
}

#[tokio::test]
async fn both_breakers_hear_and_the_history_names_the_host_that_responded() {
    let second = Server::h1([Reply::status(200).into(), Reply::status(503).into()]);
    let first = Server::h1([Reply::redirect(302, second.url("/")).into()]);
    let config = quick().circuit_breaker(BreakerConfig::consecutive(3));
    let (log, hosts) = (AttemptLog::new(), HostStates::new());
    let client = resilient_on(&hosts, config, plain());
    // Asked before: a report about another host creates no state.
    client.get(second.url("/")).send().await.unwrap();
    client.get(first.url("/")).with_extension(log.clone()).send().await.unwrap();
    for attempt in log.history().attempts() {
        assert_eq!(attempt.responded_by, Some(second.addr().to_string()));
    }
    let state = |server: &Server| hosts.breaker(&format!("http://{}", server.addr())).state();
    assert_eq!((state(&first), state(&second)), (BreakerState::Open, BreakerState::Open));
}

#[tokio::test]
async fn an_attempt_counts_once_with_a_host_that_redirects_to_itself() {
    let turns = Step::ask(|seen| match &*seen.path {
        "/" => Reply::redirect(302, "/elsewhere"),
        _ => Reply::status(503),
    });
    let server = Server::h1([turns]);
    let config = quick().circuit_breaker(BreakerConfig::consecutive(3));
    let hosts = HostStates::new();
    let client = resilient_on(&hosts, config, plain());
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests()), (503, 6));
    let seen = &hosts.snapshot(Instant::now())[0];
    assert_eq!((seen.consecutive_failures, seen.state), (3, BreakerState::Open));
}

#[tokio::test]
async fn too_many_redirects_are_too_many_the_next_time() {
    let server = Server::h1([Reply::redirect(302, "/again").into()]);
    let client = resilient(quick(), settings().redirect(Policy::limited(3)).build().unwrap());
    let error = client.get(server.url("/")).send().await.unwrap_err();
    assert!(error.is_redirect());
    assert_eq!(server.requests(), 4);
}

/// Returns the log of a POST.
async fn post(server: &Server) -> AttemptLog {
    let log = AttemptLog::new();
    let client = resilient(quick(), plain());
    let _ = client.post(server.url("/")).body("once").with_extension(log.clone()).send().await;
    log
}

/// A url that refuses connections.
fn closed_port() -> String {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", closed.local_addr().unwrap())
}
