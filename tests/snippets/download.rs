use reqwest_resilient::{ResilientClient, ResilientConfig};

async fn fetch() -> Result<(), Box<dyn std::error::Error>> {
    let client = ResilientClient::new(ResilientConfig::batch())?;
    let it = client.get("https://example.com/big.iso").download().to_file("big.iso").await?;
    println!("{} bytes, resumed {} times", it.bytes(), it.resumes());
    Ok(())
}
