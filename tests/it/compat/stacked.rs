//! Two `Resilient`s in one client that share what they know of hosts.

use std::time::Duration;

use http::Extensions;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, CircuitBreaker, HostStates, Resilient,
    ResilientConfig, RetryBudget,
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
    let rule = BreakerConfig::consecutive(3.try_into().unwrap())
        .open_for(Duration::from_secs(5))
        .without_open_jitter();
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
    let rule = BreakerConfig::consecutive(1.try_into().unwrap()).open_for(Duration::from_secs(5));
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
