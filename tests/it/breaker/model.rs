//! The breaker beside a model that keeps a list of all results and counts them anew each time.

use std::time::Duration;

use proptest::prelude::*;
use reqwest_resilient::{
    BreakerConfig, BreakerState, CircuitBreaker, Health, Percent, Permit, Window,
};
use tokio::time::Instant;

const OPEN_FOR: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_millis(900);
const SLOW: Duration = Duration::from_millis(60);

/// One way to set a breaker up, as plain numbers.
#[derive(Clone, Copy, Debug)]
struct Setup {
    count_window: Option<u16>,
    time_window_ms: u64,
    min_samples: u32,
    sustained: Option<(u64, u32)>,
    consecutive: Option<(u32, bool)>,
    failure_percent: Option<u8>,
    slow_percent: Option<u8>,
    max_probes: u32,
    close_after: u32,
    probe_percent: Option<u8>,
}

#[derive(Clone, Debug)]
enum Step {
    Enter,
    Exit(usize, Health),
    Drop(usize),
    Advance(u64),
    Reset,
}

#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    failed: bool,
    slow: bool,
}

struct Model {
    setup: Setup,
    state: BreakerState,
    generation: u64,
    seen: Vec<Seen>,
    /// The failures since the last success.
    row: Vec<Instant>,
    last_failure: Option<Instant>,
    opened: Instant,
    /// The first generation of the present half-open.
    half_open: u64,
    /// When the probes of this generation were let through.
    probes: Vec<Instant>,
    probe_results: Vec<bool>,
}

impl Setup {
    fn config(self) -> BreakerConfig {
        let percent = |n| Percent::new(n).unwrap();
        let window = match self.count_window {
            Some(len) => Window::Count(len),
            None => Window::Time(Duration::from_millis(self.time_window_ms)),
        };
        // Every setup has a rule; the thousandth failure in a row is never reached.
        let mut config = BreakerConfig::consecutive(1_000)
            .window(window)
            .min_samples(self.min_samples)
            .open_for(OPEN_FOR)
            .without_open_growth()
            .without_open_jitter()
            .half_open_max_wait(MAX_WAIT)
            .max_probes(self.max_probes)
            .close_after(self.close_after);
        if let Some((ms, failures)) = self.sustained {
            config = config.or_sustained(Duration::from_millis(ms), failures);
        }
        config = match self.consecutive {
            Some((n, false)) => config.or_consecutive(n),
            Some((n, true)) => config.or_consecutive_while_few(n),
            None => config,
        };
        if let Some(n) = self.failure_percent {
            config = config.or_failure_rate(percent(n));
        }
        if let Some(n) = self.slow_percent {
            config = config.or_slow_calls(SLOW, percent(n));
        }
        if let Some(n) = self.probe_percent {
            config = config.close_unless(percent(n), self.close_after);
        }
        config
    }
}

impl Model {
    fn new(setup: Setup, now: Instant) -> Self {
        Self {
            setup,
            state: BreakerState::Closed,
            generation: 0,
            seen: Vec::new(),
            row: Vec::new(),
            last_failure: None,
            opened: now,
            half_open: 0,
            probes: Vec::new(),
            probe_results: Vec::new(),
        }
    }

    fn go(&mut self, state: BreakerState) {
        self.state = state;
        self.generation += 1;
        self.probes.clear();
        self.probe_results.clear();
    }

    fn enter(&mut self, now: Instant) -> Option<u64> {
        if self.state == BreakerState::Open {
            if now - self.opened < OPEN_FOR {
                return None;
            }
            self.go(BreakerState::HalfOpen);
            self.half_open = self.generation;
        }
        if self.state == BreakerState::HalfOpen {
            if self.probes.len() == self.setup.max_probes as usize {
                if self.probes.iter().any(|&since| now - since < MAX_WAIT) {
                    return None;
                }
                self.probes.clear();
                self.generation += 1;
            }
            self.probes.push(now);
        }
        Some(self.generation)
    }

    fn leave(&mut self, generation: u64, entered: Instant) -> bool {
        if generation != self.generation {
            return false;
        }
        if let Some(index) = self.probes.iter().position(|&since| since == entered) {
            self.probes.remove(index);
        }
        true
    }

