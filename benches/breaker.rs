//! What a permit and its record cost beside other breakers: `cargo bench --bench breaker`.
//!
//! The moment is read once: the sender of a request knows it anyway. The line `own clock` adds two
//! readings of it for each call.

#[path = "support/mod.rs"]
mod support;

use std::{convert::Infallible, future::ready, hint::black_box, time::Duration};

use failsafe::CircuitBreaker as _;
use recloser::Recloser;
use reqwest_resilient::{BreakerConfig, CircuitBreaker, HostStates};
use support::{
    bar, drive,
    rounds::{Case, Rounds},
};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

const PEERS: [&str; 3] = ["recloser", "failsafe", "tower-resilience"];

fn pass(breaker: &CircuitBreaker, entered: Instant, left: Instant) {
    if let Ok(permit) = black_box(breaker).try_enter(entered) {
        permit.success(left);
    }
}

fn closed(threads: usize, now: Instant) {
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let hosts = HostStates::new();
    let recloser = Recloser::default();
    let failsafe = failsafe::Config::new().build();
    let layer = CircuitBreakerLayer::standard().build().expect("a layer");
    let answer = tower::service_fn(|(): ()| ready(Ok::<(), Infallible>(())));
    let tower = layer.layer_fn(answer);
    let cases = [
        Case::new("ours", || pass(&breaker, now, now)),
        Case::new("ours, own clock", || pass(&breaker, Instant::now(), Instant::now())),
        Case::new("ours, by key", || {
            pass(&hosts.breaker(black_box("https://api.example.com")), now, now);
        }),
        Case::new("recloser", || {
            let _called = black_box(&recloser).call(|| Ok::<(), ()>(()));
        }),
        Case::new("failsafe", || {
            let _called = black_box(&failsafe).call(|| Ok::<(), ()>(()));
        }),
        Case::new("tower-resilience", || {
            let mut service = tower.clone();
            let _called = drive(async { service.ready().await?.call(()).await });
        }),
    ];
    let rounds = Rounds::of(threads, Duration::from_secs(6), &cases);
    rounds.print(&format!("closed, {threads} thread(s)"));
    let ours = rounds.of_case("ours");
    let fastest = PEERS.map(|it| rounds.of_case(it)).into_iter().fold(f64::INFINITY, f64::min);
    bar(&format!("breaker closed, {threads} thread(s), fastest peer"), ours, fastest, 1.0);
    bar(&format!("breaker closed, {threads} thread(s), 100 ns"), ours, 100.0, 1.0);
}

fn open(now: Instant) {
    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(1)).unwrap();
    if let Ok(permit) = breaker.try_enter(now) {
        permit.failure(now);
    }
    let recloser = Recloser::custom().closed_len(1).build();
    for _ in 0..3 {
        let _called = recloser.call(|| Err::<(), ()>(()));
    }
    let cases = [
        Case::new("ours", || {
            let _rejected = black_box(black_box(&breaker).try_enter(now).is_err());
        }),
        Case::new("recloser", || {
            let _rejected = black_box(black_box(&recloser).call(|| Ok::<(), ()>(())).is_err());
        }),
    ];
    let rounds = Rounds::of(1, Duration::from_secs(3), &cases);
    rounds.print("open, 1 thread");
    bar("breaker rejection, recloser", rounds.of_case("ours"), rounds.of_case("recloser"), 1.0);
}

fn main() {
    let now = Instant::now();
    [1, 2, 8].into_iter().for_each(|threads| closed(threads, now));
    open(now);
}
