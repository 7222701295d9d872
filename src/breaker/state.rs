//! The machine: what a breaker decides, given the moment and the result of a call.
//!
//! It reads no clock, draws no random number, holds no lock and tells nobody; whoever drives it
//! does that.

use std::time::Duration;

use crate::breaker::{
    config::{BreakerConfig, Recovery},
    facts::{BreakerState, ChangeReason, CircuitOpen},
    permit::Health,
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

#[derive(Debug)]
struct Probing {
    out: u32,
    last_admitted: Instant,
    successes: u32,
    failures: u32,
}

/// Proof of having been let through: which generation's, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) entered: Instant,
}

/// What a call ended with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) health: Health,
    pub(super) retry_after: Option<Duration>,
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
        let transition = matches!(self.phase, Phase::Open { .. }).then(|| {
            let probing = Probing { out: 0, last_admitted: now, successes: 0, failures: 0 };
            self.go(Phase::HalfOpen(probing), ChangeReason::OpenTimeOver)
        });
        if let Phase::HalfOpen(probing) = &mut self.phase {
            if probing.out >= config.max_probes.get() {
                // Those under way are lost.
                probing.out = 0;
                self.generation += 1;
            }
            probing.out += 1;
            probing.last_admitted = probing.last_admitted.max(now);
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
            Phase::HalfOpen(probing) if probing.out < config.max_probes.get() => return None,
            Phase::HalfOpen(probing) => {
                // All slots have been taken for at least as long as the newest of them.
                let silent = now.saturating_duration_since(probing.last_admitted);
                config.half_open_max_wait.saturating_sub(silent).min(config.open_for)
            }
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
        let why = self.too_bad(counts, config)?;
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
                    && self.too_bad(held, config).is_none()
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
            probing.out = probing.out.saturating_sub(1);
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
            Phase::HalfOpen(probing) => probing.out,
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

    /// The first rule that wants the breaker open. Asked after every result, a success too: it
    /// may be the one that fills the window up to its minimum.
    fn too_bad(&self, counts: WindowCounts, config: &BreakerConfig) -> Option<ChangeReason> {
        let few = counts.total < config.min_samples_needed();
        let in_a_row = config.consecutive.is_some_and(|rule| {
            self.consecutive >= rule.failures.get() && (few || !rule.only_while_few)
        });
        if in_a_row {
            return Some(ChangeReason::ConsecutiveFailures);
        }
        if few {
            return None;
        }
        if config.failure_rate.is_some_and(|rate| rate.reached(counts.failures, counts.total)) {
            return Some(ChangeReason::FailureRate);
        }
        let slow = config.slow_calls?;
        slow.percent.reached(counts.slow, counts.total).then_some(ChangeReason::SlowCallRate)
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

enum Judgement {
    Recovered,
    Failed,
}

impl Probing {
    fn judge(&mut self, sample: Sample, recovery: Recovery) -> Option<Judgement> {
        self.out = self.out.saturating_sub(1);
        // A slow-call rule that opened it would open it again if slow probes closed it.
        if sample.failed || sample.slow {
            self.failures += 1;
        } else {
            self.successes += 1;
        }
        match recovery {
            Recovery::Successes(_) if self.failures > 0 => Some(Judgement::Failed),
            Recovery::Successes(enough) => {
                (self.successes >= enough.get()).then_some(Judgement::Recovered)
            }
            Recovery::Rate { probes, percent } if percent.reached(self.failures, probes.get()) => {
                Some(Judgement::Failed)
            }
            Recovery::Rate { probes, .. } => {
                (self.successes + self.failures >= probes.get()).then_some(Judgement::Recovered)
            }
        }
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

/// How long an opening lasts, after `earlier` ones without a close in between.
///
/// Jitter never exceeds a bound: under a growing time's `max` it makes room for itself below,
/// and a hint at its bound gets none.
fn open_time(
    config: &BreakerConfig,
    earlier: u32,
    retry_after: Option<Duration>,
    random: impl FnOnce() -> f64,
) -> Duration {
    let jitter = config.open_jitter.map_or(0.0, |percent| f64::from(percent.get()) / 100.0);
    let share = if jitter > 0.0 { jitter * random().clamp(0.0, 1.0) } else { 0.0 };
    let own = match config.growth {
        None => lengthen(config.open_for, share),
        Some(growth) => {
            let factor = growth.factor.get().saturating_pow(earlier);
            let roof = Duration::try_from_secs_f64(growth.max.as_secs_f64() / (1.0 + jitter))
                .unwrap_or(growth.max);
            let grown = config.open_for.saturating_mul(factor).min(roof).max(config.open_for);
            lengthen(grown, share).min(growth.max.max(config.open_for))
        }
    };
    let hinted = retry_after.unwrap_or_default();
    own.max(lengthen(hinted, share).min(config.max_retry_after))
}

fn lengthen(time: Duration, share: f64) -> Duration {
    if share == 0.0 {
        return time;
    }
    let extra = Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(Duration::MAX);
    time.saturating_add(extra)
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

    #[test]
    fn breaker_open_time_respects_every_bound() {
        let two = NonZeroU32::new(2).unwrap();
        let secs = Duration::from_secs;
        let plain = BreakerConfig::consecutive(two).open_for(secs(10));
        let growing = plain.clone().open_growth(two, secs(24));
        for (config, earlier, hint, random, expected) in [
            (&plain, 9, None, 0.0, secs(10)),
            (&plain, 9, None, 1.0, secs(12)),
            (&plain, 0, Some(secs(30)), 1.0, secs(36)),
            (&plain, 0, Some(secs(55)), 1.0, secs(60)),
            (&plain, 0, Some(secs(90)), 0.0, secs(60)),
            (&growing, 0, None, 0.0, secs(10)),
            (&growing, 1, None, 0.0, secs(20)),
            (&growing, 1, None, 1.0, secs(24)),
            (&growing, u32::MAX, None, 1.0, secs(24)),
        ] {
            let found = open_time(config, earlier, hint, || random);
            assert!(found.abs_diff(expected) < Duration::from_micros(1), "{found:?} {expected:?}");
        }
    }
}
