//! Requests to a server on 127.0.0.1, 64 at a time, beside reqwest-retry and no middleware at all:
//! `cargo bench --bench end_to_end`.
//!
//! The server has a thread of its own; the clients take turns on another, and `core µs` is what a
//! request takes of that one. `failed` are requests that did not end with 200: without middleware all
//! answers that were not. Settings are equal: three retries, 1 ms apart, and a budget that does not
//! run out. A `late` body comes after its head has gone.

#[path = "support/server.rs"]
mod server;
#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::seq::SliceRandom;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{BudgetConfig, Constant, Jitter, Resilient, ResilientConfig, RetryBudget};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use server::{Plan, Server};
use support::{bar, bar_at_least, median};
use tokio::{runtime::Runtime, task::JoinSet};

const WAIT: Duration = Duration::from_millis(1);
const IN_FLIGHT: usize = 64;
const REQUESTS: usize = 640;
const ROUNDS: usize = 120;
/// Of those whose rates are compared, which differ by little.
const MANY_ROUNDS: usize = 600;

/// One client, its server, and how it did.
struct Case {
    name: &'static str,
    client: ClientWithMiddleware,
    server: Server,
    /// Requests per second, round by round.
    rates: Vec<f64>,
    /// Microseconds.
    latencies: Vec<f64>,
    /// Microseconds on a core, in all rounds together: the kernel counts in steps of some
    /// milliseconds, which is nearly as long as a round.
    worked: f64,
    rounds: usize,
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
        Self {
            name,
            client,
            server,
            rates: vec![],
            latencies: vec![],
            worked: 0.0,
            rounds: 0,
            failed: 0,
        }
    }

    async fn round(&mut self) {
        let (url, sent) = (self.server.url(), Arc::new(AtomicUsize::new(0)));
        let (start, worked) = (Instant::now(), worked());
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
        self.worked += self::worked() - worked;
        self.rounds += 1;
    }

    /// Its rate in percent of the peer's in the same round.
    fn relative_to(&self, peer: &Self) -> f64 {
        100.0 * median(self.rates.iter().zip(&peer.rates).map(|(ours, peer)| ours / peer).collect())
    }

    fn print(&mut self) {
        self.latencies.sort_by(f64::total_cmp);
        let of = |share: f64| self.latencies[(self.latencies.len() as f64 * share) as usize];
        println!(
            "{:<20} {:>10.0} {:>8.1} {:>8.0} {:>8.0} {:>12} {:>7}",
            self.name,
            median(self.rates.clone()),
            self.worked / (self.rounds * REQUESTS) as f64,
            of(0.5),
            of(0.99),
            self.server.connections(),
            self.failed
        );
    }
}

/// How long this thread has been on a core, in microseconds; other programs do not count.
fn worked() -> f64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let worked = times.split(' ').next().and_then(|it| it.parse::<f64>().ok());
    worked.map_or(f64::NAN, |it| it / 1e3)
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
fn compare(runtime: &Runtime, title: &str, plan: Plan, rounds: usize) -> [Case; 3] {
    let mut cases = [
        Case::new("reqwest-middleware", plan, |it| it),
        Case::new("reqwest-retry", plan, |it| it.with(theirs())),
        Case::new("ours", plan, |it| it.with(ours())),
    ];
    let mut order = [0, 1, 2];
    for _ in 0..rounds {
        order.shuffle(&mut rand::rng());
        order.iter().for_each(|it| runtime.block_on(cases[*it].round()));
    }
    println!(
        "\n{title:<20} {:>10} {:>8} {:>8} {:>8} {:>12} {:>7}",
        "requests/s", "core µs", "p50 µs", "p99 µs", "connections", "failed"
    );
    cases.iter_mut().for_each(Case::print);
    cases
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = &runtime.expect("a runtime");
    let plan = Plan { fails: 0, late_body: false };
    let [_, peer, ours] = compare(runtime, "all answered", plan, MANY_ROUNDS);
    bar_at_least("requests/s, all answered, reqwest-retry", ours.relative_to(&peer), 100.0, 0.97);
    for (title, late_body) in [("10 % 503s", false), ("10 % 503s, late", true)] {
        let [_, peer, ours] = compare(runtime, title, Plan { fails: 10, late_body }, ROUNDS);
        let connections = [&ours, &peer].map(|it| it.server.connections() as f64);
        // A machine that pauses for longer than a body is waited for costs a connection.
        bar(&format!("connections, {title}, reqwest-retry"), connections[0], connections[1], 1.05);
    }
}
