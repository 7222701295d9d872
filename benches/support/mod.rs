//! What the benches share: cases that take turns, threads that start together, a chain that ends in
//! a mock, and the line for a bar. Each bench includes it by `#[path]` and uses some of it.
#![allow(dead_code)]

pub(crate) mod chain;
pub(crate) mod rounds;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
};

/// Runs a future that never has to wait for anything but another thread.
pub(crate) fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::yield_now(),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Says whether ours costs at most `reach` times what the peer does.
pub(crate) fn bar(name: &str, ours: f64, peer: f64, reach: f64) {
    verdict(name, ours, peer, reach, ours / peer <= reach);
}

/// Says whether ours does at least `reach` times what the peer does.
pub(crate) fn bar_at_least(name: &str, ours: f64, peer: f64, reach: f64) {
    verdict(name, ours, peer, reach, ours / peer >= reach);
}

fn verdict(name: &str, ours: f64, peer: f64, reach: f64, met: bool) {
    let (ratio, verdict) = (ours / peer, if met { "met" } else { "missed" });
    println!("bar {name} {ours:.1}/{peer:.1} {ratio:.3} to reach {reach:.2}: {verdict}");
}
