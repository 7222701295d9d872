//! Everything on at once: limits, hedges, mirrors, a fleet and downloads, beside breaker, budget and
//! gate; two clients, each with hosts of its own.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures_util::stream;
use http::header;
use reqwest::Body;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::fleet::{Fleet, InProcessFleet};
use reqwest_resilient::{
    ConcurrencyLimit, DownloadExt, Event, Hedge, Limit, Mirrors, Rate, RetryOverride,
};

use super::*;

const CLIENTS: usize = 2;
/// Attempts of one client at one host at a time.
const LIMIT: u32 = 6;
const TOTAL: Duration = ms(150);
const FILE: &[u8] = b"the quick brown fox jumps over the lazy dog, and comes back for the rest";

#[tokio::test(start_paused = true)]
#[ignore = "takes long"]
async fn nothing_leaks_with_everything_on_in_virtual_time() {
    everything(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes long"]
async fn nothing_leaks_with_everything_on_across_threads() {
    everything(false).await;
}

/// How often each kind of event was notified.
#[derive(Debug, Default)]
struct Events {
    hedges: AtomicU64,
    superseded: AtomicU64,
    unhedged: AtomicU64,
    failovers: AtomicU64,
    queued: AtomicU64,
    limited: AtomicU64,
    resumed: AtomicU64,
    breakers: AtomicU64,
    gates: AtomicU64,
    retries: AtomicU64,
    /// Requests that ended, with or without success.
    ended: AtomicU64,
}

impl Events {
    fn count(&self, event: &Event<'_>) {
        let count = match event {
            Event::HedgeStarted(_) => &self.hedges,
            Event::Superseded(_) => &self.superseded,
            Event::HedgeRefused(_) => &self.unhedged,
            Event::FailedOver(_) => &self.failovers,
            Event::Queued(_) => &self.queued,
            Event::Rejected(_) => &self.limited,
            Event::Resuming(_) => &self.resumed,
            Event::BreakerChanged(_) => &self.breakers,
            Event::GateClosed(_) => &self.gates,
            Event::Waiting(_) => &self.retries,
            Event::Succeeded(_) | Event::GaveUp(_) => &self.ended,
            _ => return,
        };
        count.fetch_add(1, Relaxed);
    }

    /// Asserts that each kind came up: a setting that does nothing would soak nothing.
    fn assert_all(&self) {
        let Self { hedges, superseded, failovers, queued, limited, resumed, .. } = self;
        for count in [hedges, superseded, failovers, queued, limited, resumed] {
            assert!(count.load(Relaxed) > 0, "tame chaos: {self:?}");
        }
        let Self { unhedged, breakers, gates, retries, ended, .. } = self;
        for count in [unhedged, breakers, gates, retries, ended] {
            assert!(count.load(Relaxed) > 0, "tame chaos: {self:?}");
        }
    }
}

/// What all clients and their server share.
#[derive(Default)]
struct World {
    dice: Dice,
    events: Events,
    attempts: AtomicU64,
    twice: AtomicU64,
    downloads: AtomicU64,
    dropped: AtomicU64,
    /// POSTs under way that a server may have processed.
    maybe_processed: Mutex<HashSet<u64>>,
    /// Bytes, once a tenth of the requests is through.
    early_memory: AtomicU64,
}

fn client(world: &Arc<World>, hosts: &HostStates, fleet: &Fleet) -> ClientWithMiddleware {
    let breaker = BreakerConfig::consecutive(4).open_for(ms(20)).without_open_growth();
    let events = Arc::clone(world);
    // The first four hosts have a mirror each.
    let mirrors: Vec<_> = (0..4)
        .map(|it| Mirrors::new(&url(it)).also(&format!("https://mirror{it}.example.com/")))
        .collect();
    let mut config = ResilientConfig::builder()
        .backoff(Constant::new(ms(4)))
        .attempt_timeout(ms(25))
        .max_total_time(TOTAL)
        .circuit_breaker(breaker)
        .retry_budget(BudgetConfig::default().size(SIZE).deposit(DEPOSIT))
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(LIMIT)).max_queue_time(ms(30)))
        .hedge(Hedge::after(ms(8)).share(0.3).max_hedges(2))
        .mirrors(mirrors)
        .on_event(move |event| events.events.count(event));
    // Hosts with a rate limit are not hedged.
    for host in HOSTS / 2..HOSTS {
        let limited = RetryOverride::new().rate_limit(Rate::per_second(100));
        config = config.host(&format!("host{host}.example.com"), limited);
    }
    let config = config.build().unwrap();
    let resilient = Resilient::new(config).with_hosts(hosts.clone()).with_fleet(fleet);
    let server = Server { world: Arc::clone(world), in_flight: Arc::default() };
    ClientBuilder::new(idle_client()).with(resilient).with(server).build()
}

