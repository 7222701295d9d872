//! A node: a process of its own that sends requests, and prints facts as JSON lines.
//!
//! The process is this test binary, in which one ignored test is the node.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{
    Event, Rate, RateLimit, RequestBuilderExt as _, Resilient, ResilientConfig,
    fleet::{BoxError, BoxFuture, Fleet, FleetNews, FleetStore, HostAdvice, HostReport, NodeId},
};
use reqwest_resilient_redis::RedisFleet;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::support::until;

/// What a node is asked to be.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// The URL of its redis; without one, it is no node of a fleet.
    pub(crate) redis: Option<String>,
    /// The services that it asks in turn.
    pub(crate) urls: Vec<String>,
    /// Where it believes that the service is.
    pub(crate) address: &'static str,
    pub(crate) per_second: u32,
    pub(crate) news: bool,
    /// The rate that all nodes keep together; what exceeds it is refused.
    pub(crate) fleet_rate: Option<u32>,
    /// What its wall clock is wrong by, such as `+1h`.
    pub(crate) clock: Option<&'static str>,
}

impl Settings {
    pub(crate) fn new(name: impl Into<String>, redis: String, url: String) -> Self {
        Self {
            name: name.into(),
            redis: Some(redis),
            urls: vec![url],
            address: "127.0.0.1",
            per_second: 20,
            news: false,
            fleet_rate: None,
            clock: None,
        }
    }
}

/// A fact of a node, and when it was heard of.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) at: Instant,
    pub(crate) value: Value,
}

/// A node under way, killed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    child: Child,
    input: ChildStdin,
    facts: Arc<Mutex<Vec<Fact>>>,
}

