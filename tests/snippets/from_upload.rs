use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use reqwest::{Body, Response};
use reqwest_resilient::{BodyFactory, ResilientClient, RetryOverride};
use tokio::fs::File;

/// Opens the file for each attempt. A package that comes twice is one, so the POST may be repeated.
async fn upload(
    client: &ResilientClient,
    url: &str,
    path: &Path,
) -> Result<Response, Box<dyn Error>> {
    let path: Arc<Path> = path.into();
    let body = BodyFactory::new(move || {
        let file = File::open(Arc::clone(&path));
        async { Ok(Body::from(file.await?)) }
    });
    let repeated = RetryOverride::new().idempotent(true);
    let request = client.post(url).with_extension(body).with_extension(repeated);
    Ok(request.send().await?)
}
