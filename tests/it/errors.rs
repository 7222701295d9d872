//! The texts of errors: the root cause once in the chain, and the part of this crate by type.

use std::error::Error;
use std::time::Duration;

use http::HeaderValue;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BodyFactory, BreakerConfig, HttpRequestError, RequestBuilderExt, ResilientClient,
    ResilientConfigBuilder, RetryOverride, TimeLimit,
};

use crate::support::{URL, fault, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

/// The text of a chain as anyhow prints it in one line, and that of its root.
fn chain(error: HttpRequestError) -> (String, String) {
    let error = anyhow::Error::from(error);
    (format!("{error:#}"), error.root_cause().to_string())
}

#[track_caller]
fn stands_once(error: HttpRequestError, cause: &str) {
    let in_one_line = format!("{error:#}");
    let (all, _) = chain(error);
    assert_eq!(all.matches(cause).count(), 1, "{cause:?} in {all:?}");
    assert_eq!(in_one_line.matches(cause).count(), 1, "{cause:?} in {in_one_line:?}");
}

async fn ended(config: ResilientConfigBuilder, reply: Reply) -> HttpRequestError {
    let (client, _) = scripted(config.build().unwrap(), [reply]);
    client.get(URL).send_resilient().await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_of_a_request_are_named_as_such() {
    let (client, _) = scripted(steady().build().unwrap(), []);
    let invalid = RetryOverride::new().max_wait_time(Duration::ZERO);
    let error = client.get(URL).with_extension(invalid).send_resilient().await.unwrap_err();
    let start = "GET request to https://api.example.com/data failed after 0 attempts: ";
    assert_eq!(error.to_string(), format!("{start}its settings are invalid"));
    assert_eq!(format!("{error:#}"), format!("{start}max_wait_time must be > 0, got 0ns"));
    stands_once(error, "max_wait_time must be > 0");
}

type Fault = fn() -> reqwest::Error;

#[test]
fn the_root_cause_of_a_failure_stands_once_in_the_chain() {
    let errors: [(&str, Fault); 16] = [
        ("refused", fault::refused),
        ("dns", fault::dns),
        ("connect timeout", fault::connect_timeout),
        ("request timeout", fault::request_timeout),
        ("reset", fault::reset),
        ("early eof", fault::early_eof),
        ("broken upload", fault::broken_upload),
        ("garbage", fault::garbage),
        ("redirect loop", fault::redirect_loop),
        ("bad scheme", fault::bad_scheme),
        ("bad header", fault::bad_header),
        ("status", fault::status),
        ("truncated", fault::truncated),
        ("truncated chunk", fault::truncated_chunk),
        ("decode", fault::decode),
        ("body timeout", fault::body_timeout),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, error) in errors {
        let reply = Reply::error(move || error().into());
        let error = runtime.block_on(ended(steady().max_retries(0), reply));
        assert!(error.source().is_some_and(|it| it.is::<reqwest::Error>()), "{name}");
        let (all, root) = chain(error);
        assert_eq!(all.matches(&root).count(), 1, "{name}: {root:?} in {all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_crate_decides_stands_once_in_the_chain() {
    let late = || Reply::status(200).after(9 * SECOND);
    stands_once(
        ended(steady().max_total_time(SECOND), late()).await,
        "timed out after 1 s (max_total_time)",
    );
    let config = steady().attempt_timeout(SECOND).max_retries(0);
    let (all, _) = chain(ended(config, late()).await);
    assert_eq!(all.matches("timed out after 1 s (attempt timeout)").count(), 1, "{all}");

    // The error itself has the whole rejection, which is also found by type.
    let rule = BreakerConfig::consecutive(1);
    let config = steady().circuit_breaker(rule).max_retries(0).max_open_wait(Duration::ZERO);
    let (client, _) = scripted(config.build().unwrap(), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    let error = client.get(URL).send_resilient().await.unwrap_err();
    let open = error.circuit_open().unwrap();
    assert_eq!(error.retry_in(), open.retry_in());
    assert!(error.source().is_none() && error.rate_limited().is_none());
    assert!(error.to_string().ends_with(&open.to_string()), "{error}");
    stands_once(error, "circuit breaker is open");

    let config = steady().gate().max_retries(0);
    let (client, _) = scripted(
        config.build().unwrap(),
        [Reply::status(429).header(RETRY_AFTER, HeaderValue::from_static("600"))],
    );
    client.get(URL).send().await.unwrap();
    let error = client.get(URL).send_resilient().await.unwrap_err();
    let limited = error.rate_limited().unwrap();
    assert_eq!(error.retry_in(), Some(limited.retry_in()));
    assert!(error.source().is_none() && error.circuit_open().is_none());
    stands_once(error, "host is rate limited");
}

#[tokio::test]
async fn what_the_caller_got_wrong_stands_once_in_the_chain() {
    let client = ResilientClient::new(steady().build().unwrap()).unwrap();
    let error = client.get("nonsense").send_resilient().await.unwrap_err();
    stands_once(error.into_response().unwrap_err(), "relative URL without a base");
    let never = BodyFactory::new(async || Err("no such file".into()));
    let error = client.put(URL).with_extension(never).send_resilient().await.unwrap_err();
    stands_once(error, "no such file");
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_failed_response_is_read_without_losing_the_error() {
    let reply = Reply::status(422)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(r#"{"field":"amount"}"#);
    let mut error = ended(steady(), reply).await;
    for _ in 0..2 {
        assert_eq!(error.text().await.unwrap(), r#"{"field":"amount"}"#);
    }
    assert_eq!(error.bytes().await.unwrap().len(), 18);
    assert_eq!(error.status().unwrap().as_u16(), 422);
    assert_eq!(error.response().unwrap().url().as_str(), URL);
    // It is no error of the blocking client, and stays whole.
    #[cfg(feature = "blocking")]
    let error = error.into_blocking_response().unwrap_err();
    assert_eq!(error.into_response().unwrap().text().await.unwrap().len(), 18);

    let huge = Reply::status(500).body(vec![b'x'; 3 << 20]);
    let mut error = ended(steady().max_retries(0), huge).await;
    assert_eq!(error.text().await.unwrap().len(), 1 << 20, "the rest is dropped");

    let mut error = ended(steady().max_retries(0), Reply::error(|| fault::reset().into())).await;
    assert_eq!(error.text().await.unwrap(), "");
}

/// Reads what comes of a body within a second. Returns it, and whether the body failed.
async fn rest(error: HttpRequestError) -> (Vec<u8>, Option<bool>) {
    let (mut response, mut read) = (error.into_response().unwrap(), vec![]);
    loop {
        match tokio::time::timeout(SECOND, response.chunk()).await {
            Ok(Ok(Some(chunk))) => read.extend_from_slice(&chunk),
            Ok(end) => return (read, Some(end.is_err())),
            Err(_) => return (read, None),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_body_outlives_a_reading_that_is_given_up() {
    let stalls = || Reply::status(422).body("0123456789").body_stalls_after(4);
    let mut error = ended(steady(), stalls()).await;
    for _ in 0..20_000 {
        assert!(tokio::time::timeout(SECOND, error.text()).await.is_err());
    }
    assert_eq!(error.response().unwrap().url().as_str(), URL);
    assert_eq!(rest(error).await, (b"0123".to_vec(), None), "and it goes on to stall");

    let mut error = ended(steady(), stalls()).await;
    drop(error.bytes());
    assert_eq!(rest(error).await.0, b"0123", "nothing was read");
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_body_outlives_a_reading_that_fails() {
    let breaks = Reply::status(422).body("0123456789").body_breaks_after(4);
    let mut error = ended(steady(), breaks).await;
    for _ in 0..3 {
        assert!(error.text().await.is_err(), "half a body is none");
    }
    assert_eq!(error.status().unwrap().as_u16(), 422);
    assert_eq!(error.response().unwrap().url().as_str(), URL);
    assert_eq!(rest(error).await, (b"0123".to_vec(), Some(true)));

    let stalls = Reply::status(422).body("0123456789").body_stalls_after(4);
    let client = ResilientClient::builder().with(Script::new([stalls])).build().unwrap();
    let mut error = client.get(URL).send_resilient().await.unwrap_err();
    for _ in 0..3 {
        assert!(error.text().await.unwrap_err().is_timeout());
    }
    let start = tokio::time::Instant::now();
    assert_eq!(rest(error).await, (b"0123".to_vec(), Some(true)));
    assert_eq!(start.elapsed(), Duration::ZERO, "the limit is not waited for again");
}

#[cfg(feature = "blocking")]
#[test]
fn the_start_of_a_body_outlives_a_blocking_reading_that_fails() {
    use std::io::Read as _;

    let breaks = Reply::status(422).body("0123456789").body_breaks_after(4);
    let builder = reqwest_resilient::blocking::ResilientClient::builder();
    let client = builder.with(Script::new([breaks])).build().unwrap();
    let mut error = client.get(URL).send_resilient().unwrap_err();
    assert!(error.blocking_text().is_err() && error.blocking_bytes().is_err());
    let (mut response, mut read) = (error.into_blocking_response().unwrap(), vec![]);
    assert!(response.read_to_end(&mut read).is_err());
    assert_eq!(read, b"0123");
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn the_body_of_a_failed_response_is_read_as_json() {
    let mut error = ended(steady(), Reply::status(422).body(r#"{"code":7}"#)).await;
    let read: std::collections::HashMap<String, u8> = error.json().await.unwrap();
    assert_eq!(read["code"], 7);
    assert!(error.json::<Vec<u8>>().await.is_err());
    assert_eq!(error.text().await.unwrap(), r#"{"code":7}"#, "still there");
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_limit_that_cut_it_by_type() {
    let late = || Reply::status(200).after(9 * SECOND);
    let error = ended(steady().max_total_time(SECOND), late()).await;
    assert_eq!(error.time_limit(), Some((TimeLimit::MaxTotalTime, SECOND)));
    let error = ended(steady().attempt_timeout(SECOND).max_retries(0), late()).await;
    assert_eq!(error.time_limit(), Some((TimeLimit::AttemptTimeout, SECOND)));
    let timeout = Reply::error(|| fault::request_timeout().into());
    let error = ended(steady().max_retries(0), timeout).await;
    assert!(error.is_timeout() && error.time_limit().is_none());
}

#[test]
fn errors_and_configs_pass_through_catch_unwind() {
    fn passes<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    passes::<HttpRequestError>();
    passes::<reqwest_resilient::ResilientConfig>();
    passes::<RetryOverride>();
    passes::<reqwest_resilient::Resilient>();
    passes::<ResilientClient>();
}

/// Requests that cannot be built, and the part that each names.
fn unbuilt(client: &ResilientClient) -> [(reqwest_resilient::RequestBuilder, &'static str); 12] {
    let valid = || client.get(URL);
    [
        (client.get("nonsense"), "invalid URL `nonsense`"),
        (client.post("/orders?token=hunter2"), "invalid URL `/orders…`"),
        (client.get("https://u:hunter2@[bad/x"), "invalid URL `[bad/x…`"),
        (client.get("https://u:hunter2@host:port/"), "invalid URL `host:port/…`"),
        (client.get("data:text/plain,hunter2"), "invalid URL `data:…`"),
        (client.get(String::from("//host/x#hunter2")), "invalid URL `//host/x…`"),
        (
            client.get(URL.parse::<url::Url>().unwrap()).header("", "hunter2"),
            "invalid header name ``",
        ),
        (valid().header("x y", "hunter2"), "invalid header name `x y`"),
        (valid().header(String::from("é"), "hunter2"), "invalid header name `\\xc3\\xa9`"),
        (valid().header("x-key", "hunter2\n"), "invalid value of header `x-key`"),
        (valid().header(CONTENT_TYPE, &b"hunter2\0"[..]), "invalid value of header `content-type`"),
        (valid().bearer_auth("hunter2\n"), "invalid value of header `authorization`"),
    ]
}

#[tokio::test]
async fn an_invalid_url_or_header_is_named_without_secrets() {
    let client = ResilientClient::new(steady().build().unwrap()).unwrap();
    for (request, part) in unbuilt(&client) {
        let error = request.send_resilient().await.unwrap_err();
        assert_eq!(error.to_string(), format!("request could not be built: {part}"));
        let texts = [format!("{error:#} {error:?}"), chain(error).0].concat();
        assert!(!texts.contains("hunter2") && !texts.contains("ter2"), "{texts}");
    }
    for (request, part) in unbuilt(&client) {
        let error = request.send().await.unwrap_err();
        let ours = HttpRequestError::find(&error).unwrap();
        assert!(ours.to_string().ends_with(part), "{ours}");
        assert!(
            ours.source().is_some_and(|it| it.is::<reqwest::Error>() || it.is::<http::Error>())
        );
    }
    // The first fault is the one that is named, and the rest of the builder changes nothing.
    let request = client.get("nonsense").header("x y", "z").body("text").bearer_auth("\n");
    let error = request.send_resilient().await.unwrap_err();
    stands_once(error, "nonsense");
}

#[tokio::test]
async fn a_client_that_redacts_paths_shows_none_of_an_invalid_url() {
    let config = steady().redact_path(|_| "/…".to_owned()).build().unwrap();
    let client = ResilientClient::new(config).unwrap();
    let error = client.get("/bot/hunter2").send_resilient().await.unwrap_err();
    assert_eq!(error.to_string(), "request could not be built: invalid URL `…`");
}

#[tokio::test]
async fn a_middleware_names_the_url_that_no_client_can_send() {
    let (client, _) = scripted(steady().build().unwrap(), []);
    // Before the middleware: the builder is another crate's, and knows the URL alone.
    let error = client.get("data:text/plain,hunter2").send_resilient().await.unwrap_err();
    assert_eq!(error.to_string(), "request could not be built: invalid URL `data:…`");
    // Within it: the scheme is read when the request is sent.
    let client = ResilientClient::new(steady().build().unwrap()).unwrap();
    let error = client.get("ftp://u:hunter2@host.example/x?q").send_resilient().await.unwrap_err();
    assert!(error.to_string().starts_with("GET request to ftp://host.example/x failed"), "{error}");
}

#[cfg(feature = "blocking")]
#[test]
fn a_blocking_client_names_the_invalid_part_as_well() {
    let client = reqwest_resilient::blocking::ResilientClient::builder().build().unwrap();
    let error = client.get("nonsense").send_resilient().unwrap_err();
    assert_eq!(error.to_string(), "request could not be built: invalid URL `nonsense`");
    let error = client.get(URL).header("x-key", "hunter2\n").send_resilient().unwrap_err();
    assert_eq!(error.to_string(), "request could not be built: invalid value of header `x-key`");
}
