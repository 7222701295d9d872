//! What many clients do to a server that stumbles, in virtual time.
//!
//! ```sh
//! cargo run --release --example storm            # tables and bars, a few minutes
//! cargo run --release --example storm -- --csv   # every run, for machines
//! cargo run --release --example storm -- --chart # docs/storm.svg alone
//! cargo run --release --example storm -- --phases # limits of concurrency alone, a minute
//! cargo run --release --example storm -- --fleet # 5,000 clients as one fleet
//! cargo run --release --example storm -- --trace # one such fleet of each row, second by second
//! cargo run --example storm -- --quick           # a small part of it
//! ```
//!
//! Each client is a real client of this crate with a state of its own; its requests end in a
//! simulated server of 500 requests a second: workers that take 120 ms on average, and a queue.
//! Requests arrive at random and do not wait for one another; together they are 50, 70 or 90 % of
//! what the server can do, however many clients share them. After 20 s something goes wrong:
//!
//! - `stalled`: workers stop. What was sent waits, and is worked off afterwards.
//! - `silent`: nothing responds, what was sent is lost.
//! - `refused`: connections are refused, at once.
//! - `20 %`: so many of the workers are left.
//!
//! The host has one route, two routes with pools of their own of which one is hit, or a balancer
//! in front of three back ends of which one is hit. Recovery takes until 93 % of the goodput of
//! before are back on every route and stay for 30 s, in all windows of 5 s. Amplification is the
//! most attempts per request in any 5 s. Figures are medians of five seeds; two runs give the
//! same. With `--fleet` they are of three seeds.

#[path = "storm/cases.rs"]
mod cases;
#[path = "storm/chart.rs"]
mod chart;
#[path = "storm/phases.rs"]
mod phases;
#[path = "storm/policy.rs"]
mod policy;
#[path = "storm/random.rs"]
mod random;
#[path = "storm/report.rs"]
mod report;
#[path = "storm/server.rs"]
mod server;
#[path = "storm/tally.rs"]
mod tally;
#[path = "storm/trigger.rs"]
mod trigger;
#[path = "storm/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{collections::BTreeMap, env, thread};

use anyhow::{Context, Result};

use crate::report::Case;
use crate::tally::{Summary, Tally};
use crate::world::Cell;

const SEEDS: u64 = 5;

/// Worlds of 5,000 clients take longer.
const FLEET_SEEDS: u64 = 3;

fn main() -> Result<()> {
    let has = |flag: &str| env::args().any(|it| it == flag);
    if has("--phases") {
        phases::print(if has("--quick") { 1 } else { SEEDS });
        return Ok(());
    }
    if has("--quick") {
        let section = cases::quick();
        report::print_table(&section, &run_seeds(&section.cells, 1)?);
        return Ok(());
    }
    if has("--fleet") {
        let section = cases::fleets();
        let cases = run_seeds(&section.cells, FLEET_SEEDS)?;
        report::print_table(&section, &cases);
        report::print_fleet_bars(&cases);
        return Ok(());
    }
    if has("--trace") {
        let cells: Vec<_> = cases::fleets().cells.into_iter().filter(Cell::is_fleet).collect();
        let cells: Vec<_> = cells.into_iter().map(|cell| Cell { seed: 1, ..cell }).collect();
        for (cell, (summary, tally)) in cells.iter().zip(run_all(&cells, |it, tally| (it, tally))?)
        {
            report::print_trace(cell, &summary, &tally);
        }
        return Ok(());
    }
    if has("--chart") {
        return write_chart();
    }
    let mut all = vec![];
    for section in cases::all() {
        let cases = run_seeds(&section.cells, SEEDS)?;
        if !has("--csv") {
            report::print_table(&section, &cases);
        }
        all.extend(cases);
    }
    if has("--csv") {
        report::print_csv(&all);
    } else {
        phases::print(SEEDS);
        report::print_bars(&all);
    }
    Ok(())
}

fn write_chart() -> Result<()> {
    let cells = cases::charted();
    let tallies = run_all(&cells, |_, tally| tally)?;
    chart::write("docs/storm.svg", &cells.into_iter().zip(tallies).collect::<Vec<_>>())
}

fn run_seeds(cells: &[Cell], seeds: u64) -> Result<Vec<Case>> {
    let runs = cells.iter().flat_map(|cell| (1..=seeds).map(|seed| Cell { seed, ..*cell }));
    let summaries = run_all(&runs.collect::<Vec<_>>(), |summary, _| summary)?;
    let seeds = summaries.chunks(seeds as usize).map(<[Summary]>::to_vec);
    Ok(cells.iter().zip(seeds).map(|(&cell, seeds)| Case { cell, seeds }).collect())
}

/// Runs all cells, as many at a time as there are processors.
fn run_all<T: Send>(cells: &[Cell], keep: fn(Summary, Tally) -> T) -> Result<Vec<T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(at) else { return };
            let (summary, tally) = cell.run();
            done.lock().expect("nothing panics with it in hand").insert(at, keep(summary, tally));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().ok().context("a cell panicked")?;
    Ok(done.into_values().collect())
}
