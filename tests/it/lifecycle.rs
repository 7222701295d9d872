//! The clients themselves: what they own, how long they wait, and where a blocking one may be used.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http::Method;
use reqwest_middleware::{Middleware, Next};
use reqwest_resilient::testing::{Chaos, Fault, Reply as Scripted, Script};
use reqwest_resilient::{
    BodyFactory, BreakerConfig, BuildError, CircuitBreaker, Constant, ErrorKind, FailureKind,
    HttpRequestError, Jitter, ResilientClient, ResilientConfig, ResilientConfigBuilder,
    RetryOverride, TimeLimit, blocking,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::support::reply::{End, Reply};
use crate::support::server::Server;

const SECOND: Duration = Duration::from_secs(1);

fn steady() -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .max_retries(1)
        .backoff(Constant::new(Duration::from_millis(2)))
        .jitter(Jitter::None)
}

fn blocking_client() -> blocking::ResilientClient {
    blocking::ResilientClient::new(steady().build().unwrap()).unwrap()
}

/// Responds to one request and returns its open connection.
fn keep_alive(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 2048];
    assert!(stream.read(&mut head).unwrap() > 0);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(2 * SECOND)).unwrap();
    stream
}

fn is_closed(mut stream: TcpStream) -> io::Result<bool> {
    Ok(stream.read(&mut [0])? == 0)
}

#[test]
fn h26_a_client_closes_what_it_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());

    let client = blocking_client();
    let (asked, answered) =
        (client.get(&url), thread::spawn(move || (keep_alive(&listener), listener)));
    asked.send().unwrap();
    let (stream, listener) = answered.join().unwrap();
    drop(client);
    assert!(is_closed(stream).unwrap(), "the blocking client leaks its connection");

    let runtime = Runtime::new().unwrap();
    let client = ResilientClient::new(steady().build().unwrap()).unwrap();
    let answered = thread::spawn(move || keep_alive(&listener));
    runtime.block_on(client.get(&url).send()).unwrap();
    let stream = answered.join().unwrap();
    drop(client);
    assert!(is_closed(stream).unwrap(), "the client leaks its connection");
}

#[tokio::test]
async fn h26_a_client_that_was_given_stays_open() {
    let server = Server::h1([Reply::status(200).into()]);
    let own = reqwest::Client::new();
    let client = ResilientClient::builder().reqwest_client(own.clone()).build().unwrap();
    client.get(server.url("/")).send().await.unwrap().bytes().await.unwrap();
    drop(client);
    own.get(server.url("/")).send().await.unwrap();
    assert_eq!((server.requests(), server.connections()), (2, 1));
}

#[test]
fn idle_connections_are_closed_before_servers_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answered = thread::spawn(move || keep_alive(&listener));
    let client = blocking_client();
    client.get(&url).send().unwrap();
    let stream = answered.join().unwrap();
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    assert!(is_closed(stream).unwrap());
}

/// Returns how long a client waits for a response that takes `latency`, and whether it gets it.
async fn waited(
    config: ResilientConfig,
    latency: Duration,
    timeout: Option<Duration>,
    over: Option<RetryOverride>,
) -> (Duration, bool) {
    let script = Script::new([Scripted::status(200).after(latency)]);
    let client = ResilientClient::builder().config(config).with(script).build().unwrap();
    let mut request = client.get("http://a.example/");
    if let Some(timeout) = timeout {
        request = request.timeout(timeout);
    }
    if let Some(over) = over {
        request = request.with_extension(over);
    }
    let start = Instant::now();
    let result = request.send_resilient().await;
    (start.elapsed(), result.is_ok())
}

