use reqwest_resilient::{BreakerConfig, ConfigError, ResilientClient, ResilientConfig};

/// The only client of a small machine: no more than three failures in a row, then a pause.
fn gentle() -> Result<ResilientConfig, ConfigError> {
    let rules = BreakerConfig::default().or_consecutive(3);
    ResilientConfig::builder().circuit_breaker(rules).build()
}

/// Maintenance: requests to this host end at once, until `reset`.
fn stop_for_maintenance(client: &ResilientClient) {
    client.hosts().breaker("https://api.example.com").force_open();
}
