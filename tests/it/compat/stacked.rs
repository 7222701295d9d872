//! Two `Resilient`s in one client that share what they know of hosts.

use std::time::Duration;

use http::Extensions;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, CircuitBreaker, ConcurrencyLimit, Hedge, HostStates,
    Limit, Rate, RateLimit, Resilient, ResilientConfig, RetryBudget,
};
use tokio::time::{Instant, sleep};

use crate::support::{URL, idle_client, steady};

fn twice(
    hosts: &HostStates,
    config: &ResilientConfig,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    let script = Script::new(replies);
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(config.clone()).with_hosts(hosts.clone()))
        .with(Resilient::new(config.clone()).with_hosts(hosts.clone()))
        .with(script.clone())
        .build();
    (client, script)
}

#[tokio::test(start_paused = true)]
async fn a_shared_budget_pays_for_each_retry_once() {
    let budget = RetryBudget::shared(BudgetConfig::default().size(10).deposit(0.5).trickle(0.0));
    let config = steady().max_retries(2).retry_budget(budget).build().unwrap();
    let hosts = HostStates::new();
    let (client, script) = twice(&hosts, &config, [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), hosts.budget_left("", Instant::now())), (3, Some(8.0)));
}

#[tokio::test(start_paused = true)]
async fn a_shared_breaker_recovers() {
    let rule = BreakerConfig::consecutive(3).open_for(Duration::from_secs(5)).without_open_jitter();
    let breaker = CircuitBreaker::new(rule).unwrap();
    let state = || breaker.state();
    let config = steady().max_retries(1).circuit_breaker(breaker.clone()).build().unwrap();
    let replies = [503, 503, 503, 503, 200].map(Reply::status);
    let (client, script) = twice(&HostStates::new(), &config, replies);
    // Both of its attempts failed, and so did the whole.
    client.get(URL).send().await.unwrap();
    assert_eq!((state(), script.sent().len()), (BreakerState::Open, 2));
    client.get(URL).send().await.unwrap_err();

    // The probe of one is the probe of both; it fails, and a later one does not.
    sleep(Duration::from_secs(5)).await;
    client.get(URL).send().await.unwrap();
    assert_eq!((state(), script.sent().len()), (BreakerState::Open, 4));
    sleep(Duration::from_secs(60)).await;
    client.get(URL).send().await.unwrap();
    assert_eq!((state(), script.sent().len()), (BreakerState::Closed, 5));
}

#[tokio::test(start_paused = true)]
async fn a_probe_s_extensions_serve_no_later_request() {
    let rule = BreakerConfig::consecutive(1).open_for(Duration::from_secs(5));
    let breaker = CircuitBreaker::new(rule).unwrap();
    let config = steady().max_retries(0).circuit_breaker(breaker.clone()).build().unwrap();
    let (client, script) = twice(&HostStates::new(), &config, [Reply::status(503)]);
    let extensions = &mut Extensions::new();
    let mut send = async || {
        let request = client.get(URL).build().unwrap();
        client.execute_with_extensions(request, extensions).await
    };
    send().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    send().await.unwrap();
    send().await.unwrap_err();
    assert_eq!((breaker.state(), script.sent().len()), (BreakerState::Open, 2));
}

/// Both share a limit, and the outer one holds what the inner one needs.
#[tokio::test(start_paused = true)]
async fn a_shared_limit_is_asked_once_for_each_attempt() {
    let wait = Duration::from_secs(60);
    let concurrency = || ConcurrencyLimit::per_host(Limit::fixed(1)).max_queue_time(wait);
    let rate = || RateLimit::per_host(Rate::per_minute(6)).max_wait(wait);
    let (limited, paced) = (steady().concurrency_limit(concurrency()), steady().rate_limit(rate()));
    let both = steady().concurrency_limit(concurrency()).rate_limit(rate());
    let learned = steady().rate_limit(RateLimit::learned());
    let hedged = limited.clone().hedge(Hedge::after(Duration::from_millis(100)));
    for (name, config, took) in [
        ("concurrency", limited, 1),
        ("rate", paced, 10),
        ("both", both, 10),
        ("learned", learned, 1),
        ("hedged", hedged, 1),
    ] {
        let (hosts, start) = (HostStates::new(), Instant::now());
        let reply = || Reply::status(200).body("page").after(Duration::from_millis(500));
        let (client, script) = twice(&hosts, &config.max_retries(0).build().unwrap(), [reply()]);
        for _ in 0..2 {
            let response = client.get(URL).send().await;
            let response = response.unwrap_or_else(|it| panic!("{name}: {it}"));
            assert_eq!(response.text().await.unwrap(), "page");
        }
        assert_eq!((start.elapsed().as_secs(), script.sent().len()), (took, 2), "{name}");
        let used = hosts.limit_use(URL).unwrap_or_default();
        assert_eq!((used.in_flight, used.queued), (0, 0), "{name}");
    }
}

/// Its retries are sends that the outer one does not see.
#[tokio::test(start_paused = true)]
async fn retries_of_the_inner_one_take_slots_of_their_own() {
    let rate = RateLimit::per_host(Rate::per_minute(6)).max_wait(Duration::from_secs(60));
    let config = steady().rate_limit(rate).max_retries(1).build().unwrap();
    let (hosts, start) = (HostStates::new(), Instant::now());
    let (client, script) = twice(&hosts, &config, [Reply::status(503), Reply::status(200)]);
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    assert_eq!((start.elapsed().as_secs(), script.sent().len()), (10, 2));
}

/// What an attempt held is no permit for a later request that reuses its extensions.
#[tokio::test(start_paused = true)]
async fn extensions_of_an_earlier_request_open_no_limit() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(1)).max_queue_time(Duration::ZERO);
    let config = steady().concurrency_limit(limit).build().unwrap();
    let hosts = HostStates::new();
    let (client, _) = twice(&hosts, &config, [Reply::status(200).body("page")]);
    let mut extensions = Extensions::new();
    let get = || client.get(URL).build().unwrap();
    let _kept = client.execute_with_extensions(get(), &mut extensions).await.unwrap();
    client.execute_with_extensions(get(), &mut extensions).await.unwrap_err();
}
