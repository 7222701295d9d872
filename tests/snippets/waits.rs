use std::time::Duration;
use reqwest_resilient::http::HeaderName;
use reqwest_resilient::{ConfigError, Exponential, HintHeaders, ResilientConfig};

/// A job that polls a report, whose server says in `x-come-back` when it will be ready.
fn poller() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .max_retries(20)
        .without_retry_budget()
        .backoff(Exponential::new(Duration::from_millis(100)).max_delay(Duration::from_secs(5)))
        .hint_headers(HintHeaders::default().with(HeaderName::from_static("x-come-back")))
        .max_wait_time(Duration::from_secs(300))
        .build()
}
