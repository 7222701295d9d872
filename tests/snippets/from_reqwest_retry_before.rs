use std::time::Duration;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Result};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{DefaultRetryableStrategy, RetryTransientMiddleware};
use reqwest_retry::{Retryable, RetryableStrategy};

/// The server responds 409 while another request holds the lock.
struct Locked;

impl RetryableStrategy for Locked {
    fn handle(&self, result: &Result<reqwest::Response>) -> Option<Retryable> {
        match result {
            Ok(response) if response.status() == 409 => Some(Retryable::Transient),
            _ => DefaultRetryableStrategy.handle(result),
        }
    }
}

fn client() -> Result<ClientWithMiddleware> {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_secs(1), Duration::from_secs(60))
        .build_with_max_retries(3);
    let inner = reqwest::Client::builder()
        .user_agent("inventory/1.0")
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(15))
        .build()?;
    Ok(ClientBuilder::new(inner)
        .with(RetryTransientMiddleware::new_with_policy_and_strategy(policy, Locked))
        .build())
}
