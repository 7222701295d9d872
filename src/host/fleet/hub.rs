//! The hosts of one node of a fleet.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::host::fleet::advice::{FleetNews, FleetState, HostAdvice};
use crate::host::fleet::gates::spread;
use crate::host::fleet::member::{HasGates, Member};
use crate::host::fleet::report::{FleetGate, HostReport};
use crate::host::fleet::share::Demand;
use crate::host::fleet::signals::{FleetSettings, Signals};
use crate::host::fleet::view::Source;

/// The most hosts of one node. Further ones are local only, until others are evicted.
const MOST_HOSTS: usize = 4_096;

/// The hosts of one node, and the figures of its exchanges. Dropping it ends the fleet's task.
#[derive(Debug)]
pub(crate) struct Hub {
    signals: Arc<Signals>,
    /// Several of one host, if clients that do not share their hosts are in one fleet.
    members: Mutex<Vec<Arc<Member>>>,
    pub(crate) exchanges: AtomicU64,
    pub(crate) failures: AtomicU64,
    last_contact: Mutex<Option<Instant>>,
}

impl Hub {
    pub(crate) fn new(settings: FleetSettings) -> Self {
        Self {
            signals: Arc::new(Signals::new(settings)),
            members: Mutex::default(),
            exchanges: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_contact: Mutex::default(),
        }
    }

    pub(crate) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// Adds a host, which is asked for the first time.
    pub(crate) fn join(
        &self,
        key: &Arc<str>,
        host: Weak<dyn HasGates>,
        now: Instant,
    ) -> Arc<Member> {
        let signals = Arc::clone(&self.signals);
        let member = Arc::new(Member::new(Arc::clone(key), host, signals, now));
        let mut members = lock(&self.members);
        if members.len() >= MOST_HOSTS {
            members.retain(|it| !it.is_idle());
        }
        if members.len() < MOST_HOSTS {
            members.push(Arc::clone(&member));
        }
        member
    }

    /// Takes the reports of all hosts that have something to tell or ask, one for each.
    pub(crate) fn take_reports(&self, now: Instant) -> Vec<HostReport> {
        let mut members = lock(&self.members);
        members.retain(|it| !it.is_idle());
        let mut reports: Vec<HostReport> = vec![];
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for report in members.iter().filter_map(|it| it.take_report(now)) {
            match places.get(&report.host) {
                Some(&at) => merge(&mut reports[at], report),
                None => {
                    places.insert(Arc::clone(&report.host), reports.len());
                    reports.push(report);
                }
            }
        }
        reports
    }

    /// Puts reports back that did not arrive.
    pub(crate) fn put_back(&self, reports: &[HostReport]) {
        for report in reports {
            let members = self.members_of(&report.host);
            // Of each client those gates that it closed.
            members.iter().for_each(|it| it.put_back_gates(&report.gates));
            if let Some(member) = members.first() {
                member.put_back(report);
            }
        }
    }

    /// Heeds the response to an exchange. `unit` draws from 0 to 1.
    pub(crate) fn heed(&self, all: &[HostAdvice], now: Instant, unit: &impl Fn() -> f64) {
        *lock(&self.last_contact) = Some(now);
        if let Some(nodes) = all.iter().map(|it| it.nodes).max() {
            self.signals.set_nodes(nodes.max(1));
        }
        let mut members: HashMap<Arc<str>, Vec<Arc<Member>>> = HashMap::new();
        for member in lock(&self.members).iter() {
            members.entry(Arc::clone(member.key())).or_default().push(Arc::clone(member));
        }
        for advice in all {
            for member in members.get(&advice.host).into_iter().flatten() {
                member.heed(&advice.breaker, Source::Exchange, unit(), now);
                if let Some(offered_per_second) = advice.offered_per_second {
                    let nodes = advice.nodes;
                    member.heed_demand(Demand { offered_per_second, nodes, heard: now });
                }
                advice.gates.iter().for_each(|it| self.close_gate(member, *it, now, unit));
            }
        }
    }

    /// Heeds a message of another node.
    pub(crate) fn heed_news(&self, news: &FleetNews, now: Instant, unit: &impl Fn() -> f64) {
        match news {
            FleetNews::Breaker { host, breaker } => {
                for member in self.members_of(host) {
                    member.heed(breaker, Source::News, unit(), now);
                }
            }
            FleetNews::GateClosed { host, gate } => {
                for member in self.members_of(host) {
                    self.close_gate(&member, *gate, now, unit);
                }
            }
        }
    }

    /// Closes a gate on another node's word, spread by the size of the fleet.
    fn close_gate(&self, member: &Member, gate: FleetGate, now: Instant, unit: &impl Fn() -> f64) {
        let host = member.heed_gate(gate, now).filter(|_| self.signals.settings.shares_gate);
        if let Some(host) = host {
            let remaining = spread(gate.remaining, self.signals.nodes(), unit());
            host.gates().close_for(gate.key, remaining, unit(), now);
        }
    }

    /// Has all hosts decide alone.
    pub(crate) fn lose_contact(&self) {
        let members = lock(&self.members).clone();
        members.iter().for_each(|it| it.lose_contact());
    }

