//! Shows with a plain client what each fault of the test-bed looks like from outside.

use std::error::Error as StdError;
use std::io;
use reqwest::Error;

use crate::support::fault;

#[test]
fn probe3() {
    let all: Vec<(&str, fn() -> Error)> = vec![
        ("refused", fault::refused), ("dns", fault::dns), ("connect_timeout", fault::connect_timeout), ("twc", fault::timeout_while_connecting), ("req_timeout", fault::request_timeout),
        ("reset", fault::reset), ("eof", fault::early_eof), ("garbage", fault::garbage), ("broken_upload", fault::broken_upload), ("redirect_loop", fault::redirect_loop),
        ("bad_scheme", fault::bad_scheme), ("bad_header", fault::bad_header), ("status", fault::status), ("trunc", fault::truncated), ("trunc chunk", fault::truncated_chunk),
        ("decode", fault::decode), ("body_reset", fault::body_reset), ("body_timeout", fault::body_timeout), ("refused_stream", fault::refused_stream), ("cancel", || fault::stream_reset(h2::Reason::CANCEL)),
        ("goaway", || fault::go_away(h2::Reason::NO_ERROR)), ("inflight", || fault::go_away_in_flight(h2::Reason::NO_ERROR)), ("cert", fault::certificate), ("cut", fault::handshake_cut),
    ];
    for (n, f) in all { let t = std::time::Instant::now(); let e = f(); eprintln!("{n}: [{}] {:?} {:?}", kinds(&e), chain(&e), t.elapsed()); }
}

fn kinds(e: &Error) -> String {
    let kinds = [
        (e.is_body(), "body"), (e.is_builder(), "builder"), (e.is_connect(), "connect"), (e.is_decode(), "decode"), (e.is_dns(), "dns"),
        (e.is_redirect(), "redirect"), (e.is_request(), "request"), (e.is_status(), "status"), (e.is_timeout(), "timeout"),
    ];
    kinds.into_iter().filter(|(k, _)| *k).map(|(_, n)| n).collect::<Vec<_>>().join(" ")
}

fn chain(error: &Error) -> Vec<String> {
    let mut links = Vec::new();
    let mut source = error.source();
    while let Some(e) = source {
        links.push(link(e));
        source = e.source();
    }
    links
}

fn link(e: &(dyn StdError + 'static)) -> String {
    if let Some(e) = e.downcast_ref::<io::Error>() {
        return match e.get_ref() {
            Some(inner) => format!("io {:?} ({})", e.kind(), link(inner)),
            None => format!("io {:?}", e.kind()),
        };
    }
    if let Some(e) = e.downcast_ref::<h2::Error>() {
        return format!("h2 {:?} go_away={} reset={} remote={}", e.reason(), e.is_go_away(), e.is_reset(), e.is_remote());
    }
    if e.is::<hyper::Error>() { return format!("hyper: {e}"); }
    if e.is::<Error>() { return format!("reqwest: {e}"); }
    if e.is::<rustls::Error>() { return format!("rustls: {e}"); }
    if e.is::<serde_json::Error>() { return "json".into(); }
    e.to_string()
}
