//! The rate limit in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderName;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, Event, HostStates, HttpRequestError, Rate, RateLimit, Resilient,
    ResilientConfigBuilder, ResponseExt, RetryOverride,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{URL, idle_client, scripted, scripted_on, steady};

const SECOND: Duration = Duration::from_secs(1);

fn limited(limit: impl Into<RateLimit>) -> ResilientConfigBuilder {
    steady().rate_limit(limit)
}

/// The times of all sends, in milliseconds from `start` on.
fn times(script: &Script, start: Instant) -> Vec<u128> {
    script.sent().iter().map(|it| (it.at - start).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn slots_are_even_and_in_order_of_arrival() {
    let (client, script) =
        scripted(limited(Rate::per_second(10)).build().unwrap(), [Reply::status(200)]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let sent = client.get(format!("{URL}/{number}")).send();
        tasks.spawn(async move { drop(sent.await.unwrap()) });
        tokio::task::yield_now().await;
    }
    tasks.join_all().await;
    assert_eq!(start.elapsed(), Duration::from_millis(9_900));
    assert_eq!(times(&script, start), (0..100).map(|it| it * 100).collect::<Vec<_>>());
    let order: Vec<_> = script.sent().iter().map(|it| it.url.path().to_owned()).collect();
    assert_eq!(order, (0..100).map(|it| format!("/data/{it}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_at_once_and_never_more_however_long_the_pause() {
    let rate = Rate::per_second(10).burst(3);
    let (client, script) = scripted(limited(rate).build().unwrap(), [Reply::status(200)]);
    for pause in [0, 3_600] {
        sleep(pause * SECOND).await;
        let (start, before) = (Instant::now(), script.sent().len());
        let mut tasks = JoinSet::new();
        for _ in 0..5 {
            let sent = client.get(URL).send();
            tasks.spawn(async move { drop(sent.await.unwrap()) });
        }
        tasks.join_all().await;
        assert_eq!(times(&script, start - pause * SECOND).len(), before + 5);
        let sent: Vec<_> =
            script.sent()[before..].iter().map(|it| (it.at - start).as_millis()).collect();
        assert_eq!(sent, [0, 0, 0, 100, 200]);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_take_slots_as_well() {
    let config = limited(Rate::per_minute(6)).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503), Reply::status(200)]);
    let start = Instant::now();
    assert_eq!(client.get(URL).send().await.unwrap().attempts(), 2);
    assert_eq!(times(&script, start), [0, 10_000]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_rejected_at_once_and_reserves_nothing() {
    let limit = RateLimit::per_host(Rate::per_minute(60)).max_wait(2 * SECOND);
    let (client, script) = scripted(limited(limit).build().unwrap(), [Reply::status(200)]);
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let sent = client.get(URL).send();
        tasks.spawn(async move { sent.await.map(drop) });
    }
    let start = Instant::now();
    let results = tasks.join_all().await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!((failed.len(), start.elapsed(), script.sent().len()), (7, 2 * SECOND, 3));
    for error in &failed {
        let error = HttpRequestError::find(error).unwrap();
        assert!(error.is_limited() && error.limited().unwrap().is_rate());
        assert_eq!((error.attempts(), error.retry_in()), (0, Some(3 * SECOND)));
        assert_eq!(
            error.to_string(),
            "GET request to https://api.example.com/data was rejected after 0 attempts: rate \
             limit of the client: next slot in 3.0 s"
        );
    }
    sleep(SECOND).await;
    let start = Instant::now();
    client.get(URL).send().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "those seven took no slots");
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_a_slot_past_its_deadline() {
    let config = limited(Rate::per_minute(6)).max_total_time(10 * SECOND).build().unwrap();
    let (client, _) = scripted(config, [Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    let start = Instant::now();
    let error = client.get(URL).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).unwrap().is_limited());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_limit_may_reject_instead_of_waiting() {
    let config =
        limited(RateLimit::per_host(Rate::per_second(1)).max_wait(Duration::ZERO)).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200)]);
    let sent = async || client.get(URL).send().await.is_ok();
    assert_eq!((sent().await, sent().await), (true, false));
    sleep(SECOND).await;
    assert_eq!((sent().await, script.sent().len()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_gives_back_the_last_slot_and_loses_one_at_most() {
    let config = limited(Rate::per_second(1)).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200)]);
    let start = Instant::now();
    client.get(URL).send().await.unwrap();
    let spawn = || {
        let sent = client.get(URL).send();
        tokio::spawn(async move { drop(sent.await.unwrap()) })
    };
    // The slots of 1, 2, 3 and 4 s.
    let mut tasks = vec![];
    for _ in 0..4 {
        tasks.push(spawn());
        sleep(Duration::from_millis(1)).await;
    }
    tasks[3].abort();
    tasks[1].abort();
    tasks[2].abort();
    sleep(Duration::from_millis(1)).await;
    // The last two went back, the one before them as well: nothing is left after the first.
    let next = spawn();
    tasks.swap_remove(0).await.unwrap();
    next.await.unwrap();
    assert_eq!(times(&script, start), [0, 1_000, 3_000]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_gives_its_slot_back() {
    let breaker = BreakerConfig::consecutive(1).open_for(60 * SECOND);
    let config = limited(Rate::per_minute(1)).circuit_breaker(breaker).max_retries(0);
    let refused = Reply::io_error(std::io::ErrorKind::ConnectionRefused);
    let (client, script) = scripted(config.build().unwrap(), [refused, Reply::status(200)]);
    assert!(client.get(URL).send().await.is_err());
    let off = RetryOverride::new().without_circuit_breaker();
    let start = Instant::now();
    client.get(URL).with_extension(off).send().await.unwrap();
    assert_eq!((start.elapsed(), script.sent().len()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn several_rates_have_to_be_kept_at_once() {
    let limit = RateLimit::per_host(Rate::per_second(2)).and(Rate::per_minute(4).burst(3));
    let (client, script) = scripted(limited(limit).build().unwrap(), [Reply::status(200)]);
    let start = Instant::now();
    for _ in 0..5 {
        client.get(URL).send().await.unwrap();
    }
    assert_eq!(times(&script, start), [0, 500, 1_000, 15_000, 30_000]);
}

#[tokio::test(start_paused = true)]
async fn costs_count_and_are_settled_by_the_response() {
    let used = HeaderName::from_static("x-used");
    let name = used.clone();
    let rate = Rate::per_second(10)
        .burst(10)
        .cost(|request| request.url().query().and_then(|it| it.parse().ok()).unwrap_or(1))
        .settle(move |outcome| outcome.headers()?.get(&name)?.to_str().ok()?.parse().ok());
    let replies = [
        Reply::status(200),
        Reply::status(200).header(used.clone(), 1.into()),
        Reply::status(200).header(used, 15.into()),
        Reply::status(200),
    ];
    let (client, script) = scripted(limited(rate).build().unwrap(), replies);
    let start = Instant::now();
    // 10 of 10; one second later 10 of which 9 come back; then 5 that become 15.
    for cost in [10, 10, 5, 1] {
        client.get(format!("{URL}?{cost}")).send().await.unwrap();
    }
    assert_eq!(times(&script, start), [0, 1_000, 1_000, 1_700]);
}

#[tokio::test(start_paused = true)]
async fn waits_are_told_and_spans_start_after_them() {
    let events = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&events);
    let config = limited(Rate::per_second(1)).on_event(move |event| match event {
        Event::Queued(_) | Event::AttemptStarted(_) => {
            seen.lock().unwrap().push(event.to_string());
        }
        _ => {}
    });
    let (client, _) = scripted(config.build().unwrap(), [Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    client.get(URL).send().await.unwrap();
    let event = |it| format!("GET {URL}: {it}");
    let attempt = event("attempt 1 of 4 at most");
    let expected = [attempt.clone(), event("waited 1.000s for the rate limit"), attempt];
    assert_eq!(*events.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_override_switches_the_limit_off() {
    let (client, script) =
        scripted(limited(Rate::per_hour(1)).build().unwrap(), [Reply::status(200)]);
    let off = || RetryOverride::new().without_rate_limit();
    for _ in 0..3 {
        client.get(URL).with_extension(off()).send().await.unwrap();
    }
    assert_eq!(script.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_hourly_count_outlives_requests_and_settings_without_it() {
    let second = || RateLimit::per_host(Rate::per_second(1_000)).max_wait(Duration::ZERO);
    let hour = || Rate::per_hour(2).burst(2);
    let script = Script::new([Reply::status(200)]);
    let resilient = Resilient::new(limited(second().and(hour())).build().unwrap());
    let handle = resilient.reload_handle();
    let client = ClientBuilder::new(idle_client()).with(resilient).with(script.clone()).build();
    let get = async |over: RetryOverride| {
        sleep(SECOND).await;
        client.get(URL).with_extension(over).send().await.is_ok()
    };
    let none = RetryOverride::new;
    let alone = || none().rate_limit(Rate::per_second(1));
    assert!(get(none()).await && get(none()).await && !get(none()).await, "two an hour");
    for over in [
        none().rate_limit(Rate::per_second(1)),
        none().rate_limit(RateLimit::per_host(Rate::per_minute(60)).and(Rate::per_second(9))),
        none().without_rate_limit(),
    ] {
        assert!(get(over).await, "it does not count by the hour");
        assert!(!get(none()).await, "and the two are not forgotten");
    }
    handle.reload(limited(second()).build().unwrap());
    assert!(get(none()).await && get(alone()).await);
    for limit in [second().and(hour()), RateLimit::per_host(hour()).max_wait(Duration::ZERO)] {
        handle.reload(limited(limit).build().unwrap());
        assert!(!get(none()).await, "whatever its place is");
    }
    sleep(1_800 * SECOND).await;
    assert!(get(none()).await && !get(none()).await);
}

/// A response that says what remains of 60 a minute.
fn of_sixty(remaining: u16, reset: u16) -> Reply {
    let header = |name| HeaderName::from_static(name);
    Reply::status(200)
        .header(header("ratelimit-limit"), 60.into())
        .header(header("ratelimit-remaining"), remaining.into())
        .header(header("ratelimit-reset"), reset.into())
}

#[tokio::test(start_paused = true)]
async fn a_learned_quota_is_spread_if_it_would_run_out() {
    let sent = async |remaining: u16| {
        let limit = RateLimit::learned().max_wait(600 * SECOND);
        let replies = [(0, 60), (1, 40), (2, 20)];
        let replies = replies
            .map(|(less, reset)| of_sixty(remaining.saturating_sub(less), reset).after(SECOND / 2));
        let (client, script) = scripted(limited(limit).build().unwrap(), replies);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let sent = client.get(URL).send();
            tasks.spawn(async move { drop(sent.await.unwrap()) });
        }
        tasks.join_all().await;
        times(&script, start)
    };
    // Three that remain suffice for three.
    assert_eq!(sent(3).await, [0, 500, 500, 500]);
    // Two do not: half a minute for the first of them.
    // A tenth more at most, so that clients that share the quota part.
    let paced = sent(2).await;
    assert!(paced[0] == 0 && (30_000..=33_000).contains(&paced[1]), "{paced:?}");
}

#[tokio::test(start_paused = true)]
async fn what_remains_of_a_learned_quota_can_be_seen() {
    let hosts = HostStates::new();
    let config = limited(RateLimit::learned()).build().unwrap();
    let (client, _) = scripted_on(&hosts, config, [of_sixty(40, 30)]);
    let quotas = || hosts.quotas(URL, Instant::now());
    assert!(quotas().is_empty());
    client.get(URL).send().await.unwrap();
    sleep(10 * SECOND).await;
    let quota = quotas().pop().unwrap();
    assert_eq!((quota.limit, quota.remaining, quota.resets_in), (Some(60), 40, 20 * SECOND));
    assert_eq!(quota.name, "ratelimit-remaining");
}

#[tokio::test(start_paused = true)]
async fn the_first_request_goes_alone_and_an_empty_quota_is_waited_for() {
    let limit = RateLimit::learned().max_wait(600 * SECOND);
    let slow = of_sixty(0, 30).after(SECOND / 2);
    let (client, script) = scripted(limited(limit).build().unwrap(), [slow, of_sixty(59, 60)]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        let sent = client.get(URL).send();
        tasks.spawn(async move { drop(sent.await.unwrap()) });
    }
    tasks.join_all().await;
    // Up to a slot later, which is a second.
    let times = times(&script, start);
    assert!((30_500..=31_500).contains(&times[1]), "{times:?}");
    assert_eq!(times, [0, times[1], times[1], times[1], times[1]]);
}

#[tokio::test(start_paused = true)]
async fn a_host_without_quotas_is_not_slowed() {
    let config = limited(RateLimit::learned()).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(200)]);
    let start = Instant::now();
    for _ in 0..50 {
        client.get(URL).send().await.unwrap();
    }
    assert_eq!(script.sent().len(), 50);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_learned_wait_that_is_too_long_is_rejected_at_once() {
    let config = limited(RateLimit::learned().max_wait(10 * SECOND)).build().unwrap();
    let (client, script) = scripted(config, [of_sixty(0, 30)]);
    client.get(URL).send().await.unwrap();
    let start = Instant::now();
    let error = client.get(URL).send().await.unwrap_err();
    let error = HttpRequestError::find(&error).unwrap();
    assert!(error.is_limited() && error.retry_in() >= Some(30 * SECOND), "{error}");
    assert_eq!((start.elapsed(), script.sent().len()), (Duration::ZERO, 1));
}

/// Whatever the requests' patience: 10,000 wait.
#[tokio::test(start_paused = true)]
async fn a_learned_line_is_bounded() {
    let config = limited(RateLimit::learned().max_wait(Duration::MAX)).build().unwrap();
    let (client, script) = scripted(config, [of_sixty(0, 3_600)]);
    client.get(URL).send().await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..10_001 {
        let request = client.get(URL);
        tasks.spawn(async move {
            let error = request.send().await.unwrap_err();
            HttpRequestError::find(&error).unwrap().is_limited()
        });
    }
    let first = tokio::time::timeout(SECOND, tasks.join_next()).await;
    assert!(first.expect("the last one is rejected").unwrap().unwrap());
    assert!(tokio::time::timeout(SECOND, tasks.join_next()).await.is_err(), "all others wait");
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_learned_line_loses_no_request_to_drops() {
    let limit = RateLimit::learned().max_wait(3_600 * SECOND);
    let replies = (0..60).rev().map(|it| of_sixty(it, 60));
    let (client, script) = scripted(limited(limit).build().unwrap(), replies);
    let mut tasks = JoinSet::new();
    for number in 0..300_u64 {
        let sent = client.get(URL).send();
        let patience = Duration::from_millis(number * 7_919 % 90_000);
        tasks.spawn(async move { drop(tokio::time::timeout(patience, sent).await) });
    }
    tasks.join_all().await;
    let before = script.sent().len();
    sleep(120 * SECOND).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), before + 1, "the line still moves");
}

/// The hosts and times of all sends, in seconds from `start` on.
fn by_host(script: &Script, start: Instant) -> Vec<(String, u64)> {
    let host = |it: &reqwest_resilient::testing::SentRequest| it.url.host_str().unwrap().to_owned();
    script.sent().iter().map(|it| (host(it), (it.at - start).as_secs())).collect()
}

#[tokio::test(start_paused = true)]
async fn limits_of_several_scopes_are_all_kept() {
    // One a second for each host, five at once and then one each ten seconds for all.
    let limit = RateLimit::per_host(Rate::per_second(1))
        .also(RateLimit::shared(Rate::per_minute(6).burst(5)))
        .max_wait(600 * SECOND);
    let (client, script) = scripted(limited(limit).build().unwrap(), [Reply::status(200)]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..9 {
        let host = if number % 2 == 0 { "a" } else { "b" };
        let sent = client.get(format!("https://{host}.example/")).send();
        tasks.spawn(async move { drop(sent.await.unwrap()) });
        tokio::task::yield_now().await;
    }
    tasks.join_all().await;
    let sent = by_host(&script, start);
    let of = |name: &str| {
        let of_host = sent.iter().filter(|it| it.0.starts_with(name));
        of_host.map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!((of("a"), of("b")), (vec![0, 1, 2, 20, 40], vec![0, 1, 10, 30]), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn slots_of_all_scopes_are_reserved_or_none() {
    let limit = RateLimit::per_host(Rate::per_second(1))
        .also(RateLimit::shared(Rate::per_minute(1)).max_wait(Duration::ZERO));
    let (client, script) = scripted(limited(limit).build().unwrap(), [Reply::status(200)]);
    let get = async |host: &str| client.get(format!("https://{host}.example/")).send().await;
    get("a").await.unwrap();
    for _ in 0..5 {
        let error = get("b").await.unwrap_err();
        let error = HttpRequestError::find(&error).unwrap();
        assert!(error.limited().unwrap().is_rate(), "{error}");
    }
    // Those that were rejected took no slots of their host either.
    sleep(60 * SECOND).await;
    let start = Instant::now();
    get("b").await.unwrap();
    assert_eq!((start.elapsed(), script.sent().len()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn slots_are_settled_by_the_rules_of_their_own_scope() {
    let dear = || RateLimit::per_host(Rate::per_second(1).settle(|_| Some(10)));
    let all = || RateLimit::shared(Rate::per_second(1));
    for limit in [dear().also(all()), all().also(dear())] {
        let config = limited(limit).max_wait_time(600 * SECOND).build().unwrap();
        let (client, script) = scripted(config, [Reply::status(200)]);
        let start = Instant::now();
        // An attempt costs ten slots of its host, and one of those that all share.
        for host in ["a", "b", "c", "d", "b"] {
            client.get(format!("https://{host}.example/")).send().await.unwrap();
        }
        assert_eq!(times(&script, start), [0, 1_000, 2_000, 3_000, 11_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_gives_the_slots_of_all_scopes_back() {
    let limit = RateLimit::per_host(Rate::per_second(1))
        .also(RateLimit::shared(Rate::per_minute(6)))
        .also(RateLimit::per_key(Rate::per_second(2), |it| it.url().path().to_owned()))
        .max_wait(600 * SECOND);
    let (client, script) = scripted(limited(limit).build().unwrap(), [Reply::status(200)]);
    let start = Instant::now();
    client.get(URL).send().await.unwrap();
    for _ in 0..20 {
        assert!(tokio::time::timeout(SECOND / 10, client.get(URL).send()).await.is_err());
    }
    client.get(URL).send().await.unwrap();
    assert_eq!((times(&script, start), script.sent().len()), (vec![0, 10_000], 2));
}

#[test]
fn limits_of_one_scope_become_one_and_keys_have_one() {
    let build = |limit: RateLimit| limited(limit).build().map(drop).map_err(|it| it.to_string());
    let (host, shared) =
        (RateLimit::per_host(Rate::per_second(1)), RateLimit::shared(Rate::per_hour(9)));
    assert_eq!(build(host.clone().also(shared.clone()).also(host.clone())), Ok(()));
    let many = (0..4).fold(host, |limit, _| limit.and(Rate::per_second(2)));
    assert!(build(many).unwrap_err().contains("4 rates of a scope at most"));
    let key = || RateLimit::per_key(Rate::per_second(1), |it| it.method().to_string());
    assert!(build(key().also(shared).also(key())).unwrap_err().contains("one limit per key"));
}

#[test]
fn a_host_has_a_rate_of_the_fleet_or_of_the_client() {
    let faults = |limit: RateLimit| {
        let error = limited(limit).build().map(drop).err();
        error.map_or(vec![], |it| it.faults().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let fleet = || RateLimit::fleet(Rate::per_second(1));
    let own = || RateLimit::per_host(Rate::per_second(2));
    let shared = || RateLimit::shared(Rate::per_second(3));
    let mixed = ["rate_limit must be per host, or of a fleet and not learned, got 2"];
    for limit in [
        fleet().also(own()),
        own().also(fleet()),
        fleet().also(RateLimit::learned()),
        RateLimit::learned().also(fleet()),
        shared().also(own()).also(fleet()),
    ] {
        assert_eq!(faults(limit.clone()), mixed, "{limit:?}");
    }
    for limit in [fleet().also(fleet()), fleet().and(Rate::per_hour(9)).also(shared())] {
        assert_eq!(faults(limit.clone()), [""; 0], "{limit:?}");
    }
}

#[test]
fn buckets_need_a_learned_limit_and_routes_need_buckets() {
    let faults = |limit: RateLimit| {
        let error = limited(limit).build().map(drop).err();
        error.map_or(vec![], |it| it.faults().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let buckets = || HeaderName::from_static("x-bucket");
    let own = || RateLimit::per_host(Rate::per_second(1));
    assert_eq!(
        faults(own().bucket_header(buckets())),
        [r#"rate_limit.bucket_header needs a learned limit, got "x-bucket""#]
    );
    let routed = faults(RateLimit::learned().route(|it| it.url().path().to_owned()));
    assert_eq!(routed.len(), 1, "{routed:?}");
    assert!(routed[0].starts_with("rate_limit.route needs a bucket_header, got "), "{routed:?}");
    assert_eq!(faults(own().bucket_header(buckets()).also(RateLimit::learned())), [""; 0]);
    assert_eq!(faults(bucketed()), [""; 0]);
}

/// A response that names its bucket, and what remains of it.
fn of_bucket(name: &'static str, remaining: u16, reset: u16) -> Reply {
    let bucket = HeaderName::from_static("x-ratelimit-bucket");
    of_sixty(remaining, reset).header(bucket, http::HeaderValue::from_static(name))
}

fn bucketed() -> RateLimit {
    RateLimit::learned()
        .bucket_header(HeaderName::from_static("x-ratelimit-bucket"))
        .route(|it| it.url().path().split('/').take(2).collect())
        .max_wait(600 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn quotas_are_those_of_buckets_which_routes_may_share() {
    let script = Script::new([])
        .for_path("/a/1", [of_bucket("x", 0, 30), of_bucket("x", 59, 60)])
        .for_path("/a/2", [of_bucket("x", 50, 60)])
        .for_path("/b", [of_bucket("y", 59, 60)])
        .for_path("/c", [of_bucket("x", 0, 20), of_bucket("x", 58, 60)]);
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(limited(bucketed()).build().unwrap()))
        .with(script.clone())
        .build();
    let start = Instant::now();
    let get = async |path: &str| {
        client.get(format!("https://api.example.com{path}")).send().await.unwrap();
        start.elapsed().as_secs()
    };
    assert_eq!(get("/a/1").await, 0);
    // Another bucket is not empty, of a third route it is not known.
    assert_eq!((get("/b").await, get("/b").await, get("/c").await), (0, 0, 0));
    // Now it is: that of /a, and its reset is 20 seconds away. The other item is of the same route.
    assert!((20..=21).contains(&get("/c").await));
    assert!((20..=21).contains(&get("/a/2").await));
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_follow_their_route_to_its_bucket() {
    // Nothing is known of a route that is slow, so that others wait behind its first request.
    let script = Script::new([])
        .for_path("/a", [of_bucket("x", 0, 30)])
        .for_path("/b", [of_bucket("x", 0, 30).after(SECOND / 2), of_bucket("x", 50, 60)]);
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(limited(bucketed()).build().unwrap()))
        .with(script.clone())
        .build();
    let start = Instant::now();
    client.get("https://api.example.com/a").send().await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let sent = client.get("https://api.example.com/b").send();
        tasks.spawn(async move { drop(sent.await.unwrap()) });
        tokio::task::yield_now().await;
    }
    tasks.join_all().await;
    let times = times(&script, start);
    assert_eq!((times[..2].to_vec(), times.len()), (vec![0, 0], 5), "{times:?}");
    assert!(times[2..].iter().all(|it| (30_000..=32_000).contains(it)), "{times:?}");
}
