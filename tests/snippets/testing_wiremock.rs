use std::{error::Error, time::Duration};
use reqwest_resilient::{Constant, ResilientClient, ResilientConfig, RetryOverride};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

async fn fetch(url: &str) -> Result<String, Box<dyn Error>> {
    let client = ResilientClient::new(ResilientConfig::default())?;
    Ok(client.get(url).send_resilient().await?.text().await?)
}

#[tokio::test]
async fn a_busy_shop_is_asked_again() -> Result<(), Box<dyn Error>> {
    let server = MockServer::start().await;
    let busy = Mock::given(path("/orders")).respond_with(ResponseTemplate::new(503));
    busy.up_to_n_times(2).expect(2).mount(&server).await;
    let done = ResponseTemplate::new(200).set_body_string("three orders");
    Mock::given(path("/orders")).respond_with(done).expect(1).mount(&server).await;

    let quick = RetryOverride::new().backoff(Constant::new(Duration::from_millis(1)));
    let url = format!("{}/orders", server.uri());
    assert_eq!(quick.scope(fetch(&url)).await?, "three orders");
    Ok(())
}
