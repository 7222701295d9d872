//! Stall protection: the time in which a reader waits for bytes and none come.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use reqwest::Response;
use tokio::time::Sleep;

use crate::common::clock::Instant;
use crate::common::response::{is_open_ended, rebuild_polled};
use crate::error::BoxError;
use crate::observe::message::{Elapsed, TimeLimit};

/// A waiting time is checked this often, and a check later than that shows a reader that paused.
const TICK: Duration = Duration::from_secs(1);

/// The limits of waiting for bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StallLimits {
    /// The longest wait for a byte.
    pub(crate) timeout: Option<Duration>,
    /// The least bytes a second, on average over this waiting time.
    pub(crate) min_speed: Option<(u64, Duration)>,
}

/// The limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// No byte came for this long.
    Silent(Duration),
    /// Fewer bytes a second came for this long.
    Slow(u64, Duration),
}

/// Measures how long a reader has waited.
///
/// Only time that the reader waits counts: from the poll that finds no byte to the one that finds
/// some. A reader that pauses between the two is noticed, as its checks come late, and the time is
/// not counted.
#[derive(Debug)]
pub(crate) struct StallWatch {
    limits: StallLimits,
    /// The time of the poll that found no byte, or of the last check since.
    waits_since: Option<Instant>,
    /// The time waited for the next byte.
    silent: Duration,
    /// The time waited, and the bytes received, since the speed was last checked.
    waited: Duration,
    received: u64,
}

impl StallWatch {
    /// Creates a watch with these limits.
    pub(crate) fn new(limits: StallLimits) -> Self {
        let (silent, waited) = (Duration::ZERO, Duration::ZERO);
        Self { limits, waits_since: None, silent, waited, received: 0 }
    }

    /// Records bytes. `now` is read only if the reader has waited for them.
    pub(crate) fn received(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        self.received = self.received.saturating_add(bytes);
        if let Some(since) = self.waits_since.take() {
            if self.limits.min_speed.is_some() {
                self.waited += attended(since, now());
            }
            self.silent = Duration::ZERO;
        }
    }

    /// Records that there is no byte at `now`. Returns the time of the next check, or the limit
    /// that is exceeded; `Ok(None)` without limits.
    pub(crate) fn waits(&mut self, now: Instant) -> Result<Option<Instant>, Stall> {
        if let Some(since) = self.waits_since.replace(now) {
            let attended = attended(since, now);
            self.silent += attended;
            self.waited += attended;
        }
        if let Some((speed, period)) = self.limits.min_speed {
            if self.waited >= period {
                let least = (speed as f64 * period.as_secs_f64()) as u64;
                if self.received < least {
                    return Err(Stall::Slow(speed, period));
                }
                (self.waited, self.received) = (Duration::ZERO, 0);
            }
        }
        let left = match self.limits.timeout {
            Some(timeout) if self.silent >= timeout => return Err(Stall::Silent(timeout)),
            Some(timeout) => timeout - self.silent,
            None if self.limits.min_speed.is_none() => return Ok(None),
            None => TICK,
        };
        Ok(now.checked_add(left.min(TICK)))
    }
}

/// Returns how much of the time between two polls the reader has waited: a reader that waits is
/// polled at each check.
fn attended(since: Instant, now: Instant) -> Duration {
    let passed = now.saturating_duration_since(since);
    if passed > 2 * TICK { Duration::ZERO } else { passed }
}

/// A watch with the timer that wakes the reader for its checks.
pub(crate) struct StallTimer {
    watch: StallWatch,
    /// `None` until the reader has waited.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    /// Creates a timer with these limits.
    pub(crate) fn new(limits: StallLimits) -> Self {
        Self { watch: StallWatch::new(limits), sleep: None }
    }

    /// Records bytes.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.watch.received(bytes as u64, Instant::now);
    }

    /// Polls for a limit that is exceeded, after a poll of the body that found no byte.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stall> {
        loop {
            let next = match self.watch.waits(Instant::now()) {
                Err(stall) => return Poll::Ready(stall),
                Ok(None) => return Poll::Pending,
                Ok(Some(next)) => next,
            };
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            // A timer that fires early costs less than one that is set anew for each chunk.
            if sleep.is_elapsed() || sleep.deadline() > next {
                sleep.as_mut().reset(next);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }
}

/// The reason why reading a body within the attempt failed.
pub(crate) enum ReadError {
    Failed(reqwest::Error),
    /// No byte came for too long.
    Stalled(Elapsed),
}

/// Watches a body that is read within the attempt.
pub(crate) struct ReadWatch(StallTimer);

