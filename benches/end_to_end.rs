//! Requests to a server on 127.0.0.1, 64 at a time, beside reqwest-retry and no middleware at all:
//! `cargo bench --bench end_to_end`.
//!
//! The server has a thread of its own, and so has each client. The clients take turns. `failed` are
//! requests that did not end with 200; of bare reqwest-middleware these are all answers that were
//! not. Settings are equal: three retries, 1 ms apart, and a budget that does not run out.

#[path = "support/server.rs"]
mod server;
#[path = "support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{BudgetConfig, Constant, Jitter, Resilient, ResilientConfig, RetryBudget};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use server::{Plan, Server};
use support::{bar, bar_at_least, median};
use tokio::{runtime::Runtime, task::JoinSet};

const WAIT: Duration = Duration::from_millis(1);
const IN_FLIGHT: usize = 64;
const REQUESTS: usize = 2_000;
const ROUNDS: usize = 40;

/// One client, its server, and how it did.
struct Case {
    name: &'static str,
    client: ClientWithMiddleware,
    server: Server,
    /// Requests per second, round by round.
    rates: Vec<f64>,
    /// Microseconds.
    latencies: Vec<f64>,
    failed: usize,
}

impl Case {
    fn new(
        name: &'static str,
        plan: Plan,
        with: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let client = with(ClientBuilder::new(client)).build();
        let server = Server::start(plan);
        Self { name, client, server, rates: vec![], latencies: vec![], failed: 0 }
    }

    async fn round(&mut self) {
        let (url, sent) = (self.server.url(), Arc::new(AtomicUsize::new(0)));
        let start = Instant::now();
        let mut workers: JoinSet<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (client, url, sent) = (self.client.clone(), url.clone(), Arc::clone(&sent));
                async move {
                    let (mut latencies, mut failed) = (vec![], 0);
                    while sent.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                        let start = Instant::now();
                        let answer = client.get(&url).send().await.expect("an answer");
                        failed += usize::from(answer.status() != 200);
                        answer.bytes().await.expect("a body");
                        latencies.push(start.elapsed().as_secs_f64() * 1e6);
                    }
                    (latencies, failed)
                }
            })
            .collect();
        while let Some(Ok((latencies, failed))) = workers.join_next().await {
            self.latencies.extend(latencies);
            self.failed += failed;
        }
        self.rates.push(REQUESTS as f64 / start.elapsed().as_secs_f64());
    }

    fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    fn print(&mut self) {
        self.latencies.sort_by(f64::total_cmp);
        let of = |share: f64| self.latencies[(self.latencies.len() as f64 * share) as usize];
        println!(
            "{:<20} {:>9.0} {:>8.0} {:>8.0} {:>12} {:>7}",
            self.name,
            self.rate(),
            of(0.5),
            of(0.99),
            self.server.connections(),
            self.failed
        );
    }
}

fn ours() -> Resilient {
    let budget = BudgetConfig::default().size(1_000).deposit(1.0);
    let config = ResilientConfig::builder().backoff(Constant::new(WAIT)).jitter(Jitter::None);
    let config = config.retry_budget(RetryBudget::per_host(budget));
    Resilient::new(config.build().expect("a config"))
}

fn theirs() -> RetryTransientMiddleware<ExponentialBackoff> {
    let policy = ExponentialBackoff::builder().retry_bounds(WAIT, WAIT);
    let policy = policy.jitter(reqwest_retry::Jitter::None).build_with_max_retries(3);
    RetryTransientMiddleware::new_with_policy(policy)
}

/// The bare client, reqwest-retry and ours.
fn compare(runtime: &Runtime, title: &str, plan: Plan) -> [Case; 3] {
    let mut cases = [
        Case::new("reqwest-middleware", plan, |it| it),
        Case::new("reqwest-retry", plan, |it| it.with(theirs())),
        Case::new("ours", plan, |it| it.with(ours())),
    ];
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(|it| runtime.block_on(it.round()));
    }
    println!(
        "\n{title:<20} {:>9} {:>8} {:>8} {:>12} {:>7}",
        "requests/s", "p50 µs", "p99 µs", "connections", "failed"
    );
    cases.iter_mut().for_each(Case::print);
    cases
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = &runtime.expect("a runtime");
    let [_, peer, ours] = compare(runtime, "all answered", Plan { fails: 0, late_body: false });
    bar_at_least("requests/s, all answered, reqwest-retry", ours.rate(), peer.rate(), 0.97);
    for (title, late_body) in [("10 % 503s", false), ("10 % 503s, late", true)] {
        let [_, peer, ours] = compare(runtime, title, Plan { fails: 10, late_body });
        let connections = [&ours, &peer].map(|it| it.server.connections() as f64);
        bar_at_least(
            &format!("requests/s, {title}, reqwest-retry"),
            ours.rate(),
            peer.rate(),
            0.97,
        );
        bar(&format!("connections, {title}, reqwest-retry"), connections[0], connections[1], 1.0);
    }
}
