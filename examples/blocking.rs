//! How do I use it without async? `cargo run --example blocking --features blocking`

mod server;

use reqwest_resilient::{ResilientConfig, blocking::ResilientClient};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "200 OK|hello", "404 Not Found|no such page"])?;

    let config = ResilientConfig::builder()
        .on_retry(|it| println!("{}, again in {:?}", it.outcome, it.wait))
        .build()?;
    let client = ResilientClient::new(config)?;

    let mut response = client.get(&url).send_resilient()?;
    let bytes = response.copy_to(&mut std::io::stdout())?;
    println!(" ({bytes} bytes, status {})", response.status());

    // A 404 is final, and an error that keeps its response.
    let error = client.get(&url).send_resilient().unwrap_err();
    println!("{error:#}");
    if let Ok(response) = error.into_blocking_response() {
        println!("its body: {}", response.text()?);
    }

    // Within async code the same call is an error that says what to do.
    let runtime = tokio::runtime::Runtime::new()?;
    let error = runtime.block_on(async { client.get(&url).send_resilient().unwrap_err() });
    println!("{error:#}");
    Ok(())
}
