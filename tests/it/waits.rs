//! The waits between attempts, in virtual time: clients that failed together do not retry together,
//! and each waits as long as its settings say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BudgetConfig, CircuitBreaker, ConcurrencyLimit, Constant, Exponential, Jitter,
    Limit, RateLimit, RequestBuilderExt, ResilientConfig, ResilientConfigBuilder, RetryAfter,
    RetryOverride,
};
use tokio::time::Instant;

use crate::support::{URL, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

const LEFT: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const FIVE: HeaderValue = HeaderValue::from_static("5");

/// A response with this status and `Retry-After`.
fn come_back_in(status: u16, value: &'static str) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from_static(value))
}

/// Returns a rate limit as GitHub sends it.
fn limited_403() -> Reply {
    come_back_in(403, "0").header(LEFT, HeaderValue::from_static("0"))
}

/// The default settings without what is kept of hosts; jitter draws `unit`.
fn lone(unit: f64) -> ResilientConfigBuilder {
    let config = ResilientConfig::builder().without_circuit_breaker().without_retry_budget();
    config.without_gate().random(move || unit)
}

/// The waits of one request whose attempts end in `replies`; the last one repeats.
async fn waits(
    config: ResilientConfigBuilder,
    replies: impl IntoIterator<Item = Reply>,
) -> Vec<Duration> {
    let (client, script) = scripted(config.build().unwrap(), replies);
    client.get(URL).send().await.unwrap();
    between(&script)
}

fn between(script: &Script) -> Vec<Duration> {
    script.sent().windows(2).map(|it| it[1].at - it[0].at).collect()
}

fn millis(waits: &[Duration]) -> Vec<u128> {
    waits.iter().map(Duration::as_millis).collect()
}

#[tokio::test(start_paused = true)]
async fn clients_at_a_cap_do_not_come_back_in_step() {
    let capped = Exponential::new(SECOND).max_delay(4 * SECOND);
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Proportional(0.5)] {
        let mut last = vec![];
        for unit in [0.0, 0.5, 1.0] {
            let config = lone(unit).backoff(capped).jitter(jitter).max_retries(5);
            last.extend(waits(config, [Reply::status(503)]).await.pop());
        }
        let apart = last.windows(2).all(|it| it[1] - it[0] >= SECOND / 2);
        assert!(apart && last[2] <= 4 * SECOND, "{jitter:?}: {last:?}");
    }
    // `max_wait_time` is a cap as well.
    let wait = async |unit| {
        let config = lone(unit).backoff(Constant::new(90 * SECOND)).max_wait_time(3 * SECOND);
        waits(config.jitter(Jitter::Proportional(0.5)).max_retries(1), [Reply::status(503)]).await
    };
    assert_eq!(millis(&wait(0.0).await), [2_000]);
    assert_eq!(millis(&wait(1.0).await), [3_000]);
}

#[tokio::test(start_paused = true)]
async fn clients_that_heard_the_same_hint_do_not_come_back_in_step() {
    for (hint, least, most) in [
        ("1", 1_000, 1_250),
        ("10", 10_000, 12_500),
        ("40", 40_000, 45_000),
        // The spread comes on top of the longest hint, too.
        ("60", 60_000, 65_000),
    ] {
        for jitter in [Jitter::Full, Jitter::Equal] {
            for (unit, expected) in [(0.0, least), (1.0, most)] {
                let config = lone(unit).jitter(jitter).max_retries(1);
                let waits = waits(config, [come_back_in(503, hint)]).await;
                assert_eq!(millis(&waits), [expected], "{hint} {jitter:?}");
            }
        }
    }
    assert!(waits(lone(0.0), [come_back_in(503, "61")]).await.is_empty());
    let exact = waits(lone(1.0).jitter(Jitter::None).max_retries(1), [come_back_in(503, "7")]);
    assert_eq!(millis(&exact.await), [7_000]);
}

