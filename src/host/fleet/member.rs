//! One host at one node of a fleet: what requests read and count of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::breaker::{CircuitOpen, Health, Waiter, Waiting};
use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::host::fleet::advice::{BreakerAdvice, FleetState};
use crate::host::fleet::gates::FleetGates;
use crate::host::fleet::report::{FleetGate, HostReport};
use crate::host::fleet::share::{Demand, Turn};
use crate::host::fleet::signals::{Signals, Urgency};
use crate::host::fleet::view::{Ask, Probe, Source, View};
use crate::host::gate::HostGates;

/// The state of a host whose gates a fleet closes.
pub(crate) trait HasGates: fmt::Debug + Send + Sync {
    fn gates(&self) -> &HostGates;
}

/// One host at one node: read and counted by requests, which wait for nothing here.
///
/// A request reads one word, and looks closer only if the fleet is open or the word is new.
#[derive(Debug)]
pub(crate) struct Member {
    key: Arc<str>,
    host: Weak<dyn HasGates>,
    signals: Arc<Signals>,
    word: AtomicU64,
    /// The word that a request has acted on.
    seen: AtomicU64,
    view: ArcSwap<View>,
    waiting: Waiting,
    counts: Counts,
    gates: Mutex<FleetGates>,
    /// The demand for the host, where a rate is shared.
    demand: ArcSwapOption<Demand>,
}

/// Counts since the last report. Away from the word, which is written seldom and read often.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    ok: AtomicU32,
    failed: AtomicU32,
    probes_ok: AtomicU32,
    probes_failed: AtomicU32,
    offered: AtomicU32,
    /// Set by requests that were rejected: the node wants to know when that is over.
    asked: AtomicU32,
}

/// The fleet's breaker as an attempt found it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FleetEntry {
    word: Word,
    probe: Option<Probe>,
}

/// A change of the fleet's breaker that a request is the first to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewChange {
    pub(crate) from: FleetState,
    pub(crate) to: FleetState,
    /// Set if the fleet has closed since the last change that was seen.
    pub(crate) has_closed: bool,
}

impl Member {
    pub(crate) fn new(
        key: Arc<str>,
        host: Weak<dyn HasGates>,
        signals: Arc<Signals>,
        now: Instant,
    ) -> Self {
        Self {
            key,
            host,
            signals,
            word: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            view: ArcSwap::from_pointee(View::unknown(now)),
            waiting: Waiting::default(),
            counts: Counts::default(),
            gates: Mutex::default(),
            demand: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Returns whether the local breaker decides alone, and no request has to act on a change.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        let word = self.word();
        !word.is_open() && word.0 == self.seen.load(Ordering::Relaxed)
    }

    /// Admits an attempt by the fleet's breaker; `unit` is random from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] while the fleet is open, and for most attempts while it is half-open.
    pub(crate) fn ask(
        &self,
        now: Instant,
        unit: impl FnOnce() -> f64,
    ) -> Result<FleetEntry, CircuitOpen> {
        let word = self.word();
        if !word.is_open() {
            return Ok(FleetEntry { word, probe: None });
        }
        match self.view.load().ask(self.stale_after(), now, unit) {
            Ask::Free => Ok(FleetEntry { word, probe: None }),
            Ask::Probe(probe) => Ok(FleetEntry { word, probe: Some(probe) }),
            Ask::Reject { retry_in, is_probing } => {
                self.counts.asked.store(1, Ordering::Relaxed);
                Err(CircuitOpen::of_fleet(retry_in, is_probing))
            }
        }
    }

    /// Returns the rejection of any attempt at `now`; `None` if some may be sent.
    pub(crate) fn rejects(&self, now: Instant) -> Option<CircuitOpen> {
        if !self.word().is_open() {
            return None;
        }
        let retry_in = self.view.load().rejects_for(self.stale_after(), now)?;
        Some(CircuitOpen::of_fleet(retry_in, false))
    }

    /// Takes a place among the requests that wait for a change; `None` if 10,000 wait.
    pub(crate) fn wait(&self) -> Option<Waiter<'_>> {
        self.waiting.join()
    }

    /// Returns the place of an attempt that was not asked for, as the fast path's.
    #[inline]
    pub(crate) fn entry(&self) -> FleetEntry {
        FleetEntry { word: self.word(), probe: None }
    }

