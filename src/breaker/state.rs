//! The machine: what a breaker decides, given the moment and the result of a call.
//!
//! It reads no clock, draws no random number, holds no lock and tells nobody; whoever drives it
//! does that.

use std::time::Duration;

use crate::breaker::{
    config::{BreakerConfig, Window},
    facts::{BreakerState, ChangeReason, CircuitOpen},
    open_time::open_time,
    permit::{Health, Report, Ticket},
    probing::{Judgement, Probing},
    window::{Results, Sample, WindowCounts},
};
use crate::common::clock::Instant;

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    generation: u64,
    consecutive: u32,
    /// Openings since the last close: what a growing open time grows with.
    openings: u32,
    last_failure: Option<Instant>,
    window: Window,
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
            window: config.window,
            results: Results::new(config.window),
        }
    }

    /// Counts in another window, which starts empty.
    pub(super) fn change_window(&mut self, window: Window) {
        if self.window != window {
            (self.window, self.results) = (window, Results::new(window));
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
    use std::num::{NonZeroU16, NonZeroU32};

    use super::*;
    use crate::breaker::{config::Window, percent::Percent};

    const GOOD: Report = Report { health: Health::Success, retry_after: None };
    const FAILED: Report = Report { health: Health::Failure, retry_after: None };
    const THROTTLED: Report = Report { health: Health::Throttled, retry_after: None };

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    /// Opens after two failures in a row, for exactly 5 s.
    fn config() -> BreakerConfig {
        let ten = Window::Count(NonZeroU16::new(10).unwrap());
        BreakerConfig::consecutive(number(2)).window(ten).without_open_jitter()
    }

    fn call(
        machine: &mut Machine,
        report: Report,
        config: &BreakerConfig,
        now: Instant,
    ) -> Option<Transition> {
        let ticket = machine.enter(config, now).0.unwrap();
        machine.exit(ticket, report, config, now, || 0.0)
    }

    fn counts(total: u32, failures: u32) -> WindowCounts {
        WindowCounts { total, failures, slow: 0 }
    }

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

    #[test]
    fn breaker_opens_probes_and_closes() {
        let (config, now) = (config(), Instant::now());
        let later = now + Duration::from_secs(5);
        let mut machine = Machine::new(&config);
        assert_eq!(call(&mut machine, GOOD, &config, now), None);
        assert_eq!((machine.consecutive_failures(), machine.last_failure()), (0, None));
        assert_eq!(call(&mut machine, FAILED, &config, now), None);
        assert_eq!(call(&mut machine, THROTTLED, &config, now), None);
        assert_eq!((machine.consecutive_failures(), machine.last_failure()), (1, Some(now)));
        assert_eq!(machine.counts(now), counts(3, 2));
        assert_eq!((machine.generation(), machine.retry_in(now)), (0, None));

        let opened = call(&mut machine, FAILED, &config, now).unwrap();
        assert_eq!(opened.why, ChangeReason::ConsecutiveFailures);
        assert_eq!((opened.from, opened.to), (BreakerState::Closed, BreakerState::Open));
        assert_eq!((machine.state(), machine.generation()), (BreakerState::Open, 1));
        let rejection = machine.rejects(&config, now).unwrap();
        assert_eq!((rejection.failures, rejection.retry_in), (2, Some(Duration::from_secs(5))));
        assert!(machine.enter(&config, now).0.is_err());

        assert_eq!(machine.rejects(&config, later), None);
        let closed = call(&mut machine, GOOD, &config, later).unwrap();
        assert_eq!(closed.why, ChangeReason::ProbesSucceeded);
        assert_eq!((closed.from, closed.to), (BreakerState::HalfOpen, BreakerState::Closed));
        assert_eq!((machine.counts(later), machine.consecutive_failures()), (counts(0, 0), 0));
    }

    #[test]
    fn breaker_replaces_a_lost_probe_and_ignores_what_it_reports_later() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        let early = machine.enter(&config, now).0.unwrap();
        call(&mut machine, FAILED, &config, now);
        call(&mut machine, FAILED, &config, now);
        let half_open = now + Duration::from_secs(5);
        let (lost, transition) = machine.enter(&config, half_open);
        assert_eq!(transition.unwrap().why, ChangeReason::OpenTimeOver);
        assert_eq!((machine.probes_out(), machine.generation()), (1, 2));
        machine.abandon(early);
        assert_eq!(machine.probes_out(), 1, "it was no probe");

        let much_later = half_open + Duration::from_secs(30);
        let (probe, transition) = machine.enter(&config, much_later);
        assert_eq!((transition, machine.generation()), (None, 3));
        let late = machine.exit(lost.unwrap(), FAILED, &config, much_later, || 0.0);
        assert_eq!((late, machine.probes_out()), (None, 1));
        machine.abandon(probe.unwrap());
        assert_eq!((machine.probes_out(), machine.state()), (0, BreakerState::HalfOpen));
    }

    #[test]
    fn breaker_does_by_hand_what_it_is_told() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        let by_hand = |from, to| Some(Transition { from, to, why: ChangeReason::Manual });
        use BreakerState::{Closed, Disabled, ForcedOpen, MetricsOnly};

        assert_eq!(machine.reset(), None);
        assert_eq!(machine.only_measure(), by_hand(Closed, MetricsOnly));
        assert_eq!(machine.only_measure(), None);
        for _ in 0..3 {
            assert_eq!(call(&mut machine, FAILED, &config, now), None);
        }
        assert_eq!(machine.counts(now), counts(3, 3));
        assert_eq!(machine.disable(), by_hand(MetricsOnly, Disabled));
        assert_eq!(call(&mut machine, FAILED, &config, now), None);
        assert_eq!(machine.counts(now), counts(3, 3), "nothing is recorded");
        assert_eq!(machine.force_open(), by_hand(Disabled, ForcedOpen));
        assert_eq!(machine.rejects(&config, now).unwrap().retry_in, None);
        assert_eq!(machine.reset(), by_hand(ForcedOpen, Closed));
        assert_eq!(machine.counts(now), counts(0, 0));
        assert_eq!((machine.consecutive_failures(), machine.last_failure()), (0, None));
    }

    #[test]
    fn breaker_is_calm_while_a_success_changes_nothing_but_its_number() {
        let now = Instant::now();
        let ever = Some(u64::MAX);
        let all = Percent::new(100).unwrap();
        let config = config().or_failure_rate(all).min_samples(number(3));
        let calm = |machine: &Machine| machine.calm_until(&config, now);

        let mut machine = Machine::new(&config);
        assert_eq!(calm(&machine), ever);
        call(&mut machine, FAILED, &config, now);
        assert_eq!(calm(&machine), None, "the next success ends the row");
        call(&mut machine, GOOD, &config, now);
        assert_eq!(calm(&machine), None, "the next success fills the window to its minimum");
        call(&mut machine, GOOD, &config, now);
        assert_eq!(calm(&machine), ever);
        machine.add_successes(5);
        assert_eq!(machine.counts(now), counts(8, 1));
        machine.only_measure();
        assert_eq!(calm(&machine), ever);
        machine.disable();
        assert_eq!(calm(&machine), None);
    }

    #[test]
    fn breaker_starts_anew_with_a_window_of_another_size() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        call(&mut machine, FAILED, &config, now);
        machine.change_window(config.window);
        assert_eq!(machine.counts(now), counts(1, 1));
        machine.change_window(Window::Count(NonZeroU16::MIN));
        assert_eq!(machine.counts(now), counts(0, 0));
    }
}
