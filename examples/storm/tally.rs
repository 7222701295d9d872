//! What is counted, and what it says.

use crate::trigger::WARM_UP;
use crate::world::Cell;

/// Bins a second.
const BINS: usize = 10;

/// Over how long amplification and goodput are measured, in bins.
const WINDOW: usize = 5 * BINS;

/// In how many windows, one after the other, goodput has to be back.
const STAYS: usize = 30 * BINS;

/// What a recovery takes until it can be told, in seconds.
pub(crate) const STAYS_FOR: f64 = 40.0;

/// Which share of the goodput before the trigger is a recovery.
const BACK: f64 = 0.93;

/// Counts for each tenth of a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    routes: Vec<Vec<Bin>>,
    sent: Vec<u32>,
    /// The bins of the trigger.
    trigger: (usize, usize),
    /// The bin in which the watch ended.
    end: usize,
    /// Requests that were ended by the client before anything was sent.
    pub(crate) rejected: u32,
    /// What was seen at the end of each second.
    pub(crate) looks: Vec<Look>,
}

/// The server and its clients at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Attempts that the server has not worked off.
    pub(crate) backlog: usize,
    /// The nodes of a fleet by what they see of its breaker.
    pub(crate) open: usize,
    pub(crate) half_open: usize,
    pub(crate) closed: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    /// Requests that arrived then, and those of them that succeeded sooner or later.
    asked: u32,
    succeeded: u32,
    /// Successful responses that came then, whenever they were asked for.
    responses: u32,
}

/// What became of one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// Seconds from the trigger's end until 93 % of the goodput is back on every route and stays
    /// for 30 s; infinite if that did not happen.
    pub(crate) recovery: f64,
    /// The most attempts per request in any 5 s from the trigger on.
    pub(crate) worst: f64,
    /// The same from 5 s before the trigger's end on: the load at which the server comes back.
    pub(crate) peak: f64,
    /// Attempts per request from the trigger on.
    pub(crate) overall: f64,
    /// The share of requests without success during the trigger, and in the 30 s after it.
    pub(crate) lost: f64,
    pub(crate) lost_after: f64,
    /// As `lost`, of the route that the trigger does not hit.
    pub(crate) lost_beside: Option<f64>,
    pub(crate) rejected: u32,
}

impl Tally {
    pub(crate) fn new(cell: &Cell) -> Self {
        let bins = bin(cell.ends()) + 60 * BINS;
        Self {
            routes: vec![vec![Bin::default(); bins]; cell.layout.routes()],
            sent: vec![0; bins],
            trigger: (bin(WARM_UP), bin(cell.trigger.ends())),
            end: bins,
            rejected: 0,
            looks: vec![],
        }
    }

    pub(crate) fn attempt(&mut self, now: f64) {
        self.sent[bin(now)] += 1;
    }

    pub(crate) fn request(&mut self, route: usize, now: f64) {
        self.routes[route][bin(now)].asked += 1;
    }

    pub(crate) fn success(&mut self, route: usize, asked: f64, now: f64) {
        self.routes[route][bin(asked)].succeeded += 1;
        self.routes[route][bin(now)].responses += 1;
    }

    /// Ends the watch.
    pub(crate) fn close(&mut self, now: f64) {
        self.end = bin(now);
    }

    /// Returns seconds from the trigger's end to recovery, as far as that can be said at `now`.
    pub(crate) fn recovery(&self, now: f64) -> Option<f64> {
        let (began, ended) = self.trigger;
        let before: Vec<f64> =
            self.routes.iter().map(|it| 1.0 - lost(&it[bin(5.0)..began])).collect();
        let mut stays = 0;
        for at in ended..bin(now).saturating_sub(WINDOW) {
            let back = self
                .routes
                .iter()
                .zip(&before)
                .all(|(bins, before)| 1.0 - lost(&bins[at..at + WINDOW]) >= BACK * before);
            stays = if back { stays + 1 } else { 0 };
            if stays == STAYS {
                return Some((at + 1 - STAYS - ended) as f64 / BINS as f64);
            }
        }
        None
    }

    pub(crate) fn summary(&self) -> Summary {
        let (began, ended) = self.trigger;
        let overall = |from: usize, to: usize| {
            let bins = self.routes.iter().flat_map(|it| &it[from..to]);
            let asked: u32 = bins.map(|it| it.asked).sum();
            f64::from(self.sent[from..to].iter().sum::<u32>()) / f64::from(asked.max(1))
        };
        let all = |from: usize, to: usize| -> Vec<Bin> {
            self.routes.iter().flat_map(|it| it[from..to].iter().copied()).collect()
        };
        let most = |from: usize| {
            let windows = (from..self.end - WINDOW).map(|at| overall(at, at + WINDOW));
            windows.fold(0.0, f64::max)
        };
        Summary {
            recovery: self.recovery(self.end as f64 / BINS as f64).unwrap_or(f64::INFINITY),
            worst: most(began),
            peak: most(ended - WINDOW),
            overall: overall(began, self.end),
            lost: lost(&all(began, ended)),
            lost_after: lost(&all(ended, ended + 30 * BINS)),
            lost_beside: self.routes.get(1).map(|it| lost(&it[began..ended])),
            rejected: self.rejected,
        }
    }

    /// Returns the requests of each second that arrived, and those of them that succeeded.
    pub(crate) fn requests_per_second(&self) -> Vec<(u32, u32)> {
        let second = |at: usize| {
            let bins = self.routes.iter().flat_map(|it| &it[at..at + BINS]);
            bins.fold((0, 0), |sum, it| (sum.0 + it.asked, sum.1 + it.succeeded))
        };
        (0..self.end / BINS).map(|it| second(it * BINS)).collect()
    }

    /// Returns successful responses and attempts, each per second, for every second.
    pub(crate) fn per_second(&self) -> Vec<(u32, u32)> {
        let second = |at: usize| {
            let bins = self.routes.iter().flat_map(|it| &it[at..at + BINS]);
            (bins.map(|it| it.responses).sum(), self.sent[at..at + BINS].iter().sum())
        };
        (0..self.end / BINS).map(|it| second(it * BINS)).collect()
    }
}

fn bin(seconds: f64) -> usize {
    (seconds * BINS as f64) as usize
}

/// Returns the share of requests without success.
fn lost(bins: &[Bin]) -> f64 {
    let count = |of: fn(&Bin) -> u32| f64::from(bins.iter().map(of).sum::<u32>());
    1.0 - count(|it| it.succeeded) / count(|it| it.asked).max(1.0)
}
