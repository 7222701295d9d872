//! A circuit breaker beside a model of what is right: the reference's, without its hazards.

use std::time::Duration;

use reqwest_resilient::{self as ours, BreakerConfig, BreakerSnapshot, CircuitBreaker};
use reqwest_resilient::{CircuitOpen, Health, Outcome, Permit, StateChange};
use tokio::time::Instant;

use super::Checked;
use super::compare::near;
use super::schema::{Breaker, BreakerCase, BreakerState, Expected, Kind, Num, Op, State};
use super::settings::{self, Refused};

/// Returns the evidence of an attempt about the service. A breaker that expects some failures
/// records those and all successes; a status and an error are one type here, so that a breaker that
/// expects the reference's error for statuses expects every failure.
pub(crate) fn health(
    expected: Option<&[Expected]>,
    status: Option<u16>,
    error: Option<Kind>,
    transient: bool,
) -> Option<Health> {
    let failed = match (status, error) {
        (Some(429), _) if expected.is_none() => return Some(Health::Throttled),
        (Some(status), _) => transient || status >= 500 || status == 408 || status == 429,
        (None, Some(kind)) if kind == Kind::ForeignError || kind.is_permanent() => return None,
        (None, _) => true,
    };
    let is_expected = |it: &Expected| match it {
        Expected::HttpStatus => true,
        Expected::Transport => status.is_none(),
        Expected::Timeout => error.is_some_and(Kind::is_timeout),
        Expected::ConnectError => error == Some(Kind::ConnectError),
    };
    if !failed {
        return Some(Health::Success);
    }
    let counts = expected.is_none_or(|all| all.iter().any(is_expected));
    counts.then_some(Health::Failure)
}

/// Goes through the operations of one case.
pub(crate) fn operations(case: &BreakerCase) -> Checked {
    let start = Instant::now();
    let (mut now, mut differences) = (start, vec![]);
    let mut watched = match Watched::new(&case.breaker, start, |_| {}) {
        Ok(it) => it,
        Err(refused) => return Checked::with(vec![format!("was refused: {refused:?}")]),
    };
    if case.ops.len() != case.expect.after_each_op.len() {
        differences.push("the operations have other states".to_owned());
    }
    for (at, (op, expected)) in case.ops.iter().zip(&case.expect.after_each_op).enumerate() {
        if let Op::Advance { s } = op {
            now += Duration::from_secs_f64(*s);
        }
        let rejected = watched.operate(op, now);
        let observed = BreakerState { rejected, ..watched.observe(now) };
        if !case.hazard && !watched.model.departed && !same(expected, &observed, 0.0) {
            differences.push(format!("after {at}: expected {expected:?}, observed {observed:?}"));
        }
    }
    let Watched { model, wrong, .. } = watched;
    differences.extend(wrong);
    let unknown = case.hazard_ids.iter().filter(|it| !["H11", "H14", "H16"].contains(&it.as_str()));
    differences.extend(unknown.map(|it| format!("nothing is asserted in place of {it}")));
    if case.hazard == case.hazard_ids.is_empty() {
        differences.push("is a hazard without a name, or has a name without being one".to_owned());
    }
    let mut amendments = vec![];
    match &case.expect.transitions {
        _ if case.hazard => {}
        _ if model.departed => {
            amendments.push("what came too late or too many was left out".into())
        }
        expected if *expected == model.transitions => {}
        expected => differences.push(format!("{expected:?}, not {:?}", model.transitions)),
    }
    Checked { differences, amendments }
}

/// A breaker and its model, with the same reports.
pub(crate) struct Watched {
    breaker: CircuitBreaker,
    model: Model,
    start: Instant,
    /// Those of calls that report when the breaker has long been open.
    late: Vec<Permit>,
    probe: Option<(Permit, Ticket)>,
    pub(crate) wrong: Vec<String>,
}

impl Watched {
    pub(crate) fn new(
        written: &Breaker,
        start: Instant,
        on_change: impl Fn(&StateChange) + Send + Sync + 'static,
    ) -> Result<Self, Refused> {
        let config = config(written)?;
        let breaker = CircuitBreaker::new(config.breaker).unwrap();
        breaker.on_state_change(on_change);
        // More of them than any case reports late.
        let late = (0..64).map(|_| breaker.try_enter(start).expect("a closed breaker")).collect();
        let model = Model::new(config.failures, config.open_for);
        Ok(Self { breaker, model, start, late, probe: None, wrong: vec![] })
    }

    pub(crate) fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    pub(crate) fn snapshot(&self, now: Instant) -> BreakerSnapshot {
        self.breaker.snapshot(now)
    }

