//! The hedging state of one host: its requests in flight, and a sketch and a bucket for each key.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::host::hedge::bucket::HedgeBucket;
use crate::host::hedge::decide;
use crate::host::hedge::in_flight::InFlight;
use crate::host::hedge::sketch::Sketch;
use crate::host::hedge::{Delay, HedgeRules};

/// The most keys of one host. The least recently used one is evicted.
const MOST_LANES: usize = 64;

/// The hedging state of one host.
///
/// One lock for all of it, taken twice a request for some tens of nanoseconds.
#[derive(Debug)]
pub(crate) struct HostHedges(Mutex<State>);

#[derive(Debug)]
struct State {
    in_flight: InFlight,
    /// At most 64, of about 1 kB each.
    lanes: Vec<Lane>,
}

/// The latencies and the bucket of one key.
#[derive(Debug)]
struct Lane {
    key: u64,
    used: Instant,
    sketch: Box<Sketch>,
    bucket: HedgeBucket,
}

impl HostHedges {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { in_flight: InFlight::new(now), lanes: vec![] }))
    }

    /// Begins an attempt that may be hedged. `is_first` is set for the first one of its request, which
    /// pays its share.
    pub(crate) fn begin(
        self: &Arc<Self>,
        key: u64,
        rules: HedgeRules,
        is_first: bool,
        now: Instant,
    ) -> HedgeTurn {
        let (delay, generation) = {
            let mut state = lock(&self.0);
            let generation = state.in_flight.enter(now);
            let lane = state.lane(key, now);
            if is_first {
                lane.bucket.deposit(rules.share, now);
            }
            let delay = match rules.delay {
                Delay::Fixed(delay) => Some(delay),
                Delay::Learned { quantile, before } => match lane.sketch.quantile(quantile, now) {
                    Some(latency) => decide::learnt(latency),
                    None => before,
                },
            };
            (delay, generation)
        };
        HedgeTurn { host: Arc::clone(self), key, rules, delay, generation, is_over: false }
    }
}

impl State {
    fn lane(&mut self, key: u64, now: Instant) -> &mut Lane {
        let at = match self.lanes.iter().position(|it| it.key == key) {
            Some(at) => at,
            None => self.new_lane(key, now),
        };
        let lane = &mut self.lanes[at];
        lane.used = lane.used.max(now);
        lane
    }

    #[cold]
    fn new_lane(&mut self, key: u64, now: Instant) -> usize {
        let lane = Lane {
            key,
            used: now,
            sketch: Box::new(Sketch::new(now)),
            bucket: HedgeBucket::new(now),
        };
        if self.lanes.len() < MOST_LANES {
            self.lanes.push(lane);
            return self.lanes.len() - 1;
        }
        let oldest = self.lanes.iter().enumerate().min_by_key(|(_, it)| it.used);
        let at = oldest.map_or(0, |(at, _)| at);
        self.lanes[at] = lane;
        at
    }
}

/// One attempt under way that may be hedged. When dropped, the attempt is in flight no more.
#[derive(Debug)]
pub(crate) struct HedgeTurn {
    host: Arc<HostHedges>,
    key: u64,
    rules: HedgeRules,
    delay: Option<Duration>,
    /// That of the requests in flight to which it belongs.
    generation: u64,
    is_over: bool,
}

impl HedgeTurn {
    /// Returns the delay of a hedge; `None` if there is to be none.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.delay
    }

    /// Returns whether so many requests are in flight to the host that it must be slow for all of them.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.host.0).in_flight.is_crowded()
    }

    /// Takes the token of a hedge. Returns `false` if there is none.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        lock(&self.host.0).lane(self.key, now).bucket.withdraw()
    }

    /// Puts the token of a hedge back that was not sent.
    pub(crate) fn put_back(&self, now: Instant) {
        lock(&self.host.0).lane(self.key, now).bucket.put_back();
    }

    /// Ends the attempt, and records its latencies; an attempt without any has no response.
    pub(crate) fn end(mut self, latencies: impl IntoIterator<Item = Duration>, now: Instant) {
        self.is_over = true;
        let mut state = lock(&self.host.0);
        let mut latencies = latencies.into_iter().peekable();
        match latencies.peek() {
            Some(_) => state.in_flight.respond(self.generation),
            None => state.in_flight.leave(self.generation),
        }
        let Delay::Learned { quantile, .. } = self.rules.delay else { return };
        let sketch = &mut state.lane(self.key, now).sketch;
        latencies.for_each(|it| sketch.record(it, quantile, now));
    }
}

