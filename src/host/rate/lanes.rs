//! The lanes of a pacer: one a rate, each with the slots that are taken.

use std::time::Duration;

use crate::common::clock::{Instant, nanos};
use crate::host::rate::gcra::{Gcra, Moment, Pace, Taken};
use crate::host::rate::one::RateKind;
use crate::host::rate::{MOST_RATES, Rate, RateLimit};

/// The costs of a request, one a rate.
pub(super) type Costs = [u32; MOST_RATES];

/// The most lanes of a pacer: those of its rules, and as many that rest.
const MOST_LANES: usize = 2 * MOST_RATES;

/// The rates of a pacer and their slots.
///
/// Requests with rules of their own come and go, and so do settings: a lane that the present rules do
/// not use rests with its slots until other rules use it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    /// The time from which moments are counted: that of the first request.
    epoch: Option<Instant>,
    /// The latest moment at which a request goes.
    last: Moment,
    /// The version of the present rules.
    version: u64,
    /// The number of the present rates, whose lanes are the first.
    count: usize,
    all: [Lane; MOST_LANES],
}

/// One rate and its slots.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    kind: RateKind,
    pace: Pace,
    slots: Gcra,
}

/// The slots that a request took, one a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    /// The moment at which the request goes.
    at: Moment,
    taken: [Taken; MOST_RATES],
}

impl Lanes {
    /// Follows these rules from now on. A rate goes on in the lane of its kind. One of a new kind
    /// begins with the slots of the fullest lane, but those end within its own period after the last
    /// request.
    #[inline]
    pub(super) fn adopt(&mut self, rules: &RateLimit) {
        if self.version != rules.version {
            self.change_to(rules);
        }
    }

    #[cold]
    fn change_to(&mut self, rules: &RateLimit) {
        self.version = rules.version;
        let fullest = self.lanes().iter().map(|it| it.slots).max_by_key(Gcra::end);
        // A learned limit has no lanes.
        let resting = || self.all.iter().map(|it| it.slots).max_by_key(Gcra::end);
        let fullest = fullest.or_else(resting).unwrap_or_default();
        self.count = 0;
        for (kind, pace) in rules.rates.iter().map(Rate::kind).zip(rules.paces()).take(MOST_RATES) {
            let from = self.place(kind);
            self.all.swap(self.count, from);
            if let Some(lane) = self.all.get_mut(self.count) {
                let begins = || fullest.until(self.last.saturating_add(span(kind.per)));
                let slots = if lane.kind == kind { lane.slots } else { begins() };
                *lane = Lane { kind, pace, slots };
                self.count += 1;
            }
        }
    }

    /// Returns the place of the lane of this kind that is not in use yet; of the emptiest one, if there
    /// is none.
    fn place(&self, kind: RateKind) -> usize {
        let rest = || self.all.iter().enumerate().skip(self.count);
        let of_kind = rest().find(|(_, lane)| lane.kind == kind);
        let emptiest = || rest().min_by_key(|(_, lane)| lane.slots.end());
        of_kind.or_else(emptiest).map_or(self.count, |(at, _)| at)
    }

    /// Returns the lanes of the present rules.
    fn lanes(&self) -> &[Lane] {
        self.all.get(..self.count).unwrap_or(&self.all)
    }

    /// Changes the lanes of these rules, which need not be the present ones, each with one of `with`.
    fn change<T>(
        &mut self,
        rules: &RateLimit,
        with: impl IntoIterator<Item = T>,
        mut change: impl FnMut(&mut Lane, T),
    ) {
        if self.version == rules.version {
            let present = self.all.iter_mut().take(self.count);
            return present.zip(with).for_each(|(lane, with)| change(lane, with));
        }
        for (kind, with) in rules.rates.iter().map(Rate::kind).zip(with) {
            if let Some(lane) = self.all.iter_mut().find(|it| it.kind == kind) {
                change(lane, with);
            }
        }
    }

    /// Returns a time as a moment; the first one is the epoch.
    pub(super) fn moment(&mut self, at: Instant) -> Moment {
        let epoch = *self.epoch.get_or_insert(at);
        match at.checked_duration_since(epoch) {
            Some(after) => span(after),
            None => -span(epoch.saturating_duration_since(at)),
        }
    }

    /// Returns when all rates let a request go: now, or later.
    pub(super) fn next(&self, costs: &Costs, now: Moment) -> Moment {
        let lanes = self.lanes().iter().zip(costs);
        lanes.fold(now, |at, (lane, cost)| at.max(lane.slots.next(&lane.pace, *cost, now)))
    }

    /// Returns the slots of a request that goes at `at`; `None` if they end beyond the clock.
    pub(super) fn plan(&self, costs: &Costs, at: Moment) -> Option<Slots> {
        let mut taken = [Taken::default(); MOST_RATES];
        for ((lane, cost), taken) in self.lanes().iter().zip(costs).zip(&mut taken) {
            let mut slots = lane.slots;
            *taken = slots.take(&lane.pace, *cost, at)?;
        }
        Some(Slots { at, taken })
    }

    /// Takes these slots in the lanes of the present rules.
    pub(super) fn take(&mut self, slots: &Slots) {
        self.last = self.last.max(slots.at);
        let lanes = self.all.iter_mut().zip(&slots.taken).take(self.count);
        lanes.for_each(|(lane, taken)| lane.slots = taken.after());
    }

    pub(super) fn give_back(&mut self, rules: &RateLimit, slots: &Slots) {
        self.change(rules, &slots.taken, |lane, taken| {
            lane.slots.give_back(taken);
        });
    }

    /// Corrects what a request took under these rules by its actual costs, where they are known.
    pub(super) fn settle(&mut self, rules: &RateLimit, reserved: &Costs, actual: Vec<Option<u32>>) {
        let costs = rules.paces().zip(reserved).zip(actual);
        self.change(rules, costs, |lane, ((pace, reserved), actual)| {
            if let Some(actual) = actual {
                lane.slots.settle(&pace, *reserved, actual);
            }
        });
    }

    /// Returns the moment at which all slots are over, also those of lanes that rest.
    pub(super) fn end(&self) -> Moment {
        self.all.iter().map(|it| it.slots.end()).max().unwrap_or_default()
    }
}

/// Returns a time in nanoseconds.
fn span(time: Duration) -> i64 {
    i64::try_from(nanos(time)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moments_before_the_first_request_are_negative() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let moments = [now + SECOND, now, now + 2 * SECOND].map(|it| lanes.moment(it));
        assert_eq!(moments, [0, -1_000_000_000, 1_000_000_000]);
    }
}
