//! The quotas that responses of a host name, and the pace that keeps to them, as pure steps.

use std::time::Duration;

use crate::common::clock::Instant;
use crate::outcome::hint::QuotaUse;

/// The most quotas of one host.
const MOST_QUOTAS: usize = 8;

/// Quotas that are refilled later than this are no pace.
const LONGEST_WINDOW: Duration = Duration::from_secs(86_400);

/// While nothing is known of a host, one request is sent in this time.
const SCOUT_FOR: Duration = Duration::from_secs(1);

/// Arrivals are counted over about a tenth of a quota's window, and over this time at least: a burst
/// of a hundred is no rate for an hour.
const LEAST_ARRIVALS: Duration = Duration::from_secs(10);

/// Waits for a slot are longer by up to this share, and those for a refill by up to a slot, or this
/// long: never shorter.
const SPREAD: f64 = 0.1;
const LONGEST_SPREAD: Duration = Duration::from_secs(5);

/// The share of a new observation in what a request costs.
const NEW_SHARE: f64 = 0.2;

/// The quotas of one host, and the requests that use them.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    quotas: Vec<Quota>,
    /// Set once a response came, with quotas or without.
    is_known: bool,
    /// The time at which a request was sent while nothing was known.
    scouted: Option<Instant>,
    /// Requests that were sent and have not ended.
    in_flight: u32,
    last_sent: Option<Instant>,
}

/// One quota, as of the newest response.
#[derive(Debug)]
struct Quota {
    name: Box<str>,
    remaining: f64,
    resets_at: Instant,
    limit: Option<f64>,
    /// The longest time until a reset that was seen: the window, as far as it is known.
    window: Duration,
    /// The part of it that a request takes.
    cost: f64,
    /// The start of the attempt that brought the newest response.
    as_of: Instant,
    arrivals: Arrivals,
}

/// A quota of a host as its responses named it, for requests under [`RateLimit::learned`].
///
/// # Examples
///
/// ```
/// use std::time::Instant;
/// use reqwest_resilient::HostStates;
///
/// let hosts = HostStates::new();
/// for it in hosts.quotas("https://api.example.com", Instant::now()) {
///     println!("{}: {} left, refilled in {:?}", it.name, it.remaining, it.resets_in);
/// }
/// ```
///
/// [`RateLimit::learned`]: crate::RateLimit::learned
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LearnedQuota {
    /// Its name: that of the policy in `RateLimit`, or else the header that says what remains.
    pub name: String,
    /// The size of the quota, if a response said it.
    pub limit: Option<u64>,
    /// What remains of it: by the newest response, less what was sent since and not responded to.
    pub remaining: u64,
    /// The time until it is refilled.
    pub resets_in: Duration,
}

/// The time at which a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    /// Then, or at news before.
    At(Instant),
}

/// The pacing of a request by learned quotas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    /// The longest wait for the request before it.
    pub(crate) longest: Duration,
    /// Random from 0 to 1, the same for all waits of a request: clients that share a quota hear the
    /// same numbers, and would go in the same instant.
    pub(crate) unit: f64,
}

/// A count of arrivals that fades.
#[derive(Debug, Default)]
struct Arrivals {
    count: f64,
    at: Option<Instant>,
}

impl Arrivals {
    /// Returns how many come a second, by those over about `span`.
    fn per_second(&mut self, span: Duration, now: Instant) -> f64 {
        let since = self.at.map_or(Duration::ZERO, |it| now.saturating_duration_since(it));
        self.count *= (-since.as_secs_f64() / span.as_secs_f64()).exp();
        self.at = Some(now);
        self.count / span.as_secs_f64()
    }
}

impl Learned {
    /// Returns the quotas as they are at `now`.
    pub(crate) fn quotas(&self, now: Instant) -> Vec<LearnedQuota> {
        let in_flight = f64::from(self.in_flight);
        let quota = |it: &Quota| {
            let (remaining, resets_at) = it.at(now);
            LearnedQuota {
                name: it.name.to_string(),
                limit: it.limit.map(|it| it as u64),
                remaining: (remaining - in_flight * it.cost) as u64,
                resets_in: resets_at.saturating_duration_since(now),
            }
        };
        self.quotas.iter().map(quota).collect()
    }

    /// Counts a request that arrives.
    pub(crate) fn arrive(&mut self, now: Instant) {
        for quota in &mut self.quotas {
            quota.per_second(now);
            quota.arrivals.count += 1.0;
        }
    }

