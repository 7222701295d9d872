//! The gate itself: closes by hints, opens like slow start.

use std::{cmp, time::Duration};

use super::rate_limited::{RateLimited, Reason};
use crate::common::clock::Instant;
use crate::retry::backoff::{spread, widest_spread};

/// The longest a rate limit closes a gate.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The longest hint that is accepted; one beyond it is more likely a mistake.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 60 * 60);

/// The time for which the first rate limit without a hint closes the gate, and the longest such
/// time.
const UNHINTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A delay of the opening by less than this wakes no waiting request.
const NEGLIGIBLE: Duration = Duration::from_millis(250);

/// After this time without progress one more request may go: a released request that hangs must
/// not hold back all others until their time runs out.
const STALL: Duration = Duration::from_secs(1);

/// A gate that no request asks for this long, or for as long as it was closed, is open.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// The factor by which more than in the last opening must succeed before an opening grows fast
/// again.
const LIMIT_GONE: usize = 2;

/// The meaning of a response that closes a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// A 429 or a 403 that is a rate limit. Closes for its hint, at most 1 h; without a hint for
    /// 1 s, doubling to 30 s until a request succeeds.
    RateLimit,
    /// A 503 or 529. Closes for its hint, at most `longest`; without a hint not at all.
    Unavailable {
        /// The `max_wait_time` of the request.
        longest: Duration,
    },
}

/// The effect of a response on its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// The time until the next request may go, spread included.
    pub(crate) opens_in: Duration,
    /// That time as the host announced it, without spread: the limit of a request's wait bounds it.
    pub(crate) announced_in: Duration,
    /// `true` if the gate is closed for longer than before.
    pub(crate) is_longer: bool,
    /// `true` if the waiting requests should look at their limits again.
    pub(super) concerns_waiters: bool,
}

/// The time that a request has for waiting; [`Duration::MAX`] is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The rest of its `max_wait_time`. Bounds the hint that is accepted; the spread comes on
    /// top of it.
    pub(crate) wait: Duration,
    /// The time until its deadline.
    pub(crate) left: Duration,
}

/// The limits of one request's wait, as moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(super) joined: Instant,
    patient_until: Option<Instant>,
    deadline: Option<Instant>,
}

impl Visit {
    pub(crate) fn new(now: Instant, patience: Patience) -> Self {
        Self {
            joined: now,
            patient_until: now.checked_add(patience.wait),
            deadline: now.checked_add(patience.left),
        }
    }
}

/// The turn of a request at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Go; the gate is open.
    Free,
    /// Go, as one of this opening's requests, and report the end.
    Released(u64),
    /// Wait in the queue.
    Wait,
    /// End.
    Reject(RateLimited),
}

/// The end of a released request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    Bad,
    /// Dropped without a result.
    Dropped,
}

/// The gate of one key; open unless a response closed it.
///
/// It counts how many may go; the caller keeps the queue and passes its length as `waiting`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    phase: Phase,
    /// The number of the last opening; 0 before the first.
    opening: u64,
    /// The number of requests that may still go in this opening.
    credit: usize,
    /// The requests of this opening that succeeded, and below those of the one before.
    good: usize,
    last: usize,
    /// Rate limits without a hint since the last success.
    unhinted: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Open,
    Closed(Closed),
    Opening {
        closed: Closed,
        /// The moment when a request last went or ended.
        moved: Instant,
    },
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    /// The hint; `None` if there was none.
    asked: Option<Duration>,
    /// The time for which the longest hint closes the gate.
    hold: Duration,
    until: Instant,
    /// The moment from which the host takes requests by its own hint; later than `until` if the
    /// hint was longer than a gate stays closed.
    announced: Instant,
    /// `until`, and the spread.
    opens: Instant,
    /// The random number of the spread, drawn once.
    unit: f64,
}

