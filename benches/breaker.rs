//! What a permit and its record cost beside other breakers: `cargo bench --bench breaker`.
//!
//! The moment is read once: whoever sends a request has it at hand. The line `own clock` adds two
//! readings of it for each call.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    num::NonZeroU32,
    pin::pin,
    sync::Barrier,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant as Wall},
};

use criterion::Criterion;
use failsafe::CircuitBreaker as _;
use reqwest_resilient::{BreakerConfig, CircuitBreaker};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

/// Runs a future that never has to wait for anything but another thread.
fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::yield_now(),
        }
    }
}

/// Time for `iterations` calls in each of `threads` threads, which start together.
fn together(threads: usize, iterations: u64, call: impl Fn() + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = Wall::now();
                    (0..iterations).for_each(|_| call());
                    start.elapsed()
                })
            })
            .collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    })
}

/// Nanoseconds a call, the median of several rounds.
fn measure(criterion: &mut Criterion, name: &str, threads: usize, call: impl Fn() + Sync) -> f64 {
    let mut rounds = Vec::new();
    criterion.bench_function(&format!("{name}/{threads}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let time = together(threads, iterations, &call);
            if iterations > 1_000 {
                rounds.push(time.as_nanos() as f64 / iterations as f64);
            }
            time
        });
    });
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}

fn bar(name: &str, ours: f64, peer: f64, reach: f64) {
    let ratio = ours / peer;
    // One of the two was filtered out on the command line.
    if ratio.is_nan() {
        return;
    }
    let verdict = if ratio <= reach { "met" } else { "missed" };
    println!("bar {name} {ours:.1}/{peer:.1} {ratio:.2} to reach {reach:.2}: {verdict}");
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    let now = Instant::now();

    for threads in [1, 2] {
        let breaker = CircuitBreaker::new(BreakerConfig::default());
        let ours = measure(&mut criterion, "closed ours", threads, || {
            if let Ok(permit) = black_box(&breaker).try_enter(now) {
                permit.success(now);
            }
        });
        measure(&mut criterion, "closed ours, own clock", threads, || {
            if let Ok(permit) = black_box(&breaker).try_enter(Instant::now()) {
                permit.success(Instant::now());
            }
        });
        let breakers = CircuitBreaker::per_host(BreakerConfig::default());
        measure(&mut criterion, "closed ours, by key", threads, || {
            let breaker = breakers.for_key(black_box("https://api.example.com"));
            if let Ok(permit) = breaker.try_enter(now) {
                permit.success(now);
            }
        });

        let peer = recloser::Recloser::default();
        let recloser = measure(&mut criterion, "closed recloser", threads, || {
            let _called = black_box(&peer).call(|| Ok::<(), ()>(()));
        });
        let peer = failsafe::Config::new().build();
        let failsafe = measure(&mut criterion, "closed failsafe", threads, || {
            let _called = black_box(&peer).call(|| Ok::<(), ()>(()));
        });
        let layer = CircuitBreakerLayer::standard().build();
        let peer = layer.map(|layer| {
            layer.layer_fn(tower::service_fn(|(): ()| std::future::ready(Ok::<(), Infallible>(()))))
        });
        let tower = match peer {
            Ok(peer) => measure(&mut criterion, "closed tower-resilience", threads, || {
                let mut service = peer.clone();
                let _called = drive(async { service.ready().await?.call(()).await });
            }),
            Err(_) => f64::INFINITY,
        };
        let fastest = recloser.min(failsafe).min(tower);
        bar(&format!("breaker closed, {threads} thread(s), fastest peer"), ours, fastest, 1.0);
        bar(&format!("breaker closed, {threads} thread(s), 100 ns"), ours, 100.0, 1.0);
    }

    let breaker = CircuitBreaker::new(BreakerConfig::consecutive(NonZeroU32::MIN));
    if let Ok(permit) = breaker.try_enter(now) {
        permit.failure(now);
    }
    let ours = measure(&mut criterion, "open ours", 1, || {
        let _rejected = black_box(black_box(&breaker).try_enter(now).is_err());
    });
    let peer = recloser::Recloser::custom().closed_len(1).build();
    for _ in 0..3 {
        let _called = peer.call(|| Err::<(), ()>(()));
    }
    let theirs = measure(&mut criterion, "open recloser", 1, || {
        let _called = black_box(black_box(&peer).call(|| Ok::<(), ()>(())).is_err());
    });
    bar("breaker rejection, recloser", ours, theirs, 1.0);
    criterion.final_summary();
}