#[tokio::test(start_paused = true)]
async fn without_a_gate_a_rate_limit_is_backed_off_from_a_second() {
    let limits = || [Reply::status(429), limited_403()];
    for limit in limits() {
        assert_eq!(millis(&waits(lone(1.0), [limit]).await), [1_000, 2_000, 4_000]);
    }
    // Other failures keep their backoff, and so does a request whose backoff was set.
    assert_eq!(millis(&waits(lone(1.0), [Reply::status(503)]).await), [300, 600, 1_200]);
    let same = || Exponential::new(Duration::from_millis(300)).max_delay(20 * SECOND);
    for limit in limits() {
        let waits = waits(lone(1.0).backoff(same()), [limit.clone()]).await;
        assert_eq!(millis(&waits)[1..], [600, 1_200]);
        let (client, script) = scripted(lone(1.0).build().unwrap(), [limit]);
        let own = RetryOverride::new().backoff(same());
        client.get(URL).with_extension(own).send().await.unwrap();
        assert_eq!(millis(&between(&script))[1..], [600, 1_200]);
    }
    // A longer hint is waited for, a shorter one is a floor.
    let hinted = waits(lone(1.0), [come_back_in(429, "3")]).await;
    assert_eq!(millis(&hinted), [3_750, 3_750, 4_000]);
    let ported = ResilientConfig::aresilient().to_builder();
    assert_eq!(millis(&waits(ported, [Reply::status(429)]).await), [300, 600, 1_200]);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_closes_the_gate_of_its_own_tenant() {
    // No retry can follow, so that no copy of the request is kept.
    let config = || steady().gate().max_retries(0).random(|| 0.0).build().unwrap();
    let body = || reqwest::Body::wrap(String::from("once"));
    for streams in [false, true] {
        let (client, script) = scripted(config(), [come_back_in(429, "5"), Reply::status(200)]);
        let send = async |tenant: Option<&str>| {
            let request = client.get(URL);
            let request = if streams { request.body(body()) } else { request };
            let request = match tenant {
                Some(tenant) => request.bearer_auth(tenant),
                None => request,
            };
            request.send().await.unwrap();
        };
        send(Some("a")).await;
        send(None).await;
        send(Some("b")).await;
        send(Some("a")).await;
        let waited: Vec<_> = between(&script).iter().map(Duration::as_secs).collect();
        assert_eq!(waited, [0, 0, 5], "streams: {streams}");
    }
}

#[tokio::test(start_paused = true)]
async fn decorrelated_waits_grow_by_themselves_below_the_cap() {
    let config = |unit| {
        let backoff = Constant::new(SECOND);
        lone(unit).backoff(backoff).jitter(Jitter::Decorrelated).max_wait_time(20 * SECOND)
    };
    let failing = || [Reply::status(503)];
    let at = async |unit| millis(&waits(config(unit).max_retries(5), failing()).await);
    assert_eq!(at(0.0).await, [1_000; 5]);
    assert_eq!(at(1.0).await, [3_000, 9_000, 20_000, 20_000, 20_000]);
    // At the cap they are spread as well: 1 s to 20 s.
    assert_eq!(at(0.5).await, [2_000, 3_500, 5_750, 9_125, 10_500]);
    // Each request begins anew, and a hint between is no backoff.
    let (client, script) = scripted(config(1.0).max_retries(1).build().unwrap(), failing());
    for _ in 0..2 {
        client.get(URL).send().await.unwrap();
    }
    assert_eq!(millis(&between(&script)), [3_000, 0, 3_000]);
    let hinted = [Reply::status(503), come_back_in(503, "12"), Reply::status(503)];
    assert_eq!(millis(&waits(config(1.0), hinted).await), [3_000, 15_000, 20_000]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_clock_has_no_end() {
    let endless = Duration::MAX;
    let opened = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    let now = Instant::now().into_std();
    opened.try_enter(now).unwrap().failure(now);
    let slow_budget = BudgetConfig::default().size(1).trickle(0.01);
    let one_at_a_time = ConcurrencyLimit::per_host(Limit::fixed(1));
    let remaining = |it| Reply::status(200).header(LEFT, it).header(RESET, FIVE).after(SECOND);
    let spent = remaining(HeaderValue::from_static("0"));
    for (what, config, replies) in [
        ("breaker", steady().circuit_breaker(opened).max_open_wait(endless), vec![]),
        (
            "token",
            steady().retry_budget(slow_budget).max_open_wait(endless).max_retries(2),
            vec![Reply::status(503), Reply::status(503)],
        ),
        ("permit", steady().concurrency_limit(one_at_a_time.max_queue_time(endless)), vec![]),
        ("any", steady().concurrency_limit(Limit::fixed(1)).max_wait_time(endless), vec![]),
        (
            "quota",
            steady().rate_limit(RateLimit::learned().max_wait(endless)),
            vec![spent.clone(), spent],
        ),
    ] {
        let replies = replies.into_iter().chain([Reply::status(200).after(SECOND)]);
        let (client, _) = scripted(config.build().unwrap(), replies);
        let get = || client.get(URL).send_resilient();
        let start = Instant::now();
        let (one, other) = tokio::join!(get(), get());
        one.and(other).map_err(|it| it.to_string()).expect(what);
        get().await.map_err(|it| it.to_string()).expect(what);
        assert!(start.elapsed() > 2 * SECOND, "{what}: nothing waited");
    }
}

#[tokio::test(start_paused = true)]
async fn a_capped_hint_is_cut_instead_of_ending_the_request() {
    let capped = |cap| lone(0.0).jitter(Jitter::None).retry_after(RetryAfter::Capped(cap));
    for (cap, hint, expected) in [
        (10, "3600", 10_000),
        (10, "99999999999999999999", 10_000),
        (10, "11", 10_000),
        (10, "9", 9_000),
        (10, "0", 300),
        // No longer than `max_wait_time`, which is a minute.
        (3_600, "7200", 60_000),
    ] {
        for status in [429, 503] {
            let config = capped(SECOND * cap).backoff(Exponential::new(SECOND * 3 / 10));
            let waits = waits(config.max_retries(1), [come_back_in(status, hint)]).await;
            assert_eq!(millis(&waits), [expected], "{status} {cap} {hint}");
        }
    }
    // It is spread like any other hint, and its gate opens by it, too.
    let spread = lone(1.0).retry_after(RetryAfter::Capped(10 * SECOND)).max_retries(1);
    assert_eq!(millis(&waits(spread.clone(), [come_back_in(503, "3600")]).await), [12_500]);
    for status in [429, 503] {
        let gated = spread.clone().gate();
        let replies = [come_back_in(status, "3600"), Reply::status(200)];
        assert_eq!(millis(&waits(gated, replies).await), [12_500], "{status}");
    }
    let own = RetryOverride::new().retry_after(RetryAfter::Capped(2 * SECOND)).max_retries(1);
    let (client, script) = scripted(steady().build().unwrap(), [come_back_in(503, "3600")]);
    client.get(URL).with_extension(own).send().await.unwrap();
    assert_eq!(millis(&between(&script)), [2_000]);
}

#[test]
fn invalid_waits_are_refused() {
    let faults = |config: ResilientConfigBuilder| config.build().unwrap_err().to_string();
    let exponential = |factor| lone(0.0).backoff(Exponential::new(SECOND).factor(factor));
    for (config, expected) in [
        (exponential(f64::NAN), "backoff.factor must be finite, got NaN"),
        (exponential(f64::INFINITY), "backoff.factor must be finite, got inf"),
        (exponential(0.5), "backoff.factor must be >= 1, got 0.5"),
        (
            lone(0.0).retry_after(RetryAfter::Capped(Duration::ZERO)),
            "retry_after.capped must be > 0, got 0ns",
        ),
    ] {
        assert_eq!(faults(config), expected);
    }
    assert!(exponential(1.0).build().is_ok());
}

/// The seconds before each request after the first, which closes a gate for 5 s.
async fn held_back(config: ResilientConfigBuilder, requests: [(&str, &str); 4]) -> Vec<u64> {
    let replies = [come_back_in(429, "5"), Reply::status(200)];
    let (client, script) = scripted(config.random(|| 0.0).build().unwrap(), replies);
    for (path, tenant) in requests {
        client.get(format!("{URL}{path}")).bearer_auth(tenant).send().await.unwrap();
    }
    between(&script).iter().map(Duration::as_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn gates_are_kept_by_the_key_of_the_caller() {
    let by_route = |it: &reqwest::Request| it.url().path().to_owned();
    let once = || steady().max_retries(0);
    let requests = [("/search", "a"), ("/items", "a"), ("/items", "b"), ("/search", "b")];
    let per_key = held_back(once().gate_per_key(by_route), requests).await;
    assert_eq!(per_key, [0, 0, 5], "the key takes the place of the tenant");
    let default = held_back(once().gate_per_key(by_route).gate(), requests).await;
    assert_eq!(default, [5, 0, 0]);
    let off = held_back(once().gate_per_key(by_route).without_gate(), requests).await;
    assert_eq!(off, [0, 0, 0]);
    // A key may be made of headers, which a request that cannot be retried gives away.
    let by_tenant = |it: &reqwest::Request| format!("{:?}", it.headers().get("authorization"));
    assert_eq!(held_back(once().gate_per_key(by_tenant), requests).await, [5, 0, 0]);
    let retried = held_back(steady().gate_per_key(by_route), requests).await;
    assert_eq!(retried, [5, 0, 0, 0], "its own retry waits");

    // One host, or one request, may have a key of its own.
    let own = RetryOverride::new().gate_per_key(by_route);
    let of_host = once().gate().host("api.example.com", own.clone());
    assert_eq!(held_back(of_host, requests).await, [0, 0, 5]);
    let replies = [come_back_in(429, "5"), Reply::status(200)];
    let (client, script) = scripted(once().random(|| 0.0).build().unwrap(), replies);
    for path in ["/search", "/items", "/search"] {
        let request = client.get(format!("{URL}{path}")).with_extension(own.clone());
        request.send().await.unwrap();
    }
    assert_eq!(millis(&between(&script)), [0, 5_000]);
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_gate_is_asked_for_only_where_it_matters() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let key_of = move |_: &reqwest::Request| {
        counts.fetch_add(1, Ordering::Relaxed);
        String::new()
    };
    let config = steady().gate_per_key(key_of).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(500), Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    client.get(URL).send().await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
