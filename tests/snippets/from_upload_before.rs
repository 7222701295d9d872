use std::error::Error;
use std::path::Path;
use std::time::{Duration, SystemTime};
use reqwest::{Body, Client, Response};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{RetryDecision, RetryPolicy};
use tokio::fs::File;

/// A stream cannot be sent twice, so the middleware has no part in this: the loop is by hand.
async fn upload(client: &Client, url: &str, path: &Path) -> Result<Response, Box<dyn Error>> {
    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    let (start, mut retries) = (SystemTime::now(), 0);
    loop {
        let body = Body::from(File::open(path).await?);
        let response = client.post(url).body(body).send().await?;
        if !response.status().is_server_error() {
            return Ok(response);
        }
        match policy.should_retry(start, retries) {
            RetryDecision::DoNotRetry => return Ok(response),
            RetryDecision::Retry { execute_after } => {
                let wait = execute_after.duration_since(SystemTime::now());
                tokio::time::sleep(wait.unwrap_or(Duration::ZERO)).await;
            }
        }
        retries += 1;
    }
}
