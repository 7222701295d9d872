//! The rules that breakers follow, identified by a number.

use std::sync::Arc;

use crate::breaker::config::BreakerConfig;
use crate::common::scope::next_version;

/// The rules of a breaker. A breaker notices new ones by comparing one number.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    pub(super) config: Arc<BreakerConfig>,
    pub(super) version: u64,
}

impl RuleSet {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config: Arc::new(config), version: next_version() }
    }

    /// Builds the rules of a breaker that is created before its first request: any others replace
    /// them.
    pub(crate) fn provisional() -> Self {
        Self { config: Arc::default(), version: 0 }
    }
}
