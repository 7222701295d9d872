//! Shows with a plain client what each fault of the test-bed looks like from outside.

mod errors;
mod h1;
#[cfg(feature = "http2")]
mod h2;

use std::time::Duration;

use reqwest::{Client, Response};

/// A client without retries of its own.
fn client() -> Client {
    crate::support::client_builder().retry(reqwest::retry::never()).build().unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn get(client: &Client, url: String) -> reqwest::Result<Response> {
    client.get(url).timeout(ms(150)).send().await
}

/// The status once the body is read too.
async fn status(client: &Client, url: String) -> u16 {
    let response = get(client, url).await.unwrap();
    let status = response.status().as_u16();
    response.bytes().await.unwrap();
    status
}
