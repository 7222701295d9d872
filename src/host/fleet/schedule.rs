//! When the next exchange with the store is due.

use std::time::Duration;

use crate::common::clock::Instant;
use crate::host::fleet::signals::Urgency;

/// The least time between two exchanges where probes and gates are urgent.
const LEAST_SPACING: Duration = Duration::from_millis(100);

/// From this number of failures on, the pauses grow.
const PATIENT_FAILURES: u32 = 3;

/// The pauses while a store fails: a share of the time it has failed for, within these bounds. So it
/// is found soon after a short failure, and is not stormed after a long one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const SHARE_OF_OUTAGE: u32 = 8;

/// The times of the exchanges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    every: Duration,
    /// The beginning of the last exchange.
    last: Option<Instant>,
    due: Option<Instant>,
    failures: u32,
    failing_since: Option<Instant>,
    /// No exchange before, after several failures.
    not_before: Option<Instant>,
}

impl Schedule {
    pub(crate) fn new(every: Duration) -> Self {
        let (last, due, failing_since, not_before) = (None, None, None, None);
        Self { every, last, due, failures: 0, failing_since, not_before }
    }

    /// Returns the time of the next exchange; `None` while there is nothing to report.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Plans an exchange. `unit` is random from 0 to 1: after a quiet time, counts of many nodes must
    /// not come at the same moment.
    pub(crate) fn ask(&mut self, urgency: Urgency, unit: f64, now: Instant) {
        let next = self.last.map_or(now, |it| it + self.every);
        let at = match urgency {
            Urgency::None => return,
            Urgency::Count if next <= now => now + self.every.mul_f64(unit.clamp(0.0, 1.0)),
            Urgency::Count | Urgency::Failure => next.max(now),
            Urgency::Now => self.last.map_or(now, |it| now.max(it + LEAST_SPACING.min(self.every))),
        };
        let at = self.not_before.map_or(at, |it| it.max(at));
        self.due = Some(self.due.map_or(at, |it| it.min(at)));
    }

    /// Plans the next regular exchange: there is more to hear.
    pub(crate) fn go_on(&mut self, now: Instant) {
        self.ask(Urgency::Failure, 0.0, now);
    }

    /// Begins an exchange.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.last, self.due) = (Some(now), None);
    }

    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.failing_since, self.not_before) = (0, None, None);
    }

    /// Records a failure, and plans the next exchange.
    pub(crate) fn failed(&mut self, unit: f64, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since = self.failing_since.or(self.last);
        if self.failures >= PATIENT_FAILURES {
            let longest = self.fails_for(now) / SHARE_OF_OUTAGE;
            let longest = longest.clamp(PAUSES.0, PAUSES.1);
            let pause = PAUSES.0 + (longest - PAUSES.0).mul_f64(unit.clamp(0.0, 1.0));
            self.not_before = now.checked_add(pause);
        }
        self.go_on(now);
    }

    /// Ends a pause: the store is there again.
    pub(crate) fn hear(&mut self, now: Instant) {
        if self.not_before.take().is_some() {
            self.due = None;
            self.go_on(now);
        }
    }

    /// Returns for how long every exchange has failed; zero after a success.
    pub(crate) fn fails_for(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |it| now.saturating_duration_since(it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(schedule: &Schedule, start: Instant) -> Option<u128> {
        schedule.due().map(|it| (it - start).as_millis())
    }

    #[test]
    fn a_failure_after_a_quiet_second_is_reported_at_once() {
        let (mut schedule, now) = (Schedule::new(SECOND), Instant::now());
        schedule.ask(Urgency::None, 0.0, now);
        assert_eq!(due(&schedule, now), None);
        schedule.ask(Urgency::Count, 0.5, now);
        assert_eq!(due(&schedule, now), Some(500));
        schedule.ask(Urgency::Failure, 0.5, now);
        assert_eq!(due(&schedule, now), Some(0));
        schedule.begin(now);
        for (urgency, expected) in [(Urgency::Count, 1_000), (Urgency::Failure, 1_000)] {
            schedule.ask(urgency, 0.5, now + SECOND / 10);
            assert_eq!(due(&schedule, now), Some(expected));
        }
        schedule.ask(Urgency::Now, 0.5, now + SECOND / 20);
        assert_eq!(due(&schedule, now), Some(100));
    }

    #[test]
    fn a_store_that_fails_is_asked_less_often_with_time() {
        let (start, mut schedule) = (Instant::now(), Schedule::new(SECOND));
        schedule.ask(Urgency::Now, 0.0, start);
        let (mut now, mut asked) = (start, vec![]);
        while let Some(at) = schedule.due() {
            if at - start > 300 * SECOND {
                break;
            }
            now = at;
            asked.push((now - start).as_secs());
            schedule.begin(now);
            now += SECOND / 5;
            schedule.failed(1.0, now);
            // Nothing is urgent enough to cut a pause.
            schedule.ask(Urgency::Now, 0.0, now);
        }
        assert!((25..40).contains(&asked.len()), "{asked:?}");
        let within_10s = asked.iter().filter(|it| **it <= 10).count();
        assert!(within_10s >= 7, "{asked:?}");
        let (_, last) = (asked.pop(), asked.pop());
        assert!(schedule.fails_for(now) > 260 * SECOND && last.is_some());
        schedule.hear(now);
        assert_eq!(schedule.due(), Some(schedule.last.unwrap() + SECOND));
        schedule.succeeded();
        assert_eq!(schedule.fails_for(now), Duration::ZERO);
    }
}
