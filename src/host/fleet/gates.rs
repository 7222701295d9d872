//! The gates of one host that the fleet knows to be closed, as one node sees them.

use std::time::Duration;

use crate::common::clock::Instant;
use crate::host::fleet::report::FleetGate;

/// The most gates of one host that are kept, and that one report names.
const MOST_GATES: usize = 64;
const MOST_REPORTED: usize = 8;

/// A gate that opens later by less than this is no news.
const NEGLIGIBLE: Duration = Duration::from_millis(250);

/// The longest time for which a gate is closed on another node's word.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The time by which a node in a fleet of so many delays the opening, at most; no more than half of
/// the time that is left.
const SPREAD_PER_NODE: Duration = Duration::from_millis(20);

/// The closed gates of one host.
#[derive(Debug, Default)]
pub(crate) struct FleetGates(Vec<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    key: u64,
    until: Instant,
    is_reported: bool,
}

impl FleetGates {
    /// Takes note of a gate that a response closed here. Returns whether the fleet should hear of it.
    pub(crate) fn close(&mut self, gate: FleetGate, now: Instant) -> bool {
        self.note(gate, false, now)
    }

    /// Takes note of a gate that was closed elsewhere. Returns whether it is news.
    pub(crate) fn heed(&mut self, gate: FleetGate, now: Instant) -> bool {
        self.note(gate, true, now)
    }

    fn note(&mut self, gate: FleetGate, is_reported: bool, now: Instant) -> bool {
        let until = now + gate.remaining.min(LONGEST);
        let known = Known { key: gate.key, until, is_reported };
        self.0.retain(|it| it.until > now);
        if let Some(it) = self.0.iter_mut().find(|it| it.key == gate.key) {
            let is_later = until > it.until + NEGLIGIBLE;
            if is_later {
                *it = known;
            }
            return is_later;
        }
        let is_new = until > now + NEGLIGIBLE && self.0.len() < MOST_GATES;
        if is_new {
            self.0.push(known);
        }
        is_new
    }

    /// Takes the gates that the fleet does not know of.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<FleetGate> {
        // One that opened before the fleet heard of it would be news for ever.
        self.0.retain(|it| it.until > now);
        let unreported = self.0.iter_mut().filter(|it| !it.is_reported);
        let taken = unreported.take(MOST_REPORTED).map(|it| {
            it.is_reported = true;
            FleetGate::new(it.key, it.until.saturating_duration_since(now))
        });
        taken.collect()
    }

    /// Puts gates back that did not reach the fleet.
    pub(crate) fn put_back(&mut self, gates: &[FleetGate]) {
        let is_in = |it: &Known| gates.iter().any(|gate| gate.key == it.key);
        self.0.iter_mut().filter(|it| is_in(it)).for_each(|it| it.is_reported = false);
    }

    /// Returns whether the fleet has not heard of all.
    pub(crate) fn has_news(&self) -> bool {
        self.0.iter().any(|it| !it.is_reported)
    }
}

/// Returns the time until a gate opens here that opens in `remaining` elsewhere: a fleet's requests
/// must not come back all at once. `unit` is random from 0 to 1.
pub(crate) fn spread(remaining: Duration, nodes: u32, unit: f64) -> Duration {
    let remaining = remaining.min(LONGEST);
    let widest = SPREAD_PER_NODE.saturating_mul(nodes.saturating_sub(1)).min(remaining / 2);
    remaining + widest.mul_f64(unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(key: u64, secs: u64) -> FleetGate {
        FleetGate::new(key, Duration::from_secs(secs))
    }

    #[test]
    fn a_gate_is_handed_on_once_and_again_if_it_is_longer() {
        let (mut gates, now) = (FleetGates::default(), Instant::now());
        assert!(gates.close(gate(1, 10), now));
        assert!(gates.has_news());
        assert_eq!(gates.take(now), [gate(1, 10)]);
        assert!(!gates.close(gate(1, 10), now) && !gates.close(gate(1, 9), now));
        assert!(gates.take(now).is_empty() && !gates.has_news());
        assert!(gates.close(gate(1, 20), now));
        let taken = gates.take(now);
        gates.put_back(&taken);
        assert_eq!(gates.take(now), [gate(1, 20)]);
        // Its own, that comes back, is no news.
        assert!(!gates.heed(gate(1, 20), now));
        assert!(gates.heed(gate(1, 21), now) && gates.heed(gate(2, 1), now));
        assert!(!gates.has_news());
        // A quarter of a second is not worth a word.
        let later = FleetGate::new(1, Duration::from_secs(21) + NEGLIGIBLE);
        assert!(!gates.close(later, now) && !gates.close(FleetGate::new(3, NEGLIGIBLE), now));
        // Nor is a gate that opened before it was reported.
        assert!(gates.close(gate(4, 1), now));
        assert!(gates.take(now + Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn a_gate_that_opened_before_it_was_reported_is_no_news() {
        let (mut gates, now) = (FleetGates::default(), Instant::now());
        assert!(gates.close(gate(1, 1), now));
        assert!(gates.take(now + Duration::from_secs(2)).is_empty());
        assert!(!gates.has_news());
    }

    #[test]
    fn gates_are_bounded_and_forgotten() {
        let (mut gates, now) = (FleetGates::default(), Instant::now());
        (0..100).for_each(|it| assert_eq!(gates.close(gate(it, 10), now), it < 64));
        assert_eq!((gates.0.len(), gates.take(now).len()), (64, 8));
        assert!(gates.close(gate(99, 10), now + Duration::from_secs(10)));
        assert_eq!(gates.0.len(), 1);
        assert!(!gates.close(gate(98, 0), now));
    }

    #[test]
    fn large_fleets_come_back_spread() {
        let minute = Duration::from_secs(60);
        assert_eq!(spread(minute, 1, 1.0), minute);
        assert_eq!(spread(minute, 51, 1.0), minute + Duration::from_secs(1));
        assert_eq!(spread(minute, u32::MAX, 1.0), minute * 3 / 2);
        assert_eq!(spread(minute, 5_000, 0.0), minute);
        assert!(spread(Duration::MAX, 5_000, 1.0) <= 2 * LONGEST);
    }
}
