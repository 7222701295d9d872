//! Events, logs, spans and metrics: complete, without secrets, and consistent.

mod golden;
mod otel;
mod prometheus;
mod secrets;
mod witness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Extensions, HeaderValue, header};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::telemetry::{AttemptSpan, MetricsObserver, TracingObserver};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, AttemptScope, BreakerConfig, BudgetConfig, ChangeReason, CircuitBreaker, Constant,
    Event, HostStates, Jitter, Mirrors, Observer, Outcome, RequestBuilderExt, RequestInfo,
    ResendCount, Resilient, ResilientConfig, ResilientConfigBuilder, RetryOverride, StopReason,
};
use tracing::Level;

use self::witness::Witness;
use crate::support::{URL, scripted, scripted_on};

const SECOND: Duration = Duration::from_secs(1);

/// Waits of one second, without jitter, breaker, budget and gate.
fn steady() -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .backoff(Constant::new(SECOND))
        .jitter(Jitter::None)
        .random(|| 0.0)
        .without_attempt_timeout()
        .without_circuit_breaker()
        .without_retry_budget()
        .without_gate()
}

fn retry_after(status: u16, value: &'static str) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from_static(value))
}

/// Opens after `failures` in a row, for five seconds.
fn consecutive(failures: u32) -> BreakerConfig {
    BreakerConfig::consecutive(failures)
        .open_for(5 * SECOND)
        .without_open_growth()
        .without_open_jitter()
}

