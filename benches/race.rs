//! The race: what people run, on ordinary days. Every client meets every scenario on fresh servers,
//! three times; figures are medians.
//!
//! ```sh
//! cargo bench --bench race               # everything
//! cargo bench --bench race -- "at once"  # the scenarios whose names have this in them
//! cargo bench --bench race -- tail       # the slowest requests, with and without hedges
//! cargo bench --bench race -- mirrors    # one of three endpoints is ill
//! cargo bench --bench race -- --csv      # only the figures, for a program
//! ```
//!
//! Requests that could not succeed, to a dead host or an endpoint that always fails, are sent and
//! not counted among those asked.

#[path = "race/bar.rs"]
mod bar;
#[path = "race/cell.rs"]
mod cell;
#[path = "race/contestant.rs"]
mod contestant;
#[path = "race/figures.rs"]
mod figures;
#[path = "race/host.rs"]
mod host;
#[path = "race/list.rs"]
mod list;
#[path = "race/mirrors.rs"]
mod mirrors;
#[path = "race/scenario.rs"]
mod scenario;
#[path = "race/scripted.rs"]
mod scripted;
#[path = "race/server.rs"]
mod server;
#[path = "race/tail.rs"]
mod tail;

use std::{collections::HashMap, env, sync::Arc};

use contestant::{BATCH, CONTESTANTS, Contestant, PEER};
use figures::Figures;
use scenario::Scenario;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
};

const ROUNDS: u64 = 3;

/// The most requests a second of all that runs side by side: far from what two cores can do, so that
/// times stay true.
const CAPACITY: usize = 4_000;

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let (options, names): (Vec<_>, Vec<_>) =
        env::args().skip(1).partition(|it| it.starts_with("--"));
    let csv = options.iter().any(|it| it == "--csv");
    let wanted = |it: &Scenario| names.iter().all(|name| it.name.contains(name.as_str()));
    let scenarios: Vec<_> = list::scenarios().into_iter().filter(wanted).map(Arc::new).collect();
    // By itself: it takes both cores.
    let wants = |name: &str| !csv && names.iter().all(|it| name.contains(it.as_str()));
    if wants("tail in virtual time") {
        spawn_blocking(tail::print).await.expect("figures");
    }
    if wants("tail over sockets") {
        tail::print_on_sockets().await;
    }
    if wants("mirrors over sockets") {
        mirrors::print().await;
    }
    if scenarios.is_empty() {
        return;
    }
    let results = race(&scenarios).await;
    print_table(&scenarios, &results, csv);
    if !csv {
        println!();
        for (number, scenario) in scenarios.iter().enumerate() {
            print_bars(scenario, &results[number]);
        }
    }
}

/// The medians of a scenario's contestants, in their order; `None` for those that sat it out.
type Row = Vec<Option<Figures>>;

/// Runs the scenarios, as many side by side as the machine can take: first those in virtual time,
/// then those over sockets.
async fn race(scenarios: &[Arc<Scenario>]) -> Vec<Row> {
    let room = Arc::new(Semaphore::new(CAPACITY));
    let mut cells = JoinSet::new();
    let place = |load: usize| Arc::clone(&room).acquire_many_owned(load.min(CAPACITY) as u32);
    let entries = entries(scenarios);
    let (virtual_time, sockets): (Vec<_>, Vec<_>) =
        entries.partition(|(number, ..)| scenarios[*number].in_virtual_time);
    for (number, who, seed) in virtual_time {
        let scenario = Arc::clone(&scenarios[number]);
        // Takes a core.
        let place = place(CAPACITY / 2).await.expect("a place");
        cells.spawn_blocking(move || {
            let figures = cell::in_virtual_time(scenario, &CONTESTANTS[who], seed);
            drop(place);
            ((number, who), figures)
        });
    }
    let mut prepared = Vec::new();
    for (number, who, seed) in sockets {
        let scenario = Arc::clone(&scenarios[number]);
        let place = place(CAPACITY / 2).await.expect("a place");
        prepared.push((
            (number, who, seed),
            spawn_blocking(move || {
                let prepared = cell::prepare(&scenario, &CONTESTANTS[who]);
                drop(place);
                prepared
            }),
        ));
    }
    drop(place(CAPACITY).await);
    for ((number, who, seed), prepared) in prepared {
        let (scenario, prepared) =
            (Arc::clone(&scenarios[number]), prepared.await.expect("a client"));
        let place = place(scenario.load()).await.expect("a place");
        cells.spawn(async move {
            let figures = cell::on_sockets(scenario, prepared, seed).await;
            drop(place);
            ((number, who), figures)
        });
    }
    let mut results: HashMap<_, Vec<_>> = HashMap::new();
    for (cell, figures) in cells.join_all().await {
        results.entry(cell).or_default().push(figures);
    }
    let median = |number, who| results.get(&(number, who)).map(|it| Figures::median(it));
    (0..scenarios.len())
        .map(|number| (0..CONTESTANTS.len()).map(|who| median(number, who)).collect())
        .collect()
}

