//! What a request that succeeds at once pays, beside reqwest-retry: `cargo bench --bench overhead`;
//! `--features metrics,tracing` adds the rows of the observers.
//!
//! The rows are what people run: a middleware by default with `send`, and a `ResilientClient`, which
//! has a timeout and keeps a history, with `send_resilient`. The chain ends in a middleware that
//! answers by itself, so that nothing but the chain is measured. Every case takes its turn in each
//! round, so that a busy machine is busy for all; the cost of a case is what it adds to the bare
//! chain, by the median of the rounds. Where things happen to lie in memory makes 20 ns, so there
//! are many processes in which they lie elsewhere, and the median of theirs counts.

use std::alloc::System;
use std::collections::HashMap;
use std::hint::black_box;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};

use http::{Extensions, Method};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    IdempotencyKey, Resilient, ResilientClient, ResilientConfig, ResilientConfigBuilder,
    RetryOverride,
    testing::{Chaos, Fault},
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "support/mod.rs"]
mod support;

use support::{
    bar,
    chain::{Answer, get_with_headers},
    drive,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The limit of an attempt, as `ResilientClient` has it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The least that a middleware with a future of its own costs.
struct PassThrough;

#[async_trait::async_trait]
impl Middleware for PassThrough {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        next.run(request, extensions).await
    }
}

/// A middleware without a future of its own: what the chain itself takes for one more link.
struct Link;

impl Middleware for Link {
    fn handle<'a, 'extensions, 'next, 'future>(
        &'a self,
        request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'future>>
    where
        'a: 'future,
        'extensions: 'future,
        'next: 'future,
    {
        next.run(request, extensions)
    }
}

/// The least that any middleware costs which can send a request twice.
struct Copy;

#[async_trait::async_trait]
impl Middleware for Copy {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let copy = request.try_clone();
        let response = next.run(request, extensions).await;
        drop(black_box(copy));
        response
    }
}

/// The limit of an attempt that reqwest-retry lacks.
struct Timeout;

#[async_trait::async_trait]
impl Middleware for Timeout {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let sent = tokio::time::timeout(TIMEOUT, next.run(request, extensions)).await;
        sent.map_err(reqwest_middleware::Error::middleware)?
    }
}

struct Case {
    name: &'static str,
    send: Box<dyn Fn()>,
    rounds: Vec<f64>,
    allocations: usize,
    bytes: usize,
}

impl Case {
    fn new(name: &'static str, send: impl Fn() + 'static) -> Self {
        // Puts what follows elsewhere in each process.
        std::mem::forget(vec![0_u8; rand::random_range(0..4_096)]);
        Self { name, send: Box::new(send), rounds: vec![], allocations: 0, bytes: 0 }
    }

    fn round(&mut self, requests: u32) {
        let start = Instant::now();
        (0..requests).for_each(|_| (self.send)());
        self.rounds.push(start.elapsed().as_nanos() as f64 / f64::from(requests));
    }

    fn count(&mut self) {
        (self.send)();
        let region = Region::new(ALLOCATOR);
        (self.send)();
        let change = region.change();
        (self.allocations, self.bytes) = (change.allocations, change.bytes_allocated);
    }

    fn median(&mut self) -> f64 {
        self.rounds.sort_by(f64::total_cmp);
        self.rounds[self.rounds.len() / 2]
    }
}

/// A chain with this middleware.
fn chain(middleware: Option<impl Middleware>) -> ClientBuilder {
    let client = ClientBuilder::new(reqwest::Client::new());
    match middleware {
        Some(middleware) => client.with(middleware),
        None => client,
    }
}

/// Requests that are made elsewhere.
fn execute(
    name: &'static str,
    middleware: Option<impl Middleware>,
    request: fn() -> Request,
    with: Option<RetryOverride>,
) -> Case {
    let client = chain(middleware).with(Answer).build();
    Case::new(name, move || {
        let mut extensions = Extensions::new();
        if let Some(with) = &with {
            extensions.insert(with.clone());
        }
        let _ = black_box(drive(client.execute_with_extensions(request(), &mut extensions)));
    })
}

fn get(name: &'static str, middleware: impl Middleware) -> Case {
    execute(name, Some(middleware), get_with_headers, None)
}

/// Requests that are built by the client.
fn built(name: &'static str, client: ClientWithMiddleware) -> Case {
    let of = get_with_headers();
    Case::new(name, move || {
        let request = client.get(of.url().clone()).headers(of.headers().clone());
        let _ = black_box(drive(request.send()));
    })
}

fn resilient_client(name: &'static str, config: ResilientConfigBuilder) -> Case {
    let client = ResilientClient::builder().config(config.build().expect("a config"));
    let client = client.with(Answer).build().expect("a client");
    let of = get_with_headers();
    Case::new(name, move || {
        let request = client.get(of.url().clone()).headers(of.headers().clone());
        let _ = black_box(drive(request.send_resilient()));
    })
}

fn resilient(config: ResilientConfigBuilder) -> Resilient {
    Resilient::new(config.build().expect("a config"))
}

/// What tests leave in a client that is not under test now.
fn chaos_that_is_off() -> Chaos {
    Chaos::seeded(42).all(0.05, Fault::status(503))
}

/// A body that can be read only once, so that no retry could follow.
fn post() -> Request {
    let mut request = get_with_headers();
    *request.method_mut() = Method::POST;
    *request.body_mut() = Some(reqwest::Body::wrap(String::from("once")));
    request
}

