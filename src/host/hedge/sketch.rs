//! The latencies of one key, in buckets that grow by a tenth, and the quantile they give.

use std::time::Duration;

use crate::common::clock::Instant;

/// The number of buckets: from 0.5 ms to 90 s by steps of a tenth.
const BUCKETS: usize = 128;

/// The lower edge of the first bucket, in seconds.
const LEAST: f64 = 0.0005;

/// The upper edge of a bucket over its lower one: the middle is off by 5 % at most.
const STEP: f64 = 1.1;

/// The fewest samples a quantile is read from.
const FEWEST: f64 = 100.0;

/// The time after which a window that holds the samples needed is full.
const WINDOW_TIME: Duration = Duration::from_secs(30);

/// The time after which every window is full: hosts that are seldom asked learn from older samples.
const LONGEST_WINDOW: Duration = Duration::from_secs(300);

/// The quantile is read again after so many samples, or after [`REREAD_TIME`].
const REREAD: u32 = 64;
const REREAD_TIME: Duration = Duration::from_secs(1);

/// The latencies of the window under way and of the one before it.
///
/// A constant size of about 1 kB. After a step of the latency half a window of new samples moves a
/// high quantile; one that no longer comes is gone after two windows.
#[derive(Debug)]
pub(super) struct Sketch {
    current: Window,
    previous: Window,
    /// The quantile as it was last read, and which one it is.
    read: Option<Duration>,
    quantile: f64,
    read_at: Instant,
    /// The samples since then.
    unread: u32,
}

#[derive(Debug)]
struct Window {
    counts: [u32; BUCKETS],
    total: u32,
    began: Instant,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { counts: [0; BUCKETS], total: 0, began: now }
    }
}

impl Sketch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            current: Window::new(now),
            previous: Window::new(now),
            read: None,
            quantile: 0.0,
            read_at: now,
            unread: 0,
        }
    }

    /// Returns the number of samples in both windows.
    #[cfg(test)]
    pub(super) fn samples(&self) -> u32 {
        self.current.total + self.previous.total
    }

    /// Records a latency, for users of this quantile.
    pub(super) fn record(&mut self, latency: Duration, quantile: f64, now: Instant) {
        self.roll(quantile, now);
        if let Some(count) = self.current.counts.get_mut(bucket(latency)) {
            *count = count.saturating_add(1);
        }
        self.current.total = self.current.total.saturating_add(1);
        self.unread = self.unread.saturating_add(1);
        let is_due = self.unread >= REREAD
            || self.quantile != quantile
            || now.saturating_duration_since(self.read_at) >= REREAD_TIME
            || self.read.is_none();
        if is_due {
            self.reread(quantile, now);
        }
    }

    /// Returns the quantile of the latencies, as it was last read; `None` before there are enough of
    /// them.
    pub(super) fn quantile(&mut self, quantile: f64, now: Instant) -> Option<Duration> {
        if self.quantile != quantile {
            self.reread(quantile, now);
        }
        self.read
    }

    fn reread(&mut self, quantile: f64, now: Instant) {
        self.read = self.find(quantile);
        (self.quantile, self.read_at, self.unread) = (quantile, now, 0);
    }

    fn find(&self, quantile: f64) -> Option<Duration> {
        let total = f64::from(self.current.total) + f64::from(self.previous.total);
        if total < needed(quantile) {
            return None;
        }
        let (rank, mut seen) = ((quantile * total).ceil(), 0.0);
        let counts = self.current.counts.iter().zip(&self.previous.counts);
        let at = counts.map(|(new, old)| f64::from(*new) + f64::from(*old)).position(|count| {
            seen += count;
            seen >= rank
        });
        at.map(middle)
    }

    /// Begins a new window if the one under way is full.
    fn roll(&mut self, quantile: f64, now: Instant) {
        let (age, total) =
            (now.saturating_duration_since(self.current.began), f64::from(self.current.total));
        let is_full = total >= (10.0 / (1.0 - quantile)).max(256.0)
            || age >= WINDOW_TIME && total >= needed(quantile)
            || age >= LONGEST_WINDOW;
        if age >= LONGEST_WINDOW * 2 {
            // Nothing of it is news.
            (self.current, self.previous) = (Window::new(now), Window::new(now));
            self.read = None;
        } else if is_full {
            self.previous = std::mem::replace(&mut self.current, Window::new(now));
        }
    }
}

