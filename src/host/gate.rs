//! Holds back requests to a host that has said when to come back.
//!
//! Without it every concurrent request finds out for itself: a hundred callers send a hundred
//! requests to a server that has asked for silence, each is told the same, and all return at the
//! same moment. With it the first answer is heard by all, and who waited returns spread out.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::{error::Error, fmt, time::Duration};

use crate::common::clock::Instant;

/// What one host's hints have closed; open unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    until: Instant,
    /// When the host takes requests again by its own word; later than `until` if it asked for
    /// longer than the gate was to be closed.
    announced: Instant,
    /// How far those who waited are spread out after `announced`.
    spread: Duration,
}

/// What [`Gate::ask`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Pass,
    /// Wait this long, then ask again: the gate may have been closed for longer meanwhile.
    Wait(Duration),
    /// Give up: the host takes requests again only after this time, and that is too late.
    TooLate(Duration),
}

/// How much time a request has for waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The longest it may wait.
    pub(crate) wait: Duration,
    /// The time until its deadline, when it must no longer wait.
    pub(crate) left: Duration,
}

/// The longest a gate stays closed. A hint beyond it is more likely a mistake than a plan.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The most that requests are spread out after a gate has opened.
///
/// Longer would make callers wait out of proportion; after this long, a client that still has
/// enough waiting requests to harm its server needs a limit, not a gate.
const WIDEST_SPREAD: Duration = Duration::from_secs(5);

impl Gate {
    /// Closes the gate for the time of a hint that came just now, for `longest` at most.
    ///
    /// A gate only ever stays closed for longer: an answer with a shorter hint was on its way
    /// before the server knew of the longer one, or comes from a backend with more room, and
    /// neither takes back what was said. After `longest`, a host that asked for hours is tried
    /// again; until then, nobody waits in vain for a gate that opens before the host does.
    ///
    /// Says whether it stays closed for longer now.
    pub(crate) fn close(&mut self, now: Instant, hint: Duration, longest: Duration) -> bool {
        let hint = hint.min(LONGEST);
        let bounded = hint.min(longest);
        let (Some(until), Some(announced)) = (now.checked_add(bounded), now.checked_add(hint))
        else {
            return false;
        };
        let longer = bounded > Duration::ZERO && self.closed.is_none_or(|it| it.until < until);
        if longer {
            let spread = (hint / 2).min(WIDEST_SPREAD);
            self.closed = Some(Closed { until, announced, spread });
        }
        longer
    }

    /// Whether a request may go now.
    ///
    /// Who has to wait is spread out evenly over half the time of the hint, at most 5 s, after the
    /// opening; `unit` gives a random number from 0 to 1. The spread depends on the hint rather than
    /// on what is left of it, so that late comers do not crowd at the opening. Who is short of time
    /// is spread over half the time there is, so that an answer may still come.
    pub(crate) fn ask(
        &self,
        now: Instant,
        patience: Patience,
        unit: impl FnOnce() -> f64,
    ) -> Answer {
        let Some(closed) = self.closed.filter(|it| now < it.until) else { return Answer::Pass };
        let opens_in = closed.announced.saturating_duration_since(now);
        if opens_in > patience.wait || opens_in >= patience.left {
            return Answer::TooLate(opens_in);
        }
        let room = patience.wait.min(patience.left).saturating_sub(opens_in) / 2;
        let spread = closed.spread.min(room);
        let share = Duration::try_from_secs_f64(spread.as_secs_f64() * unit()).unwrap_or_default();
        Answer::Wait(opens_in.saturating_add(share.min(spread)))
    }
}

/// A host's gate behind its lock.
#[derive(Debug, Default)]
pub(crate) struct HostGate {
    /// Whether it was ever closed: most never are, and are passed without the lock.
    used: AtomicBool,
    gate: Mutex<Gate>,
}

impl HostGate {
    pub(crate) fn close(&self, now: Instant, hint: Duration, longest: Duration) -> bool {
        let longer = self.lock().close(now, hint, longest);
        self.used.fetch_or(longer, Ordering::Release);
        longer
    }

    pub(crate) fn is_closed(&self, now: Instant) -> bool {
        self.used.load(Ordering::Acquire) && self.lock().closed.is_some_and(|it| now < it.until)
    }

