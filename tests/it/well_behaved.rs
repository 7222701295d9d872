//! Real servers that behave well, by wiremock: what a client is for on an ordinary day.

use std::time::{Duration, Instant};

use http::Method;
use reqwest_resilient::{
    Constant, Jitter, ResilientClient, ResilientClientBuilder, ResilientConfig, ResponseExt,
    RetryOverride, StopReason,
};
use wiremock::matchers::{body_string, header, header_exists, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate, Times};

fn config() -> ResilientConfig {
    let wait = Constant::new(Duration::from_millis(5));
    ResilientConfig::builder().backoff(wait).jitter(Jitter::None).build().unwrap()
}

fn builder() -> ResilientClientBuilder {
    ResilientClient::builder().config(config()).with_reqwest(|inner| {
        let inner = inner.no_proxy();
        #[cfg(feature = "default-tls")]
        let inner = inner.tls_certs_only([]);
        inner
    })
}

/// Responds with `first` so many times, and with 200 after that.
async fn server(first: ResponseTemplate, times: u64) -> MockServer {
    let server = MockServer::start().await;
    let failing = Mock::given(header_exists("host")).respond_with(first);
    failing.up_to_n_times(times).expect(times).mount(&server).await;
    let ok = ResponseTemplate::new(200).set_body_string("done");
    Mock::given(header_exists("host")).respond_with(ok).mount(&server).await;
    server
}

