//! The retry budget, which successes fill.

mod account;
mod bucket;

use std::sync::Arc;

use reqwest::Request;

use crate::common::fault::ConfigFault;
use crate::common::scope::{Scope, next_version};
pub(crate) use crate::retry::budget::account::{Account, Token, TokenWaiter};
pub(crate) use crate::retry::budget::bucket::Success;

/// The deposits and the size of a retry budget.
///
/// # Why a budget
///
/// Retries turn a blip into an outage: three plain retries send every request four times while the
/// server is overloaded. A budget bounds that. While the host still responds it must not cost
/// anything, so retries that succeed pay for further ones.
///
/// # Costs and deposits
///
/// A retry costs one token, even an immediate one, taken before its backoff. It is refunded if the
/// retry is never sent. **A retry that succeeds deposits three tokens, any other success 0.01**:
/// retries go on as long as one in three succeeds. Retries that a server invites are free: after a
/// 429 or a 403 that is a rate limit, and the first one after a 503 or 529 with a retry hint.
///
/// A retry after a timeout costs four tokens more, or as many as are left beside its own: a server
/// that is slow may still be working on what was sent before. The retry quota of AWS SDKs charges
/// double for it.
///
/// The first success after five retries in a row that found no token deposits a whole one: the host
/// is back. So a retry that waits is sent, and pays for the next ones.
///
/// A request with its own [`max_retries(n)`](crate::RetryOverride::max_retries) may take the
/// balance down to `-n`, so that a payment can have its ten retries.
///
/// One token per success would be too much: if one of two routes behind a host is overloaded, the
/// successes of the other would pay for the retries that keep it down.
///
/// # Default
///
/// Size 10, 0.01 per success, 3 per retry that succeeds, 0.005 per second.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::BudgetConfig;
///
/// // A batch job on its own: bursts of two hundred, by the same deposits.
/// let budget = BudgetConfig::default().size(200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct BudgetConfig {
    size: u32,
    deposit: f64,
    retry_deposit: f64,
    trickle: f64,
}

impl BudgetConfig {
    /// Builds the default rules.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::BudgetConfig;
    ///
    /// const BATCH: BudgetConfig = BudgetConfig::new().size(200);
    /// ```
    pub const fn new() -> Self {
        Self { size: 10, deposit: 0.01, retry_deposit: 3.0, trickle: 0.005 }
    }

    /// Sets the most tokens that can be saved; a new budget is full. Default: 10.
    ///
    /// It bounds the burst at the start of an outage, to which every client adds its own.
    pub const fn size(mut self, retries: u32) -> Self {
        self.size = retries;
        self
    }

    /// Sets the tokens that a success at the first attempt deposits. Default: 0.01.
    pub const fn deposit(mut self, per_success: f64) -> Self {
        self.deposit = per_success;
        self
    }

    /// Sets the tokens that a successful retry deposits. Default: 3, so that retries go on while
    /// one in three succeeds.
    pub const fn retry_deposit(mut self, per_success: f64) -> Self {
        self.retry_deposit = per_success;
        self
    }

    /// Sets the tokens that are added each second. Default: 0.005.
    ///
    /// At zero, a client with too few successes to earn a retry would never get one again. During
    /// an outage the trickles of a whole fleet add up.
    pub const fn trickle(mut self, per_second: f64) -> Self {
        self.trickle = per_second;
        self
    }

    /// Validates all settings; returns every fault.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let size = (self.size == 0)
            .then(|| ConfigFault::new("retry_budget.size", "must be > 0", self.size));
        let rate = |field, rate: f64| {
            let broken = !(0.0..=f64::from(u32::MAX)).contains(&rate);
            broken.then(|| ConfigFault::new(field, "must be from 0 to 4294967295", rate))
        };
        let deposit = rate("retry_budget.deposit", self.deposit);
        let retry_deposit = rate("retry_budget.retry_deposit", self.retry_deposit);
        let trickle = rate("retry_budget.trickle", self.trickle);
        [size, deposit, retry_deposit, trickle].into_iter().flatten().collect()
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// The rules and the scope of a client's retry budgets: one bucket per host, per key, or for all
/// requests.
///
/// Every retry that the server did not invite takes a token. While the bucket is empty, retries wait
/// for one in order of arrival, as long as they would at an open breaker
/// ([`max_open_wait`](crate::ResilientConfigBuilder::max_open_wait)); then the request ends with
/// its last result. The backoff begins with the token, since the success that paid for it may have
/// used up a rate limit. At most 10,000 retries wait for one bucket. Holds no state: the balances
/// are in the client's [`HostStates`](crate::HostStates). See [`BudgetConfig`] for the reasons.
///
/// ```
/// use reqwest_resilient::{BudgetConfig, ResilientConfig, RetryBudget};
///
/// let config = ResilientConfig::builder()
///     .retry_budget(RetryBudget::per_host(BudgetConfig::default().size(20)))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryBudget {
    pub(crate) scope: Scope,
    config: BudgetConfig,
    /// Identifies these rules, so that an account notices new ones by one comparison.
    version: u64,
}

impl RetryBudget {
    /// Builds the rules of one bucket for all requests of a client.
    pub fn shared(config: BudgetConfig) -> Self {
        Self::new(config, Scope::Shared)
    }

    /// Builds the rules of one bucket per host: for each scheme, host and port.
    pub fn per_host(config: BudgetConfig) -> Self {
        Self::new(config, Scope::Host)
    }

    /// Builds the rules of one bucket per key that `key_of` finds in the requests.
    pub fn per_key(
        config: BudgetConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(config, Scope::Key(Arc::new(key_of)))
    }

    pub(crate) fn new(config: BudgetConfig, scope: Scope) -> Self {
        Self { scope, config, version: next_version() }
    }

    pub(crate) fn config(&self) -> &BudgetConfig {
        &self.config
    }

    /// Returns these with other rules.
    #[cfg(feature = "serde")]
    pub(crate) fn with_config(self, config: BudgetConfig) -> Self {
        if self.config == config { self } else { Self::new(config, self.scope) }
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        self.config.faults()
    }
}

impl From<BudgetConfig> for RetryBudget {
    fn from(config: BudgetConfig) -> Self {
        Self::per_host(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "serde")]
    fn a_budget_is_shared_if_one_bucket_serves_all() {
        assert!(RetryBudget::shared(BudgetConfig::default()).scope.is_shared());
        assert!(!RetryBudget::per_host(BudgetConfig::default()).scope.is_shared());
    }

    #[test]
    fn faults_name_field_and_value() {
        assert_eq!(BudgetConfig::default().faults(), []);
        let config =
            BudgetConfig::default().size(0).deposit(f64::NAN).retry_deposit(-1.0).trickle(-0.5);
        let faults: Vec<_> =
            RetryBudget::per_host(config).faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "retry_budget.size must be > 0, got 0",
                "retry_budget.deposit must be from 0 to 4294967295, got NaN",
                "retry_budget.retry_deposit must be from 0 to 4294967295, got -1.0",
                "retry_budget.trickle must be from 0 to 4294967295, got -0.5",
            ]
        );
    }
}
