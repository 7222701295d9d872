//! Five phases of one client and its server: what a limit of the requests under way is worth.
//!
//! The server has 50 workers that take 100 ms on average, so 500 a second, and works on for clients that have left. Half a minute each: 70 % of
//! what it can do, 150 %, 70 %, then 40 % of its workers are left, then all are back. An attempt has
//! 1 s, and a request is good if its response comes within 2 s. There are no retries.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{pin::Pin, time::Duration};

use http::Extensions;
use reqwest::{Method, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
use reqwest_resilient::{ConcurrencyLimit, Limit, Resilient, ResilientConfig};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_resilience_adaptive::{AdaptiveLimiterLayer, Aimd};

use crate::random::Random;
use crate::server::{Behavior, Pool, next_step};

/// Load and the share of the workers that are left, of each phase.
const PHASES: [(f64, f64); 5] = [(0.7, 1.0), (1.5, 1.0), (0.7, 1.0), (0.7, 0.4), (0.7, 1.0)];
const PHASE: f64 = 30.0;

const WORKERS: usize = 50;
const SERVICE: f64 = 0.1;
const CAPACITY: f64 = WORKERS as f64 / SERVICE;

const ATTEMPT: Duration = Duration::from_secs(1);
const GOOD: f64 = 2.0;

/// The longest wait of a request for its turn, for all that have one.
const QUEUE: Duration = Duration::from_millis(50);

/// One way to limit what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limiter {
    None,
    /// What the server can do, exactly.
    Fixed,
    Adaptive,
    /// Beside the breaker, budget and retries of the defaults.
    Defaults,
    TowerResilience,
}

const LIMITERS: [(Limiter, &str); 5] = [
    (Limiter::None, "no limit"),
    (Limiter::Fixed, "Limit::fixed(50)"),
    (Limiter::Adaptive, "Limit::adaptive()"),
    (Limiter::Defaults, "the same with the defaults"),
    (Limiter::TowerResilience, "tower-resilience-adaptive 0.14"),
];

/// What became of the requests that came in one phase.
#[derive(Clone, Debug, Default)]
struct Phase {
    asked: u32,
    good: u32,
    /// Not sent, by the client's own decision.
    rejected: u32,
    /// Of all that succeeded, in seconds.
    latencies: Vec<f64>,
}

/// The figures of a phase: goodput as a share of what was possible, p99 in milliseconds, the share
/// that was rejected.
#[derive(Clone, Copy, Debug)]
struct Figures {
    goodput: f64,
    p99: f64,
    rejected: f64,
}

/// Runs all with this many seeds, and prints a table and the bars; figures are medians.
pub(crate) fn print(seeds: u64) {
    println!("\nFive phases of 30 s; goodput of what was possible, p99 in ms, rejected:\n");
    println!(
        "| client | load .7 | 1.5 | .7 | 40 % of the workers | .7 |\n|---|---|---|---|---|---|"
    );
    for (limiter, name) in LIMITERS {
        let runs: Vec<_> = (1..=seeds).map(|seed| run(limiter, seed)).collect();
        let median = |phase: usize, of: fn(&Figures) -> f64| {
            let mut all: Vec<_> = runs.iter().map(|it| of(&it[phase])).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let figures = [0, 1, 2, 3, 4].map(|phase| Figures {
            goodput: median(phase, |it| it.goodput),
            p99: median(phase, |it| it.p99),
            rejected: median(phase, |it| it.rejected),
        });
        let cells =
            figures.map(|it| format!("{:.2}, {:.0}, {:.2}", it.goodput, it.p99, it.rejected));
        println!("| {name} | {} |", cells.join(" | "));
        if limiter == Limiter::Adaptive {
            print_bars(&figures);
        }
    }
    println!("\n(The last one reads the system's clock: of virtual time it sees timeouts alone.)");
}

fn print_bars(figures: &[Figures; 5]) {
    let least = figures.iter().map(|it| it.goodput).fold(f64::INFINITY, f64::min);
    let slowest = figures.iter().map(|it| it.p99).fold(0.0, f64::max);
    let rejected = 100.0 * figures[0].rejected;
    let verdict = |is_met: bool| if is_met { "met" } else { "missed" };
    eprintln!("bar limit-goodput {least:.2} to reach 0.95: {}", verdict(least >= 0.95));
    eprintln!("bar limit-p99 {slowest:.0} ms to reach 700 ms: {}", verdict(slowest <= 700.0));
    eprintln!("bar limit-rejected {rejected:.1} % to reach 2 %: {}", verdict(rejected <= 2.0));
}

fn run(limiter: Limiter, seed: u64) -> [Figures; 5] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    let phases = runtime.block_on(live(limiter, seed));
    let figures = |(phase, (load, left)): (Phase, (f64, f64))| {
        let Phase { asked, good, rejected, mut latencies } = phase;
        latencies.sort_by(f64::total_cmp);
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        let possible = (f64::from(asked) / PHASE).min(CAPACITY * left).min(CAPACITY * load);
        Figures {
            goodput: f64::from(good) / PHASE / possible,
            p99: 1_000.0 * p99,
            rejected: f64::from(rejected) / f64::from(asked.max(1)),
        }
    };
    let mut all = phases.into_iter().zip(PHASES).map(figures);
    [(); 5].map(|()| all.next().expect("five phases"))
}

