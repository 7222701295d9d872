//! How do I retry an upload that is a stream? `cargo run --example streaming_upload`
//!
//! A stream can be read once, so a request with one is sent once. A `BodyFactory` makes a new
//! stream for each attempt.

mod server;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use reqwest_resilient::{BodyFactory, ResilientClient, ResilientConfig, ResponseExt};

/// Stands for a file, or whatever the upload comes from.
fn chunks() -> Body {
    let chunks = (0..4).map(|i| Ok::<_, std::io::Error>(Bytes::from(format!("chunk {i}\n"))));
    Body::wrap_stream(stream::iter(chunks))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "503 Busy", "201 Created"])?;
    let client = ResilientClient::new(ResilientConfig::default())?;

    println!("a stream:");
    let error = client.put(&url).body(chunks()).send_resilient().await.unwrap_err();
    println!("{error:#}");

    println!("streams, as many as it takes:");
    let upload = BodyFactory::new(async || Ok(chunks()));
    let response = client.put(&url).with_extension(upload).send_resilient().await?;
    println!("{} after {} attempts", response.status(), response.attempts());
    Ok(())
}
