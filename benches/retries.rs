//! What a failed attempt and the decision after it cost: `cargo bench --bench retries`.
//!
//! What decides has no entrance of its own, so whole requests are measured: one that fails three
//! times before it succeeds, and one that succeeds at once. A third of the difference is a failed
//! attempt. What it takes longer than in a loop that only copies, sends and sleeps is the decision:
//! reading the answer, judging, telling what is kept for the host, recording, and the wait's length.
//! All wait 1 ms each time, in virtual time.

#[path = "support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderValue, Version, header};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};
use reqwest_resilient::{
    BreakerConfig, BudgetConfig, CircuitBreakers, Constant, Jitter, Resilient, ResilientConfig,
    ResilientConfigBuilder, RetryBudget,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use support::{
    bar,
    chain::{answer, client, get},
    rounds::{Case, Rounds},
};
use tokio::runtime::Runtime;

const WAIT: Duration = Duration::from_millis(1);
const FAILURES: u32 = 3;

/// The end of the chain: as many failures as are left, then successes.
#[derive(Clone)]
struct Fails {
    left: Arc<AtomicU32>,
    version: Version,
    hint: Option<HeaderValue>,
}

impl Default for Fails {
    fn default() -> Self {
        Self { left: Arc::default(), version: Version::HTTP_2, hint: None }
    }
}

#[async_trait::async_trait]
impl Middleware for Fails {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        let status = if left > 0 { 503 } else { 200 };
        let mut answer = answer(request.url(), status, self.version);
        if let Some(hint) = self.hint.as_ref().filter(|_| left > 0) {
            answer.headers_mut().insert(header::RETRY_AFTER, hint.clone());
        }
        Ok(answer)
    }
}

/// The least that a loop has to do.
struct Loop;

#[async_trait::async_trait]
impl Middleware for Loop {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        loop {
            let copy = request.try_clone().expect("a copy");
            let answer = next.clone().run(copy, extensions).await?;
            if !answer.status().is_server_error() {
                return Ok(answer);
            }
            drop(answer);
            tokio::time::sleep(WAIT).await;
        }
    }
}

/// Two cases: requests that fail, and requests that do not.
fn pair<'a>(
    runtime: &'a Runtime,
    names: [&'static str; 2],
    middleware: impl Middleware,
    end: Fails,
) -> [Case<'a>; 2] {
    let client = client(middleware, end.clone());
    [FAILURES, 0].map(|failures| {
        let (client, end) = (client.clone(), end.clone());
        let name = names[usize::from(failures == 0)];
        Case::batch(name, move |calls| {
            runtime.block_on(async {
                for _ in 0..calls {
                    end.left.store(failures, Ordering::Relaxed);
                    let _answer = black_box(client.execute(get()).await);
                }
            });
        })
    })
}

fn config() -> ResilientConfigBuilder {
    ResilientConfig::builder().backoff(Constant::new(WAIT)).jitter(Jitter::None)
}

fn ours(config: ResilientConfigBuilder) -> Resilient {
    Resilient::new(config.build().expect("a config"))
}

/// A budget that never ends and a breaker that never opens.
fn everything() -> Resilient {
    let budget = BudgetConfig::default().size(1_000_000).deposit(f64::from(FAILURES));
    let breaker = BreakerConfig::consecutive(u32::MAX);
    let config = config().retry_budget(RetryBudget::per_host(budget));
    ours(config.circuit_breaker(CircuitBreakers::per_host(breaker)))
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = &runtime.expect("a runtime");
    let policy = ExponentialBackoff::builder().retry_bounds(WAIT, WAIT);
    let policy = policy.jitter(reqwest_retry::Jitter::None).build_with_max_retries(FAILURES);
    let peer = RetryTransientMiddleware::new_with_policy(policy);
    let retry_only = config().without_circuit_breaker().without_retry_budget().without_gate();
    let hint = Fails { hint: Some(HeaderValue::from_static("0")), ..Fails::default() };
    let older = Fails { version: Version::HTTP_11, ..Fails::default() };
    let names = [
        ["a plain loop", "a plain loop, no failure"],
        ["reqwest-retry", "reqwest-retry, no failure"],
        ["ours, retry only", "ours, retry only, no failure"],
        ["ours, everything", "ours, everything, no failure"],
        ["ours, everything, hints", "ours, everything, hints, no failure"],
        ["ours, everything, HTTP/1.1", "ours, everything, HTTP/1.1, no failure"],
    ];
    let cases: Vec<_> = [
        pair(runtime, names[0], Loop, Fails::default()),
        pair(runtime, names[1], peer, Fails::default()),
        pair(runtime, names[2], ours(retry_only), Fails::default()),
        pair(runtime, names[3], everything(), Fails::default()),
        pair(runtime, names[4], everything(), hint),
        pair(runtime, names[5], everything(), older),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rounds = Rounds::of(1, Duration::from_secs(20), &cases);
    rounds.print("a request");

    let failed = names.map(|[failing, not]| rounds.added(failing, not) / f64::from(FAILURES));
    let [plain, peer, retry_only, everything, hinted, drained] = failed;
    println!("\n{:<40} {:>8} {:>8}", "a failed attempt", "ns", "deciding");
    for ([name, _], failed) in names.iter().zip(failed) {
        println!("{name:<40} {failed:>8.1} {:>8.1}", failed - plain);
    }
    bar("failed attempt, retry only, reqwest-retry", retry_only, peer, 1.2);
    bar("failed attempt, everything, reqwest-retry", everything, peer, 1.2);
    bar("failed attempt, everything and hints, reqwest-retry", hinted, peer, 1.2);
    bar("failed attempt, everything, HTTP/1.1, reqwest-retry", drained, peer, 1.2);
    bar("deciding, retry only, reqwest-retry", retry_only - plain, peer - plain, 1.0);
    bar("deciding, everything, reqwest-retry", everything - plain, peer - plain, 1.0);
}
