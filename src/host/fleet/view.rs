//! The view that a node has of the fleet's breaker of one host, and what follows for a request.

use std::time::Duration;

use crate::common::clock::Instant;
use crate::host::fleet::advice::{BreakerAdvice, FleetState};

/// The probes of the whole fleet in the first second of half-open.
const PROBES_PER_SECOND: f64 = 2.0;

/// The share of the open time that a node adds at random, so that all do not return at once.
const JITTER: f64 = 0.2;

/// The time after which a request that was no probe may ask again while the fleet is half-open.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The open time that is accepted of a store.
const LONGEST_OPEN: Duration = Duration::from_secs(3_600);

/// The view that a node has of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) run: u64,
    pub(crate) epoch: u64,
    stance: Stance,
    /// The moment of the last advice.
    heard: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stance {
    Unknown,
    Closed,
    Open {
        /// The end of the open time, by the store.
        until: Instant,
        /// The same with this node's jitter.
        jittered: Instant,
        attempts_per_second: f64,
    },
}

/// The way of an advice to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The response to an exchange: the store's present word.
    Exchange,
    /// A message, which may be late, or be played again.
    News,
}

/// The place of a request in the fleet's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The local breaker decides alone.
    Free,
    /// The request is a probe.
    Probe(Probe),
    Reject {
        retry_in: Duration,
        is_probing: bool,
    },
}

/// The epoch that a probe belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) run: u64,
    pub(crate) epoch: u64,
}

impl View {
    pub(crate) fn unknown(now: Instant) -> Self {
        Self { run: 0, epoch: 0, stance: Stance::Unknown, heard: now }
    }

    /// Returns the view after an advice; `None` if the advice is old. `unit` is random from 0 to 1.
    ///
    /// Epochs only grow within a run. A store that begins anew has another run, of which exchanges
    /// tell.
    pub(crate) fn heed(
        &self,
        advice: &BreakerAdvice,
        source: Source,
        unit: f64,
        now: Instant,
    ) -> Option<Self> {
        let is_same_run = self.run == advice.run;
        let is_old = is_same_run && advice.epoch < self.epoch;
        let is_strange = !is_same_run && self.run != 0 && source == Source::News;
        if is_old || is_strange {
            return None;
        }
        let is_known = is_same_run && self.epoch == advice.epoch;
        let stance = match (advice.state, self.stance) {
            (FleetState::Unknown, _) => return None,
            (FleetState::Closed, _) => Stance::Closed,
            // The jitter is drawn once.
            (_, open @ Stance::Open { .. }) if is_known => open,
            (FleetState::Open { remaining }, _) => {
                let remaining = remaining.min(LONGEST_OPEN);
                let until = now + remaining;
                let jittered = until + remaining.mul_f64(JITTER * unit.clamp(0.0, 1.0));
                Stance::Open { until, jittered, attempts_per_second: advice.attempts_per_second }
            }
            (FleetState::HalfOpen { elapsed }, _) => {
                let until = now.checked_sub(elapsed).unwrap_or(now);
                let attempts_per_second = advice.attempts_per_second;
                Stance::Open { until, jittered: now, attempts_per_second }
            }
        };
        Some(Self { run: advice.run, epoch: advice.epoch, stance, heard: now })
    }

    /// Returns the view of a node that lost its store: it keeps the epoch, and decides alone.
    pub(crate) fn lost(&self) -> Self {
        Self { stance: Stance::Unknown, ..*self }
    }

    /// Returns whether nothing was heard for `stale_after`.
    pub(crate) fn is_stale(&self, stale_after: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= stale_after
    }

    /// Returns the place of a request. `unit` returns a number from 0 to 1, and is called while the
    /// fleet is half-open only.
    pub(crate) fn ask(
        &self,
        stale_after: Duration,
        now: Instant,
        unit: impl FnOnce() -> f64,
    ) -> Ask {
        let Stance::Open { until, jittered, attempts_per_second } = self.stance else {
            return Ask::Free;
        };
        if self.is_stale(stale_after, now) {
            return Ask::Free;
        }
        if now < jittered {
            let retry_in = jittered.saturating_duration_since(now);
            return Ask::Reject { retry_in, is_probing: false };
        }
        let elapsed = now.saturating_duration_since(until);
        match unit() < chance(attempts_per_second, elapsed) {
            true => Ask::Probe(Probe { run: self.run, epoch: self.epoch }),
            false => Ask::Reject { retry_in: ASK_AGAIN, is_probing: true },
        }
    }

    /// Returns how long the fleet rejects all; `None` if it does not, or lets a few through.
    pub(crate) fn rejects_for(&self, stale_after: Duration, now: Instant) -> Option<Duration> {
        match self.ask(stale_after, now, || 0.0) {
            Ask::Reject { retry_in, .. } => Some(retry_in),
            Ask::Free | Ask::Probe(_) => None,
        }
    }