async fn received(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn every_verb_arrives_as_it_was_sent_and_safe_ones_again() {
    let client = builder().build().unwrap();
    let verbs = [Method::GET, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];
    for verb in verbs {
        let server = MockServer::start().await;
        let matched = || {
            let body = if verb == Method::PUT { "a body" } else { "" };
            Mock::given(method(verb.as_str()))
                .and(path("/a"))
                .and(header("x-name", "value"))
                .and(body_string(body))
        };
        let busy = matched().respond_with(ResponseTemplate::new(503));
        busy.up_to_n_times(2).expect(2).mount(&server).await;
        matched().respond_with(ResponseTemplate::new(204)).expect(1).mount(&server).await;
        let request = client.request(verb.clone(), format!("{}/a", server.uri()));
        let request = request.header("x-name", "value");
        let request = if verb == Method::PUT { request.body("a body") } else { request };
        let response = request.send_resilient().await.unwrap();
        assert_eq!((response.status().as_u16(), response.attempts()), (204, 3), "{verb}");
    }
}

#[tokio::test]
async fn an_order_is_placed_once_unless_its_key_or_its_caller_allows_more() {
    let client = builder().build().unwrap();
    for (status, sent) in [(503, 1), (500, 1), (429, 2), (425, 2)] {
        let server = server(ResponseTemplate::new(status), 1).await;
        let result = client.post(server.uri()).body("order").send_resilient().await;
        assert_eq!((received(&server).await, result.is_ok()), (sent, sent == 2), "{status}");
        if let Err(error) = result {
            assert_eq!(error.stop_reason(), StopReason::UnsafeToRepeat, "{status}");
        }
    }
    let first = server(ResponseTemplate::new(503), 1).await;
    let keyed = client.post(first.uri()).header("idempotency-key", "\"7\"").body("order");
    keyed.send_resilient().await.unwrap();
    let second = server(ResponseTemplate::new(503), 1).await;
    let allowed = RetryOverride::new().idempotent(true);
    client.post(second.uri()).with_extension(allowed).send_resilient().await.unwrap();
    let keys: Vec<_> = first.received_requests().await.unwrap();
    let keys: Vec<_> = keys.iter().map(|it| it.headers.get("idempotency-key")).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_as_long_as_the_server_says() {
    let client = builder().build().unwrap();
    for status in [429, 503] {
        let busy = ResponseTemplate::new(status).insert_header("retry-after", "1");
        let server = server(busy, 1).await;
        let start = Instant::now();
        let response = client.get(server.uri()).send_resilient().await.unwrap();
        let took = start.elapsed();
        assert_eq!((response.attempts(), received(&server).await), (2, 2));
        assert_eq!(response.text().await.unwrap(), "done");
        let longest = Duration::from_secs(4);
        assert!((Duration::from_secs(1)..longest).contains(&took), "{status}: {took:?}");
    }
}

#[tokio::test]
async fn overrides_of_a_request_and_of_a_task_reach_the_wire() {
    let client = builder().build().unwrap();
    let never = async |over: Option<RetryOverride>| {
        let server = MockServer::start().await;
        let gone = Mock::given(method("GET")).respond_with(ResponseTemplate::new(502));
        gone.expect(Times::from(1..)).mount(&server).await;
        let get = client.get(server.uri());
        let get = match over {
            Some(over) => get.with_extension(over),
            None => get,
        };
        let error = get.send_resilient().await.unwrap_err();
        assert_eq!(error.status().map(|it| it.as_u16()), Some(502));
        received(&server).await
    };
    assert_eq!(never(None).await, 4);
    let over = |retries| RetryOverride::new().max_retries(retries);
    assert_eq!(never(Some(over(1))).await, 2);
    assert_eq!(over(2).scope(never(None)).await, 3);
    assert_eq!(over(2).scope(never(Some(over(0)))).await, 1);

    let slow = ResponseTemplate::new(200).set_delay(Duration::from_secs(30));
    let server = server(slow, 1).await;
    let hasty = RetryOverride::new().attempt_timeout(Duration::from_millis(200));
    let response = client.get(server.uri()).with_extension(hasty).send_resilient().await.unwrap();
    assert_eq!(response.attempts(), 2, "the second attempt is quick");
}

#[tokio::test]
async fn a_failure_gives_back_what_the_server_said() {
    let client = builder().build().unwrap();
    let server = MockServer::start().await;
    let said = ResponseTemplate::new(422).set_body_string("{\"field\":\"name\"}");
    Mock::given(method("POST")).respond_with(said).expect(1).mount(&server).await;
    let mut error = client.post(server.uri()).send_resilient().await.unwrap_err();
    assert_eq!(error.text().await.unwrap(), "{\"field\":\"name\"}");
    assert_eq!((error.stop_reason(), error.attempts()), (StopReason::Final, 1));
}

#[cfg(feature = "download")]
#[tokio::test]
async fn a_file_arrives_whole() {
    let client = builder().build().unwrap();
    let server = MockServer::start().await;
    let content: Vec<u8> = (0..200_000_u32).map(|it| it as u8).collect();
    let busy = Mock::given(method("GET")).respond_with(ResponseTemplate::new(503));
    busy.up_to_n_times(1).mount(&server).await;
    let file = ResponseTemplate::new(200).set_body_bytes(content.clone());
    let file = file.insert_header("etag", "\"v1\"");
    Mock::given(method("GET")).respond_with(file).expect(1).mount(&server).await;
    let target = std::env::temp_dir().join(format!("resilient-whole-{}", std::process::id()));
    let downloaded = client.get(server.uri()).download().to_file(&target).await.unwrap();
    let read = std::fs::read(&target);
    std::fs::remove_file(&target).unwrap();
    assert!(read.unwrap() == content);
    assert_eq!((downloaded.bytes(), downloaded.resumes()), (200_000, 0));
}

#[cfg(feature = "blocking")]
#[test]
fn blocking_callers_get_the_same() {
    use std::io::Read as _;

    use reqwest_resilient::blocking;

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let busy = ResponseTemplate::new(503).set_body_string("busy");
    let (first, second) =
        runtime.block_on(async { (server(busy.clone(), 2).await, server(busy, 1).await) });
    let client = blocking::ResilientClient::builder().config(config());
    let client = client.with_reqwest(|inner| inner.no_proxy()).build().unwrap();
    let mut response = client.get(first.uri()).send_resilient().unwrap();
    assert_eq!(response.attempts(), 3);
    let mut text = String::new();
    response.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done");
    let mut error = client.post(second.uri()).body("order").send_resilient().unwrap_err();
    assert_eq!(error.stop_reason(), StopReason::UnsafeToRepeat);
    assert_eq!(error.blocking_text().unwrap(), "busy");
    assert_eq!(error.blocking_text().unwrap(), "busy", "the error keeps it");
    let mut response = error.into_blocking_response().unwrap();
    let mut start = [0; 2];
    response.read_exact(&mut start).unwrap();
    assert_eq!((&start, response.text().unwrap().as_str()), (b"bu", "sy"));
    assert_eq!(runtime.block_on(received(&second)), 1);
}