    /// Returns the state of the breaker, which must equal that of the model.
    pub(crate) fn observe(&mut self, now: Instant) -> BreakerState {
        let BreakerSnapshot { state, consecutive_failures, last_failure, .. } = self.snapshot(now);
        let since_start = |it: Instant| Num((it - self.start).as_secs_f64());
        let facts = |state, failure_count, last: Option<Instant>| BreakerState {
            state,
            failure_count,
            last_failure_s: last.map(since_start),
            rejected: None,
        };
        let observed =
            facts(name(state), consecutive_failures, last_failure.map(Instant::from_std));
        let right = facts(self.model.state, self.model.failures, self.model.last_failure);
        if !same(&right, &observed, 0.0) {
            self.wrong.push(format!("the breaker is {observed:?} and should be {right:?}"));
        }
        observed
    }

    /// An attempt was let through.
    pub(crate) fn entered(&mut self, now: Instant) -> Option<Ticket> {
        let entered = self.model.enter(now);
        if let Err(rejected) = &entered {
            self.wrong.push(format!("was let through in spite of {rejected}"));
        }
        entered.ok()
    }

    /// An attempt has ended, with or without saying something about the service.
    pub(crate) fn left(&mut self, ticket: Ticket, health: Option<Health>, now: Instant) {
        self.model.exit(ticket, health, now);
    }

    /// A call was rejected.
    pub(crate) fn rejected(&mut self, now: Instant) {
        if self.model.enter(now).is_ok() {
            self.wrong.push("was rejected without need".to_owned());
        }
    }

    /// Operates breaker and model directly; the rejection, if there is one.
    pub(crate) fn operate(&mut self, op: &Op, now: Instant) -> Option<String> {
        match op {
            Op::Advance { .. } | Op::WallJump { .. } => None,
            Op::Fail { n } => self.report(n.unwrap_or(1), Health::Failure, now),
            Op::Success { n } => self.report(n.unwrap_or(1), Health::Success, now),
            Op::Reset {} => {
                self.breaker.reset();
                self.model.reset();
                self.probe = None;
                None
            }
            Op::Check {} => {
                let entered = self.enter(now);
                if self.model.state == State::HalfOpen && self.probe.is_none() {
                    self.probe = entered.ok();
                    return None;
                }
                entered.err()
            }
            Op::Call { ok } => {
                let health = if *ok { Health::Success } else { Health::Failure };
                self.enter(now).map(|it| self.exit(it, health, now)).err()
            }
        }
    }

    /// Reports results without permits of their own: those of the probe under way, of a new call,
    /// or, while that would be rejected, of a late one.
    fn report(&mut self, times: u32, health: Health, now: Instant) -> Option<String> {
        for _ in 0..times {
            let leave = match self.probe.take() {
                Some(probe) => Some(probe),
                None if self.model.state == State::Open => None,
                None => self.enter(now).ok(),
            };
            match leave {
                Some(leave) => self.exit(leave, health, now),
                None => {
                    self.model.departed = true;
                    self.late.pop().expect("a call that is late").exit(health, None, now);
                }
            }
        }
        None
    }

    fn enter(&mut self, now: Instant) -> Result<(Permit, Ticket), String> {
        match (self.breaker.try_enter(now), self.model.enter(now)) {
            (Ok(permit), Ok(ticket)) => Ok((permit, ticket)),
            (Err(rejected), Err(right)) => Err(self.compared(&rejected, right)),
            (observed, right) => {
                self.wrong.push(format!("{observed:?} and should be {right:?}"));
                Err("let through or rejected by one of the two".to_owned())
            }
        }
    }

    /// Compares a rejection; the breaker's own tests check the time limit of probes.
    fn compared(&mut self, rejected: &CircuitOpen, right: String) -> String {
        let rejected = words(rejected);
        if self.model.state == State::Open && rejected != right {
            self.wrong.push(format!("{rejected:?} and should be {right:?}"));
        }
        rejected
    }

    fn exit(&mut self, (permit, ticket): (Permit, Ticket), health: Health, now: Instant) {
        permit.exit(health, None, now);
        self.model.exit(ticket, Some(health), now);
    }
}

/// A rejection in the words of the reference.
pub(crate) fn words(rejected: &CircuitOpen) -> String {
    let left = rejected.retry_in().expect("nobody forces it").as_secs_f64();
    let failures = rejected.cause().failures;
    format!("Circuit breaker is OPEN (failed {failures} times). Retry after {left:.1}s")
}

/// A message about an outcome, with a rejection in it put into the words of the reference.
pub(crate) fn in_words(message: String, outcome: &Outcome<'_>) -> String {
    let rejected = outcome.error().and_then(|it| it.downcast_ref::<CircuitOpen>());
    rejected.map_or_else(|| message.clone(), |it| message.replace(&it.to_string(), &words(it)))
}

