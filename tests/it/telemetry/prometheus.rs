//! Every metric has a panel, and a real Prometheus that scrapes `examples/observe.rs` finds data for
//! every panel of the dashboard.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use reqwest_resilient::telemetry::MetricsObserver;
use serde_json::Value;

use crate::support::folder::Folder;
use crate::support::program::{Program, find, free_address};

/// The longest wait for the data of all panels.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the example, as the one that lies there may be an older one, and starts it. Returns the
/// address of its metrics.
fn observe() -> (Program, SocketAddr) {
    // Beside this test's own binary, in `deps`.
    let profile = env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--all-features", "--example", "observe"]);
    build.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(root());
    let name = profile.file_name().unwrap().to_str().unwrap();
    build.args(["--profile", if name == "debug" { "dev" } else { name }]);
    // What cargo says to this test would make it build all dependencies again.
    let is_said = |name: &str| {
        name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name)
    };
    env::vars().filter(|(name, _)| is_said(name)).for_each(|(name, _)| _ = build.env_remove(name));
    assert!(build.status().unwrap().success(), "the example does not build");
    let seconds = (2 * PATIENCE).as_secs().to_string();
    let mut example = Program::start(&profile.join("examples/observe"), |it| {
        it.args(["--for", &seconds]).env("RUST_LOG", "off").stdout(Stdio::piped());
    });
    let mut lines = BufReader::new(example.stdout()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("metrics at http://").unwrap();
    (example, address.strip_suffix("/metrics").unwrap().parse().unwrap())
}

/// A Prometheus with a folder of its own.
struct Prometheus {
    address: SocketAddr,
    _program: Program,
    _folder: Folder,
}

impl Prometheus {
    fn scraping(place: &Path, target: SocketAddr) -> Self {
        let (address, folder) = (free_address(), Folder::new());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - job_name: observe\n  \
               static_configs: [{{targets: ['{target}']}}]\n"
        );
        fs::write(folder.file("prometheus.yml"), config).unwrap();
        let program = Program::start(place, |it| {
            it.arg("--config.file").arg(folder.file("prometheus.yml"));
            it.arg("--storage.tsdb.path").arg(folder.file("data"));
            it.arg(format!("--web.listen-address={address}")).arg("--log.level=error");
        });
        Self { address, _program: program, _folder: folder }
    }

    /// Returns the data of a response, `None` while there is no valid one.
    async fn get(&self, path: &str, parameter: (&str, &str)) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let url = reqwest::Url::parse_with_params(&url, [parameter]).unwrap();
        let answer: Value =
            crate::support::idle_client().get(url).send().await.ok()?.json().await.ok()?;
        assert_ne!(answer["status"], "error", "{parameter:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// Returns the labels of each series that a query finds; those of numbers alone.
    async fn query(&self, query: &str) -> Vec<Value> {
        let data = self.get("query", ("query", query)).await.unwrap_or_default();
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let is_number = |it: &Value| it["value"][1].as_str().is_some_and(|it| it != "NaN");
        series.into_iter().filter(is_number).map(|it| it["metric"].clone()).collect()
    }
}

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("docs/dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A query of a panel, and the labels that its legend shows.
struct Target {
    panel: String,
    query: String,
    legend: Vec<String>,
}

/// Returns the queries of all panels, as Grafana would send them for all hosts and clients.
fn targets(dashboard: &Value) -> Vec<Target> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |it| Target {
            panel: title.clone(),
            query: it["expr"]
                .as_str()
                .unwrap()
                .replace("$host", ".*")
                .replace("$client", ".*")
                .replace("$__rate_interval", "30s"),
            legend: labels_in(it["legendFormat"].as_str().unwrap()),
        })
    };
    panels.flat_map(of_panel).collect()
}

/// Returns `host` and `by` of `{{host}} {{by}}`.
fn labels_in(legend: &str) -> Vec<String> {
    let parts = legend.split("{{").skip(1);
    parts.map(|it| it.split("}}").next().unwrap().trim().to_owned()).collect()
}

#[tokio::test]
async fn every_panel_of_the_dashboard_finds_data_in_a_real_prometheus() {
    let Some(place) = find("prometheus") else { return };
    let dashboard = dashboard();
    let (_example, metrics) = observe();
    let prometheus = Prometheus::scraping(&place, metrics);

    let mut missing = targets(&dashboard);
    assert!(missing.len() >= 12, "the panels are not read");
    let begin = Instant::now();
    while !missing.is_empty() {
        let mut still = vec![];
        for target in missing {
            let series = prometheus.query(&target.query).await;
            // A legend names labels that the series have.
            for (labels, name) in
                series.iter().flat_map(|it| target.legend.iter().map(move |name| (it, name)))
            {
                assert!(labels[name].is_string(), "{}: no {name} in {labels}", target.panel);
            }
            if series.is_empty() {
                still.push(target);
            }
        }
        missing = still;
        let late = begin.elapsed() > PATIENCE;
        let names: Vec<_> = missing.iter().map(|it| (&it.panel, &it.query)).collect();
        assert!(!late || missing.is_empty(), "no data for {names:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // The lists from which hosts and clients are chosen.
    for (label, least) in [("host", 2), ("client", 1)] {
        let path = format!("label/{label}/values");
        let values = prometheus.get(&path, ("match[]", "resilient_attempts_total")).await.unwrap();
        assert!(values.as_array().unwrap().len() >= least, "{label}: {values}");
    }
    let up = prometheus.query("up == 1").await;
    assert_eq!(up.len(), 1, "a scrape is refused");
}

/// A recorder that takes down the names of the metrics that are described to it.
#[derive(Default)]
struct Described(Mutex<BTreeSet<String>>);

impl Described {
    fn add(&self, name: &KeyName) {
        self.0.lock().unwrap().insert(name.as_str().to_owned());
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Returns the names in a text that are ours, of histograms without what Prometheus appends.
fn metrics_in(text: &str) -> impl Iterator<Item = String> {
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(move |it| !is_name(it)).filter(|it| it.starts_with("resilient_"));
    words.map(|it| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| it.strip_suffix(end));
        base.unwrap_or(it).to_owned()
    })
}

#[test]
fn every_metric_has_a_panel_and_a_line_of_documentation() {
    let described = Described::default();
    metrics::with_local_recorder(&described, || drop(MetricsObserver::new()));
    let described = described.0.into_inner().unwrap();
    assert!(described.len() > 20, "{described:?}");

    let queried: BTreeSet<_> =
        targets(&dashboard()).iter().flat_map(|it| metrics_in(&it.query)).collect();
    assert_eq!(queried, described, "of the panels, and of the observer");

    let source = fs::read_to_string(root().join("src/observe/telemetry/metrics.rs")).unwrap();
    let rows = source.lines().filter_map(|it| it.strip_prefix("/// | `resilient_"));
    let rows: BTreeSet<_> =
        rows.map(|it| format!("resilient_{}", it.split('`').next().unwrap())).collect();
    assert_eq!(rows, described, "of the table, and of the observer");
    let names = source.lines().filter(|it| it.contains("const ") && it.contains(": &str = "));
    let names: BTreeSet<_> = names.flat_map(metrics_in).collect();
    assert_eq!(names, described, "of the constants, and of the observer");
}

#[test]
fn the_dashboard_has_no_panel_and_no_query_twice() {
    let dashboard = dashboard();
    let targets = targets(&dashboard);
    let queries: BTreeSet<_> = targets.iter().map(|it| &it.query).collect();
    assert_eq!(queries.len(), targets.len());
    let ids: BTreeSet<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|it| it["id"].as_u64()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
}
