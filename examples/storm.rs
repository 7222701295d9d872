//! What many clients do to one server that stumbles.
//!
//! `cargo run --release --example storm` prints a table and writes `docs/storm.svg`; `--csv` prints
//! every cell for machines, `--quick` a small part of it.

#[path = "storm/policy.rs"]
mod policy;
#[path = "storm/tally.rs"]
mod tally;
#[path = "storm/world.rs"]
mod world;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use crate::policy::Policy;
use crate::tally::{Summary, Tally};
use crate::world::{CAPACITY, Cell, Server, Trigger};

const LOADS: [f64; 4] = [0.5, 0.7, 0.8, 0.9];
const CLIENTS: [usize; 4] = [5, 50, 500, 5_000];
const TRIGGERS: [Trigger; 3] = [Trigger::Refused, Trigger::Silent, Trigger::Brownout];

fn main() {
    let has = |flag: &str| env::args().any(|it| it == flag);
    let mut cells = vec![];
    for trigger in TRIGGERS {
        for clients in CLIENTS {
            for policy in Policy::ALL {
                for load in LOADS {
                    cells.push(Cell {
                        policy,
                        server: Server::Fifo,
                        trigger,
                        clients,
                        rate: load * CAPACITY,
                    });
                }
            }
        }
    }
    if has("--quick") {
        cells.truncate(28)
    }
    let done = run_all(&cells);
    for (cell, tally) in cells.iter().zip(&done) {
        let Summary { goodput, goodput_share, worst, overall, recovery, lost } =
            tally.summary(cell);
        println!(
            "{},{},{},{},{},{goodput:.1},{goodput_share:.3},{worst:.2},{overall:.2},{},{lost:.4},{}",
            cell.policy.name(),
            cell.server.name(),
            cell.trigger.name(),
            cell.clients,
            cell.rate / CAPACITY,
            recovery.map_or("never".into(), |it| format!("{it:.1}")),
            tally.rejected
        );
    }
}

/// Runs all cells, as many at a time as there are processors.
fn run_all(cells: &[Cell]) -> Vec<Tally> {
    let (next, done) = (AtomicUsize::new(0), vec![OnceLock::new(); cells.len()]);
    let workers = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = cells.iter().position(|it| std::ptr::eq(it, cell)).unwrap();
                    let _ = done[at].set(cell.run());
                }
            });
        }
    });
    done.into_iter().filter_map(OnceLock::into_inner).collect()
}
