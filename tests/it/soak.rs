//! Many requests through a chain that fails at random, many of them dropped at random.
//!
//! `cargo test --release --all-features --test it soak -- --ignored --nocapture`; the environment
//! variables `SOAK_REQUESTS` and `SOAK_SEED` choose how many and which.

#[cfg(feature = "download")]
mod everything;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, io};

use http::{Extensions, Method};
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_resilient::testing::io_error;
use reqwest_resilient::{
    BreakerConfig, BudgetConfig, Constant, HostStates, Resilient, ResilientConfig,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::idle_client;

const HOSTS: u64 = 16;
const AT_ONCE: usize = 64;
const SIZE: u32 = 5;
const DEPOSIT: f64 = 0.25;

/// By how much resident memory may grow: a leak of ten bytes per request shows in a million.
const ROOM: u64 = 8 * 1024 * 1024;

#[tokio::test(start_paused = true)]
#[ignore = "takes long"]
async fn nothing_leaks_in_virtual_time() {
    soak().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes long"]
async fn nothing_leaks_across_threads() {
    soak().await;
}

async fn soak() {
    let (requests, seed) = (number("SOAK_REQUESTS", 100_000), number("SOAK_SEED", 1));
    let rule = BreakerConfig::consecutive(4).open_for(ms(20)).without_open_growth();
    let budget = BudgetConfig::default().size(SIZE).deposit(DEPOSIT).trickle(0.0);
    let hosts = HostStates::new();
    let config = ResilientConfig::builder()
        .backoff(Constant::new(ms(4)))
        .attempt_timeout(ms(25))
        .max_total_time(ms(150))
        .circuit_breaker(rule)
        .retry_budget(budget);
    let chaos = Chaos(Arc::new(Seen { dice: Dice(AtomicU64::new(seed)), ..Seen::default() }));
    let seen = Arc::clone(&chaos.0);
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(config.build().unwrap()).with_hosts(hosts.clone()))
        .with(chaos)
        .build();

    let (started, dropped, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let counts = Arc::new((started, dropped));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, seen, counts, hosts) =
            (client.clone(), Arc::clone(&seen), Arc::clone(&counts), hosts.clone());
        workers.spawn(async move {
            loop {
                let id = counts.0.fetch_add(1, Relaxed);
                if id >= requests {
                    return;
                }
                let host = seen.dice.below(HOSTS);
                let method = [Method::GET, Method::POST, Method::POST, Method::PUT];
                let method = &method[seen.dice.below(4) as usize];
                let request = client
                    .request(method.clone(), format!("https://host{host}.example.com/"))
                    .header("x-id", id)
                    .body("once")
                    .send();
                let patience = if seen.dice.below(8) == 0 { seen.dice.below(40) } else { 10_000 };
                if timeout(ms(patience), request).await.is_err() {
                    counts.1.fetch_add(1, Relaxed);
                }
                seen.maybe_processed.lock().unwrap().remove(&id);
                seen.ids.lock().unwrap().remove(&id);
                if id == requests / 10 {
                    seen.early_memory.store(resident_memory(), Relaxed);
                }
                let key = format!("https://host{host}.example.com");
                // Dropped before it was polled, the first request of a host leaves no budget.
                let balance = hosts.budget_left(&key, Instant::now()).unwrap_or_default();
                assert!((0.0..=f64::from(SIZE)).contains(&balance), "{key}: {balance}");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }

    let (attempts, retries, good) =
        (seen.attempts.load(Relaxed), seen.retries.load(Relaxed), seen.good.load(Relaxed));
    let snapshot = hosts.snapshot(Instant::now());
    let changes: u64 = snapshot.iter().map(|it| it.generation).sum();
    let drops = counts.1.load(Relaxed);
    let (early, late) = (seen.early_memory.load(Relaxed), resident_memory());
    println!("resident memory: {early} bytes after a tenth, {late} at the end");
    println!(
        "{requests} requests, {drops} dropped, {attempts} attempts, {retries} retries, {good} good, \
         {changes} changes of breakers, {:?}",
        begun.elapsed()
    );
    assert!(drops > requests / 100 && retries > requests / 100 && changes > HOSTS, "tame chaos");
    assert_eq!(seen.twice.load(Relaxed), 0, "sent twice, though it may have been processed");
    let saved = HOSTS as f64 * f64::from(SIZE);
    assert!(retries as f64 <= saved + DEPOSIT * good as f64, "{retries} retries of {good}");
    assert!(late < early + ROOM, "memory grew from {early} to {late} bytes");
    assert_eq!(snapshot.len() as u64, HOSTS);
    for breaker in snapshot {
        assert_eq!((breaker.permits_out, breaker.probes_out), (0, 0), "{breaker:?}");
    }
}

/// A server that responds, fails, refuses and hangs at random.
struct Chaos(Arc<Seen>);

#[derive(Default)]
struct Seen {
    dice: Dice,
    attempts: AtomicU64,
    retries: AtomicU64,
    good: AtomicU64,
    twice: AtomicU64,
    /// Requests under way that were sent.
    ids: Mutex<HashSet<u64>>,
    /// Bytes, once a tenth of the requests is through.
    early_memory: AtomicU64,
    /// POSTs under way that a server may have processed.
    maybe_processed: Mutex<HashSet<u64>>,
}

#[async_trait::async_trait]
impl Middleware for Chaos {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let seen = &*self.0;
        let id = request.headers()["x-id"].to_str().unwrap().parse().unwrap();
        seen.attempts.fetch_add(1, Relaxed);
        if !seen.ids.lock().unwrap().insert(id) {
            seen.retries.fetch_add(1, Relaxed);
        }
        // Until the reply says otherwise, it may be processed by now.
        let post = request.method() == Method::POST;
        if post && !seen.maybe_processed.lock().unwrap().insert(id) {
            seen.twice.fetch_add(1, Relaxed);
        }
        let latency =
            [0, 1, 3, 10, 24, 26, 60][seen.dice.below(7).min(seen.dice.below(7)) as usize];
        sleep(ms(latency)).await;
        let fate = seen.dice.below(100);
        if matches!(fate, 60..72 | 95..) {
            seen.maybe_processed.lock().unwrap().remove(&id);
        }
        let answer = http::Response::builder().url(request.url().clone());
        let answer = match fate {
            ..60 => answer.status(200),
            60..66 => answer.status(503).header("retry-after-ms", "7"),
            66..72 => answer.status(429).header("retry-after-ms", "3"),
            72..78 => answer.status(404),
            78..84 => answer.status(503),
            84..88 => answer.status(500),
            88..95 => {
                return Err(io_error(io::ErrorKind::ConnectionReset));
            }
            _ => return Err(io_error(io::ErrorKind::ConnectionRefused)),
        };
        if matches!(fate, ..60) {
            seen.good.fetch_add(1, Relaxed);
        }
        Ok(answer.body("some bytes").unwrap().into())
    }
}

/// Chances that a seed gives again, as far as the order of the asking is the same.
#[derive(Default)]
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, limit: u64) -> u64 {
        let drawn = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)) % limit
    }
}

/// Returns the resident memory in bytes; 0 if unknown.
fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or_default() * 1024
}

/// Returns the number that an environment variable says.
fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |it| it.parse().unwrap_or_else(|_| panic!("{name}={it}")))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
