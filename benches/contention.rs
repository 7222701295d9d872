//! What budget, gate and look-up of the host cost while threads share them, beside what others have:
//! in a tight loop, where threads that share get in each other's way all the time.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use reqwest_resilient::bench::{Account, Gate, Hosts};
use support::{
    bar,
    chain::get,
    rounds::{Case, Rounds},
};
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};
use url::Position;

/// On cache lines of its own, lest what it costs be a matter of luck with the allocator.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

fn main() {
    let now = Instant::now();
    let request = get();
    let (hosts, account, gate) = (Hosts::default(), Account::new(now), Gate::default());
    let entry = (String::from("https://api.example.com"), Arc::new(Apart(0)));
    let plain = Apart(RwLock::new(HashMap::from([entry])));
    let tower = TpsBudget::default();
    let mutex = Mutex::new(None::<Instant>);
    let cases = [
        Case::new("a budget's deposit", || black_box(&account).deposit(black_box(now))),
        Case::new("deposit, tower", || black_box(&tower).deposit()),
        Case::new("a look at the gate", || {
            black_box(black_box(&gate).is_closed(black_box(now)));
        }),
        Case::new("a look at a mutex", || {
            let is_closed = |until: Option<Instant>| until.is_some_and(|it| black_box(now) < it);
            black_box(black_box(&mutex).lock().is_ok_and(|it| is_closed(*it)));
        }),
        Case::new("finding the host", || black_box(&hosts).find(black_box(&request), now)),
        Case::new("finding it in a RwLock<HashMap>", || {
            let key = &black_box(&request).url()[..Position::BeforePath];
            drop(black_box(plain.0.read().map(|it| it.get(key).cloned())));
        }),
    ];
    for threads in [1, 2, 8] {
        let rounds = Rounds::of(threads, Duration::from_secs(8), &cases);
        rounds.print(&format!("a call, {threads} thread(s)"));
        let against = |name: &str, ours, peer| {
            let (ours, peer) = (rounds.of_case(ours), rounds.of_case(peer));
            bar(&format!("{name}, {threads} thread(s)"), ours, peer, 1.0);
        };
        against("budget, tower", "a budget's deposit", "deposit, tower");
        against("gate, a mutex", "a look at the gate", "a look at a mutex");
        if threads == 1 {
            against("look-up, a plain map", "finding the host", "finding it in a RwLock<HashMap>");
        } else {
            // From run to run the plain map takes once as long and twice as long.
            let ours = rounds.of_case("finding the host");
            bar(&format!("look-up, {threads} thread(s), 250 ns"), ours, 250.0, 1.0);
        }
    }
}
