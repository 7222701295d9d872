//! Scenarios, and for each the exact events, spans, logs and metrics, in `golden/`.
//!
//! `RESILIENT_GOLDEN=write cargo test --all-features golden` writes the files anew.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, io, path::Path};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::telemetry::{MetricsObserver, TracingObserver};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BudgetConfig, CircuitBreakers, Hedge, Mirrors, ResendCount, Resilient, ResilientConfigBuilder,
    RetryBudget,
};
use tracing::Instrument as _;

use super::witness::Witness;
use super::{SECOND, consecutive, retry_after, steady};
use crate::support::URL;

/// A middleware further in, which sees attempts only.
struct Inside;

#[async_trait::async_trait]
impl Middleware for Inside {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let resend_count = extensions.get().copied().map(ResendCount::get);
        let span = tracing::info_span!(target: "inside", "inside", resend_count);
        next.run(request, extensions).instrument(span).await
    }
}

/// Runs a scenario and compares all it shows with the file of its name.
fn golden<F: Future<Output = ()>>(
    name: &str,
    config: ResilientConfigBuilder,
    replies: impl IntoIterator<Item = Reply>,
    scenario: impl FnOnce(ClientWithMiddleware) -> F,
) {
    let witness = Witness::default();
    let events = Arc::new(Mutex::new(vec![]));
    let script = Script::new(replies);
    witness.run(|| {
        let events = Arc::clone(&events);
        let config = config
            .on_event(move |event| events.lock().unwrap().push(event.to_string()))
            .observer(TracingObserver::new())
            .observer(MetricsObserver::new());
        let client = ClientBuilder::new(crate::support::idle_client())
            .with(Resilient::new(config.build().unwrap()))
            .with(Inside)
            .with(script.clone())
            .build();
        scenario(client)
    });

    let sent = script.sent().len();
    let (events, metrics) = (events.lock().unwrap(), witness.metrics());
    let of = |parts: [&str; 2]| {
        events.iter().filter(|it| parts.iter().any(|part| it.contains(part))).count()
    };
    let (started, ended) = (of([" at most", ", a hedge"]), of([" gave ", " lost the race "]));
    assert_eq!((started, witness.spans("http_attempt")), (sent, sent), "{name}");
    let counted = |metric: &str| -> u64 {
        let metrics = metrics.iter().filter(|it| it.starts_with(metric));
        metrics.map(|it| it.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(counted("resilient_attempts_total"), ended as u64, "{name}");

    let list = |lines: &[String]| lines.iter().fold(String::new(), |all, it| all + it + "\n");
    let shown = format!(
        "# events\n{}\n# spans and logs\n{}\n# metrics\n{}\n# server\n{sent} requests\n",
        list(&events),
        list(&witness.lines()),
        list(&metrics),
    );
    let shown = shown.replace(URL, "URL");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/telemetry/golden");
    let file = folder.join(format!("{name}.txt"));
    if env::var_os("RESILIENT_GOLDEN").is_some_and(|it| it == "write") {
        fs::write(&file, &shown).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(shown == expected, "{name}.txt\nexpected:\n{expected}\nshown:\n{shown}");
}

async fn get(client: ClientWithMiddleware) {
    let _ = client.get(URL).send().await;
}

#[test]
fn golden_first_attempt_succeeds() {
    golden("first_attempt_succeeds", steady(), [Reply::status(200).after(SECOND)], get);
}

#[test]
fn golden_passing_failure() {
    let reset = Reply::io_error(io::ErrorKind::ConnectionReset);
    golden("passing_failure", steady(), [Reply::status(503), reset, Reply::status(200)], get);
}

#[test]
fn golden_hedge() {
    let slow = Reply::status(200).after(2 * SECOND);
    let quick = Reply::status(200).after(SECOND / 4);
    // The first is won by its hedge, the second wins over it, the third gets none.
    let replies = [slow.clone(), quick, Reply::status(200).after(SECOND), slow.clone(), slow];
    let hedge = Hedge::after(SECOND / 2).share(0.01);
    golden("hedge", steady().hedge(hedge.max_hedges(1)), replies, |client| async move {
        for _ in 0..5 {
            get(client.clone()).await;
        }
    });
}

#[test]
fn golden_exhausted() {
    golden("exhausted", steady().max_retries(2), [Reply::status(503)], get);
}

#[test]
fn golden_final() {
    golden("final", steady(), [Reply::status(404)], get);
}

#[test]
fn golden_unsafe_to_repeat() {
    let reset = Reply::io_error(io::ErrorKind::ConnectionReset);
    golden("unsafe_to_repeat", steady(), [reset], |client| async move {
        let _ = client.post(URL).body("once").send().await;
    });
}

#[test]
fn golden_hint_and_gate() {
    let replies = [retry_after(429, "4"), Reply::status(200)];
    golden("hint_and_gate", steady().gate().random(|| 0.5), replies, |client| async move {
        let late = async {
            tokio::time::sleep(SECOND).await;
            get(client.clone()).await;
        };
        tokio::join!(get(client.clone()), late);
    });
}

#[test]
fn golden_timeouts() {
    let config = steady().attempt_timeout(2 * SECOND).max_total_time(4 * SECOND);
    golden("timeouts", config, [Reply::status(200).after(60 * SECOND)], get);
}

#[test]
fn golden_breaker() {
    let config = steady().circuit_breaker(CircuitBreakers::per_host(consecutive(2))).max_retries(1);
    let replies = [Reply::status(500), Reply::status(500), Reply::status(200)];
    golden("breaker", config, replies, |client| async move {
        get(client.clone()).await;
        get(client.clone()).await;
        tokio::time::sleep(5 * SECOND).await;
        get(client).await;
    });
}

#[test]
fn golden_budget() {
    let budget = BudgetConfig::default().size(1).deposit(0.5).trickle(0.0);
    let config = steady().retry_budget(RetryBudget::per_host(budget));
    let replies = [Reply::status(503), Reply::status(200), Reply::status(503)];
    golden("budget", config, replies, |client| async move {
        get(client.clone()).await;
        get(client).await;
    });
}

#[test]
fn golden_cancelled() {
    let replies = [Reply::status(503), Reply::status(200).after(60 * SECOND)];
    golden("cancelled", steady(), replies, |client| async move {
        let patience = Duration::from_millis(2_500);
        assert!(tokio::time::timeout(patience, client.get(URL).send()).await.is_err());
    });
}

#[test]
fn golden_failover() {
    let mirrors = Mirrors::new(URL).also("https://mirror.example/copy");
    golden("failover", steady().mirrors(mirrors), [Reply::status(503), Reply::status(200)], get);
}
