//! The rules of a client's breakers, and the key that each breaker belongs to.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
};

use reqwest::Request;

use crate::breaker::{circuit_breaker::CircuitBreaker, config::BreakerConfig, rule_set::RuleSet};
use crate::common::{fault::ConfigFault, scope::KeyOf};

/// The rules of a client's circuit breakers, and their scope: one per host, one per key, one for
/// all requests, or one that the caller holds.
///
/// Built by [`per_host`](Self::per_host), [`per_key`](Self::per_key) or [`shared`](Self::shared),
/// from a [`BreakerConfig`] (one per host), or from a [`CircuitBreaker`] that the caller holds.
/// Holds no state, unless it was made from a `CircuitBreaker`: the state of the breakers is in the
/// client's [`HostStates`](crate::HostStates).
///
/// ```
/// use reqwest_resilient::{BreakerConfig, ResilientConfig, RetryOverride};
///
/// let three = BreakerConfig::consecutive(3);
/// let config = ResilientConfig::builder()
///     .circuit_breaker(BreakerConfig::default())
///     // One host has another rule.
///     .host("legacy.example.com", RetryOverride::new().circuit_breaker(three))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CircuitBreakers {
    pub(crate) scope: BreakerScope,
    pub(crate) rules: RuleSet,
}

/// The scope of a breaker.
#[derive(Clone)]
pub(crate) enum BreakerScope {
    Host,
    Key(KeyOf),
    Shared,
    /// The caller's own.
    Own(CircuitBreaker),
}

impl CircuitBreakers {
    /// Builds the rules of one breaker per host: for each scheme, host and port.
    pub fn per_host(config: BreakerConfig) -> Self {
        Self::new(BreakerScope::Host, config)
    }

    /// Builds the rules of one breaker per key that `key_of` finds in the requests, such as a
    /// tenant or a route.
    pub fn per_key(
        config: BreakerConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(BreakerScope::Key(Arc::new(key_of)), config)
    }

    /// Builds the rules of one breaker for all requests of a client.
    pub fn shared(config: BreakerConfig) -> Self {
        Self::new(BreakerScope::Shared, config)
    }

    fn new(scope: BreakerScope, config: BreakerConfig) -> Self {
        Self { scope, rules: RuleSet::new(config) }
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        self.rules.config.faults()
    }

    pub(crate) fn config(&self) -> &BreakerConfig {
        &self.rules.config
    }

    /// Returns these with other rules, or these as an error if they are of a breaker of the caller's
    /// own, whose rules never change.
    #[cfg(feature = "serde")]
    pub(crate) fn with_config(self, config: BreakerConfig) -> Result<Self, Self> {
        match self.scope {
            _ if *self.rules.config == config => Ok(self),
            BreakerScope::Own(_) => Err(self),
            scope => Ok(Self::new(scope, config)),
        }
    }

    /// Returns whether there is one breaker for each host.
    #[cfg(feature = "download")]
    pub(crate) fn is_per_host(&self) -> bool {
        matches!(self.scope, BreakerScope::Host)
    }

    /// Returns whether one breaker serves all requests.
    #[cfg(feature = "serde")]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.scope, BreakerScope::Shared)
    }
}

impl From<BreakerConfig> for CircuitBreakers {
    fn from(config: BreakerConfig) -> Self {
        Self::new(BreakerScope::Host, config)
    }
}

impl From<CircuitBreaker> for CircuitBreakers {
    fn from(breaker: CircuitBreaker) -> Self {
        let rules = RuleSet { config: breaker.config(), version: 0 };
        Self { scope: BreakerScope::Own(breaker), rules }
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