/// Lists scenario, contestant and seed of every cell.
fn entries(scenarios: &[Arc<Scenario>]) -> impl Iterator<Item = (usize, usize, u64)> {
    let takes_part = |scenario: &Scenario, it: &Contestant| {
        let is_out_of_reach = scenario.in_virtual_time && it.needs_sockets;
        let is_beside_the_point = it.is_preset && scenario.batch_bars.is_empty();
        let has_no_limit =
            it.is_limited && scenario.limit_bars.as_ref().is_none_or(|(name, _)| *name != it.name);
        !is_out_of_reach && !is_beside_the_point && !has_no_limit
    };
    scenarios.iter().enumerate().flat_map(move |(number, scenario)| {
        let contestants = CONTESTANTS.iter().enumerate();
        let contestants = contestants.filter(move |(_, it)| takes_part(scenario, it));
        contestants.flat_map(move |(who, _)| (1..=ROUNDS).map(move |seed| (number, who, seed)))
    })
}

fn print_table(scenarios: &[Arc<Scenario>], results: &[Row], csv: bool) {
    if csv {
        println!(
            "scenario,client,succeeded,asked,seconds,sends,sends_while_down,refused,peak_after,twice,p50_ms,p99_ms"
        );
    } else {
        println!(
            "{:<40} {:<18} {:>11} {:>7} {:>6} {:>5} {:>5} {:>7} {:>7}",
            "scenario",
            "client",
            "succeeded",
            "seconds",
            "sends",
            "429",
            "twice",
            "p50 ms",
            "p99 ms"
        );
    }
    for (scenario, row) in scenarios.iter().zip(results) {
        for (contestant, figures) in CONTESTANTS.iter().zip(row) {
            let (name, client) = (&scenario.name, contestant.name);
            let Some(it) = figures else { continue };
            let Figures {
                succeeded,
                asked,
                seconds,
                sends,
                sends_while_down,
                refused,
                peak_after,
                twice,
                p50,
                p99,
            } = it;
            if csv {
                println!(
                    "\"{name}\",{client},{succeeded},{asked},{seconds:.2},{sends},{sends_while_down},{refused},{peak_after},{twice},{p50:.1},{p99:.1}"
                );
            } else {
                let of = format!("{succeeded}/{asked}");
                println!(
                    "{name:<40} {client:<18} {of:>11} {seconds:>7.1} {sends:>6} {refused:>5} {twice:>5} {p50:>7.0} {p99:>7.0}"
                );
            }
        }
    }
}

fn print_bars(scenario: &Scenario, row: &Row) {
    let peer = CONTESTANTS.iter().position(|it| it.name == PEER).and_then(|it| row[it]);
    let Some(peer) = peer else { return };
    for (contestant, figures) in CONTESTANTS.iter().zip(row) {
        let Some(figures) = figures.filter(|_| contestant.ours) else { continue };
        let bars = match contestant {
            it if it.name == BATCH => &scenario.batch_bars,
            it if it.is_limited => scenario.limit_bars.as_ref().map_or(&scenario.bars, |it| &it.1),
            _ => &scenario.bars,
        };
        for bar in bars {
            bar.print(&format!("{}, {}", scenario.name, contestant.name), &figures, &peer);
        }
    }
}