fn url(host: u64) -> String {
    format!("https://host{host}.example.com/")
}

async fn everything(is_virtual: bool) {
    let (requests, seed) = (number("SOAK_REQUESTS", 100_000), number("SOAK_SEED", 1));
    let world = Arc::new(World { dice: Dice(AtomicU64::new(seed)), ..World::default() });
    let store = InProcessFleet::new();
    let hosts: [HostStates; CLIENTS] = Default::default();
    let clients = hosts.each_ref().map(|it| client(&world, it, &Fleet::new(store.clone())));
    let (next, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (client, world) = (clients[worker % CLIENTS].clone(), Arc::clone(&world));
        let next = Arc::clone(&next);
        workers.spawn(async move {
            loop {
                let id = next.fetch_add(1, Relaxed);
                if id >= requests {
                    return;
                }
                one(&client, &world, id, is_virtual).await;
                if id == requests / 10 {
                    world.early_memory.store(resident_memory(), Relaxed);
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    // Hedges and bodies that were dropped have ended by then.
    sleep(ms(200)).await;
    report(&world, requests, begun);
    hosts.iter().for_each(assert_idle);
}

/// Sends one request: most of them plain, some as downloads, some dropped on their way.
async fn one(client: &ClientWithMiddleware, world: &World, id: u64, is_virtual: bool) {
    let dice = &world.dice;
    let url = url(dice.below(HOSTS));
    let patience = if dice.below(8) == 0 { dice.below(40) } else { 10_000 };
    if dice.below(5) == 0 {
        let download = client.get(url).header("x-id", id).download().max_retries(3).bytes();
        match timeout(ms(patience), download).await {
            Ok(Ok(bytes)) => {
                assert_eq!(bytes, FILE);
                world.downloads.fetch_add(1, Relaxed);
            }
            Ok(Err(_)) => {}
            Err(_) => _ = world.dropped.fetch_add(1, Relaxed),
        }
        return;
    }
    let methods = [Method::GET, Method::GET, Method::POST, Method::PUT];
    let method = methods[dice.below(4) as usize].clone();
    let begun = Instant::now();
    let request = client.request(method, url).header("x-id", id).body("once").send();
    match timeout(ms(patience), request).await {
        // Some are read, the others dropped unread.
        Ok(Ok(response)) if dice.below(2) == 0 => _ = response.bytes().await,
        Ok(_) => {}
        Err(_) => _ = world.dropped.fetch_add(1, Relaxed),
    }
    let took = begun.elapsed();
    assert!(!is_virtual || took <= 2 * TOTAL, "a request took {took:?}");
    world.maybe_processed.lock().unwrap().remove(&id);
}

fn report(world: &World, requests: u64, begun: Instant) {
    let World { events, .. } = world;
    let (early, late) = (world.early_memory.load(Relaxed), resident_memory());
    println!("resident memory: {early} bytes after a tenth, {late} at the end");
    println!(
        "{requests} requests, {} dropped, {} attempts, {} downloads whole, {events:?}, {:?}",
        world.dropped.load(Relaxed),
        world.attempts.load(Relaxed),
        world.downloads.load(Relaxed),
        begun.elapsed()
    );
    events.assert_all();
    assert!(world.downloads.load(Relaxed) > requests / 100);
    assert_eq!(world.twice.load(Relaxed), 0, "sent twice, though it may have been processed");
    assert!(late < early + ROOM, "memory grew from {early} to {late} bytes");
}

/// Asserts that no host has anything out.
fn assert_idle(hosts: &HostStates) {
    let now = Instant::now();
    let snapshot = hosts.snapshot(now);
    // The mirrors are hosts of their own.
    assert_eq!(snapshot.len() as u64, HOSTS + 4);
    for breaker in snapshot {
        let key = &breaker.key;
        assert_eq!((breaker.permits_out, breaker.probes_out), (0, 0), "{breaker:?}");
        let used = hosts.limit_use(key).unwrap();
        assert_eq!((used.in_flight, used.queued), (0, 0), "{key}: {used:?}");
        let balance = hosts.budget_left(key, now).unwrap_or_default();
        assert!((0.0..=f64::from(SIZE)).contains(&balance), "{key}: {balance}");
    }
}

/// A server that responds, fails, refuses, hangs and breaks off at random.
struct Server {
    world: Arc<World>,
    /// Attempts of one client under way, by host.
    in_flight: Arc<Mutex<HashMap<String, Arc<AtomicUsize>>>>,
}

/// Counts an attempt as under way until it is dropped.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Server {
    fn enter(&self, request: &Request) -> UnderWay {
        let host = request.url().host_str().unwrap();
        let mut hosts = self.in_flight.lock().unwrap();
        let count = Arc::clone(hosts.entry(host.to_owned()).or_default());
        drop(hosts);
        let under_way = count.fetch_add(1, Relaxed) + 1;
        // A probe goes beyond the limit.
        assert!(under_way <= LIMIT as usize + 1, "{under_way} at {host} at a time");
        UnderWay(count)
    }
}

#[async_trait::async_trait]
impl Middleware for Server {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let (world, _under_way) = (&*self.world, self.enter(&request));
        let id = request.headers()["x-id"].to_str().unwrap().parse().unwrap();
        world.attempts.fetch_add(1, Relaxed);
        let post = request.method() == Method::POST;
        if post && !world.maybe_processed.lock().unwrap().insert(id) {
            world.twice.fetch_add(1, Relaxed);
        }
        let latency = [0, 1, 3, 10, 24, 26, 60][lower(&world.dice, 7) as usize];
        sleep(ms(latency)).await;
        let fate = world.dice.below(100);
        if matches!(fate, 78..84 | 96..) {
            world.maybe_processed.lock().unwrap().remove(&id);
        }
        let status = |status: u16, hint: &'static str| {
            let answer = http::Response::builder().url(request.url().clone()).status(status);
            let answer =
                if hint.is_empty() { answer } else { answer.header("retry-after-ms", hint) };
            Ok(answer.body("some bytes").unwrap().into())
        };
        match fate {
            ..78 => Ok(file(&request, fate < 15)),
            78..81 => status(503, "7"),
            81..84 => status(429, "3"),
            84..88 => status(404, ""),
            88..92 => status(503, ""),
            92..96 => Err(io_error(io::ErrorKind::ConnectionReset)),
            _ => Err(io_error(io::ErrorKind::ConnectionRefused)),
        }
    }
}

/// Returns a number below `limit`, of which the lower ones are likelier.
fn lower(dice: &Dice, limit: u64) -> u64 {
    dice.below(limit).min(dice.below(limit))
}

/// Returns the file, or the part that is asked for; some of them break off halfway.
fn file(request: &Request, breaks_off: bool) -> Response {
    let range = request.headers().get(header::RANGE).map(|it| it.to_str().unwrap());
    let first = range.map_or(0, |it| {
        it.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap()
    });
    let rest = &FILE[first..];
    let answer = http::Response::builder()
        .url(request.url().clone())
        .header(header::ETAG, "\"v1\"")
        .header(header::CONTENT_LENGTH, rest.len());
    let answer = match first {
        0 => answer.status(200),
        _ => answer.status(206).header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{}/{}", FILE.len() - 1, FILE.len()),
        ),
    };
    let half = rest.len() / 2;
    let body = match breaks_off {
        false => Body::from(rest),
        true => Body::wrap_stream(stream::iter([
            Ok(Bytes::from_static(&rest[..half])),
            Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        ])),
    };
    answer.body(body).unwrap().into()
}
