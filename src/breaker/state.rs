//! The state machine: the decisions of a breaker, given the moment and the result of a call.
//!
//! It reads no clock, draws no random number, holds no lock and notifies no observer: its callers
//! do.

use std::time::Duration;

use crate::breaker::{
    config::BreakerConfig,
    open_time::open_time,
    outage::Outage,
    probing::{Judgement, Probing},
    report::{Health, Report, Ticket},
    rules::Evidence,
    status::{BreakerState, ChangeReason, CircuitOpen, OpenCause},
    window::{Results, Sample, Window, WindowCounts},
};
use crate::common::clock::Instant;

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    generation: u64,
    /// Failures since the last success.
    consecutive: u32,
    /// The part of those failures that is one outage; `None` exactly while `consecutive` is 0.
    outage: Option<Outage>,
    /// The reason of the last opening, while it is open or half-open.
    opened_by: ChangeReason,
    /// Openings since the last close: a growing open time grows with them.
    openings: u32,
    last_failure: Option<Instant>,
    /// The openings that did not happen because it only measures. Boxed, because it seldom does.
    prevented: Option<Box<Prevented>>,
    window: Window,
    results: Results,
}

/// The openings that a breaker which only measures would have had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prevented {
    pub(super) openings: u32,
    pub(super) last: OpenCause,
    at: Instant,
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
    /// The figures of an opening by rule or probe.
    pub(super) cause: Option<OpenCause>,
}

impl Machine {
    pub(super) fn new(config: &BreakerConfig) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            consecutive: 0,
            outage: None,
            opened_by: ChangeReason::Manual,
            openings: 0,
            last_failure: None,
            prevented: None,
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

    /// Admits or rejects a call.
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

