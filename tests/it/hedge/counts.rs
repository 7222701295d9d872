//! Futures that are dropped at any moment leave all counts exact.

use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Response;
use reqwest_middleware::{ClientBuilder, RequestBuilder};
use reqwest_resilient::bench::Permits;
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BudgetConfig, ConcurrencyLimit, Hedge, HostStates, Limit, Mirrors,
    Rate, Resilient, ResilientConfigBuilder, RetryOverride,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Lines, after, client, hedge, hedged, ms, status};
use crate::support::inside::does;
use crate::support::{URL, idle_client, scripted_on, steady};

/// Unoptimized a request takes ten times as long; the counts behind it are tested a million times
/// beside them.
const DROPPED: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

#[tokio::test(start_paused = true)]
async fn dropped_futures_leave_tokens_permits_and_samples_exact() {
    let hosts = HostStates::new();
    let config = || {
        hedged(Hedge::learned(0.95))
            .circuit_breaker(BreakerConfig::default())
            .retry_budget(BudgetConfig::default())
    };
    let resilient = || Resilient::new(config().build().unwrap()).with_hosts(hosts.clone());
    let silent = does(|_, _, _| Box::pin(std::future::pending()));
    let client = ClientBuilder::new(idle_client()).with(resilient()).with(silent).build();
    let request = client.get(URL).build().unwrap();
    for _ in 0..DROPPED {
        // Sent, and dropped while it is under way.
        let sending = client.execute(request.try_clone().unwrap());
        assert!(sending.now_or_never().is_none());
    }
    let now = Instant::now().into_std();
    let snapshot = hosts.breaker(URL).snapshot(now);
    assert_eq!((snapshot.permits_out, snapshot.window.total), (0, 0));
    assert_eq!(hosts.budget_left(URL, now), Some(10.0));
    // No sample: a hundred requests are needed before one is hedged.
    let (client, _) = scripted_on(&hosts, config().build().unwrap(), [after(100, 200)]);
    for _ in 0..100 {
        assert_eq!(status(&client).await, 200);
    }
    // None is in flight, so that the host is not crowded, and the bucket has its tokens.
    let (lines, config) = Lines::of(config());
    let (slow, script) = scripted_on(&hosts, config.build().unwrap(), [after(3_000, 200)]);
    assert_eq!((status(&slow).await, script.sent().len()), (200, 2));
    assert_eq!((lines.count("hedged by"), lines.count("no hedge")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn requests_dropped_during_the_race_leave_no_one_in_flight() {
    let hosts = HostStates::new();
    let breaker = BreakerConfig::default();
    let (lines, config) =
        Lines::of(hedged(Hedge::after(ms(10)).share(1.0)).circuit_breaker(breaker));
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [after(1_000, 200)]);
    for it in 0..2_000_u64 {
        let limit = ms(it % 20);
        assert!(timeout(limit, status(&client)).await.is_err());
    }
    let now = Instant::now().into_std();
    assert_eq!(hosts.breaker(URL).snapshot(now).permits_out, 0);
    let hedges = lines.count("hedged by");
    // Those whose delay was over: none was crowded, as each was alone in flight.
    assert_eq!(
        (lines.count("crowded"), script.sent().len().min(4_096)),
        (0, (2_000 + hedges).min(4_096))
    );
    assert!(hedges >= 900, "{hedges}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&client).await, 200);
}

/// A million requests that are dropped before, in and after the race, over three endpoints.
#[tokio::test(start_paused = true)]
#[ignore = "takes minutes: .ci/long soak"]
async fn soak_a_million_dropped_races_leave_all_counts_exact() {
    let hosts = HostStates::new();
    let mirrors = Mirrors::new(URL).also("https://b.example/").also("https://c.example/");
    let config = hedged(Hedge::after(ms(10)).share(1.0).max_hedges(2))
        .circuit_breaker(BreakerConfig::default())
        .retry_budget(BudgetConfig::default())
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(2)))
        .mirrors(mirrors);
    let (client, _) = scripted_on(&hosts, config.build().unwrap(), [after(35, 200)]);
    let mut succeeded = 0_u32;
    for it in 0..1_000_000_u64 {
        let limit = ms(it * 7_919 % 40);
        succeeded += u32::from(timeout(limit, status(&client)).await.is_ok());
    }
    assert!(succeeded > 10_000, "{succeeded}");
    let now = Instant::now().into_std();
    for host in [URL, "https://b.example", "https://c.example"] {
        let snapshot = hosts.breaker(host).snapshot(now);
        assert_eq!((snapshot.permits_out, snapshot.consecutive_failures), (0, 0), "{host}");
        let used = hosts.limit_use(host).unwrap();
        assert_eq!((used.in_flight, used.queued), (0, 0), "{host}");
        assert_eq!(hosts.budget_left(host, now), Some(10.0), "{host}");
    }
}

/// Allocations of one request that succeeds at once.
fn allocations(config: ResilientConfigBuilder) -> u64 {
    allocations_of(config, |it| it)
}

/// Allocations of one such request, completed by `with`.
fn allocations_of(
    config: ResilientConfigBuilder,
    with: fn(RequestBuilder) -> RequestBuilder,
) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let (client, _) = client(config, (0..100).map(|_| Reply::status(200)));
    let send = || runtime.block_on(with(client.get(URL)).send()).unwrap();
    // Warms up lazily created state.
    (0..10).for_each(|_| drop(send()));
    allocation_counter::measure(|| drop(send())).count_total
}

