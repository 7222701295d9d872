//! What a request that succeeds at once pays, beside reqwest-retry: `cargo bench --bench overhead`.
//!
//! The chain ends in a middleware that answers by itself, so that nothing but the chain is
//! measured. Every case takes its turn in each round, so that a busy machine is busy for all; the
//! cost of a case is what it adds to the bare chain, by the median of the rounds.

use std::alloc::System;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Extensions, HeaderValue, Method, header};
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{Resilient, ResilientConfig, RetryOverride};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The end of the chain.
struct Answer;

#[async_trait::async_trait]
impl Middleware for Answer {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let answer = http::Response::builder().url(request.url().clone()).body("");
        Ok(answer.expect("a response").into())
    }
}

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
        Self { name, client, request: get, with, rounds, allocations: 0, bytes: 0 }
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

fn get() -> Request {
    let url = "https://api.example.com/v1/things/42?fields=name".parse().expect("a url");
    let mut request = Request::new(Method::GET, url);
    for (name, value) in [
        (header::ACCEPT, "application/json"),
        (header::USER_AGENT, "bench/1.0"),
        (header::AUTHORIZATION, "Bearer 0123456789"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

/// A body that can be read only once, so that no retry could follow.
fn post() -> Request {
    let mut request = get();
    *request.method_mut() = Method::POST;
    *request.body_mut() = Some(reqwest::Body::wrap(String::from("once")));
    request
}

/// Runs a future that never has to wait.
fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
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

    let bar = |name: &str, ours: f64, peer: f64, reach: f64| {
        let ratio = ours / peer;
        let verdict = if ratio <= reach { "met" } else { "missed" };
        println!("bar {name} {ours:.0}/{peer:.0} {ratio:.2} to reach {reach:.2}: {verdict}");
    };
    let (peer_time, peer_allocations) = added[3];
    let share = |of: (f64, f64)| of.0 / peer_time;
    println!(
        "of reqwest-retry's time: a box {:.2}, a box and a copy {:.2}",
        share(added[1]),
        share(added[2])
    );
    bar("everything, time", added[5].0, peer_time, 1.0);
    bar("everything, allocations", added[5].1, peer_allocations, 1.0);
    bar("retry only, time", added[4].0, peer_time, 0.85);
    bar("retry only, allocations", added[4].1, peer_allocations, 1.0);
    bar("cannot repeat, retry only, time", added[8].0, peer_time, 0.4);
    bar("cannot repeat, everything, time", added[9].0, peer_time, 0.4);
    bar("cannot repeat, allocations", added[9].1, peer_allocations, 1.0);
}