    /// Returns when the next request may go, if `waiting` others wait behind it.
    pub(crate) fn next(&mut self, waiting: usize, pacing: Pacing, now: Instant) -> Turn {
        let Pacing { longest, unit } = pacing;
        if !self.is_known {
            let next = self.scouted.and_then(|it| it.checked_add(SCOUT_FOR));
            return match next.filter(|it| *it > now) {
                Some(at) => Turn::At(at),
                None => Turn::Now,
            };
        }
        let in_flight = f64::from(self.in_flight);
        let last = self.last_sent.unwrap_or(now);
        let mut at = now;
        for quota in &mut self.quotas {
            quota.refill(now);
            let left = quota.resets_at.saturating_duration_since(now);
            let room = (quota.remaining / quota.cost - in_flight).floor();
            if room < 1.0 {
                let spread = quota.slot().min(LONGEST_SPREAD).mul_f64(unit);
                at = at.max(quota.resets_at.checked_add(spread).unwrap_or(quota.resets_at));
                continue;
            }
            // It would run out before it is refilled.
            let wanted = (1.0 + waiting as f64).max(quota.per_second(now) * left.as_secs_f64());
            if wanted > room {
                let spacing = left.div_f64(room).mul_f64(1.0 + SPREAD * unit).min(longest);
                at = at.max(last.checked_add(spacing).unwrap_or(last));
            }
        }
        if at > now { Turn::At(at) } else { Turn::Now }
    }

    /// Returns how long a request with `ahead` others before it will probably wait.
    pub(crate) fn expected_wait(
        &mut self,
        ahead: usize,
        longest: Duration,
        now: Instant,
    ) -> Duration {
        let (ahead, in_flight) = (ahead as f64, f64::from(self.in_flight));
        let mut wait = Duration::ZERO;
        for quota in &mut self.quotas {
            quota.refill(now);
            let left = quota.resets_at.saturating_duration_since(now);
            let room = (quota.remaining / quota.cost - in_flight).floor().max(0.0);
            let own = if ahead < room {
                left.div_f64(room).min(longest).mul_f64(ahead)
            } else {
                let windows = (ahead - room) * quota.cost / quota.limit.unwrap_or(1.0).max(1.0);
                let rest = quota.window.as_secs_f64() * windows;
                left.saturating_add(Duration::try_from_secs_f64(rest).unwrap_or(Duration::MAX))
            };
            wait = wait.max(own);
        }
        wait
    }

    /// Records that a request is sent.
    pub(crate) fn send(&mut self, now: Instant) {
        if !self.is_known {
            self.scouted = Some(now);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.last_sent = Some(now);
    }

    /// Records the end of an attempt that began at `started`. `said` are the quotas in its response;
    /// `None` if there was none.
    pub(crate) fn end(&mut self, started: Instant, said: Option<&[QuotaUse]>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(said) = said else {
            // The server may have counted it.
            self.quotas.iter_mut().for_each(|it| it.remaining -= it.cost);
            return;
        };
        self.learn(started, said, now);
    }

    /// Learns from the response to a request that did not keep to these quotas, but counts against
    /// them.
    pub(crate) fn hear(&mut self, started: Instant, said: &[QuotaUse], now: Instant) {
        self.learn(started, said, now);
    }

    fn learn(&mut self, started: Instant, said: &[QuotaUse], now: Instant) {
        self.is_known = true;
        for said in said.iter().filter(|it| is_plausible(it)) {
            let Some(resets_at) = now.checked_add(said.reset) else { continue };
            if let Some(quota) = self.quotas.iter_mut().find(|it| *it.name == *said.name) {
                quota.learn(said, resets_at, started);
            } else if self.quotas.len() < MOST_QUOTAS {
                self.quotas.push(Quota::new(said, resets_at, started));
            }
        }
    }

    /// Records that an attempt was not sent after all.
    pub(crate) fn cancel(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !self.is_known {
            self.scouted = None;
        }
    }
}

/// Returns whether a quota can be meant: a wrong one must not stop a client.
fn is_plausible(said: &QuotaUse) -> bool {
    !said.reset.is_zero()
        && said.reset <= LONGEST_WINDOW
        && said.limit.is_none_or(|it| said.remaining <= it)
}

impl Quota {
    fn new(said: &QuotaUse, resets_at: Instant, started: Instant) -> Self {
        Self {
            name: said.name.clone(),
            remaining: said.remaining as f64,
            resets_at,
            limit: said.limit.map(|it| it as f64),
            window: said.window.unwrap_or(said.reset).max(said.reset),
            cost: 1.0,
            as_of: started,
            arrivals: Arrivals::default(),
        }
    }

