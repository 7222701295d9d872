//! What production sees of `reqwest-resilient`: spans, logs, metrics and histories.
//!
//! `cargo run --example observe --features metrics,tracing` starts a server that fails in many ways
//! on this machine, sends it requests for some seconds, and prints what was observed:
//!
//! - logs of level warn (`RUST_LOG=debug` for more, spans included),
//! - the timeline of a request that survived, and of one that did not,
//! - the spans that an OpenTelemetry backend would get,
//! - what Prometheus would scrape; `docs/dashboard.json` is for Grafana.
//!
//! `--for 300` first prints where Prometheus finds the metrics, and sends requests for so many
//! seconds. `--svg` draws the first timeline into `docs/timeline.svg`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{collections::HashMap, env, fmt::Write as _, fs, io, net::SocketAddr};

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::fleet::{Fleet, InProcessFleet};
use reqwest_resilient::telemetry::{MetricsObserver, TracingObserver};
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BudgetConfig, CircuitBreakers, ConcurrencyLimit, DownloadExt,
    Exponential, Hedge, History, Limit, Mirrors, RequestBuilderExt, Resilient, ResilientConfig,
    RetryOverride, WaitSource,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter::Targets};

#[tokio::main]
async fn main() -> Result<()> {
    let spans = set_up_tracing()?;
    let metrics = set_up_metrics()?;
    let (api, down) = (serve().await?, serve().await?);
    // Two nodes of one fleet.
    let store = InProcessFleet::new();
    let (one, other) = (Fleet::new(store.clone()), Fleet::new(store));
    let (client, careful) = (client(&one)?, careful_client(&api, &down, &other)?);

    let (report, log) = (format!("{api}/report?token=never-shown"), AttemptLog::new());
    let survived = client.get(report).with_extension(log.clone()).send_resilient();
    let until = Instant::now() + Duration::from_secs(seconds()?);
    println!("metrics at {metrics}");
    let (survived, ()) = tokio::join!(survived, traffic([&client, &careful], &api, &down, until));
    survived?;
    let lost = client.get(format!("{down}/broken")).send_resilient().await;

    println!("\n# The history of a request that survived\n\n{}", log.history());
    if let Err(error) = lost {
        println!("\n# One that did not\n\n{error:#}\n{}", error.history());
    }
    let spans = spans.get_finished_spans()?;
    let clients = spans.iter().filter(|it| it.span_kind == SpanKind::Client).count();
    println!("\n# Spans\n\n{clients} of kind CLIENT, one for each attempt");

    println!("\n# {metrics} says, buckets left out\n");
    let scraped = reqwest::get(&metrics).await?.text().await?;
    let mut lines: Vec<_> =
        scraped.lines().filter(|it| it.starts_with("resilient_") && !it.contains("le=")).collect();
    lines.sort_unstable();
    lines.iter().for_each(|it| println!("{it}"));

    if env::args().any(|it| it == "--svg") {
        fs::create_dir_all("docs")?;
        fs::write("docs/timeline.svg", svg(&log.history()))?;
    }
    Ok(())
}

/// How long requests are sent, if that is said; else as many rounds as it takes to see everything.
fn seconds() -> Result<u64> {
    match env::args().skip_while(|it| it != "--for").nth(1) {
        Some(seconds) => seconds.parse().context("--for takes a number of seconds"),
        None => Ok(0),
    }
}

/// The client and its listeners.
fn client(fleet: &Fleet) -> Result<ClientWithMiddleware> {
    let breaker = BreakerConfig::default().open_for(Duration::from_millis(500));
    let config = ResilientConfig::builder()
        .backoff(Exponential::new(Duration::from_millis(300)))
        .attempt_timeout(Duration::from_millis(600))
        .circuit_breaker(CircuitBreakers::per_host(breaker))
        .observer(TracingObserver::new())
        .observer(MetricsObserver::new().client("observe"))
        .build()?;
    let inner = Resilient::reqwest_builder().build()?;
    Ok(ClientBuilder::new(inner).with(Resilient::new(config).with_fleet(fleet)).build())
}

/// A client that hedges, limits itself and knows a mirror of the server that is down.
fn careful_client(api: &str, down: &str, fleet: &Fleet) -> Result<ClientWithMiddleware> {
    let mirrors = Mirrors::new(&format!("{down}/broken")).also(&format!("{api}/steady"));
    let config = ResilientConfig::builder()
        .attempt_timeout(Duration::from_millis(600))
        .hedge(Hedge::after(Duration::from_millis(100)))
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(2)))
        .mirrors(mirrors)
        .observer(TracingObserver::new())
        .observer(MetricsObserver::new().client("careful"))
        .build()?;
    let resilient = Resilient::new(config).with_fleet(fleet);
    Ok(ClientBuilder::new(Resilient::reqwest_builder().build()?).with(resilient).build())
}

