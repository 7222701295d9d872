//! Connections that switch to another protocol.

use std::time::Duration;

use reqwest_resilient::{Limit, ResilientClient, ResilientConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);

/// Starts a server that switches protocols and then sends back what it gets.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let switched = b"HTTP/1.1 101 A\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            stream.write_all(switched).await.unwrap();
            let (mut reads, mut writes) = stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut reads, &mut writes).await });
        }
    });
    url
}

#[tokio::test]
async fn a_response_that_switches_protocols_is_upgraded_whatever_watches_its_body() {
    let url = echo().await;
    let config = ResilientConfig::builder;
    for config in [
        config(),
        config().max_total_time(60 * SECOND),
        config().concurrency_limit(Limit::fixed(1)),
        config().read_body(1024),
    ] {
        let client = ResilientClient::new(config.build().unwrap()).unwrap();
        let request = client.get(&url).header("connection", "upgrade").header("upgrade", "echo");
        let response = request.send_resilient().await.unwrap();
        assert_eq!(response.status(), 101);
        let mut stream = response.upgrade().await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        let echoed = timeout(10 * SECOND, stream.read_exact(&mut back)).await;
        echoed.expect("an echo").unwrap();
        assert_eq!(&back, b"ping");
    }
}
