//! How many retries successes have paid for.

mod account;
mod bucket;

use std::fmt;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use reqwest::Request;

use crate::common::fault::ConfigFault;
pub(crate) use crate::retry::budget::account::{Account, Token};

/// How a retry budget fills and how much it holds.
///
/// # Why a budget
///
/// Retries turn a blip into an outage. Three plain retries send every request four times just when
/// the server can least bear it. `examples/storm.rs` lets clients of this crate loose on a simulated
/// server of 500 requests a second, first come, first served, that still works for clients that have
/// left. For 10 s nothing answers: fifty clients with three plain retries then keep it down at 50 %
/// load as at 90 %, with 3.9 attempts per request, until nobody watches any more.
///
/// # Why funded by successes
///
/// A budget that refills with time refills during the outage as well, once per client: 20 % plus
/// 10 retries a second is harmless for five clients in that outage, and a second outage for fifty,
/// from 70 % load on for ever. A success is the only evidence that the server has room. A tenth of
/// a retry for each bounds the extra load at 10 % whatever the number of clients, and when nothing
/// succeeds, next to nothing is re-sent.
///
/// # What costs, and what comes back
///
/// A retry costs one token, taken before the wait. It is refunded if the retry is never sent, and
/// only then: how it went makes no difference. Free are retries the server cannot have seen as
/// load, such as the one on a connection that had gone stale. With the bucket empty, the request
/// ends at once with what it has; nobody waits for a token.
///
/// # Default
///
/// Size 3, 0.1 per success, 0.005 per second, upkeep 0.2. With these and a breaker per host, at 50 %
/// to 90 % load, five to five hundred simulated clients are back within 6 s of that outage and
/// within 8 s of a brownout (30 s at a fifth of the capacity), 5,000 clients within 4 s and 100 s.
/// Any 5 s have at most 1.1 attempts per request with five or fifty clients, 1.4 with five hundred,
/// and 3.2 with 5,000, each of which asks so seldom that one retry is much.
///
/// So a new client, one that has been silent for ten minutes and one of more than two successes a
/// second have three retries saved up; one that steadily makes fewer has one, and what it earns. A
/// client on its own that repeats much may have a larger budget.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::BudgetConfig;
///
/// // A batch job on its own: one retry for every five successes, bursts of fifty.
/// let budget = BudgetConfig::default().size(50).deposit(0.2).upkeep(0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    size: u32,
    deposit: f64,
    trickle: f64,
    upkeep: f64,
}

impl BudgetConfig {
    /// The most retries that can be saved up; a new budget is full. Default 3.
    ///
    /// It bounds the burst at the start of an outage, which all clients together make. Three let one
    /// request use all its retries. With ten, five hundred simulated clients make up to 2.0 attempts
    /// per request, and 5,000 never recover from a brownout at a load of 70 % or more.
    pub const fn size(mut self, retries: u32) -> Self {
        self.size = retries;
        self
    }

    /// The retries each successful request pays for, a fraction as a rule. Default 0.1.
    ///
    /// It bounds the share of load that is retries, in the long run. A client whose attempts fail
    /// at random has about one retry to pay per failure: 0.1 feeds a failure rate of 9 %, and the
    /// bucket outlasts higher ones for a while.
    pub const fn deposit(mut self, per_success: f64) -> Self {
        self.deposit = per_success;
        self
    }

    /// The retries that come back by themselves each second. Default 0.005, so that a bucket is
    /// full again after ten minutes.
    ///
    /// Without any, a client too quiet to earn a retry would never get one again. Every client
    /// adds it up during an outage: at 0.05 the retries of 5,000 clients take half of a simulated
    /// server of 500 requests a second, for ever.
    pub const fn trickle(mut self, per_second: f64) -> Self {
        self.trickle = per_second;
        self
    }

    /// What it costs each second to keep more than one retry, taken at each success for the time
    /// since the success before it. Default 0.2: what two successes a second earn.
    ///
    /// It bounds the burst at the start of an outage where many clients make few requests each. A
    /// client of one request in two seconds that has three retries saved up sends nearly twice as
    /// much in the first five seconds of an outage, as do the 499 others. A busy client's three are
    /// nothing beside its requests, and one that is new or seldom there has had no success to pay
    /// at. Nothing is taken during an outage. Without upkeep (0) what is saved stays.
    pub const fn upkeep(mut self, per_second: f64) -> Self {
        self.upkeep = per_second;
        self
    }

    /// Every setting that makes no sense: its name, and what is wrong with its value.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let size = (self.size == 0)
            .then(|| ConfigFault::new("retry_budget.size", "must be > 0", self.size));
        let rate = |field, rate: f64| {
            let broken = !(0.0..=f64::from(u32::MAX)).contains(&rate);
            broken.then(|| ConfigFault::new(field, "must be from 0 to 4294967295", rate))
        };
        let deposit = rate("retry_budget.deposit", self.deposit);
        let trickle = rate("retry_budget.trickle", self.trickle);
        let upkeep = rate("retry_budget.upkeep", self.upkeep);
        [size, deposit, trickle, upkeep].into_iter().flatten().collect()
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { size: 3, deposit: 0.1, trickle: 0.005, upkeep: 0.2 }
    }
}

/// The rules of a client's retry budgets, and by what they are kept: one bucket a host, one a key, or
/// one for all requests.
///
/// Asked before every retry, and never waited for: with the bucket empty, the request ends at
/// once with what it has. Holds no state: the balances are in the client's
/// [`HostStates`](crate::HostStates). See [`BudgetConfig`] for the reasons.
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
pub struct RetryBudget {
    pub(crate) scope: BudgetScope,
    config: BudgetConfig,
    /// Tells these rules from all others, so that an account notices new ones by one comparison.
    version: u64,
}

/// By what budgets are kept.
#[derive(Clone)]
pub(crate) enum BudgetScope {
    Host,
    Key(Arc<dyn Fn(&Request) -> String + Send + Sync>),
    Shared,
}

impl RetryBudget {
    /// Builds the rules of one bucket for all requests of a client.
    pub fn shared(config: BudgetConfig) -> Self {
        Self::new(config, BudgetScope::Shared)
    }

    /// Builds the rules of one bucket a host: for each scheme, host and port.
    pub fn per_host(config: BudgetConfig) -> Self {
        Self::new(config, BudgetScope::Host)
    }

    /// Builds the rules of one bucket a key that `key_of` finds in the requests.
    pub fn per_key(
        config: BudgetConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(config, BudgetScope::Key(Arc::new(key_of)))
    }

    fn new(config: BudgetConfig, scope: BudgetScope) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { scope, config, version: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn config(&self) -> &BudgetConfig {
        &self.config
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

impl fmt::Debug for BudgetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host",
            Self::Key(_) => "Key",
            Self::Shared => "Shared",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_field_and_value() {
        assert_eq!(BudgetConfig::default().faults(), []);
        let config = BudgetConfig::default().size(0).deposit(f64::NAN).trickle(-0.5).upkeep(-1.0);
        let faults: Vec<_> = config.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "retry_budget.size must be > 0, got 0",
                "retry_budget.deposit must be from 0 to 4294967295, got NaN",
                "retry_budget.trickle must be from 0 to 4294967295, got -0.5",
                "retry_budget.upkeep must be from 0 to 4294967295, got -1.0",
            ]
        );
    }
}
