use reqwest_resilient::{ResilientClient, RetryOverride};

async fn search(client: &ResilientClient) -> reqwest_middleware::Result<()> {
    let patient = RetryOverride::new().max_retries(10).idempotent(true);
    client.post("https://example.com/search").with_extension(patient).send().await?;
    // For every request of a future, also through libraries that build their own:
    let once = RetryOverride::new().max_retries(0);
    once.scope(async { client.get("https://example.com/").send().await }).await?;
    Ok(())
}
