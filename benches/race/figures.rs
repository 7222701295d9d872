//! What is counted while a scenario runs, and the figures that come of it.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::scenario::Ask;

const SECOND: Duration = Duration::from_secs(1);

/// Counts sends, from both ends: those that arrive, and those whose connection is refused.
pub(crate) struct Ledger {
    start: OnceLock<Instant>,
    down: Range<Duration>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    sends: usize,
    sends_while_down: usize,
    /// Responses of 429.
    refused: usize,
    /// When requests were sent after the outage.
    sent_after: Vec<Duration>,
    processed: HashMap<usize, usize>,
}

impl Ledger {
    /// Counts apart what is sent within `down`.
    pub(crate) fn new(down: Option<Range<Duration>>) -> Self {
        let down = down.unwrap_or(Duration::ZERO..Duration::ZERO);
        Self { start: OnceLock::new(), down, counts: Mutex::default() }
    }

    /// Returns when the scenario starts: at the first call.
    pub(crate) fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    pub(crate) fn record_send(&self) {
        let now = self.start().elapsed();
        let mut counts = self.counts.lock().expect("counts");
        counts.sends += 1;
        counts.sends_while_down += usize::from(self.down.contains(&now));
        if now >= self.down.end && !self.down.is_empty() {
            counts.sent_after.push(now);
        }
    }

    pub(crate) fn record_status(&self, status: u16) {
        self.counts.lock().expect("counts").refused += usize::from(status == 429);
    }

    pub(crate) fn record_processed(&self, ask: Ask) {
        *self.counts.lock().expect("counts").processed.entry(ask.id).or_default() += 1;
    }

    /// Sums up what became of the requests.
    pub(crate) fn figures(&self, results: &[Done]) -> Figures {
        let counts = self.counts.lock().expect("counts");
        let counted = || results.iter().filter(|it| it.counts);
        let mut times: Vec<f64> =
            counted().filter(|it| it.good).map(|it| it.took.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let percentile = |share: f64| {
            let at = (times.len() as f64 * share).ceil() as usize;
            times.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Figures {
            succeeded: times.len() as f64,
            asked: counted().count() as f64,
            seconds: results.iter().map(|it| it.ended).max().unwrap_or_default().as_secs_f64(),
            sends: counts.sends as f64,
            sends_while_down: counts.sends_while_down as f64,
            refused: counts.refused as f64,
            peak_after: busiest_second(&counts.sent_after) as f64,
            twice: counts.processed.values().filter(|it| **it > 1).count() as f64,
            p50: percentile(0.5),
            p99: percentile(0.99),
        }
    }
}

/// Returns the most sends within a second; times are in order, or nearly.
fn busiest_second(sent: &[Duration]) -> usize {
    let within = |from: usize| sent.partition_point(|it| *it < sent[from] + SECOND) - from;
    (0..sent.len()).map(within).max().unwrap_or(0)
}

/// What became of one request.
#[derive(Clone, Copy)]
pub(crate) struct Done {
    pub(crate) counts: bool,
    pub(crate) good: bool,
    pub(crate) took: Duration,
    /// Counted from the start of the scenario.
    pub(crate) ended: Duration,
}

/// How a client did in a scenario.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) succeeded: f64,
    pub(crate) asked: f64,
    pub(crate) seconds: f64,
    pub(crate) sends: f64,
    pub(crate) sends_while_down: f64,
    /// Responses of 429.
    pub(crate) refused: f64,
    /// Sends in the busiest second after the outage.
    pub(crate) peak_after: f64,
    /// POSTs that the server processed more than once.
    pub(crate) twice: f64,
    /// Milliseconds of the requests that succeeded.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Figures {
    /// Returns the median of each figure.
    pub(crate) fn median(of: &[Self]) -> Self {
        let each = |figure: fn(&Self) -> f64| {
            let mut values: Vec<_> = of.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            succeeded: each(|it| it.succeeded),
            asked: each(|it| it.asked),
            seconds: each(|it| it.seconds),
            sends: each(|it| it.sends),
            sends_while_down: each(|it| it.sends_while_down),
            refused: each(|it| it.refused),
            peak_after: each(|it| it.peak_after),
            twice: each(|it| it.twice),
            p50: each(|it| it.p50),
            p99: each(|it| it.p99),
        }
    }

    pub(crate) fn lost(&self) -> f64 {
        self.asked - self.succeeded
    }
}
