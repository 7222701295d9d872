//! Retries of reqwest itself, below any middleware: the number of streams that a server sees.
#![cfg(feature = "http2")]

use h2::Reason;
use reqwest::Client;
use reqwest_resilient::{AttemptLog, WaitSource};

use super::{ms, plain_h2, quick, resilient};
use crate::support::h2::Stream;
use crate::support::server::Server;

#[tokio::test]
async fn each_attempt_may_be_three_streams() {
    for refusal in [Stream::Refuse, Stream::GoAwayBefore(Reason::NO_ERROR)] {
        assert_eq!(attempts_and_streams(as_reqwest_makes_it(), refusal).await, (3, 9));
    }
    // Of other reasons it knows nothing.
    let calm = Stream::GoAwayBefore(Reason::ENHANCE_YOUR_CALM);
    assert_eq!(attempts_and_streams(as_reqwest_makes_it(), calm).await, (3, 3));
}

#[tokio::test]
async fn each_attempt_is_one_stream_where_that_is_switched_off() {
    for refusal in [Stream::Refuse, Stream::GoAwayBefore(Reason::NO_ERROR)] {
        assert_eq!(attempts_and_streams(plain_h2(), refusal).await, (3, 3));
    }
}

/// Returns attempts and streams: a refused request was refused three times already, and is not
/// sent again at once.
async fn attempts_and_streams(client: Client, refusal: Stream) -> (u32, usize) {
    let server = Server::h2([refusal]);
    let log = AttemptLog::new();
    let client = resilient(quick(), client);
    client.post(server.url("/")).body("x").with_extension(log.clone()).send().await.unwrap_err();
    for attempt in &log.history().attempts()[..2] {
        assert_eq!(attempt.wait, Some((ms(1), WaitSource::Backoff)));
    }
    assert_eq!(server.requests(), 0);
    (log.attempts(), server.begun())
}

fn as_reqwest_makes_it() -> Client {
    crate::support::client_builder().http2_prior_knowledge().build().unwrap()
}
