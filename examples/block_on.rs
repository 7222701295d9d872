//! How does code without async use the async client, on a runtime that is there already?
//! `cargo run --example block_on`
//!
//! A runtime with threads of its own drives sockets and timers, so that `Handle::block_on` may wait
//! for a request on every thread that runs no async code. A runtime without threads is another
//! matter: see the example `block_on_current_thread`. A program without any runtime takes the
//! feature `blocking`.

mod server;

use reqwest_resilient::{ResilientClient, ResilientConfig, ResponseExt};
use tokio::{runtime::Runtime, task::spawn_blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "200 OK|hello"])?;
    let client = ResilientClient::new(ResilientConfig::default())?;
    // In a program with `#[tokio::main]`: `Handle::current()`, in its async code.
    let runtime = Runtime::new()?;
    let handle = runtime.handle().clone();

    let response = handle.block_on(client.get(&url).send_resilient())?;
    println!("{} after {} attempts", response.status(), response.attempts());
    // The body comes over the same connection: it is awaited, too.
    println!("{}", handle.block_on(response.text())?);

    std::thread::scope(|scope| {
        for number in 1..=2 {
            let (handle, client, url) = (&handle, &client, &url);
            scope.spawn(move || match handle.block_on(client.get(url).send()) {
                Ok(response) => println!("thread {number}: {}", response.status()),
                Err(error) => println!("thread {number}: {error}"),
            });
        }
    });

    // Within async code `block_on` panics, as it would hold up other tasks. Blocking code that is
    // called from there has a thread of its own:
    let ask = move || handle.block_on(client.get(&url).send());
    let response = runtime.block_on(async { spawn_blocking(ask).await })??;
    println!("from async code: {}", response.status());
    Ok(())
}
