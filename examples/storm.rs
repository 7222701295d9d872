//! What many clients do to one server that stumbles, in virtual time.
//!
//! ```sh
//! cargo run --release --example storm            # tables, and docs/storm.svg
//! cargo run --release --example storm -- --csv   # every cell, for machines
//! cargo run --release --example storm -- --chart # docs/storm.svg alone
//! cargo run --example storm -- --quick           # a small part of it
//! ```
//!
//! Each client is a real client of this crate with breaker and budget of its own; its requests end
//! in a simulated server of 500 requests a second, first come, first served. Requests arrive at
//! random and do not wait for one another; a client waits 1 s for the answer to an attempt. After
//! 20 s something goes wrong:
//!
//! - `silent`: for 10 s nothing answers, so that attempts end by timeout; what was sent is lost.
//! - `refused`: for 10 s connections are refused, at once.
//! - `brownout`: for 30 s the server has a fifth of its capacity.
//!
//! Seeds are fixed: two runs give the same figures.

#[path = "storm/chart.rs"]
mod chart;
#[path = "storm/policy.rs"]
mod policy;
#[path = "storm/tally.rs"]
mod tally;
#[path = "storm/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{collections::BTreeMap, env, thread};

use anyhow::{Context, Result};

use crate::policy::Policy;
use crate::tally::{Summary, Tally};
use crate::world::{CAPACITY, Cell, Server, Trigger};

const LOADS: [f64; 4] = [0.5, 0.7, 0.8, 0.9];
const CLIENTS: [usize; 4] = [5, 50, 500, 5_000];
const TRIGGERS: [Trigger; 3] = [Trigger::Silent, Trigger::Refused, Trigger::Brownout];

fn main() -> Result<()> {
    let has = |flag: &str| env::args().any(|it| it == flag);
    if has("--quick") {
        let policies = [Policy::NoRetries, Policy::Plain, Policy::Default];
        print_tables(&run_all(grid(&policies, &[Trigger::Silent], &[5], &[0.5]))?);
        return Ok(());
    }
    let shown = grid(&Policy::ALL, &[Trigger::Silent], &[50], &[0.8]);
    if has("--chart") {
        return chart::write("docs/storm.svg", &run_all(shown)?);
    }
    let mut cells = grid(&Policy::ALL, &TRIGGERS, &CLIENTS, &LOADS);
    for server in [Server::Cancels, Server::Sheds] {
        let variant = grid(&Policy::ALL, &TRIGGERS, &[50], &[0.8]);
        cells.extend(variant.into_iter().map(|cell| Cell { server, ..cell }));
    }
    let lived = run_all(cells)?;
    if has("--csv") {
        print_csv(&lived);
        return Ok(());
    }
    print_tables(&lived);
    print_random_failures()?;
    chart::write("docs/storm.svg", &run_all(shown)?)
}

fn grid(policies: &[Policy], triggers: &[Trigger], clients: &[usize], loads: &[f64]) -> Vec<Cell> {
    let mut cells = vec![];
    for &trigger in triggers {
        for &clients in clients {
            for &policy in policies {
                for load in loads {
                    let rate = load * CAPACITY;
                    cells.push(Cell { policy, server: Server::Fifo, trigger, clients, rate });
                }
            }
        }
    }
    cells
}

/// Runs all cells, as many at a time as there are processors.
fn run_all(cells: Vec<Cell>) -> Result<Vec<(Cell, Tally)>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(at) else { return };
            let tally = cell.run();
            done.lock().expect("nobody panics with it in hand").insert(at, (*cell, tally));
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

fn print_csv(lived: &[(Cell, Tally)]) {
    println!(
        "policy,server,trigger,clients,load,goodput,goodput_share,amplification_worst_5s,\
         amplification,recovery_s,lost_share,rejected"
    );
    for (cell, tally) in lived {
        let Cell { policy, server, trigger, clients, rate } = cell;
        let Summary { goodput, goodput_share, worst, overall, recovery, lost } =
            tally.summary(cell);
        let recovery = recovery.map_or_else(|| "never".to_owned(), |it| format!("{it:.1}"));
        println!(
            "{},{},{},{clients},{},{goodput:.1},{goodput_share:.4},{worst:.3},{overall:.3},\
             {recovery},{lost:.4},{}",
            policy.name(),
            server.name(),
            trigger.name(),
            rate / CAPACITY,
            tally.rejected,
        );
    }
}

/// One table for each trigger and number of clients, one line a policy, loads side by side.
fn print_tables(lived: &[(Cell, Tally)]) {
    println!("Per load: goodput in the 30 s after the trigger, in percent of what was asked for;");
    println!("attempts per request, over all and in the worst 5 s; seconds to recovery; lost %.");
    let mut heading = String::new();
    for line in lived.chunk_by(|(one, _), (other, _)| {
        (one.policy, one.server, one.trigger, one.clients)
            == (other.policy, other.server, other.trigger, other.clients)
    }) {
        let Cell { policy, server, trigger, clients, .. } = line[0].0;
        let (trigger, server) = (trigger.name(), server.name());
        let title = format!("\n{trigger}, {clients} clients, server: {server}");
        if title != heading {
            let loads = line.iter().map(|it| format!("| at {:.1}{:26}", it.0.rate / CAPACITY, ""));
            println!("{title}\n{:20}{}", "", loads.collect::<String>());
            heading = title;
        }
        let columns = line.iter().map(|(cell, tally)| {
            let it = tally.summary(cell);
            let recovery = it.recovery.map_or_else(|| "never".into(), |it| format!("{it:.1}"));
            let (goodput, lost) = (100.0 * it.goodput_share, 100.0 * it.lost);
            let Summary { worst, overall, .. } = it;
            format!("|{goodput:>5.0} {overall:>5.2} {worst:>5.2} {recovery:>6} {lost:>6.1} ")
        });
        println!("{:20}{}", policy.name(), columns.collect::<String>());
    }
}

/// One client, whose attempts fail at random all the time.
fn print_random_failures() -> Result<()> {
    println!("\nattempts that fail at random, one client, 600 s");
    println!("share  requests/s  requests  failed without retries  with the defaults  rejected");
    for share in [0.05, 0.1, 0.2] {
        for rate in [1.0, 10.0, 100.0] {
            let cell = |policy| Cell {
                policy,
                server: Server::Fifo,
                trigger: Trigger::Random(share),
                clients: 1,
                rate,
            };
            let lived = run_all(vec![cell(Policy::NoRetries), cell(Policy::Default)])?;
            let [(_, without), (_, with)] = lived.as_slice() else { continue };
            println!(
                "{share:>5}  {rate:>10}  {:>8}  {:>22}  {:>17}  {:>8}",
                with.requests(),
                without.failures(),
                with.failures(),
                with.rejected,
            );
        }
    }
    Ok(())
}
