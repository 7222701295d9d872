//! The concurrency limit in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, BreakerConfig, CircuitBreakers, ConcurrencyLimit, Event, HostStates,
    HttpRequestError, Limit, QueueOrder, RequestBuilderExt, Resilient, ResilientConfig,
    ResilientConfigBuilder, ResponseExt, RetryOverride, StopReason,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{URL, idle_client, steady};

const SECOND: Duration = Duration::from_secs(1);
const HOST: &str = "https://api.example.com";

/// The most requests that are at the end of the chain at a time.
#[derive(Clone, Default)]
struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

struct Leaves(Crowd);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Middleware for Crowd {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        let _leaves = Leaves(self.clone());
        next.run(request, extensions).await
    }
}

struct Client {
    client: ClientWithMiddleware,
    script: Script,
    crowd: Crowd,
    hosts: HostStates,
}

impl Client {
    fn new(config: ResilientConfigBuilder, replies: impl IntoIterator<Item = Reply>) -> Self {
        let (script, crowd) = (Script::new(replies), Crowd::default());
        let resilient = Resilient::new(config.build().unwrap());
        let hosts = resilient.hosts().clone();
        let client = ClientBuilder::new(idle_client())
            .with(resilient)
            .with(crowd.clone())
            .with(script.clone())
            .build();
        Self { client, script, crowd, hosts }
    }

    async fn get(&self) -> reqwest_middleware::Result<Response> {
        self.client.get(URL).send().await
    }

    fn spawn(&self) -> impl Future<Output = reqwest_middleware::Result<Response>> + use<> {
        self.client.get(URL).send()
    }

    /// Returns limit, permits in use, and requests that wait.
    fn usage(&self) -> (u32, u32, usize) {
        let usage = self.hosts.limit_use(HOST).unwrap_or_default();
        (usage.limit, usage.in_flight, usage.queued)
    }
}

fn limited(limit: impl Into<ConcurrencyLimit>) -> ResilientConfigBuilder {
    steady().concurrency_limit(limit)
}

fn slow() -> Reply {
    Reply::status(200).body("page").after(SECOND)
}

