use std::time::Duration;
use reqwest_resilient::{ResilientClient, ResilientConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One request, without a client. A status below 400 is `Ok`, all else an error with all details.
    let page = reqwest_resilient::get("https://example.com/").send_resilient().await?;
    println!("{}", page.text().await?);

    // A client with settings.
    let config = ResilientConfig::builder()
        .max_retries(5)
        .max_total_time(Duration::from_secs(30))
        .on_retry(|it| eprintln!("{}: {}, again in {:?}", it.url, it.outcome, it.wait))
        .build()?;
    let client = ResilientClient::new(config)?;
    match client.get("https://example.com/").send_resilient().await {
        Ok(response) => println!("{}", response.text().await?),
        // prints: GET request to https://example.com/ failed with status 503 after 6 attempts
        Err(error) => eprintln!("{error:#}\n{}", error.history()),
    }
    Ok(())
}
