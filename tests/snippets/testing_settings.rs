use std::{error::Error, time::Duration};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Exponential, Jitter, ResilientClient, ResilientConfig, ResponseExt};

#[tokio::test(start_paused = true)]
async fn waits_double() -> Result<(), Box<dyn Error>> {
    let config = ResilientConfig::builder()
        .backoff(Exponential::new(Duration::from_secs(1)))
        .jitter(Jitter::None)
        .build()?;
    let script = Script::new([Reply::status(503), Reply::status(503), Reply::status(200)]);
    let client = ResilientClient::builder().config(config).with(script.clone()).build()?;

    let response = client.get("https://api.example.com/").send_resilient().await?;
    assert_eq!(response.attempts(), 3);
    let sent = script.sent();
    assert_eq!(sent[1].at - sent[0].at, Duration::from_secs(1));
    assert_eq!(sent[2].at - sent[1].at, Duration::from_secs(2));
    Ok(())
}