    fn exit(&mut self, generation: u64, entered: Instant, health: Health, now: Instant) {
        let current = self.leave(generation, entered);
        let was_replaced = self.state == BreakerState::HalfOpen && generation >= self.half_open;
        let late_success = was_replaced && health == Health::Success;
        if health == Health::Throttled || !(current || late_success) {
            return;
        }
        let failed = health != Health::Success;
        let slow = self.setup.slow_percent.is_some() && now - entered >= SLOW;
        if failed {
            self.row.push(now);
            self.last_failure = Some(now);
        } else {
            self.row.clear();
        }
        if self.state == BreakerState::HalfOpen {
            self.probe_results.push(failed);
            return self.judge(now);
        }
        self.seen.push(Seen { at: now, failed, slow });
        if self.too_bad(now) {
            self.opened = now;
            self.go(BreakerState::Open);
        }
    }

    fn judge(&mut self, now: Instant) {
        let all = self.probe_results.len();
        let bad = self.probe_results.iter().filter(|&&bad| bad).count();
        let needed = self.setup.close_after as usize;
        let (failed, recovered) = match self.setup.probe_percent {
            None => (bad > 0, all - bad >= needed),
            Some(percent) => (bad * 100 >= needed * usize::from(percent), all >= needed),
        };
        if failed {
            self.opened = now;
            self.go(BreakerState::Open);
        } else if recovered {
            self.clear();
            self.go(BreakerState::Closed);
        }
    }

    fn reset(&mut self) {
        self.clear();
        self.last_failure = None;
        self.go(BreakerState::Closed);
    }

    fn clear(&mut self) {
        self.seen.clear();
        self.row.clear();
    }

    fn too_bad(&self, now: Instant) -> bool {
        let (total, failures, slow) = self.window(now);
        let few = total < self.setup.min_samples as usize;
        let rate = |part: usize, percent: Option<u8>| {
            !few && percent.is_some_and(|percent| part * 100 >= total * usize::from(percent))
        };
        self.setup.consecutive.is_some_and(|(n, only_while_few)| {
            self.row.len() >= n as usize && (few || !only_while_few)
        }) || self.setup.sustained.is_some_and(|rule| self.no_success(rule, now))
            || rate(failures, self.setup.failure_percent)
            || rate(slow, self.setup.slow_percent)
    }

    /// Of the failures in a row, those that lie at most ten times the rule's time apart count.
    fn no_success(&self, (ms, failures): (u64, u32), now: Instant) -> bool {
        let span = Duration::from_millis(ms);
        let gaps = self.row.windows(2).rev().take_while(|it| it[1] - it[0] <= span * 10);
        let counted = 1 + gaps.count();
        let first = self.row.len().checked_sub(counted).map(|at| self.row[at]);
        counted >= failures as usize && first.is_some_and(|first| now - first >= span)
    }

    fn window(&self, now: Instant) -> (usize, usize, usize) {
        let held: Vec<Seen> = match self.setup.count_window {
            Some(len) => self.seen.iter().rev().take(len.into()).copied().collect(),
            None => {
                let Some(first) = self.seen.first().map(|seen| seen.at) else {
                    return (0, 0, 0);
                };
                let tenth = Duration::from_millis(self.setup.time_window_ms).as_nanos() / 10;
                let slice = |at: Instant| (at - first).as_nanos() / tenth;
                let recent = |seen: &&Seen| slice(now) - slice(seen.at) < 10;
                self.seen.iter().filter(recent).copied().collect()
            }
        };
        let count = |which: fn(&&Seen) -> bool| held.iter().filter(which).count();
        (held.len(), count(|seen| seen.failed), count(|seen| seen.slow))
    }
}

