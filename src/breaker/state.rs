//! The machine: what a breaker decides, given the moment and the result of a call.
//!
//! It reads no clock, draws no random number, holds no lock and tells nobody; whoever drives it
//! does that.

use std::time::Duration;

use crate::breaker::{
    config::BreakerConfig,
    facts::{BreakerState, ChangeReason, CircuitOpen},
    open_time::open_time,
    permit::{Health, Report, Ticket},
    probing::{Judgement, Probing},
    window::{Results, Sample, WindowCounts},
};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    generation: u64,
    consecutive: u32,
    /// Openings since the last close: what a growing open time grows with.
    openings: u32,
    last_failure: Option<Instant>,
    results: Results,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { since: Instant, lasts: Duration },
    HalfOpen(Probing),
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: BreakerState,
    pub(super) to: BreakerState,
    pub(super) why: ChangeReason,
}

impl Machine {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            consecutive: 0,
            openings: 0,
            last_failure: None,
            results: Results::new(config.window),
        }
    }

    /// Goes on under other rules; a window of another size starts empty.
    pub(super) fn change_rules(&mut self, from: &BreakerConfig, to: &BreakerConfig) {
        if from.window != to.window {
            self.results = Results::new(to.window);
        }
    }

    /// Asks for a call to be let through.
    pub(super) fn enter(
        &mut self,
        config: &BreakerConfig,
        now: Instant,
    ) -> (Result<Ticket, CircuitOpen>, Option<Transition>) {
        if let Some(rejection) = self.rejects(config, now) {
            return (Err(rejection), None);
        }
        let transition = matches!(self.phase, Phase::Open { .. })
            .then(|| self.go(Phase::HalfOpen(Probing::new(now)), ChangeReason::OpenTimeOver));
        if let Phase::HalfOpen(probing) = &mut self.phase {
            if probing.is_full(config) {
                probing.replace_all();
                self.generation += 1;
            }
            probing.admit(now);
        }
        (Ok(Ticket { generation: self.generation, entered: now }), transition)
    }

    /// The rejection of a call that would come now, if it would be rejected.
    pub(super) fn rejects(&self, config: &BreakerConfig, now: Instant) -> Option<CircuitOpen> {
        let reject = |retry_in| CircuitOpen { failures: self.consecutive, retry_in };
        let left = match &self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly => return None,
            Phase::ForcedOpen => return Some(reject(None)),
            Phase::Open { since, lasts } => {
                lasts.saturating_sub(now.saturating_duration_since(*since))
            }
            Phase::HalfOpen(probing) => probing.wait(config, now),
        };
        (!left.is_zero()).then(|| reject(Some(left)))
    }

    /// Takes the result of a call. `random` gives a number from 0 to 1, and is only asked when
    /// the breaker opens.
    pub(super) fn exit(
        &mut self,
        ticket: Ticket,
        report: Report,
        config: &BreakerConfig,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        if ticket.generation != self.generation || matches!(self.phase, Phase::Disabled) {
            return None;
        }
        let slow = config.is_slow(now.saturating_duration_since(ticket.entered));
        let sample = Sample { failed: report.health != Health::Success, slow };
        self.note(report.health, now);

        if let Phase::HalfOpen(probing) = &mut self.phase {
            return match probing.judge(sample, config.recovery)? {
                Judgement::Recovered => Some(self.close()),
                Judgement::Failed => {
                    Some(self.open(ChangeReason::ProbesFailed, report, config, now, random))
                }
            };
        }
        let counts = self.results.record(sample, now);
        if !matches!(self.phase, Phase::Closed) {
            return None;
        }
        let why = config.broken_rule(self.consecutive, counts)?;
        Some(self.open(why, report, config, now, random))
    }

    /// Takes successes that were counted elsewhere while it was [calm](Self::calm_until).
    pub(super) fn add_successes(&mut self, number: u64) {
        self.results.add_successes(number);
    }

    /// The moment, in nanoseconds from `epoch`, until which a success that is not slow changes
    /// nothing but the number of successes; `None` if the next one may change more.
    ///
    /// Once no rule wants it open, a success can only make one do so that fills the window up to
    /// its minimum.
    pub(super) fn calm_until(&self, config: &BreakerConfig, epoch: Instant) -> Option<u64> {
        let held = self.results.held();
        let clean = held.failures == 0 && held.slow == 0;
        let calm = match self.phase {
            Phase::Closed => {
                (clean || held.total >= config.min_samples_needed())
                    && config.broken_rule(self.consecutive, held).is_none()
            }
            Phase::MetricsOnly => true,
            _ => false,
        };
        (calm && self.consecutive == 0).then(|| self.results.steady_until(epoch))
    }

    /// Takes back a ticket whose call ended without a result.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        if let Phase::HalfOpen(probing) = &mut self.phase {
            probing.abandon();
        }
    }

    /// Rejects every call from now on.
    pub(super) fn force_open(&mut self) -> Option<Transition> {
        self.go_unless_there(Phase::ForcedOpen)
    }

    /// Lets every call through unrecorded from now on.
    pub(super) fn disable(&mut self) -> Option<Transition> {
        self.go_unless_there(Phase::Disabled)
    }

    /// Lets every call through and records it from now on.
    pub(super) fn only_measure(&mut self) -> Option<Transition> {
        self.go_unless_there(Phase::MetricsOnly)
    }

    /// Closes and forgets everything.
    pub(super) fn reset(&mut self) -> Option<Transition> {
        let transition = self.go(Phase::Closed, ChangeReason::Manual);
        self.forget();
        self.last_failure = None;
        (transition.from != transition.to).then_some(transition)
    }

    pub(super) fn state(&self) -> BreakerState {
        self.phase.state()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn consecutive_failures(&self) -> u32 {
        self.consecutive
    }

    pub(super) fn last_failure(&self) -> Option<Instant> {
        self.last_failure
    }

    pub(super) fn counts(&mut self, now: Instant) -> WindowCounts {
        self.results.counts(now)
    }

    pub(super) fn probes_out(&self) -> u32 {
        match &self.phase {
            Phase::HalfOpen(probing) => probing.out(),
            _ => 0,
        }
    }

    /// How long until a probe may run, if it is open.
    pub(super) fn retry_in(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { since, lasts } => {
                Some(lasts.saturating_sub(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }

    fn note(&mut self, health: Health, now: Instant) {
        match health {
            Health::Success => self.consecutive = 0,
            Health::Failure => self.consecutive = self.consecutive.saturating_add(1),
            // It neither proves the service ill nor well.
            Health::Throttled => {}
        }
        if health != Health::Success {
            self.last_failure = Some(now);
        }
    }

    fn open(
        &mut self,
        why: ChangeReason,
        report: Report,
        config: &BreakerConfig,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Transition {
        let lasts = open_time(config, self.openings, report.retry_after, random);
        self.openings = self.openings.saturating_add(1);
        self.go(Phase::Open { since: now, lasts }, why)
    }

    fn close(&mut self) -> Transition {
        self.forget();
        self.go(Phase::Closed, ChangeReason::ProbesSucceeded)
    }

    fn forget(&mut self) {
        self.consecutive = 0;
        self.openings = 0;
        self.results.clear();
    }

    fn go_unless_there(&mut self, phase: Phase) -> Option<Transition> {
        let there = self.phase.state() == phase.state();
        (!there).then(|| self.go(phase, ChangeReason::Manual))
    }

    /// The only place where the phase changes, so that no change keeps the generation.
    fn go(&mut self, phase: Phase, why: ChangeReason) -> Transition {
        let from = self.phase.state();
        self.generation += 1;
        self.phase = phase;
        Transition { from, to: self.phase.state(), why }
    }
}

impl Phase {
    fn state(&self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen(_) => BreakerState::HalfOpen,
            Self::ForcedOpen => BreakerState::ForcedOpen,
            Self::Disabled => BreakerState::Disabled,
            Self::MetricsOnly => BreakerState::MetricsOnly,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const FAILED: Report = Report { health: Health::Failure, retry_after: None };

    #[test]
    fn breaker_asks_for_randomness_only_when_it_opens() {
        let now = Instant::now();
        let config = BreakerConfig::consecutive(NonZeroU32::new(2).unwrap());
        let mut machine = Machine::new(&config);
        let ticket = machine.enter(&config, now).0.unwrap();
        let unasked = || -> f64 { panic!("no opening, no jitter") };
        assert_eq!(machine.exit(ticket, FAILED, &config, now, unasked), None);
        assert!(machine.exit(ticket, FAILED, &config, now, || 0.5).is_some());
        assert_eq!(machine.retry_in(now), Some(Duration::from_millis(5_500)));
    }
}
