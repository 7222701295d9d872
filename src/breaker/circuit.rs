//! The state machine behind its lock, and the notification of observers once the lock is free.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, OnceLock, PoisonError, atomic::AtomicU64 as Plain},
};

use crate::breaker::{
    config::BreakerConfig,
    lane::Lanes,
    observers::Observers,
    report::{Health, Report, Ticket},
    rule_set::RuleSet,
    state::{Machine, Transition},
    status::{BreakerSnapshot, BreakerState, CircuitOpen, StateChange},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    waiting::{Waiter, Waiting},
    window::nanos_since,
};
use crate::common::clock::{Instant, nanos};

/// One breaker's state, shared by all its handles and permits.
///
/// Small until it is used, as a crawler creates and evicts one a request. Invariant: while `used` is
/// empty, the machine is as new, and the gate says so.
#[derive(Debug)]
pub(super) struct Circuit {
    key: Arc<str>,
    observers: Arc<Observers>,
    /// The state that a call needs while the breaker is closed, readable without the lock.
    gate: AtomicU64,
    /// The version of the rules in force.
    version: Plain,
    /// The nanoseconds from which on a call is slow, by the rules in force.
    slow_from: Plain,
    /// The rules that it begins with.
    config: Arc<BreakerConfig>,
    used: OnceLock<Box<Used>>,
}

/// What a breaker needs from its first result, command or change of rules on.
#[derive(Debug)]
struct Used {
    lanes: Lanes,
    /// The moment of the first result, from which the lanes count time.
    epoch: OnceLock<Instant>,
    rejections: Plain,
    waiting: Waiting,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    config: Arc<BreakerConfig>,
    lanes_open: bool,
    unreported: VecDeque<Transition>,
    /// `true` while a thread notifies observers, also of changes that others add to `unreported`
    /// meanwhile. This keeps the order and lets an observer call back into the breaker.
    notifying: bool,
}

impl Circuit {
    pub(super) fn new(key: Arc<str>, rules: &RuleSet, observers: Arc<Observers>) -> Self {
        Self {
            key,
            gate: AtomicU64::new(Gate::NEW.0),
            version: Plain::new(rules.version),
            slow_from: Plain::new(rules.config.slow_from()),
            config: Arc::clone(&rules.config),
            used: OnceLock::new(),
            observers,
        }
    }

    /// Adopts `rules`, unless it has them already. State and window stay, as the rules may be those
    /// of one request only; a breaker without rules takes their window.
    #[inline]
    pub(super) fn adopt(&self, rules: &RuleSet) {
        let version = self.version.load(Ordering::Relaxed);
        if version != rules.version && rules.version != 0 {
            self.follow(rules, version == 0);
        }
    }

    /// Adopts `rules`; a window of another size starts empty.
    pub(super) fn adopt_window(&self, rules: &RuleSet) {
        self.follow(rules, true);
    }

    #[cold]
    fn follow(&self, rules: &RuleSet, with_window: bool) {
        let mut inner = self.lock();
        self.slow_from.store(rules.config.slow_from(), Ordering::Relaxed);
        self.step(&mut inner, |machine, current| {
            if with_window {
                machine.change_window(rules.config.window);
            }
            current.clone_from(&rules.config);
        });
        self.version.store(rules.version, Ordering::Relaxed);
    }

    pub(super) fn config(&self) -> Arc<BreakerConfig> {
        Arc::clone(&self.lock().config)
    }

    /// Admits or rejects a call; a call that finds the open time over makes a change.
    #[inline]
    pub(super) fn enter(&self, now: Instant) -> (Result<Ticket, CircuitOpen>, Option<StateChange>) {
        if let Some(ticket) = self.pass(now) {
            return (Ok(ticket), None);
        }
        // A rejection changes nothing, so it needs neither step nor notification.
        match self.rejects(now) {
            Some(rejection) => {
                self.used().rejections.fetch_add(1, Ordering::Relaxed);
                (Err(rejection), None)
            }
            None => self.drive(|machine, config| machine.enter(config, now)),
        }
    }

    /// Admits a call while every call is admitted.
    ///
    /// A call that reads the gate just before another thread closes it counts as having come
    /// before; its result is of an older generation and changes nothing.
    #[inline]
    pub(super) fn pass(&self, now: Instant) -> Option<Ticket> {
        let gate = self.gate();
        let ticket = || Ticket { generation: gate.generation(), entered: now };
        gate.lets_through().then(ticket)
    }

