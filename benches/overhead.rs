//! What a request that succeeds at once pays, beside reqwest-retry: `cargo bench --bench overhead`.
//!
//! The chain ends in a middleware that answers by itself, so that nothing but the chain is
//! measured. Every case takes its turn in each round, so that a busy machine is busy for all; the
//! cost of a case is what it adds to the bare chain, by the median of the rounds.

use std::alloc::System;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{
    Arc, RwLock,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use http::{Extensions, Method};
use recloser::Recloser;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{Resilient, ResilientConfig, RetryOverride, bench::Account};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use url::Position;

#[path = "support/mod.rs"]
mod support;

use support::{
    bar,
    chain::{Answer, get_with_headers},
    drive,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The least that any middleware costs.
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

/// The least that any middleware costs which repeats requests within limits of time and, with
/// `hosts`, has a breaker, a budget and a gate for each: what is done for a request that succeeds,
/// by the quickest there is of each, others' or ours, and nothing decided.
#[derive(Default)]
struct Least {
    hosts: Option<RwLock<HashMap<Box<str>, Arc<Host>>>>,
}

struct Host {
    breaker: Recloser,
    budget: Account,
    is_closed: AtomicBool,
}

impl Least {
    fn with_hosts() -> Self {
        Self { hosts: Some(RwLock::default()) }
    }

    fn host(&self, request: &Request) -> Option<Arc<Host>> {
        let hosts = self.hosts.as_ref()?;
        let key = &request.url()[..Position::AfterPort];
        let found = hosts.read().expect("no panic").get(key).cloned();
        Some(found.unwrap_or_else(|| {
            let (breaker, budget) = (Recloser::default(), Account::new(Instant::now().into()));
            let host = Arc::new(Host { breaker, budget, is_closed: AtomicBool::new(false) });
            hosts.write().expect("no panic").insert(key.into(), Arc::clone(&host));
            host
        }))
    }
}

#[async_trait::async_trait]
impl Middleware for Least {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let started = Instant::now();
        let host = self.host(&request);
        let copy = request.try_clone();
        // Where there can be no copy, an error has to name the request all the same.
        let name = copy.is_none().then(|| (request.method().clone(), request.url().clone()));
        if host.as_ref().is_some_and(|it| it.is_closed.load(Ordering::Acquire)) {
            return Err(reqwest_middleware::Error::middleware(std::io::Error::other("closed")));
        }
        let response = next.run(request, extensions).await;
        if let Some(host) = &host {
            let _entered_and_left = host.breaker.call(|| Ok::<(), ()>(()));
            host.budget.deposit(Instant::now().into());
        }
        drop(black_box((copy, name, started)));
        response
    }
}

struct Case {
    name: &'static str,
    client: ClientWithMiddleware,
    request: fn() -> Request,
    with: Option<RetryOverride>,
    rounds: Vec<f64>,
    allocations: usize,
    bytes: usize,
}

impl Case {
    fn new(name: &'static str, middleware: Option<impl Middleware>) -> Self {
        let client = ClientBuilder::new(reqwest::Client::new());
        let client = match middleware {
            Some(middleware) => client.with(middleware),
            None => client,
        };
        let client = client.with(Answer).build();
        let (rounds, with) = (vec![], None);
        Self { name, client, request: get_with_headers, with, rounds, allocations: 0, bytes: 0 }
    }

    fn once(&self) {
        let mut extensions = Extensions::new();
        if let Some(with) = &self.with {
            extensions.insert(with.clone());
        }
        let response = self.client.execute_with_extensions((self.request)(), &mut extensions);
        let _ = black_box(drive(response));
    }

    fn round(&mut self, requests: u32) {
        let start = Instant::now();
        (0..requests).for_each(|_| self.once());
        self.rounds.push(start.elapsed().as_nanos() as f64 / f64::from(requests));
    }

    fn count(&mut self) {
        self.once();
        let region = Region::new(ALLOCATOR);
        self.once();
        let change = region.change();
        (self.allocations, self.bytes) = (change.allocations, change.bytes_allocated);
    }

    fn median(&mut self) -> f64 {
        self.rounds.sort_by(f64::total_cmp);
        self.rounds[self.rounds.len() / 2]
    }
}

/// A body that can be read only once, so that no retry could follow.
fn post() -> Request {
    let mut request = get_with_headers();
    *request.method_mut() = Method::POST;
    *request.body_mut() = Some(reqwest::Body::wrap(String::from("once")));
    request
}

fn main() {
    let retry_only = || {
        let config = ResilientConfig::builder().without_circuit_breaker().without_retry_budget();
        Resilient::new(config.without_gate().build().expect("a config"))
    };
    let peer = || {
        let policy = ExponentialBackoff::builder().build_with_max_retries(3);
        RetryTransientMiddleware::new_with_policy(policy)
    };
    let none = None::<PassThrough>;
    let mut cases = [
        Case::new("bare chain", none),
        Case::new("pass-through", Some(PassThrough)),
        Case::new("pass-through and copy", Some(Copy)),
        Case::new("the least, retry only", Some(Least::default())),
        Case::new("the least, everything", Some(Least::with_hosts())),
        Case::new("reqwest-retry", Some(peer())),
        Case::new("ours, retry only", Some(retry_only())),
        Case::new("ours, everything", Some(Resilient::default())),
        Case {
            with: Some(RetryOverride::new().max_retries(5)),
            ..Case::new("ours, everything, override", Some(Resilient::default()))
        },
        Case { request: post, ..Case::new("bare chain, stream", None::<PassThrough>) },
        Case {
            request: post,
            ..Case::new("the least, retry only, stream", Some(Least::default()))
        },
        Case { request: post, ..Case::new("the least, stream", Some(Least::with_hosts())) },
        Case { request: post, ..Case::new("ours, retry only, stream", Some(retry_only())) },
        Case { request: post, ..Case::new("ours, stream", Some(Resilient::default())) },
    ];
    // For an instruction counter: `--only CASE REQUESTS` runs that many of one case.
    let arguments: Vec<String> = std::env::args().skip_while(|it| it != "--only").collect();
    if let [_, name, requests, ..] = &arguments[..] {
        let case = cases.iter().find(|it| it.name == name).expect("the name of a case");
        (0..requests.parse().expect("a number")).for_each(|_: u32| case.once());
        return;
    }
    cases.iter_mut().for_each(Case::count);
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        cases.iter_mut().for_each(|it| it.round(2_000));
    }

    println!("{:<30} {:>8} {:>8} {:>7} {:>7}", "case", "ns", "added", "allocs", "bytes");
    let mut added = HashMap::new();
    let mut bare = (0.0, 0, 0);
    for case in &mut cases {
        let (name, ns) = (case.name, case.median());
        // Each bare chain comes before those that are measured against it.
        if name.starts_with("bare") {
            bare = (ns, case.allocations, case.bytes);
        }
        let more = case.allocations.saturating_sub(bare.1);
        let bytes = case.bytes.saturating_sub(bare.2);
        println!("{name:<30} {ns:>8.0} {:>8.0} {more:>+7} {bytes:>+7}", ns - bare.0);
        added.insert(name, (ns - bare.0, more as f64));
    }

    let (peer_time, peer_allocations) = added["reqwest-retry"];
    for (name, least, ours, reach) in [
        ("everything", "the least, everything", "ours, everything", 1.0),
        ("retry only", "the least, retry only", "ours, retry only", 0.85),
        (
            "cannot repeat, retry only",
            "the least, retry only, stream",
            "ours, retry only, stream",
            0.4,
        ),
        ("cannot repeat, everything", "the least, stream", "ours, stream", 0.4),
    ] {
        println!("the least for {name}: {:.2} of reqwest-retry's time", added[least].0 / peer_time);
        bar(&format!("{name}, time"), added[ours].0, peer_time, reach);
        bar(&format!("{name}, allocations"), added[ours].1, peer_allocations, 1.0);
    }
}
