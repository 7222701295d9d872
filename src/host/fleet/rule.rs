//! The rule of a store: when a fleet's breaker of one host opens and closes, by counts and votes.
//!
//! Pure: it gets the store's time in milliseconds. `InProcessFleet` decides by it; a store elsewhere
//! has its own version of the same rule.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::host::fleet::advice::{BreakerAdvice, FleetState, HostAdvice};
use crate::host::fleet::report::{FleetGate, HostReport, NodeId};

/// The time in which results and votes count.
const WINDOW_SECS: u64 = 10;

/// The results of so many seconds alone open a breaker, too. Local breakers cut failures off soon: in the
/// whole window, those of a few busy nodes never outweigh the successes of before.
const SHORT_SECS: u64 = 3;

const WINDOW_MS: u64 = 1_000 * WINDOW_SECS;

/// The fewest results that open a breaker.
const LEAST_RESULTS: u64 = 20;

/// The fewest nodes that open a breaker: one alone may be the one that is broken.
const LEAST_NODES: usize = 2;

/// The open time, before its jitter. It does not grow: one probe each time, of a whole fleet, is no
/// load, and a host that is back should not wait.
const OPEN_MS: u64 = 5_000;

/// The number of probes that have to succeed.
const PROBES: u32 = 3;

/// The most gates of one host, and the longest time for which one is closed.
const MOST_GATES: usize = 64;
const LONGEST_GATE: Duration = Duration::from_secs(3_600);

/// Hundreds of nodes hear of the same gate: one that opens later by less than this is no news.
const NEWS_MS: u64 = 100;

/// Seconds that are kept: more than count, so that none is overwritten while it does.
const SLOTS: usize = 16;

/// Quarters of a second that are kept for the attempts that nodes were asked for.
const QUARTERS: usize = 8;
const PER_SECOND: u64 = 4;

/// All that a store keeps of one host.
#[derive(Clone, Debug)]
pub(crate) struct HostRecord {
    run: u64,
    epoch: u64,
    phase: Phase,
    /// Attempts a second of the whole fleet, as of the last opening.
    attempts_per_second: f64,
    slots: [Slot; SLOTS],
    seen: Recent,
    failing: Recent,
    gates: Vec<(u64, u64)>,
    offered: [(u64, u64); QUARTERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until then, half-open from then on.
    Open {
        until: u64,
        probes_ok: u32,
    },
}

/// The results of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    ok: u64,
    failed: u64,
}

impl HostRecord {
    /// Builds the record of a host that is reported for the first time in this run.
    pub(crate) fn new(run: u64) -> Self {
        Self {
            run,
            epoch: 0,
            phase: Phase::Closed,
            attempts_per_second: 0.0,
            slots: Default::default(),
            seen: Recent::default(),
            failing: Recent::default(),
            gates: vec![],
            offered: Default::default(),
        }
    }

    /// Counts a report, decides, and returns the advice. Its run and epoch change with the state.
    pub(crate) fn report(&mut self, node: NodeId, report: &HostReport, now: u64) -> HostAdvice {
        let is_stale = report.run == self.run && report.epoch != self.epoch;
        if report.counts() {
            self.seen.add(node, now);
        }
        match self.phase {
            Phase::Open { until, .. } if report.run == self.run && !is_stale && now >= until => {
                self.judge(report, now);
            }
            Phase::Closed if report.counts() && !is_stale => self.count(node, report, now),
            _ => {}
        }
        for gate in &report.gates {
            self.close_gate(gate, now);
        }
        self.offer(report.offered, now);
        self.advise(&report.host, now)
    }

    /// Returns the state as of `now`.
    pub(crate) fn breaker(&self, now: u64) -> BreakerAdvice {
        let state = match self.phase {
            Phase::Closed => FleetState::Closed,
            Phase::Open { until, .. } if now < until => {
                FleetState::Open { remaining: Duration::from_millis(until - now) }
            }
            Phase::Open { until, .. } => {
                FleetState::HalfOpen { elapsed: Duration::from_millis(now - until) }
            }
        };
        let attempts_per_second = self.attempts_per_second;
        BreakerAdvice { attempts_per_second, ..BreakerAdvice::new(self.run, self.epoch, state) }
    }

