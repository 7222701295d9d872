//! The tail: a pool of workers of which some stall, a brownout of all of them, and what hedges make
//! of it. The same arrivals for every contestant.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{Event, Hedge, Resilient, ResilientClient, ResilientConfig};
use tokio::{
    runtime,
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Service, ServiceExt as _, hedge::Policy};
use tower_resilience_hedge::HedgeLayer;

use crate::{
    figures::Ledger,
    scenario::{Ask, Host, Route, Rule},
    server::{Server, path},
};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

const WORKERS: usize = 50;
const MEDIAN: f64 = 0.020;
const SIGMA: f64 = 0.3;
/// One service in a hundred takes fifteen times as long.
const STRAGGLERS: f64 = 0.01;
const STRAGGLE: f64 = 15.0;
/// The load of the workers.
const LOAD: f64 = 0.5;
/// A minute as usual, half a minute in which all services take twice as long, half a minute after it.
const PHASES: [f64; 3] = [60.0, 90.0, 120.0];
const BROWNOUT: f64 = 2.0;
/// The 95th percentile as usual, for those that take a number.
const FIXED: Duration = Duration::from_millis(35);

/// SplitMix64.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((value ^ (value >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// The server: workers that take requests in the order of their arrival.
#[derive(Clone)]
struct Pool(Arc<Shared>);

struct Shared {
    workers: Arc<Semaphore>,
    random: Mutex<Random>,
    start: Instant,
    /// Set if it stops working for a request whose client has gone.
    notices: bool,
    /// By phase.
    sends: [AtomicUsize; 3],
}

/// Returns the phase of a moment.
fn phase(at: Duration) -> usize {
    PHASES.iter().position(|it| at.as_secs_f64() < *it).unwrap_or(2)
}

impl Pool {
    fn new(seed: u64, notices: bool) -> Self {
        let random = Mutex::new(Random(seed ^ 0xABCD));
        let (workers, start) = (Arc::new(Semaphore::new(WORKERS)), Instant::now());
        Self(Arc::new(Shared { workers, random, start, notices, sends: Default::default() }))
    }

    async fn serve(self) {
        let shared = &self.0;
        shared.sends[phase(shared.start.elapsed())].fetch_add(1, Ordering::Relaxed);
        if shared.notices {
            return self.work().await;
        }
        let (done, served) = oneshot::channel();
        tokio::spawn(async move {
            self.work().await;
            let _ = done.send(());
        });
        let _ = served.await;
    }

    async fn work(&self) {
        let _worker = self.0.workers.acquire().await.expect("a worker");
        let time = {
            let mut random = self.0.random.lock().expect("randomness");
            let straggles = random.unit() < STRAGGLERS;
            let time = MEDIAN * (SIGMA * random.normal()).exp();
            if straggles { time * STRAGGLE } else { time }
        };
        let slow = if phase(self.0.start.elapsed()) == 1 { BROWNOUT } else { 1.0 };
        sleep(Duration::from_secs_f64(time * slow)).await;
    }
}

/// The end of a chain of middleware.
#[async_trait::async_trait]
impl Middleware for Pool {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.clone().serve().await;
        Ok(http::Response::new("ok").into())
    }
}

/// A service of tower.
impl Service<()> for Pool {
    type Response = ();
    type Error = Never;
    type Future = BoxFuture<Result<(), Never>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Never>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let pool = self.clone();
        Box::pin(async move {
            pool.serve().await;
            Ok(())
        })
    }
}

/// An error that does not happen.
#[derive(Clone, Debug)]
enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

/// Every request is hedged by a copy.
#[derive(Clone)]
struct Always;

impl Policy<()> for Always {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}

/// Sends one request after another, each of which goes on by itself.
type Sender = Box<dyn FnMut() -> BoxFuture<()>>;

