//! Successes of a calm breaker, counted without its lock.
//!
//! While a breaker is closed and nothing is wrong, a success changes one number only: how many
//! there were. Threads add to that number in lanes of their own, which lie on separate cache
//! lines, so that they do not wait for each other. Whoever takes the lock closes the lanes and
//! collects what is in them first: nothing is decided on numbers that lack a result.

use crate::breaker::sync::{AtomicU64, Ordering};

/// More lanes would let more threads count side by side, and cost each failure one more step and
/// each breaker 1.5 KB more.
pub(super) const LANES: usize = 4;

#[derive(Debug)]
pub(super) struct Lanes([Lane; LANES]);

#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    /// A [`tag`] in the upper half, the number of successes in the lower; 0 while closed.
    word: AtomicU64,
    /// The moment from which on successes must not be counted here: the end of a slice of the
    /// window. Only changed while the lane is closed.
    until: AtomicU64,
}

impl Lanes {
    /// All closed.
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Lane { word: AtomicU64::new(0), until: AtomicU64::new(0) }))
    }

    /// Counts a success of this generation at `moment`, unless the lane is closed to it; one that
    /// is no sample of the window adds nothing to the number.
    pub(super) fn count(&self, lane: usize, generation: u64, moment: u64, sample: bool) -> bool {
        let lane = &self.0[lane % LANES];
        // If the lane is closed between the two reads and opened again, the word may look the
        // same and `until` be an old one. The success is then counted among those of the slice
        // that has begun meanwhile, where the lock would put one so late, too.
        let counted = lane.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let open = word >> 32 == tag(generation) && word as u32 != u32::MAX;
            (open && moment < lane.until.load(Ordering::Relaxed)).then(|| word + u64::from(sample))
        });
        counted.is_ok()
    }

    /// Closes all and gives back how many successes were counted. Under the lock only, as is
    /// [`open`](Self::open).
    pub(super) fn close(&self) -> u64 {
        let count = |lane: &Lane| u64::from(lane.word.swap(0, Ordering::AcqRel) as u32);
        self.0.iter().map(count).sum()
    }

    /// Opens all to successes of this generation before `until`.
    pub(super) fn open(&self, generation: u64, until: u64) {
        for lane in &self.0 {
            lane.until.store(until, Ordering::Relaxed);
            lane.word.store(tag(generation) << 32, Ordering::Release);
        }
    }
}

/// Tells generations apart in half a word, and is never 0. A permit would have to sleep through
/// two thousand million of them to be taken for one of another.
fn tag(generation: u64) -> u64 {
    1 << 31 | generation & 0x7fff_ffff
}
