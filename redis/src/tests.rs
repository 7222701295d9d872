//! The script decides as the rule of the core does, whatever nodes report, and when.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::Duration,
};

use proptest::prelude::*;
use reqwest_resilient::fleet::{
    FleetGate, FleetState, FleetStore as _, HostAdvice, HostReport, InProcessFleet, NodeId,
};

use crate::{
    report::{Call, Context, SCRIPT, command, read_reply},
    server::Server,
};

/// The time at which the core's store begins, in ms.
const START: u64 = 1_000_000;

/// A report, and the time since the last one.
#[derive(Clone, Debug)]
struct Step {
    wait: u64,
    node: u64,
    ok: u32,
    failed: u32,
    probes_ok: u32,
    probes_failed: u32,
    /// The number of epochs that the node is behind.
    behind: u64,
    /// Set if it knows of another run.
    of_other_run: bool,
    offered: u32,
    gate: Option<(u64, u64)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![0_u64..50, 0_u64..2_000, 0_u64..12_000];
    let counts = prop_oneof![
        3 => (0_u32..10, 0_u32..10),
        3 => (0_u32..2, 0_u32..40),
        1 => (20_u32..200, Just(0)),
        1 => Just((0, 0)),
    ];
    let probes = prop_oneof![
        2 => Just((0, 0)),
        3 => (1_u32..3, Just(0)),
        1 => (0_u32..2, 0_u32..2),
    ];
    let behind = prop_oneof![6 => Just(0_u64), 1 => 1_u64..3];
    let other_run = prop::bool::weighted(0.1);
    let gate = prop::option::weighted(0.2, (0_u64..4, 0_u64..8_000));
    let step = (wait, 1_u64..5, counts, probes, behind, other_run, 0_u32..50, gate);
    let step =
        step.prop_map(|(wait, node, counts, probes, behind, of_other_run, offered, gate)| {
            let ((ok, failed), (probes_ok, probes_failed)) = (counts, probes);
            #[rustfmt::skip]
        let step = Step {
            wait, node, ok, failed, probes_ok, probes_failed, behind, of_other_run, offered, gate,
        };
            step
        });
    prop::collection::vec(step, 1..60)
}

fn report(step: &Step, last: Option<&HostAdvice>) -> HostReport {
    let mut it = HostReport::new("http://api:80");
    (it.ok, it.failed, it.votes_failing) = (step.ok, step.failed, step.failed > step.ok);
    (it.probes_ok, it.probes_failed) = (step.probes_ok, step.probes_failed);
    it.offered = step.offered;
    let gate = |(key, millis)| FleetGate::new(key, Duration::from_millis(millis));
    it.gates = step.gate.map(gate).into_iter().collect();
    if let Some(breaker) = last.map(|it| it.breaker).filter(|_| !step.of_other_run) {
        (it.run, it.epoch) = (breaker.run, breaker.epoch.saturating_sub(step.behind));
    }
    it
}

/// Without what may differ: the run, and the order of gates.
fn normal(mut advice: HostAdvice) -> HostAdvice {
    advice.breaker.run = 0;
    advice.gates.sort_unstable_by_key(|it| it.key);
    advice
}

/// The script on a server whose time is the test's.
struct Clocked {
    connection: redis::Connection,
    script: String,
    _server: Server,
}

impl Clocked {
    fn start() -> redis::RedisResult<Self> {
        let server = Server::start();
        let clock = "{ redis.call('GET', 's'), redis.call('GET', 'us') }";
        let script = SCRIPT.replace("redis.call('TIME')", clock);
        assert_ne!(script, SCRIPT);
        Ok(Self { connection: server.client().get_connection()?, script, _server: server })
    }

    fn exchange(
        &mut self,
        now: u64,
        namespace: &str,
        report: &HostReport,
        context: Context,
    ) -> redis::RedisResult<HostAdvice> {
        let time = [("s", now / 1_000), ("us", now % 1_000 * 1_000)];
        redis::cmd("MSET").arg(&time).exec(&mut self.connection)?;
        let reply = command(Call::Text(&self.script), namespace, report, context)
            .query(&mut self.connection)?;
        let (at, advice) = read_reply(&report.host, reply)?;
        assert_eq!(at, now);
        Ok(advice)
    }
}

#[test]
fn a_server_whose_clock_is_set_holds_nothing_open_and_refuses_what_is_late()
-> redis::RedisResult<()> {
    let mut server = Clocked::start()?;
    let context = |node, deadline| Context { node: NodeId::new(node), deadline, fresh_run: 1 };
    let mut report = HostReport::new("http://api:80");
    (report.failed, report.votes_failing) = (20, true);
    let day = 86_400_000;
    server.exchange(day, "set", &report, context(1, 0))?;
    let open = server.exchange(day, "set", &report, context(2, 0))?;
    assert!(open.breaker.state.is_open());

    let back = server.exchange(day / 2, "set", &report, context(1, 0))?;
    let FleetState::Open { remaining } = back.breaker.state else { panic!("{back:?}") };
    assert!(remaining <= Duration::from_secs(6), "{remaining:?}");

    let mut late = server.exchange(day + 1, "set", &report, context(1, day));
    assert!(late.as_ref().unwrap_err().to_string().contains("LATE"), "{late:?}");
    late = server.exchange(day, "set", &report, context(1, day));
    assert!(late.is_ok());
    Ok(())
}

#[test]
fn the_script_decides_as_the_rule_of_the_core() -> Result<(), Box<dyn std::error::Error>> {
    let server = RefCell::new(Clocked::start()?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let (cases, states) = (Cell::new(0_u32), RefCell::new(BTreeSet::new()));

    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&steps(), |steps| {
        cases.set(cases.get() + 1);
        let namespace = format!("case-{}", cases.get());
        let mut server = server.borrow_mut();
        let core = runtime.block_on(async { InProcessFleet::new() });
        let (mut now, mut lasts) = (START, (None, None));
        for (nth, step) in steps.iter().enumerate() {
            now += step.wait;
            runtime.block_on(tokio::time::advance(Duration::from_millis(step.wait)));
            let node = NodeId::new(step.node);
            let expected = report(step, lasts.0.as_ref());
            let exchanged = runtime.block_on(core.exchange(node, &[expected]));
            let expected =
                exchanged.map_err(|error| TestCaseError::fail(error.to_string()))?.remove(0);
            let ours = report(step, lasts.1.as_ref());
            let context = Context { node, deadline: 0, fresh_run: u64::MAX };
            let advice = server.exchange(now, &namespace, &ours, context)?;
            prop_assert_eq!(
                normal(advice.clone()),
                normal(expected.clone()),
                "report {}, {:?}",
                nth,
                step
            );
            let breaker = expected.breaker;
            states.borrow_mut().insert((breaker.state.as_str(), breaker.epoch.min(4)));
            lasts = (Some(expected), Some(advice));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A property that never opens shows nothing.
    let states = states.into_inner();
    for state in [("open", 1), ("half_open", 1), ("open", 2), ("closed", 2), ("closed", 4)] {
        assert!(states.contains(&state), "{states:?}");
    }
    Ok(())
}
