//! The atomics and locks of the lock-free gate: the standard ones, or those of the model checker.
//!
//! The switch has a name of its own because `--cfg loom` would disable `tokio`'s sockets.

#[cfg(not(all(test, resilient_loom)))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

#[cfg(all(test, resilient_loom))]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