async fn live(limiter: Limiter, seed: u64) -> Vec<Phase> {
    let world = World::new(seed);
    tokio::spawn(Arc::clone(&world).serve());
    tokio::spawn(Arc::clone(&world).disturb());
    let arrivals = Random::new(seed * 1_000_003);
    let client = client(limiter, &world);
    let mut at = 0.0;
    loop {
        let phase = (at / PHASE) as usize;
        let Some((load, _)) = PHASES.get(phase) else { break };
        at += arrivals.exponential(1.0 / (load * CAPACITY));
        sleep_until(world.start + Duration::from_secs_f64(at)).await;
        let (sent, world) = (client(), Arc::clone(&world));
        tokio::spawn(async move {
            let result = sent.await;
            world.record((at / PHASE) as usize, at, result);
        });
    }
    // What came late in the last phase.
    sleep_until(world.start + Duration::from_secs_f64(at + 5.0)).await;
    let mut phases = world.phases();
    std::mem::take(&mut phases)
}

/// The end of a request.
enum Ended {
    Success,
    Failure,
    Rejected,
}

type Sender = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Ended> + Send>> + Send>;

/// Returns what sends a request of a client with this limiter.
fn client(limiter: Limiter, world: &Arc<World>) -> Sender {
    if limiter == Limiter::TowerResilience {
        return tower_resilience(world);
    }
    let limit = match limiter {
        Limiter::Fixed => Limit::fixed(50),
        _ => Limit::adaptive(),
    };
    let base = ResilientConfig::builder().attempt_timeout(ATTEMPT);
    let bare = base.clone().without_circuit_breaker().without_retry_budget().without_gate();
    let base = if limiter == Limiter::Defaults { base } else { bare.max_retries(0) };
    let config = match limiter {
        Limiter::None => base,
        _ => base.concurrency_limit(ConcurrencyLimit::per_host(limit).max_queue_time(QUEUE)),
    };
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(Resilient::new(config.build().expect("the settings are possible")))
        .with_arc(Arc::clone(world) as Arc<dyn Middleware>)
        .build();
    let url: Url = "http://server.example/".parse().expect("a url");
    Box::new(move || {
        let (client, request) = (client.clone(), Request::new(Method::GET, url.clone()));
        Box::pin(async move {
            match client.execute(request).await {
                Ok(response) if response.status().is_success() => Ended::Success,
                Ok(_) => Ended::Failure,
                Err(error) => match reqwest_resilient::HttpRequestError::find(&error) {
                    Some(error) if error.attempts() == 0 => Ended::Rejected,
                    _ => Ended::Failure,
                },
            }
        })
    })
}

fn tower_resilience(world: &Arc<World>) -> Sender {
    let world = Arc::clone(world);
    let server = tower::service_fn(move |()| {
        let world = Arc::clone(&world);
        async move { timeout(ATTEMPT, world.respond()).await }
    });
    let aimd = Aimd::builder().initial_limit(20).min_limit(1).max_limit(1_000);
    // It sees no time pass: any threshold would do.
    let aimd = aimd.latency_threshold(ATTEMPT).build().expect("the settings are possible");
    let service = AdaptiveLimiterLayer::new(aimd).layer(server);
    Box::new(move || {
        let mut service = service.clone();
        Box::pin(async move {
            match timeout(QUEUE, service.ready()).await {
                Err(_) => Ended::Rejected,
                Ok(Err(_)) => Ended::Failure,
                Ok(Ok(ready)) => match ready.call(()).await {
                    Ok(()) => Ended::Success,
                    Err(_) => Ended::Failure,
                },
            }
        })
    })
}

/// The server, and what is written down.
struct World {
    start: Instant,
    pool: Mutex<Pool>,
    /// A job ends earlier than all the others.
    hurry: Notify,
    random: Random,
    phases: Mutex<Vec<Phase>>,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let pool = Pool::new(WORKERS, SERVICE, Behavior::WorksOn);
        Arc::new(Self {
            start: Instant::now(),
            pool: Mutex::new(pool),
            hurry: Notify::new(),
            random: Random::new(seed ^ 0xf1ea),
            phases: Mutex::new(vec![Phase::default(); PHASES.len()]),
        })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("nothing panics with the pool in hand")
    }

    fn phases(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.phases.lock().expect("nothing panics with the phases in hand")
    }

    fn record(&self, phase: usize, asked: f64, ended: Ended) {
        let took = self.start.elapsed().as_secs_f64() - asked;
        let mut phases = self.phases();
        let Some(phase) = phases.get_mut(phase) else { return };
        phase.asked += 1;
        match ended {
            Ended::Success => {
                phase.good += u32::from(took <= GOOD);
                phase.latencies.push(took);
            }
            Ended::Failure => {}
            Ended::Rejected => phase.rejected += 1,
        }
    }

    /// Advances the pool whenever a job ends.
    async fn serve(self: Arc<Self>) -> Infallible {
        loop {
            let next = {
                let mut pool = self.pool();
                pool.advance(Instant::now(), &self.random);
                pool.next_end()
            };
            next_step(next, &self.hurry).await;
        }
    }

    /// Sets the number of workers of each phase.
    async fn disturb(self: Arc<Self>) {
        for (phase, (_, left)) in PHASES.into_iter().enumerate() {
            sleep_until(self.start + Duration::from_secs_f64(phase as f64 * PHASE)).await;
            let mut pool = self.pool();
            let workers = (pool.workers() as f64 * left).round() as usize;
            pool.set_active(workers, Instant::now(), &self.random);
            drop(pool);
            self.hurry.notify_one();
        }
    }

    async fn respond(&self) {
        let response = {
            let mut pool = self.pool();
            let before = pool.next_end();
            let response = pool.accept(Instant::now(), &self.random);
            if pool.next_end() != before {
                self.hurry.notify_one();
            }
            response
        };
        if let Some(response) = response {
            let _ = response.await;
        }
    }
}

#[async_trait::async_trait]
impl Middleware for World {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.respond().await;
        let response = http::Response::builder().status(200).url(request.url().clone());
        Ok(response.body("").map_err(Error::middleware)?.into())
    }
}
