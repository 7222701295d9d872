//! The gate itself: closes by hints, opens like slow start.

use std::{cmp, time::Duration};

use super::rate_limited::{RateLimited, Reason};
use crate::common::clock::Instant;
use crate::retry::backoff::{spread, widest_spread};

/// The longest a rate limit closes a gate.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The longest hint that is accepted; one beyond it is more likely a mistake.
const LONGEST_HINT: Duration = Duration::from_secs(86_400);

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
    /// The same, as another process of the fleet heard it.
    Fleet,
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
    /// Set if another process of the fleet heard the hint.
    by_fleet: bool,
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
            (Throttle::RateLimit | Throttle::Fleet, Some(hint)) => hint.min(LONGEST),
            (Throttle::RateLimit | Throttle::Fleet, None) => {
                self.hold_without_hint(current.is_some())
            }
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
        let by_fleet = throttle == Throttle::Fleet;
        let unit = current.map_or(unit, |it| it.unit);
        let announced = now + asked.map_or(hold, |it| it.min(LONGEST_HINT));
        let opens = until + spread(hold, unit);
        let opens = current.map_or(opens, |it| opens.max(it.opens));
        self.phase = Phase::Closed(Closed { asked, by_fleet, hold, until, announced, opens, unit });
        // Responses that arrive in one burst move the opening by moments only.
        let concerns_waiters = current.is_none_or(|it| until - it.until >= NEGLIGIBLE);
        let opens_in = opens.saturating_duration_since(now);
        let announced_in = announced.saturating_duration_since(now);
        Some(Closing { opens_in, announced_in, is_longer: true, concerns_waiters })
    }

    /// Begins an opening without a closing before it; `None` if the gate is closed.
    pub(crate) fn reopen(&mut self, now: Instant) -> Option<()> {
        if matches!(self.phase, Phase::Closed(it) if now < it.opens) {
            return None;
        }
        let (hold, asked) = (Duration::ZERO, None);
        let (until, announced, opens) = (now, now, now);
        let closed = Closed { asked, by_fleet: false, hold, until, announced, opens, unit: 0.0 };
        self.phase = Phase::Opening { closed, moved: now };
        self.opening += 1;
        (self.last, self.good, self.credit) = (0, 0, 1);
        Some(())
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
        let is_known = self.good <= self.last.saturating_mul(LIMIT_GONE);
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
                let (asked, by_fleet) = (it.asked, it.by_fleet);
                too_long.then_some(RateLimited { asked, by_fleet, retry_in, reason })
            }
            Phase::Opening { closed, .. } => {
                let is_over =
                    is_past(patient_until(visit, &closed), now) || is_past(visit.deadline, now);
                let waited = now.saturating_duration_since(visit.joined);
                let Closed { asked, by_fleet, .. } = closed;
                let (retry_in, reason) = (Duration::ZERO, Reason::Waited(waited));
                is_over.then_some(RateLimited { asked, by_fleet, retry_in, reason })
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
        let (by_fleet, reason) = (self.is_of_fleet(), Reason::Full(most));
        RateLimited { asked, by_fleet, retry_in, reason }
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

    /// Returns whether another process of the fleet heard the hint that closed it.
    pub(crate) fn is_of_fleet(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Closed(closed) | Phase::Opening { closed, .. } => closed.by_fleet,
        }
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

#[cfg(test)]
mod tests {
    use proptest::{num::f64::ANY, prelude::*};

    use super::*;
    use crate::host::gate::Patience;

    const SECOND: Duration = Duration::from_secs(1);

    const PATIENT: Patience = Patience { wait: Duration::MAX, left: Duration::MAX };

    const MINUTE: Patience = Patience { wait: Duration::from_secs(60), left: Duration::MAX };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A gate closed by a 429 just now, without spread.
    fn closed(hint: Duration) -> (Gate, Instant) {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.close(now, Throttle::RateLimit, Some(hint), 0.0).unwrap();
        (gate, now)
    }

    fn enter(gate: &mut Gate, now: Instant, patience: Patience, waiting: usize) -> Turn {
        gate.enter(now, &Visit::new(now, patience), waiting)
    }

    #[test]
    fn a_limit_without_a_hint_once_it_may_open_is_no_part_of_the_burst_before() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let mut close = |now| gate.close(now, Throttle::RateLimit, None, 0.0).unwrap().opens_in;
        let first = close(now);
        assert_eq!(close(now + first / 2), first);
        let over = first / 2 + first;
        assert!(close(now + over) > first);
    }

    #[test]
    fn an_opening_may_begin_without_a_closing() {
        let (mut gate, now) = closed(SECOND);
        assert!(gate.reopen(now).is_none());
        for opening in [1, 2] {
            assert!(gate.reopen(now + SECOND).is_some());
            assert_eq!(gate.opening(), opening);
        }
    }

    #[test]
    fn releases_of_dropped_requests_are_there_for_others() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.reopen(now).unwrap();
        assert_eq!((gate.release(now, 3), gate.release(now, 3)), (1, 0));
        gate.take_back(1);
        assert_eq!((gate.release(now, 3), gate.release(now, 3)), (1, 0));
    }

    #[test]
    fn those_that_waited_for_the_opening_have_the_spread_on_top() {
        let (gate, now) = closed(10 * SECOND);
        let Phase::Closed(closed) = gate.phase else { unreachable!("it was closed") };
        let until = |joined| patient_until(&Visit::new(joined, MINUTE), &closed).unwrap() - joined;
        let spread = widest_spread(10 * SECOND);
        assert!(spread > Duration::ZERO);
        assert_eq!(until(now), MINUTE.wait + spread);
        assert_eq!(until(closed.opens), MINUTE.wait);
        assert_eq!(until(closed.opens + SECOND), MINUTE.wait);
    }

    #[test]
    fn open_until_closed() {
        let mut gate = Gate::default();
        assert_eq!(enter(&mut gate, Instant::now(), PATIENT, 0), Turn::Free);
    }

    #[test]
    fn a_rate_limit_holds_for_its_length_up_to_an_hour() {
        for (hint, hold) in [(1, 1), (90, 90), (3590, 3590), (7200, 3600), (u64::MAX, 3600)] {
            let (mut gate, now) = closed(seconds(hint));
            let before = now + seconds(hold) - Duration::from_millis(1);
            assert!(!matches!(enter(&mut gate, before, PATIENT, 0), Turn::Released(_)), "{hint}");
            let turn = enter(&mut gate, now + seconds(hold), MINUTE, 0);
            assert_eq!(turn, Turn::Released(1), "{hint}");
        }
    }

    #[test]
    fn an_outage_holds_for_as_long_as_a_request_would_wait() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let throttle = Throttle::Unavailable { longest: seconds(60) };
        gate.close(now, throttle, Some(seconds(3600)), 0.0).unwrap();
        // The hint is beyond what this request accepts, though the gate opens sooner.
        let Turn::Reject(error) = enter(&mut gate, now + seconds(1), MINUTE, 0) else { panic!() };
        assert_eq!(error.to_string(), "host is rate limited: asked for 3600 s, next try in 59.0 s");
        // Then one asks again, and the next ones wait for it.
        assert_eq!(enter(&mut gate, now + seconds(60), MINUTE, 0), Turn::Released(1));
        assert_eq!(enter(&mut gate, now + seconds(60), MINUTE, 0), Turn::Wait);
        assert_eq!(gate.close(now, throttle, None, 0.0), None);
    }

    #[test]
    fn a_hint_of_an_hour_is_not_tried_after_a_minute() {
        let (mut gate, now) = closed(seconds(3590));
        gate.close(now + seconds(1), Throttle::RateLimit, Some(seconds(55)), 0.0).unwrap();
        for (at, retry_in) in [(1, 3589), (61, 3529), (3500, 90)] {
            let turn = enter(&mut gate, now + seconds(at), MINUTE, 0);
            let Turn::Reject(error) = turn else { panic!("{turn:?} after {at} s") };
            assert_eq!(error.retry_in(), seconds(retry_in));
            assert_eq!(error.asked_for(), Some(seconds(3590)));
        }
        assert_eq!(enter(&mut gate, now + seconds(3540), MINUTE, 0), Turn::Wait);
    }

    #[test]
    fn rate_limits_without_a_hint_double_until_a_success() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        for hold in [1, 2, 4, 8, 16, 30, 30] {
            for late in 0..3 {
                // A burst counts once; a hint of zero says nothing.
                let hint = (late == 1).then_some(Duration::ZERO);
                now += Duration::from_millis(late);
                let closing = gate.close(now, Throttle::RateLimit, hint, 0.0).unwrap();
                assert_eq!(closing.opens_in, seconds(hold));
            }
            now += seconds(hold);
            assert!(matches!(enter(&mut gate, now, PATIENT, 0), Turn::Released(_)));
        }
        gate.finished(now, gate.opening(), End::Good, 0);
        let closing = gate.close(now, Throttle::RateLimit, None, 0.0).unwrap();
        assert_eq!(closing.opens_in, SECOND);
    }

    #[test]
    fn the_spread_is_a_quarter_within_bounds_and_drawn_once() {
        for (hint, widest) in [(100, 250), (1_000, 250), (4_000, 1_000), (60_000, 5_000)] {
            let hint = Duration::from_millis(hint);
            assert_eq!(spread(hint, 1.0), Duration::from_millis(widest));
            assert_eq!(spread(hint, 0.0), Duration::ZERO);
        }
        let (mut gate, now) = (Gate::default(), Instant::now());
        let close = |gate: &mut Gate, at, unit| {
            gate.close(at, Throttle::RateLimit, Some(seconds(4)), unit).unwrap().opens_in
        };
        assert_eq!(close(&mut gate, now, 0.5), Duration::from_millis(4_500));
        assert_eq!(close(&mut gate, now + SECOND, 1.0), Duration::from_millis(4_500));
    }

    #[test]
    fn who_lacks_the_time_is_rejected_at_once() {
        let (mut gate, now) = closed(seconds(2));
        let mut ask = |wait, left| enter(&mut gate, now, Patience { wait, left }, 0);
        let ever = Duration::MAX;
        assert_eq!(ask(seconds(2), ever), Turn::Wait);
        assert!(matches!(ask(SECOND, ever), Turn::Reject(_)));
        assert!(matches!(ask(ever, seconds(2)), Turn::Reject(_)));
        assert_eq!(ask(ever, seconds(3)), Turn::Wait);
    }

    #[test]
    fn opens_like_slow_start_and_remembers_how_many_succeeded() {
        let (mut gate, now) = closed(SECOND);
        let mut at = now + SECOND;
        assert_eq!(gate.release(at, 99), 1);
        assert_eq!(gate.release(at, 98), 0);
        assert_eq!(gate.finished(at, 1, End::Good, 98), 2);
        assert_eq!(gate.finished(at, 1, End::Bad, 96), 1);
        assert_eq!(gate.finished(at, 1, End::Dropped, 95), 1);
        assert_eq!(gate.finished(at, 1, End::Good, 94), 2);
        gate.close(at, Throttle::RateLimit, Some(SECOND), 0.0).unwrap();
        // Late, but a success of that opening.
        assert_eq!(gate.finished(at, 1, End::Good, 92), 0);
        at += SECOND;
        // Half of the three that succeeded.
        assert_eq!(gate.release(at, 92), 2);
        assert_eq!(gate.finished(at, 1, End::Good, 90), 0);
        // Now the limit is known, until clearly more succeed.
        let released: Vec<_> = (0..8).map(|_| gate.finished(at, 2, End::Good, 80)).collect();
        assert_eq!(released, [1, 1, 1, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn none_overtakes_those_that_wait() {
        let (mut gate, now) = closed(SECOND);
        let at = now + SECOND;
        assert_eq!(enter(&mut gate, at, PATIENT, 3), Turn::Wait);
        assert_eq!(gate.release(at, 4), 1);
        assert_eq!(gate.finished(at, 1, End::Good, 3), 2);
        assert_eq!(gate.finished(at, 1, End::Good, 1), 1);
        // The queue is empty, but the opening is not over.
        assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Released(1));
        assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Wait);
        assert_eq!(gate.finished(at, 1, End::Good, 0), 0);
        assert_eq!(enter(&mut gate, at, PATIENT, 0), Turn::Free);
    }

    #[test]
    fn a_released_request_that_hangs_does_not_hold_all_back() {
        let (mut gate, now) = closed(SECOND);
        assert_eq!(gate.release(now + SECOND, 3), 1);
        assert_eq!(gate.release(now + SECOND * 3 / 2, 2), 0);
        assert_eq!(gate.release(now + SECOND * 2, 2), 1);
        assert_eq!(gate.release(now + SECOND * 2, 1), 0);
    }

    #[test]
    fn a_gate_without_visitors_is_open_after_a_while() {
        let (mut gate, now) = closed(seconds(60));
        assert!(!gate.is_open(now + seconds(119), 0) && gate.is_open(now + seconds(120), 0));
        assert!(!gate.is_open(now + seconds(120), 1));
        // The same if the one that asked ended without a result.
        assert_eq!(enter(&mut gate, now + seconds(60), PATIENT, 0), Turn::Released(1));
        gate.finished(now + seconds(61), 1, End::Dropped, 0);
        assert!(!gate.is_open(now + seconds(61), 0) && gate.is_open(now + seconds(121), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn none_passes_before_the_longest_hint_is_over(
            hints in proptest::collection::vec((0..10_000_u64, 1..20_000_u64), 1..20),
            (asked, wait, left) in (0..40_000_u64, 0..40_000_u64, 0..40_000_u64),
            unit in ANY,
        ) {
            let (start, millis) = (Instant::now(), Duration::from_millis);
            let mut gate = Gate::default();
            let mut hints = hints;
            hints.sort_unstable();
            for &(came, hint) in &hints {
                gate.close(start + millis(came), Throttle::RateLimit, Some(millis(hint)), unit);
            }
            let until = start + millis(hints.iter().map(|it| it.0 + it.1).max().unwrap_or(0));
            let last = start + millis(hints.iter().map(|it| it.0).max().unwrap_or(0));
            let now = last + millis(asked);
            let patience = Patience { wait: millis(wait), left: millis(left) };
            let visit = Visit::new(now, patience);
            match gate.enter(now, &visit, 0) {
                Turn::Free | Turn::Released(_) => prop_assert!(now >= until),
                Turn::Wait => {
                    let opens = gate.next_look(now, &visit);
                    prop_assert!(opens >= until && opens <= until + widest_spread(millis(20_000)));
                    prop_assert!(until <= now + patience.wait && opens < now + patience.left);
                }
                Turn::Reject(error) => {
                    let opens = now + error.retry_in();
                    prop_assert!(opens >= until);
                    prop_assert!(until > now + patience.wait || opens >= now + patience.left);
                }
            }
        }

        /// Every released request ends in some way, and time goes on: so all that wait are let go.
        #[test]
        fn all_that_wait_are_let_go(
            ends in proptest::collection::vec(0..4_u8, 1..50),
            mut waiting in 1..100_usize,
        ) {
            let (mut gate, mut now) = closed(SECOND);
            let mut running = vec![];
            let mut ends = ends.into_iter();
            for _ in 0..1_000 {
                let (released, opening) = (gate.release(now, waiting), gate.opening());
                waiting -= released;
                running.extend((0..released).map(|_| opening));
                let Some(opening) = running.pop() else {
                    if waiting == 0 {
                        break;
                    }
                    now += SECOND;
                    continue;
                };
                let end = match ends.next() {
                    Some(0) => End::Bad,
                    Some(1) => End::Dropped,
                    Some(2) => {
                        gate.close(now, Throttle::RateLimit, Some(SECOND), 0.5);
                        End::Bad
                    }
                    // Hangs for ever.
                    Some(3) => continue,
                    _ => End::Good,
                };
                let released = gate.finished(now, opening, end, waiting);
                waiting -= released;
                running.extend((0..released).map(|_| gate.opening()));
            }
            prop_assert_eq!((waiting, running.len()), (0, 0));
        }
    }
}
