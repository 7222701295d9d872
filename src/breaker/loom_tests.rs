//! Every interleaving of the gate's readers with those who move it:
//! `RUSTFLAGS="--cfg resilient_loom" cargo test --lib loom`.

use std::{num::NonZeroU32, time::Duration};

use loom::thread;

use super::*;
use crate::breaker::permit::Health;

const FAILED: Report = Report { health: Health::Failure, retry_after: None };
const FINE: Report = Report { health: Health::Success, retry_after: None };

fn circuit(failures: u32) -> Arc<Circuit> {
    let config =
        BreakerConfig::consecutive(NonZeroU32::new(failures).unwrap()).without_open_jitter();
    Arc::new(Circuit::new("", Arc::new(Common::new(config))))
}

#[test]
fn loom_whoever_comes_after_the_opening_is_rejected() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(2);
        let tickets = [circuit.enter(now).0.unwrap(), circuit.enter(now).0.unwrap()];
        let failing = tickets.map(|ticket| {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.exit(ticket, FAILED, now))
        });
        for thread in failing {
            thread.join().unwrap();
        }
        assert!(circuit.enter(now).0.is_err());
        assert_eq!(circuit.state(), BreakerState::Open);
    });
}

#[test]
fn loom_a_call_that_slips_through_changes_nothing() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(1);
        let ticket = circuit.enter(now).0.unwrap();
        let slipping = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || match circuit.enter(now).0 {
                Ok(ticket) => circuit.exit(ticket, FINE, now),
                Err(rejected) => assert_eq!(rejected.failures(), 1),
            })
        };
        circuit.exit(ticket, FAILED, now);
        slipping.join().unwrap();
        assert_eq!(circuit.state(), BreakerState::Open);
    });
}

#[test]
fn loom_half_open_lets_one_probe_through() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    loom::model(move || {
        let circuit = circuit(1);
        let ticket = circuit.enter(now).0.unwrap();
        circuit.exit(ticket, FAILED, now);
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.enter(later).0)
        };
        let mine = circuit.enter(later);
        let theirs = other.join().unwrap();
        assert_eq!(u8::from(mine.is_ok()) + u8::from(theirs.is_ok()), 1);

        // Freed by one thread, the place is there for the next.
        let probe = mine.or(theirs).unwrap();
        let abandoning = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.abandon(probe))
        };
        abandoning.join().unwrap();
        assert!(circuit.enter(later).is_ok());
    });
}

#[test]
fn loom_changes_are_told_once_and_in_order() {
    let now = Instant::now();
    loom::model(move || {
        let circuit = circuit(1);
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        circuit.common.observe(Arc::new(move |change| {
            log.lock().unwrap().push((change.from, change.to));
        }));
        let other = {
            let circuit = Arc::clone(&circuit);
            thread::spawn(move || circuit.command(Machine::force_open))
        };
        circuit.command(Machine::disable);
        other.join().unwrap();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].0, BreakerState::Closed);
        assert_eq!(told[0].1, told[1].0);
        assert_eq!(told[1].1, circuit.state());
    });
}
