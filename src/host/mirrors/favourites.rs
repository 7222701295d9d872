//! The endpoints that sticky mirrors stay with.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::common::clock::Instant;
use crate::common::stable_hash::fnv1a;

/// The last good endpoint of each set of mirrors that is sticky: of 64 sets at most, those that were
/// chosen last.
#[derive(Debug, Default)]
pub(crate) struct Favourites(Mutex<Vec<Favourite>>);

#[derive(Clone, Copy, Debug)]
struct Favourite {
    /// Hashes of the set's prefix and of the endpoint, which a reload does not change.
    set: u64,
    endpoint: u64,
    until: Instant,
}

impl Favourites {
    /// Returns whether requests under `prefix` stay with `endpoint`.
    pub(crate) fn is(&self, prefix: &str, endpoint: &str, now: Instant) -> bool {
        let (set, endpoint) = (hash(prefix), hash(endpoint));
        self.lock().iter().any(|it| it.set == set && it.endpoint == endpoint && now < it.until)
    }

    /// Records a success of `endpoint`: requests under `prefix` stay with it for `time`. One that
    /// they stay with already gains no time, so that it is left one day.
    pub(crate) fn succeeded(&self, prefix: &str, endpoint: &str, time: Duration, now: Instant) {
        let (set, endpoint) = (hash(prefix), hash(endpoint));
        let mut all = self.lock();
        if all.iter().any(|it| it.set == set && it.endpoint == endpoint && now < it.until) {
            return;
        }
        all.retain(|it| it.set != set);
        if all.len() >= super::MOST_SETS {
            all.remove(0);
        }
        let until = now.checked_add(time).unwrap_or(now);
        all.push(Favourite { set, endpoint, until });
    }

    /// Records a failure of `endpoint`: no request stays with it.
    pub(crate) fn failed(&self, prefix: &str, endpoint: &str) {
        let (set, endpoint) = (hash(prefix), hash(endpoint));
        self.lock().retain(|it| it.set != set || it.endpoint != endpoint);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Favourite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(text: &str) -> u64 {
    fnv1a(text.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_favourites_last_for_their_time_and_are_bounded() {
        let (all, now, minute) = (Favourites::default(), Instant::now(), Duration::from_secs(60));
        all.succeeded("set", "a", minute, now);
        all.succeeded("set", "a", minute, now + minute / 2);
        assert!(all.is("set", "a", now + minute / 2));
        assert!(!all.is("set", "a", now + minute), "a later success gains no time");
        all.succeeded("set", "b", minute, now);
        assert!(all.is("set", "b", now) && !all.is("set", "a", now), "one a set");
        all.failed("set", "a");
        assert!(all.is("set", "b", now));
        all.failed("set", "b");
        assert!(!all.is("set", "b", now));
        for set in 0..200 {
            all.succeeded(&format!("set{set}"), "a", minute, now);
        }
        assert_eq!(all.lock().len(), 64);
        assert!(all.is("set199", "a", now) && !all.is("set0", "a", now));
    }
}
