//! Holds back requests to a host that has said when to come back.
//!
//! Without it every concurrent request finds out for itself: a hundred callers send a hundred
//! requests to a server that has asked for silence, each is told the same, and all return at the
//! same moment. With it the first answer is heard by all.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{error::Error, fmt, time::Duration};

use crate::registry::{Keyed, Part};
use crate::time::Instant;

/// What one host's hints have closed; open unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    until: Instant,
    /// How far those who waited are spread out after `until`.
    spread: Duration,
}

/// What [`Gate::ask`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Pass,
    /// Wait, then ask again: the gate may have been closed for longer meanwhile.
    Wait {
        /// Until the gate opens: what to tell, and the least that has to fit before a deadline.
        opens_in: Duration,
        /// How long to wait: until the gate opens, and this request's share of the spread.
        after: Duration,
    },
}

/// The longest a gate stays closed. A hint beyond it is more likely a mistake than a plan.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The most that requests are spread out after a gate has opened.
///
/// Longer would make callers wait out of proportion; after this long, a client that still has
/// enough waiting requests to harm its server needs a limit, not a gate.
const WIDEST_SPREAD: Duration = Duration::from_secs(5);

impl Gate {
    /// Closes the gate for the time of a hint that came just now.
    ///
    /// A gate only ever stays closed for longer: an answer with a shorter hint was on its way
    /// before the server knew of the longer one, or comes from a backend with more room, and
    /// neither takes back what was said. The caller bounds the hint by the longest wait it allows,
    /// so that a host that asks for hours is tried again after that.
    ///
    /// Says whether it stays closed for longer now.
    pub(crate) fn close(&mut self, now: Instant, hint: Duration) -> bool {
        let hint = hint.min(LONGEST);
        let Some(until) = now.checked_add(hint) else { return false };
        let longer = hint > Duration::ZERO && self.closed.is_none_or(|it| it.until < until);
        if longer {
            self.closed = Some(Closed { until, spread: (hint / 2).min(WIDEST_SPREAD) });
        }
        longer
    }

    /// Whether a request may go now.
    ///
    /// Who has to wait is spread out evenly over half the time of the hint, at most 5 s, after the
    /// opening; `unit` gives a random number from 0 to 1. The spread depends on the hint rather than
    /// on what is left of it, so that late comers do not crowd at the opening.
    pub(crate) fn ask(&self, now: Instant, unit: impl FnOnce() -> f64) -> Answer {
        let Some(Closed { until, spread }) = self.closed.filter(|it| now < it.until) else {
            return Answer::Pass;
        };
        let opens_in = until.saturating_duration_since(now);
        let share = Duration::try_from_secs_f64(spread.as_secs_f64() * unit()).unwrap_or_default();
        Answer::Wait { opens_in, after: opens_in.saturating_add(share.min(spread)) }
    }
}

/// Each host's gate, where it is kept.
pub(crate) type Gates = Keyed<HostGate>;

/// A host's gate behind its lock.
#[derive(Debug, Default)]
pub(crate) struct HostGate(Mutex<Gate>);

impl HostGate {
    pub(crate) fn close(&self, now: Instant, hint: Duration) -> bool {
        self.lock().close(now, hint)
    }

    pub(crate) fn ask(&self, now: Instant, unit: impl FnOnce() -> f64) -> Answer {
        let gate = *self.lock();
        gate.ask(now, unit)
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part for HostGate {
    /// A closed gate opens by itself within the longest wait; forgetting one costs a few requests
    /// that find out for themselves.
    fn pinned(&self) -> bool {
        false
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// The refusal to wait for a host that said when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    pub(crate) retry_in: Duration,
}

impl RateLimited {
    /// How long until the host takes requests again, by its own word.
    pub fn retry_in(&self) -> Duration {
        self.retry_in
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host is rate limited. Retry after {:.1}s", self.retry_in.as_secs_f64())
    }
}

impl Error for RateLimited {}

#[cfg(test)]
mod tests {
    use proptest::{num::f64::ANY, prelude::*};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn closed(hint: Duration) -> (Gate, Instant) {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.close(now, hint);
        (gate, now)
    }

    fn wait(opens_in: Duration, after: Duration) -> Answer {
        Answer::Wait { opens_in, after }
    }

    #[test]
    fn open_until_closed() {
        let now = Instant::now();
        assert_eq!(Gate::default().ask(now, || 0.5), Answer::Pass);
        let (gate, now) = closed(Duration::ZERO);
        assert_eq!(gate.ask(now, || 0.5), Answer::Pass);
    }

    #[test]
    fn opens_by_itself() {
        let (gate, now) = closed(2 * SECOND);
        assert_eq!(gate.ask(now, || 0.0), wait(2 * SECOND, 2 * SECOND));
        assert_eq!(gate.ask(now + 2 * SECOND, || 0.9), Answer::Pass);
    }

    #[test]
    fn spreads_those_who_wait() {
        let (gate, now) = closed(2 * SECOND);
        assert_eq!(gate.ask(now, || 0.5), wait(2 * SECOND, SECOND * 5 / 2));
        assert_eq!(gate.ask(now, || 1.0), wait(2 * SECOND, 3 * SECOND));
        // As wide for late comers.
        assert_eq!(gate.ask(now + SECOND, || 1.0), wait(SECOND, 2 * SECOND));
        let (gate, now) = closed(60 * SECOND);
        assert_eq!(gate.ask(now, || 1.0), wait(60 * SECOND, 65 * SECOND));
    }

    #[test]
    fn stays_closed_for_the_longest_hint() {
        let (mut gate, now) = closed(4 * SECOND);
        gate.close(now + SECOND, SECOND);
        assert_eq!(gate.ask(now + SECOND, || 1.0), wait(3 * SECOND, 5 * SECOND));
        gate.close(now + SECOND, 10 * SECOND);
        assert_eq!(gate.ask(now + SECOND, || 1.0), wait(10 * SECOND, 15 * SECOND));
        gate.close(now + 60 * SECOND, SECOND);
        assert_eq!(gate.ask(now + 60 * SECOND, || 0.0), wait(SECOND, SECOND));
    }

    #[test]
    fn absurd_hints_end() {
        let (gate, now) = closed(Duration::MAX);
        assert_eq!(gate.ask(now, || 0.0), wait(LONGEST, LONGEST));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nobody_passes_before_any_hint_is_over(
            hints in proptest::collection::vec((0..10_000_u64, 0..20_000_u64), 0..20),
            asked in 0..40_000_u64,
            unit in ANY,
        ) {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut gate = Gate::default();
            for &(came, hint) in &hints {
                gate.close(at(came), Duration::from_millis(hint));
            }
            let opens = hints.iter().map(|(came, hint)| came + hint).max().unwrap_or(0);
            match gate.ask(at(asked), || unit) {
                Answer::Pass => prop_assert!(asked >= opens),
                Answer::Wait { opens_in, after } => {
                    prop_assert_eq!(at(asked) + opens_in, at(opens));
                    prop_assert!(after >= opens_in && after <= opens_in + WIDEST_SPREAD);
                }
            }
        }
    }
}
