//! Limits, breaker, budget, hooks and messages of downloads.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Extensions, HeaderValue, header};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_resilient::testing::{Chaos, Fault, Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, ConcurrencyLimit, DownloadErrorKind as Kind,
    DownloadExt, Event, Hedge, HostStates, Limit, Resilient, ResilientClient, RetryOverride,
    Verifier,
};

use super::origin::{Answer, Folder, bytes, client, config, serve, server};
use crate::support::idle_client;
use crate::support::reply::End;

const TAG: &[(&str, &str)] = &[("etag", "\"v1\"")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_may_pause_for_longer_than_the_stall_timeout() {
    let body = bytes(1, 2_000_000);
    let its = body.clone();
    for is_h2 in [false, true] {
        let its = its.clone();
        let server = server(is_h2, move |seen, _| serve(&its, TAG, seen));
        let download = client(is_h2, config()).get(server.url("/")).download();
        let limit = Duration::from_millis(200);
        let mut download =
            download.stall_timeout(limit).min_speed(1_000, limit).send().await.unwrap();
        let mut all = Vec::new();
        let mut pauses = 0;
        while let Some(chunk) = download.chunk().await.unwrap() {
            all.extend_from_slice(&chunk);
            if pauses < 4 {
                pauses += 1;
                tokio::time::sleep(2 * limit).await;
            }
        }
        assert!(all == body, "h2 {is_h2}");
        assert_eq!((download.summary().resumes(), server.requests()), (0, 1), "h2 {is_h2}");
    }
}

/// Virtual time: an hour of drops of bytes with pauses of the reader in between.
#[tokio::test(start_paused = true)]
async fn a_reader_that_drops_its_reads_is_no_stall() {
    let chaos = Chaos::seeded(1).all(1.0, Fault::stall_body(4)).enabled();
    let script = Script::new([Reply::status(200).body("0123456789")]);
    let client = ClientBuilder::new(idle_client()).with(chaos).with(script).build();
    let mut download = client.get("https://a.example/").download().send().await.unwrap();
    assert_eq!(download.chunk().await.unwrap().unwrap().len(), 4);
    let second = Duration::from_secs(1);
    for _ in 0..60 {
        // It looks for a moment, and pauses for a minute.
        assert!(tokio::time::timeout(second / 10, download.chunk()).await.is_err());
        tokio::time::sleep(60 * second).await;
    }
    let start = tokio::time::Instant::now();
    let error = download.chunk().await.unwrap_err();
    assert_eq!((error.kind(), error.offset()), (Kind::Stalled, 4));
    let took = start.elapsed().as_secs();
    assert!((20..=31).contains(&took), "{took} s");
    assert!(download.chunk().await.unwrap().is_none(), "it has ended");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "no byte came for 30s (stall_timeout)");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_left_if_a_speed_is_demanded() {
    let chaos = Chaos::seeded(1).all(1.0, Fault::slow_body(1)).enabled();
    let script = Script::new([Reply::status(200).body("0123456789")]);
    let client = ClientBuilder::new(idle_client()).with(chaos).with(script).build();
    let download = client.get("https://a.example/").download();
    let download = download.min_speed(10, Duration::from_secs(5)).max_retries(0);
    let error = download.send().await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Stalled);
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_waiting_are_settings_of_the_client_too() {
    let second = Duration::from_secs(1);
    let limited = config().stall_timeout(7 * second).min_speed(10, 5 * second).build().unwrap();
    let read = async |fault, over: RetryOverride| {
        let chaos = Chaos::seeded(1).all(1.0, fault).enabled();
        let script = Script::new([Reply::status(200).body("0123456789")]);
        let client = ResilientClient::builder().config(limited.clone()).with(chaos).with(script);
        let start = tokio::time::Instant::now();
        let get = client.build().unwrap().get("https://a.example/").with_extension(over);
        let error = get.download().send().await.unwrap().bytes().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Stalled);
        let source = std::error::Error::source(&error).unwrap().to_string();
        (source, start.elapsed().as_secs())
    };
    let silent = read(Fault::stall_body(4), RetryOverride::new().without_min_speed()).await;
    assert_eq!(silent, ("no byte came for 7s (stall_timeout)".into(), 7));
    let slow = read(Fault::slow_body(1), RetryOverride::new()).await;
    assert!(slow.0.contains("min_speed") && (4..=7).contains(&slow.1), "{slow:?}");
    let shorter = RetryOverride::new().stall_timeout(3 * second);
    assert_eq!(read(Fault::stall_body(4), shorter).await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn the_own_stall_timeout_of_a_download_holds_for_a_first_byte_that_a_hedge_waits_for() {
    let second = Duration::from_secs(1);
    let late = || Reply::status(200).body("0123456789").body_stalls_after(0);
    let hedge = Hedge::after(3_600 * second).until_first_byte();
    let config = config().hedge(hedge).without_attempt_timeout().max_retries(0).build().unwrap();
    let client = || {
        let builder = ResilientClient::builder().config(config.clone());
        builder.with(Script::new([late()])).build().unwrap().get("https://a.example/").download()
    };
    let start = tokio::time::Instant::now();
    let error = client().max_retries(0).stall_timeout(7 * second).bytes().await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Request, 7 * second));
    let endless = client().without_stall_timeout().bytes();
    assert!(tokio::time::timeout(3_000 * second, endless).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_for_everything_holds_for_all_requests() {
    let body = bytes(1, 1_000_000);
    let server = server(false, move |seen, _| serve(&body, TAG, seen).cut(20_000, End::Stall));
    let limit = Duration::from_millis(500);
    let client = client(false, config().max_total_time(limit));
    let start = Instant::now();
    let download = client.get(server.url("/")).download().stall_timeout(limit / 5);
    let error = download.bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(error.offset() > 0 && error.is_transient());
    assert!((limit..limit * 3).contains(&start.elapsed()), "{:?}", start.elapsed());
}

/// An attempt timeout that is longer than what is left ends with it.
#[tokio::test(start_paused = true)]
async fn a_download_goes_on_with_less_time_than_an_attempt_may_take() {
    let second = Duration::from_secs(1);
    let own = RetryOverride::new().attempt_timeout(2 * second);
    let its = own.clone().max_total_time(3 * second);
    for (config, over) in [(config(), its), (config().max_total_time(3 * second), own)] {
        let tagged =
            |status| Reply::status(status).header(header::ETAG, HeaderValue::from_static("\"v1\""));
        let part = HeaderValue::from_static("bytes 4-9/10");
        let script = Script::new([
            tagged(200).body("0123456789").body_breaks_after(4),
            tagged(206).body("456789").header(header::CONTENT_RANGE, part),
        ]);
        let client = ResilientClient::builder().config(config.build().unwrap()).with(script);
        let get = client.build().unwrap().get("https://a.example/").with_extension(over);
        let mut download = get.download().send().await.unwrap();
        let mut all = download.chunk().await.unwrap().unwrap().to_vec();
        tokio::time::sleep(2 * second).await;
        while let Some(chunk) = download.chunk().await.unwrap() {
            all.extend_from_slice(&chunk);
        }
        assert_eq!((all, download.summary().resumes()), (b"0123456789".to_vec(), 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_break_is_reported_to_the_breaker_once() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, _| serve(&body, TAG, seen).cut(0, End::Reset));
    let hosts = HostStates::new();
    let rules = BreakerConfig::failure_rate(
        reqwest_resilient::Percent::new(100).unwrap(),
        reqwest_resilient::Window::Count(100),
    );
    let config = config().circuit_breaker(rules).build().unwrap();
    let client = ClientBuilder::new(Resilient::reqwest_builder().no_proxy().build().unwrap())
        .with(Resilient::new(config).with_hosts(hosts.clone()))
        .build();
    let download = client.get(server.url("/")).download().max_retries(0);
    let error = download.bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    let counts = hosts.breaker(&server.url("/")).snapshot(tokio::time::Instant::now()).window;
    assert_eq!((counts.total, counts.failures), (2, 1), "the head, and the break");
}

#[tokio::test(start_paused = true)]
async fn a_break_of_an_older_download_is_no_probe_and_changes_no_open_breaker() {
    let script = Script::new([
        Reply::status(200).body("0123456789").body_breaks_after(4),
        Reply::status(503),
        Reply::status(200),
    ]);
    let second = Duration::from_secs(1);
    let rules = BreakerConfig::consecutive(1).open_for(second).without_open_jitter();
    let changes = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&changes);
    let config = config().max_retries(0).circuit_breaker(rules).on_event(move |event| {
        if let Event::BreakerChanged(it) = event {
            seen.lock().unwrap().push((it.from, it.to));
        }
    });
    let client = ResilientClient::builder().config(config.build().unwrap()).with(script);
    let (client, url) = (client.build().unwrap(), "https://a.example/");
    let download = client.get(url).download().max_retries(0).send().await.unwrap();
    client.get(url).send().await.unwrap();
    tokio::time::sleep(2 * second).await;
    assert!(download.bytes().await.is_err(), "it cannot be resumed");
    let (closed, open) = (BreakerState::Closed, BreakerState::Open);
    assert_eq!(*changes.lock().unwrap(), [(closed, open)]);
    assert_eq!(client.hosts().breaker(url).state(), open);
    client.get(url).send().await.unwrap();
    let half = BreakerState::HalfOpen;
    assert_eq!(*changes.lock().unwrap(), [(closed, open), (open, half), (half, closed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_are_told_of_each_break() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, n| {
        let answer = serve(&body, TAG, seen);
        if n < 2 { answer.cut(40_000, End::Close) } else { answer }
    });
    let events = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&events);
    let config = config().on_event(move |event| {
        if let Event::Resuming(it) = event {
            seen.lock().unwrap().push((it.received, it.total, it.restarts, event.to_string()));
        }
    });
    let url = server.url("/a?token=hunter2");
    client(false, config).get(&url).download().bytes().await.unwrap();
    let line = |at: u64| {
        let shown = url.split('?').next().unwrap();
        format!("GET {shown}: download broke off at byte {at}, goes on in 0.000s")
    };
    let event = |at: u64| (at, Some(100_000), false, line(at));
    assert_eq!(*events.lock().unwrap(), [event(40_000), event(80_000)]);
}

/// A body that is read within its attempt is lost when it breaks off, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_is_streamed_whatever_the_settings_read() {
    let body = bytes(1, 300_000);
    let its = body.clone();
    let server = server(false, move |seen, _| serve(&its, TAG, seen).cut(70_000, End::Close));
    let download = client(false, config().read_body(1024 * 1024)).get(server.url("/")).download();
    assert!(download.bytes().await.unwrap() == body);
    assert_eq!(server.requests(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_a_token() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, _| serve(&body, &[], seen).cut(50_000, End::Reset));
    let hosts = HostStates::new();
    let budget = BudgetConfig::default().size(2).trickle(0.0);
    let config = config().retry_budget(budget).max_retries(9).build().unwrap();
    let client = ClientBuilder::new(Resilient::reqwest_builder().no_proxy().build().unwrap())
        .with(Resilient::new(config).with_hosts(hosts.clone()))
        .build();
    let error = client.get(server.url("/")).download().bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(!error.is_resumable());
    assert!(server.requests() <= 5, "{}", server.requests());
    let left = hosts.budget_left(&server.url("/"), tokio::time::Instant::now()).unwrap();
    assert!(left < 1.0, "{left}");
}

/// Signs each request by its number.
struct Signs(AtomicUsize);

#[async_trait::async_trait]
impl Middleware for Signs {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let number = self.0.fetch_add(1, SeqCst);
        request.headers_mut().insert("x-signature", HeaderValue::from(number));
        next.run(request, extensions).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_an_ordinary_one() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, n| {
        let answer = serve(&body, TAG, seen);
        if n < 2 { answer.cut(40_000, End::Close) } else { answer }
    });
    let client = ClientBuilder::new(Resilient::reqwest_builder().no_proxy().build().unwrap())
        .with(Resilient::new(
            config().attempt_header(http::HeaderName::from_static("x-n")).build().unwrap(),
        ))
        .with(Signs(AtomicUsize::new(0)))
        .build();
    let request = client.get(server.url("/a?q=1")).header("x-own", "1").bearer_auth("token");
    // Conditions of the caller's own concern the first request only.
    let request = request.header("if-none-match", "\"v0\"");
    request.download().bytes().await.unwrap();
    let seen = server.seen();
    let field = |name: &str| seen.iter().map(|it| it.header(name)).collect::<Vec<_>>();
    assert_eq!(field("x-signature"), [Some("0"), Some("1"), Some("2")]);
    assert_eq!(field("x-own"), [Some("1"); 3]);
    assert_eq!(field("authorization"), [Some("Bearer token"); 3]);
    assert_eq!(field("accept-encoding"), [Some("identity"); 3]);
    assert_eq!(field("range"), [None, Some("bytes=40000-"), Some("bytes=80000-")]);
    assert_eq!(field("if-range"), [None, Some("\"v1\""), Some("\"v1\"")]);
    assert_eq!(field("if-none-match"), [Some("\"v0\""), None, None]);
    assert!(seen.iter().all(|it| it.path == "/a?q=1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_url_is_replaced() {
    let body = bytes(1, 100_000);
    let its = body.clone();
    let server = server(false, move |seen, n| match (n, seen.path.as_str()) {
        (0, "/a?signature=old") => serve(&its, TAG, seen).cut(40_000, End::Close),
        (_, "/a?signature=old") => Answer::new(403, "expired"),
        _ => serve(&its, TAG, seen),
    });
    let fresh = server.url("/a?signature=new");
    let points = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&points);
    let download = client(false, config()).get(server.url("/a?signature=old")).download();
    let download = download.refresh(move |point| {
        seen.lock().unwrap().push(point);
        let request = Request::new(http::Method::GET, fresh.parse().unwrap());
        async move { Ok(request) }
    });
    assert!(download.bytes().await.unwrap() == body);
    let points = points.lock().unwrap();
    assert_eq!(points.len(), 1);
    assert_eq!((points[0].offset, points[0].status.as_u16()), (40_000, 403));
    assert_eq!(points[0].validator.as_ref().unwrap(), "\"v1\"");
    let last = server.seen().pop().unwrap();
    assert_eq!(
        (last.path.as_str(), last.header("range")),
        ("/a?signature=new", Some("bytes=40000-"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_stays_refused_ends_the_download() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, n| match n {
        0 => serve(&body, TAG, seen).cut(40_000, End::Close),
        _ => Answer::new(403, "expired"),
    });
    let url = server.url("/a?signature=hunter2");
    let (again, asked) = (url.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let download = client(false, config()).get(&url).download().refresh(move |_| {
        count.fetch_add(1, SeqCst);
        let request = Request::new(http::Method::GET, again.parse().unwrap());
        async move { Ok(request) }
    });
    let error = download.bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert_eq!(asked.load(SeqCst), 3, "at once, and after each of two retries");
    let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
    assert!(!text.contains("hunter2"), "{text}");
    assert!(error.to_string().contains("/a failed at byte 40000: "), "{error}");
    let failing = client(false, config()).get(&url).download();
    let error = failing.refresh(|_| async { Err("no".into()) }).bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Request, "refused at once is no expiry");
}

#[tokio::test(start_paused = true)]
async fn an_error_gives_back_its_request_s_error_or_itself() {
    let get = || {
        let script = Script::new([Reply::status(404).body("moved away")]);
        let client = ClientBuilder::new(idle_client()).with(script).build();
        client.get("https://a.example/").download()
    };
    let error = get().bytes().await.unwrap_err();
    let response = error.into_request_error().unwrap().into_response().unwrap();
    assert_eq!(response.text().await.unwrap(), "moved away");

    let script = Script::new([Reply::status(200).body("0123456789")]);
    let client = ClientBuilder::new(idle_client()).with(script).build();
    let long = client.get("https://a.example/").download().max_length(9).bytes().await;
    let error = long.unwrap_err().into_request_error().unwrap_err();
    assert!(matches!(error.kind(), Kind::TooLong { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn lengths_are_held() {
    let get = |body: &'static str| {
        let script = Script::new([Reply::status(200).body(body)]);
        let client = ClientBuilder::new(idle_client()).with(script).build();
        client.get("https://a.example/").download()
    };
    let kind = |result: Result<Bytes, reqwest_resilient::DownloadError>| result.unwrap_err().kind();
    assert_eq!(get("0123456789").max_length(10).expect_length(10).bytes().await.unwrap().len(), 10);
    let long = get("0123456789").max_length(9).bytes().await;
    assert!(matches!(kind(long), Kind::TooLong { most: 9, .. }));
    let other = get("0123456789").expect_length(11).bytes().await;
    assert!(matches!(kind(other), Kind::Length { expected: 11, received: 10, .. }));
}

/// Keeps what it sees.
#[derive(Clone, Default)]
struct Keeps(Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>, bool);

impl Verifier for Keeps {
    fn restart(&mut self) {
        self.0.lock().unwrap().clear();
        self.1.fetch_add(1, SeqCst);
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }

    fn finish(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.2 { Err("wrong digest".into()) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verifier_sees_each_byte_once_and_in_order() {
    let body = bytes(1, 200_000);
    for (validators, restarts) in [(TAG, 0), (&[][..], 1)] {
        let its = body.clone();
        let server = server(false, move |seen, n| {
            let answer = serve(&its, validators, seen);
            if n == 0 { answer.cut(90_000, End::Close) } else { answer }
        });
        let keeps = Keeps::default();
        let shown = Arc::new(Mutex::new(vec![]));
        let progress = Arc::clone(&shown);
        let download = client(false, config()).get(server.url("/")).download();
        let download = download
            .verify(keeps.clone())
            .on_progress(move |it| progress.lock().unwrap().push(*it));
        assert!(download.bytes().await.unwrap() == body);
        assert!(*keeps.0.lock().unwrap() == body);
        assert_eq!(keeps.1.load(SeqCst), restarts);
        let shown = shown.lock().unwrap();
        let last = shown.last().unwrap();
        assert_eq!((last.received, last.total), (200_000, Some(200_000)));
        assert_eq!((last.resumes, last.restarts), (1 - restarts as u32, restarts as u32));
        let is_monotone = |pair: &[reqwest_resilient::Progress]| {
            pair[0].received <= pair[1].received || pair[0].restarts < pair[1].restarts
        };
        assert!(shown.windows(2).all(is_monotone), "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_verifier_rejects_is_an_error() {
    let script = Script::new([Reply::status(200).body("0123456789")]);
    let client = ClientBuilder::new(idle_client()).with(script).build();
    let keeps = Keeps(Arc::default(), Arc::default(), true);
    let error =
        client.get("https://a.example/").download().verify(keeps).bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verification);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "wrong digest");
}

/// Methods but GET are sent as they are, and an own client of this crate has the method, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_requests_are_downloads_without_resumes() {
    let body = bytes(1, 100_000);
    let server = server(false, move |seen, _| serve(&body, TAG, seen).cut(50_000, End::Reset));
    let client = ResilientClient::builder().with_reqwest(|it| it.no_proxy()).build().unwrap();
    let error = client.post(server.url("/")).download().send().await.unwrap().bytes().await;
    let kind = Kind::NotResumable(reqwest_resilient::NotResumable::Method);
    assert_eq!(error.unwrap_err().kind(), kind);
    assert_eq!(server.requests(), 1);
    // What was processed is not sent again, unless that is safe.
    let error = client.post(server.url("/")).body("an order").download().bytes().await;
    assert_eq!((error.unwrap_err().kind(), server.requests()), (kind, 2));
    let safe = RetryOverride::new().idempotent(true);
    for request in [client.post(server.url("/")).with_extension(safe), client.put(server.url("/"))]
    {
        let before = server.requests();
        let error = request.download().max_retries(1).bytes().await.unwrap_err();
        assert_eq!((error.kind(), server.requests() - before), (Kind::Exhausted, 2));
    }
    let error = client.get("no url").download().bytes().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Request);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_download_names_its_method() {
    let events = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&events);
    let config = config().on_event(move |event| {
        if let Event::Resuming(_) = event {
            seen.lock().unwrap().push(event.to_string());
        }
    });
    let replies = [Reply::status(200).body("0123456789").body_breaks_after(4)];
    let script = Script::new(replies.into_iter().chain([Reply::status(200).body("whole")]));
    let client = ResilientClient::builder().config(config.build().unwrap()).with(script);
    let put = client.build().unwrap().put("https://a.example/").download();
    assert_eq!(put.bytes().await.unwrap(), "whole");
    let expected = "PUT https://a.example/: download broke off at byte 4, starts over in 0.000s";
    assert_eq!(*events.lock().unwrap(), [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_failed_holds_no_permit_while_its_download_waits() {
    let tagged =
        |status| Reply::status(status).header(header::ETAG, HeaderValue::from_static("\"v1\""));
    let length = |reply: Reply, n: u64| reply.header(header::CONTENT_LENGTH, n.into());
    let range = HeaderValue::from_static("bytes 4-9/10");
    let script = Script::new([
        length(tagged(200).body("0123456789"), 10).body_breaks_after(4),
        Reply::status(503).body("busy"),
        length(tagged(206).header(header::CONTENT_RANGE, range).body("456789"), 6),
    ]);
    let config =
        config().max_retries(0).concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(1)));
    let client = ResilientClient::builder().config(config.build().unwrap()).with(script.clone());
    let start = tokio::time::Instant::now();
    let download = client.build().unwrap().get("https://a.example/").download().max_retries(3);
    assert_eq!(download.bytes().await.unwrap(), "0123456789");
    assert_eq!(script.sent().len(), 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// The end of a chain: a body without a length, in these frames.
struct Frames(&'static [&'static str]);

#[async_trait::async_trait]
impl Middleware for Frames {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let frames = self.0.iter().copied().map(Ok::<_, std::io::Error>);
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(frames));
        Ok(http::Response::new(body).into())
    }
}

#[tokio::test]
async fn a_body_longer_than_expected_is_an_error_wherever_its_frames_end() {
    for (frames, kind) in [
        (&["01234", "56789"][..], None),
        (&["0123456789", "abc"], Some("it has 13 bytes instead of 10")),
        (&["01234", "56789abc"], Some("it has 13 bytes instead of 10")),
    ] {
        let client = ClientBuilder::new(idle_client()).with(Frames(frames)).build();
        let download = client.get("https://a.example/").download().expect_length(10);
        let result = download.bytes().await;
        let found = result.err().map(|it| it.kind().to_string());
        assert_eq!(found.as_deref(), kind, "{frames:?}");
    }
}

#[tokio::test]
async fn no_error_of_a_file_shows_a_path_that_is_redacted() {
    let folder = Folder::new();
    std::fs::create_dir(folder.file("is a folder")).unwrap();
    let script = Script::new([Reply::status(200).body("0123456789")]);
    let config = config().redact_path(|_| "/…".to_owned()).build().unwrap();
    let client = ResilientClient::builder().config(config).with(script).build().unwrap();
    let get = || client.get("https://a.example/bot/hunter2").download();
    for name in ["no such folder/it", "is a folder"] {
        let error = get().to_file(folder.file(name)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Write);
        let shown = format!("{error} {error:#} {error:?}");
        assert!(!shown.contains("hunter2"), "{name}: {shown}");
    }
    let download = get().send().await.unwrap();
    let shown = format!("{download:?}");
    assert!(!shown.contains("hunter2") && shown.contains("a.example"), "{shown}");
}

#[tokio::test]
async fn limits_of_zero_are_named_before_anything_is_sent() {
    let (client, zero) = (ClientBuilder::new(idle_client()).build(), Duration::ZERO);
    let download = || client.get("https://a.example/").download();
    for (download, fault) in [
        (download().stall_timeout(zero), "stall_timeout must be > 0, got 0ns"),
        (
            download().min_speed(0, zero),
            "min_speed.bytes_per_second must be > 0, got 0; min_speed.period must be > 0, got 0ns",
        ),
    ] {
        let error = download.bytes().await.unwrap_err();
        let expected = format!("download failed at byte 0: request could not be built: {fault}");
        assert_eq!((error.kind(), format!("{error:#}")), (Kind::Request, expected));
    }
}
