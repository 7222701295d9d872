//! The errors reqwest makes of each fault: what its predicates say, and what lies below.

use std::error::Error as StdError;
use std::io;

use reqwest::Error;

use crate::support::fault;

const CONNECT: &str = "client error (Connect)";
const SEND: &str = "client error (SendRequest)";
const BODY: &str = "reqwest request or response body error";

#[test]
fn before_the_request() {
    check(
        fault::refused(),
        "connect request",
        &[CONNECT, "tcp connect error", "io ConnectionRefused"],
    );
    check(
        fault::dns(),
        "connect dns request",
        &[CONNECT, "dns error", "error resolving DNS", "io Other of no such host"],
    );
    check(fault::bad_scheme(), "builder", &["URL scheme is not allowed"]);
    check(fault::bad_header(), "builder", &["invalid HTTP header name"]);

    // Two clocks run: reqwest's around the connector and hyper-util's in it. Either may win.
    let error = fault::connect_timeout();
    assert_eq!(kinds(&error), "connect request timeout");
    let chain = chain(&error);
    assert_eq!(chain[0], CONNECT);
    let last = chain.last().unwrap();
    assert!(last == "operation timed out" || last.starts_with("io TimedOut"), "{last}");

    // Nothing was sent, and nothing shows it.
    check(fault::timeout_while_connecting(), "request timeout", &["operation timed out"]);
}

#[test]
fn instead_of_a_response() {
    check(fault::request_timeout(), "request timeout", &["operation timed out"]);
    check(fault::reset(), "request", &[SEND, "hyper", "io ConnectionReset"]);
    check(fault::early_eof(), "request", &[SEND, "hyper incomplete"]);
    check(fault::garbage(), "request", &[SEND, "hyper parse"]);
    check(fault::broken_upload(), "request", &[SEND, "hyper user", BODY, "io Other of no more"]);
    check(fault::redirect_loop(), "redirect", &["too many redirects"]);
    check(fault::status(), "status", &[]);
}

#[test]
fn in_the_body() {
    let short = "io UnexpectedEof of end of file before message length reached";
    check(fault::truncated(), "decode", &[BODY, "hyper", short]);
    let short = "io UnexpectedEof of unexpected EOF during chunk size line";
    check(fault::truncated_chunk(), "decode", &[BODY, "hyper", short]);
    check(fault::body_reset(), "decode", &[BODY, "hyper", "io ConnectionReset"]);
    check(fault::body_timeout(), "decode timeout", &[BODY, "operation timed out"]);
    check(fault::decode(), "decode", &["json"]);
}

#[cfg(feature = "http2")]
#[test]
fn in_http2() {
    use h2::Reason;

    let refused = &[SEND, "hyper", "h2 reset REFUSED_STREAM"];
    check(fault::refused_stream(), "request", refused);
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let reset = format!("h2 reset {reason:?}");
        check(fault::stream_reset(reason), "request", &[SEND, "hyper", &reset]);
    }
    for reason in [Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let go_away = format!("h2 go_away {reason:?}");
        check(fault::go_away(reason), "request", &[SEND, "hyper", &go_away]);
        // The reason is lost: an io error, which also any connection that ends leaves.
        let broken = &[SEND, "hyper", "io BrokenPipe of stream closed because of a broken pipe"];
        check(fault::go_away_in_flight(reason), "request", broken);
    }
}

#[cfg(feature = "rustls-errors")]
#[test]
fn in_the_tls_handshake() {
    // `source()` of the outer io error skips the inner: only `get_ref` finds the rustls error.
    let refused = "io Other of io InvalidData of rustls";
    check(fault::certificate(), "connect request", &[CONNECT, refused]);
    let cut = "io Other of io UnexpectedEof of tls handshake eof";
    check(fault::handshake_cut(), "connect request", &[CONNECT, cut]);
}

#[cfg(feature = "rustls-errors")]
#[tokio::test]
async fn a_tls_server_counts_handshakes() {
    let server = crate::support::tls::TlsServer::self_signed();
    let client = server.client();
    client.get(server.url("/")).send().await.unwrap_err();
    client.get(server.url("/")).send().await.unwrap_err();
    assert_eq!(server.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_while_a_fault_is_made() {
    let start = tokio::time::Instant::now();
    assert!(fault::request_timeout().is_timeout());
    assert!(fault::refused().is_connect());
    assert_eq!(start.elapsed(), std::time::Duration::ZERO);
}

#[track_caller]
fn check(error: Error, expected_kinds: &str, expected_chain: &[&str]) {
    assert_eq!(kinds(&error), expected_kinds, "{error:?}");
    assert_eq!(chain(&error), expected_chain, "{error:?}");
}

/// The predicates that hold.
fn kinds(error: &Error) -> String {
    let kinds = [
        ("body", error.is_body()),
        ("builder", error.is_builder()),
        ("connect", error.is_connect()),
        ("decode", error.is_decode()),
        ("dns", error.is_dns()),
        ("redirect", error.is_redirect()),
        ("request", error.is_request()),
        ("status", error.is_status()),
        ("timeout", error.is_timeout()),
    ];
    let held: Vec<_> =
        kinds.into_iter().filter(|(_, holds)| *holds).map(|(kind, _)| kind).collect();
    held.join(" ")
}

/// The sources below the error, one word or two for each.
fn chain(error: &Error) -> Vec<String> {
    let mut chain = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        chain.push(link(error));
        source = error.source();
    }
    chain
}

fn link(error: &(dyn StdError + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match error.get_ref() {
            Some(inner) => format!("io {:?} of {}", error.kind(), link(inner)),
            None => format!("io {:?}", error.kind()),
        };
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let facts = [
            (" canceled", error.is_canceled()),
            (" incomplete", error.is_incomplete_message()),
            (" parse", error.is_parse()),
            (" user", error.is_user()),
        ];
        let fact = facts.into_iter().find(|(_, holds)| *holds).map_or("", |(fact, _)| fact);
        return format!("hyper{fact}");
    }
    #[cfg(feature = "http2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        assert!(error.is_remote());
        let frame = if error.is_go_away() { "go_away" } else { "reset" };
        return format!("h2 {frame} {:?}", error.reason().unwrap());
    }
    #[cfg(feature = "rustls-errors")]
    if error.is::<rustls::Error>() {
        return "rustls".to_owned();
    }
    if error.is::<serde_json::Error>() {
        return "json".to_owned();
    }
    let whose = if error.is::<Error>() { "reqwest " } else { "" };
    format!("{whose}{error}")
}
