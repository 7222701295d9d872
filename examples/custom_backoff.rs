//! How do I say by myself how long the waits are? `cargo run --example custom_backoff`

mod server;

use std::time::Duration;

use reqwest_resilient::{Backoff, Jitter, ResilientClient, ResilientConfig};

/// A table of delays, whose last entry repeats.
struct Table(&'static [u64]);

impl Backoff for Table {
    fn delay(&self, retry: u32) -> Duration {
        let delay = usize::try_from(retry).ok().and_then(|it| self.0.get(it));
        Duration::from_millis(*delay.or_else(|| self.0.last()).unwrap_or(&0))
    }

    /// Jitter stays under it.
    fn max_delay(&self) -> Option<Duration> {
        self.0.iter().max().map(|it| Duration::from_millis(*it))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "503 Busy", "503 Busy", "200 OK"])?;

    // For a formula, a closure will do: `.backoff(|retry: u32| …)`.
    let config = ResilientConfig::builder()
        .backoff(Table(&[50, 200, 400]))
        .jitter(Jitter::Equal)
        .on_retry(|it| println!("waits {:?}", it.wait))
        .build()?;
    let client = ResilientClient::new(config)?;
    println!("{}", client.get(&url).send_resilient().await?.status());
    Ok(())
}