fn check(setup: Setup, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let breaker = CircuitBreaker::new(setup.config()).unwrap();
    let mut now = Instant::now();
    let mut model = Model::new(setup, now);
    let mut out: Vec<(Permit, u64, Instant)> = Vec::new();
    for step in steps {
        match step {
            Step::Enter => {
                let expected = model.enter(now);
                let permit = breaker.try_enter(now);
                prop_assert_eq!(permit.is_ok(), expected.is_some());
                if let (Ok(permit), Some(generation)) = (permit, expected) {
                    out.push((permit, generation, now));
                }
            }
            Step::Exit(index, health) if !out.is_empty() => {
                let (permit, generation, entered) = out.swap_remove(index % out.len());
                model.exit(generation, entered, health, now);
                permit.exit(health, None, now);
            }
            Step::Drop(index) if !out.is_empty() => {
                let (permit, generation, entered) = out.swap_remove(index % out.len());
                model.leave(generation, entered);
                drop(permit);
            }
            Step::Exit(..) | Step::Drop(_) => {}
            Step::Advance(ms) => now += Duration::from_millis(ms),
            Step::Reset => {
                model.reset();
                breaker.reset();
            }
        }
        let snapshot = breaker.snapshot(now);
        let window = snapshot.window;
        let counts = (window.total as usize, window.failures as usize, window.slow as usize);
        prop_assert_eq!(snapshot.state, model.state);
        prop_assert_eq!(counts, model.window(now));
        prop_assert_eq!(snapshot.consecutive_failures as usize, model.row.len());
        prop_assert_eq!(snapshot.last_failure, model.last_failure.map(Instant::into_std));
        prop_assert_eq!(snapshot.generation, model.generation);
        prop_assert_eq!(snapshot.permits_out, out.len());
        prop_assert_eq!(snapshot.probes_out as usize, model.probes.len());
        prop_assert!(snapshot.probes_out <= setup.max_probes);
    }
    drop(out);
    let snapshot = breaker.snapshot(now);
    prop_assert_eq!((snapshot.permits_out, snapshot.probes_out), (0, 0));
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let health = prop_oneof![
        4 => Just(Health::Success),
        4 => Just(Health::Failure),
        1 => Just(Health::Throttled),
    ];
    let step = prop_oneof![
        10 => Just(Step::Enter),
        8 => (any::<usize>(), health).prop_map(|(index, health)| Step::Exit(index, health)),
        2 => any::<usize>().prop_map(Step::Drop),
        5 => (0..200_u64).prop_map(Step::Advance),
        1 => (400..1_500_u64).prop_map(Step::Advance),
        1 => Just(Step::Reset),
    ];
    // Resets are rare, or nothing else would get anywhere.
    let step = step.prop_flat_map(|step| match step {
        Step::Reset => prop_oneof![9 => Just(Step::Enter), 1 => Just(Step::Reset)].boxed(),
        step => Just(step).boxed(),
    });
    prop::collection::vec(step, 1..150)
}

prop_compose! {
    fn setup()(
        count_window in prop::option::of(1_u16..12),
        time_window_ms in (1_u64..80).prop_map(|n| n * 10),
        min_samples in 1_u32..8,
        sustained in prop::option::of((1_u64..200, 1_u32..6)),
        consecutive in prop::option::of((1_u32..6, any::<bool>())),
        failure_percent in prop::option::of(1_u8..=100),
        slow_percent in prop::option::of(1_u8..=100),
        max_probes in 1_u32..4,
        close_after in 1_u32..4,
        probe_percent in prop::option::of(1_u8..=100),
    ) -> Setup {
        Setup {
            count_window,
            // More than the window holds is refused.
            min_samples: min_samples.min(count_window.map_or(u32::MAX, u32::from)),
            time_window_ms, sustained, consecutive, failure_percent,
            slow_percent, max_probes, close_after, probe_percent,
        }
    }
}

/// Only what `keep` leaves of the rules.
fn only(setup: Setup, keep: fn(&mut Setup)) -> Setup {
    let mut one = Setup {
        sustained: None,
        consecutive: None,
        failure_percent: None,
        slow_percent: None,
        ..setup
    };
    keep(&mut one);
    one
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sustained_rule_agrees_with_the_model(setup in setup(), steps in steps()) {
        let sustained = setup.sustained.or(Some((100, 3)));
        let setup = Setup { sustained, consecutive: None, failure_percent: None, ..setup };
        check(Setup { slow_percent: None, ..setup }, steps)?;
    }

    #[test]
    fn consecutive_failures_agree_with_the_model(setup in setup(), steps in steps()) {
        check(only(setup, |setup| setup.consecutive = Some((3, false))), steps)?;
    }

    #[test]
    fn failure_rate_over_a_count_window_agrees_with_the_model(setup in setup(), steps in steps()) {
        let setup = Setup { count_window: setup.count_window.or(Some(10)), ..setup };
        check(only(setup, |setup| setup.failure_percent = Some(50)), steps)?;
    }

    #[test]
    fn failure_rate_over_a_time_window_agrees_with_the_model(setup in setup(), steps in steps()) {
        let setup = Setup { count_window: None, ..setup };
        check(only(setup, |setup| setup.failure_percent = Some(60)), steps)?;
    }

    #[test]
    fn slow_call_rate_agrees_with_the_model(setup in setup(), steps in steps()) {
        check(only(setup, |setup| setup.slow_percent = Some(40)), steps)?;
    }

    #[test]
    fn joined_rule_agrees_with_the_model(setup in setup(), steps in steps()) {
        let joined = |setup: &mut Setup| {
            setup.failure_percent = Some(50);
            setup.consecutive = Some((3, true));
        };
        let setup = Setup { count_window: None, ..setup };
        check(only(setup, joined), steps)?;
    }

    #[test]
    fn any_rules_together_agree_with_the_model(setup in setup(), steps in steps()) {
        check(setup, steps)?;
    }
}