type Contestant = (&'static str, fn(Pool) -> Sender);

const CONTESTANTS: [Contestant; 4] = [
    ("no hedge", |pool| Box::new(move || Box::pin(pool.clone().serve()))),
    ("tower::hedge 0.5", |pool| {
        let period = Duration::from_secs(10);
        let mut hedge = tower::hedge::Hedge::new(pool, Always, 100, 0.95, period);
        Box::new(move || {
            let ready = futures_util::FutureExt::now_or_never(hedge.ready());
            let sent = ready.expect("ready at once").expect("no error").call(());
            Box::pin(async move { sent.await.expect("no error") })
        })
    }),
    ("tower-resilience-hedge 0.14", |pool| {
        let layer = HedgeLayer::builder().delay(FIXED).max_hedged_attempts(2).build();
        let mut hedge = tower::Layer::layer(&layer, pool);
        Box::new(move || {
            let ready = futures_util::FutureExt::now_or_never(<_ as tower::ServiceExt<()>>::ready(
                &mut hedge,
            ));
            let sent = match ready {
                Some(Ok(ready)) => ready.call(()),
                _ => unreachable!("ready at once"),
            };
            Box::pin(async move {
                let _ = sent.await;
            })
        })
    }),
    ("Resilient", |pool| {
        let config = ResilientConfig::builder().hedge(Hedge::learned(0.95)).build();
        let resilient = Resilient::new(config.expect("a config"));
        let client = ClientBuilder::new(reqwest::Client::new()).with(resilient).with(pool).build();
        Box::new(move || get(client.clone()))
    }),
];

fn get(client: ClientWithMiddleware) -> BoxFuture<()> {
    Box::pin(async move {
        client.get("http://api.example.com/").send().await.expect("a response");
    })
}

/// The figures of one contestant, by phase.
struct Figures {
    /// Milliseconds, sorted; the two last are those of the seconds 95 to 120 and 115 to 120.
    latencies: [Vec<f64>; 5],
    sends: [usize; 3],
}

impl Figures {
    fn percentile(&self, of: usize, share: f64) -> f64 {
        let sorted = &self.latencies[of];
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn extra(&self, phase: usize) -> f64 {
        100.0 * (self.sends[phase] as f64 / self.latencies[phase].len().max(1) as f64 - 1.0)
    }
}

fn run(contestant: &Contestant, seed: u64, notices: bool) -> Figures {
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let pool = Pool::new(seed, notices);
        let (start, mut random) = (pool.0.start, Random(seed));
        let mut sender = (contestant.1)(pool.clone());
        let mean = MEDIAN * (SIGMA * SIGMA / 2.0).exp() * (1.0 + STRAGGLERS * (STRAGGLE - 1.0));
        let rate = LOAD * WORKERS as f64 / mean;
        let (mut at, mut requests) = (0.0, JoinSet::new());
        loop {
            at += random.exponential() / rate;
            if at >= PHASES[2] {
                break;
            }
            sleep_until(start + Duration::from_secs_f64(at)).await;
            let (sent, begun) = (sender(), start.elapsed());
            requests.spawn(async move {
                sent.await;
                (begun, start.elapsed() - begun)
            });
        }
        let mut latencies: [Vec<f64>; 5] = Default::default();
        for (begun, took) in requests.join_all().await {
            let took = took.as_secs_f64() * 1e3;
            latencies[phase(begun)].push(took);
            if begun.as_secs_f64() >= 95.0 {
                latencies[3].push(took);
            }
            if begun.as_secs_f64() >= 115.0 {
                latencies[4].push(took);
            }
        }
        latencies.iter_mut().for_each(|it| it.sort_by(f64::total_cmp));
        let sends = [0, 1, 2].map(|it| pool.0.sends[it].load(Ordering::Relaxed));
        Figures { latencies, sends }
    })
}

