use std::time::Duration;
use reqwest_resilient::{ConfigError, Hedge, ResilientConfig};

fn config() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        // Once an attempt is slower than 95 % of the latest; until that is known, after 200 ms.
        .hedge(Hedge::learned(0.95).or_after(Duration::from_millis(200)))
        .build()
}