#[tokio::test(start_paused = true)]
async fn an_attempt_takes_ten_seconds_by_default() {
    let once = || ResilientConfig::builder().max_retries(0);
    let config = || once().build().unwrap();
    assert_eq!(waited(config(), 11 * SECOND, None, None).await, (10 * SECOND, false));
    assert_eq!(waited(config(), 9 * SECOND, None, None).await, (9 * SECOND, true));

    let patient = once().attempt_timeout(30 * SECOND).build().unwrap();
    assert_eq!(waited(patient, 29 * SECOND, None, None).await, (29 * SECOND, true));
    let endless = once().without_attempt_timeout().build().unwrap();
    assert_eq!(waited(endless, 99 * SECOND, None, None).await, (99 * SECOND, true));
    let total = once().max_total_time(3 * SECOND).build().unwrap();
    assert_eq!(waited(total, 99 * SECOND, None, None).await, (3 * SECOND, false));

    let over = RetryOverride::new().attempt_timeout(20 * SECOND);
    assert_eq!(waited(config(), 19 * SECOND, None, Some(over)).await, (19 * SECOND, true));
    let over = RetryOverride::new().without_attempt_timeout();
    assert_eq!(waited(config(), 99 * SECOND, None, Some(over)).await, (99 * SECOND, true));
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_reloaded_leave_the_client_its_timeout() {
    let script = Script::new([Scripted::status(200).after(11 * SECOND)]);
    let client = ResilientClient::builder().with(script.clone()).build().unwrap();
    client.reload_handle().reload(ResilientConfig::builder().max_retries(0).build().unwrap());
    let start = Instant::now();
    assert!(client.get("http://a.example/").send_resilient().await.unwrap_err().is_timeout());
    assert_eq!((script.sent().len(), start.elapsed()), (1, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn h30_a_longer_timeout_of_the_request_holds() {
    let config = || ResilientConfig::builder().max_retries(0).build().unwrap();
    let timeout = Some(30 * SECOND);
    assert_eq!(waited(config(), 25 * SECOND, timeout, None).await, (25 * SECOND, true));
}

#[tokio::test]
async fn h30_a_shorter_timeout_of_the_request_holds_for_a_client_that_was_given() {
    let server = Server::h1([Reply::status(200).late(SECOND).into()]);
    let own = reqwest::Client::builder().timeout(5 * SECOND).build().unwrap();
    let config = ResilientConfig::builder().max_retries(0).build().unwrap();
    let client = ResilientClient::builder().config(config).reqwest_client(own).build().unwrap();
    let start = Instant::now();
    let request = client.get(server.url("/")).timeout(Duration::from_millis(50));
    assert!(request.send_resilient().await.unwrap_err().is_timeout());
    assert!(start.elapsed() < SECOND);
}

/// A middleware inside of the retries that never goes on.
struct Hangs;

#[async_trait::async_trait]
impl Middleware for Hangs {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut http::Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        std::future::pending().await
    }
}

/// Returns how an attempt ends that hangs inside of the retries, and when.
async fn hung(
    inner: impl Middleware,
    timeout: Option<Duration>,
    over: RetryOverride,
) -> (HttpRequestError, Duration) {
    let client = ResilientClient::builder().with(inner).with(Script::new([])).build().unwrap();
    let mut request = client.get("http://a.example/").with_extension(over.max_retries(0));
    if let Some(timeout) = timeout {
        request = request.timeout(timeout);
    }
    let start = Instant::now();
    let ended = tokio::time::timeout(100 * SECOND, request.send_resilient()).await;
    (ended.expect("a limit").unwrap_err(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_hang_inside_of_the_retries_ends_with_or_without_a_timeout_of_the_request() {
    let none = RetryOverride::new;
    let chaos = || Chaos::seeded(1).all(1.0, Fault::hang()).enabled();
    let soon_after = |limit: Duration| limit..=limit + SECOND / 5;
    for (timeout, expected) in
        [(None, 10 * SECOND), (Some(3 * SECOND), 3 * SECOND), (Some(30 * SECOND), 30 * SECOND)]
    {
        let (error, took) = hung(Hangs, timeout, none()).await;
        assert!(soon_after(expected).contains(&took), "{timeout:?}: {took:?}");
        assert_eq!(error.time_limit(), Some((TimeLimit::AttemptTimeout, expected)));
        let (error, took) = hung(chaos(), timeout, none()).await;
        assert!(error.is_timeout(), "{error}");
        assert_eq!(took, expected, "{error}");
    }
    // The limits of the settings hold besides, and none of them loosens the request's own.
    for (over, expected) in [
        (none().attempt_timeout(20 * SECOND), 3 * SECOND),
        (none().attempt_timeout(2 * SECOND), 2 * SECOND),
        (none().without_attempt_timeout(), 3 * SECOND),
        (none().max_total_time(SECOND), SECOND),
    ] {
        let (error, took) = hung(Hangs, Some(3 * SECOND), over).await;
        assert!(soon_after(expected).contains(&took), "{error}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_of_a_body_factory_ends_with_or_without_a_timeout_of_the_request() {
    for (timeout, expected) in [(None, 10), (Some(3 * SECOND), 3)] {
        let client = ResilientClient::builder().with(Script::new([])).build().unwrap();
        let hangs = BodyFactory::new(std::future::pending);
        let mut request = client.put("http://a.example/").with_extension(hangs);
        request = request.with_extension(RetryOverride::new().max_retries(0));
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let start = Instant::now();
        let ended = tokio::time::timeout(100 * SECOND, request.send_resilient()).await;
        assert!(ended.expect("a limit").unwrap_err().is_timeout());
        assert_eq!(start.elapsed().as_secs(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn chaos_keeps_to_the_timeout_of_a_request_in_any_client() {
    for fault in [Fault::hang(), Fault::latency(9 * SECOND), Fault::hang().after(2 * SECOND)] {
        let client = reqwest_middleware::ClientBuilder::new(crate::support::idle_client())
            .with(Chaos::seeded(1).all(1.0, fault.clone()).enabled())
            .with(Script::new([]))
            .build();
        let start = Instant::now();
        let request = client.get("http://a.example/").timeout(3 * SECOND);
        assert!(request.send().await.is_err(), "{fault:?}");
        assert_eq!(start.elapsed(), 3 * SECOND, "{fault:?}");
    }
}

#[test]
fn h31_any_method_is_a_method_and_none_is_a_command() {
    let server = Server::h1([Reply::status(200).into()]);
    let client = blocking_client();
    let runtime = Runtime::new().unwrap();
    for name in ["TRACE", "PROPFIND", "QUERY", "CLOSE"] {
        let method = || Method::from_bytes(name.as_bytes()).unwrap();
        client.request(method(), server.url("/")).send().unwrap();
        runtime.block_on(client.inner().request(method(), server.url("/")).send()).unwrap();
        let seen: Vec<_> = server.seen().into_iter().map(|it| it.method).rev().take(2).collect();
        assert_eq!(seen, [method(), method()]);
    }
}

#[test]
fn h33_every_callback_has_run_when_the_call_returns() {
    let server = Server::h1([Reply::status(503).into(), Reply::status(200).into()]);
    let told = Arc::new(Mutex::new(vec![]));
    let tell = |what: &'static str| {
        let told = Arc::clone(&told);
        move || told.lock().unwrap().push(what)
    };
    let (request, retry, success) = (tell("request"), tell("retry"), tell("success"));
    let config = steady()
        .on_request(move |_| request())
        .on_retry(move |_| retry())
        .on_success(move |_| success())
        .build()
        .unwrap();
    let client = blocking::ResilientClient::new(config).unwrap();
    client.get(server.url("/")).send().unwrap();
    assert_eq!(*told.lock().unwrap(), ["request", "retry", "request", "success"]);
}

#[test]
fn h34_one_type_tells_of_answers_failures_and_rejections() {
    let server = Server::h1([Reply::status(404).into()]);
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let config = steady().circuit_breaker(breaker.clone()).build().unwrap();
    let client = blocking::ResilientClient::new(config).unwrap();
    let gone = client.get("http://127.0.0.1:1/").send_resilient().unwrap_err();
    let missing = client.get(server.url("/")).send_resilient().unwrap_err();
    breaker.force_open();
    let rejected = client.get(server.url("/")).send_resilient().unwrap_err();
    let unbuilt = client.get("nonsense").send_resilient().unwrap_err();
    let errors: [HttpRequestError; 4] = [gone, missing, rejected, unbuilt];
    let kinds = errors.each_ref().map(HttpRequestError::kind);
    assert_eq!(
        kinds,
        [
            ErrorKind::Failure(FailureKind::Connect),
            ErrorKind::Status(http::StatusCode::NOT_FOUND),
            ErrorKind::Failure(FailureKind::CircuitOpen),
            ErrorKind::Failure(FailureKind::Builder),
        ]
    );
    assert!(errors[2].is_circuit_open() && errors[0].is_connect());
}

#[tokio::test(start_paused = true)]
async fn middleware_sees_requests_before_and_attempts_after() {
    let (requests, attempts) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let count = |counter: &Arc<Mutex<u32>>| Counts(Arc::clone(counter));
    let script = Script::new([Scripted::status(503), Scripted::status(200)]);
    let client = ResilientClient::builder()
        .config(steady().build().unwrap())
        .before(count(&requests))
        .with(count(&attempts))
        .with(script)
        .build()
        .unwrap();
    client.get("http://a.example/").send().await.unwrap();
    assert_eq!((*requests.lock().unwrap(), *attempts.lock().unwrap()), (1, 2));
    client.inner().get("http://a.example/").send().await.unwrap();
    assert_eq!((*requests.lock().unwrap(), *attempts.lock().unwrap()), (2, 3));
}

struct Counts(Arc<Mutex<u32>>);

#[async_trait::async_trait]
impl Middleware for Counts {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        *self.0.lock().unwrap() += 1;
        next.run(request, extensions).await
    }
}

/// Returns the error of a blocking call at a wrong place.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<blocking::DriveError> {
    std::iter::successors(Some(error), |it| it.source())
        .find_map(|it| it.downcast_ref::<blocking::DriveError>().copied())
}

/// Makes every kind of blocking call, and gives what each says of the place.
fn call(client: &blocking::ResilientClient, url: &str) -> [Option<blocking::DriveError>; 3] {
    let sent = client.get(url).send().map(drop);
    let resilient = client.get(url).send_resilient().map(drop);
    let free = blocking::get(url).send_resilient().map(drop);
    let of_middleware = |error: reqwest_middleware::Error| match error {
        reqwest_middleware::Error::Middleware(error) => refusal(error.as_ref()),
        reqwest_middleware::Error::Reqwest(error) => refusal(&error),
    };
    [
        sent.err().and_then(of_middleware),
        resilient.err().and_then(|it| refusal(&it)),
        free.err().and_then(|it| refusal(&it)),
    ]
}

const REFUSED: [Option<blocking::DriveError>; 3] = [Some(blocking::DriveError::AsyncContext); 3];

#[test]
fn blocking_within_async_code_is_refused_with_advice() {
    let server = Server::h1([Reply::status(200).into()]);
    let (client, url) = (blocking_client(), server.url("/"));
    let single = Builder::new_current_thread().enable_all().build().unwrap();
    let multi = Runtime::new().unwrap();

    assert_eq!(single.block_on(async { call(&client, &url) }), REFUSED);
    assert_eq!(multi.block_on(async { call(&client, &url) }), REFUSED);
    let (its, here) = (client.clone(), url.clone());
    let task = multi.spawn(async move { call(&its, &here) });
    assert_eq!(multi.block_on(task).unwrap(), REFUSED);
    let local = tokio::task::LocalSet::new();
    assert_eq!(single.block_on(local.run_until(async { call(&client, &url) })), REFUSED);

    let error = single.block_on(async { client.get(&url).send_resilient().unwrap_err() });
    assert_eq!(
        format!("{error:#}").replace(&server.addr().to_string(), "HOST"),
        "GET request to http://HOST/ failed after 0 attempts: blocking call from async code: use \
         the async client here, or make the call within tokio::task::spawn_blocking"
    );
    assert_eq!(server.begun(), 0);

    // Bodies, too.
    let response = client.get(&url).send().unwrap();
    assert!(single.block_on(async { response.text() }).is_err());
    let mut response = client.get(&url).send().unwrap();
    let copied = single.block_on(async { response.copy_to(&mut io::sink()) });
    assert!(copied.unwrap_err().to_string().contains("spawn_blocking"));
}

#[test]
fn a_callback_that_blocks_is_refused_too() {
    let server = Server::h1([Reply::status(200).into()]);
    let (other, url) = (blocking_client(), server.url("/"));
    let seen = Arc::new(Mutex::new(None));
    let (its, here) = (Arc::clone(&seen), url.clone());
    let config = steady()
        .on_request(move |_| *its.lock().unwrap() = Some(call(&other, &here)))
        .build()
        .unwrap();
    blocking::ResilientClient::new(config).unwrap().get(&url).send().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(REFUSED));
}

#[test]
fn blocking_is_fine_where_blocking_is_fine() {
    let server = Server::h1([Reply::status(200).into()]);
    let (client, url) = (blocking_client(), server.url("/"));
    let fine = [None; 3];
    let multi = Runtime::new().unwrap();
    let single = Builder::new_current_thread().enable_all().build().unwrap();

    assert_eq!(call(&client, &url), fine);
    let guard = multi.enter();
    assert_eq!(call(&client, &url), fine);
    drop(guard);
    for runtime in [&multi, &single] {
        let (client, url) = (client.clone(), url.clone());
        let task = runtime.spawn_blocking(move || call(&client, &url));
        assert_eq!(runtime.block_on(task).unwrap(), fine);
    }
    let (its, here) = (client.clone(), url.clone());
    let task = multi.spawn(async move { tokio::task::block_in_place(|| call(&its, &here)) });
    assert_eq!(multi.block_on(task).unwrap(), fine);
    // Tokio does not expose such a task; the call only blocks its thread.
    let unconstrained = tokio::task::unconstrained(async { call(&client, &url) });
    assert_eq!(multi.block_on(unconstrained), fine);
}

#[test]
fn an_undriven_runtime_is_refused() {
    let single = Builder::new_current_thread().enable_all().build().unwrap();
    let built = blocking::ResilientClient::builder().runtime(single.handle().clone()).build();
    let error = built.unwrap_err();
    assert!(matches!(error, BuildError::CurrentThread));
    assert!(error.to_string().contains("give it the handle of a multi-thread runtime"), "{error}");
}

#[test]
fn a_runtime_that_has_stopped_is_an_error() {
    let slow = Reply::status(200).late(5 * SECOND);
    let server = Server::h1([Reply::status(200).body("body").into(), slow.into()]);
    let runtime = Runtime::new().unwrap();
    let client =
        blocking::ResilientClient::builder().runtime(runtime.handle().clone()).build().unwrap();
    let response = client.get(server.url("/")).send().unwrap();
    let (under_way, url) = (client.clone(), server.url("/"));
    let under_way = thread::spawn(move || under_way.get(url).send_resilient().unwrap_err());
    while server.requests() < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    runtime.shutdown_background();
    let stopped = Some(blocking::DriveError::RuntimeStopped);
    assert_eq!(refusal(&under_way.join().unwrap()), stopped);
    let error = client.get(server.url("/")).send_resilient().unwrap_err();
    assert_eq!(refusal(&error), stopped);
    assert!(response.text().unwrap_err().to_string().contains("shut down"));
}

#[tokio::test]
async fn a_blocking_client_can_be_made_and_dropped_within_async_code() {
    let client = blocking_client();
    drop(client.clone());
    drop(client);
    let task = tokio::spawn(async { drop(blocking_client()) });
    task.await.unwrap();
}

#[test]
fn many_threads_share_a_blocking_client() {
    let server = Server::h1([Reply::status(200).body("x".repeat(1000)).into()]);
    let (client, url) = (blocking_client(), server.url("/"));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let response = client.get(&url).send_resilient().unwrap();
                    assert_eq!(response.bytes().unwrap().len(), 1000);
                }
            });
        }
    });
    assert_eq!(server.requests(), 128);
}

#[test]
fn a_response_outlives_its_client() {
    let server = Server::h1([Reply::status(200).chunked("still here").into()]);
    let response = blocking_client().get(server.url("/")).send().unwrap();
    assert_eq!(response.text().unwrap(), "still here");
}

#[test]
fn bodies_are_read_by_blocking() {
    let body = r#"{"n": 7}"#;
    let answer = || Reply::status(200).body(body);
    let server = Server::h1([
        answer().into(),
        answer().into(),
        answer().drip(3, Duration::from_millis(1)).into(),
        answer().into(),
        answer().cut_body(4, End::Reset).into(),
        Reply::status(500).body("oh no").into(),
    ]);
    let config = steady().max_retries(0).build().unwrap();
    let client = blocking::ResilientClient::new(config).unwrap();
    let get = || client.get(server.url("/")).send().unwrap();
    assert_eq!(get().bytes().unwrap(), body);
    #[cfg(feature = "json")]
    assert_eq!(get().json::<serde_json::Value>().unwrap()["n"], 7);
    #[cfg(not(feature = "json"))]
    drop(get());

    let (mut response, mut copy) = (get(), vec![]);
    assert_eq!(response.copy_to(&mut copy).unwrap(), body.len() as u64);
    assert_eq!((copy.as_slice(), response.status().as_u16()), (body.as_bytes(), 200));
    assert_eq!(response.copy_to(&mut copy).unwrap(), 0);

    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut response = get();
    let reqwest_middleware::Error::Middleware(error) = response.copy_to(&mut Full).unwrap_err()
    else {
        panic!("not the writer's error")
    };
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(response.headers()["content-length"], "8");

    assert!(get().copy_to(&mut io::sink()).is_err());
    assert_eq!(get().error_for_status().unwrap_err().status().unwrap().as_u16(), 500);
    let error = client.get(server.url("/")).send_resilient().unwrap_err();
    assert_eq!(error.into_blocking_response().unwrap().text().unwrap(), "oh no");
}

#[test]
fn the_callers_own_panic_is_the_callers() {
    let server = Server::h1([Reply::status(200).into()]);
    let config = steady().retry_if(|_| -> bool { panic!("in the predicate") }).build().unwrap();
    let client = blocking::ResilientClient::new(config).unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| client.get(server.url("/")).send()));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the predicate"));
    // And the client goes on.
    let other = RetryOverride::new().without_retry_if();
    client.get(server.url("/")).with_extension(other).send().unwrap();
}
