use std::time::Duration;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Result};
use reqwest_resilient::{Exponential, Outcome, Resilient, ResilientConfig};

/// The server responds 409 while another request holds the lock.
fn is_retried(outcome: &Outcome<'_>) -> bool {
    outcome.status().is_some_and(|it| it == 409) || outcome.default_verdict().is_retry()
}

fn client() -> Result<ClientWithMiddleware> {
    let config = ResilientConfig::builder()
        .backoff(Exponential::new(Duration::from_secs(1)).max_delay(Duration::from_secs(60)))
        .max_retries(3)
        .attempt_timeout(Duration::from_secs(15))
        .retry_if(is_retried)
        .build()
        .map_err(Error::middleware)?;
    let inner = Resilient::reqwest_builder()
        .user_agent("inventory/1.0")
        .build()?;
    Ok(ClientBuilder::new(inner)
        .with(Resilient::new(config))
        .build())
}
