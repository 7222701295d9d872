//! What a request that succeeds at once pays, beside reqwest-retry: `cargo bench --bench overhead`.
//!
//! The chain ends in a middleware that answers by itself, so that nothing but the chain is
//! measured. Every case takes its turn in each round, so that a busy machine is busy for all; the
//! cost of a case is what it adds to the bare chain, by the median of the rounds.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{Extensions, Method};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{Resilient, ResilientConfig, RetryOverride};
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

/// What it takes to know how late it is, which any limit, budget or breaker has to.
fn clock_reading() -> f64 {
    let start = Instant::now();
    (0..1_000_000).for_each(|_| {
        black_box(Instant::now());
    });
    start.elapsed().as_nanos() as f64 / 1e6
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
        Case::new("reqwest-retry", Some(peer())),
        Case::new("ours, retry only", Some(retry_only())),
        Case::new("ours, everything", Some(Resilient::default())),
        Case {
            with: Some(RetryOverride::new().max_retries(5)),
            ..Case::new("ours, everything, override", Some(Resilient::default()))
        },
        Case { request: post, ..Case::new("bare chain, stream", None::<PassThrough>) },
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

    println!("{:<28} {:>8} {:>8} {:>7} {:>7}", "case", "ns", "added", "allocs", "bytes");
    let bare = [0, 7].map(|it| (cases[it].median(), cases[it].allocations, cases[it].bytes));
    let added: Vec<(f64, f64)> = cases
        .iter_mut()
        .enumerate()
        .map(|(i, case)| {
            let (time, allocations, bytes) = bare[usize::from(i >= 7)];
            let (ns, more) = (case.median(), case.allocations.saturating_sub(allocations));
            let name = case.name;
            let bytes = case.bytes.saturating_sub(bytes);
            println!("{name:<28} {ns:>8.0} {:>8.0} {more:>+7} {bytes:>+7}", ns - time);
            (ns - time, more as f64)
        })
        .collect();

    let (peer_time, peer_allocations) = added[3];
    let [boxed, copied, clock] = [added[1].0, added[2].0, clock_reading()].map(|it| it / peer_time);
    println!(
        "of reqwest-retry's time: a box {boxed:.2}, a box and a copy {copied:.2}, reading a clock {clock:.2}"
    );
    bar("everything, time", added[5].0, peer_time, 1.0);
    bar("everything, allocations", added[5].1, peer_allocations, 1.0);
    bar("retry only, time", added[4].0, peer_time, 0.85);
    bar("retry only, allocations", added[4].1, peer_allocations, 1.0);
    bar("cannot repeat, retry only, time", added[8].0, peer_time, 0.4);
    bar("cannot repeat, everything, time", added[9].0, peer_time, 0.4);
    bar("cannot repeat, allocations", added[9].1, peer_allocations, 1.0);
}