#[test]
fn settings_that_do_not_concern_a_request_allocate_nothing() {
    // Without the fast path, which has fewer.
    let alone = || steady().max_total_time(Duration::from_secs(3_600));
    let without = allocations(alone());
    // Of another host, and switched off.
    let elsewhere = Mirrors::new("https://elsewhere.example/").also("https://mirror.example/");
    assert_eq!(allocations(alone().mirrors(elsewhere)), without, "mirrors");
    let of_others = RetryOverride::new()
        .hedge(Hedge::after(ms(10)))
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(1)))
        .rate_limit(Rate::per_second(1));
    assert_eq!(allocations(alone().host("other.example", of_others)), without, "of others");
    let off = alone().hedge(hedge()).without_hedge();
    assert_eq!(allocations(off), without, "no hedge");
    let limited = alone().concurrency_limit(Limit::fixed(1)).rate_limit(Rate::per_second(1));
    let off = limited.without_concurrency_limit().without_rate_limit();
    assert_eq!(allocations(off), without, "no limits");
}

#[test]
fn a_permit_allocates_nothing_until_a_body_holds_it() {
    let (permits, body) = (Permits::new(1), "body");
    // With an extension, as hyper gives each response.
    let response = |body| {
        let response = http::Response::builder().extension("of the connection").body(body);
        Response::from(response.unwrap())
    };
    let allocations = |work: &mut dyn FnMut()| allocation_counter::measure(work).count_total;
    permits.take();
    assert_eq!(allocations(&mut || permits.take()), 0, "taken and returned");
    let (mut plain, mut held) = (Some(response(body)), Some(response(body)));
    let read = |response: Option<Response>| {
        let read = response.unwrap().bytes().now_or_never().unwrap().unwrap();
        assert_eq!(read, body);
    };
    let without = allocations(&mut || read(plain.take()));
    let with = allocations(&mut || read(held.take().map(|it| permits.hold(it))));
    let more = with - without;
    // The body that holds the permit, and the response built anew with it, URL and extensions included.
    assert!((1..=6).contains(&more), "{more} more");
}

#[test]
fn a_hedge_that_is_not_due_allocates_little() {
    let alone = || steady().max_total_time(Duration::from_secs(3_600));
    let more = allocations(alone().hedge(hedge())) - allocations(alone());
    // The map of extensions that marks the attempt for a `Resilient` further in.
    assert!(more <= 2, "{more} more");
    // The map is there already, as in each request of `send_resilient`.
    let logged = |it: RequestBuilder| it.with_extension(AttemptLog::new());
    let more = allocations_of(alone().hedge(hedge()), logged) - allocations_of(alone(), logged);
    assert_eq!(more, 0, "with a log");
}
