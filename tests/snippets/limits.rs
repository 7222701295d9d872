use reqwest_resilient::{ConcurrencyLimit, ConfigError, Limit, Rate, RateLimit, ResilientConfig};

fn config() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        // At most ten requests at a time to each host.
        .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(10)))
        // At most 60 a minute, one each second.
        .rate_limit(RateLimit::per_host(Rate::per_minute(60)))
        .build()
}