    /// Returns the time of one request, if they are spread evenly over the window.
    fn slot(&self) -> Duration {
        self.limit.map_or(LONGEST_SPREAD, |it| self.window.div_f64((it / self.cost).max(1.0)))
    }

    /// Returns how many requests come a second.
    fn per_second(&mut self, now: Instant) -> f64 {
        self.arrivals.per_second((self.window / 10).max(LEAST_ARRIVALS), now)
    }

    /// Learns from a response. Within one window only less can remain, whatever the order in which
    /// responses come.
    fn learn(&mut self, said: &QuotaUse, resets_at: Instant, started: Instant) {
        let remaining = said.remaining as f64;
        self.limit = said.limit.map(|it| it as f64).or(self.limit);
        self.window = said.window.unwrap_or(said.reset).max(said.reset).max(self.window);
        if started < self.as_of {
            self.remaining = self.remaining.min(remaining);
            return;
        }
        let taken = self.remaining - remaining;
        if taken > 0.0 && said.counts_more_than_requests() {
            self.cost = (self.cost * (1.0 - NEW_SHARE) + taken * NEW_SHARE).max(1.0);
        }
        (self.remaining, self.resets_at, self.as_of) = (remaining, resets_at, started);
    }

    /// Returns what remains at `now`, and when it is refilled: once the window is over, all of the limit
    /// is there again, if it is known, and at least what a request takes, for only a request can show
    /// that a limit is wrong.
    fn at(&self, now: Instant) -> (f64, Instant) {
        if now < self.resets_at {
            return (self.remaining, self.resets_at);
        }
        let remaining = self.limit.unwrap_or(self.remaining).max(self.cost);
        (remaining, now.checked_add(self.window).unwrap_or(now))
    }

