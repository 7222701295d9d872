use reqwest_resilient::{BreakerConfig, ConfigError, ResilientClient, ResilientConfig};

/// The only client of a small machine, which must not hear more than three failures in a row.
fn gentle() -> Result<ResilientConfig, ConfigError> {
    let rules = BreakerConfig::default().or_consecutive(3);
    ResilientConfig::builder().circuit_breaker(rules).build()
}

/// Maintenance: requests to this host end at once, until `reset`.
fn close_for_maintenance(client: &ResilientClient) {
    client.hosts().breaker("https://api.example.com").force_open();
}