    /// Returns whether the fleet is open for some host, so that there is more to hear.
    pub(crate) fn is_any_open(&self) -> bool {
        lock(&self.members).iter().any(|it| it.is_open())
    }

    /// Returns the state of a host, as this node sees it.
    pub(crate) fn state_of(&self, key: &str, now: Instant) -> FleetState {
        let states = self.members_of(key);
        states.first().map_or(FleetState::Unknown, |it| it.state(now))
    }

    /// Returns the moment of the last exchange that succeeded.
    pub(crate) fn last_contact(&self) -> Option<Instant> {
        *lock(&self.last_contact)
    }

    /// Counts an exchange.
    pub(crate) fn count(&self, failed: bool) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    fn members_of(&self, key: &str) -> Vec<Arc<Member>> {
        lock(&self.members).iter().filter(|it| **it.key() == *key).map(Arc::clone).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.signals.close();
    }
}

/// Adds what another client of this node counted of the same host.
fn merge(report: &mut HostReport, other: HostReport) {
    // Probes belong to an epoch: the newer one counts.
    if (other.run, other.epoch) != (report.run, report.epoch) && other.epoch > report.epoch {
        (report.run, report.epoch) = (other.run, other.epoch);
        (report.probes_ok, report.probes_failed) = (0, 0);
    }
    if (other.run, other.epoch) == (report.run, report.epoch) {
        report.probes_ok = report.probes_ok.saturating_add(other.probes_ok);
        report.probes_failed = report.probes_failed.saturating_add(other.probes_failed);
    }
    report.ok = report.ok.saturating_add(other.ok);
    report.failed = report.failed.saturating_add(other.failed);
    report.offered = report.offered.saturating_add(other.offered);
    report.votes_failing = report.failed > report.ok;
    report.gates.extend(other.gates);
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::breaker::Health;
    use crate::host::fleet::advice::BreakerAdvice;
    use crate::host::gate::HostGates;

    /// A host that is gone.
    #[derive(Debug)]
    pub(in crate::host::fleet) struct Nowhere;

    impl HasGates for Nowhere {
        fn gates(&self) -> &HostGates {
            unreachable!("it is never alive")
        }
    }

    const HOST: &str = "https://a.example";

    pub(in crate::host::fleet) fn hub() -> Hub {
        let second = Duration::from_secs(1);
        let [shares_breaker, shares_gate] = [true; 2];
        Hub::new(FleetSettings {
            report_every: second,
            timeout: second,
            shares_breaker,
            shares_gate,
        })
    }

    fn join(hub: &Hub, now: Instant) -> Arc<Member> {
        hub.join(&HOST.into(), Weak::<Nowhere>::new(), now)
    }

    fn heed(member: &Member, epoch: u64, state: FleetState, now: Instant) {
        member.heed(&BreakerAdvice::new(7, epoch, state), Source::Exchange, 0.0, now);
    }

    #[test]
    fn clients_of_one_node_report_a_host_as_one() {
        let (hub, now) = (hub(), Instant::now());
        let clients = [join(&hub, now), join(&hub, now)];
        for (client, successes, failures) in [(&clients[0], 3, 1), (&clients[1], 0, 4)] {
            (0..successes).for_each(|_| client.hear(client.entry(), Health::Success));
            (0..failures).for_each(|_| client.hear(client.entry(), Health::Failure));
            client.hear(client.entry(), Health::Throttled);
        }
        clients[1].hand_on(FleetGate::new(1, Duration::from_secs(9)), now);
        let [report] = &hub.take_reports(now)[..] else { panic!("one report") };
        assert_eq!((&*report.host, report.ok, report.failed), (HOST, 3, 5));
        assert!(report.votes_failing, "the node has more failures than successes");
        assert_eq!(report.gates.len(), 1);
        assert!(hub.take_reports(now).is_empty());
    }

    #[test]
    fn a_gate_that_did_not_reach_the_fleet_is_reported_again_whichever_client_closed_it() {
        let (hub, now) = (hub(), Instant::now());
        let clients = [join(&hub, now), join(&hub, now)];
        for (client, key) in clients.iter().zip([1, 2]) {
            client.hand_on(FleetGate::new(key, Duration::from_secs(9)), now);
        }
        let reports = hub.take_reports(now);
        hub.put_back(&reports);
        let keys: Vec<_> = hub.take_reports(now)[0].gates.iter().map(|it| it.key).collect();
        assert_eq!(keys, [1, 2]);
    }

    #[test]
    fn only_probes_of_the_newest_epoch_are_reported() {
        let half_open = FleetState::HalfOpen { elapsed: Duration::from_secs(60) };
        for behind in [0, 1] {
            let (hub, now) = (hub(), Instant::now());
            let clients = [join(&hub, now), join(&hub, now)];
            let epochs = if behind == 0 { [1, 3] } else { [3, 1] };
            for (client, epoch) in clients.iter().zip(epochs) {
                heed(client, epoch, half_open, now);
                let probe = client.ask(now, || 0.0).unwrap();
                client.hear(probe, if epoch == 3 { Health::Success } else { Health::Failure });
            }
            let [report] = &hub.take_reports(now)[..] else { panic!("one report") };
            assert_eq!((report.epoch, report.probes_ok, report.probes_failed), (3, 1, 0));
        }
    }
}
