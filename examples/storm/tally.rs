//! What is counted, and what it says.

use crate::world::{AFTER, Cell, WARM_UP};

/// Bins a second.
const BINS: usize = 10;

/// Over how long amplification is measured and recovery has to last, in bins.
const WINDOW: usize = 5 * BINS;

/// Counts for each tenth of a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    bins: Vec<Bin>,
    /// Requests that were ended by the client before anything was sent.
    pub(crate) rejected: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    arrived: u32,
    sent: u32,
    /// Of those that arrived then.
    succeeded: u32,
    /// Whenever they arrived.
    answered: u32,
}

/// What became of one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// Successes per second in the 30 s after the trigger.
    pub(crate) goodput: f64,
    /// The same as a share of what was asked for.
    pub(crate) goodput_share: f64,
    /// The most attempts per request in any 5 s from the trigger on.
    pub(crate) worst: f64,
    /// Attempts per request from the trigger on.
    pub(crate) overall: f64,
    /// Seconds from the trigger's end until no second of the next 5 loses more than 5 % of its
    /// requests; `None` if that did not happen while anyone watched.
    pub(crate) recovery: Option<f64>,
    /// The share of requests without success, from the trigger on.
    pub(crate) lost: f64,
}

impl Tally {
    pub(crate) fn new(seconds: f64) -> Self {
        let bins = vec![Bin::default(); seconds as usize * BINS + BINS];
        Self { bins, rejected: 0 }
    }

    pub(crate) fn attempt(&mut self, now: f64) {
        self.bin(now).sent += 1;
    }

    pub(crate) fn request(&mut self, arrived: f64, now: f64, ok: bool, rejected: bool) {
        self.bin(arrived).arrived += 1;
        self.rejected += u32::from(rejected);
        if ok {
            self.bin(arrived).succeeded += 1;
            self.bin(now).answered += 1;
        }
    }

    fn bin(&mut self, at: f64) -> &mut Bin {
        let last = self.bins.len() - 1;
        &mut self.bins[last.min((at * BINS as f64) as usize)]
    }

    pub(crate) fn requests(&self) -> u32 {
        self.bins.iter().map(|it| it.arrived).sum()
    }

    pub(crate) fn failures(&self) -> u32 {
        self.requests() - self.bins.iter().map(|it| it.succeeded).sum::<u32>()
    }

    /// Answered requests and attempts, each per second, for every second.
    pub(crate) fn per_second(&self) -> Vec<(u32, u32)> {
        let sum = |bins: &[Bin], of: fn(&Bin) -> u32| bins.iter().map(of).sum();
        let second = |bins: &[Bin]| (sum(bins, |it| it.answered), sum(bins, |it| it.sent));
        self.bins.chunks_exact(BINS).map(second).collect()
    }

    pub(crate) fn summary(&self, cell: &Cell) -> Summary {
        let bin = |seconds: f64| (seconds * BINS as f64) as usize;
        let (from, end) = (bin(WARM_UP), bin(WARM_UP + cell.trigger.lasts()));
        let watched = &self.bins[from..end + bin(AFTER)];
        let count = |bins: &[Bin], of: fn(&Bin) -> u32| bins.iter().map(of).sum::<u32>() as f64;
        let share = |bins: &[Bin], of| count(bins, of) / count(bins, |it| it.arrived).max(1.0);
        let settled = |window: &[Bin]| {
            window.windows(BINS).all(|second| share(second, |it| it.succeeded) >= 0.95)
        };
        let back = self.bins[end..end + bin(AFTER)].windows(WINDOW).position(settled);
        let after = &self.bins[end..end + bin(30.0)];
        let worst = watched.windows(WINDOW).map(|it| share(it, |it| it.sent));
        Summary {
            goodput: count(after, |it| it.succeeded) / 30.0,
            goodput_share: share(after, |it| it.succeeded),
            worst: worst.fold(0.0, f64::max),
            overall: share(watched, |it| it.sent),
            recovery: back.map(|it| it as f64 / BINS as f64),
            lost: 1.0 - share(watched, |it| it.succeeded),
        }
    }
}
