//! Patience: how often a download goes on after a break, and after which waits.

use std::time::Duration;

/// Progress of this many bytes always counts, however long the resource is.
const MUCH: u64 = 65_536;

/// Counts the tries in a row that brought no progress, and the restarts.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// The most fruitless tries in a row, and the most restarts.
    max: u32,
    fruitless: u32,
    restarts: u32,
    /// The bytes gained since the last try that counts as fruitful.
    gained: u64,
    /// The wait before the last try.
    pub(crate) previous: Duration,
}

/// The next step after a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Goes on at once: there was progress.
    AtOnce,
    /// Goes on after the wait before retry number `retry`, counted from 0.
    After { retry: u32 },
    /// Gives up.
    GiveUp,
}

impl Patience {
    /// Creates patience for `max` fruitless tries in a row, and as many restarts.
    pub(crate) fn new(max: u32) -> Self {
        Self { max, fruitless: 0, restarts: 0, gained: 0, previous: Duration::ZERO }
    }

    /// Sets the most fruitless tries in a row, and the most restarts.
    pub(crate) fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Records bytes that were not received before.
    pub(crate) fn gain(&mut self, bytes: u64) {
        self.gained = self.gained.saturating_add(bytes);
    }

    /// Decides after a break of a download of `total` bytes.
    ///
    /// Progress is a hundredth of the total, or 64 KiB if that is less. It adds up over tries, so
    /// that a connection that is cut after every few bytes costs tries, but not all.
    pub(crate) fn after_break(&mut self, total: Option<u64>) -> Next {
        let enough = total.map_or(MUCH, |it| (it / 100).clamp(1, MUCH));
        if self.gained >= enough {
            (self.gained, self.fruitless, self.previous) = (0, 0, Duration::ZERO);
            return Next::AtOnce;
        }
        if self.fruitless >= self.max {
            return Next::GiveUp;
        }
        self.fruitless += 1;
        Next::After { retry: self.fruitless - 1 }
    }

    /// Returns whether a restart from zero is left.
    pub(crate) fn may_restart(&self) -> bool {
        self.restarts < self.max
    }

    /// Records a restart from zero; returns whether it may be made.
    pub(crate) fn restart(&mut self) -> bool {
        self.gained = 0;
        self.restarts += 1;
        self.restarts <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_renews_patience() {
        let mut patience = Patience::new(2);
        for _ in 0..1_000 {
            assert_eq!(patience.after_break(None), Next::After { retry: 0 });
            assert_eq!(patience.after_break(None), Next::After { retry: 1 });
            patience.gain(MUCH);
            assert_eq!(patience.after_break(None), Next::AtOnce);
        }
        assert_eq!(patience.after_break(None), Next::After { retry: 0 });
        assert_eq!(patience.after_break(None), Next::After { retry: 1 });
        assert_eq!(patience.after_break(None), Next::GiveUp);
        assert_eq!(patience.after_break(None), Next::GiveUp);
    }

    #[test]
    fn small_gains_add_up() {
        let mut patience = Patience::new(3);
        let steps: Vec<_> = (0..4)
            .map(|_| {
                patience.gain(MUCH / 4);
                patience.after_break(None)
            })
            .collect();
        let after = |retry| Next::After { retry };
        assert_eq!(steps, [after(0), after(1), after(2), Next::AtOnce]);
    }

    #[test]
    fn a_hundredth_of_a_short_resource_is_progress() {
        let mut patience = Patience::new(0);
        patience.gain(99);
        assert_eq!(patience.after_break(Some(10_000)), Next::GiveUp);
        patience.gain(1);
        assert_eq!(patience.after_break(Some(10_000)), Next::AtOnce);
        patience.gain(1);
        assert_eq!(patience.after_break(Some(1)), Next::AtOnce);
        patience.gain(MUCH);
        assert_eq!(patience.after_break(Some(u64::MAX)), Next::AtOnce);
    }

    #[test]
    fn restarts_are_counted() {
        let mut patience = Patience::new(2);
        assert_eq!([(); 3].map(|()| patience.restart()), [true, true, false]);
    }
}