fn error(result: reqwest_middleware::Result<Response>) -> String {
    let error = result.unwrap_err();
    HttpRequestError::find(&error).unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_limit_are_under_way() {
    let client = Client::new(limited(Limit::fixed(10)), [slow()]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let sent = client.spawn();
        tasks.spawn(async move { sent.await.unwrap().text().await.unwrap() });
    }
    assert!(tasks.join_all().await.iter().all(|it| it == "page"));
    assert_eq!((client.crowd.most(), start.elapsed()), (10, 10 * SECOND));
    assert_eq!(client.usage(), (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_limit_a_host_one_a_key_or_one_for_all() {
    let per_host = ConcurrencyLimit::per_host(Limit::fixed(1));
    let shared = ConcurrencyLimit::shared(Limit::fixed(1));
    let per_key = ConcurrencyLimit::per_key(Limit::fixed(1), |it| it.url().path().to_owned());
    for (limit, most) in [(per_host, 2), (shared, 1), (per_key, 3)] {
        let client = Client::new(limited(limit), [slow()]);
        let sent =
            ["https://a.example/1", "https://a.example/2", "https://b.example/3"].map(|it| {
                let sent = client.client.get(it).send();
                async move { drop(sent.await.unwrap()) }
            });
        let [a, b, c] = sent;
        tokio::join!(a, b, c);
        assert_eq!(client.crowd.most(), most);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_to_the_end_of_the_body() {
    let client = Client::new(limited(Limit::fixed(1)), [slow()]);
    let mut response = client.get().await.unwrap();
    assert_eq!(client.usage().1, 1);
    while response.chunk().await.unwrap().is_some() {}
    assert_eq!(client.usage().1, 0, "read to its end");
    let response = client.get().await.unwrap();
    assert_eq!(client.usage().1, 1);
    drop(response);
    assert_eq!(client.usage().1, 0, "dropped");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_returns_its_permit() {
    let client = Client::new(
        limited(Limit::fixed(1)).max_total_time(3 * SECOND).without_attempt_timeout(),
        [slow()],
    );
    let mut response = client.get().await.unwrap();
    sleep(3 * SECOND).await;
    assert!(response.chunk().await.is_err(), "cut by the deadline");
    assert_eq!(client.usage().1, 0);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_body_returns_its_permit_at_once() {
    let client = Client::new(limited(Limit::fixed(1)), [Reply::status(204)]);
    let response = client.get().await.unwrap();
    assert_eq!(client.usage(), (1, 0, 0));
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_permit_may_end_with_the_head() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(1)).until_head();
    let client = Client::new(limited(limit), [slow()]);
    let kept = [client.get().await.unwrap(), client.get().await.unwrap()];
    assert_eq!(client.usage(), (1, 0, 0));
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_read_within_the_attempt_holds_no_permit() {
    let client = Client::new(limited(Limit::fixed(1)).read_body(1024), [slow()]);
    let kept = [client.get().await.unwrap(), client.get().await.unwrap()];
    assert_eq!(client.usage(), (1, 0, 0));
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn unread_bodies_do_not_hang_but_are_named() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(2)).max_queue_time(5 * SECOND);
    let client = Client::new(limited(limit), [slow()]);
    let kept = [client.get().await.unwrap(), client.get().await.unwrap()];
    let start = Instant::now();
    let result = client.get().await;
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(
        error(result),
        "GET request to https://api.example.com/data was rejected after 0 attempts: concurrency \
         limit of the client: 2 requests under way, waited 5.0 s; 2 responses hold all permits: \
         read or drop their bodies"
    );
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn an_error_holds_its_permit_until_its_body_is_read() {
    let client = Client::new(limited(Limit::fixed(1)), [Reply::status(404).body("no such page")]);
    let mut error = client.client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!(client.usage(), (1, 1, 0));
    assert_eq!(error.text().await.unwrap(), "no such page");
    assert_eq!(client.usage(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_typed_and_neutral() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(1)).max_queue_time(Duration::ZERO);
    let config = ResilientConfig::builder()
        .concurrency_limit(limit)
        .circuit_breaker(BreakerConfig::consecutive(1));
    let client = Client::new(config, [slow()]);
    let log = AttemptLog::new();
    let first = tokio::spawn(client.spawn());
    sleep(SECOND / 2).await;
    let now = Instant::now();
    let before = client.hosts.budget_left(HOST, now);
    for _ in 0..20 {
        let request = client.client.get(URL).with_extension(log.clone());
        let failed = request.send().await.unwrap_err();
        let failed = HttpRequestError::find(&failed).unwrap();
        assert!(failed.is_limited() && !failed.is_rate_limited() && !failed.is_circuit_open());
        assert_eq!((failed.attempts(), failed.stop_reason()), (0, StopReason::Limited));
        assert!(!failed.limited().unwrap().is_rate());
    }
    assert_eq!(log.history().to_string(), "-- +0.000s limited\nended: limited");
    assert_eq!(client.hosts.budget_left(HOST, now), before);
    assert_eq!(client.hosts.snapshot(now)[0].state, reqwest_resilient::BreakerState::Closed);
    drop(first.await.unwrap().unwrap());
    let served = client.get().await.unwrap();
    assert_eq!(served.status(), 200);
    drop(served);
    let failed = client.hosts.limit_use(HOST).unwrap();
    assert_eq!((failed.in_flight, client.script.sent().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_a_permit_past_its_deadline() {
    let client = Client::new(limited(Limit::fixed(1)).max_total_time(10 * SECOND), [slow()]);
    // The host is known to take a second.
    drop(client.get().await.unwrap());
    let kept = client.get().await.unwrap();
    let start = Instant::now();
    assert!(client.get().await.is_err());
    assert_eq!(start.elapsed(), 9 * SECOND, "an attempt would take a second more");
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn no_permit_is_held_between_attempts() {
    let replies = [Reply::status(503).body("busy"), Reply::status(200)];
    let client = Client::new(limited(Limit::fixed(1)), replies);
    let sent = tokio::spawn(client.spawn());
    sleep(SECOND / 2).await;
    assert_eq!((client.script.sent().len(), client.usage()), (1, (1, 0, 0)));
    assert_eq!(sent.await.unwrap().unwrap().attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_standing_queue_goes_newest_first_where_time_is_short() {
    let started = |order, limited_time: bool| async move {
        let limit = ConcurrencyLimit::per_host(Limit::fixed(1)).order(order);
        let config = limited(limit);
        let config = if limited_time { config.max_total_time(60 * SECOND) } else { config };
        let client = Client::new(config, [slow()]);
        let ended = Arc::new(Mutex::new(vec![]));
        let mut tasks = JoinSet::new();
        for number in 0..5 {
            let (sent, ended) = (client.spawn(), Arc::clone(&ended));
            tasks.spawn(async move {
                drop(sent.await.unwrap());
                ended.lock().unwrap().push(number);
            });
            sleep(Duration::from_millis(1)).await;
        }
        tasks.join_all().await;
        Arc::into_inner(ended).unwrap().into_inner().unwrap()
    };
    assert_eq!(started(QueueOrder::Adaptive, true).await, [0, 4, 3, 2, 1]);
    assert_eq!(started(QueueOrder::Adaptive, false).await, [0, 1, 2, 3, 4]);
    assert_eq!(started(QueueOrder::Fair, true).await, [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn random_drops_lose_no_permit_and_no_wake_up() {
    let client = Client::new(limited(Limit::fixed(3)), [slow()]);
    let mut random = 1_u64;
    let mut tasks = JoinSet::new();
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let patience = Duration::from_millis((random >> 33) % 5_000);
        let sent = client.spawn();
        tasks.spawn(async move { drop(timeout(patience, sent).await) });
        if tasks.len() > 40 {
            tasks.join_next().await;
        }
    }
    tasks.join_all().await;
    assert!(client.crowd.most() <= 3);
    assert_eq!(client.usage(), (3, 0, 0));
    drop(client.get().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn waiters_are_judged_again_when_the_breaker_opens() {
    let breaker = BreakerConfig::consecutive(1).open_for(60 * SECOND);
    let config = limited(Limit::fixed(1)).circuit_breaker(CircuitBreakers::per_host(breaker));
    let client = Client::new(config.max_retries(0), [Reply::status(500).after(SECOND)]);
    let start = Instant::now();
    let (first, second) = tokio::join!(client.get(), client.get());
    assert_eq!(first.unwrap().status(), 500);
    let second = second.unwrap_err();
    let second = HttpRequestError::find(&second).unwrap();
    assert!(second.is_circuit_open() && second.retry_in() >= Some(60 * SECOND), "{second}");
    assert_eq!((start.elapsed(), client.script.sent().len()), (SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_queue_behind_bodies() {
    let breaker = BreakerConfig::consecutive(1).open_for(SECOND);
    let breaker = CircuitBreakers::per_host(breaker.without_open_jitter());
    let config = limited(Limit::fixed(1)).circuit_breaker(breaker).max_retries(0);
    let replies = [Reply::status(200).body("kept"), Reply::status(500), Reply::status(200)];
    let client = Client::new(config, replies);
    let kept = client.get().await.unwrap();
    client.hosts.breaker(HOST).try_enter(Instant::now()).unwrap().failure(Instant::now());
    sleep(SECOND).await;
    // The permit is held by a body: only a probe is admitted.
    let start = Instant::now();
    assert_eq!(client.get().await.unwrap().status(), 500);
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn a_reload_drains_a_lower_limit_and_cancels_nothing() {
    let script = Script::new([slow()]);
    let resilient = Resilient::new(limited(Limit::fixed(4)).build().unwrap());
    let (handle, hosts) = (resilient.reload_handle(), resilient.hosts().clone());
    let client = ClientBuilder::new(idle_client()).with(resilient).with(script.clone()).build();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let sent = client.get(URL).send();
        tasks.spawn(async move { drop(sent.await.unwrap()) });
    }
    sleep(SECOND / 2).await;
    handle.reload(limited(Limit::fixed(2)).build().unwrap());
    let sent = client.get(URL).send();
    tasks.spawn(async move { drop(sent.await.unwrap()) });
    sleep(Duration::from_millis(1)).await;
    let usage = hosts.limit_use(HOST).unwrap();
    assert_eq!((usage.limit, usage.in_flight, usage.queued), (2, 4, 5));
    let start = Instant::now();
    tasks.join_all().await;
    // Four end, then two at a time.
    assert_eq!((start.elapsed().as_millis() + 1 + 500, script.sent().len()), (4_000, 9));
}

#[tokio::test(start_paused = true)]
async fn an_override_switches_the_limit_off() {
    let client = Client::new(limited(Limit::fixed(1)), [slow()]);
    let kept = client.get().await.unwrap();
    let off = RetryOverride::new().without_concurrency_limit();
    let sent = client.client.get(URL).with_extension(off).send();
    assert!(timeout(2 * SECOND, sent).await.is_ok());
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn waits_are_told_with_their_length() {
    let events = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&events);
    let config = limited(Limit::fixed(1)).on_event(move |event| match event {
        Event::Queued(_) => seen.lock().unwrap().push(event.to_string()),
        Event::AttemptStarted(it) => {
            let usage = it.limit.unwrap();
            seen.lock().unwrap().push(format!("{}/{}", usage.in_flight, usage.limit));
        }
        _ => {}
    });
    let client = Client::new(config, [slow()]);
    let log = AttemptLog::new();
    let second = async {
        let request = client.client.get(URL).with_extension(log.clone());
        drop(request.send().await.unwrap());
    };
    let first = async { drop(client.get().await.unwrap()) };
    tokio::join!(first, second);
    let waited = "GET https://api.example.com/data: waited 1.000s for the concurrency limit";
    assert_eq!(*events.lock().unwrap(), ["1/1", waited, "1/1"]);
    assert_eq!(
        log.history().to_string(),
        "-- +0.000s limited, then 1.000s by concurrency limit\n#1 +1.000s 1.000s status 200\n\
         ended: success"
    );
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_falls_with_overload_and_grows_with_success() {
    let changes = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&changes);
    let config = limited(Limit::adaptive()).max_retries(0).on_event(move |event| {
        if let Event::LimitChanged(it) = event {
            seen.lock().unwrap().push((it.from, it.to));
        }
    });
    let client = Client::new(config, [Reply::status(503).after(SECOND), slow()]);
    let burst = async || {
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let sent = client.spawn();
            tasks.spawn(async move { drop(sent.await) });
        }
        tasks.join_all().await;
    };
    burst().await;
    // What was under way beside it succeeds, and is a round.
    assert_eq!(*changes.lock().unwrap(), [(20, 10), (10, 11)], "one cut");
    burst().await;
    assert_eq!(changes.lock().unwrap()[2..], [(11, 12)]);
    assert_eq!(client.usage(), (12, 0, 0));
    drop(client.get().await.unwrap());
    assert_eq!(client.usage().0, 12, "an idle client learns nothing");
}

#[tokio::test(start_paused = true)]
async fn what_an_adaptive_limit_has_learned_outlives_requests_under_a_fixed_one() {
    let config = limited(Limit::adaptive()).max_retries(0);
    let client = Client::new(config, [Reply::status(503).after(SECOND), slow()]);
    drop(client.get().await.unwrap());
    assert_eq!(client.usage().0, 10);
    let fixed = RetryOverride::new().concurrency_limit(Limit::fixed(4));
    drop(client.client.get(URL).with_extension(fixed).send().await.unwrap());
    assert_eq!(client.usage().0, 4, "which teaches nothing");
    drop(client.get().await.unwrap());
    assert_eq!(client.usage().0, 10);
}

/// All come at once and take the same time: in order of arrival the last one waits twice the mean, and
/// no order has less. In virtual time, because a machine that slows down serves the last ones later.
#[tokio::test(start_paused = true)]
async fn under_a_fair_order_no_request_waits_longer_than_twice_the_mean() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(10)).order(QueueOrder::Fair);
    let config = limited(limit.max_queue_time(3_600 * SECOND));
    let client = Client::new(config.max_total_time(3_600 * SECOND), [slow()]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..1_000 {
        let sent = client.spawn();
        tasks.spawn(async move {
            drop(sent.await.unwrap());
            // Its attempt takes a second.
            (number, start.elapsed() - SECOND)
        });
    }
    let waits = tasks.join_all().await;
    let (mean, longest) = (
        waits.iter().map(|it| it.1).sum::<Duration>() / 1_000,
        waits.iter().map(|it| it.1).max().unwrap(),
    );
    assert!(longest <= 2 * mean, "{longest:?}, on average {mean:?}");
    for (number, waited) in waits {
        assert_eq!(waited.as_secs(), number / 10, "in order of arrival");
    }
}