    fn advise(&mut self, host: &Arc<str>, now: u64) -> HostAdvice {
        let mut advice = HostAdvice::new(Arc::clone(host), self.breaker(now));
        self.gates.retain(|it| it.1 > now);
        let gate = |it: &(u64, u64)| FleetGate::new(it.0, Duration::from_millis(it.1 - now));
        advice.gates = self.gates.iter().map(gate).collect();
        advice.nodes = u32::try_from(self.seen.len(now)).unwrap_or(u32::MAX);
        advice.offered_per_second = Some(self.offered_per_second(now));
        advice
    }

    fn count(&mut self, node: NodeId, report: &HostReport, now: u64) {
        match report.votes_failing {
            true => self.failing.add(node, now),
            false => self.failing.remove(node),
        }
        let second = now / 1_000;
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.ok += u64::from(report.ok);
        slot.failed += u64::from(report.failed);
        if report.failed > 0 && self.is_down(now) {
            self.open(now);
        }
    }

    /// Returns whether most attempts fail, at most nodes.
    fn is_down(&mut self, now: u64) -> bool {
        let mostly_fail = |within| {
            let (ok, failed) = self.results(within, now);
            ok + failed >= LEAST_RESULTS && failed >= ok
        };
        if !mostly_fail(WINDOW_SECS) && !mostly_fail(SHORT_SECS) {
            return false;
        }
        let (nodes, failing) = (self.seen.len(now), self.failing.len(now));
        failing >= LEAST_NODES && 2 * failing >= nodes
    }

    /// Returns the results within so many seconds, the present one included.
    fn results(&self, within: u64, now: u64) -> (u64, u64) {
        let second = now / 1_000;
        let counts = |it: &&Slot| it.second + within > second && it.second <= second;
        let slots = self.slots.iter().filter(counts);
        slots.fold((0, 0), |sum, it| (sum.0 + it.ok, sum.1 + it.failed))
    }

    fn open(&mut self, now: u64) {
        let (ok, failed) = self.results(WINDOW_SECS, now);
        let rate = (ok + failed) as f64 / WINDOW_SECS as f64;
        self.attempts_per_second = self.attempts_per_second.max(rate);
        // The clock's own milliseconds are random enough for the jitter.
        let until = now + OPEN_MS + OPEN_MS * (now % 1_000) / 5_000;
        self.phase = Phase::Open { until, probes_ok: 0 };
        self.epoch += 1;
    }

    /// Judges probes: one that fails opens again, three that succeed close.
    fn judge(&mut self, report: &HostReport, now: u64) {
        let Phase::Open { probes_ok, .. } = &mut self.phase else { return };
        if report.probes_failed > 0 {
            self.open(now);
            return;
        }
        *probes_ok = probes_ok.saturating_add(report.probes_ok);
        if *probes_ok >= PROBES {
            self.phase = Phase::Closed;
            self.epoch += 1;
            self.attempts_per_second = 0.0;
            self.slots = Default::default();
            self.failing = Recent::default();
        }
    }

    /// Returns whether a gate of a report is new to the store, or opens clearly later than it knows.
    pub(crate) fn is_gate_news(&self, gate: &FleetGate, now: u64) -> bool {
        let until = gate_until(gate, now);
        match self.gates.iter().find(|it| it.0 == gate.key) {
            Some(known) => until >= known.1.max(now) + NEWS_MS,
            None => until > now,
        }
    }

    fn close_gate(&mut self, gate: &FleetGate, now: u64) {
        let until = gate_until(gate, now);
        if let Some(known) = self.gates.iter_mut().find(|it| it.0 == gate.key) {
            known.1 = known.1.max(until);
            return;
        }
        self.gates.retain(|it| it.1 > now);
        if self.gates.len() < MOST_GATES {
            self.gates.push((gate.key, until));
        }
    }

