//! What budget, gate and look-up of the host cost while threads share them: `cargo bench --bench
//! contention`.
//!
//! Budget and gate have no entrance of their own, so whole requests that succeed are measured: a
//! part costs what a request with it takes longer than one without it, once to be found, and once to
//! be asked or told. The peers stand in a middleware that does nothing else, and cost what it takes
//! longer than one that does nothing. The second table has what can be called by itself, in a tight
//! loop, where threads wait for each other all the time. It has no bar for the budget: asking for a
//! balance takes the lock that a deposit takes, but is another thing.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};
use reqwest_resilient::{
    BreakerConfig, BudgetConfig, CircuitBreaker, Resilient, ResilientConfig,
    ResilientConfigBuilder, RetryBudget,
};
use support::{
    bar,
    chain::{Answer, client, get},
    drive,
    rounds::{Case, Rounds},
};
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};
use url::Position;

/// A single look at a `Mutex<Option<Instant>>` is lost in the noise.
const LOOKS: u32 = 10;

/// A middleware that does one thing for each request; boxed, so that it is the same code whatever
/// that thing is.
struct Does(Box<dyn Fn() + Send + Sync>);

#[async_trait::async_trait]
impl Middleware for Does {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        (self.0)();
        next.run(request, extensions).await
    }
}

fn send(name: &'static str, middleware: impl Middleware) -> Case<'static> {
    let client = client(middleware, Answer);
    Case::new(name, move || {
        let _answer = black_box(drive(client.execute(get())));
    })
}

fn ours(config: ResilientConfigBuilder) -> Resilient {
    Resilient::new(config.without_circuit_breaker().build().expect("a config"))
}

fn requests(threads: usize) {
    let (now, closed) = (Instant::now(), Mutex::new(None::<Instant>));
    let config = || ResilientConfig::builder().without_gate();
    let shared = || RetryBudget::shared(BudgetConfig::default());
    let tps = TpsBudget::default();
    let cases = [
        send("ours, nothing kept", ours(config().without_retry_budget())),
        send("ours, one budget", ours(config().retry_budget(shared()))),
        send("ours, a budget a host", ours(config())),
        send("ours, budget and gate a host", ours(config().gate())),
        send("pass-through", Does(Box::new(|| ()))),
        send("tower's budget", Does(Box::new(move || tps.deposit()))),
        send(
            "ten looks at a mutex",
            Does(Box::new(move || {
                for _ in 0..LOOKS {
                    let closed = closed.lock().is_ok_and(|it| it.is_some_and(|it| now < it));
                    black_box(closed);
                }
            })),
        ),
    ];
    let rounds = Rounds::of(threads, Duration::from_secs(15), &cases);
    rounds.print(&format!("a request, {threads} thread(s)"));
    let budget = rounds.added("ours, one budget", "ours, nothing kept");
    let host = rounds.added("ours, a budget a host", "ours, one budget");
    let gate = rounds.added("ours, budget and gate a host", "ours, a budget a host");
    println!(
        "added by a budget {budget:.1}, its look-up {host:.1}, a gate looked up with it {gate:.1}"
    );
    let tower = rounds.added("tower's budget", "pass-through");
    let mutex = rounds.added("ten looks at a mutex", "pass-through") / f64::from(LOOKS);
    bar(&format!("budget in a request, {threads} thread(s), tower"), budget, tower, 1.0);
    // One of many hosts has to be found before its mutex can be looked at.
    bar(&format!("gate in a request, {threads} thread(s), a mutex"), gate, mutex, 2.0);
}

fn tight(threads: usize) {
    let now = Instant::now();
    let request = get();
    let breakers = CircuitBreaker::per_host(BreakerConfig::default());
    let plain =
        RwLock::new(HashMap::from([(String::from("https://api.example.com"), Arc::new(()))]));
    let budget = RetryBudget::shared(BudgetConfig::default());
    let tower = TpsBudget::default();
    let cases = [
        Case::new("look-up, ours", || drop(black_box(breakers.for_request(black_box(&request))))),
        Case::new("look-up, RwLock<HashMap>", || {
            let key = &black_box(&request).url()[..Position::BeforePath];
            drop(black_box(plain.read().map(|it| it.get(key).cloned())));
        }),
        Case::new("balance, ours", || {
            black_box(black_box(&budget).balance("", now));
        }),
        Case::new("deposit, tower", || black_box(&tower).deposit()),
    ];
    let rounds = Rounds::of(threads, Duration::from_secs(4), &cases);
    rounds.print(&format!("a call, {threads} thread(s)"));
    let (ours, peer) = ("look-up, ours", "look-up, RwLock<HashMap>");
    let (ours, peer) = (rounds.of_case(ours), rounds.of_case(peer));
    bar(&format!("look-up, {threads} thread(s), tight loop, a plain map"), ours, peer, 1.0);
}

fn main() {
    for threads in [1, 2, 8] {
        requests(threads);
        tight(threads);
    }
}