/// The generation of the state in which a call was let through.
pub(crate) type Ticket = u64;

/// Failures in a row open it, one probe at a time closes it or opens it again.
struct Model {
    threshold: u32,
    recovery: Duration,
    state: State,
    generation: Ticket,
    failures: u32,
    last_failure: Option<Instant>,
    opened: Option<Instant>,
    probing: bool,
    transitions: Vec<(State, State)>,
    /// `true` after a report that the reference would have accepted.
    departed: bool,
}

impl Model {
    fn new(threshold: u32, recovery: Duration) -> Self {
        Self {
            threshold,
            recovery,
            state: State::Closed,
            generation: 0,
            failures: 0,
            last_failure: None,
            opened: None,
            probing: false,
            transitions: vec![],
            departed: false,
        }
    }

    fn enter(&mut self, now: Instant) -> Result<Ticket, String> {
        let left = self.opened.map(|it| self.recovery.saturating_sub(now - it)).unwrap_or_default();
        match self.state {
            State::Closed => {}
            State::Open if left.is_zero() => self.go(State::HalfOpen),
            State::HalfOpen if !self.probing => {}
            State::HalfOpen | State::Open => {
                self.departed |= self.state == State::HalfOpen;
                let (failures, left) = (self.failures, left.as_secs_f64());
                let seen = format!("OPEN (failed {failures} times). Retry after {left:.1}s");
                return Err(format!("Circuit breaker is {seen}"));
            }
        }
        self.probing = self.state == State::HalfOpen;
        Ok(self.generation)
    }

    fn exit(&mut self, ticket: Ticket, health: Option<Health>, now: Instant) {
        if ticket != self.generation {
            return;
        }
        self.probing = false;
        // A throttled call proves nothing.
        let Some(health @ (Health::Success | Health::Failure)) = health else { return };
        if health == Health::Success {
            self.failures = 0;
            if self.state == State::HalfOpen {
                self.go(State::Closed);
            }
            return;
        }
        self.failures += 1;
        self.last_failure = Some(now);
        if self.state == State::HalfOpen || self.failures >= self.threshold {
            self.opened = Some(now);
            self.go(State::Open);
        }
    }

    fn reset(&mut self) {
        (self.failures, self.last_failure) = (0, None);
        self.go(State::Closed);
    }

    fn go(&mut self, to: State) {
        if self.state != to {
            self.transitions.push((self.state, to));
        }
        self.state = to;
        self.generation += 1;
        self.probing = false;
    }
}

/// The reference's breaker by the settings of this crate, and what the model needs of them.
struct Settings {
    breaker: BreakerConfig,
    failures: u32,
    open_for: Duration,
}

fn config(written: &Breaker) -> Result<Settings, Refused> {
    let Num(threshold) = written.failure_threshold.unwrap_or(Num(5.0));
    let failures = settings::whole(threshold).filter(|it| *it > 0);
    let failures = failures.ok_or(Refused::ByType("failure_threshold"))?;
    let recovery = written.recovery_timeout.unwrap_or(Num(60.0));
    let open_for = settings::limit(recovery, "circuit_breaker.open_for")?;
    // The reference's breaker ignores the retry hints of servers.
    let breaker = BreakerConfig::consecutive(failures)
        .open_for(open_for)
        .without_open_growth()
        .without_open_jitter()
        .max_retry_after(Duration::ZERO);
    Ok(Settings { breaker, failures, open_for })
}

/// Returns why a config refuses a breaker with these settings.
pub(crate) fn refused(written: &Breaker) -> Option<Refused> {
    let built = config(written).and_then(|it| {
        let breaker = CircuitBreaker::new(it.breaker).unwrap();
        settings::build(ours::ResilientConfig::builder().circuit_breaker(breaker))
    });
    built.err()
}

pub(crate) fn name(state: ours::BreakerState) -> State {
    match state {
        ours::BreakerState::Closed => State::Closed,
        ours::BreakerState::Open => State::Open,
        ours::BreakerState::HalfOpen => State::HalfOpen,
        other => panic!("nobody asked for {other:?}"),
    }
}

/// Returns whether two breakers are equal, except that the second one's last failure may be `late`.
pub(crate) fn same(expected: &BreakerState, observed: &BreakerState, late: f64) -> bool {
    let at = match (expected.last_failure_s, observed.last_failure_s) {
        (Some(Num(expected)), Some(Num(observed))) => near(expected, observed, late),
        (expected, observed) => expected == observed,
    };
    let facts = |it: &BreakerState| (it.state, it.failure_count, it.rejected.clone());
    at && facts(expected) == facts(observed)
}