/// Runs the pool with every contestant, and prints figures and bars.
pub(crate) fn print() {
    println!(
        "{:<22} {:<28} {:>24} {:>24} {:>24}",
        "p50/p99/p99.9 ms, hedges", "client", "as usual", "brownout", "after it"
    );
    for notices in [true, false] {
        let name = if notices { "cancels are noticed" } else { "cancels not noticed" };
        let mut all = vec![];
        for contestant in &CONTESTANTS {
            let figures = run(contestant, 1, notices);
            let cell = |of: usize| {
                let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|it| figures.percentile(of, it));
                format!("{p50:.0}/{p99:.0}/{p999:.0} {:.1}%", figures.extra(of))
            };
            let (name_of, cells) = (contestant.0, [0, 1, 2].map(cell));
            let [usual, brownout, after] = cells;
            println!("{name:<22} {name_of:<28} {usual:>24} {brownout:>24} {after:>24}");
            all.push(figures);
        }
        let (none, tower, ours) = (&all[0], &all[1], &all[3]);
        let bar = |what: &str, value: f64, most: f64| print_bar(name, what, value, most);
        let p999 = |it: &Figures| it.percentile(0, 0.999);
        bar("p99.9 ms as usual", p999(ours), p999(none) / 4.0);
        bar("hedges % as usual", ours.extra(0), 6.0);
        let usual = ours.percentile(0, 0.5);
        bar("p50 ms from 5 s after the brownout", ours.percentile(3, 0.5), 2.0 * usual);
        let tower = tower.percentile(4, 0.5);
        println!("tail, {name}: p50 of tower::hedge 25 s after the brownout: {tower:.0} ms");
    }
}

/// The requests over sockets, and how many a second: few enough that the machine adds no tail.
const REQUESTS: usize = 20_000;
const PER_SECOND: f64 = 200.0;

/// Prints what hedges bring over sockets, where two responses in a hundred take two seconds.
pub(crate) async fn print_on_sockets() {
    let rule = Rule::SlowTail { share: 0.02, latency: Duration::from_secs(2) };
    let refused = Arc::<Mutex<BTreeMap<&str, usize>>>::default();
    let counts = Arc::clone(&refused);
    let hedge = ResilientConfig::builder().hedge(Hedge::learned(0.95)).on_event(move |event| {
        if let Event::HedgeRefused(it) = event {
            *counts.lock().expect("counts").entry(it.why.as_str()).or_default() += 1;
        }
    });
    let hedge = hedge.build().expect("a config");
    let mut tails = vec![];
    for (name, config) in [("no hedge", ResilientConfig::default()), ("Resilient", hedge)] {
        let ledger = Arc::new(Ledger::new(None));
        let server = Server::start(0, &Host::new(rule), 1, &ledger).await;
        let client = ResilientClient::builder().config(config).with_reqwest(|it| it.no_proxy());
        let client = Arc::new(client.build().expect("a client"));
        let (begin, mut requests) = (Instant::now(), JoinSet::new());
        for id in 0..REQUESTS {
            sleep_until(begin + Duration::from_secs_f64(id as f64 / PER_SECOND)).await;
            let url =
                format!("http://{}{}", server.address, path(Ask { id, host: 0, route: Route::A }));
            let client = Arc::clone(&client);
            requests.spawn(async move {
                let start = Instant::now();
                match client.get(url).send().await {
                    Ok(response) => drop(response.bytes().await),
                    Err(error) => eprintln!("{error}"),
                }
                start.elapsed().as_secs_f64() * 1e3
            });
        }
        let mut took = requests.join_all().await;
        took.sort_by(f64::total_cmp);
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|it| took[(took.len() as f64 * it) as usize]);
        let sends = ledger.figures(&[]).sends;
        let extra = 100.0 * (sends / REQUESTS as f64 - 1.0);
        println!("2 % take 2 s, sockets  {name:<28} {p50:.0}/{p99:.0}/{p999:.0} {extra:.1}%");
        tails.push(p999);
    }
    println!("hedges refused: {:?}", refused.lock().expect("counts"));
    print_bar("sockets", "p99.9 ms", tails[1], tails[0] / 4.0);
}

fn print_bar(name: &str, what: &str, value: f64, most: f64) {
    let verdict = if value <= most { "met" } else { "missed" };
    println!("bar tail, {name}: {what} {value:.1} of at most {most:.1}: {verdict}");
}
