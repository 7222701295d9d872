//! The host states of a client: bounded, its own unless shared, set by hand for all at once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Extensions;
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, CircuitBreakers, HostStates, Resilient,
    ResilientConfigBuilder, RetryBudget, RetryOverride,
};

use crate::support::{URL, idle_client, scripted, scripted_on, steady};

const HOST: &str = "https://api.example.com";

/// One attempt a request, and a breaker that opens after so many failures in a row.
fn once(failures: u32) -> ResilientConfigBuilder {
    let rule = BreakerConfig::consecutive(failures).open_for(Duration::from_secs(5));
    steady().circuit_breaker(rule).max_retries(0)
}

#[tokio::test(start_paused = true)]
async fn hosts_that_died_long_ago_leave_room_for_others() {
    let (client, _) = scripted(once(5).build().unwrap(), [Reply::status(503)]);
    for dead in 0..1_100 {
        for _ in 0..5 {
            client.get(format!("http://{dead}.dead.example/")).send().await.unwrap();
        }
    }
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let mut sent = 0;
    for _ in 0..50 {
        sent += u32::from(client.get(URL).send().await.is_ok());
    }
    assert_eq!(sent, 5);
}

#[tokio::test(start_paused = true)]
async fn a_host_may_have_a_rule_of_its_own_beside_breakers_and_budgets_per_key() {
    let failures = |it| BreakerConfig::consecutive(it);
    let per_path = |it| CircuitBreakers::per_key(failures(it), |it| it.url().path().to_owned());
    let budget = |size| {
        RetryBudget::per_key(BudgetConfig::default().size(size).trickle(0.0), |it| {
            it.url().path().to_owned()
        })
    };
    let config = steady()
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .circuit_breaker(per_path(5))
        .host("one.example", RetryOverride::new().circuit_breaker(per_path(2)))
        .host(
            "two.example",
            RetryOverride::new().max_retries(9).without_circuit_breaker().retry_budget(budget(3)),
        )
        .build()
        .unwrap();
    let (client, script) = scripted(config, [Reply::status(503)]);
    let sent = async |url: &str, times| {
        let before = script.sent().len();
        for _ in 0..times {
            let _ = client.get(url).send().await;
        }
        script.sent().len() - before
    };
    assert_eq!(sent("http://one.example/a", 7).await, 2);
    assert_eq!(sent("http://one.example/b", 7).await, 2);
    assert_eq!(sent("http://api.example/c", 7).await, 5);
    assert_eq!(sent("http://two.example/d", 1).await, 4);
}

#[test]
fn a_host_is_named_by_any_of_its_urls() {
    let hosts = HostStates::new();
    hosts.breaker(HOST).force_open();
    for name in [
        "https://API.example.com:443",
        "https://api.example.com/data?x",
        "https://u:p@api.example.com",
    ] {
        assert_eq!(hosts.breaker(name).state(), BreakerState::ForcedOpen, "{name}");
    }
    assert_eq!(hosts.breaker("http://api.example.com").state(), BreakerState::Closed);
}

/// Responds as if each request with a query had been redirected to a host of its own.
struct EverNewHosts;

#[async_trait::async_trait]
impl Middleware for EverNewHosts {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let (status, url) = match request.url().query() {
            Some(number) => (200, Url::parse(&format!("https://{number}.cdn.example/")).unwrap()),
            None => (503, request.url().clone()),
        };
        let response = http::Response::builder().status(status).url(url);
        Ok(response.body("").unwrap().into())
    }
}

#[tokio::test(start_paused = true)]
async fn redirects_to_ever_new_hosts_fill_nothing() {
    let hosts = HostStates::new();
    let resilient = Resilient::new(once(5).build().unwrap()).with_hosts(hosts.clone());
    let client = ClientBuilder::new(idle_client()).with(resilient).with(EverNewHosts).build();
    for number in 0..1_100 {
        client.get(format!("{URL}?{number}")).send().await.unwrap();
    }
    assert_eq!(hosts.snapshot(tokio::time::Instant::now()).len(), 1);
    let mut sent = 0;
    for _ in 0..50 {
        sent += u32::from(client.get("http://down.example/").send().await.is_ok());
    }
    assert_eq!(sent, 5);
}

#[tokio::test(start_paused = true)]
async fn a_mode_set_for_all_reaches_hosts_that_come_later() {
    let hosts = HostStates::new();
    let (client, script) = scripted_on(&hosts, once(1).build().unwrap(), [Reply::status(503)]);
    let changes = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&changes);
    hosts.on_state_change(move |it| seen.lock().unwrap().push((it.from, it.to)));
    hosts.force_open();
    client.get(URL).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 0);
    hosts.metrics_only();
    for _ in 0..3 {
        client.get(URL).send().await.unwrap();
        client.get("http://later.example/").send().await.unwrap();
    }
    assert_eq!(hosts.breaker("http://later.example").state(), BreakerState::MetricsOnly);
    hosts.disable();
    for host in [HOST, "http://later.example", "http://yet.later.example"] {
        client.get(host).send().await.unwrap();
        assert_eq!(hosts.breaker(host).state(), BreakerState::Disabled);
    }
    hosts.reset();
    client.get(URL).send().await.unwrap();
    client.get(URL).send().await.unwrap_err();
    let changes = changes.lock().unwrap();
    assert!(changes.contains(&(BreakerState::Disabled, BreakerState::Closed)), "{changes:?}");
    assert_eq!(changes.last(), Some(&(BreakerState::Closed, BreakerState::Open)));
}

#[tokio::test(start_paused = true)]
async fn an_override_that_switches_the_gate_on_asks_the_gate_of_the_host() {
    let hosts = HostStates::new();
    let busy = Reply::status(429).header(http::header::RETRY_AFTER, "30".parse().unwrap());
    let config = steady().gate().max_retries(0).max_wait_time(Duration::from_secs(20));
    let config = config.build().unwrap();
    let (client, script) = scripted_on(&hosts, config, [busy, Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    let gated = RetryOverride::new().gate();
    client.get(URL).with_extension(gated).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 1, "the gate was closed for longer than the request may wait");
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_config_share_nothing_and_clients_on_the_same_hosts_do() {
    let config = once(1).build().unwrap();
    let (one, _) = scripted(config.clone(), [Reply::status(503)]);
    let (two, script) = scripted(config.to_builder().build().unwrap(), [Reply::status(200)]);
    one.get(URL).send().await.unwrap();
    two.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), 1);

    let hosts = HostStates::new();
    let (one, _) = scripted_on(&hosts, config.clone(), [Reply::status(503)]);
    let (two, script) = scripted_on(&hosts, config, [Reply::status(200)]);
    one.get(URL).send().await.unwrap();
    two.get(URL).send().await.unwrap_err();
    assert_eq!((script.sent().len(), hosts.breaker(HOST).state()), (0, BreakerState::Open));
}