    pub(crate) fn ask(
        &self,
        now: Instant,
        patience: Patience,
        unit: impl FnOnce() -> f64,
    ) -> Answer {
        let gate = *self.lock();
        gate.ask(now, patience, unit)
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
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

    const PATIENT: Patience = Patience { wait: Duration::MAX, left: Duration::MAX };

    fn closed(hint: Duration) -> (Gate, Instant) {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.close(now, hint, Duration::MAX);
        (gate, now)
    }

    #[test]
    fn open_until_closed() {
        let now = Instant::now();
        assert_eq!(Gate::default().ask(now, PATIENT, || 0.5), Answer::Pass);
        let (gate, now) = closed(Duration::ZERO);
        assert_eq!(gate.ask(now, PATIENT, || 0.5), Answer::Pass);
    }

    #[test]
    fn opens_by_itself() {
        let (gate, now) = closed(2 * SECOND);
        assert_eq!(gate.ask(now, PATIENT, || 0.0), Answer::Wait(2 * SECOND));
        assert_eq!(gate.ask(now + 2 * SECOND, PATIENT, || 0.9), Answer::Pass);
    }

    #[test]
    fn spreads_those_who_wait() {
        let (gate, now) = closed(2 * SECOND);
        assert_eq!(gate.ask(now, PATIENT, || 0.5), Answer::Wait(SECOND * 5 / 2));
        assert_eq!(gate.ask(now, PATIENT, || 1.0), Answer::Wait(3 * SECOND));
        // As wide for late comers.
        assert_eq!(gate.ask(now + SECOND, PATIENT, || 1.0), Answer::Wait(2 * SECOND));
        let (gate, now) = closed(60 * SECOND);
        assert_eq!(gate.ask(now, PATIENT, || 1.0), Answer::Wait(65 * SECOND));
    }

    #[test]
    fn who_is_short_of_time_is_spread_over_less_or_sent_away() {
        let (gate, now) = closed(2 * SECOND);
        let ask = |wait, left| gate.ask(now, Patience { wait, left }, || 1.0);
        let ever = Duration::MAX;
        assert_eq!(ask(SECOND * 5 / 2, ever), Answer::Wait(SECOND * 9 / 4));
        assert_eq!(ask(ever, SECOND * 5 / 2), Answer::Wait(SECOND * 9 / 4));
        assert_eq!(ask(2 * SECOND, ever), Answer::Wait(2 * SECOND));
        assert_eq!(ask(ever, 2 * SECOND), Answer::TooLate(2 * SECOND));
        assert_eq!(ask(SECOND, ever), Answer::TooLate(2 * SECOND));
    }

    #[test]
    fn a_hint_too_long_sends_all_away_until_the_host_is_tried_again() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.close(now, 3600 * SECOND, 60 * SECOND);
        let patience = Patience { wait: 60 * SECOND, left: Duration::MAX };
        let ask = |at| gate.ask(now + at, patience, || 0.0);
        assert_eq!(ask(59 * SECOND), Answer::TooLate(3541 * SECOND));
        assert_eq!(ask(60 * SECOND), Answer::Pass);
    }

    #[test]
    fn stays_closed_for_the_longest_hint() {
        let (mut gate, now) = closed(4 * SECOND);
        gate.close(now + SECOND, SECOND, Duration::MAX);
        assert_eq!(gate.ask(now + SECOND, PATIENT, || 1.0), Answer::Wait(5 * SECOND));
        gate.close(now + SECOND, 10 * SECOND, Duration::MAX);
        assert_eq!(gate.ask(now + SECOND, PATIENT, || 1.0), Answer::Wait(15 * SECOND));
        gate.close(now + 60 * SECOND, SECOND, Duration::MAX);
        assert_eq!(gate.ask(now + 60 * SECOND, PATIENT, || 0.0), Answer::Wait(SECOND));
    }

    #[test]
    fn absurd_hints_end() {
        let (gate, now) = closed(Duration::MAX);
        assert_eq!(gate.ask(now, PATIENT, || 0.0), Answer::Wait(86_400 * SECOND));
    }

    #[test]
    fn says_whether_it_is_closed_for_longer() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert!(!gate.close(now, Duration::ZERO, Duration::MAX));
        assert!(gate.close(now, 2 * SECOND, Duration::MAX));
        assert!(!gate.close(now, 2 * SECOND, Duration::MAX));
        assert!(!gate.close(now, 4 * SECOND, 2 * SECOND));
        assert!(gate.close(now, 4 * SECOND, 3 * SECOND));
    }

    #[test]
    fn a_host_has_one_gate_for_all() {
        let (gate, now) = (HostGate::default(), Instant::now());
        assert!(!gate.is_closed(now));
        assert!(gate.close(now, 2 * SECOND, Duration::MAX));
        assert!(!gate.close(now, SECOND, Duration::MAX));
        assert!(gate.is_closed(now + SECOND) && !gate.is_closed(now + 2 * SECOND));
        assert_eq!(gate.ask(now, PATIENT, || 0.0), Answer::Wait(2 * SECOND));
    }

    #[test]
    fn who_is_refused_learns_for_how_long() {
        let refused = RateLimited { retry_in: SECOND * 5 / 2 };
        assert_eq!(refused.retry_in(), SECOND * 5 / 2);
        assert_eq!(refused.to_string(), "Host is rate limited. Retry after 2.5s");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nobody_passes_before_any_hint_is_over(
            // One of no time at all closes nothing.
            hints in proptest::collection::vec((0..10_000_u64, 1..20_000_u64), 0..20),
            (asked, wait, left) in (0..40_000_u64, 0..40_000_u64, 0..40_000_u64),
            unit in ANY,
        ) {
            let (start, millis) = (Instant::now(), Duration::from_millis);
            let mut gate = Gate::default();
            for &(came, hint) in &hints {
                gate.close(start + millis(came), millis(hint), Duration::MAX);
            }
            let opens = start + millis(hints.iter().map(|it| it.0 + it.1).max().unwrap_or(0));
            let (now, wait, left) = (start + millis(asked), millis(wait), millis(left));
            match gate.ask(now, Patience { wait, left }, || unit) {
                Answer::Pass => prop_assert!(now >= opens),
                Answer::Wait(time) => {
                    prop_assert!(now + time >= opens && now + time <= opens + WIDEST_SPREAD);
                    prop_assert!(time <= wait && time < left);
                }
                Answer::TooLate(time) => {
                    prop_assert_eq!(now + time, opens);
                    prop_assert!(time > wait || time >= left);
                }
            }
        }
    }
}
