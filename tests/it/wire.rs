//! The loop on real sockets, in real time: what arrives at a server that misbehaves.

mod attribution;
mod cancel;
mod connections;
mod delivery;
mod drain;
mod evidence;
pub(crate) mod matrix;
mod matrix_inside;
mod misdirected;
#[cfg(target_os = "linux")]
mod network;
mod own_retries;
mod peers;
mod redirects;
mod stale;
mod timeouts;
mod upgrade;
mod uploads;

use std::time::Duration;

use reqwest::Client;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{
    Constant, HostStates, Jitter, Resilient, ResilientConfig, ResilientConfigBuilder,
};

/// Two retries after a millisecond each, and nothing that is kept from one request to the next.
fn quick() -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .max_retries(2)
        .backoff(Constant::new(ms(1)))
        .jitter(Jitter::None)
        .without_circuit_breaker()
        .without_retry_budget()
        .without_gate()
}

fn resilient(config: ResilientConfigBuilder, client: Client) -> ClientWithMiddleware {
    resilient_on(&HostStates::new(), config, client)
}

/// The same for a client that keeps what it learns in `hosts`.
fn resilient_on(
    hosts: &HostStates,
    config: ResilientConfigBuilder,
    client: Client,
) -> ClientWithMiddleware {
    let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
    ClientBuilder::new(client).with(resilient).build()
}

/// A client that retries nothing by itself.
fn plain() -> Client {
    settings().build().unwrap()
}

/// The same over HTTP/2.
#[cfg(feature = "http2")]
fn plain_h2() -> Client {
    settings().http2_prior_knowledge().build().unwrap()
}

fn settings() -> reqwest::ClientBuilder {
    crate::support::client_builder().retry(reqwest::retry::never())
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
