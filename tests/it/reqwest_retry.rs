//! The behaviour that reqwest-retry's tests pin down, of the preset that takes its place: 55 statuses
//! and 4 broken connections on real sockets; kinds of errors, numbers of retries
//! and the bounds of waits in virtual time.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::Reply as Scripted;
use reqwest_resilient::{Exponential, Jitter, Resilient, ResilientConfig, ResilientConfigBuilder};

use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;
use crate::support::{URL, client_builder, fault, scripted};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The statuses of their tests, and whether each is sent again.
const STATUSES: [(&[u16], bool); 4] = [
    (&[200, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 307, 308], false),
    (&[400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 412, 413, 414, 415, 416], false),
    (&[417, 418, 421, 422, 423, 424, 426, 428, 431, 451], false),
    (&[408, 429, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511], true),
];

/// The preset with their waits.
fn quick() -> ResilientConfigBuilder {
    let backoff = Exponential::new(ms(30)).max_delay(ms(100));
    ResilientConfig::plain().to_builder().backoff(backoff)
}

fn client() -> ClientWithMiddleware {
    let resilient = Resilient::new(quick().build().unwrap());
    ClientBuilder::new(client_builder().build().unwrap()).with(resilient).build()
}

/// Sends a GET to a server that fails as scripted, then responds with 200; the status that comes
/// back, and the number of requests that arrived whole.
async fn sent(failures: impl IntoIterator<Item = Step>, timeout: Duration) -> (u16, usize) {
    let good = Reply::status(200).into();
    let server = Server::h1(failures.into_iter().chain([good]));
    let response = client().get(server.url("/foo")).timeout(timeout).send().await.unwrap();
    (response.status().as_u16(), server.requests())
}

#[tokio::test]
async fn each_of_55_statuses_is_final_or_sent_again() {
    let statuses = STATUSES.iter().flat_map(|(all, again)| all.iter().map(move |it| (*it, *again)));
    let cases = statuses.map(|(status, again)| async move {
        let ended = sent([Reply::status(status).into()], Duration::from_secs(9)).await;
        assert_eq!(ended, if again { (200, 2) } else { (status, 1) }, "{status}");
    });
    assert_eq!(join_all(cases).await.len(), 55);
}

#[tokio::test]
async fn a_request_that_timed_out_is_sent_again() {
    let late = Reply::status(500).late(Duration::from_secs(5)).into();
    assert_eq!(sent([late], ms(500)).await, (200, 2));
}

#[tokio::test]
async fn a_response_whose_head_is_cut_is_asked_for_again() {
    let cut = || Reply::status(200).cut_head(End::Close).into();
    assert_eq!(sent([cut(), cut(), cut()], Duration::from_secs(9)).await, (200, 4));
}

#[tokio::test]
async fn a_request_on_a_connection_that_closes_is_sent_again() {
    for end in [End::Close, End::Drop] {
        let closed = || Fault::Unanswered(end).into();
        assert_eq!(sent([closed(), closed(), closed()], Duration::from_secs(9)).await, (200, 4));
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_is_reset_is_sent_again() {
    let reset = || Fault::Unanswered(End::Reset).into();
    assert_eq!(sent([reset(), reset(), reset()], Duration::from_secs(9)).await, (200, 4));
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_error_is_final_or_sent_again() {
    type Error = fn() -> reqwest::Error;
    let transient: [(&str, Error); 8] = [
        ("refused", fault::refused),
        ("dns", fault::dns),
        ("connect timeout", fault::connect_timeout),
        ("request timeout", fault::request_timeout),
        ("reset", fault::reset),
        ("incomplete", fault::early_eof),
        // Final there, by the code: no test of theirs has these.
        ("garbage", fault::garbage),
        ("truncated", fault::truncated),
    ];
    let permanent: [(&str, Error); 4] = [
        ("redirect loop", fault::redirect_loop),
        ("bad scheme", fault::bad_scheme),
        ("bad header", fault::bad_header),
        ("decode", fault::decode),
    ];
    for (cases, attempts) in [(&transient[..], 4), (&permanent[..], 1)] {
        for &(name, error) in cases {
            let (client, script) =
                scripted(quick().build().unwrap(), [Scripted::error(move || error().into())]);
            client.get(URL).send().await.unwrap_err();
            assert_eq!(script.sent().len(), attempts, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_response_comes_back_after_so_many_retries() {
    for retries in [0, 1, 3, 10] {
        let config = quick().max_retries(retries).build().unwrap();
        let (client, script) = scripted(config, [Scripted::status(503)]);
        let response = client.get(URL).send().await.unwrap();
        let ended = (response.status().as_u16(), script.sent().len());
        assert_eq!(ended, (503, retries as usize + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_cap_and_jitter_stays_within_them() {
    let bounds = [30, 60, 100, 100, 100].map(ms);
    for (jitter, shortest) in [(Jitter::None, 1.0), (Jitter::Full, 0.0), (Jitter::Equal, 0.5)] {
        for _ in 0..200 {
            let config = quick().max_retries(5).jitter(jitter).build().unwrap();
            let (client, script) = scripted(config, [Scripted::status(503)]);
            client.get(URL).send().await.unwrap();
            let sent = script.sent();
            assert_eq!(sent.len(), 6);
            for (pair, bound) in sent.windows(2).zip(bounds) {
                let wait = pair[1].at - pair[0].at;
                // Tokio's timers go by milliseconds.
                let bounds = bound.mul_f64(shortest)..=bound + ms(1);
                assert!(bounds.contains(&wait), "{jitter:?}: {wait:?} not in {bounds:?}");
            }
        }
    }
}
