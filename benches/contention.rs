//! What budget, gate, limits and look-up of the host cost while threads share them, beside what others have:
//! in a tight loop, where threads that share get in each other's way all the time.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    hint::black_box,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, Request};

use arc_swap::ArcSwap;
use governor::{Quota, RateLimiter};
use reqwest_resilient::bench::{Account, FleetView, Gate, Hosts, Permits, Slots};
use support::{
    bar,
    chain::get,
    rounds::{Case, Rounds},
};
use tokio::{sync::Semaphore, time::Instant};
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
    // Of the first 128 hosts of a client, and not.
    let (hundredth, later) = (to(99), to(199));
    hosts.find(&request, now);
    (0..200).for_each(|it| hosts.find(&to(it), now));
    let sharded = Sharded::of((0..100).map(host));
    let entry = (String::from("https://api.example.com"), Arc::new(Apart(0)));
    let plain = Apart(RwLock::new(HashMap::from([entry])));
    let tower = TpsBudget::default();
    let mutex = Mutex::new(None::<Instant>);
    let (fleet, swap) = (FleetView::default(), ArcSwap::from_pointee(0_u64));
    let (permits, slots) = (Permits::new(1_000), Slots::new());
    let semaphore = Semaphore::new(1_000);
    let quota = Quota::with_period(Duration::from_nanos(1)).expect("a rate");
    let governor = RateLimiter::direct(quota);
    let cases = [
        Case::new("a budget's deposit", || black_box(&account).deposit()),
        Case::new("deposit, tower", || black_box(&tower).deposit()),
        Case::new("a look at the gate", || {
            black_box(black_box(&gate).may_be_closed());
        }),
        Case::new("a look at a mutex", || {
            let is_closed = |until: Option<Instant>| until.is_some_and(|it| black_box(now) < it);
            black_box(black_box(&mutex).lock().is_ok_and(|it| is_closed(*it)));
        }),
        Case::new("a look at the fleet", || {
            black_box(black_box(&fleet).is_settled());
        }),
        Case::new("a load of an ArcSwap", || {
            black_box(**black_box(&swap).load());
        }),
        Case::new("a permit", || black_box(&permits).take()),
        Case::new("a permit, tokio", || {
            drop(black_box(black_box(&semaphore).try_acquire()));
        }),
        Case::new("a slot", || {
            black_box(black_box(&slots).take(&request, Instant::now()));
        }),
        Case::new("a slot, governor", || {
            drop(black_box(black_box(&governor).check()));
        }),
        Case::new("finding the host", || black_box(&hosts).find(black_box(&request), now)),
        Case::new("finding the 100th host", || black_box(&hosts).find(black_box(&hundredth), now)),
        Case::new("finding the 200th host", || black_box(&hosts).find(black_box(&later), now)),
        Case::new("finding it in a sharded map", || {
            let key = &black_box(&hundredth).url()[..Position::BeforePath];
            drop(black_box(sharded.get(key)));
        }),
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
        let (ours, peer) =
            (rounds.of_case("a look at the fleet"), rounds.of_case("a load of an ArcSwap"));
        bar(&format!("fleet, an ArcSwap, {threads} thread(s)"), ours, peer, 2.0);
        against("gate, a mutex", "a look at the gate", "a look at a mutex");
        if threads == 1 {
            let (ours, peer) = (rounds.of_case("a permit"), rounds.of_case("a permit, tokio"));
            bar("permit, tokio, 1 thread(s)", ours, peer, 2.0);
            bar("permit, 60 ns", ours, 60.0, 1.0);
            let (ours, peer) = (rounds.of_case("a slot"), rounds.of_case("a slot, governor"));
            bar("slot, governor, 1 thread(s)", ours, peer, 1.3);
            against("look-up, a plain map", "finding the host", "finding it in a RwLock<HashMap>");
        } else {
            // From run to run the plain map takes once as long and twice as long.
            let ours = rounds.of_case("finding the host");
            bar(&format!("look-up, {threads} thread(s), 250 ns"), ours, 250.0, 1.0);
        }
        let hundredth = rounds.of_case("finding the 100th host");
        if threads == 1 {
            bar("the 100th host, 60 ns", hundredth, 60.0, 1.0);
        } else {
            let sharded = rounds.of_case("finding it in a sharded map");
            bar(
                &format!("the 100th host, a sharded map, {threads} thread(s)"),
                hundredth,
                sharded,
                1.5,
            );
        }
    }
    newcomers(now);
}

/// What a host costs that was never asked before, in a map that is full.
fn newcomers(now: Instant) {
    let full = |size: u64| {
        let hosts = Hosts::with_max_hosts(size as usize);
        (0..2 * size).for_each(|it| hosts.find(&to(it), now));
        hosts
    };
    let (small, large) = (full(1_024), full(65_536));
    let requests: Vec<_> = (0..200_000).map(|it| to(1_000_000 + it)).collect();
    let next = AtomicUsize::new(0);
    let newcomer = || &requests[next.fetch_add(1, Ordering::Relaxed) % requests.len()];
    let cases = [
        Case::new("a new host, map of 1,024", || small.find(black_box(newcomer()), now)),
        Case::new("a new host, map of 65,536", || large.find(black_box(newcomer()), now)),
    ];
    let rounds = Rounds::of(1, Duration::from_secs(4), &cases);
    rounds.print("a call");
    let [small, large] =
        ["a new host, map of 1,024", "a new host, map of 65,536"].map(|it| rounds.of_case(it));
    bar("a new host in a full map of 65,536, 2 us", large, 2_000.0, 1.0);
    bar("a new host, map of 1,024", large, small, 1.3);
}

fn host(number: u64) -> String {
    format!("https://host-{number}.example.com")
}

fn to(number: u64) -> Request {
    Request::new(Method::GET, format!("{}/", host(number)).parse().expect("a URL"))
}

/// The usual way to find shared state by name.
struct Sharded([Apart<Table>; 16], RandomState);

type Table = RwLock<HashMap<String, Arc<Apart<u64>>>>;

impl Sharded {
    fn of(keys: impl Iterator<Item = String>) -> Self {
        let map = Self(Default::default(), RandomState::new());
        for key in keys {
            if let Ok(mut shard) = map.shard(&key).write() {
                shard.insert(key, Arc::default());
            }
        }
        map
    }

    fn get(&self, key: &str) -> Option<Arc<Apart<u64>>> {
        self.shard(key).read().ok()?.get(key).cloned()
    }

    fn shard(&self, key: &str) -> &Table {
        &self.0[self.1.hash_one(key) as usize % 16].0
    }
}
