//! Uploads that the server cuts short, as one does that says 413 before it has read them.

use reqwest_resilient::{AttemptLog, StopReason, WaitSource};

use super::{ms, plain, quick, resilient};
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

#[tokio::test]
async fn a_large_upload_that_is_cut_goes_once_more_and_not_at_once() {
    let server = Server::h1([Fault::After(100_000, End::Reset).into()]);
    let log = AttemptLog::new();
    let put = resilient(quick(), plain()).put(server.url("/")).body(vec![b'x'; 8 << 20]);
    put.with_extension(log.clone()).send().await.unwrap_err();
    let history = log.history();
    assert_eq!((log.attempts(), server.begun()), (2, 2));
    assert_eq!(history.attempts()[0].wait, Some((ms(1), WaitSource::Backoff)));
    assert_eq!(history.stop_reason(), Some(StopReason::Final));
}

#[tokio::test]
async fn an_early_413_is_not_asked_for_again_and_again() {
    let server = Server::h1([Reply::status(413).early().into()]);
    let put = resilient(quick().max_retries(9), plain()).put(server.url("/"));
    // The response may be lost in the reset of the connection.
    if let Ok(response) = put.body(vec![b'x'; 8 << 20]).send().await {
        assert_eq!(response.status().as_u16(), 413);
    }
    assert!(server.begun() <= 2, "{} uploads", server.begun());
}