    /// Begins a new window once this one is over.
    fn refill(&mut self, now: Instant) {
        (self.remaining, self.resets_at) = self.at(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacing(longest: Duration) -> Pacing {
        Pacing { longest, unit: 0.0 }
    }

    fn said(remaining: u64, limit: u64, seconds: u64) -> QuotaUse {
        QuotaUse {
            name: "requests".into(),
            remaining,
            limit: Some(limit),
            reset: Duration::from_secs(seconds),
            window: None,
        }
    }

    /// A host of which one response is known.
    fn known(remaining: u64, limit: u64, seconds: u64, now: Instant) -> Learned {
        let mut learned = Learned::default();
        learned.send(now);
        learned.end(now, Some(&[said(remaining, limit, seconds)]), now);
        learned
    }

    #[test]
    fn the_first_request_goes_alone() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert_eq!(learned.next(9, pacing(SECOND), now), Turn::Now);
        learned.send(now);
        assert_eq!(learned.next(9, pacing(SECOND), now), Turn::At(now + SECOND));
        assert_eq!(learned.next(9, pacing(SECOND), now + SECOND), Turn::Now);
        learned.end(now, Some(&[]), now);
        learned.send(now);
        assert_eq!(learned.next(9, pacing(SECOND), now), Turn::Now, "it has no quotas");
    }

    #[test]
    fn quotas_are_shown_less_what_is_under_way() {
        let now = Instant::now();
        let mut learned = known(5, 60, 30, now);
        let shown = |learned: &Learned, after: u32| {
            let [it] = &learned.quotas(now + after * SECOND)[..] else { panic!("one quota") };
            (it.name.clone(), it.limit, it.remaining, it.resets_in.as_secs())
        };
        learned.send(now);
        learned.send(now);
        let named = || "requests".to_owned();
        assert_eq!(shown(&learned, 10), (named(), Some(60), 3, 20));
        learned.end(now, None, now);
        assert_eq!(shown(&learned, 10), (named(), Some(60), 3, 20), "it may have been counted");
        for _ in 0..9 {
            learned.send(now);
        }
        assert_eq!(shown(&learned, 10), (named(), Some(60), 0, 20));
        assert_eq!(shown(&learned, 31), (named(), Some(60), 50, 30), "refilled");
        learned.quotas[0].cost = 5.0;
        assert_eq!(shown(&learned, 31), (named(), Some(60), 10, 30), "each takes five");
        assert!(Learned::default().quotas(now).is_empty());
    }

    #[test]
    fn a_look_at_the_quotas_of_a_later_time_refills_none() {
        let now = Instant::now();
        let mut learned = known(0, 60, 30, now);
        learned.quotas(now + 31 * SECOND);
        assert_eq!(learned.next(0, pacing(SECOND), now), Turn::At(now + 30 * SECOND));
    }

    #[test]
    fn a_quota_that_suffices_is_no_pace() {
        let now = Instant::now();
        let mut learned = known(4_999, 5_000, 3_600, now);
        for _ in 0..100 {
            learned.arrive(now);
            assert_eq!(learned.next(0, pacing(SECOND), now), Turn::Now);
            learned.send(now);
        }
    }

    #[test]
    fn a_quota_that_would_run_out_is_spread_over_its_window() {
        let now = Instant::now();
        let mut learned = known(60, 60, 60, now);
        assert_eq!(learned.next(199, pacing(60 * SECOND), now), Turn::At(now + SECOND));
        assert_eq!(learned.next(199, pacing(60 * SECOND), now + SECOND), Turn::Now);
        assert_eq!(
            learned.next(59, pacing(60 * SECOND), now),
            Turn::Now,
            "there is enough for these"
        );
        assert_eq!(learned.next(199, pacing(SECOND / 10), now), Turn::At(now + SECOND / 10));
    }

    #[test]
    fn a_limit_below_what_a_request_takes_stops_no_host_for_ever() {
        let now = Instant::now();
        let mut none = known(0, 0, 60, now);
        // The tokens of two models under one name: each change looks like what a request took.
        let mut two = Learned::default();
        for (at, limit) in (0..).zip([150_000, 40_000, 150_000, 40_000, 150_000, 40_000]) {
            let now = now + at * SECOND;
            let tokens = QuotaUse { name: "tokens".into(), ..said(limit, limit, 60) };
            two.send(now);
            two.end(now, Some(&[tokens]), now);
        }
        for learned in [&mut none, &mut two] {
            let later = now + 200 * SECOND;
            assert_eq!(learned.next(0, pacing(60 * SECOND), later), Turn::Now);
        }
    }

    #[test]
    fn requests_under_way_count_against_the_quota() {
        let now = Instant::now();
        let mut learned = known(3, 10, 30, now);
        for _ in 0..3 {
            assert_eq!(learned.next(0, pacing(SECOND), now), Turn::Now);
            learned.send(now);
        }
        assert_eq!(learned.next(0, pacing(SECOND), now), Turn::At(now + 30 * SECOND));
        learned.cancel();
        assert_eq!(learned.next(0, pacing(SECOND), now), Turn::Now);
    }

    #[test]
    fn a_quota_that_arrivals_would_exhaust_is_spread_over_its_window() {
        let now = Instant::now();
        let mut learned = known(100, 100, 100, now);
        assert_eq!(learned.next(0, pacing(60 * SECOND), now), Turn::Now);
        (0..50).for_each(|_| learned.arrive(now));
        assert_eq!(learned.next(0, pacing(60 * SECOND), now), Turn::At(now + SECOND));
    }

    #[test]
    fn arrivals_fade() {
        let (now, span) = (Instant::now(), 10 * SECOND);
        let mut arrivals = Arrivals { count: 30.0, at: Some(now) };
        assert_eq!(arrivals.per_second(span, now), 3.0);
        let left = arrivals.per_second(span, now + span);
        assert!((left - 3.0 * (-1.0_f64).exp()).abs() < 1e-9, "{left}");
    }

    #[test]
    fn a_wait_is_expected_by_all_that_are_before() {
        let now = Instant::now();
        for (in_flight, cost, ahead, longest, expected) in [
            (0, 1.0, 30, 60 * SECOND, 30 * SECOND),
            (0, 1.0, 30, SECOND / 2, 15 * SECOND),
            (0, 1.0, 60, 60 * SECOND, 60 * SECOND),
            (0, 1.0, 90, 60 * SECOND, 90 * SECOND),
            (10, 1.0, 80, 60 * SECOND, 90 * SECOND),
            (10, 2.0, 10, 60 * SECOND, 30 * SECOND),
            (10, 2.0, 50, 60 * SECOND, 120 * SECOND),
        ] {
            let mut learned = known(60, 60, 60, now);
            (0..in_flight).for_each(|_| learned.send(now));
            learned.quotas[0].cost = cost;
            assert_eq!(learned.expected_wait(ahead, longest, now), expected, "{ahead} ahead");
        }
    }

    #[test]
    fn a_request_costs_what_its_quota_loses_by_it() {
        let now = Instant::now();
        let mut learned = Learned::default();
        for (remaining, cost) in [(100, 1.0), (90, 2.8), (90, 2.8), (80, 4.24)] {
            let tokens = QuotaUse { name: "tokens".into(), ..said(remaining, 100, 60) };
            learned.send(now);
            learned.end(now, Some(&[tokens]), now);
            let found = learned.quotas[0].cost;
            assert!((found - cost).abs() < 1e-9, "{found} for {cost}");
        }
        learned.quotas[0].cost = 90.0;
        assert_eq!(learned.next(0, pacing(60 * SECOND), now), Turn::At(now + 60 * SECOND));
        learned.quotas[0].remaining = 0.0;
        let late = Pacing { longest: SECOND, unit: 1.0 };
        // Spread over the time of one request: four of them fit into the window.
        learned.quotas[0].cost = 25.0;
        learned.quotas[0].window = 10 * SECOND;
        let at = now + 60 * SECOND + SECOND.mul_f64(2.5);
        assert_eq!(learned.next(0, late, now), Turn::At(at));
    }

    #[test]
    fn the_first_request_that_was_not_sent_lets_the_next_one_go() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        learned.send(now);
        learned.cancel();
        assert_eq!(learned.next(0, pacing(SECOND), now), Turn::Now);
    }

