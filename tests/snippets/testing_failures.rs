use std::{error::Error, io, time::Duration};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{ResilientClient, RetryOverride, StopReason};

#[tokio::test(start_paused = true)]
async fn a_slow_response_is_a_timeout() -> Result<(), Box<dyn Error>> {
    let script = Script::new([
        Reply::io_error(io::ErrorKind::ConnectionReset),
        Reply::status(200).after(Duration::from_secs(60)),
    ]);
    let client = ResilientClient::builder().with(script.clone()).build()?;

    // The reset is retried; the slow response exceeds the client's 10 s, and no retry is left.
    let once = RetryOverride::new().max_retries(1);
    let get = client.get("https://api.example.com/").with_extension(once);
    let error = get.send_resilient().await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(error.stop_reason(), StopReason::Exhausted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_order_is_not_placed_twice() -> Result<(), Box<dyn Error>> {
    // A POST may have been processed when its connection broke, and is not sent again.
    let script = Script::new([Reply::io_error(io::ErrorKind::ConnectionReset)]);
    let client = ResilientClient::builder().with(script.clone()).build()?;
    let error = client.post("https://api.example.com/").send_resilient().await.unwrap_err();
    assert_eq!((script.sent().len(), error.stop_reason()), (1, StopReason::UnsafeToRepeat));
    Ok(())
}