impl Node {
    pub(crate) fn start(settings: &Settings) -> Self {
        let binary = std::env::current_exe().unwrap();
        let mut command = match settings.clock {
            Some(clock) => {
                let mut it = Command::new("faketime");
                it.args(["-f", clock]).arg(binary).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
                it
            }
            None => Command::new(binary),
        };
        let argument = json!({
            "name": settings.name,
            "redis": settings.redis,
            "urls": settings.urls,
            "address": settings.address,
            "per_second": settings.per_second,
            "news": settings.news,
            "fleet_rate": settings.fleet_rate,
        });
        let mut child = command
            .args(["support::node::process", "--exact", "--ignored", "--nocapture"])
            .env("FLEET_NODE", argument.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process of this binary, or of faketime, Debian's package of that name");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let facts = Arc::new(Mutex::new(vec![]));
        let heard = Arc::clone(&facts);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test's own lines lie between.
                let Some(start) = line.find('{') else { continue };
                if let Ok(value) = serde_json::from_str(&line[start..]) {
                    heard.lock().unwrap().push(Fact { at: Instant::now(), value });
                }
            }
        });
        let it = Self { name: settings.name.clone(), child, input, facts };
        it.wait("started", Duration::from_secs(20), |it| it["started"] == true);
        it
    }

    /// Returns all facts that satisfy `wanted`.
    pub(crate) fn facts(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Fact> {
        self.facts.lock().unwrap().iter().filter(|it| wanted(&it.value)).cloned().collect()
    }

    /// Returns the states of the fleet's breaker that it saw, in order.
    pub(crate) fn states(&self) -> Vec<String> {
        let facts = self.facts(|it| !it["fleet"].is_null());
        facts.iter().map(|it| it.value["fleet"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for the first fact that satisfies `wanted`.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, most: Duration, wanted: impl Fn(&Value) -> bool) -> Fact {
        self.wait_since(Instant::now() - Duration::from_secs(3_600), what, most, wanted)
    }

    /// Waits for the first fact after `since` that satisfies `wanted`.
    #[track_caller]
    pub(crate) fn wait_since(
        &self,
        since: Instant,
        what: &str,
        most: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Fact {
        let mut found = None;
        until(&format!("{}: {what}", self.name), most, || {
            found = self.facts(&wanted).into_iter().find(|it| it.at >= since);
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until it knows that the breaker of the fleet is in this state.
    #[track_caller]
    pub(crate) fn wait_state(&self, since: Instant, state: &str, most: Duration) -> Fact {
        self.wait_since(since, state, most, |it| it["fleet"] == state)
    }

    /// Returns what it measured since it was asked last.
    #[track_caller]
    pub(crate) fn mark(&mut self) -> Value {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mark = COUNT.fetch_add(1, Relaxed);
        writeln!(self.input, "{mark}").unwrap();
        self.wait("a mark", Duration::from_secs(10), |it| it["mark"] == mark).value
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

tokio::task_local! {
    /// Set while a request is under way.
    static ON_PATH: ();
}

/// Counts the calls of a store, and those within a request.
struct Counted {
    inner: RedisFleet<ConnectionManager>,
    measured: Arc<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    exchanges: AtomicU64,
    exchanged: AtomicU64,
    on_path: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    by_fleet: AtomicU64,
    micros: Mutex<Vec<u32>>,
}

impl Measured {
    fn note_call(&self) {
        if ON_PATH.try_with(|()| ()).is_ok() {
            self.on_path.fetch_add(1, Relaxed);
        }
    }

    fn take(&self, mark: u64, in_fleet: bool) -> Value {
        let mut micros = std::mem::take(&mut *self.micros.lock().unwrap());
        micros.sort_unstable();
        let quantile = |q: f64| {
            let at = (micros.len() as f64 * q) as usize;
            micros.get(at.min(micros.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let take = |it: &AtomicU64| it.swap(0, Relaxed);
        json!({
            "mark": mark,
            "in_fleet": in_fleet,
            "requests": micros.len(),
            "p50": quantile(0.5),
            "p99": quantile(0.99),
            "longest": quantile(1.0),
            "ok": take(&self.ok),
            "failed": take(&self.failed),
            "rejected": take(&self.rejected),
            "by_fleet": take(&self.by_fleet),
            "on_path": take(&self.on_path),
            "exchanges": take(&self.exchanges),
            "exchanged": take(&self.exchanged),
        })
    }
}

impl FleetStore for Counted {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        self.measured.note_call();
        Box::pin(async move {
            self.measured.note_call();
            self.measured.exchanges.fetch_add(1, Relaxed);
            let advice = self.inner.exchange(node, reports).await;
            if advice.is_ok() {
                self.measured.exchanged.fetch_add(1, Relaxed);
            }
            advice
        })
    }

    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        self.measured.note_call();
        self.inner.next_news()
    }
}

fn say(fact: &Value) {
    let mut out = std::io::stdout().lock();
    // The test has gone: so does the node.
    if writeln!(out, "{fact}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

#[tokio::test]
#[ignore = "not a test: the process of a node"]
async fn process() {
    let Ok(settings) = std::env::var("FLEET_NODE") else { return };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let text = |key: &str| settings[key].as_str().unwrap().to_owned();

    let measured = Arc::new(Measured::default());
    let fleet = settings["redis"].as_str().map(|redis| {
        let redis = redis::Client::open(redis).unwrap();
        let patient = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(500));
        let connection = ConnectionManager::new_lazy_with_config(redis.clone(), patient).unwrap();
        let mut inner = RedisFleet::new(connection, "test");
        if settings["news"] == true {
            inner = inner.with_news(redis);
        }
        Fleet::new(Counted { inner, measured: Arc::clone(&measured) })
    });

    let mut config = ResilientConfig::builder();
    if let Some(rate) = settings["fleet_rate"].as_u64() {
        let rate = Rate::per_second(u32::try_from(rate).unwrap());
        config = config.rate_limit(RateLimit::fleet(rate).max_wait(Duration::ZERO));
    }
    let config = config
        .max_retries(0)
        .max_open_wait(Duration::ZERO)
        .attempt_timeout(Duration::from_secs(1))
        .on_event(|event| {
            if let Event::FleetChanged(it) = event {
                say(&json!({ "fleet": it.to.as_str(), "host": it.host }));
            }
        })
        .build()
        .unwrap();
    let address = std::net::SocketAddr::new(text("address").parse().unwrap(), 0);
    let inner = reqwest::Client::builder().resolve("service.test", address).no_proxy();
    let mut resilient = Resilient::new(config);
    if let Some(fleet) = &fleet {
        resilient = resilient.with_fleet(fleet);
    }
    let client = ClientBuilder::new(inner.build().unwrap()).with(resilient).build();

    let (commands, in_fleet) = (Arc::clone(&measured), fleet.is_some());
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            say(&commands.take(line.parse().unwrap_or_default(), in_fleet));
        }
        std::process::exit(0);
    });
    say(&json!({ "started": true }));

    let urls = settings["urls"].as_array().unwrap().to_vec();
    let per_second = settings["per_second"].as_u64().unwrap();
    let mut ticks = interval(Duration::from_micros(1_000_000 / per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for nth in 0.. {
        ticks.tick().await;
        let url = urls[nth % urls.len()].as_str().unwrap();
        let request = client.get(url).header("x-node", text("name"));
        let measured = Arc::clone(&measured);
        tokio::spawn(ON_PATH.scope((), async move {
            let began = Instant::now();
            let result = request.send_resilient().await;
            let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
            measured.micros.lock().unwrap().push(micros);
            match result {
                Ok(_) => measured.ok.fetch_add(1, Relaxed),
                Err(error) if error.is_circuit_open() => {
                    if format!("{error:#}").contains("fleet")
                        && measured.by_fleet.fetch_add(1, Relaxed) == 0
                    {
                        say(&json!({ "rejected": format!("{error:#}") }));
                    }
                    measured.rejected.fetch_add(1, Relaxed)
                }
                Err(_) => measured.failed.fetch_add(1, Relaxed),
            };
        }));
    }
}