    #[test]
    fn eight_quotas_are_kept() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        let named = |it: usize| QuotaUse { name: it.to_string().into(), ..said(1, 1, 60) };
        let all: Vec<_> = (0..9).map(named).collect();
        learned.hear(now, &all, now);
        assert_eq!(learned.quotas.len(), MOST_QUOTAS);
    }

    #[test]
    fn an_empty_quota_is_waited_for_and_then_full() {
        let now = Instant::now();
        let mut learned = known(0, 60, 30, now);
        assert_eq!(learned.next(0, pacing(SECOND), now), Turn::At(now + 30 * SECOND));
        let later = now + 30 * SECOND;
        assert_eq!(learned.next(0, pacing(SECOND), later), Turn::Now);
        assert_eq!(learned.expected_wait(30, SECOND / 10, later), 3 * SECOND);
    }

    #[test]
    fn a_response_that_is_overtaken_raises_nothing() {
        let now = Instant::now();
        let mut learned = known(10, 60, 60, now);
        (0..3).for_each(|_| learned.send(now));
        learned.end(now + SECOND, Some(&[said(2, 60, 59)]), now + SECOND);
        learned.end(now, Some(&[said(9, 60, 59)]), now + SECOND);
        assert_eq!(learned.quotas[0].remaining, 2.0);
        learned.end(now, None, now + SECOND);
        assert_eq!(learned.quotas[0].remaining, 1.0, "the server may have counted it");
    }

    #[test]
    fn waits_are_spread_upward_and_stay_the_same() {
        let now = Instant::now();
        let late = Pacing { longest: 60 * SECOND, unit: 1.0 };
        let mut learned = known(60, 60, 60, now);
        assert_eq!(learned.next(199, late, now), Turn::At(now + SECOND.mul_f64(1.1)));
        assert_eq!(learned.next(199, late, now + SECOND.mul_f64(1.1)), Turn::Now);
        let mut learned = known(0, 60, 30, now);
        let at = now + 31 * SECOND;
        // The window is at least as long as the reset was away.
        assert!(
            matches!(learned.next(0, late, now), Turn::At(it) if it <= at && it > now + 30 * SECOND)
        );
    }

    #[test]
    fn nonsense_is_ignored() {
        let now = Instant::now();
        for nonsense in [said(0, 60, 0), said(0, 60, 90_000), said(61, 60, 10)] {
            let mut learned = Learned::default();
            learned.send(now);
            learned.end(now, Some(&[nonsense]), now);
            assert_eq!(learned.next(100, pacing(SECOND), now), Turn::Now);
        }
    }
}
