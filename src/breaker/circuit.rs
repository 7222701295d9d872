//! The state machine behind its lock, and the notification of observers once the lock is free.

use std::{
    collections::VecDeque,
    fmt::{self, Debug, Formatter},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, PoisonError, RwLock, atomic::AtomicU64 as Plain},
};

use crate::breaker::{
    config::BreakerConfig,
    lane::Lanes,
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
#[derive(Debug)]
pub(super) struct Circuit {
    key: Arc<str>,
    observers: Arc<Observers>,
    /// The state that a call needs while the breaker is closed, readable without the lock.
    gate: AtomicU64,
    lanes: Lanes,
    /// The moment of the first result, from which the lanes count time.
    epoch: OnceLock<Instant>,
    /// The version of the rules in `inner`.
    version: Plain,
    /// The nanoseconds from which on a call is slow, by the rules in `inner`.
    slow_from: Plain,
    rejections: Plain,
    waiting: Waiting,
    inner: Mutex<Inner>,
}

/// The observers of a breaker's state changes, or of all breakers of one map.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Vec<Observer>>);

type Observer = Arc<dyn Fn(&StateChange) + Send + Sync>;

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
        let (config, version) = (Arc::clone(&rules.config), rules.version);
        let machine = Machine::new(&config);
        Self {
            key,
            gate: AtomicU64::new(Gate::of(&machine).0),
            lanes: Lanes::default(),
            epoch: OnceLock::new(),
            version: Plain::new(version),
            slow_from: Plain::new(config.slow_from()),
            rejections: Plain::new(0),
            waiting: Waiting::default(),
            inner: Mutex::new(Inner {
                machine,
                config,
                lanes_open: false,
                unreported: VecDeque::new(),
                notifying: false,
            }),
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
                self.rejections.fetch_add(1, Ordering::Relaxed);
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
        let epoch = *self.epoch.get_or_init(|| now);
        let slow_from = self.slow_from.load(Ordering::Relaxed);
        // Computed only if needed: a difference of moments costs as much as the rest.
        let fast = || nanos(now.saturating_duration_since(ticket.entered)) < slow_from;
        if report.health == Health::Success
            && (slow_from == u64::MAX || fast())
            && self.lanes.count(lane, ticket.generation, nanos_since(epoch, now), report.first)
        {
            return None;
        }
        self.drive(|machine, config| {
            if report.health == Health::Success {
                self.lanes.prepare(lane);
            }
            ((), machine.exit(*ticket, report, config, now, random))
        })
        .1
    }

    pub(super) fn rejects(&self, now: Instant) -> Option<CircuitOpen> {
        if self.gate().lets_through() {
            return None;
        }
        let inner = self.lock();
        inner.machine.rejects(&inner.config, now)
    }

    pub(super) fn abandon(&self, ticket: Ticket) {
        let gate = self.gate();
        // Only half-open has places to free, and only for its own probes.
        if gate.generation() == ticket.generation && !gate.lets_through() {
            self.lock().machine.abandon(ticket);
            // The place is free for the next request.
            self.waiting.wake();
        }
    }

    /// Takes a place among the requests that wait for a change; `None` if too many wait.
    pub(super) fn wait(&self) -> Option<Waiter<'_>> {
        self.waiting.join()
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
            rejections: self.rejections.load(Ordering::Relaxed),
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
                self.waiting.wake();
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
        if mem::take(lanes_open) {
            machine.add_successes(self.lanes.close());
        }
        let result = step(machine, config);
        let epoch = self.epoch.get();
        if let Some(until) = epoch.and_then(|it| machine.calm_until(config, *it)) {
            self.lanes.open(machine.generation(), until);
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observers {
    pub(crate) fn add(&self, observer: Observer) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    fn notify(&self, change: &StateChange) {
        // A copy, so that no lock is held while observers run.
        let observers = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers {
            // The notifying request must go on although an observer panics.
            drop(catch_unwind(AssertUnwindSafe(|| observer(change))));
        }
    }
}

impl Debug for Observers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}

/// The machine's generation, and whether it admits every call and is closed, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gate(u64);

impl Gate {
    const LETS_THROUGH: u64 = 1;
    const CLOSED: u64 = 2;

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

#[cfg(all(test, resilient_loom))]
#[path = "loom_tests.rs"]
mod loom_tests;
