use reqwest_resilient::{ConfigError, IdempotencyKey, ResilientConfig, RetryVerdict};

/// A shop that knows idempotency keys, and responds 409 while another order holds the lock.
fn shop() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .idempotency_key(IdempotencyKey::random())
        .retry_if(|outcome| match outcome.status().map(|it| it.as_u16()) {
            Some(409) => RetryVerdict::Retry,
            _ => outcome.default_verdict(),
        })
        .build()
}
