//! The window of results that a breaker judges: the last N, or those of a stretch of time.
//!
//! Memory is allocated once, at construction; recording takes constant time.

use std::time::Duration;

use crate::common::clock::{Instant, nanos};

/// The results that count for a breaker's rates and minimum of samples.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{BreakerConfig, Percent, Window};
///
/// let of_calls = Window::Count(100);
/// let of_time = Window::Time(Duration::from_secs(30));
/// let rules = [of_calls, of_time].map(|it| BreakerConfig::failure_rate(Percent::HALF, it));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Window {
    /// The last N results, however old, exactly. Takes two bytes per result, for each key.
    Count(u16),
    /// The results of this much time. It slides by tenths of itself, counted from the first result
    /// since the breaker closed or was reset: the present tenth and the nine before.
    Time(Duration),
}

/// The counts of a breaker's window.
///
/// # Examples
///
/// ```
/// use std::time::Instant;
/// use reqwest_resilient::{BreakerConfig, CircuitBreaker};
///
/// let now = Instant::now();
/// let breaker = CircuitBreaker::new(BreakerConfig::default())?;
/// breaker.try_enter(now)?.failure(now);
/// let counts = breaker.snapshot(now).window;
/// assert_eq!((counts.failures, counts.total), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowCounts {
    /// Results of first attempts. Retries and throttled responses are not in it.
    pub total: u32,
    /// Failures among them.
    pub failures: u32,
    /// Calls among them that took at least the slow-call time, with any result. Zero without a
    /// slow-call rule.
    pub slow: u32,
}

/// One result in the window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

#[derive(Debug)]
pub(super) enum Results {
    Count(Ring),
    Time(Buckets),
}

impl Results {
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Count(len) => Self::Count(Ring::new(len.into())),
            Window::Time(span) => Self::Time(Buckets::new(span)),
        }
    }

    /// Adds one result and returns the counts of the window.
    pub(super) fn record(&mut self, sample: Sample, now: Instant) -> WindowCounts {
        match self {
            Self::Count(ring) => ring.record(sample),
            Self::Time(buckets) => buckets.record(sample, now),
        }
    }

    /// Adds successes that came no later than the last moment that was seen.
    pub(super) fn add_successes(&mut self, number: u64) {
        match self {
            Self::Count(ring) => {
                let len = ring.slots.len() as u64;
                for _ in 0..number.min(len) {
                    ring.record(Sample::default());
                }
            }
            Self::Time(buckets) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let slice = &mut buckets.slices[slot(buckets.head)];
                slice.total = slice.total.saturating_add(number);
                buckets.held.total = buckets.held.total.saturating_add(number);
            }
        }
    }

    /// Returns the counts if no time has passed.
    pub(super) fn held(&self) -> WindowCounts {
        match self {
            Self::Count(ring) => ring.held,
            Self::Time(buckets) => buckets.held,
        }
    }

    /// Returns the end of the newest slice, in nanoseconds from `epoch`.
    pub(super) fn steady_until(&self, epoch: Instant) -> u64 {
        match self {
            Self::Count(_) => u64::MAX,
            Self::Time(buckets) => buckets.head_ends.map_or(0, |end| nanos_since(epoch, end)),
        }
    }

    /// Returns the counts at `now`, without results that are too old.
    pub(super) fn counts(&mut self, now: Instant) -> WindowCounts {
        match self {
            Self::Count(ring) => ring.held,
            Self::Time(buckets) => buckets.counts(now),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Count(ring) => ring.clear(),
            Self::Time(buckets) => buckets.clear(),
        }
    }
}

/// The last `slots.len()` results, exactly.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Sample]>,
    /// The place of the next result; once the ring is full, that is the oldest one.
    next: usize,
    held: WindowCounts,
}

impl Ring {
    fn new(len: usize) -> Self {
        let slots = vec![Sample::default(); len].into_boxed_slice();
        Self { slots, next: 0, held: WindowCounts::default() }
    }

    fn record(&mut self, sample: Sample) -> WindowCounts {
        let full = self.held.total as usize == self.slots.len();
        if let Some(slot) = self.slots.get_mut(self.next) {
            let oldest = std::mem::replace(slot, sample);
            if full {
                self.held.remove(WindowCounts::of(oldest));
            }
            self.held.add(sample);
        }
        self.next += 1;
        if self.next == self.slots.len() {
            self.next = 0;
        }
        self.held
    }

    fn clear(&mut self) {
        self.next = 0;
        self.held = WindowCounts::default();
    }
}

/// The slices of a time window, which slides by a tenth of itself.
pub(super) const BUCKETS: usize = 10;

/// The results of a stretch of time, in [`BUCKETS`] equal slices counted from the first result
/// since the last clear. The window is the slice `now` lies in and those before it.
#[derive(Debug)]
pub(super) struct Buckets {
    width_nanos: u64,
    origin: Option<Instant>,
    /// The slice of the newest moment seen. A result with an older moment, because two threads read
    /// the clock in another order than they took the lock, is counted in this slice.
    head: u64,
    /// The end of the head slice, so that most results need no division.
    head_ends: Option<Instant>,
    slices: [WindowCounts; BUCKETS],
    held: WindowCounts,
}

impl Buckets {
    fn new(span: Duration) -> Self {
        Self {
            width_nanos: nanos(span).div_ceil(BUCKETS as u64).max(1),
            origin: None,
            head: 0,
            head_ends: None,
            slices: [WindowCounts::default(); BUCKETS],
            held: WindowCounts::default(),
        }
    }

    fn record(&mut self, sample: Sample, now: Instant) -> WindowCounts {
        let origin = *self.origin.get_or_insert(now);
        self.slide(origin, now);
        self.slices[slot(self.head)].add(sample);
        self.held.add(sample);
        self.held
    }

