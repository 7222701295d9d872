//! What a request that succeeds at once pays, beside reqwest-retry: `cargo bench --bench overhead`.
//!
//! The chain ends in a middleware that answers by itself, so that nothing but the chain is
//! measured. Every case takes its turn in each round, so that a busy machine is busy for all; the
//! cost of a case is what it adds to the bare chain, by the median of the rounds. Where things happen
//! to lie in memory makes 20 ns, so there are many processes in which they lie elsewhere, and the
//! median of theirs counts.

use std::alloc::System;
use std::collections::HashMap;
use std::hint::black_box;
use std::pin::Pin;
use std::process::Command;
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use http::{Extensions, Method};
use recloser::Recloser;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    Resilient, ResilientConfig, RetryOverride,
    bench::{Account, Place},
};
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

/// The least that any middleware costs which repeats requests, has settings that one request or one
/// task can change and, with `host`, a breaker, a budget and a gate for each host: the shortest
/// loop, of the quickest there is of each, others' or ours.
#[derive(Default)]
struct Least {
    host: Option<OnceLock<(Box<str>, Host)>>,
}

struct Host {
    breaker: Recloser,
    budget: Account,
    is_closed: AtomicBool,
}

tokio::task_local! {
    static SCOPE: RetryOverride;
}

impl Least {
    const MAX_RETRIES: u32 = 3;

    fn with_hosts() -> Self {
        Self { host: Some(OnceLock::new()) }
    }

    /// That there is one host only is as quick as it gets.
    fn host(&self, request: &Request) -> Option<&Host> {
        let key = &request.url()[..Position::AfterPort];
        let (first, host) = self.host.as_ref()?.get_or_init(|| {
            let (breaker, budget) = (Recloser::default(), Account::new(Instant::now().into()));
            (key.into(), Host { breaker, budget, is_closed: AtomicBool::new(false) })
        });
        (**first == *key).then_some(host)
    }
}

/// Written out, because the macro moves the request once more.
impl Middleware for Least {
    fn handle<'a, 'extensions, 'next, 'future>(
        &'a self,
        mut request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'future>>
    where
        'a: 'future,
        'extensions: 'future,
        'next: 'future,
        Self: 'future,
    {
        Place::default().fill(async move {
            let own = extensions.get::<RetryOverride>().is_some();
            let as_ever = !own && SCOPE.try_with(|_| ()).is_err();
            let max_retries = if as_ever { Self::MAX_RETRIES } else { 0 };
            let host = self.host(&request);
            let mut retries = 0;
            loop {
                let started = Instant::now();
                if host.is_some_and(|it| it.is_closed.load(Ordering::Acquire)) {
                    return Err(reqwest_middleware::Error::middleware(std::io::Error::other(
                        "closed",
                    )));
                }
                let may_repeat = retries < max_retries && request.method().is_idempotent();
                let kept = if may_repeat { request.try_clone() } else { None };
                // Where there is no copy, an error has to name the request all the same.
                let name =
                    kept.is_none().then(|| (request.method().clone(), request.url().clone()));
                let mut own = kept.as_ref().map(|_| extensions.clone());
                let target = own.as_mut().unwrap_or(&mut *extensions);
                let result = next.clone().run(request, target).await;
                let failed = match &result {
                    Ok(answer) => answer.status().is_server_error(),
                    Err(error) => error.is_connect(),
                };
                if let Some(host) = host {
                    let _permitted_and_told =
                        host.breaker.call(|| if failed { Err(()) } else { Ok(()) });
                    host.budget.deposit();
                }
                match kept {
                    Some(again) if failed => request = again,
                    _ => {
                        drop(black_box((name, started)));
                        if let Some(own) = own {
                            *extensions = own;
                        }
                        return result;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100 << retries)).await;
                retries += 1;
            }
        })
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
        // Puts what follows elsewhere in each process.
        std::mem::forget(vec![0_u8; rand::random_range(0..4_096)]);
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