    /// Records the result of a call, a success in this lane if the breaker is calm.
    #[inline]
    pub(super) fn exit(
        &self,
        lane: usize,
        ticket: &Ticket,
        report: Report,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Option<StateChange> {
        if report.health == Health::Throttled {
            self.abandon(*ticket);
            return None;
        }
        let used = self.used();
        let epoch = used.epoch.get();
        let slow_from = self.slow_from.load(Ordering::Relaxed);
        // Computed only if needed: a difference of moments costs as much as the rest.
        let fast = || nanos(now.saturating_duration_since(ticket.entered)) < slow_from;
        let count = |epoch: &Instant| {
            let moment = nanos_since(*epoch, now);
            used.lanes.count(lane, ticket.generation, moment, report.first)
        };
        if report.health == Health::Success
            && (slow_from == u64::MAX || fast())
            && epoch.is_some_and(count)
        {
            return None;
        }
        let ((), change) = self.drive(|machine, config| {
            used.epoch.get_or_init(|| now);
            if report.health == Health::Success {
                used.lanes.prepare(lane);
            }
            ((), machine.exit(*ticket, report, config, now, random))
        });
        if change.is_none() && self.is_probe(ticket) {
            // More of them are needed: the place is free for the next request.
            used.waiting.wake();
        }
        change
    }

    pub(super) fn rejects(&self, now: Instant) -> Option<CircuitOpen> {
        if self.gate().lets_through() {
            return None;
        }
        let inner = self.lock();
        inner.machine.rejects(&inner.config, now)
    }

    pub(super) fn abandon(&self, ticket: Ticket) {
        if self.is_probe(&ticket) {
            self.lock().machine.abandon(ticket);
            // The place is free for the next request.
            self.used().waiting.wake();
        }
    }

    /// Returns whether a permit has a place to free: only half-open has some, and only for its own
    /// probes.
    fn is_probe(&self, ticket: &Ticket) -> bool {
        let gate = self.gate();
        gate.generation() == ticket.generation && !gate.lets_through()
    }

    /// Takes a place among the requests that wait for a change; `None` if too many wait.
    pub(super) fn wait(&self) -> Option<Waiter<'_>> {
        self.used().waiting.join()
    }

    /// Runs a command that sets the state by hand.
    pub(super) fn command(&self, command: impl FnOnce(&mut Machine) -> Option<Transition>) {
        self.drive(|machine, _| ((), command(machine)));
    }

    /// Restarts closed, because the fleet found the service back. Returns the change, if it is one.
    pub(super) fn restart(&self) -> Option<StateChange> {
        self.drive(|machine, _| ((), machine.restart())).1
    }

    pub(super) fn state(&self) -> BreakerState {
        // Without the lock in the most frequent case: hosts that eviction examines.
        if self.gate().is_closed() {
            return BreakerState::Closed;
        }
        self.lock().machine.state()
    }

    pub(super) fn is_probing(&self) -> bool {
        !self.gate().lets_through()
    }

    pub(super) fn snapshot(&self, permits_out: usize, now: Instant) -> BreakerSnapshot {
        self.step(&mut self.lock(), |machine, _| BreakerSnapshot {
            key: Arc::clone(&self.key),
            state: machine.state(),
            consecutive_failures: machine.consecutive_failures(),
            window: machine.counts(now),
            last_failure: machine.last_failure().map(Instant::into_std),
            rejections: self.used().rejections.load(Ordering::Relaxed),
            would_have_opened: machine.prevented().map_or(0, |it| it.openings),
            would_open_by: machine.prevented().map(|it| it.last),
            permits_out,
            probes_out: machine.probes_out(),
            retry_in: machine.retry_in(now),
            generation: machine.generation(),
        })
    }

    pub(super) fn observers(&self) -> &Observers {
        &self.observers
    }

    /// Runs one step of the machine, publishes its outcome and notifies observers. Returns the
    /// change that this step made, to this caller only.
    fn drive<R>(
        &self,
        step: impl FnOnce(&mut Machine, &BreakerConfig) -> (R, Option<Transition>),
    ) -> (R, Option<StateChange>) {
        let mut inner = self.lock();
        let (result, transition) = self.step(&mut inner, |machine, config| step(machine, config));
        let change = transition.map(move |transition| {
            let change = self.change(&transition);
            inner.unreported.push_back(transition);
            drop(inner);
            if change.to != BreakerState::HalfOpen {
                self.used().waiting.wake();
            }
            self.notify(self.lock());
            change
        });
        (result, change)
    }

