//! Settings from a file: loads one, shows what it means, and sends a request by it.
//!
//! `cargo run --example config_file --features serde` takes `examples/config/service.toml`;
//! `cargo run --example config_file --features serde -- my.toml` takes another. Variables such as
//! `RESILIENT_MAX_RETRIES=5` win over the file.

use std::{env, fs};

use anyhow::{Context, Result};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::file::RawConfig;
use reqwest_resilient::{Event, Resilient, ResilientConfig, ResponseExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let path = env::args().nth(1).unwrap_or_else(|| "examples/config/service.toml".into());
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let file: RawConfig = toml::from_str(&text).with_context(|| path.clone())?;
    let settings = RawConfig::from_env("RESILIENT_", env::vars()).over(file);

    // Code cannot stand in a file: the file is laid over a config that has it.
    let code = ResilientConfig::builder()
        .on_retry(|it| println!("{} {}: {}, again in {:?}", it.method, it.url, it.outcome, it.wait))
        .on_event(|it| {
            if let Event::Reloaded = it {
                println!("{it}");
            }
        })
        .build()?;
    let config = settings.over_config(&code).context(path)?;
    println!("{config:#?}\n");

    let resilient = Resilient::new(config);
    let handle = resilient.reload_handle();
    let client = ClientBuilder::new(Resilient::reqwest_builder().build()?).with(resilient).build();

    let url = server().await?;
    let response = client.get(&url).send().await?;
    println!("{} after {} attempts", response.status(), response.attempts());

    // The same client, other settings: what a program does when its file has changed. The callback
    // and the observer stay.
    let file: RawConfig = toml::from_str("max_retries = 0")?;
    handle.reload(file.over_config(&code)?);
    let response = client.get(&url).send().await?;
    println!("{} after {} attempt, reloaded", response.status(), response.attempts());
    Ok(())
}

/// A server on this machine that is busy every second time.
async fn server() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        for i in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let status = if i % 2 == 0 { "503 Service Unavailable" } else { "200 OK" };
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            // A request without a body fits into one read here.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(url)
}
