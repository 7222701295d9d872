//! The progress of a download, as it is shown to callers.

use std::time::Duration;

use crate::common::clock::Instant;

/// The least time between two reports.
const PAUSE: Duration = Duration::from_millis(100);

/// The weight of the last 100 ms in the speed.
const WEIGHT: f64 = 0.1;

/// The progress of a download; see [`on_progress`](crate::DownloadBuilder::on_progress).
///
/// # Examples
///
/// ```
/// use reqwest_resilient::Progress;
///
/// fn line(progress: &Progress) -> String {
///     let total = progress.total.map_or("?".to_owned(), |it| it.to_string());
///     format!("{} of {total} bytes, {:.0} bytes/s", progress.received, progress.speed)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of bytes received, those of an earlier process included. Falls to zero only by a
    /// restart.
    pub received: u64,
    /// The number of bytes in all, if it is known.
    pub total: Option<u64>,
    /// The number of times that the download went on after a break.
    pub resumes: u32,
    /// The number of times that it started over from zero.
    pub restarts: u32,
    /// The speed of late, in bytes per second; of an earlier process nothing counts.
    pub speed: f64,
}

/// Decides when progress is reported, and measures the speed.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The time and the bytes of the last report.
    last: (Instant, u64),
    speed: Option<f64>,
}

impl Meter {
    /// Creates a meter for a download that has `received` bytes at `now`.
    pub(crate) fn new(received: u64, now: Instant) -> Self {
        Self { last: (now, received), speed: None }
    }

    /// Returns the speed if a report is due: 100 ms after the last one, or at the end.
    pub(crate) fn report(&mut self, received: u64, is_end: bool, now: Instant) -> Option<f64> {
        let (time, before) = self.last;
        let passed = now.saturating_duration_since(time);
        if passed < PAUSE && !is_end {
            return None;
        }
        if !passed.is_zero() {
            let speed = received.saturating_sub(before) as f64 / passed.as_secs_f64();
            // The longer the time, the more it counts.
            let kept = (1.0 - WEIGHT).powf(passed.as_secs_f64() / PAUSE.as_secs_f64());
            let average = |it: f64| it * kept + speed * (1.0 - kept);
            self.speed = Some(self.speed.map_or(speed, average));
        }
        self.last = (now, received);
        Some(self.speed.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn reports_come_at_most_ten_times_a_second_and_at_the_end() {
        let start = Instant::now();
        let mut meter = Meter::new(0, start);
        let reports: Vec<_> = (1..=1_000)
            .filter_map(|it| meter.report(it * 1_000, false, start + MILLI * it as u32))
            .collect();
        assert_eq!(reports.len(), 10);
        assert!(reports.iter().all(|it| (it - 1e6).abs() < 1.0), "{reports:?}");
        assert!(meter.report(1_000_000, true, start + MILLI * 1_000).is_some());
    }

    #[test]
    fn the_speed_follows() {
        let start = Instant::now();
        let mut meter = Meter::new(500, start);
        assert_eq!(meter.report(600, false, start + 100 * MILLI), Some(1_000.0));
        let after = |meter: &mut Meter, seconds: u32| {
            meter.report(600, false, start + 100 * MILLI + 1_000 * MILLI * seconds).unwrap()
        };
        let (soon, late) = (after(&mut meter, 1), after(&mut meter, 60));
        assert!((300.0..400.0).contains(&soon) && late < 1.0, "{soon} {late}");
    }
}
