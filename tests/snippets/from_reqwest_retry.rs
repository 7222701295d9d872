use std::{error::Error, time::Duration};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{Exponential, Resilient, ResilientConfig};

fn client() -> Result<ClientWithMiddleware, Box<dyn Error>> {
    let config = ResilientConfig::builder()
        .backoff(Exponential::new(Duration::from_secs(1)).max_delay(Duration::from_secs(60)))
        .max_retries(3)
        .attempt_timeout(Duration::from_secs(10))
        .build()?;
    let inner = Resilient::reqwest_builder().build()?;
    Ok(ClientBuilder::new(inner).with(Resilient::new(config)).build())
}