impl Drop for HedgeTurn {
    fn drop(&mut self) {
        if !self.is_over {
            lock(&self.host.0).in_flight.leave(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::hedge::Hedge;
    use crate::host::hedge::bucket::TOKEN;

    const MILLI: Duration = Duration::from_millis(1);

    fn learned() -> HedgeRules {
        Hedge::learned(0.95).rules()
    }

    fn counts(host: &HostHedges) -> (u32, usize, u32, u64) {
        let state = lock(&host.0);
        let samples = state.lanes.iter().map(|it| it.sketch.samples()).sum();
        let tokens = state.lanes.iter().map(|it| it.bucket.balance()).sum();
        (state.in_flight.count(), state.lanes.len(), samples, tokens)
    }

    #[test]
    fn a_delay_is_learnt_for_each_key() {
        let (host, now) = (Arc::new(HostHedges::new(Instant::now())), Instant::now());
        for _ in 0..200 {
            for (key, latency) in [(1, 20), (2, 400)] {
                host.begin(key, learned(), true, now).end([MILLI * latency], now);
            }
        }
        let delay = |key| host.begin(key, learned(), true, now).delay().unwrap();
        assert!(delay(1).abs_diff(MILLI * 20) < MILLI * 2, "{:?}", delay(1));
        assert!(delay(2).abs_diff(MILLI * 400) < MILLI * 40, "{:?}", delay(2));
        assert_eq!(host.begin(3, learned(), true, now).delay(), None);
        let before = Hedge::learned(0.95).or_after(MILLI * 7).rules();
        assert_eq!(host.begin(3, before, true, now).delay(), Some(MILLI * 7));
        let fixed = Hedge::after(MILLI * 9).rules();
        assert_eq!(host.begin(1, fixed, true, now).delay(), Some(MILLI * 9));
    }

    #[test]
    fn dropped_attempts_leave_all_counts_exact() {
        // Without responses none is overtaken; with them only those of two generations count, of four
        // responses each.
        for (response, counted) in [(None, 250_000..=250_000), (Some(MILLI), 4..=8)] {
            let (host, now) = (Arc::new(HostHedges::new(Instant::now())), Instant::now());
            let mut turns = vec![];
            for it in 0..1_000_000_u32 {
                let turn = host.begin(1, learned(), true, now);
                match it % 4 {
                    0 => drop(turn),
                    1 => turn.end(response, now),
                    2 => turns.push(turn),
                    _ => turn.end([], now),
                }
            }
            assert!(counted.contains(&counts(&host).0), "{:?}", counts(&host));
            turns.clear();
            let (in_flight, lanes, samples, tokens) = counts(&host);
            assert_eq!((in_flight, lanes, tokens), (0, 1, 100 * TOKEN));
            assert!(samples >= 256 || response.is_none(), "{samples}");
        }
    }

    #[test]
    fn retries_pay_no_share_and_fixed_delays_take_no_samples() {
        let (host, now) = (Arc::new(HostHedges::new(Instant::now())), Instant::now());
        let fixed = Hedge::after(MILLI).rules();
        let turn = host.begin(1, fixed, true, now);
        (0..3).for_each(|_| assert!(turn.withdraw(now)));
        assert!(!turn.withdraw(now));
        for _ in 0..100 {
            host.begin(1, fixed, false, now).end([MILLI], now);
        }
        assert_eq!((turn.withdraw(now), counts(&host).2), (false, 0));
    }

    #[test]
    fn a_crowd_gets_no_hedges() {
        let (host, now) = (Arc::new(HostHedges::new(Instant::now())), Instant::now());
        let mut turns: Vec<_> = (0..4).map(|_| host.begin(1, learned(), true, now)).collect();
        assert!(turns[0].is_crowded());
        turns.pop();
        assert!(!turns[0].is_crowded());
    }

    #[test]
    fn keys_are_bounded_and_the_least_recently_used_goes() {
        let host = Arc::new(HostHedges::new(Instant::now()));
        let start = Instant::now();
        for key in 0..200_u64 {
            let now = start + MILLI * key as u32;
            host.begin(key, learned(), true, now).end([MILLI], now);
            host.begin(0, learned(), true, now).end([MILLI], now);
        }
        let state = lock(&host.0);
        assert_eq!(state.lanes.len(), MOST_LANES);
        assert!(state.lanes.iter().any(|it| it.key == 0));
        assert!(state.lanes.iter().all(|it| it.key == 0 || it.key > 130));
    }
}
