//! Every interleaving of the gate's readers with its writers:
//! `scripts/loom`.

use std::time::Duration;

use loom::thread;

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(1);
const FAILED: Report = Report { health: Health::Failure, retry_after: None, first: true };
const FINE: Report = Report { health: Health::Success, ..FAILED };

fn circuit(failures: u32) -> Arc<Circuit> {
    let config = BreakerConfig::consecutive(failures).open_for(OPEN_FOR).without_open_jitter();
    Arc::new(Circuit::new("".into(), &RuleSet::new(config), Arc::default()))
}

fn enter(circuit: &Circuit, now: Instant) -> Result<Ticket, CircuitOpen> {
    circuit.enter(now).0
}

#[test]
fn loom_a_call_after_the_opening_is_rejected() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(2);
        let tickets = [enter(&circuit, now).unwrap(), enter(&circuit, now).unwrap()];
        let failing = tickets.map(|ticket| {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.exit(0, &ticket, FAILED, now, || 0.0))
        });
        for thread in failing {
            thread.join().unwrap();
        }
        assert!(enter(&circuit, now).is_err());
        assert_eq!(circuit.state(), BreakerState::Open);
    });
}

#[test]
fn loom_a_call_that_slips_through_changes_nothing() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(1);
        let ticket = enter(&circuit, now).unwrap();
        let slipping = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || match enter(&circuit, now) {
                Ok(ticket) => drop(circuit.exit(1, &ticket, FINE, now, || 0.0)),
                Err(rejected) => assert_eq!(rejected.cause().failures, 1),
            })
        };
        circuit.exit(0, &ticket, FAILED, now, || 0.0);
        slipping.join().unwrap();
        assert_eq!(circuit.state(), BreakerState::Open);
    });
}

#[test]
fn loom_half_open_lets_one_probe_through() {
    let now = Instant::now();
    let later = now + OPEN_FOR;
    loom::model(move || {
        let circuit = circuit(1);
        let ticket = enter(&circuit, now).unwrap();
        circuit.exit(0, &ticket, FAILED, now, || 0.0);
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || enter(&circuit, later))
        };
        let mine = enter(&circuit, later);
        let theirs = other.join().unwrap();
        assert_eq!(u8::from(mine.is_ok()) + u8::from(theirs.is_ok()), 1);

        // A place freed by one thread is free for the next.
        let probe = mine.or(theirs).unwrap();
        let abandoning = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.abandon(probe))
        };
        abandoning.join().unwrap();
        assert!(enter(&circuit, later).is_ok());
    });
}

#[test]
fn loom_changes_are_notified_once_and_in_order() {
    loom::model(move || {
        let circuit = circuit(1);
        let notified = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&notified);
        circuit.observers.add(Arc::new(move |change| {
            log.lock().unwrap().push((change.from, change.to));
        }));
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.command(Machine::force_open))
        };
        circuit.command(Machine::disable);
        other.join().unwrap();
        let notified = notified.lock().unwrap();
        assert_eq!(notified.len(), 2);
        assert_eq!(notified[0].0, BreakerState::Closed);
        assert_eq!(notified[0].1, notified[1].0);
        assert_eq!(notified[1].1, circuit.state());
    });
}

/// A success in lane 1 beside a failure behind the lock, after a success in lane `first`: whatever comes
/// first, the window misses none, and the failures in a row are those of some order in which they
/// might have come.
fn loom_success_beside_a_failure(first: usize) {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(9);
        circuit.exit(first, &enter(&circuit, now).unwrap(), FINE, now, || 0.0);
        let [fine, failed] = [(); 2].map(|()| enter(&circuit, now).unwrap());
        let succeeding = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.exit(1, &fine, FINE, now, || 0.0))
        };
        circuit.exit(0, &failed, FAILED, now, || 0.0);
        let seen = circuit.snapshot(0, now);
        succeeding.join().unwrap();
        let last = circuit.snapshot(0, now);
        assert_eq!((last.window.total, last.window.failures), (3, 1));
        // Unless it had come before, the success came after and ended the row.
        let came_before = seen.window.total == 3 && seen.consecutive_failures == 1;
        assert_eq!(last.consecutive_failures, u32::from(came_before));
    });
}

#[test]
fn loom_successes_beside_a_failure_are_all_counted() {
    loom_success_beside_a_failure(0);
}

/// The failure closes the lane, which is open when it comes.
#[test]
fn loom_a_success_in_an_open_lane_beside_a_failure_is_counted() {
    loom_success_beside_a_failure(1);
}

/// A success that is under way to its lane while a reset empties the window is counted before the
/// reset, or not at all.
#[test]
fn loom_a_success_of_an_older_generation_is_not_counted() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(9);
        circuit.exit(0, &enter(&circuit, now).unwrap(), FINE, now, || 0.0);
        let ticket = enter(&circuit, now).unwrap();
        let succeeding = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.exit(1, &ticket, FINE, now, || 0.0))
        };
        circuit.command(Machine::reset);
        circuit.exit(0, &enter(&circuit, now).unwrap(), FINE, now, || 0.0);
        succeeding.join().unwrap();
        assert_eq!(circuit.snapshot(0, now).window.total, 1);
    });
}
