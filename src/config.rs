//! The settings of a `Resilient`: presets, and a builder that names every fault.

use std::{fmt, sync::Arc};

use crate::fault::ConfigError;
use crate::policy::{Patch, Policy};

/// The settings of a [`Resilient`](crate::Resilient). Cheap to clone.
///
/// # Default
///
/// Meant to be shipped by a fleet of strangers without meeting:
///
/// | setting | default |
/// |---|---|
/// | `max_retries` | 3 |
/// | `backoff`, `jitter` | exponential from 300 ms, at most 20 s; full jitter |
/// | `retry_statuses` | 408, 425, 429, 500, 502, 503, 504 |
/// | `retry_methods` | idempotent ones |
/// | `retry_after` | waits at least as long as the server says |
/// | `max_wait_time` | 60 s |
/// | `circuit_breaker` | one per host, [`BreakerConfig::default`](crate::BreakerConfig) |
/// | `retry_budget` | one per host, [`BudgetConfig::default`](crate::BudgetConfig) |
/// | `gate` | on |
/// | `attempt_timeout`, `max_total_time` | none |
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Exponential, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .max_retries(5)
///     .backoff(Exponential::new(Duration::from_millis(100)))
///     .max_total_time(Duration::from_secs(30))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ResilientConfig {
    policy: Arc<Policy>,
}

impl ResilientConfig {
    /// A builder that starts from the defaults.
    pub fn builder() -> ResilientConfigBuilder {
        Self::default().to_builder()
    }

    /// The defaults of the Python library *aresilient*, for people who port.
    ///
    /// 429, 500, 502, 503 and 504, exponential from 0.3 s without a cap, no jitter, every method,
    /// 3 retries, and a Retry-After in place of the backoff. It re-sends a POST that may have been
    /// processed, as the reference does. Where the reference would sleep without end on a server's
    /// word, this gives up: `max_wait_time` is just under an hour.
    pub fn aresilient() -> Self {
        Self { policy: Arc::new(Policy::aresilient()) }
    }

    /// A builder that starts from these settings.
    pub fn to_builder(&self) -> ResilientConfigBuilder {
        ResilientConfigBuilder { base: Arc::clone(&self.policy), patch: Patch::default() }
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }
}

impl Default for ResilientConfig {
    fn default() -> Self {
        let policy = Policy::default();
        policy.settle();
        Self { policy: Arc::new(policy) }
    }
}

impl fmt::Debug for ResilientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Policy { max_retries, jitter, methods, max_wait_time, max_total_time, .. } =
            &*self.policy;
        f.debug_struct("ResilientConfig")
            .field("max_retries", max_retries)
            .field("jitter", jitter)
            .field("retry_methods", methods)
            .field("max_wait_time", max_wait_time)
            .field("max_total_time", max_total_time)
            .finish_non_exhaustive()
    }
}

/// Builds a [`ResilientConfig`].
#[derive(Clone)]
#[must_use]
pub struct ResilientConfigBuilder {
    base: Arc<Policy>,
    patch: Patch,
}

impl ResilientConfigBuilder {
    /// The settings, if they can be.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its field and value: a duration of zero where that means
    /// nothing, a jitter that is negative or no number, an attempt timeout longer than the total
    /// time.
    pub fn build(self) -> Result<ResilientConfig, ConfigError> {
        let policy = self.base.patched([&self.patch]);
        policy.check()?;
        policy.settle();
        Ok(ResilientConfig { policy: Arc::new(policy) })
    }

    pub(crate) fn patch(&mut self) -> &mut Patch {
        &mut self.patch
    }
}

impl fmt::Debug for ResilientConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientConfigBuilder").finish_non_exhaustive()
    }
}
