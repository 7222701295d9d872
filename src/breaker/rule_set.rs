//! The rules that breakers follow, identified by a number.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::breaker::config::BreakerConfig;

/// The rules of a breaker. A breaker notices new ones by comparing one number.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    pub(super) config: Arc<BreakerConfig>,
    pub(super) version: u64,
}

impl RuleSet {
    pub(super) fn new(config: BreakerConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { config: Arc::new(config), version: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Builds the rules of a breaker that is created before its first request: any others replace
    /// them.
    pub(crate) fn provisional() -> Self {
        Self { config: Arc::default(), version: 0 }
    }
}
