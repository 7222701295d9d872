//! The breakers of a client: by what they are kept, and their rules.

use std::{
    fmt::{self, Debug, Formatter},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use reqwest::Request;

use crate::breaker::{BreakerConfig, CircuitBreaker};
use crate::common::fault::ConfigFault;

/// The rules of a client's circuit breakers, and by what they are kept: one a host, one a key, one
/// for all requests, or one that the caller holds.
///
/// Made from a [`BreakerConfig`] (one a host), by [`CircuitBreaker::per_host`],
/// [`CircuitBreaker::per_key`] or [`CircuitBreaker::shared`], or from a [`CircuitBreaker`]. Holds no
/// state, unless it was made from a `CircuitBreaker`: what the breakers know is in the client's
/// [`HostStates`](crate::HostStates).
///
/// ```
/// use std::num::NonZeroU32;
/// use reqwest_resilient::{BreakerConfig, ResilientConfig, RetryOverride};
///
/// let three = BreakerConfig::consecutive(NonZeroU32::new(3).unwrap());
/// let config = ResilientConfig::builder()
///     .circuit_breaker(BreakerConfig::default())
///     // One host has another rule.
///     .host("legacy.example.com", RetryOverride::new().circuit_breaker(three))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreakers {
    pub(crate) scope: BreakerScope,
    pub(super) config: Arc<BreakerConfig>,
    /// Tells these rules from all others, so that a breaker notices new ones by one comparison.
    pub(super) version: u64,
}

/// By what breakers are kept.
#[derive(Clone)]
pub(crate) enum BreakerScope {
    Host,
    Key(Arc<dyn Fn(&Request) -> String + Send + Sync>),
    Shared,
    /// The caller's own.
    Own(CircuitBreaker),
}

impl CircuitBreakers {
    pub(super) fn new(scope: BreakerScope, config: BreakerConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let version = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { scope, config: Arc::new(config), version }
    }

    /// Rules that no breaker adopts: for a breaker that is asked for before its first request.
    pub(super) fn unruled() -> Self {
        let config = Arc::new(BreakerConfig::default());
        Self { scope: BreakerScope::Host, config, version: 0 }
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        self.config.faults()
    }

    pub(crate) fn config(&self) -> &BreakerConfig {
        &self.config
    }
}

impl From<BreakerConfig> for CircuitBreakers {
    fn from(config: BreakerConfig) -> Self {
        Self::new(BreakerScope::Host, config)
    }
}

impl From<CircuitBreaker> for CircuitBreakers {
    fn from(breaker: CircuitBreaker) -> Self {
        let config = breaker.config();
        Self { scope: BreakerScope::Own(breaker), config, version: 0 }
    }
}

impl Debug for BreakerScope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host",
            Self::Key(_) => "Key",
            Self::Shared => "Shared",
            Self::Own(_) => "Own",
        })
    }
}
