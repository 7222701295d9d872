//! The endpoints that sticky mirrors stay with.

use std::sync::Mutex;
use std::time::Duration;

use crate::common::clock::{self, Instant};
use crate::common::lock::lock;

/// The last good endpoint of each set of mirrors that is sticky: of 64 sets at most, those that were
/// chosen last.
#[derive(Debug, Default)]
pub(crate) struct Favourites(Mutex<Vec<Favourite>>);

#[derive(Debug)]
struct Favourite {
    /// The bases of the set and of the endpoint, which a reload does not change.
    set: Box<str>,
    endpoint: Box<str>,
    until: Instant,
}

impl Favourite {
    fn is(&self, set: &str, endpoint: &str) -> bool {
        *self.set == *set && *self.endpoint == *endpoint
    }
}

impl Favourites {
    /// Returns whether requests of `set` stay with `endpoint`.
    pub(crate) fn is(&self, set: &str, endpoint: &str, now: Instant) -> bool {
        lock(&self.0).iter().any(|it| it.is(set, endpoint) && now < it.until)
    }

    /// Records a success of `endpoint`: requests of `set` stay with it for `time`. One that they stay
    /// with already gains no time, so that it is left one day.
    pub(crate) fn succeeded(&self, set: &str, endpoint: &str, time: Duration, now: Instant) {
        let mut all = lock(&self.0);
        if all.iter().any(|it| it.is(set, endpoint) && now < it.until) {
            return;
        }
        all.retain(|it| *it.set != *set);
        if all.len() >= super::MOST_SETS {
            all.remove(0);
        }
        let until = clock::after(now, time);
        all.push(Favourite { set: set.into(), endpoint: endpoint.into(), until });
    }

    /// Records a failure of `endpoint`: no request stays with it.
    pub(crate) fn failed(&self, set: &str, endpoint: &str) {
        lock(&self.0).retain(|it| !it.is(set, endpoint));
    }
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
        all.succeeded("set", "a", minute, now + minute);
        assert!(all.is("set", "a", now + minute), "its time was over");
        all.succeeded("set", "b", minute, now);
        assert!(all.is("set", "b", now) && !all.is("set", "a", now), "one a set");
        all.failed("set", "a");
        assert!(all.is("set", "b", now));
        all.failed("set", "b");
        assert!(!all.is("set", "b", now));
        all.succeeded("set", "a", Duration::MAX, now);
        assert!(all.is("set", "a", now + minute), "no time is too long");
        all.failed("set", "a");
        for set in 0..200 {
            all.succeeded(&format!("set{set}"), "a", minute, now);
        }
        assert_eq!(lock(&all.0).len(), 64);
        assert!(all.is("set199", "a", now) && !all.is("set0", "a", now));
    }
}
