use std::{error::Error, time::Duration};
use reqwest_resilient::{ResilientConfig, blocking::ResilientClient};

fn place(order: &'static str, url: &str) -> Result<String, Box<dyn Error>> {
    let config = ResilientConfig::builder()
        .max_retries(5)
        .max_total_time(Duration::from_secs(30))
        .on_retry(|it| println!("attempt {}", it.attempt))
        .build()?;
    let client = ResilientClient::new(config)?;
    let response = client.post(url).body(order).send_resilient()?;
    Ok(response.text()?)
}
