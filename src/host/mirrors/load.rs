//! The load of a host: its latency, and the requests under way.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use crate::common::clock::Instant;
use crate::common::lock::lock;

/// The time after which a third of a latency is remembered: a host is asked again 14 s after it was
/// 100 times as slow as the others.
const DECAY: Duration = Duration::from_secs(3);

/// The weight of one slower response. With more, a few outliers move the shares of equal hosts.
const RISE: f64 = 0.1;

/// The weight of one quicker response, or more if the last one was long ago.
const FALL: f64 = 0.2;

/// The least latency that a failure counts as, so that a host that fails fast does not look quick.
const FAILURE: Duration = Duration::from_secs(1);

/// The latency of a host that is not known, in seconds: low, so that it is asked.
const UNKNOWN: f64 = 0.001;

/// The latency of a host, and its requests under way.
#[derive(Debug, Default)]
pub(crate) struct Load {
    under_way: AtomicU32,
    latency: Mutex<Latency>,
}

impl Load {
    /// Returns the cost of one more request, in seconds.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        let under_way = f64::from(self.under_way.load(Ordering::Relaxed));
        lock(&self.latency).at(now).max(UNKNOWN) * (under_way + 1.0)
    }

    /// Counts a request under way.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

/// A request under way; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Load>);

impl UnderWay {
    /// Records the result of the request.
    pub(crate) fn record(self, took: Duration, failed: bool, now: Instant) {
        let sample = if failed { took.max(FAILURE) } else { took };
        let mut latency = lock(&self.0.latency);
        *latency = latency.with(sample.as_secs_f64(), now);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A mean of latencies that is forgotten with time.
#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    seconds: f64,
    measured: Option<Instant>,
}

impl Latency {
    /// Returns what is left of it at `now`.
    fn at(self, now: Instant) -> f64 {
        self.measured.map_or(0.0, |it| self.seconds * left_after(it, now))
    }

    /// Returns it with one more sample.
    fn with(self, sample: f64, now: Instant) -> Self {
        let seconds = match self.measured {
            None => sample,
            Some(_) if sample > self.seconds => self.seconds + (sample - self.seconds) * RISE,
            Some(measured) => {
                let kept = left_after(measured, now).min(1.0 - FALL);
                sample + (self.seconds - sample) * kept
            }
        };
        Self { seconds, measured: Some(now) }
    }
}

fn left_after(measured: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(measured);
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sampled(samples: &[u64], every: Duration) -> (Arc<Load>, Instant) {
        let (load, mut now) = (Arc::new(Load::default()), Instant::now());
        for sample in samples {
            now += every;
            load.begin().record(ms(*sample), false, now);
        }
        (load, now)
    }

    fn is_near(load: &Load, now: Instant, expected: f64) -> bool {
        (load.cost(now) - expected).abs() < expected * 0.1
    }

    #[test]
    fn mirrors_load_is_latency_times_requests() {
        let (load, now) = sampled(&[100; 50], ms(100));
        assert!(is_near(&load, now, 0.1), "{}", load.cost(now));
        let others: Vec<_> = (0..4).map(|_| load.begin()).collect();
        assert!(is_near(&load, now, 0.5), "{}", load.cost(now));
        drop(others);
        assert!(is_near(&load, now, 0.1), "dropped requests are not counted");
    }

    #[test]
    fn mirrors_load_rises_with_samples_and_falls_with_time() {
        let (load, now) = sampled(&[vec![10; 20], vec![100; 15]].concat(), ms(10));
        assert!(load.cost(now) > 0.07, "{}", load.cost(now));
        let (load, now) = sampled(&[vec![10; 20], vec![100; 1]].concat(), ms(10));
        assert!(load.cost(now) < 0.02, "one outlier: {}", load.cost(now));
        assert!(load.cost(now + Duration::from_secs(10)) < 0.002);
    }

    #[test]
    fn mirrors_load_falls_with_quicker_samples() {
        let (load, now) = sampled(&[vec![100; 1], vec![10; 20]].concat(), ms(1));
        assert!(is_near(&load, now, 0.011), "{}", load.cost(now));
        let (load, now) = sampled(&[100, 10], ms(1));
        assert!(is_near(&load, now, 0.082), "one quick one: {}", load.cost(now));
    }

    #[test]
    fn mirrors_load_falls_to_an_eth_within_its_decay() {
        let (load, now) = sampled(&[100], ms(1));
        assert!(is_near(&load, now + DECAY, 0.1 / std::f64::consts::E));
    }

    #[test]
    fn mirrors_load_of_an_unknown_host_is_low_and_rises_with_requests() {
        let (load, now) = (Arc::new(Load::default()), Instant::now());
        assert_eq!(load.cost(now), UNKNOWN);
        let _others: Vec<_> = (0..3).map(|_| load.begin()).collect();
        assert_eq!(load.cost(now), 4.0 * UNKNOWN);
    }

    #[test]
    fn mirrors_load_of_a_fast_failure_is_high() {
        let (load, now) = (Arc::new(Load::default()), Instant::now());
        load.begin().record(ms(1), true, now);
        assert!(load.cost(now) > 0.9);
        assert!(load.cost(now + Duration::from_secs(15)) < 0.01, "asked again within 15 s");
    }
}