impl Gate {
    /// Closes the gate for the hint of a response that came just now; `unit` is random from 0 to 1.
    ///
    /// The longest hint wins: a response with a shorter one was on its way before the server knew
    /// of the longer one, or comes from another backend. A hint of zero says nothing and counts as
    /// none. Returns `None` if a response like this closes no gate.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        throttle: Throttle,
        hint: Option<Duration>,
        unit: f64,
    ) -> Option<Closing> {
        let asked = hint.filter(|it| !it.is_zero());
        let current = match self.phase {
            Phase::Closed(it) if now < it.opens => Some(it),
            _ => None,
        };
        let hold = match (throttle, asked) {
            (Throttle::RateLimit, Some(hint)) => hint.min(LONGEST),
            (Throttle::RateLimit, None) => self.hold_without_hint(current.is_some()),
            (Throttle::Unavailable { longest }, Some(hint)) => hint.min(longest).min(LONGEST),
            (Throttle::Unavailable { .. }, None) => Duration::ZERO,
        };
        if hold.is_zero() {
            return None;
        }
        let until = now + hold;
        if let Some(current) = current.filter(|it| it.until >= until) {
            let opens_in = current.opens.saturating_duration_since(now);
            let announced_in = current.announced.saturating_duration_since(now);
            let (is_longer, concerns_waiters) = (false, false);
            return Some(Closing { opens_in, announced_in, is_longer, concerns_waiters });
        }
        let unit = current.map_or(unit, |it| it.unit);
        let announced = now + asked.map_or(hold, |it| it.min(LONGEST_HINT));
        let opens = until + spread(hold, unit);
        let opens = current.map_or(opens, |it| opens.max(it.opens));
        self.phase = Phase::Closed(Closed { asked, hold, until, announced, opens, unit });
        // Responses that arrive in one burst move the opening by moments only.
        let concerns_waiters = current.is_none_or(|it| until - it.until >= NEGLIGIBLE);
        let opens_in = opens.saturating_duration_since(now);
        let announced_in = announced.saturating_duration_since(now);
        Some(Closing { opens_in, announced_in, is_longer: true, concerns_waiters })
    }

    /// Returns how long a rate limit without a hint closes the gate. Those that arrive while it is
    /// closed belong to the same burst and do not make it longer.
    fn hold_without_hint(&mut self, is_closed: bool) -> Duration {
        if !is_closed || self.unhinted == 0 {
            self.unhinted = self.unhinted.saturating_add(1);
        }
        let growth = 1_u32.checked_shl(self.unhinted - 1).unwrap_or(u32::MAX);
        UNHINTED.0.saturating_mul(growth).min(UNHINTED.1)
    }

    /// Returns what a request has to do that arrives now.
    pub(crate) fn enter(&mut self, now: Instant, visit: &Visit, waiting: usize) -> Turn {
        if self.is_open(now, waiting) {
            self.phase = Phase::Open;
            return Turn::Free;
        }
        // Those that wait go first.
        if waiting == 0 && self.release(now, 1) == 1 {
            return Turn::Released(self.opening);
        }
        self.rejects(now, visit).map_or(Turn::Wait, Turn::Reject)
    }

    /// Returns how many of those that wait may go now, and counts them as gone.
    pub(crate) fn release(&mut self, now: Instant, waiting: usize) -> usize {
        self.begin(now);
        let Phase::Opening { moved, .. } = &mut self.phase else {
            return if matches!(self.phase, Phase::Open) { waiting } else { 0 };
        };
        if self.credit == 0 && now.saturating_duration_since(*moved) >= STALL {
            self.credit = 1;
        }
        let released = self.credit.min(waiting);
        if released > 0 {
            self.credit -= released;
            *moved = now;
        }
        released
    }

    /// Begins the opening once it is time. Half as many go at once as succeeded in the last one:
    /// as each of them lets one more go, the limit is met with half of it too many instead of all.
    fn begin(&mut self, now: Instant) {
        let Phase::Closed(closed) = self.phase else { return };
        if now < closed.opens {
            return;
        }
        self.phase = Phase::Opening { closed, moved: now };
        self.opening += 1;
        self.last = self.good;
        self.good = 0;
        self.credit = cmp::max(1, self.last.div_ceil(2));
    }

    /// Records the end of a request that was released, and returns how many of those that wait may
    /// go for it.
    ///
    /// Each end lets one more go, so that no failure strands the others. A good one lets two go
    /// while the limit is not known: in the first opening, and once clearly more succeed than in
    /// the last one. A good end beside an empty queue ends the opening.
    pub(crate) fn finished(
        &mut self,
        now: Instant,
        opening: u64,
        end: End,
        waiting: usize,
    ) -> usize {
        let is_good = end == End::Good;
        if is_good {
            self.unhinted = 0;
        }
        if opening != self.opening {
            return 0;
        }
        // Counts even if the gate is closed again: the next opening asks how many succeeded.
        self.good = self.good.saturating_add(usize::from(is_good));
        let Phase::Opening { moved, .. } = &mut self.phase else { return 0 };
        *moved = now;
        if is_good && waiting == 0 {
            self.phase = Phase::Open;
            return 0;
        }
        let is_known = self.last > 0 && self.good <= self.last.saturating_mul(LIMIT_GONE);
        self.credit = self.credit.saturating_add(if is_good && !is_known { 2 } else { 1 });
        self.release(now, waiting)
    }

    /// Takes back releases of requests that were dropped before they went.
    pub(crate) fn take_back(&mut self, released: usize) {
        if matches!(self.phase, Phase::Opening { .. }) {
            self.credit = self.credit.saturating_add(released);
        }
    }

    /// Returns the error of a request that may not wait any longer.
    pub(crate) fn rejects(&self, now: Instant, visit: &Visit) -> Option<RateLimited> {
        let is_past = |limit: Option<Instant>, moment| limit.is_some_and(|it| it <= moment);
        match self.phase {
            Phase::Open => None,
            Phase::Closed(it) => {
                let too_long = visit.patient_until.is_some_and(|until| until < it.announced)
                    || is_past(visit.deadline, it.opens);
                let retry_in = it.opens.saturating_duration_since(now);
                let reason = Reason::TooLong;
                too_long.then_some(RateLimited { asked: it.asked, retry_in, reason })
            }
            Phase::Opening { closed, .. } => {
                let is_over =
                    is_past(patient_until(visit, &closed), now) || is_past(visit.deadline, now);
                let waited = now.saturating_duration_since(visit.joined);
                let (asked, retry_in) = (closed.asked, Duration::ZERO);
                is_over.then_some(RateLimited { asked, retry_in, reason: Reason::Waited(waited) })
            }
        }
    }

    /// Returns the error of a request that finds `most` others waiting.
    pub(crate) fn full(&self, now: Instant, most: usize) -> RateLimited {
        let (asked, retry_in) = match self.phase {
            Phase::Open => (None, Duration::ZERO),
            Phase::Closed(it) => (it.asked, it.opens.saturating_duration_since(now)),
            Phase::Opening { closed, .. } => (closed.asked, Duration::ZERO),
        };
        RateLimited { asked, retry_in, reason: Reason::Full(most) }
    }

    /// Returns when a request that waits has to ask again, if it is not let go before.
    pub(crate) fn next_look(&self, now: Instant, visit: &Visit) -> Instant {
        match self.phase {
            Phase::Open => now,
            Phase::Closed(it) => it.opens,
            Phase::Opening { closed, moved } => {
                let limits = [patient_until(visit, &closed), visit.deadline];
                limits.into_iter().flatten().fold(moved + STALL, cmp::min)
            }
        }
    }

    /// Returns how long until the gate opens; zero once it does.
    pub(crate) fn opens_in(&self, now: Instant) -> Duration {
        let Phase::Closed(it) = self.phase else { return Duration::ZERO };
        it.opens.saturating_duration_since(now)
    }

    pub(crate) fn opening(&self) -> u64 {
        self.opening
    }

    /// Returns whether all may go. A gate is also open once no request has asked for so long that
    /// what it knows is out of date.
    pub(crate) fn is_open(&self, now: Instant, waiting: usize) -> bool {
        let (closed, moved) = match self.phase {
            Phase::Open => return true,
            Phase::Closed(it) => (it, it.opens),
            Phase::Opening { closed, moved } => (closed, moved),
        };
        waiting == 0 && now.saturating_duration_since(moved) >= closed.hold.max(FORGOTTEN)
    }
}

/// Returns when a request has waited for too long; the spread comes on top for those that waited
/// for the opening.
fn patient_until(visit: &Visit, closed: &Closed) -> Option<Instant> {
    let waited_for_it = visit.joined < closed.opens;
    let spread = if waited_for_it { widest_spread(closed.hold) } else { Duration::ZERO };
    visit.patient_until?.checked_add(spread)
}
