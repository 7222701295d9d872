use reqwest_resilient::{BudgetConfig, ConfigError, ResilientConfig};

/// An import at night, the only client of its server: longer bursts of failures are retried.
fn import() -> Result<ResilientConfig, ConfigError> {
    let budget = BudgetConfig::default().size(100);
    ResilientConfig::builder().max_retries(6).retry_budget(budget).build()
}