/// Returns the fewest samples for a quantile: five must lie above it.
fn needed(quantile: f64) -> f64 {
    (5.0 / (1.0 - quantile)).max(FEWEST).round()
}

fn bucket(latency: Duration) -> usize {
    // A float cast saturates, and makes 0 of NaN.
    ((latency.as_secs_f64() / LEAST).ln() / STEP.ln()).max(0.0).min((BUCKETS - 1) as f64) as usize
}

fn middle(bucket: usize) -> Duration {
    Duration::from_secs_f64(LEAST * STEP.powf(bucket as f64 + 0.5))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn millis(it: u64) -> Duration {
        Duration::from_millis(it)
    }

    #[test]
    fn a_quantile_is_within_five_percent() {
        for (least, most) in [(1_u64, 1_000_u64), (20, 40), (1, 60_000), (5, 90_000)] {
            let now = Instant::now();
            let mut sketch = Sketch::new(now);
            for it in 0..500 {
                let exact = least + (most - least) * (it * 7_919 % 500) / 499;
                sketch.record(millis(exact), 0.9, now);
            }
            sketch.reread(0.9, now);
            // Only the window under way and the one before count, which is all of it here.
            let exact = (least + (most - least) * 449 / 499) as f64 / 1_000.0;
            let found = sketch.quantile(0.9, now).unwrap().as_secs_f64();
            let spread = (most - least) as f64 / 499_000.0;
            assert!((found - exact).abs() <= exact * 0.051 + spread, "{found} for {exact}");
        }
    }

    #[test]
    fn nothing_is_learnt_before_there_are_enough_samples() {
        let now = Instant::now();
        for (quantile, needed) in [(0.5, 100), (0.95, 100), (0.99, 500)] {
            let mut sketch = Sketch::new(now);
            for it in 1..needed {
                sketch.record(millis(10), quantile, now);
                assert_eq!(sketch.quantile(quantile, now), None, "{it} of {needed}");
            }
            sketch.record(millis(10), quantile, now);
            assert!(sketch.quantile(quantile, now).is_some(), "{needed}");
        }
    }

    #[test]
    fn a_step_is_followed_within_some_hundred_samples() {
        for (before, after, most) in [(20, 100, 256), (100, 20, 520)] {
            let now = Instant::now();
            let mut sketch = Sketch::new(now);
            (0..2_000).for_each(|_| sketch.record(millis(before), 0.95, now));
            let there = |sketch: &mut Sketch| {
                let found = sketch.quantile(0.95, now).unwrap();
                found.abs_diff(millis(after)) < millis(after) / 10
            };
            let taken = (0..4_000).take_while(|_| {
                sketch.record(millis(after), 0.95, now);
                !there(&mut sketch)
            });
            let taken = taken.count();
            assert!(taken < most, "{before} to {after}: {taken}");
        }
    }

    #[test]
    fn a_seldom_asked_host_is_learnt_and_old_samples_go() {
        let mut now = Instant::now();
        let mut sketch = Sketch::new(now);
        for every in [1, 2] {
            sketch = Sketch::new(now);
            for it in 1..1_000 {
                sketch.record(millis(50), 0.95, now);
                now += SECOND * every;
                let is_known = sketch.quantile(0.95, now).is_some();
                assert_eq!(is_known, it >= 100, "{it}, one in {every} s");
            }
        }
        now += SECOND * 3_600;
        sketch.record(millis(50), 0.95, now);
        assert_eq!((sketch.quantile(0.95, now), sketch.samples()), (None, 1));
    }

    #[test]
    fn it_is_read_again_after_64_samples_or_a_second_or_for_another_quantile() {
        let start = Instant::now();
        let is_near = |found: Option<Duration>, latency: Duration| {
            found.unwrap().abs_diff(latency) < latency / 10
        };
        let learned = || {
            let mut sketch = Sketch::new(start);
            (0..100).for_each(|_| sketch.record(millis(10), 0.5, start));
            sketch
        };
        let mut by_count = learned();
        for it in 1..=REREAD {
            by_count.record(millis(80), 0.95, start);
            // Another quantile is read at once: only the one before is not.
            assert!(is_near(by_count.quantile(0.5, start), millis(10)), "{it}");
        }
        for (latency, later) in [(10, millis(999)), (80, SECOND)] {
            let mut by_time = learned();
            (0..10).for_each(|_| by_time.record(millis(10), 0.95, start));
            (0..50).for_each(|_| by_time.record(millis(80), 0.95, start));
            by_time.record(millis(80), 0.95, start + later);
            let found = by_time.quantile(0.95, start + later);
            assert!(is_near(found, millis(latency)), "after {later:?}: {found:?}");
        }
        let mut unread = learned();
        for it in 1..=REREAD {
            unread.record(millis(80), 0.5, start);
            let is_read = unread.unread == 0;
            assert_eq!(is_read, it == REREAD, "{it}");
        }
    }

    #[test]
    fn windows_end_by_samples_or_by_time() {
        let start = Instant::now();
        // Quantile, samples, and the seconds after which the next one begins a window.
        for (quantile, samples, seconds, begins) in [
            (0.5, 255, 0, false),
            (0.5, 256, 0, true),
            (0.99, 999, 0, false),
            (0.99, 1_000, 0, true),
            (0.5, 99, 30, false),
            (0.5, 100, 29, false),
            (0.5, 100, 30, true),
            (0.99, 499, 30, false),
            (0.99, 500, 30, true),
            (0.5, 1, 299, false),
            (0.5, 1, 300, true),
            (0.5, 1, 599, true),
        ] {
            let mut sketch = Sketch::new(start);
            (0..samples).for_each(|_| sketch.record(millis(10), quantile, start));
            sketch.record(millis(10), quantile, start + SECOND * seconds);
            let expected = if begins { (1, samples) } else { (samples + 1, 0) };
            let case = format!("{samples} for {quantile}, {seconds} s later");
            assert_eq!((sketch.current.total, sketch.previous.total), expected, "{case}");
        }
        let mut forgotten = Sketch::new(start);
        forgotten.record(millis(10), 0.5, start);
        forgotten.record(millis(10), 0.5, start + SECOND * 600);
        assert_eq!((forgotten.current.total, forgotten.previous.total), (1, 0));
    }

    #[test]
    fn extremes_have_a_bucket() {
        for (latency, at) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(500), 0),
            (Duration::from_secs(90), 126),
            (Duration::MAX, BUCKETS - 1),
        ] {
            assert_eq!(bucket(latency), at, "{latency:?}");
        }
    }

    proptest! {
        #[test]
        fn the_quantile_is_one_of_the_latencies_and_no_sample_is_lost(
            latencies in proptest::collection::vec(1_u64..80_000, 100..250),
            quantile in 0.5_f64..0.95,
        ) {
            let now = Instant::now();
            let mut sketch = Sketch::new(now);
            for it in &latencies {
                sketch.record(millis(*it), quantile, now);
            }
            sketch.reread(quantile, now);
            prop_assert_eq!(sketch.samples() as usize, latencies.len());
            let mut sorted = latencies;
            sorted.sort_unstable();
            let rank = (quantile * sorted.len() as f64).ceil() as usize - 1;
            let exact = sorted[rank] as f64 / 1_000.0;
            let found = sketch.quantile(quantile, now).unwrap().as_secs_f64();
            prop_assert!((found - exact).abs() <= exact * 0.051, "{} for {}", found, exact);
        }
    }
}