    /// Returns the rejection of a call that would come at `now`; `None` if it would be admitted.
    pub(super) fn rejects(&self, config: &BreakerConfig, now: Instant) -> Option<CircuitOpen> {
        let is_probing = matches!(self.phase, Phase::HalfOpen(_));
        let reject = |reason, retry_in| {
            let cause = self.cause(reason, now);
            CircuitOpen { cause, retry_in, is_probing }
        };
        let left = match &self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly => return None,
            Phase::ForcedOpen => return Some(reject(ChangeReason::Manual, None)),
            Phase::Open { since, lasts } => {
                lasts.saturating_sub(now.saturating_duration_since(*since))
            }
            Phase::HalfOpen(probing) => probing.wait(config, now),
        };
        (!left.is_zero()).then(|| reject(self.opened_by, Some(left)))
    }

    /// Records the result of a call. `random` returns a number from 0 to 1, and is only called when
    /// the breaker opens.
    pub(super) fn exit(
        &mut self,
        ticket: Ticket,
        report: Report,
        config: &BreakerConfig,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        if report.health == Health::Throttled {
            self.abandon(ticket);
            return None;
        }
        let failed = report.health == Health::Failure;
        if !self.hears(ticket, failed) {
            return None;
        }
        self.note(failed, config, now);

        // Also frees the place of a probe, unless another one has it.
        self.abandon(ticket);
        if let Phase::HalfOpen(probing) = &mut self.phase {
            return match probing.judge(failed, config.recovery)? {
                Judgement::Recovered => Some(self.close()),
                Judgement::Failed => {
                    Some(self.open(ChangeReason::ProbesFailed, report, config, now, random))
                }
            };
        }
        let slow = config.is_slow(now.saturating_duration_since(ticket.entered));
        let counts = match report.first {
            true => self.results.record(Sample { failed, slow }, now),
            false => self.results.counts(now),
        };
        let outage = self.outage.map(|it| (it.failures(), it.lasts(now))).unwrap_or_default();
        let evidence = Evidence { in_a_row: self.consecutive, outage, counts };
        let why = config.broken_rule(evidence)?;
        if !matches!(self.phase, Phase::Closed) {
            self.prevent(why, config, now);
            return None;
        }
        Some(self.open(why, report, config, now, random))
    }

    /// Counts an opening that does not happen. It would have lasted, so that one follows another no
    /// sooner than after the open time.
    fn prevent(&mut self, why: ChangeReason, config: &BreakerConfig, now: Instant) {
        let openings = match self.prevented() {
            Some(it) if now.saturating_duration_since(it.at) < config.open_for => return,
            Some(it) => it.openings.saturating_add(1),
            None => 1,
        };
        let last = self.cause(why, now);
        self.prevented = Some(Box::new(Prevented { openings, last, at: now }));
    }

    /// Returns whether the result of a call still counts: the call was admitted in this generation,
    /// or it is the success of a replaced probe, which proves as well that the service is back.
    fn hears(&self, ticket: Ticket, failed: bool) -> bool {
        let generations = self.generation.saturating_sub(ticket.generation);
        match &self.phase {
            Phase::Disabled => false,
            Phase::HalfOpen(probing) if !failed => generations <= probing.replacements(),
            _ => generations == 0,
        }
    }

    /// Adds successes that lanes counted while it was [calm](Self::calm_until).
    pub(super) fn add_successes(&mut self, number: u64) {
        self.results.add_successes(number);
    }

    /// Returns the moment, in nanoseconds from `epoch`, until which a success that is not slow
    /// changes nothing but the number of successes; `None` if the next one may change more.
    ///
    /// Once all rules keep it closed, a success can open it only by filling the window up to its
    /// minimum.
    pub(super) fn calm_until(&self, config: &BreakerConfig, epoch: Instant) -> Option<u64> {
        let held = self.results.held();
        let clean = held.failures == 0 && held.slow == 0;
        let calm = match self.phase {
            Phase::Closed | Phase::MetricsOnly => {
                (clean || held.total >= config.min_samples_needed())
                    && config
                        .broken_rule(Evidence { counts: held, ..Evidence::default() })
                        .is_none()
            }
            _ => false,
        };
        (calm && self.consecutive == 0).then(|| self.results.steady_until(epoch))
    }

    /// Takes back the ticket of a call that ended without a result.
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

    /// Opens it for `time`.
    pub(super) fn open_by_hand(&mut self, time: Duration, now: Instant) -> Option<Transition> {
        self.opened_by = ChangeReason::Manual;
        let transition = self.go(Phase::Open { since: now, lasts: time }, ChangeReason::Manual);
        (transition.from != transition.to).then_some(transition)
    }

    /// Admits every call and records nothing from now on.
    pub(super) fn disable(&mut self) -> Option<Transition> {
        self.go_unless_there(Phase::Disabled)
    }

    /// Admits every call and records its result from now on.
    pub(super) fn only_measure(&mut self) -> Option<Transition> {
        self.go_unless_there(Phase::MetricsOnly)
    }

    /// Closes and clears everything.
    pub(super) fn reset(&mut self) -> Option<Transition> {
        let transition = self.go(Phase::Closed, ChangeReason::Manual);
        self.forget();
        self.last_failure = None;
        (transition.from != transition.to).then_some(transition)
    }

    /// Restarts closed, with an empty window: the fleet found the service back. A state that was set
    /// by hand stays.
    pub(super) fn restart(&mut self) -> Option<Transition> {
        match self.phase {
            Phase::Open { .. } | Phase::HalfOpen(_) => {
                self.forget();
                Some(self.go(Phase::Closed, ChangeReason::Fleet))
            }
            Phase::Closed => {
                self.forget();
                self.generation += 1;
                None
            }
            Phase::ForcedOpen | Phase::Disabled | Phase::MetricsOnly => None,
        }
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

    /// Returns the openings that did not happen, if it only measures.
    pub(super) fn prevented(&self) -> Option<Prevented> {
        self.prevented.as_deref().copied()
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

    /// Returns the time until a probe may run, if it is open.
    pub(super) fn retry_in(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { since, lasts } => {
                Some(lasts.saturating_sub(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }

    fn note(&mut self, failed: bool, config: &BreakerConfig, now: Instant) {
        if !failed {
            self.consecutive = 0;
            self.outage = None;
            return;
        }
        // Probes may be far apart, and are evidence nevertheless.
        let longest_pause = match self.phase {
            Phase::Closed | Phase::MetricsOnly => config.longest_pause(),
            _ => Duration::MAX,
        };
        self.consecutive = self.consecutive.saturating_add(1);
        self.outage = Some(Outage::add(self.outage, longest_pause, now));
        self.last_failure = Some(now);
    }

    fn cause(&self, reason: ChangeReason, now: Instant) -> OpenCause {
        OpenCause {
            reason,
            failures: self.consecutive,
            no_success_for: self.outage.map(|it| it.lasts(now)).unwrap_or_default(),
            window: self.results.held(),
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
        self.opened_by = why;
        let cause = Some(self.cause(why, now));
        Transition { cause, ..self.go(Phase::Open { since: now, lasts }, why) }
    }

    fn close(&mut self) -> Transition {
        self.forget();
        self.go(Phase::Closed, ChangeReason::ProbesSucceeded)
    }

    fn forget(&mut self) {
        self.consecutive = 0;
        self.outage = None;
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
        self.prevented = None;
        Transition { from, to: self.phase.state(), why, cause: None }
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
    use super::*;
    use crate::breaker::{percent::Percent, window::Window};

    const GOOD: Report = Report { health: Health::Success, retry_after: None, first: true };
    const FAILED: Report = Report { health: Health::Failure, ..GOOD };
    const THROTTLED: Report = Report { health: Health::Throttled, ..GOOD };

    /// Opens after two failures in a row, for exactly 5 s.
    fn config() -> BreakerConfig {
        let ten = Window::Count(10);
        BreakerConfig::consecutive(2)
            .window(ten)
            .open_for(Duration::from_secs(5))
            .without_open_growth()
            .without_open_jitter()
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
        let config = config().open_jitter(Percent::new(20).unwrap());
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
        assert_eq!(machine.counts(now), counts(2, 1));
        assert_eq!((machine.generation(), machine.retry_in(now)), (0, None));

        let opened = call(&mut machine, FAILED, &config, now).unwrap();
        assert_eq!(opened.why, ChangeReason::ConsecutiveFailures);
        let cause = opened.cause.unwrap();
        assert_eq!((cause.reason, cause.failures, cause.window), (opened.why, 2, counts(3, 2)));
        assert_eq!((opened.from, opened.to), (BreakerState::Closed, BreakerState::Open));
        assert_eq!((machine.state(), machine.generation()), (BreakerState::Open, 1));
        let rejection = machine.rejects(&config, now).unwrap();
        assert_eq!(
            (rejection.cause.failures, rejection.retry_in),
            (2, Some(Duration::from_secs(5)))
        );
        assert!(machine.enter(&config, now).0.is_err());

        assert_eq!(machine.rejects(&config, later), None);
        let closed = call(&mut machine, GOOD, &config, later).unwrap();
        assert_eq!(closed.why, ChangeReason::ProbesSucceeded);
        assert_eq!((closed.from, closed.to), (BreakerState::HalfOpen, BreakerState::Closed));
        assert_eq!((machine.counts(later), machine.consecutive_failures()), (counts(0, 0), 0));
    }

    #[test]
    fn breaker_that_only_measures_counts_an_opening_once_per_open_time() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        machine.only_measure();
        assert!(machine.prevented().is_none());
        for (millis, expected) in [(0, None), (0, Some(1)), (4_999, Some(1)), (5_000, Some(2))] {
            let at = now + Duration::from_millis(millis);
            assert_eq!(call(&mut machine, FAILED, &config, at), None);
            let openings = machine.prevented().map(|it| it.openings);
            assert_eq!(openings, expected, "after {millis} ms");
        }
    }

    #[test]
    fn breaker_that_only_measures_is_not_calm_while_a_rule_is_broken() {
        let (half, now) = (Percent::new(50).unwrap(), Instant::now());
        let ten = Window::Count(10);
        let config = BreakerConfig::failure_rate(half, ten).min_samples(2);
        for (failures, is_calm) in [(1, true), (3, false)] {
            let mut machine = Machine::new(&config);
            machine.only_measure();
            let reports = (0..failures).map(|_| FAILED).chain([GOOD, GOOD]);
            for report in reports {
                call(&mut machine, report, &config, now);
            }
            assert_eq!(machine.calm_until(&config, now).is_some(), is_calm, "{failures}");
        }
    }

    #[test]
    fn breaker_is_closed_by_a_probe_that_was_replaced_twice() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        call(&mut machine, FAILED, &config, now);
        call(&mut machine, FAILED, &config, now);
        let minutes = [1, 2, 3].map(|it| now + it * Duration::from_secs(60));
        let probes = minutes.map(|it| machine.enter(&config, it).0.unwrap());
        let closed = machine.exit(probes[0], GOOD, &config, minutes[2], || 0.0);
        assert_eq!(closed.map(|it| it.to), Some(BreakerState::Closed));
    }

    #[test]
    fn breaker_tells_changes_by_hand_and_forgets_what_began_before_a_restart() {
        let (config, now, time) = (config(), Instant::now(), Duration::from_secs(9));
        let mut machine = Machine::new(&config);
        let early = machine.enter(&config, now).0.unwrap();
        assert_eq!(machine.restart(), None, "it was closed");
        assert_eq!(machine.exit(early, FAILED, &config, now, || 0.0), None);
        assert_eq!(machine.counts(now), counts(0, 0));
        let opened = machine.open_by_hand(time, now).unwrap();
        assert_eq!((opened.from, opened.to), (BreakerState::Closed, BreakerState::Open));
        assert_eq!(machine.open_by_hand(time, now), None, "it was open");
        assert_eq!((opened.why, machine.retry_in(now)), (ChangeReason::Manual, Some(time)));
        let closed = machine.restart().unwrap();
        assert_eq!((closed.to, closed.why), (BreakerState::Closed, ChangeReason::Fleet));
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

    /// Reports failures, one each `gap`, until the breaker opens or `most` were reported. Returns
    /// their number, and the moment of the last one.
    fn fail_on(machine: &mut Machine, start: Instant, gap: Duration, most: u32) -> (u32, Duration) {
        let config = BreakerConfig::default();
        for n in 0..most {
            let now = start + gap * n;
            if let Some(opened) = call(machine, FAILED, &config, now) {
                assert_eq!(opened.why, ChangeReason::Sustained);
                return (n + 1, now - start);
            }
        }
        (most + 1, Duration::MAX)
    }

    #[test]
    fn breaker_sustained_opens_alike_for_few_and_many_requests() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        for (gap, failures, after) in [
            (ms(2), 1_001, ms(2_000)),
            (ms(100), 21, ms(2_000)),
            (ms(300), 8, ms(2_100)),
            (ms(1_000), 5, ms(4_000)),
            (ms(20_000), 5, ms(80_000)),
        ] {
            let mut machine = Machine::new(&BreakerConfig::default());
            assert_eq!(fail_on(&mut machine, start, gap, 2_000), (failures, after), "{gap:?}");
        }
        let mut machine = Machine::new(&BreakerConfig::default());
        let rare = fail_on(&mut machine, start, ms(20_001), 100).0;
        assert_eq!(rare, 101, "failures so far apart are no outage");
    }

    #[test]
    fn breaker_sustained_does_not_open_while_anything_succeeds() {
        let (start, config) = (Instant::now(), BreakerConfig::default());
        let mut machine = Machine::new(&config);
        for n in 0..10_000 {
            let now = start + Duration::from_millis(2) * n;
            // One success in 1.9 s.
            let report = if n % 950 == 0 { GOOD } else { FAILED };
            assert_eq!(call(&mut machine, report, &config, now), None, "{n}");
        }
    }

    #[test]
    fn breaker_sustained_counts_from_the_first_failure_not_from_the_pause_before() {
        let (start, config) = (Instant::now(), BreakerConfig::default());
        let mut machine = Machine::new(&config);
        call(&mut machine, GOOD, &config, start);
        let hour = Duration::from_secs(3_600);
        for n in 0..100 {
            let now = start + hour + Duration::from_millis(19) * n;
            assert_eq!(call(&mut machine, FAILED, &config, now), None, "{n}");
        }
        // An old outage without an end is no evidence either.
        for n in 0..5 {
            assert_eq!(call(&mut machine, FAILED, &config, start + 2 * hour), None, "{n}");
        }
        assert_eq!(machine.consecutive_failures(), 105, "they are in a row all the same");
    }

    #[test]
    fn breaker_sustained_waits_for_a_failure_to_open() {
        let (start, config) = (Instant::now(), BreakerConfig::default());
        let later = start + Duration::from_secs(3);
        let mut machine = Machine::new(&config);
        for _ in 0..50 {
            call(&mut machine, FAILED, &config, start);
        }
        assert_eq!(machine.rejects(&config, later), None);
        assert_eq!(call(&mut machine, THROTTLED, &config, later), None);
        let opened = call(&mut machine, FAILED, &config, later).unwrap();
        let text = "no success for 3.0 s, 51 failures";
        assert_eq!(opened.cause.unwrap().to_string(), text);

        // Probes continue the count, however far apart they are.
        let probed = later + Duration::from_secs(30);
        let reopened = call(&mut machine, FAILED, &config, probed).unwrap();
        assert_eq!(reopened.cause.unwrap().to_string(), "no success for 33 s, 52 failures");
        let rejection = machine.rejects(&config, probed).unwrap();
        assert_eq!(rejection.cause.reason, ChangeReason::ProbesFailed);
        assert_eq!(rejection.retry_in(), Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn breaker_open_time_grows_while_probes_fail_and_starts_over_after_a_close() {
        let config = BreakerConfig::consecutive(1).without_open_jitter();
        let mut machine = Machine::new(&config);
        let mut now = Instant::now();
        for _ in 0..2 {
            for millis in [1_000, 1_500, 2_000, 2_000, 2_000] {
                call(&mut machine, FAILED, &config, now);
                assert_eq!(machine.retry_in(now), Some(Duration::from_millis(millis)));
                now += Duration::from_millis(millis);
            }
            call(&mut machine, GOOD, &config, now);
        }
    }

    #[test]
    fn breaker_ignores_throttled_calls() {
        let (config, now) = (config().or_failure_rate(Percent::HALF), Instant::now());
        let config = config.or_slow_calls(Duration::ZERO, Percent::HALF).min_samples(1);
        let mut machine = Machine::new(&config);
        for _ in 0..100 {
            assert_eq!(call(&mut machine, THROTTLED, &config, now), None);
        }
        assert_eq!((machine.counts(now), machine.last_failure()), (counts(0, 0), None));
        let (config, later) = (self::config(), now + Duration::from_secs(5));
        let mut machine = Machine::new(&config);
        call(&mut machine, FAILED, &config, now);
        call(&mut machine, FAILED, &config, now);
        assert!(machine.enter(&config, now).0.is_err());
        for _ in 0..3 {
            assert!(machine.rejects(&config, later).is_none());
            call(&mut machine, THROTTLED, &config, later);
            assert_eq!((machine.state(), machine.probes_out()), (BreakerState::HalfOpen, 0));
        }
        assert!(call(&mut machine, GOOD, &config, later).is_some());
    }

    #[test]
    fn breaker_shares_count_first_attempts_and_rows_count_all() {
        let config = config().or_consecutive(9).or_failure_rate(Percent::HALF);
        let (config, now) = (config.min_samples(4), Instant::now());
        let mut machine = Machine::new(&config);
        let retry = |report| Report { first: false, ..report };
        for _ in 0..3 {
            call(&mut machine, GOOD, &config, now);
            assert_eq!(call(&mut machine, retry(FAILED), &config, now), None);
            assert_eq!(call(&mut machine, retry(FAILED), &config, now), None);
        }
        assert_eq!(machine.consecutive_failures(), 2);
        call(&mut machine, retry(GOOD), &config, now);
        assert_eq!((machine.counts(now), machine.consecutive_failures()), (counts(3, 0), 0));
        for _ in 0..8 {
            assert_eq!(call(&mut machine, retry(FAILED), &config, now), None);
        }
        let opened = call(&mut machine, retry(FAILED), &config, now).unwrap();
        assert_eq!(opened.why, ChangeReason::ConsecutiveFailures);
    }

    #[test]
    fn breaker_closes_on_a_slow_probe_and_on_a_replaced_one_that_succeeds_after_all() {
        let secs = Duration::from_secs;
        let config = config().or_slow_calls(secs(2), Percent::HALF);
        let (start, took) = (Instant::now(), secs(40));
        let half_open = |config: &BreakerConfig| {
            let mut machine = Machine::new(config);
            call(&mut machine, FAILED, config, start);
            call(&mut machine, FAILED, config, start);
            let probe = machine.enter(config, start + secs(5)).0.unwrap();
            (machine, probe)
        };
        let (mut machine, slow) = half_open(&config);
        let closed = machine.exit(slow, GOOD, &config, start + secs(29), || 0.0).unwrap();
        assert_eq!(closed.why, ChangeReason::ProbesSucceeded);

        // A service that takes 40 s for everything: a second probe comes before the first ends.
        let (mut machine, first) = half_open(&config);
        let second = machine.enter(&config, start + secs(35)).0.unwrap();
        let now = start + secs(5) + took;
        assert_eq!(machine.exit(first, FAILED, &config, now, || 0.0), None, "taken for lost");
        assert_eq!(machine.probes_out(), 1, "the second one has its place");
        assert!(machine.exit(first, GOOD, &config, now, || 0.0).is_some());
        assert_eq!(machine.state(), BreakerState::Closed);
        assert_eq!(machine.exit(second, FAILED, &config, now, || 0.0), None);

        // With more successes to come it counts as one of them.
        let config = config.close_after(2);
        let (mut machine, first) = half_open(&config);
        let second = machine.enter(&config, start + secs(35)).0.unwrap();
        assert_eq!(machine.exit(first, GOOD, &config, now, || 0.0), None);
        assert_eq!(machine.probes_out(), 1);
        assert!(machine.exit(second, GOOD, &config, now, || 0.0).is_some());

        // Not after another probe has failed.
        let (mut machine, first) = half_open(&config);
        let second = machine.enter(&config, start + secs(35)).0.unwrap();
        assert!(machine.exit(second, FAILED, &config, now, || 0.0).is_some());
        let _third = machine.enter(&config, now + secs(5)).0.unwrap();
        assert_eq!(machine.exit(first, GOOD, &config, now + secs(5), || 0.0), None);
        assert_eq!(machine.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn breaker_obeys_commands_by_hand() {
        let (config, now) = (config(), Instant::now());
        let mut machine = Machine::new(&config);
        let by_hand =
            |from, to| Some(Transition { from, to, why: ChangeReason::Manual, cause: None });
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
        let config = config().or_failure_rate(all).min_samples(3);
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
        let other = config.clone().window(Window::Time(Duration::from_secs(10)));
        machine.change_window(other.window);
        assert_eq!(machine.counts(now), counts(0, 0));
    }
}
