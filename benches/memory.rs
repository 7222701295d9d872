//! What requests take of memory while they wait, beside reqwest-retry: `cargo bench --bench memory`.
//!
//! 10,000 requests are let go and stopped: in their first attempt, at a mock that never answers, or
//! asleep before their second, after a 503 without a body. Each case has a process of its own, so
//! that what it takes of the system is not what another left. `heap` is what was allocated and not
//! freed, with the task that the request runs in; `resident` is by how much `VmRSS` grew.

#[path = "support/mod.rs"]
mod support;

use std::{
    alloc::System,
    env, fs,
    future::pending,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Extensions, Version};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use reqwest_resilient::{
    BudgetConfig, Constant, Jitter, Resilient, ResilientConfig, ResilientConfigBuilder,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{
    bar,
    chain::{answer, get_with_headers},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 10_000;
const LONG: Duration = Duration::from_secs(600);
const CLIENTS: [&str; 4] = ["bare chain", "reqwest-retry", "ours, retry only", "ours, everything"];

/// The end of the chain: a 503, or nothing ever.
#[derive(Clone, Default)]
struct End {
    answers: bool,
    arrived: Arc<AtomicUsize>,
}

impl End {
    /// Lets the requests run until so many have stopped: they go as far as they can at once.
    async fn until(&self, arrived: usize) {
        while self.arrived.load(Ordering::Relaxed) < arrived {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait::async_trait]
impl Middleware for End {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        if !self.answers {
            // The request is held, as it is by a connection.
            pending::<()>().await;
        }
        Ok(answer(request.url(), 503, Version::HTTP_11))
    }
}

fn config() -> ResilientConfigBuilder {
    let config = ResilientConfig::builder().backoff(Constant::new(LONG)).jitter(Jitter::None);
    config.max_wait_time(LONG)
}

fn ours(config: ResilientConfigBuilder) -> Resilient {
    Resilient::new(config.build().expect("a config"))
}

fn with(name: &str, client: ClientBuilder) -> ClientBuilder {
    match name {
        "bare chain" => client,
        "reqwest-retry" => {
            let policy = ExponentialBackoff::builder().retry_bounds(LONG, LONG);
            let policy = policy.jitter(reqwest_retry::Jitter::None).build_with_max_retries(3);
            client.with(RetryTransientMiddleware::new_with_policy(policy))
        }
        "ours, retry only" => {
            let config = config().without_circuit_breaker().without_retry_budget().without_gate();
            client.with(ours(config))
        }
        _ => {
            let budget = BudgetConfig::default().size(2 * REQUESTS as u32);
            let resilient = ours(config().retry_budget(budget));
            // They count as ever, but admit all.
            resilient.hosts().metrics_only();
            client.with(resilient)
        }
    }
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.unwrap_or_default() * 1024
}

/// Stops the requests of one client, and says what each has allocated and the process has taken.
async fn stop(name: &str, asleep: bool) -> (usize, usize) {
    let end = End { answers: asleep, ..End::default() };
    let client = ClientBuilder::new(reqwest::Client::new());
    let client = with(name, client).with(end.clone()).build();
    let send = || {
        let client = client.clone();
        tokio::spawn(async move { client.execute(get_with_headers()).await })
    };
    // The first makes what is kept for its host.
    let first = send();
    let mut tasks = Vec::with_capacity(REQUESTS);
    end.until(1).await;
    let (before, region) = (resident(), Region::new(ALLOCATOR));
    tasks.extend((0..REQUESTS).map(|_| send()));
    end.until(1 + REQUESTS).await;
    let (change, taken) = (region.change(), resident().saturating_sub(before));
    assert!(!first.is_finished() && !tasks.iter().any(|it| it.is_finished()), "none has ended");
    ((change.bytes_allocated - change.bytes_deallocated) / REQUESTS, taken / REQUESTS)
}

/// The same in a process of its own.
fn stop_apart(name: &str, state: &str) -> (f64, f64) {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program).args(["--only", name, state]).output().expect("a process");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let (heap, resident) = output.trim().split_once(' ').expect("two numbers");
    (heap.parse().expect("a number"), resident.parse().expect("a number"))
}

fn main() {
    let arguments: Vec<String> = env::args().skip_while(|it| it != "--only").collect();
    if let [_, name, state] = &arguments[..] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (heap, resident) = runtime.expect("a runtime").block_on(stop(name, state == "asleep"));
        println!("{heap} {resident}");
        return;
    }
    for (state, clients) in [("in flight", &CLIENTS[..]), ("asleep", &CLIENTS[1..])] {
        println!("\n{:<28} {:>8} {:>9}", format!("bytes a request, {state}"), "heap", "resident");
        let bytes: Vec<_> = clients.iter().map(|name| stop_apart(name, state)).collect();
        for (name, (heap, resident)) in clients.iter().zip(&bytes) {
            println!("{name:<28} {heap:>8.0} {resident:>9.0}");
        }
        if let [.., peer, retry_only, everything] = bytes[..] {
            bar(&format!("heap {state}, retry only, reqwest-retry"), retry_only.0, peer.0, 1.0);
            bar(&format!("heap {state}, everything, reqwest-retry"), everything.0, peer.0, 1.0);
            bar(&format!("resident {state}, everything, reqwest-retry"), everything.1, peer.1, 1.0);
        }
    }
}
