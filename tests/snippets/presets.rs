use std::time::Duration;
use reqwest_resilient::{ConfigError, IdempotencyKey, ResilientConfig};

/// A service whose callers wait for two seconds; its servers respond within half a second as a rule.
fn service() -> Result<ResilientConfig, ConfigError> {
    let preset = ResilientConfig::service(Duration::from_millis(1_800)).to_builder();
    preset.attempt_timeout(Duration::from_millis(600)).build()
}

/// A crawler, which knows thousands of hosts, and has time for slow pages.
fn crawler() -> Result<ResilientConfig, ConfigError> {
    let preset = ResilientConfig::batch().to_builder();
    preset.attempt_timeout(Duration::from_secs(30)).max_hosts(20_000).build()
}

/// An SDK for a server with idempotency keys: POSTs are safe to retry.
fn sdk() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .idempotency_key(IdempotencyKey::random())
        .max_total_time(Duration::from_secs(30))
        .max_wait_time(Duration::from_secs(10))
        .build()
}
