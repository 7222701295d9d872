//! The classification of real errors: their kind, how far the request got, and whether it is
//! retried.

use std::sync::Mutex;

use reqwest::Error;
use reqwest_resilient::Delivery::{MaybeProcessed, NotSent};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{AttemptLog, Delivery, FailureKind, RequestBuilderExt, StopReason};

use super::quick;
use crate::support::{URL, fault, scripted};

#[tokio::test(start_paused = true)]
async fn every_error_is_classified() {
    use FailureKind::*;

    // A request that never arrived is sent again with any method; one that may have arrived only if
    // that does no harm; and one with a permanent error not at all.
    const ANY: [u32; 2] = [3, 3];
    const IDEMPOTENT: [u32; 2] = [3, 1];
    const FINAL: [u32; 2] = [1, 1];
    #[rustfmt::skip]
    let expected = [
        //                                                                                  GET POST
        ("refused", fault::refused as fn() -> Error,        Connect,     NotSent,        ANY),
        ("dns", fault::dns,                                 Connect,     NotSent,        ANY),
        ("connect timeout", fault::connect_timeout,         Timeout,     NotSent,        ANY),
        // Nothing shows that it was still connecting.
        ("slow connect", fault::timeout_while_connecting,   Timeout,     MaybeProcessed, IDEMPOTENT),
        ("timeout", fault::request_timeout,                 Timeout,     MaybeProcessed, IDEMPOTENT),
        ("reset", fault::reset,                             Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("early eof", fault::early_eof,                     Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("garbage", fault::garbage,                         Protocol,    MaybeProcessed, IDEMPOTENT),
        // The caller's own body is not what failed.
        ("runtime gone", fault::dispatch_gone,              Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("proxy, 502", || fault::connect_by_proxy(502),     Connect,     NotSent,        ANY),
        ("proxy, 503", || fault::connect_by_proxy(503),     Connect,     NotSent,        ANY),
        ("truncated", fault::truncated,                     Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("truncated chunk", fault::truncated_chunk,         Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("body reset", fault::body_reset,                   Disconnect,  MaybeProcessed, IDEMPOTENT),
        ("body timeout", fault::body_timeout,               Timeout,     MaybeProcessed, IDEMPOTENT),
        // Permanent.
        ("bad header", fault::bad_header,                   Builder,     NotSent,        FINAL),
        ("bad scheme", fault::bad_scheme,                   Builder,     NotSent,        FINAL),
        ("proxy, 407", || fault::connect_by_proxy(407),     ProxyAuth,   NotSent,        FINAL),
        ("without tls", fault::without_tls,                 Builder,     NotSent,        FINAL),
        ("broken upload", fault::broken_upload,             Other,       MaybeProcessed, FINAL),
        ("decode", fault::decode,                           Decode,      MaybeProcessed, FINAL),
        ("redirect loop", fault::redirect_loop,             Redirect,    MaybeProcessed, FINAL),
    ];
    for (name, fault, kind, delivery, attempts) in expected {
        check(name, fault, kind, delivery, attempts).await;
    }
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn of_http2_is_told() {
    use Delivery::NotProcessed;
    use FailureKind::*;
    use h2::Reason;

    const ANY: [u32; 2] = [3, 3];
    const IDEMPOTENT: [u32; 2] = [3, 1];
    #[rustfmt::skip]
    let expected = [
        ("refused stream", fault::refused_stream as fn() -> Error,               Refused,    NotProcessed,   ANY),
        ("go away", || fault::go_away(Reason::NO_ERROR),                         Refused,    NotProcessed,   ANY),
        ("go away, error", || fault::go_away(Reason::INTERNAL_ERROR),            Refused,    NotProcessed,   ANY),
        ("go away, calm", || fault::go_away(Reason::ENHANCE_YOUR_CALM),          Throttled,  NotProcessed,   ANY),
        ("go away in flight", || fault::go_away_in_flight(Reason::NO_ERROR),     Disconnect, MaybeProcessed, IDEMPOTENT),
        ("reset, cancel", || fault::stream_reset(Reason::CANCEL),                Disconnect, MaybeProcessed, IDEMPOTENT),
        ("reset, error", || fault::stream_reset(Reason::INTERNAL_ERROR),         Disconnect, MaybeProcessed, IDEMPOTENT),
        ("reset, protocol", || fault::stream_reset(Reason::PROTOCOL_ERROR),      Protocol,   MaybeProcessed, IDEMPOTENT),
        ("reset, calm", || fault::stream_reset(Reason::ENHANCE_YOUR_CALM),       Throttled,  MaybeProcessed, IDEMPOTENT),
    ];
    for (name, fault, kind, delivery, attempts) in expected {
        check(name, fault, kind, delivery, attempts).await;
    }
}

#[cfg(feature = "rustls-errors")]
#[tokio::test(start_paused = true)]
async fn tls_errors_are_classified() {
    use FailureKind::{Certificate, Connect, Tls};

    // A refused certificate stays refused; a handshake may be cut by a restart.
    check("certificate", fault::certificate, Certificate, NotSent, [1, 1]).await;
    check("certificate required, 1.2", fault::certificate_required_12, Tls, NotSent, [1, 1]).await;
    check("certificate required, 1.3", fault::certificate_required_13, Tls, NotSent, [1, 1]).await;
    check("version", fault::protocol_version, Tls, NotSent, [1, 1]).await;
    check("handshake cut", fault::handshake_cut, Connect, NotSent, [3, 3]).await;
}

/// Checks an error in the outcome and in the history, and the number of attempts of a GET and a
/// POST.
async fn check(
    name: &str,
    fault: fn() -> Error,
    kind: FailureKind,
    delivery: Delivery,
    attempts: [u32; 2],
) {
    for (method, attempts) in
        [reqwest::Method::GET, reqwest::Method::POST].into_iter().zip(attempts)
    {
        let told = std::sync::Arc::new(Mutex::new(None));
        let teller = std::sync::Arc::clone(&told);
        let config = quick().on_failure(move |it| {
            *teller.lock().unwrap() = Some((it.outcome.failure(), it.outcome.delivery()));
        });
        let (client, script) =
            scripted(config.build().unwrap(), [Reply::error(move || error_of(fault).into())]);
        let log = AttemptLog::new();
        let request = client.request(method.clone(), URL).with_extension(log.clone());
        let error = request.send().await.unwrap_err();
        assert!(matches!(error, reqwest_middleware::Error::Reqwest(_)), "{name}: untouched");
        let history = log.history();
        for attempt in history.attempts() {
            assert_eq!((attempt.result, attempt.delivery), (Err(kind), delivery), "{name}");
        }
        assert_eq!(*told.lock().unwrap(), Some((Some(kind), delivery)), "{name}");
        assert_eq!(
            (log.attempts(), script.sent().len()),
            (attempts, attempts as usize),
            "{name} {method}"
        );
        let stop = history.stop_reason().unwrap();
        let permanent = attempts == 1 && kind != FailureKind::Timeout && stop == StopReason::Final;
        let unsafe_to_repeat = attempts == 1 && stop == StopReason::UnsafeToRepeat;
        assert!(permanent || unsafe_to_repeat || stop == StopReason::Exhausted, "{name}: {stop}");
    }
}

/// Returns the error, with the URL of the request; another URL would mean a redirect.
fn error_of(fault: fn() -> Error) -> Error {
    fault().with_url(URL.parse().unwrap())
}

#[tokio::test]
async fn a_client_without_tls_names_the_feature_to_switch_on() {
    let client = super::resilient(quick(), fault::client_without_tls());
    let error = client.get("https://127.0.0.1/").send_resilient().await.unwrap_err();
    assert_eq!((error.attempts(), error.stop_reason()), (1, StopReason::Final));
    let text = error.to_string();
    assert!(text.contains("feature of reqwest") && text.contains("`rustls`"), "{text}");
}