/// Logs to stdout, spans to OpenTelemetry.
///
/// Here they end in memory. To send them to a collector by OTLP, put
/// `opentelemetry_otlp::SpanExporter::builder().with_http().build()?` in the exporter's place, and
/// `with_batch_exporter` in that of `with_simple_exporter`.
fn set_up_tracing() -> Result<InMemorySpanExporter> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let ours = Targets::new().with_target("reqwest_resilient", tracing::Level::INFO);
    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new("warn"))?;
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().compact().with_filter(filter))
        .with(
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("observe"))
                .with_filter(ours),
        )
        .try_init()?;
    Ok(exporter)
}

/// Serves metrics to Prometheus; returns the URL.
fn set_up_metrics() -> Result<String> {
    // A port that is free now; in production it would be a fixed one.
    let address: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let buckets = |metric: &str| Matcher::Full(metric.to_owned());
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(
            buckets(MetricsObserver::ATTEMPT_DURATION),
            MetricsObserver::DURATION_BUCKETS,
        )?
        .set_buckets_for_metric(
            buckets(MetricsObserver::REQUEST_DURATION),
            MetricsObserver::REQUEST_BUCKETS,
        )?
        .set_buckets_for_metric(buckets(MetricsObserver::WAIT), MetricsObserver::WAIT_BUCKETS)?
        .set_buckets_for_metric(
            buckets(MetricsObserver::ATTEMPTS_PER_REQUEST),
            &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0],
        )?
        .install()
        .context("no exporter")?;
    Ok(format!("http://{address}/metrics"))
}

/// Requests of all sorts, for 12 rounds and until then.
async fn traffic(
    [client, careful]: [&ClientWithMiddleware; 2],
    api: &str,
    down: &str,
    until: Instant,
) {
    for round in 0.. {
        if round >= 12 && Instant::now() >= until {
            return;
        }
        let limited = if round % 12 == 5 { "/limited" } else { "/steady" };
        let request = |url: String, retries| {
            let patience = RetryOverride::new().max_retries(retries);
            client.get(url).with_extension(patience).send()
        };
        // What becomes of them is for the telemetry to say.
        join_all([
            request(format!("{api}/steady"), 3),
            request(format!("{api}/flaky"), 3),
            request(format!("{api}{limited}"), 3),
            request(format!("{down}/broken"), 1),
            careful.get(format!("{down}/broken")).send(),
            careful.get(format!("{api}/tail")).send(),
        ])
        .await;
        // More retries than the budget has.
        let budget = BudgetConfig::default().size(1).trickle(0.0);
        let poor = RetryOverride::new().retry_budget(budget);
        let poor = |_| client.get(format!("{down}/broken")).with_extension(poor.clone()).send();
        join_all((0..3).map(poor)).await;
        // Breaks off, and starts over.
        let _ = client.get(format!("{api}/file")).download().bytes().await;
        // More at a time than its limit allows.
        join_all((0..3).map(|_| careful.get(format!("{api}/steady")).send())).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the server does with one request.
#[derive(Clone, Copy)]
enum Does {
    Answer(&'static str, u64),
    Reset,
    /// Sends so many bytes of a file of 20.
    Send(usize),
}

/// The steps of a path, taken in turn; after the last one of `/report` it stays at that.
fn script(path: &str, turn: usize) -> Does {
    use Does::{Answer, Reset, Send};

    const OK: Does = Answer("200 OK", 80);
    const BUSY: Does = Answer("503 Service Unavailable\r\nRetry-After: 1", 150);
    const ERROR: Does = Answer("500 Internal Server Error", 5);
    const LIMITED: Does = Answer("429 Too Many Requests\r\nRetry-After: 1", 5);
    const TOO_LATE: Does = Answer("200 OK", 5_000);
    let steps: &[Does] = match path {
        "/report" => return *[BUSY, Reset, TOO_LATE, OK].get(turn).unwrap_or(&OK),
        "/steady" => &[OK],
        "/flaky" => &[OK, ERROR, OK, Reset, OK, OK],
        "/limited" => &[LIMITED, OK],
        "/broken" => &[ERROR],
        "/file" => &[Send(10), Send(20)],
        // The second of each two is for the hedge of a slow one, which wins or loses.
        "/tail" => &[OK, Answer("200 OK", 300), OK, Answer("200 OK", 150), OK],
        _ => &[Answer("404 Not Found", 0)],
    };
    steps[turn % steps.len()]
}

/// Starts a server that follows the script; returns its URL.
async fn serve() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let turns: Arc<Mutex<HashMap<String, AtomicUsize>>> = Arc::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&turns)));
        }
    });
    Ok(url)
}