    /// Returns the state, as this node sees it.
    pub(crate) fn state(&self, stale_after: Duration, now: Instant) -> FleetState {
        match self.stance {
            Stance::Closed => FleetState::Closed,
            Stance::Open { jittered, .. } if !self.is_stale(stale_after, now) => {
                match jittered.saturating_duration_since(now) {
                    Duration::ZERO => {
                        let elapsed = now.saturating_duration_since(jittered);
                        FleetState::HalfOpen { elapsed }
                    }
                    remaining => FleetState::Open { remaining },
                }
            }
            Stance::Open { .. } | Stance::Unknown => FleetState::Unknown,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stance, Stance::Open { .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stance == Stance::Closed
    }
}

/// Returns the chance of a request to be a probe: about two a second in a fleet that sends so many
/// attempts, and twice as many with every second without a verdict. So no node has to be asked for a
/// probe, and none that dies with one holds up the others.
fn chance(attempts_per_second: f64, elapsed: Duration) -> f64 {
    let first = PROBES_PER_SECOND / attempts_per_second.max(PROBES_PER_SECOND);
    (first * elapsed.as_secs_f64().exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(5);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn open(epoch: u64) -> BreakerAdvice {
        let state = FleetState::Open { remaining: secs(5) };
        BreakerAdvice { attempts_per_second: 200.0, ..BreakerAdvice::new(7, epoch, state) }
    }

    fn closed(epoch: u64) -> BreakerAdvice {
        BreakerAdvice::new(7, epoch, FleetState::Closed)
    }

    fn heed(view: &View, advice: &BreakerAdvice, now: Instant) -> View {
        view.heed(advice, Source::Exchange, 0.5, now).unwrap()
    }

    #[test]
    fn an_open_fleet_rejects_until_its_time_and_jitter_are_over() {
        let now = Instant::now();
        let view = heed(&View::unknown(now), &open(1), now);
        let rejection = Ask::Reject { retry_in: secs(5) + secs(1) / 2, is_probing: false };
        assert_eq!(view.ask(STALE, now, || unreachable!()), rejection);
        assert_eq!(view.rejects_for(STALE, now), Some(secs(5) + secs(1) / 2));
        // The next advice keeps the jitter, and proves contact.
        let view = view.heed(&open(1), Source::Exchange, 1.0, now + secs(4)).unwrap();
        let later = now + secs(5) + secs(1) / 2;
        let probe = Ask::Probe(Probe { run: 7, epoch: 1 });
        assert_eq!(view.ask(STALE, later, || 0.0), probe);
        assert_eq!(view.rejects_for(STALE, later), None);
        assert_eq!(view.state(STALE, later), FleetState::HalfOpen { elapsed: Duration::ZERO });
    }

    #[test]
    fn a_few_requests_probe_and_more_with_time() {
        assert_eq!(chance(200.0, Duration::ZERO), 0.01);
        assert_eq!(chance(200.0, secs(3)), 0.08);
        assert_eq!(chance(200.0, secs(60)), 1.0);
        assert_eq!(chance(0.0, Duration::ZERO), 1.0);
        assert_eq!(chance(f64::NAN, Duration::ZERO), 1.0);
        assert_eq!(chance(1.0, Duration::MAX), 1.0);
        let now = Instant::now();
        let half_open = FleetState::HalfOpen { elapsed: secs(2) };
        let advice =
            BreakerAdvice { attempts_per_second: 200.0, ..BreakerAdvice::new(7, 1, half_open) };
        let view = heed(&View::unknown(now), &advice, now);
        let rejection = Ask::Reject { retry_in: ASK_AGAIN, is_probing: true };
        assert_eq!(view.ask(STALE, now, || 0.041), rejection);
        assert_eq!(view.ask(STALE, now, || 0.04), rejection);
        assert!(matches!(view.ask(STALE, now, || 0.039), Ask::Probe(_)));
    }

    #[test]
    fn a_view_without_contact_says_nothing() {
        let now = Instant::now();
        let view = heed(&View::unknown(now), &open(1), now);
        assert!(matches!(view.ask(STALE, now + secs(4), || 0.0), Ask::Reject { .. }));
        assert_eq!(view.ask(STALE, now + secs(5), || 0.0), Ask::Free);
        assert_eq!(view.state(STALE, now + secs(5)), FleetState::Unknown);
        assert_eq!(view.lost().ask(STALE, now, || 0.0), Ask::Free);
    }

    #[test]
    fn old_advice_and_strange_news_are_ignored() {
        let now = Instant::now();
        let view = heed(&View::unknown(now), &closed(2), now);
        let heed = |advice: &BreakerAdvice, source| view.heed(advice, source, 0.5, now).is_some();
        assert!(!heed(&open(1), Source::Exchange) && !heed(&open(1), Source::News));
        assert!(heed(&open(3), Source::News));
        let other = BreakerAdvice { run: 8, ..open(1) };
        assert!(!heed(&other, Source::News) && heed(&other, Source::Exchange));
        assert!(View::unknown(now).heed(&other, Source::News, 0.5, now).is_some());
    }

    #[test]
    fn absurd_times_are_bounded() {
        let now = Instant::now();
        let state = FleetState::Open { remaining: Duration::MAX };
        let view = heed(&View::unknown(now), &BreakerAdvice::new(7, 1, state), now);
        assert!(view.rejects_for(STALE, now).unwrap() <= LONGEST_OPEN.mul_f64(1.2));
        let state = FleetState::HalfOpen { elapsed: Duration::MAX };
        let view = heed(&View::unknown(now), &BreakerAdvice::new(7, 1, state), now);
        assert!(matches!(view.ask(STALE, now, || 0.99), Ask::Probe(_)));
    }
}
