//! What the clients do about failures.

use std::sync::Arc;
use std::time::Duration;

use reqwest_resilient::{Outcome, ResilientConfig, ResilientConfigBuilder};
use tower::retry::budget::{Budget as _, TpsBudget};

use crate::random::Random;

/// One way to retry. All share backoff, jitter, number of retries and attempt timeout, so that
/// only what limits the retries differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    NoRetries,
    /// Three retries and nothing else, as reqwest-retry.
    Plain,
    /// What `reqwest::retry` asks: tower's `TpsBudget`, a deposit for each success, 20 % and 10/s.
    Reqwest,
    /// As Finagle: the same window of 10 s, 20 % and 10/s, a deposit for each request.
    Finagle,
    BreakerOnly,
    BudgetOnly,
    /// `ResilientConfig::default()`.
    Default,
    /// The same, and all clients are one fleet.
    Fleet,
}

impl Policy {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoRetries,
        Self::Plain,
        Self::Reqwest,
        Self::Finagle,
        Self::BreakerOnly,
        Self::BudgetOnly,
        Self::Default,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoRetries => "no retries",
            Self::Plain => "three plain retries",
            Self::Reqwest => "reqwest's budget",
            Self::Finagle => "Finagle's budget",
            Self::BreakerOnly => "breaker only",
            Self::BudgetOnly => "budget only",
            Self::Default => "the defaults",
            Self::Fleet => "the defaults, one fleet",
        }
    }

    /// Builds the settings of one client, which has a state of its own.
    pub(crate) fn config(self, timeout: Duration, random: &Arc<Random>) -> ResilientConfig {
        let random = Arc::clone(random);
        let base =
            ResilientConfig::builder().attempt_timeout(timeout).random(move || random.unit());
        let bare = |it: ResilientConfigBuilder| {
            it.without_circuit_breaker().without_retry_budget().without_gate()
        };
        let built = match self {
            Self::NoRetries => bare(base).max_retries(0),
            Self::Plain => bare(base),
            Self::Reqwest => bare(base).retry_if(windowed(|_, ok| ok)),
            Self::Finagle => bare(base).retry_if(windowed(|outcome, _| outcome.attempt() == 1)),
            Self::BreakerOnly => base.without_retry_budget(),
            Self::BudgetOnly => base.without_circuit_breaker(),
            Self::Default | Self::Fleet => base,
        };
        built.build().expect("the settings are possible")
    }
}

/// Asks tower's budget, into which `pays` puts a deposit.
///
/// The loop asks a predicate once per attempt; that of the last one has nothing to withdraw for.
fn windowed(
    pays: impl Fn(&Outcome<'_>, bool) -> bool + Send + Sync,
) -> impl Fn(&Outcome<'_>) -> bool + Send + Sync {
    let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
    move |outcome| {
        let succeeded = outcome.status().is_some_and(|it| it.is_success());
        if pays(outcome, succeeded) {
            budget.deposit();
        }
        !succeeded && outcome.attempt() <= 3 && budget.withdraw()
    }
}