    fn offer(&mut self, offered: u32, now: u64) {
        let quarter = now / 250;
        let slot = &mut self.offered[(quarter % QUARTERS as u64) as usize];
        if slot.0 != quarter {
            *slot = (quarter, 0);
        }
        slot.1 += u64::from(offered);
    }

    /// Returns the attempts a second that nodes were asked for: the last two seconds, weighted most
    /// where they are a second old, and not at all at their ends.
    ///
    /// A node asks when it reports, and its last report is about a second old: an edge there would let
    /// it count fully or not at all.
    fn offered_per_second(&self, now: u64) -> f64 {
        let quarter = now / 250;
        let weighted = |&(at, count): &(u64, u64)| {
            let age = quarter.saturating_sub(at).min(2 * PER_SECOND);
            count * age.min(2 * PER_SECOND - age)
        };
        self.offered.iter().map(weighted).sum::<u64>() as f64 / PER_SECOND as f64
    }
}

fn gate_until(gate: &FleetGate, now: u64) -> u64 {
    let remaining = gate.remaining.min(LONGEST_GATE).as_millis();
    now.saturating_add(u64::try_from(remaining).unwrap_or(u64::MAX))
}

/// The nodes that did something within the window.
#[derive(Clone, Debug, Default)]
struct Recent {
    last: HashMap<NodeId, u64>,
    /// Each time a node did it, oldest first: as many as reports come within the window.
    order: VecDeque<(u64, NodeId)>,
}

impl Recent {
    fn add(&mut self, node: NodeId, now: u64) {
        self.forget(now);
        if self.last.insert(node, now) != Some(now) {
            self.order.push_back((now, node));
        }
    }

    fn remove(&mut self, node: NodeId) {
        self.last.remove(&node);
    }

    fn len(&mut self, now: u64) -> usize {
        self.forget(now);
        self.last.len()
    }

