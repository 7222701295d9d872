//! How does code without async use the async client, on a runtime without threads?
//! `cargo run --example block_on_current_thread`
//!
//! A current-thread runtime does its work only while a thread is in `Runtime::block_on`. Its
//! `Handle::block_on` polls the request, but drives neither sockets nor timers: alone it waits for
//! ever, with no error and no timeout. So either one thread calls `Runtime::block_on`, or one
//! thread stays in it while others use the handle. If neither suits, use a runtime with threads: see
//! the example `block_on`.

mod server;

use std::thread;

use reqwest_resilient::{ResilientClient, ResilientConfig, ResponseExt};
use tokio::{runtime::Builder, sync::oneshot};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = server::start(&["503 Busy", "200 OK|hello", "503 Busy", "200 OK|hello again"])?;
    let client = ResilientClient::new(ResilientConfig::default())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;

    // One thread: the runtime itself, not its handle.
    let response = runtime.block_on(client.get(&url).send_resilient())?;
    println!("{} after {} attempts", response.status(), response.attempts());
    println!("{}", runtime.block_on(response.text())?);

    // Several threads: the handle serves while another thread is in `Runtime::block_on`.
    let handle = runtime.handle().clone();
    let (done, is_done) = oneshot::channel();
    let worker = thread::spawn(move || {
        let text = handle.block_on(async {
            let response = client.get(&url).send().await?;
            Ok::<_, reqwest_middleware::Error>(response.text().await?)
        });
        // The receiver is gone only if the program ends.
        let _ = done.send(());
        text
    });
    // Without this line the worker would wait for ever.
    runtime.block_on(is_done)?;
    println!("{}", worker.join().map_err(|_| "the worker panicked")??);
    Ok(())
}
