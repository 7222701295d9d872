use std::{error::Error, time::Duration};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Constant, ResilientConfig, blocking::ResilientClient};

#[test]
fn a_busy_server_is_asked_again() -> Result<(), Box<dyn Error>> {
    let wait = Constant::new(Duration::from_millis(1));
    let config = ResilientConfig::builder().backoff(wait).build()?;
    let script = Script::new([Reply::status(503), Reply::status(200)]);
    let client = ResilientClient::builder().config(config).with(script.clone()).build()?;
    client.get("https://api.example.com/").send_resilient()?;
    assert_eq!(script.sent().len(), 2);
    Ok(())
}
