use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Result};
use reqwest_resilient::{Outcome, Resilient, ResilientConfig};

/// Errors of the transport end a request; statuses are retried.
fn is_retried(outcome: &Outcome<'_>) -> bool {
    outcome.status().is_some() && outcome.default_verdict().is_retry()
}

/// The user of the SDK says how many retries there are, if any.
fn client(retries: Option<u32>) -> Result<ClientWithMiddleware> {
    let mut builder = ClientBuilder::new(Resilient::reqwest_builder().build()?);
    if let Some(retries) = retries {
        let config = ResilientConfig::builder().max_retries(retries).retry_if(is_retried);
        let config = config.without_attempt_timeout().build().map_err(Error::middleware)?;
        builder = builder.with(Resilient::new(config));
    }
    Ok(builder.build())
}
