//! Servers that others wrote: nginx, haproxy and nghttpx, which the tests start, and which count by
//! their own logs. Each test prints a line:
//!
//! ```text
//! real nginx limit_req 429: ResilientClient: 60 of 60, 138 requests, 0 POSTs twice, 60 connections; …
//! ```

mod client;
mod haproxy;
mod matrix;
mod nghttpx;
mod nginx;
mod server;

use std::time::Duration;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
