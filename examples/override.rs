//! How do I set something for one request, or for all requests of a task?
//! `cargo run --example override`

mod server;

use std::time::Duration;

use reqwest_resilient::{Constant, ResilientClient, ResilientConfig, RetryOverride};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "503 Busy", "503 Busy", "503 Busy", "200 OK"])?;
    let client = ResilientClient::new(ResilientConfig::default())?;

    println!("not at all:");
    let once = RetryOverride::new().max_retries(0);
    let error = client.get(&url).with_extension(once.clone()).send_resilient().await.unwrap_err();
    println!("{error:#}");

    println!("for all that a future sends, through other libraries, too:");
    let result = once.scope(async { client.get(&url).send_resilient().await }).await;
    println!("{}", result.unwrap_err());

    println!("a POST that its server knows to be the same:");
    let patient = RetryOverride::new()
        .max_retries(10)
        .backoff(Constant::new(Duration::from_millis(100)))
        .idempotent(true);
    let response = client.post(&url).with_extension(patient).send_resilient().await?;
    println!("{}", response.status());
    Ok(())
}
