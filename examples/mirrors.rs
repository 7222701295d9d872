//! Three servers for the same files, of which the first goes down and comes back.
//!
//! `cargo run --example mirrors` starts them on this machine, sends twenty requests a second, and
//! shows which server each of them reached, and what the middleware did. About 11 s.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{Event, Mirrors, Resilient, ResilientConfig, ResponseExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(50);
const GOES_DOWN: Duration = Duration::from_secs(2);
const COMES_BACK: Duration = Duration::from_secs(7);
const END: Duration = Duration::from_secs(11);

#[tokio::main]
async fn main() -> Result<()> {
    let down = Arc::new(AtomicBool::new(false));
    let first = serve(Arc::clone(&down)).await?;
    let second = serve(Arc::default()).await?;
    let third = serve(Arc::default()).await?;
    let start = Instant::now();

    // Requests are made for the first; the others have the same under other paths.
    let mirrors = Mirrors::new(&format!("http://{first}/"))
        .also(&format!("http://{second}/mirror/"))
        .also(&format!("http://{third}/backup/"));
    let name = |url: &str| ["a", "b", "c"][place(url, [&first, &second, &third])];
    let names = [first.clone(), second.clone(), third.clone()];
    let config = ResilientConfig::builder()
        .attempt_timeout(Duration::from_secs(2))
        .mirrors(mirrors)
        .on_event(move |event| {
            if let Event::BreakerChanged(change) = event {
                let of = ["a", "b", "c"][place(&change.key, [&names[0], &names[1], &names[2]])];
                let at = start.elapsed().as_secs_f64();
                println!(
                    "{at:>5.1} s  breaker of {of}: {} to {} ({})",
                    change.from, change.to, change.why
                );
            }
        })
        .build()?;
    let inner = Resilient::reqwest_builder().build()?;
    let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();

    println!("Twenty requests a second for http://{first}/file, which is server a.");
    println!("It goes down after {GOES_DOWN:?} and comes back after {COMES_BACK:?}.\n");
    println!("  a b c  the server that responded");
    println!("  A B C  the same, after a failover\n");

    let (mut line, mut requests, mut failed) = (String::new(), 0, 0);
    let mut ticks = tokio::time::interval(TICK);
    while start.elapsed() < END {
        ticks.tick().await;
        let now = start.elapsed();
        let is_down = (GOES_DOWN..COMES_BACK).contains(&now);
        if down.swap(is_down, Ordering::Relaxed) != is_down {
            let what = if is_down { "goes down" } else { "is back" };
            println!("{:>5.1} s  server a {what}", now.as_secs_f64());
        }
        requests += 1;
        match client.get(format!("http://{first}/file")).send().await {
            Ok(response) if response.status().is_success() => {
                let at = name(response.endpoint().map_or("", |it| it.as_str()));
                let moved = response.attempts() > 1;
                line.push_str(&if moved { at.to_uppercase() } else { at.to_owned() });
            }
            _ => {
                failed += 1;
                line.push('!');
            }
        }
        if line.len() == 20 {
            println!("{:>5.1} s  {line}", now.as_secs_f64());
            line.clear();
        }
    }
    println!("\n{requests} requests, {failed} failed.");
    ensure!(failed == 0, "a request failed although two servers were up");
    Ok(())
}

/// Returns which of the addresses a URL has.
fn place(url: &str, of: [&String; 3]) -> usize {
    of.iter().position(|it| url.contains(it.as_str())).unwrap_or_default()
}

/// Starts a server; while it is `down` it closes every connection. Returns its address.
async fn serve(down: Arc<AtomicBool>) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond(stream, Arc::clone(&down)));
        }
    });
    Ok(address)
}

async fn respond(mut stream: TcpStream, down: Arc<AtomicBool>) -> io::Result<()> {
    let mut request = [0; 4096];
    while stream.read(&mut request).await? > 0 && !down.load(Ordering::Relaxed) {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
    Ok(())
}
