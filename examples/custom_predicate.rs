//! How do I say by myself what is retried? `cargo run --example custom_predicate`
//!
//! This API responds with 404 until it knows of a job, and with 200 while the job is still running.

mod server;

use std::time::Duration;

use reqwest_resilient::{Constant, Outcome, ResilientClient, ResilientConfig};

/// Takes the place of the list of statuses and of what is known about errors.
fn is_passing(outcome: &Outcome<'_>) -> bool {
    match outcome.status().map(|it| it.as_u16()) {
        Some(200) => outcome.body().is_some_and(|it| it == b"running"),
        Some(404 | 429 | 502..=504) => true,
        Some(_) => false,
        None => outcome.is_timeout() || outcome.is_connect(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["404 Not Yet", "200 OK|running", "200 OK|done"])?;

    let config = ResilientConfig::builder()
        .retry_if(is_passing)
        // Bodies are shown to the predicate if they are read within the attempt.
        .read_body(64 * 1024)
        .backoff(Constant::new(Duration::from_millis(100)))
        // Polls are no failures: as many as the time allows, without the budget.
        .max_retries(1_000)
        .without_retry_budget()
        .max_total_time(Duration::from_secs(30))
        .build()?;
    let client = ResilientClient::new(config)?;
    println!("{}", client.get(&url).send_resilient().await?.text().await?);
    Ok(())
}
