use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Result};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{RetryTransientMiddleware, Retryable, RetryableStrategy};

/// Errors of the transport end a request; statuses are retried.
struct StatusesAlone;

impl RetryableStrategy for StatusesAlone {
    fn handle(&self, result: &Result<reqwest::Response>) -> Option<Retryable> {
        result.as_ref().ok().and_then(reqwest_retry::default_on_request_success)
    }
}

/// The user of the SDK says how many retries there are, if any.
fn client(retries: Option<u32>) -> Result<ClientWithMiddleware> {
    let mut builder = ClientBuilder::new(reqwest::Client::new());
    if let Some(retries) = retries {
        let policy = ExponentialBackoff::builder().build_with_max_retries(retries);
        let retry = RetryTransientMiddleware::new_with_policy_and_strategy(policy, StatusesAlone);
        builder = builder.with(retry);
    }
    Ok(builder.build())
}