    fn forget(&mut self, now: u64) {
        while let Some(&(at, node)) = self.order.front().filter(|it| it.0 + WINDOW_MS <= now) {
            self.order.pop_front();
            if self.last.get(&node) == Some(&at) {
                self.last.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn node(n: u64) -> NodeId {
        NodeId::new(n)
    }

    fn counts(ok: u32, failed: u32) -> HostReport {
        HostReport { ok, failed, votes_failing: failed > ok, run: 7, ..HostReport::new("h") }
    }

    fn probes(epoch: u64, ok: u32, failed: u32) -> HostReport {
        HostReport { run: 7, epoch, probes_ok: ok, probes_failed: failed, ..HostReport::new("h") }
    }

    fn opened() -> (HostRecord, u64) {
        let mut host = HostRecord::new(7);
        host.report(node(1), &counts(0, 10), START);
        let advice = host.report(node(2), &counts(0, 10), START);
        assert!(advice.breaker.state.is_open(), "{advice:?}");
        (host, START)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn reports_of_failures_are_forgotten_after_the_window_whatever_others_say() {
        let mut host = HostRecord::new(7);
        for second in 0..1_000 {
            host.report(node(1), &counts(0, 1), START + 1_000 * second);
        }
        let kept = host.failing.order.len() as u64;
        assert!(kept <= WINDOW_MS / 1_000 + 1, "{kept}");
    }

    #[test]
    fn votes_count_for_ten_seconds() {
        for (after, opens) in [(9_999, true), (10_000, false)] {
            let mut host = HostRecord::new(7);
            host.report(node(1), &counts(0, 30), START);
            let advice = host.report(node(2), &counts(0, 30), START + after);
            assert_eq!(advice.breaker.state.is_open(), opens, "{after} ms");
        }
    }

    #[test]
    fn a_fleet_opens_by_results_and_votes_of_several() {
        let (mut host, now) = opened();
        let breaker = host.breaker(now);
        assert_eq!((breaker.epoch, breaker.attempts_per_second), (1, 2.0));
        assert_eq!(breaker.state, FleetState::Open { remaining: secs(5) });
        let half_open = FleetState::HalfOpen { elapsed: Duration::from_millis(250) };
        assert_eq!(host.breaker(now + 5_250).state, half_open);
        assert_eq!(host.report(node(3), &HostReport::new("h"), now).nodes, 2);
    }

    #[test]
    fn a_gate_is_news_if_it_opens_clearly_later_than_is_known() {
        let mut host = HostRecord::new(7);
        let gate = |key, millis| FleetGate::new(key, Duration::from_millis(millis));
        assert!(host.is_gate_news(&gate(1, 1), START) && !host.is_gate_news(&gate(1, 0), START));
        host.close_gate(&gate(1, 1_000), START);
        assert!(!host.is_gate_news(&gate(1, 999 + NEWS_MS), START));
        assert!(host.is_gate_news(&gate(1, 1_000 + NEWS_MS), START));
        assert!(host.is_gate_news(&gate(2, 1), START));
        let over = START + 2_000;
        assert!(!host.is_gate_news(&gate(1, NEWS_MS - 1), over));
        assert!(host.is_gate_news(&gate(1, NEWS_MS), over));
    }

    #[test]
    fn a_fleet_opens_with_a_jitter_by_the_stores_clock() {
        let mut host = HostRecord::new(7);
        host.report(node(1), &counts(0, 10), START + 500);
        let advice = host.report(node(2), &counts(0, 10), START + 500);
        let remaining = Duration::from_millis(5_500);
        assert_eq!(advice.breaker.state, FleetState::Open { remaining });
    }

    #[test]
    fn one_node_opens_no_fleet_whatever_it_counts() {
        let mut host = HostRecord::new(7);
        for tick in 0..100 {
            let now = START + 100 * tick;
            let bad = host.report(node(0), &counts(0, 1_000), now);
            assert_eq!(bad.breaker.state, FleetState::Closed);
            host.report(node(1 + tick % 2), &counts(1, 0), now);
        }
        // Nor does it where it is the only node.
        let mut host = HostRecord::new(7);
        let alone = host.report(node(0), &counts(0, 1_000), START);
        assert_eq!(alone.breaker.state, FleetState::Closed);
    }

    #[test]
    fn a_success_opens_no_fleet() {
        let mut host = HostRecord::new(7);
        host.report(node(1), &counts(0, 10), START);
        host.report(node(2), &counts(0, 9), START);
        // The twentieth result; the next failure opens.
        let good = host.report(node(3), &counts(1, 0), START);
        assert_eq!(good.breaker.state, FleetState::Closed);
        assert!(host.report(node(1), &counts(0, 1), START).breaker.state.is_open());
    }

    #[test]
    fn a_node_that_recovers_takes_its_vote_back() {
        let mut host = HostRecord::new(7);
        host.report(node(1), &counts(0, 9), START);
        host.report(node(1), &counts(1, 0), START + 1);
        let one = host.report(node(2), &counts(0, 15), START + 2);
        assert_eq!((one.breaker.state, one.nodes), (FleetState::Closed, 2));
    }

    #[test]
    fn a_minority_opens_no_fleet() {
        for (bad, opens) in [(4, false), (5, true)] {
            let mut host = HostRecord::new(7);
            (0..10 - bad).for_each(|it| drop(host.report(node(it), &counts(5, 0), START)));
            (0..bad).for_each(|it| drop(host.report(node(100 + it), &counts(0, 50), START + 1)));
            assert_eq!(host.breaker(START + 1).state.is_open(), opens, "{bad} of 10");
        }
    }

    #[test]
    fn failures_of_the_last_seconds_outweigh_successes_of_before() {
        let mut host = HostRecord::new(7);
        (0..8).for_each(|it| drop(host.report(node(it % 2), &counts(80, 0), START + 1_000 * it)));
        // A second of failures is a blip, three are an outage.
        let fail = |host: &mut HostRecord, at| {
            (0..2).for_each(|it| drop(host.report(node(it), &counts(0, 35), at)));
            host.breaker(at).state.is_open()
        };
        assert!(!fail(&mut host, START + 8_000));
        assert!(fail(&mut host, START + 9_000));
    }

    #[test]
    fn old_results_and_votes_do_not_count() {
        let mut host = HostRecord::new(7);
        host.report(node(1), &counts(0, 15), START);
        host.report(node(2), &counts(0, 4), START + 9_999);
        let late = host.report(node(2), &counts(0, 1), START + 10_000);
        assert_eq!((late.breaker.state, late.nodes), (FleetState::Closed, 1));
    }

    #[test]
    fn three_probes_close_and_one_that_fails_opens_again() {
        let (mut host, now) = opened();
        // Too soon, of another epoch, or of another run: no evidence.
        host.report(node(1), &probes(1, 3, 0), now + 4_999);
        host.report(node(1), &probes(0, 3, 0), now + 5_000);
        host.report(node(1), &HostReport { run: 8, ..probes(1, 3, 0) }, now + 5_000);
        let half_open = FleetState::HalfOpen { elapsed: Duration::ZERO };
        assert_eq!(host.breaker(now + 5_000).state, half_open);
        let again = host.report(node(1), &probes(1, 2, 1), now + 5_000).breaker;
        assert_eq!((again.epoch, again.state), (2, FleetState::Open { remaining: secs(5) }));
        assert_eq!(again.attempts_per_second, 2.0);
        let two = host.report(node(1), &probes(2, 2, 0), now + 15_000).breaker;
        assert_eq!(two.epoch, 2, "two of three");
        let closed = host.report(node(2), &probes(2, 1, 0), now + 15_000).breaker;
        assert_eq!((closed.epoch, closed.state), (3, FleetState::Closed));
        // What was on its way says nothing of the new epoch.
        let stale = HostReport { epoch: 2, ..counts(0, 100) };
        (0..9).for_each(|it| drop(host.report(node(it), &stale, now + 15_001)));
        assert_eq!(host.breaker(now + 15_001).state, FleetState::Closed);
    }

    #[test]
    fn the_longest_gate_counts_and_gates_are_bounded() {
        let mut host = HostRecord::new(7);
        let gate = |key, secs| FleetGate::new(key, Duration::from_secs(secs));
        let report = |gates| HostReport { gates, ..HostReport::new("h") };
        host.report(node(1), &report(vec![gate(0, 60), gate(5, 10)]), START);
        let advice = host.report(node(2), &report(vec![gate(0, 5)]), START + 10_000);
        assert_eq!(advice.gates, [gate(0, 50)]);
        let many = report((0..100).map(|it| gate(it, 100_000)).collect());
        let advice = host.report(node(1), &many, START);
        assert_eq!((advice.gates.len(), advice.gates[0].remaining), (64, secs(3_600)));
        // Those that have ended make room.
        let next = host.report(node(1), &report(vec![gate(100, 5)]), START + 3_600_000);
        assert_eq!(next.gates, [gate(100, 5)]);
    }

    #[test]
    fn offers_count_most_when_they_are_a_second_old() {
        let mut host = HostRecord::new(7);
        let offers = |offered| HostReport { offered, ..HostReport::new("h") };
        for (at, expected) in [(0, 0.0), (100, 0.0), (250, 5.0), (1_000, 27.5), (1_300, 27.5)] {
            let advice = host.report(node(1), &offers(10), START + at);
            assert_eq!(advice.offered_per_second, Some(expected), "{at} ms");
        }
        // Reports about a second apart tell the demand, whether a little more or less.
        for every in [970, 1_000, 1_030] {
            let mut host = HostRecord::new(7);
            let told = |nth: u64| host.report(node(1), &offers(100), START + every * nth);
            let told: Vec<_> = (0..40).map(told).filter_map(|it| it.offered_per_second).collect();
            assert!(told[3..].iter().all(|it| *it >= 75.0), "{every} ms: {told:?}");
            let mean = told[3..].iter().sum::<f64>() / 37.0;
            assert!((95.0..=105.0).contains(&mean), "{every} ms: {mean}");
        }
    }
}