impl ReadWatch {
    /// Creates a watch that ends the reading after so long without a byte, if there is a limit.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self(StallTimer::new(StallLimits { timeout, min_speed: None }))
    }

    /// Waits for the next part of the body.
    pub(crate) async fn next<T>(
        &mut self,
        part: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, ReadError> {
        let mut part = pin!(part);
        let next = poll_fn(|cx| {
            if let Poll::Ready(part) = part.as_mut().poll(cx) {
                self.0.received(0);
                return Poll::Ready(part.map_err(ReadError::Failed));
            }
            let (Stall::Silent(after) | Stall::Slow(_, after)) = ready!(self.0.poll(cx));
            let elapsed = Elapsed { limit: TimeLimit::StallTimeout, after };
            Poll::Ready(Err(ReadError::Stalled(elapsed)))
        });
        next.await
    }
}

/// Marks the request of a download, which watches its bodies itself.
#[derive(Clone, Copy)]
pub(crate) struct WatchesItself;

/// Returns the same response with a body that fails if no byte comes for `timeout` while it is read.
/// A body that is empty, or a stream of events, whose silence means nothing, stays as it is.
pub(crate) fn guarded(response: Response, timeout: Duration) -> Response {
    if response.content_length() == Some(0) || is_open_ended(response.headers()) {
        return response;
    }
    let limits = StallLimits { timeout: Some(timeout), min_speed: None };
    let mut stall = StallTimer::new(limits);
    rebuild_polled(response, move |body, cx| {
        if let Poll::Ready(frame) = body.poll_frame(cx) {
            let data = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref());
            stall.received(data.map_or(0, Bytes::len));
            return Poll::Ready(frame.map(|it| it.map_err(BoxError::from)));
        }
        ready!(stall.poll(cx));
        Poll::Ready(Some(Err(super::cut_by(TimeLimit::StallTimeout, timeout))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(timeout: u64, min_speed: Option<(u64, u64)>) -> StallWatch {
        let min_speed = min_speed.map(|(speed, period)| (speed, SECOND * period as u32));
        StallWatch::new(StallLimits { timeout: Some(SECOND * timeout as u32), min_speed })
    }

    /// Polls at each check until a limit is exceeded; returns the time that took.
    fn wait(watch: &mut StallWatch, mut now: Instant, most: Duration) -> Option<(Stall, Duration)> {
        let start = now;
        loop {
            match watch.waits(now) {
                Err(stall) => return Some((stall, now - start)),
                Ok(next) => now = next.unwrap(),
            }
            if now - start > most {
                return None;
            }
        }
    }

    #[test]
    fn silence_is_a_stall_after_its_limit() {
        let stalled = wait(&mut watch(30, None), Instant::now(), 60 * SECOND);
        assert_eq!(stalled, Some((Stall::Silent(30 * SECOND), 30 * SECOND)));
        let limits = StallLimits { timeout: Some(SECOND / 4), min_speed: None };
        let stalled = wait(&mut StallWatch::new(limits), Instant::now(), SECOND);
        assert_eq!(stalled, Some((Stall::Silent(SECOND / 4), SECOND / 4)));
    }

    #[test]
    fn a_byte_ends_the_silence() {
        let (mut watch, mut now) = (watch(30, None), Instant::now());
        for _ in 0..10 {
            assert_eq!(wait(&mut watch, now, 28 * SECOND), None);
            now += 29 * SECOND;
            watch.received(1, || now);
        }
    }

    #[test]
    fn a_reader_that_pauses_is_no_stall() {
        let (mut watch, mut now) = (watch(30, None), Instant::now());
        for _ in 0..100 {
            watch.waits(now).unwrap();
            now += 60 * SECOND;
        }
        assert!(wait(&mut watch, now, 60 * SECOND).is_some(), "and a real one is still found");
    }

    #[test]
    fn a_slow_body_is_a_stall_if_a_speed_is_demanded() {
        let (mut watch, mut now, start) =
            (watch(30, Some((10, 30))), Instant::now(), Instant::now());
        let stall = loop {
            watch.received(5, || now);
            if let Err(stall) = watch.waits(now) {
                break stall;
            }
            now += SECOND;
        };
        assert_eq!(stall, Stall::Slow(10, 30 * SECOND));
        assert!((29..=32).contains(&(now - start).as_secs()), "{:?}", now - start);
    }

    #[test]
    fn a_reader_that_pauses_is_not_slow() {
        let (mut watch, mut now) = (watch(30, Some((10, 30))), Instant::now());
        for _ in 0..1_000 {
            watch.waits(now).unwrap();
            // It waits for a tenth of a second, and pauses for 10 s afterwards.
            now += SECOND / 10;
            watch.received(10, || now);
            now += 10 * SECOND;
        }
    }

    #[test]
    fn without_limits_nothing_is_checked() {
        let mut watch = StallWatch::new(StallLimits::default());
        assert_eq!(watch.waits(Instant::now()), Ok(None));
    }
}
