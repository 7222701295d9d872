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
    /// The lanes of the present rules.
    used: Places,
    all: [Lane; MOST_LANES],
}

/// The places of the lanes of some rules, in the order of their rates.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    count: u8,
    all: [u8; MOST_RATES],
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
    places: Places,
    taken: [Taken; MOST_RATES],
}

impl Places {
    fn iter(self) -> impl Iterator<Item = u8> {
        self.all.into_iter().take(self.count.into())
    }

    fn push(&mut self, place: u8) {
        if let Some(free) = self.all.get_mut(usize::from(self.count)) {
            *free = place;
            self.count += 1;
        }
    }
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
        let fullest = self.lanes().map(|it| it.slots).max_by_key(Gcra::end);
        // A learned limit has no lanes.
        let resting = || self.all.iter().map(|it| it.slots).max_by_key(Gcra::end);
        let fullest = fullest.or_else(resting).unwrap_or_default();
        let mut used = Places::default();
        for (kind, pace) in rules.rates.iter().map(Rate::kind).zip(rules.paces()) {
            let place = self.place(kind, used);
            if let Some(lane) = self.all.get_mut(usize::from(place)) {
                let begins = || fullest.until(self.last.saturating_add(span(kind.per)));
                let slots = if lane.kind == kind { lane.slots } else { begins() };
                *lane = Lane { kind, pace, slots };
            }
            used.push(place);
        }
        self.used = used;
    }

    /// Returns the place of the lane of this kind that is not `used` yet; of the emptiest one, if there
    /// is none.
    fn place(&self, kind: RateKind, used: Places) -> u8 {
        let places = || (0..).zip(&self.all).filter(|(at, _)| used.iter().all(|it| it != *at));
        let of_kind = places().find(|(_, lane)| lane.kind == kind);
        let emptiest = || places().min_by_key(|(_, lane)| lane.slots.end());
        of_kind.or_else(emptiest).map_or(0, |(at, _)| at)
    }

    /// Returns the lanes of the present rules.
    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.used.iter().filter_map(|at| self.all.get(usize::from(at)))
    }

    /// Changes the lanes at these places, each with one of `with`.
    fn change<T>(
        &mut self,
        places: Places,
        with: impl IntoIterator<Item = T>,
        mut change: impl FnMut(&mut Lane, T),
    ) {
        for (place, with) in places.iter().zip(with) {
            if let Some(lane) = self.all.get_mut(usize::from(place)) {
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
        let lanes = self.lanes().zip(costs);
        lanes.fold(now, |at, (lane, cost)| at.max(lane.slots.next(&lane.pace, *cost, now)))
    }

    /// Returns the slots of a request that goes at `at`; `None` if they end beyond the clock.
    pub(super) fn plan(&self, costs: &Costs, at: Moment) -> Option<Slots> {
        let mut taken = [Taken::default(); MOST_RATES];
        for ((lane, cost), taken) in self.lanes().zip(costs).zip(&mut taken) {
            let mut slots = lane.slots;
            *taken = slots.take(&lane.pace, *cost, at)?;
        }
        Some(Slots { at, places: self.used, taken })
    }

    pub(super) fn take(&mut self, slots: &Slots) {
        self.last = self.last.max(slots.at);
        self.change(slots.places, &slots.taken, |lane, taken| lane.slots = taken.after());
    }

    pub(super) fn give_back(&mut self, slots: &Slots) {
        self.change(slots.places, &slots.taken, |lane, taken| {
            lane.slots.give_back(taken);
        });
    }

    /// Corrects the slots of a request, which were taken at these paces, by its actual costs where
    /// they are known.
    pub(super) fn settle(
        &mut self,
        slots: &Slots,
        paces: impl Iterator<Item = Pace>,
        reserved: &Costs,
        actual: Vec<Option<u32>>,
    ) {
        let costs = paces.zip(reserved).zip(actual);
        self.change(slots.places, costs, |lane, ((pace, reserved), actual)| {
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