#[tokio::test(start_paused = true)]
async fn a_timeline_shows_rejections_and_waits_at_the_gate() {
    let breaker = CircuitBreaker::new(consecutive(2)).unwrap();
    let config = steady().gate().circuit_breaker(breaker).max_open_wait(4 * SECOND);
    let config = config.build().unwrap();
    let replies = [retry_after(429, "3"), Reply::status(500), Reply::status(500)];
    let (client, _) = scripted(config, replies.into_iter().chain([Reply::status(200)]));
    let first = client.get(URL).send();
    let log = AttemptLog::new();
    let second = async {
        tokio::time::sleep(SECOND).await;
        client.get(URL).with_extension(log.clone()).send().await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(
        log.history().to_string(),
        "-- +0.000s rate_limited, then 2.000s by gate\n\
         #1 +2.000s 0.000s status 500, then 1.000s by backoff\n\
         -- +3.000s circuit_open, then 4.000s by circuit breaker\n\
         #2 +7.000s 0.000s status 200\n\
         ended: success"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejection_before_the_first_attempt_is_in_the_log_too() {
    let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
    breaker.force_open();
    let (client, script) = scripted(steady().circuit_breaker(breaker).build().unwrap(), []);
    let log = AttemptLog::new();
    let error = client.get(URL).with_extension(log.clone()).send_resilient().await.unwrap_err();
    assert_eq!((script.sent().len(), error.attempts()), (0, 0));
    assert_eq!(log.history().stop_reason(), Some(StopReason::CircuitOpen));
    assert_eq!(error.history(), &log.history());
    assert_eq!(log.history().to_string(), "-- +0.000s circuit_open\nended: circuit_open");
}

#[tokio::test(start_paused = true)]
async fn a_success_at_once_has_its_history_in_the_log_alone() {
    for config in [steady(), steady().on_event(|_| ())] {
        let (client, _) = scripted(config.build().unwrap(), []);
        let log = AttemptLog::new();
        let response = client.get(URL).with_extension(log.clone()).send().await.unwrap();
        assert_eq!(reqwest_resilient::ResponseExt::history(&response), None);
        assert_eq!(log.history().attempts().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_keeps_the_last_64() {
    let (client, _) = scripted(steady().max_retries(99).build().unwrap(), [Reply::status(503)]);
    let error = client.get(URL).send_resilient().await.unwrap_err();
    let history = error.history();
    let numbers: Vec<_> = history.attempts().iter().map(|it| it.number).collect();
    assert_eq!((history.total(), numbers), (100, (37..=100).collect()));
    assert_eq!(history.to_string().lines().count(), 65);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_shared_by_clients_changes_once() {
    let hosts = HostStates::new();
    let seen = Arc::new(Mutex::new(vec![]));
    let client = || {
        let seen = Arc::clone(&seen);
        let tell = move |event: &Event<'_>| {
            if let Event::BreakerChanged(_) = event {
                seen.lock().unwrap().push(event.to_string());
            }
        };
        let config = steady().max_retries(0).circuit_breaker(consecutive(1)).on_event(tell);
        let replies = [Reply::status(500), Reply::status(200)];
        scripted_on(&hosts, config.build().unwrap(), replies).0
    };
    let (a, b) = (client(), client());
    a.get(URL).send().await.unwrap();
    b.get(URL).send().await.unwrap_err();
    tokio::time::sleep(5 * SECOND).await;
    a.get(URL).send().await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "circuit breaker of https://api.example.com: closed to open \
             (consecutive_failures: 1 failure in a row)",
            "circuit breaker of https://api.example.com: open to half_open (open_time_over)",
            "circuit breaker of https://api.example.com: half_open to closed (probes_succeeded)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn extensions_come_back_without_our_count() {
    let (client, _) = scripted(steady().build().unwrap(), [Reply::status(503)]);
    let mut extensions = Extensions::new();
    let request = client.get(URL).build().unwrap();
    client.execute_with_extensions(request, &mut extensions).await.unwrap();
    assert_eq!(extensions.get::<ResendCount>(), None);
}

/// An observer whose scopes do everything wrong.
struct Nuisance;

impl Observer for Nuisance {
    fn on_event(&self, _: &Event<'_>) {
        panic!("on an event");
    }

    fn around_attempt(&self, info: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        match info.attempt {
            1 => panic!("around an attempt"),
            _ => Some(Box::new(Self)),
        }
    }
}

impl AttemptScope for Nuisance {
    fn run(&self, step: &mut dyn FnMut()) {
        step();
        step();
        panic!("while running");
    }

    fn end(&self, _: &Outcome<'_>) {
        panic!("at the end");
    }
}

struct Lazy;

impl Observer for Lazy {
    fn on_event(&self, _: &Event<'_>) {}

    fn around_attempt(&self, _: &RequestInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        Some(Box::new(Self))
    }
}

impl AttemptScope for Lazy {
    fn run(&self, _: &mut dyn FnMut()) {}

    fn end(&self, _: &Outcome<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn no_observer_changes_what_happens() {
    let config = steady().observer(Nuisance).observer(Lazy).build().unwrap();
    let replies = [Reply::status(503).after(SECOND), Reply::status(200).after(SECOND)];
    let (client, script) = scripted(config, replies);
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    assert_eq!(script.sent().len(), 2);
}

/// The values of the metric of budgets, after requests to two mirrors. `a` always says 503, `b` has
/// this budget, for which they wait so long.
fn tokens_after(requests: usize, of_b: BudgetConfig, wait: Duration) -> Vec<String> {
    let witness = Witness::default();
    witness.run(|| {
        let config = ResilientConfig::builder()
            .mirrors(Mirrors::new("https://a.example/").also("https://b.example/"))
            .max_open_wait(wait)
            .host("b.example", RetryOverride::new().retry_budget(of_b))
            .observer(MetricsObserver::new())
            .build()
            .unwrap();
        let script = Script::new([Reply::status(200)]).for_host("a.example", [Reply::status(503)]);
        let client = ClientBuilder::new(crate::support::idle_client())
            .with(Resilient::new(config))
            .with(script)
            .build();
        async move {
            for _ in 0..requests {
                client.get("https://a.example/").send().await.unwrap();
            }
        }
    });
    let is_of_budget = |it: &String| it.starts_with("resilient_budget");
    witness.metrics().into_iter().filter(is_of_budget).collect()
}

/// With mirrors that is the host of the next endpoint: its tokens are not those of the one that failed.
#[test]
fn tokens_are_shown_for_the_host_whose_budget_pays() {
    let budget = |size| BudgetConfig::default().size(size).retry_deposit(0.0).trickle(0.0);
    for wait in [Duration::ZERO, SECOND] {
        let tokens = tokens_after(1, budget(5), wait);
        assert_eq!(tokens, ["resilient_budget_tokens{host=b.example} 4"]);
        assert_eq!(
            tokens_after(2, budget(1), wait),
            [
                "resilient_budget_refusals_total{host=b.example} 1",
                "resilient_budget_tokens{host=b.example} 0",
            ],
            "the second request has no retry"
        );
    }
}

/// The rest of a download is asked for by a request of its own, which is a resend all the same.
#[cfg(feature = "download")]
#[test]
fn the_spans_of_a_download_count_its_sends() {
    let witness = Witness::default();
    let reply = |status, body: &'static str, length: u64| {
        let tagged = Reply::status(status).header(header::ETAG, HeaderValue::from_static("\"a\""));
        tagged.header(header::CONTENT_LENGTH, length.into()).body(body)
    };
    let range = HeaderValue::from_static("bytes 4-9/10");
    let replies = [
        reply(200, "0123456789", 10).body_breaks_after(4),
        Reply::status(503),
        reply(206, "456789", 6).header(header::CONTENT_RANGE, range),
    ];
    witness.run(|| {
        let (client, _) =
            scripted(steady().observer(TracingObserver::new()).build().unwrap(), replies);
        async move {
            let bytes = reqwest_resilient::DownloadExt::download(client.get(URL)).bytes().await;
            assert_eq!(bytes.unwrap(), "0123456789");
        }
    });
    let counts: Vec<_> = witness
        .lines()
        .into_iter()
        .filter(|it| it.starts_with("http_attempt"))
        .map(|it| it.split_once("resend_count=").map(|it| it.1[..1].to_owned()))
        .collect();
    assert_eq!(counts, [None, Some("1".into()), Some("2".into())]);
}

#[test]
fn hosts_are_bounded() {
    let witness = Witness::default();
    witness.run(|| {
        let config = steady().observer(MetricsObserver::new()).build().unwrap();
        let (client, _) = scripted(config, [Reply::status(200)]);
        async move {
            for host in 0..100 {
                client.get(format!("http://h{host}.example/")).send().await.unwrap();
            }
        }
    });
    let metrics = witness.metrics();
    let attempts = metrics.iter().filter(|it| it.starts_with("resilient_attempts_total"));
    assert_eq!(attempts.count(), 65);
    let other = "resilient_attempts_total{host=other, method=GET, result=200} 36";
    assert!(metrics.iter().any(|it| it == other), "{metrics:#?}");
}

#[test]
fn all_metrics_carry_the_client_and_the_constant_labels_once() {
    let witness = Witness::default();
    witness.run(|| {
        let observer = MetricsObserver::new().client("payments").label("region", "us");
        // The later value holds; a label that metrics have of their own stays theirs.
        let observer = observer.label("region", "eu").label("host", "mine").label("le", "1");
        let config = steady().circuit_breaker(consecutive(2)).max_retries(1).observer(observer);
        let replies = [retry_after(503, "1"), Reply::status(500)];
        let (client, _) = scripted(config.build().unwrap(), replies);
        async move {
            client.get(URL).send().await.unwrap();
            client.get(URL).send_resilient().await.unwrap_err();
        }
    });
    let metrics = witness.metrics();
    for metric in &metrics {
        assert!(metric.contains(", client=payments, region=eu}"), "{metric}");
        assert!(!metric.contains("mine") && !metric.contains("le="), "{metric}");
    }
    for name in ["attempts_total", "retries_total", "rejections_total", "breaker_state"] {
        assert!(metrics.iter().any(|it| it.contains(name)), "no {name} in {metrics:#?}");
    }
}

#[test]
fn a_request_lasts_as_long_as_its_attempts_and_waits() {
    let witness = Witness::default();
    witness.run(|| {
        let config = steady().observer(MetricsObserver::new()).build().unwrap();
        let replies = [Reply::status(503).after(SECOND), Reply::status(200).after(SECOND)];
        let (client, _) = scripted(config, replies);
        async move { client.get(URL).send().await.unwrap() }
    });
    let expected = "resilient_request_duration_seconds{host=api.example.com, ended=success} [3.0]";
    let metrics = witness.metrics();
    assert!(metrics.iter().any(|it| it == expected), "{metrics:#?}");
}

#[test]
fn a_rejected_request_has_one_log_line() {
    let witness = Witness::default();
    witness.run(|| {
        let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
        breaker.force_open();
        let config = steady().circuit_breaker(breaker).observer(TracingObserver::new());
        let (client, _) = scripted(config.build().unwrap(), []);
        async move { client.get(URL).send_resilient().await.unwrap_err() }
    });
    let lines = witness.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("rejected after 0 attempts: circuit breaker is forced open"),
        "{lines:#?}"
    );
}

#[test]
fn exactly_one_state_of_a_breaker_is_1() {
    let witness = Witness::default();
    witness.run(|| {
        let observer = MetricsObserver::new();
        let by_hand = observer.clone();
        let breaker = CircuitBreaker::new(consecutive(1)).unwrap();
        breaker.on_state_change(move |change| {
            if change.why == ChangeReason::Manual {
                by_hand.on_event(&Event::BreakerChanged(change));
            }
        });
        let config = steady().max_retries(0).circuit_breaker(breaker.clone()).observer(observer);
        let (client, _) = scripted(config.build().unwrap(), [Reply::status(500)]);
        let witness = witness.clone();
        let is = move |state: &str| {
            let metrics = witness.metrics();
            let mut states = metrics.iter().filter(|it| it.starts_with("resilient_breaker_state"));
            let expected = format!("resilient_breaker_state{{key=, state={state}}} 1");
            assert_eq!(states.clone().count(), 6);
            assert_eq!(states.find(|it| it.ends_with(" 1")), Some(&expected));
        };
        async move {
            client.get(URL).send().await.unwrap();
            is("open");
            tokio::time::sleep(5 * SECOND).await;
            client.get(URL).send().await.unwrap();
            is("open");
            breaker.disable();
            is("disabled");
            breaker.reset();
            is("closed");
        }
    });
}

#[test]
fn levels_and_spans_can_be_chosen() {
    let seen = |observer: TracingObserver| {
        let witness = Witness::default();
        witness.run(|| {
            let breaker = CircuitBreaker::new(consecutive(2)).unwrap();
            let config = steady().max_retries(1).circuit_breaker(breaker).observer(observer);
            let (client, _) = scripted(config.build().unwrap(), [Reply::status(500)]);
            async move { client.get(URL).send().await.unwrap() }
        });
        let first = |it: &String| it.split(' ').next().unwrap().to_owned();
        witness.lines().iter().map(first).collect::<Vec<_>>()
    };
    let (span, quiet) = ("http_attempt", TracingObserver::new().span(AttemptSpan::Off));
    assert_eq!(seen(TracingObserver::new()), [span, "DEBUG", span, "WARN", "WARN"]);
    let loud = quiet.clone().retries(Level::INFO).give_ups(Level::ERROR);
    assert_eq!(seen(loud.breaker_openings(Level::ERROR)), ["INFO", "ERROR", "ERROR"]);
    let silent = quiet.retries(None).give_ups(None).breaker_openings(None);
    assert!(seen(silent).is_empty());
}

/// Allocations of one request that fails and is sent again.
fn allocations(config: ResilientConfigBuilder) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let replies = [Reply::status(503), Reply::status(200)].into_iter().cycle().take(100);
    let (client, _) = scripted(config.build().unwrap(), replies);
    let send = || runtime.block_on(client.get(URL).send()).unwrap();
    // Warms up lazily created state.
    (0..10).for_each(|_| drop(send()));
    allocation_counter::measure(|| drop(send())).count_total
}

#[test]
fn telling_allocates_nothing() {
    // Without listeners the fast path applies, unless there is a limit.
    let limited = || steady().max_total_time(Duration::from_secs(3_600));
    let nobody = allocations(limited());
    assert_eq!(allocations(limited().on_event(|_| {})), nobody);
    assert_eq!(allocations(limited().on_retry(|_| {}).on_success(|_| {})), nobody);
}

#[cfg(feature = "blocking")]
#[test]
fn attempts_of_a_blocking_call_are_within_the_span_of_its_caller() {
    use reqwest_resilient::blocking::ResilientClient;

    let config = steady().observer(TracingObserver::new()).build().unwrap();
    let client = ResilientClient::builder().config(config);
    let client = client.with(Script::new([Reply::status(200)])).build().unwrap();
    let witness = Witness::default();
    witness.watch(|| {
        let _caller = tracing::info_span!(target: "inside", "caller").entered();
        client.get(URL).send().unwrap();
    });
    let lines = witness.lines();
    assert_eq!((lines.len(), &*lines[0]), (2, "caller"));
    assert!(lines[1].starts_with("  http_attempt "), "{lines:?}");
}
