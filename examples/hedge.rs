//! What do hedges bring? `cargo run --example hedge`
//!
//! Starts a server on this machine of which two responses in a hundred take a second, and asks it
//! 2,000 times without hedges and 2,000 times with them.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest_resilient::{Event, Hedge, ResilientClient, ResilientConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const REQUESTS: usize = 2_000;
const AT_A_TIME: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(serve(listener));

    let plain = ResilientConfig::default();
    println!("without hedges: {}", measure(&url, plain).await?);

    let (hedges, wins) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (started, lost) = (Arc::clone(&hedges), Arc::clone(&wins));
    let hedged = ResilientConfig::builder()
        // Once an attempt is slower than 95 % of the latest; until that is known, after 50 ms.
        .hedge(Hedge::learned(0.95).or_after(Duration::from_millis(50)))
        .on_event(move |event| match event {
            Event::HedgeStarted(_) => _ = started.fetch_add(1, Ordering::Relaxed),
            Event::Superseded(it) if it.attempt() == 1 => _ = lost.fetch_add(1, Ordering::Relaxed),
            _ => {}
        })
        .build()?;
    println!("with hedges:    {}", measure(&url, hedged).await?);
    let (hedges, wins) = (hedges.load(Ordering::Relaxed), wins.load(Ordering::Relaxed));
    println!("{hedges} hedges, of which {wins} were quicker than their attempt");
    Ok(())
}

/// Sends the requests, and returns how long they took.
async fn measure(url: &str, config: ResilientConfig) -> Result<String, Box<dyn Error>> {
    let client = Arc::new(ResilientClient::new(config)?);
    let (mut took, mut requests) = (Vec::new(), JoinSet::new());
    for number in 0..REQUESTS + AT_A_TIME {
        if number >= AT_A_TIME {
            took.push(requests.join_next().await.ok_or("no request")??);
        }
        if number < REQUESTS {
            let (client, url) = (Arc::clone(&client), url.to_owned());
            requests.spawn(async move {
                let start = Instant::now();
                let sent = client.get(url).send_resilient().await;
                sent.map_or(Duration::MAX, |_| start.elapsed())
            });
        }
    }
    took.sort();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|it| took[(took.len() as f64 * it) as usize]);
    Ok(format!("p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}"))
}

async fn serve(listener: TcpListener) {
    let requests = Arc::<AtomicUsize>::default();
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(respond(socket, Arc::clone(&requests)));
    }
}

/// Responds after 5 ms, or a second for every fiftieth request.
async fn respond(mut socket: TcpStream, requests: Arc<AtomicUsize>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut read = Vec::new();
    while socket.read_buf(&mut read).await? > 0 {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            let number = requests.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(if number % 50 == 49 { 1_000 } else { 5 })).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }
    Ok(())
}
