//! How do I fetch many pages from many hosts? `cargo run --example crawler`
//!
//! Starts 40 hosts on this machine and fetches 25 pages of each: 6 at a time from a host, and no
//! more than 60 a second. Four hosts are dead, six fail a fifth of their requests, five allow 40
//! requests a second and say 429 beyond. At the end there is a row for each host. `--check` draws no
//! bars.

#[path = "crawler/hosts.rs"]
mod hosts;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest_resilient::{
    ConcurrencyLimit, Event, Limit, Rate, RateLimit, ResilientClient, ResilientConfig,
};
use tokio::task::JoinSet;

use hosts::{Host, Kind};

const PAGES: u64 = 25;

/// What became of the pages of one host.
#[derive(Default)]
struct Row {
    pages: u64,
    lost: u64,
    attempts: u64,
    /// The longest wait for a limit of our own.
    queued: Duration,
    error: Option<String>,
}

type Rows = Arc<Mutex<BTreeMap<String, Row>>>;

/// Changes the row of a host.
fn note(rows: &Rows, host: &str, change: impl FnOnce(&mut Row)) {
    if let Ok(mut rows) = rows.lock() {
        change(rows.entry(host.to_owned()).or_default());
    }
}

/// Builds the client of a polite crawler, whose events fill the rows.
fn crawler(rows: &Rows) -> Result<ResilientClient, Box<dyn Error>> {
    let seen = Arc::clone(rows);
    let config = ResilientConfig::batch()
        .to_builder()
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(6)))
        .rate_limit(RateLimit::per_host(Rate::per_second(60).burst(6)))
        .on_event(move |event| {
            let Some((_, url)) = event.request() else { return };
            let host = url.full().authority();
            match event {
                Event::AttemptStarted(_) => note(&seen, host, |it| it.attempts += 1),
                Event::Queued(info) => {
                    note(&seen, host, |it| it.queued = it.queued.max(info.waited));
                }
                _ => {}
            }
        })
        .build()?;
    Ok(ResilientClient::new(config)?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let checks = std::env::args().any(|it| it == "--check");
    let hosts = hosts::start().await?;
    let rows = Rows::default();
    let client = crawler(&rows)?;

    let target = if checks { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bars = MultiProgress::with_draw_target(target);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for Host { address, kind } in &hosts {
        let bar = bars.add(ProgressBar::new(PAGES));
        bar.set_style(ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len}")?);
        bar.set_message(format!("{address} {kind}"));
        for page in 0..PAGES {
            let (client, rows, bar) = (client.clone(), Arc::clone(&rows), bar.clone());
            let host = address.to_string();
            tasks.spawn(async move {
                let url = format!("http://{host}/{page}");
                let result = fetch(&client, &url).await;
                bar.inc(1);
                note(&rows, &host, |it| match result {
                    Ok(()) => it.pages += 1,
                    Err(error) => {
                        it.lost += 1;
                        it.error = Some(error);
                    }
                });
            });
        }
    }
    while tasks.join_next().await.is_some() {}
    bars.clear()?;
    print(&hosts, &rows, start.elapsed());
    check(&hosts, &rows)
}

/// Fetches one page, body included.
async fn fetch(client: &ResilientClient, url: &str) -> Result<(), String> {
    let response = client.get(url).send_resilient().await.map_err(|it| format!("{it:#}"))?;
    response.bytes().await.map_err(|it| it.to_string())?;
    Ok(())
}

fn print(hosts: &[Host], rows: &Rows, took: Duration) {
    let Ok(rows) = rows.lock() else { return };
    println!(
        "{:<22} {:<8} {:>5} {:>5} {:>8} {:>9}",
        "host", "", "pages", "lost", "attempts", "queued s"
    );
    for Host { address, kind } in hosts {
        let Some(row) = rows.get(&address.to_string()) else { continue };
        let Row { pages, lost, attempts, queued, error } = row;
        let (queued, error) = (queued.as_secs_f64(), error.as_deref().unwrap_or_default());
        // The error of a host is the same for all its pages.
        let error: String = error.chars().take(60).collect();
        println!(
            "{address:<22} {kind:<8} {pages:>5} {lost:>5} {attempts:>8} {queued:>9.2} {error}"
        );
    }
    let (pages, lost) =
        rows.values().fold((0, 0), |(pages, lost), it| (pages + it.pages, lost + it.lost));
    println!("{pages} pages, {lost} lost, in {:.1} s", took.as_secs_f64());
}

/// Fails if a page of a host is missing that is not dead.
fn check(hosts: &[Host], rows: &Rows) -> Result<(), Box<dyn Error>> {
    let Ok(rows) = rows.lock() else { return Err("a task panicked".into()) };
    for Host { address, kind } in hosts.iter().filter(|it| it.kind != Kind::Dead) {
        let pages = rows.get(&address.to_string()).map_or(0, |it| it.pages);
        if pages < PAGES {
            return Err(format!("{address} ({kind}) gave {pages} pages of {PAGES}").into());
        }
    }
    Ok(())
}