    fn counts(&mut self, now: Instant) -> WindowCounts {
        if let Some(origin) = self.origin {
            self.slide(origin, now);
        }
        self.held
    }

    fn slide(&mut self, origin: Instant, now: Instant) {
        if self.head_ends.is_some_and(|end| now < end) {
            return;
        }
        let head = nanos_since(origin, now) / self.width_nanos;
        let past = self.width_nanos.saturating_mul(head.saturating_add(1));
        self.head_ends = origin.checked_add(Duration::from_nanos(past));
        let gone = head.saturating_sub(self.head).min(BUCKETS as u64);
        for index in head + 1 - gone..=head {
            let old = std::mem::take(&mut self.slices[slot(index)]);
            self.held.remove(old);
        }
        self.head = self.head.max(head);
    }

    fn clear(&mut self) {
        self.origin = None;
        self.head = 0;
        self.head_ends = None;
        self.slices = [WindowCounts::default(); BUCKETS];
        self.held = WindowCounts::default();
    }
}

impl WindowCounts {
    fn of(sample: Sample) -> Self {
        Self { total: 1, failures: sample.failed.into(), slow: sample.slow.into() }
    }

    /// Adds a result. Saturates at four thousand million results.
    fn add(&mut self, sample: Sample) {
        let more = Self::of(sample);
        self.total = self.total.saturating_add(more.total);
        self.failures = self.failures.saturating_add(more.failures);
        self.slow = self.slow.saturating_add(more.slow);
    }

    fn remove(&mut self, old: Self) {
        self.total = self.total.saturating_sub(old.total);
        self.failures = self.failures.saturating_sub(old.failures);
        self.slow = self.slow.saturating_sub(old.slow);
    }
}

fn slot(index: u64) -> usize {
    (index % BUCKETS as u64) as usize
}

pub(super) fn nanos_since(epoch: Instant, moment: Instant) -> u64 {
    nanos(moment.saturating_duration_since(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Sample = Sample { failed: true, slow: false };
    const SLOW: Sample = Sample { failed: false, slow: true };
    const GOOD: Sample = Sample { failed: false, slow: false };

    fn counts(total: u32, failures: u32, slow: u32) -> WindowCounts {
        WindowCounts { total, failures, slow }
    }

    #[test]
    fn breaker_count_window_holds_the_last_results() {
        let mut results = Results::new(Window::Count(3));
        let now = Instant::now();
        assert_eq!(results.record(FAILED, now), counts(1, 1, 0));
        assert_eq!(results.record(SLOW, now), counts(2, 1, 1));
        assert_eq!(results.record(GOOD, now), counts(3, 1, 1));
        assert_eq!(results.record(GOOD, now), counts(3, 0, 1));
        assert_eq!(results.record(GOOD, now), counts(3, 0, 0));
        results.clear();
        assert_eq!(results.counts(now), counts(0, 0, 0));
        assert_eq!(results.record(FAILED, now), counts(1, 1, 0));
    }

    #[test]
    fn breaker_time_window_slides_by_tenths() {
        let mut results = Results::new(Window::Time(Duration::from_secs(10)));
        let start = Instant::now();
        let at = |secs: f64| start + Duration::from_secs_f64(secs);
        results.record(FAILED, at(0.0));
        results.record(GOOD, at(0.9));
        results.record(SLOW, at(1.0));
        assert_eq!(results.counts(at(9.999)), counts(3, 1, 1));
        assert_eq!(results.counts(at(10.0)), counts(1, 0, 1), "the first second has left");
        assert_eq!(results.counts(at(11.0)), counts(0, 0, 0));
        assert_eq!(results.record(GOOD, at(1_000.0)), counts(1, 0, 0));
        assert_eq!(results.record(GOOD, at(999.0)), counts(2, 0, 0), "late: the newest slice");
    }

    #[test]
    fn breaker_time_window_may_be_tiny() {
        let mut results = Results::new(Window::Time(Duration::ZERO));
        let now = Instant::now();
        assert_eq!(results.record(GOOD, now), counts(1, 0, 0));
        assert_eq!(results.counts(now + Duration::from_nanos(10)), counts(0, 0, 0));
    }

    #[test]
    fn breaker_window_takes_successes_counted_elsewhere() {
        let now = Instant::now();
        for window in [Window::Count(3), Window::Time(Duration::from_secs(10))] {
            let mut results = Results::new(window);
            results.record(FAILED, now);
            results.add_successes(2);
            assert_eq!(results.held(), counts(3, 1, 0));
            results.add_successes(u64::MAX);
            let expected = match window {
                Window::Count(_) => counts(3, 0, 0),
                Window::Time(_) => counts(u32::MAX, 1, 0),
            };
            assert_eq!(results.held(), expected);
            results.clear();
            assert_eq!(results.held(), counts(0, 0, 0));
        }
    }

    #[test]
    fn breaker_time_window_is_steady_until_its_slice_ends() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut results = Results::new(Window::Time(Duration::from_secs(10)));
        assert_eq!(results.steady_until(start), 0);
        results.record(GOOD, at(500));
        assert_eq!(results.steady_until(start), 1_500_000_000);
        results.record(GOOD, at(1_600));
        assert_eq!(results.steady_until(start), 2_500_000_000);
        results.clear();
        assert_eq!(results.steady_until(start), 0);
        results.record(GOOD, at(1_700));
        assert_eq!(results.steady_until(start), 2_700_000_000, "counted from the first anew");
        let counted = Results::new(Window::Count(1));
        assert_eq!(counted.steady_until(start), u64::MAX);
    }
}