    /// Counts the result of an attempt. A late one, from before the fleet opened or closed, says
    /// nothing.
    #[inline]
    pub(crate) fn record(&self, entry: FleetEntry, failed: bool) {
        let counts = &self.counts;
        if let Some(probe) = entry.probe {
            let view = self.view.load();
            if (view.run, view.epoch) == (probe.run, probe.epoch) {
                let count = if failed { &counts.probes_failed } else { &counts.probes_ok };
                count.fetch_add(1, Ordering::Relaxed);
                self.signals.raise(Urgency::Now);
            }
            return;
        }
        let word = self.word();
        if word.is_open() || word.closings() != entry.word.closings() {
            return;
        }
        if failed {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            self.signals.raise(Urgency::Failure);
        } else {
            counts.ok.fetch_add(1, Ordering::Relaxed);
            self.signals.raise(Urgency::Count);
        }
    }

    /// Counts an attempt's evidence about the health of the host.
    #[inline]
    pub(crate) fn hear(&self, entry: FleetEntry, health: Health) {
        match health {
            Health::Success => self.record(entry, false),
            Health::Failure => self.record(entry, true),
            Health::Throttled => {}
        }
    }

    /// Counts an attempt in a rate of `limit` a second that the fleet shares, and returns its turn.
    /// `unit` is random from 0 to 1.
    pub(crate) fn take_turn(
        &self,
        limit: f64,
        cost: u32,
        unit: impl Fn() -> f64,
        now: Instant,
    ) -> Turn {
        self.counts.offered.fetch_add(cost, Ordering::Relaxed);
        self.signals.raise(Urgency::Count);
        let local = || Turn::Local { nodes: self.signals.nodes() };
        self.demand.load().as_ref().map_or_else(local, |it| it.turn(limit, unit, now))
    }

    /// Takes note of the demand of the whole fleet.
    pub(crate) fn heed_demand(&self, demand: Demand) {
        self.demand.store(Some(Arc::new(demand)));
    }

    /// Hands a gate on that a response closed here for as long.
    pub(crate) fn hand_on(&self, gate: FleetGate, now: Instant) {
        if lock(&self.gates).close(gate, now) {
            self.signals.raise(Urgency::Now);
        }
    }

    /// Takes note of a gate that was closed elsewhere; returns the host if that is news.
    pub(crate) fn heed_gate(&self, gate: FleetGate, now: Instant) -> Option<Arc<dyn HasGates>> {
        let is_news = lock(&self.gates).heed(gate, now);
        if is_news { self.host.upgrade() } else { None }
    }

    /// Takes the change that no request has acted on yet, for this caller only.
    pub(crate) fn take_change(&self, now: Instant) -> Option<ViewChange> {
        let (word, seen) = (self.word.load(Ordering::Acquire), self.seen.load(Ordering::Relaxed));
        if word == seen {
            return None;
        }
        let order = Ordering::Relaxed;
        self.seen.compare_exchange(seen, word, order, order).ok()?;
        let (word, seen) = (Word(word), Word(seen));
        let has_closed = word.closings() != seen.closings();
        let to = self.view.load().state(self.stale_after(), now);
        Some(ViewChange { from: seen.state(), to, has_closed })
    }

    /// Returns the state, as this node sees it.
    pub(crate) fn state(&self, now: Instant) -> FleetState {
        self.view.load().state(self.stale_after(), now)
    }

    /// Takes what was counted since the last report; `None` if there is nothing to tell or ask.
    pub(crate) fn take_report(&self, now: Instant) -> Option<HostReport> {
        let take = |count: &AtomicU32| count.swap(0, Ordering::Relaxed);
        let counts = &self.counts;
        let view = self.view.load();
        let mut report = HostReport::new(Arc::clone(&self.key));
        (report.ok, report.failed) = (take(&counts.ok), take(&counts.failed));
        report.votes_failing = report.failed > report.ok;
        report.probes_ok = take(&counts.probes_ok);
        report.probes_failed = take(&counts.probes_failed);
        report.offered = take(&counts.offered);
        report.gates = lock(&self.gates).take(now);
        (report.run, report.epoch) = (view.run, view.epoch);
        let asks = take(&counts.asked) > 0 || view.is_open();
        let tells = report.counts()
            || report.probes_ok > 0
            || report.probes_failed > 0
            || report.offered > 0
            || !report.gates.is_empty();
        (asks || tells).then_some(report)
    }