/// A client that has talked to 100 hosts, and talks to the last one.
fn hundredth_host(name: &'static str) -> Case {
    let middleware = Resilient::default();
    let client = chain(Some(middleware.clone())).with(Answer).build();
    for number in 1..100 {
        let _ = drive(client.get(format!("https://{number}.example.com/")).send());
    }
    get(name, middleware)
}

fn cases() -> Vec<Case> {
    let config = ResilientConfig::builder;
    let retry_only =
        || resilient(config().without_circuit_breaker().without_retry_budget().without_gate());
    let peer = || {
        let policy = ExponentialBackoff::builder().build_with_max_retries(3);
        RetryTransientMiddleware::new_with_policy(policy)
    };
    let (none, again) = (None::<PassThrough>, RetryOverride::new().max_retries(5));
    let default = || Some(Resilient::default());
    let mut cases = vec![
        execute("bare chain", none, get_with_headers, None),
        get("link", Link),
        get("Chaos, off", chaos_that_is_off()),
        get("pass-through", PassThrough),
        get("pass-through and copy", Copy),
        get("reqwest-retry", peer()),
        get("Resilient", Resilient::default()),
        get("Resilient, retry only", retry_only()),
        // A key that no GET needs rules the fast path out.
        get("Resilient, loop alone", resilient(config().idempotency_key(IdempotencyKey::random()))),
        execute("Resilient, override", default(), get_with_headers, Some(again)),
        hundredth_host("Resilient, 100th host"),
    ];
    #[cfg(feature = "tracing")]
    cases.push(get(
        "Resilient, TracingObserver",
        resilient(config().observer(reqwest_resilient::telemetry::TracingObserver::new())),
    ));
    #[cfg(feature = "metrics")]
    cases.push(get(
        "Resilient, MetricsObserver",
        resilient(config().observer(reqwest_resilient::telemetry::MetricsObserver::new())),
    ));
    cases.extend([
        execute("bare chain, stream", None::<PassThrough>, post, None),
        execute("Resilient, stream", default(), post, None),
        built("bare client", chain(None::<PassThrough>).with(Answer).build()),
        built("reqwest-retry, timeout", chain(Some(peer())).with(Timeout).with(Answer).build()),
        resilient_client("ResilientClient", config()),
    ]);
    #[cfg(feature = "tracing")]
    cases.push(resilient_client(
        "ResilientClient, TracingObserver",
        config().observer(reqwest_resilient::telemetry::TracingObserver::new()),
    ));
    #[cfg(feature = "metrics")]
    cases.push(resilient_client(
        "ResilientClient, MetricsObserver",
        config().observer(reqwest_resilient::telemetry::MetricsObserver::new()),
    ));
    cases
}

/// What observers talk to in production: spans are kept, metrics are counted.
fn install_telemetry() {
    #[cfg(feature = "tracing")]
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("the first");
    #[cfg(feature = "metrics")]
    {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::set_global_recorder(recorder).expect("the first");
    }
}

fn main() {
    // Only for the timers: nothing waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    if std::env::args().any(|it| it.contains("Observer"))
        || !std::env::args().any(|it| it == "--only")
    {
        install_telemetry();
    }
    let mut cases = cases();
    // For an instruction counter: `--only CASE REQUESTS` runs that many of one case.
    let arguments: Vec<String> = std::env::args().skip_while(|it| it != "--only").collect();
    if let [_, name, requests, ..] = &arguments[..] {
        let case = cases.iter().find(|it| it.name == name).expect("the name of a case");
        (0..requests.parse().expect("a number")).for_each(|_: u32| (case.send)());
        return;
    }
    if std::env::args().any(|it| it == "--part") {
        let until = Instant::now() + Duration::from_millis(250);
        while Instant::now() < until {
            cases.iter_mut().for_each(|it| it.round(500));
        }
        for case in &mut cases {
            let ns = case.median();
            println!("{}\t{ns}", case.name);
        }
        return;
    }
    cases.iter_mut().for_each(Case::count);
    for _ in 0..480 {
        let part = std::env::current_exe().and_then(|it| Command::new(it).arg("--part").output());
        let part = String::from_utf8(part.expect("a part").stdout).expect("text");
        assert_eq!(part.lines().count(), cases.len(), "a part that came to its end");
        for (case, line) in cases.iter_mut().zip(part.lines()) {
            let ns = line.strip_prefix(case.name).expect("the same cases").trim();
            case.rounds.push(ns.parse().expect("a number"));
        }
    }
    report(&mut cases);
}

fn report(cases: &mut [Case]) {
    println!("{:<34} {:>8} {:>8} {:>7} {:>7}", "case", "ns", "added", "allocs", "bytes");
    let mut added = HashMap::new();
    let mut bare = (0.0, 0, 0);
    for case in cases {
        let (name, ns) = (case.name, case.median());
        // Each bare chain comes before those that are measured against it.
        if name.starts_with("bare") {
            bare = (ns, case.allocations, case.bytes);
        }
        let more = case.allocations.saturating_sub(bare.1);
        let bytes = case.bytes.saturating_sub(bare.2);
        println!("{name:<34} {ns:>8.0} {:>8.0} {more:>+7} {bytes:>+7}", ns - bare.0);
        added.insert(name, (ns - bare.0, more as f64));
    }
    bar("Chaos that is off, ns over a link", added["Chaos, off"].0 - added["link"].0, 5.0, 1.0);
    for (ours, peer, time, allocations) in [
        ("Resilient", "reqwest-retry", 1.1, 7.0),
        ("ResilientClient", "reqwest-retry, timeout", 1.5, 9.0),
    ] {
        bar(&format!("{ours}, time, {peer}"), added[ours].0, added[peer].0, time);
        bar(&format!("{ours}, allocations"), added[ours].1, allocations, 1.0);
    }
}