    fn change(&self, &Transition { from, to, why, cause }: &Transition) -> StateChange {
        StateChange { key: Arc::clone(&self.key), from, to, why, cause }
    }

    /// Runs one step of the machine with every result counted so far, then sets lanes and gate by
    /// its outcome.
    fn step<R>(
        &self,
        inner: &mut Inner,
        step: impl FnOnce(&mut Machine, &mut Arc<BreakerConfig>) -> R,
    ) -> R {
        let Inner { machine, config, lanes_open, .. } = inner;
        let Used { lanes, epoch, .. } = self.used();
        if mem::take(lanes_open) {
            machine.add_successes(lanes.close());
        }
        let result = step(machine, config);
        if let Some(until) = epoch.get().and_then(|it| machine.calm_until(config, *it)) {
            lanes.open(machine.generation(), until);
            *lanes_open = true;
        }
        let gate = Gate::of(machine);
        if gate != self.gate() {
            self.gate.store(gate.0, Ordering::Release);
        }
        result
    }

    fn notify<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) {
        if inner.notifying {
            return;
        }
        inner.notifying = true;
        while let Some(transition) = inner.unreported.pop_front() {
            drop(inner);
            self.observers.notify(&self.change(&transition));
            inner = self.lock();
        }
        inner.notifying = false;
    }

    fn gate(&self) -> Gate {
        Gate(self.gate.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.used().inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn used(&self) -> &Used {
        match self.used.get() {
            Some(used) => used,
            None => self.first_use(),
        }
    }

    #[cold]
    fn first_use(&self) -> &Used {
        self.used.get_or_init(|| Box::new(Used::new(&self.config)))
    }
}

impl Used {
    fn new(config: &Arc<BreakerConfig>) -> Self {
        Self {
            lanes: Lanes::default(),
            epoch: OnceLock::new(),
            rejections: Plain::new(0),
            waiting: Waiting::default(),
            inner: Mutex::new(Inner {
                machine: Machine::new(config),
                config: Arc::clone(config),
                lanes_open: false,
                unreported: VecDeque::new(),
                notifying: false,
            }),
        }
    }
}

/// The machine's generation, and whether it admits every call and is closed, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gate(u64);

impl Gate {
    const LETS_THROUGH: u64 = 1;
    const CLOSED: u64 = 2;

    /// The gate of a new machine.
    const NEW: Self = Self(Self::LETS_THROUGH | Self::CLOSED);

    fn of(machine: &Machine) -> Self {
        let bits = match machine.state() {
            BreakerState::Closed => Self::LETS_THROUGH | Self::CLOSED,
            BreakerState::Disabled | BreakerState::MetricsOnly => Self::LETS_THROUGH,
            BreakerState::Open | BreakerState::HalfOpen | BreakerState::ForcedOpen => 0,
        };
        Self(machine.generation() << 2 | bits)
    }

    fn generation(self) -> u64 {
        self.0 >> 2
    }

    fn lets_through(self) -> bool {
        self.0 & Self::LETS_THROUGH != 0
    }

    fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_is_small_and_closed_until_it_is_used() {
        let rules = RuleSet::new(BreakerConfig::default());
        let circuit = Circuit::new("".into(), &rules, Arc::default());
        assert!(Gate::of(&Machine::new(&rules.config)) == Gate::NEW);
        let now = Instant::now();
        let (ticket, other) = (circuit.pass(now).unwrap(), circuit.enter(now).0.unwrap());
        circuit.adopt(&rules);
        circuit.abandon(other);
        assert_eq!(circuit.state(), BreakerState::Closed);
        assert!(circuit.rejects(now).is_none() && !circuit.is_probing());
        assert!(circuit.used.get().is_none());
        let report = Report { health: Health::Failure, retry_after: None, first: true };
        assert_eq!(circuit.exit(0, &ticket, report, now, || 0.0), None);
        assert!(circuit.used.get().is_some());
        assert_eq!(circuit.snapshot(0, now).consecutive_failures, 1);
    }
}

#[cfg(all(test, resilient_loom))]
#[path = "loom_tests.rs"]
mod loom_tests;