    /// Puts the counts of a report back that did not arrive: they are merged with the next ones.
    pub(crate) fn put_back(&self, report: &HostReport) {
        let view = self.view.load();
        if (view.run, view.epoch) == (report.run, report.epoch) {
            for (count, more) in [
                (&self.counts.ok, report.ok),
                (&self.counts.failed, report.failed),
                (&self.counts.probes_ok, report.probes_ok),
                (&self.counts.probes_failed, report.probes_failed),
            ] {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.counts.asked.store(1, Ordering::Relaxed);
    }

    /// Puts those of the gates back that were closed here, and did not reach the fleet.
    pub(crate) fn put_back_gates(&self, gates: &[FleetGate]) {
        lock(&self.gates).put_back(gates);
    }

    /// Heeds an advice; `unit` is random from 0 to 1. Old advice changes nothing.
    pub(crate) fn heed(&self, advice: &BreakerAdvice, source: Source, unit: f64, now: Instant) {
        let view = **self.view.load();
        let Some(next) = view.heed(advice, source, unit, now) else { return };
        if (next.run, next.epoch) != (view.run, view.epoch) && view.run != 0 {
            // Counted in an epoch that is over.
            self.clear_results();
        }
        self.become_view(&view, next);
    }

    /// Gives up what the fleet said: its store has not been heard of for too long.
    pub(crate) fn lose_contact(&self) {
        let view = **self.view.load();
        self.become_view(&view, view.lost());
    }

    /// Returns whether the node needs to hear more of the host: the fleet is open.
    pub(crate) fn is_open(&self) -> bool {
        self.word().is_open()
    }

    /// Returns whether the host's state is gone, and nothing is left to report.
    pub(crate) fn is_idle(&self) -> bool {
        let count = |it: &AtomicU32| it.load(Ordering::Relaxed);
        let Counts { ok, failed, probes_ok, probes_failed, offered, .. } = &self.counts;
        let is_empty =
            [ok, failed, probes_ok, probes_failed, offered].iter().all(|it| count(it) == 0);
        self.host.strong_count() == 0 && is_empty && !lock(&self.gates).has_news()
    }

    fn clear_results(&self) {
        let Counts { ok, failed, probes_ok, probes_failed, .. } = &self.counts;
        for count in [ok, failed, probes_ok, probes_failed] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Only the fleet's one task calls it, so that no change is lost.
    fn become_view(&self, from: &View, to: View) {
        let word = self.word();
        self.view.store(Arc::new(to));
        let next = word.next(from, &to);
        if next != word {
            self.word.store(next.0, Ordering::Release);
            self.waiting.wake();
        }
    }

    #[inline]
    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn stale_after(&self) -> Duration {
        self.signals.stale_after()
    }
}

/// The view in one word: its version (32 bits), how often the fleet closed (30), and its stance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const CLOSED: u64 = 1;
    const OPEN: u64 = 2;
    const STANCE: u64 = 3;
    const CLOSINGS: u64 = 0x3fff_ffff;

    #[inline]
    fn is_open(self) -> bool {
        self.0 & Self::STANCE == Self::OPEN
    }

    fn closings(self) -> u64 {
        self.0 >> 2 & Self::CLOSINGS
    }

    fn next(self, from: &View, to: &View) -> Self {
        let stance = match to {
            _ if to.is_open() => Self::OPEN,
            _ if to.is_closed() => Self::CLOSED,
            _ => 0,
        };
        let is_new = (to.run, to.epoch) != (from.run, from.epoch) && from.run != 0;
        if stance == self.0 & Self::STANCE && !is_new {
            return self;
        }
        // A store that began anew has closed nothing: it knows nothing.
        let has_closed = is_new && to.run == from.run && to.is_closed();
        let closings = (self.closings() + u64::from(has_closed)) & Self::CLOSINGS;
        // What is left of its highest bit is shifted out.
        let version = (self.0 >> 32) + 1;
        Self(version << 32 | closings << 2 | stance)
    }

    /// Returns its stance as a state, without times.
    fn state(self) -> FleetState {
        match self.0 & Self::STANCE {
            Self::CLOSED => FleetState::Closed,
            Self::OPEN => FleetState::Open { remaining: Duration::ZERO },
            _ => FleetState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fleet::hub::Hub;
    use crate::host::fleet::hub::tests::{Nowhere, hub};

    fn member() -> (Hub, Arc<Member>) {
        let hub = hub();
        let host: Weak<Nowhere> = Weak::new();
        let member = hub.join(&"https://a.example".into(), host, Instant::now());
        (hub, member)
    }

    fn heed(member: &Member, run: u64, epoch: u64, state: FleetState) {
        let advice = BreakerAdvice::new(run, epoch, state);
        member.heed(&advice, Source::Exchange, 0.0, Instant::now());
    }

    const OPEN: FleetState = FleetState::Open { remaining: Duration::from_secs(5) };

    #[test]
    fn only_a_fleet_that_closes_restarts_local_breakers() {
        let (_hub, member) = member();
        let mut steps = vec![];
        for (run, epoch, state) in [
            (7, 0, FleetState::Closed),
            (7, 1, OPEN),
            (7, 2, FleetState::Closed),
            // Opened and closed unseen.
            (7, 4, FleetState::Closed),
            (7, 4, FleetState::Closed),
            // A store that begins anew knows nothing.
            (8, 0, FleetState::Closed),
            (8, 1, OPEN),
            (9, 0, FleetState::Closed),
        ] {
            heed(&member, run, epoch, state);
            steps.push(member.take_change(Instant::now()).map(|it| it.has_closed));
            assert!(member.take_change(Instant::now()).is_none(), "told once");
        }
        let no = Some(false);
        assert_eq!(steps, [no, no, Some(true), Some(true), None, no, no, no]);
        assert!(member.is_settled());
    }

    #[test]
    fn late_results_say_nothing() {
        let (_hub, member) = member();
        heed(&member, 7, 0, FleetState::Closed);
        let before = member.entry();
        heed(&member, 7, 1, OPEN);
        member.record(before, true);
        let now = Instant::now() + Duration::from_secs(6);
        let view = **member.view.load();
        member.view.store(Arc::new(
            view.heed(
                &BreakerAdvice::new(7, 1, FleetState::HalfOpen { elapsed: Duration::ZERO }),
                Source::Exchange,
                0.0,
                now,
            )
            .unwrap(),
        ));
        let probe = member.ask(now, || 0.0).unwrap();
        heed(&member, 7, 2, FleetState::Closed);
        member.record(probe, false);
        member.record(before, true);
        assert_eq!(member.take_report(now), None);
        member.record(member.entry(), true);
        let report = member.take_report(now).unwrap();
        assert_eq!((report.failed, report.run, report.epoch), (1, 7, 2));
        // What did not arrive is merged with what follows, unless the epoch is over.
        member.record(member.entry(), false);
        member.put_back(&report);
        let merged = member.take_report(now).unwrap();
        assert_eq!((merged.ok, merged.failed), (1, 1));
        heed(&member, 7, 3, OPEN);
        member.put_back(&merged);
        let report = member.take_report(now).unwrap();
        assert_eq!((report.ok, report.failed, report.counts()), (0, 0, false));
    }

    #[test]
    fn each_count_alone_is_reported_and_keeps_a_member() {
        let (_hub, member) = member();
        let now = Instant::now();
        assert!(member.is_idle() && member.take_report(now).is_none());
        let Counts { ok, failed, probes_ok, probes_failed, offered, asked } = &member.counts;
        for count in [ok, failed, probes_ok, probes_failed, offered] {
            count.store(1, Ordering::Relaxed);
            assert!(!member.is_idle() && member.take_report(now).is_some());
            assert!(member.is_idle() && member.take_report(now).is_none());
        }
        asked.store(1, Ordering::Relaxed);
        assert!(member.is_idle() && member.take_report(now).is_some());
        member.hand_on(FleetGate::new(1, Duration::from_secs(9)), now);
        assert!(!member.is_idle());
        assert_eq!(member.take_report(now).map(|it| it.gates.len()), Some(1));
        assert!(member.is_idle() && member.take_report(now).is_none());
    }

    #[test]
    fn a_node_votes_by_the_majority_of_its_attempts() {
        let (_hub, member) = member();
        for (failures, votes_failing) in [(1, false), (2, true)] {
            member.record(member.entry(), false);
            (0..failures).for_each(|_| member.record(member.entry(), true));
            let report = member.take_report(Instant::now()).unwrap();
            assert_eq!(report.votes_failing, votes_failing);
        }
    }

    #[test]
    fn what_was_counted_in_an_epoch_that_is_over_is_not_reported() {
        let (_hub, member) = member();
        let failed = || member.take_report(Instant::now()).map_or(0, |it| it.failed);
        for (epoch, expected) in [(3, 1), (3, 1), (5, 0), (5, 1)] {
            member.record(member.entry(), true);
            heed(&member, 7, epoch, FleetState::Closed);
            assert_eq!(failed(), expected, "{epoch}");
        }
    }

    #[test]
    fn an_open_fleet_rejects_all() {
        let (_hub, member) = member();
        let now = Instant::now();
        assert!(member.rejects(now).is_none() && !member.is_open());
        heed(&member, 7, 0, OPEN);
        assert!(member.rejects(now).is_some() && member.is_open());
        heed(&member, 7, 1, FleetState::Closed);
        assert!(member.rejects(now).is_none() && !member.is_open());
    }

    #[test]
    fn a_rate_is_shared_once_the_demand_is_known() {
        let (_hub, member) = member();
        let now = Instant::now();
        let turn = || member.take_turn(1.0, 1, || 0.5, now);
        assert_eq!(turn(), Turn::Local { nodes: 1 });
        member.heed_demand(Demand { offered_per_second: 9.0, nodes: 2, heard: now });
        assert!(matches!(turn(), Turn::Wait(_)));
        assert_eq!(member.take_report(now).map(|it| it.offered), Some(2));
    }
}
