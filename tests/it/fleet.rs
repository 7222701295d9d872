//! Several clients as one fleet, in virtual time: what one node learns, all heed.

mod failing;
mod gates;
mod opening;
mod rate;
mod telling;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    BreakerConfig, CircuitBreakers, HostStates, Resilient, ResilientConfig, ResilientConfigBuilder,
    fleet::{
        BoxError, BoxFuture, Fleet, FleetNews, FleetState, FleetStore, HostAdvice, HostReport,
        InProcessFleet, NodeId,
    },
};
use tokio::time::{Instant, sleep};

use crate::support::{URL, idle_client, steady};

/// The host of [`URL`].
const HOST: &str = "https://api.example.com";

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A service that several clients ask: up or down, with a latency, and a count of what arrives.
#[derive(Clone, Default)]
struct Service(Arc<ServiceState>);

#[derive(Default)]
struct ServiceState {
    is_down: AtomicBool,
    hangs: AtomicBool,
    arrived: AtomicUsize,
    /// Responses that come before any other.
    script: Mutex<VecDeque<http::Response<&'static str>>>,
}

impl Service {
    fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    fn set_hanging(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::Relaxed);
    }

    fn arrived(&self) -> usize {
        self.0.arrived.load(Ordering::Relaxed)
    }

    fn next(&self, response: http::response::Builder) {
        self.0.script.lock().unwrap().push_back(response.body("").unwrap());
    }
}

#[async_trait::async_trait]
impl Middleware for Service {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.arrived.fetch_add(1, Ordering::Relaxed);
        sleep(millis(10)).await;
        if self.0.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(response) = self.0.script.lock().unwrap().pop_front() {
            return Ok(response.into());
        }
        let status = if self.0.is_down.load(Ordering::Relaxed) { 503 } else { 200 };
        Ok(http::Response::builder().status(status).body("").unwrap().into())
    }
}

/// One node of a fleet: a client with hosts of its own.
struct Node {
    client: ClientWithMiddleware,
    fleet: Fleet,
    hosts: HostStates,
}

impl Node {
    async fn get(&self) -> Option<u16> {
        self.client.get(URL).send().await.ok().map(|it| it.status().as_u16())
    }

    /// Sends so many requests, one each `every`.
    async fn send(&self, count: usize, every: Duration) {
        for _ in 0..count {
            drop(self.client.get(URL).send().await);
            sleep(every).await;
        }
    }

    fn state(&self) -> FleetState {
        self.fleet.state_of(HOST)
    }

    fn is_open(&self) -> bool {
        self.state().is_open()
    }
}

/// No retries, no waits at a breaker, and a local breaker that opens after a thousand failures only.
fn lenient() -> ResilientConfigBuilder {
    let never = BreakerConfig::consecutive(1_000);
    steady()
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .circuit_breaker(CircuitBreakers::per_host(never))
}

fn node_of(fleet: &Fleet, config: ResilientConfig, service: &Service) -> Node {
    let resilient = Resilient::new(config).with_fleet(fleet);
    let hosts = resilient.hosts().clone();
    let client = ClientBuilder::new(idle_client()).with(resilient).with(service.clone()).build();
    Node { client, fleet: fleet.clone(), hosts }
}

fn nodes(count: usize, store: &(impl FleetStore + Clone), service: &Service) -> Vec<Node> {
    let node = |_| node_of(&Fleet::new(store.clone()), lenient().build().unwrap(), service);
    (0..count).map(node).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_share_a_store_by_an_arc() {
    let service = Service::default();
    let store: Arc<dyn FleetStore> = Arc::new(InProcessFleet::new());
    let nodes = nodes(4, &store, &service);
    all_send(&nodes, 5, millis(300)).await;
    open(&nodes, &service).await;
}

#[test]
fn times_of_a_node_have_bounds() {
    let builder = || Fleet::builder(InProcessFleet::new());
    let bad = builder().report_every(millis(99)).timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(
        bad.to_string(),
        "fleet.report_every must be from 100 ms to 60 s, got 99ms; fleet.timeout must be > 0, got 0ns"
    );
    assert!(builder().report_every(secs(61)).build().is_err());
    for time in [millis(100), secs(60)] {
        builder().report_every(time).timeout(millis(1)).build().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn any_url_of_a_host_names_it() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = nodes(4, &store, &service);
    all_send(&nodes, 5, millis(300)).await;
    open(&nodes, &service).await;
    for host in [HOST, URL, "https://api.example.com/", "https://API.example.com:443/a?b=c"] {
        assert!(matches!(nodes[0].fleet.state_of(host), FleetState::Open { .. }), "{host}");
    }
    for other in ["http://api.example.com/", "https://api.example.com:8443", "api.example.com"] {
        assert_eq!(nodes[0].fleet.state_of(other), FleetState::Unknown, "{other}");
    }
}

/// Has every node send `each` requests, one each `every`, beside one another.
async fn all_send(nodes: &[Node], each: usize, every: Duration) {
    let sending = nodes.iter().map(|it| it.send(each, every));
    futures_util::future::join_all(sending).await;
}

/// Has nodes find the host down, until all know it.
async fn open(nodes: &[Node], service: &Service) {
    service.set_down(true);
    for _ in 0..30 {
        all_send(nodes, 1, millis(90)).await;
        if nodes.iter().all(Node::is_open) {
            return;
        }
    }
    panic!("not open: {:?}", nodes[0].state());
}

/// A fleet whose nodes have found the host down, and know it.
async fn opened(count: usize) -> (Vec<Node>, InProcessFleet, Service) {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = nodes(count, &store, &service);
    open(&nodes, &service).await;
    (nodes, store, service)
}

/// A store in front of another one, which can be paused, can fail, and notes what passes.
#[derive(Clone)]
struct Wrapped {
    inner: InProcessFleet,
    state: Arc<WrappedState>,
}

#[derive(Default)]
struct WrappedState {
    hangs: AtomicBool,
    fails: AtomicBool,
    calls: Mutex<Vec<(Instant, NodeId, Vec<HostReport>)>>,
    news: tokio::sync::Mutex<VecDeque<FleetNews>>,
    has_news: tokio::sync::Notify,
}

impl Wrapped {
    fn new() -> Self {
        Self { inner: InProcessFleet::new(), state: Arc::default() }
    }

    fn set_hanging(&self, hangs: bool) {
        self.state.hangs.store(hangs, Ordering::Relaxed);
    }

    fn set_failing(&self, fails: bool) {
        self.state.fails.store(fails, Ordering::Relaxed);
    }

    fn calls(&self) -> Vec<(Instant, NodeId, Vec<HostReport>)> {
        self.state.calls.lock().unwrap().clone()
    }

    async fn publish(&self, news: FleetNews) {
        self.state.news.lock().await.push_back(news);
        self.state.has_news.notify_one();
    }
}

impl FleetStore for Wrapped {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        Box::pin(async move {
            self.state.calls.lock().unwrap().push((Instant::now(), node, reports.to_vec()));
            if self.state.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if self.state.fails.load(Ordering::Relaxed) {
                return Err("the store is full".into());
            }
            self.inner.exchange(node, reports).await
        })
    }

    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        Box::pin(async move {
            loop {
                if let Some(news) = self.state.news.lock().await.pop_front() {
                    return news;
                }
                self.state.has_news.notified().await;
            }
        })
    }
}
