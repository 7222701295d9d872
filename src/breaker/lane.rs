//! Successes of a calm breaker, counted without its lock.
//!
//! While a breaker is closed and no rule is near, a success changes one number only: the number of
//! successes. Threads add to that number in lanes of their own, which lie on separate cache lines,
//! so that they do not wait for each other. A thread that takes the lock first closes the lanes and
//! collects their numbers: no decision lacks a result.

use std::sync::OnceLock;

use crate::breaker::sync::{AtomicU64, Ordering};

/// The number of lanes. More of them would let more threads count side by side, and cost each
/// failure one more step and each breaker 400 bytes more once they are used.
pub(super) const LANES: usize = 4;

/// The lanes of one breaker, each allocated under the lock, at its first success.
#[derive(Debug, Default)]
pub(super) struct Lanes([OnceLock<Box<Lane>>; LANES]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    /// A [`tag`] in the upper half, the number of successes in the lower; 0 while closed.
    word: AtomicU64,
    /// The moment from which on successes must not be counted here: the end of a slice of the
    /// window. Only changed while the lane is closed.
    until: AtomicU64,
}

impl Lanes {
    /// Counts a success of this generation at `moment`, unless the lane is closed to it; one that
    /// is no sample of the window adds nothing to the number.
    pub(super) fn count(&self, lane: usize, generation: u64, moment: u64, sample: bool) -> bool {
        let Some(lane) = self.0[lane % LANES].get() else { return false };
        // If the lane is closed between the two reads and opened again, the word may look the
        // same and `until` be an old one. The success is then counted among those of the slice
        // that has begun meanwhile, where the lock would put one so late, too.
        let counted = lane.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let open = word >> 32 == tag(generation) && word as u32 != u32::MAX;
            (open && moment < lane.until.load(Ordering::Relaxed)).then(|| word + u64::from(sample))
        });
        counted.is_ok()
    }

    /// Creates a lane, closed, unless it is there. Under the lock only, so that the next thread
    /// that opens or closes the lanes finds it.
    pub(super) fn prepare(&self, lane: usize) {
        self.0[lane % LANES].get_or_init(Box::default);
    }

    /// Closes all and returns the number of successes they counted. Under the lock only, as is
    /// [`open`](Self::open).
    pub(super) fn close(&self) -> u64 {
        let count = |lane: &Lane| u64::from(lane.word.swap(0, Ordering::AcqRel) as u32);
        self.in_use().map(count).sum()
    }

    /// Opens all to successes of this generation before `until`.
    pub(super) fn open(&self, generation: u64, until: u64) {
        for lane in self.in_use() {
            lane.until.store(until, Ordering::Relaxed);
            lane.word.store(tag(generation) << 32, Ordering::Release);
        }
    }

    fn in_use(&self) -> impl Iterator<Item = &Lane> {
        self.0.iter().filter_map(OnceLock::get).map(|it| &**it)
    }
}

/// Returns the lower 31 bits of a generation with the highest bit set, so that it is never 0. A
/// permit would have to outlast two thousand million generations to be taken for one of another.
fn tag(generation: u64) -> u64 {
    1 << 31 | generation & 0x7fff_ffff
}