async fn answer(
    mut stream: TcpStream,
    turns: Arc<Mutex<HashMap<String, AtomicUsize>>>,
) -> io::Result<()> {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(&head[..read]);
    let path = head.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
    let turn = match turns.lock() {
        Ok(mut turns) => turns.entry(path.clone()).or_default().fetch_add(1, Ordering::Relaxed),
        Err(_) => 0,
    };
    match script(&path, turn) {
        Does::Reset => {
            tokio::time::sleep(Duration::from_millis(120)).await;
            stream.set_zero_linger()
        }
        Does::Send(bytes) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n";
            stream.write_all(format!("{head}{:.<bytes$}", "").as_bytes()).await
        }
        Does::Answer(status, millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let end = "Content-Length: 0\r\nConnection: close";
            stream.write_all(format!("HTTP/1.1 {status}\r\n{end}\r\n\r\n").as_bytes()).await
        }
    }
}

/// A row of the picture: an attempt, or a moment at which the request was held up.
struct Row {
    label: String,
    color: &'static str,
    start: Duration,
    took: Duration,
    wait: Option<(Duration, WaitSource)>,
}

fn rows(history: &History) -> Vec<Row> {
    let attempts = history.attempts().iter().map(|it| {
        let (what, color) = match it.result {
            Ok(status) if status.is_success() => (status.as_u16().to_string(), "#1a7f37"),
            Ok(status) => (status.as_u16().to_string(), "#bc4c00"),
            Err(kind) => (kind.to_string(), "#cf222e"),
        };
        let label = format!("#{} {what}", it.number);
        Row { label, color, start: it.started, took: it.duration, wait: it.wait.clone() }
    });
    let holds = history.holds().iter().map(|it| {
        let (label, color) = (format!("-- {}", it.by), "#8c959f");
        Row { label, color, start: it.at, took: Duration::ZERO, wait: it.wait.clone() }
    });
    let mut rows: Vec<_> = attempts.chain(holds).collect();
    rows.sort_by_key(|it| it.start);
    rows
}

/// Draws a history: a row for each attempt, a bar for the time it took, a line for each wait.
fn svg(history: &History) -> String {
    const ROW: usize = 34;
    const TOP: usize = 44;
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 440.0;
    let rows = rows(history);
    let end = rows.last().map_or(1.0, |it| (it.start + it.took).as_secs_f64());
    let x = |it: Duration| LEFT + it.as_secs_f64() / end * WIDTH;
    let height = TOP + ROW * rows.len() + 34;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 {height}' \
         font-family='ui-monospace, monospace' font-size='13'>\n\
         <rect width='760' height='{height}' rx='8' fill='#ffffff' stroke='#d0d7de'/>\n\
         <text x='16' y='26' fill='#1f2328'>GET /report: {} attempts in {end:.2} s, {}</text>\n",
        history.total(),
        history.stop_reason().map_or("", |it| it.as_str()),
    );
    for (row, it) in rows.iter().enumerate() {
        let y = TOP + ROW * row;
        let (from, to) = (x(it.start), x(it.start + it.took).max(x(it.start) + 3.0));
        let (bar, middle, base) = (to - from, y + 11, y + 15);
        let _ = writeln!(
            out,
            "<text x='16' y='{base}' fill='#1f2328'>{}</text>\n\
             <rect x='{from:.1}' y='{y}' width='{bar:.1}' height='22' rx='3' fill='{}'/>",
            it.label, it.color,
        );
        if let Some((wait, source)) = &it.wait {
            let back = x(it.start + it.took + *wait);
            let seconds = wait.as_secs_f64();
            let _ = writeln!(
                out,
                "<path d='M{to:.1} {middle}H{back:.1}v{ROW}' fill='none' stroke='#8c959f' \
                 stroke-dasharray='4 3'/>\n\
                 <text x='{:.1}' y='{base}' fill='#59636e' font-size='11'>{seconds:.2} s, \
                 {source}</text>",
                back + 6.0,
            );
        }
    }
    let (axis, label) = (height - 26, height - 10);
    for second in 0..=end as u64 {
        let at = x(Duration::from_secs(second));
        let _ = writeln!(
            out,
            "<path d='M{at:.1} {axis}v5' stroke='#59636e'/>\n\
             <text x='{at:.1}' y='{label}' fill='#59636e' font-size='11' \
             text-anchor='middle'>{second} s</text>"
        );
    }
    out + "</svg>\n"
}
