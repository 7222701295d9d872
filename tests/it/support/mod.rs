//! Servers that misbehave on command, and the errors reqwest makes of it.
//!
//! ```ignore
//! let server = Server::h1([
//!     Reply::status(503).body("busy").into(),
//!     Fault::Unanswered(End::Reset).into(),
//!     Reply::status(200).into(),
//! ]);
//! client.get(server.url("/a")).send().await;
//! assert_eq!((server.requests(), server.connections()), (3, 2));
//! ```
//!
//! - [`server::Server`]: counts what arrives; HTTP/1.1 on raw sockets.
//! - [`reply::Reply`] and [`reply::Fault`]: one line of a script.
//! - [`h2`]: the same over HTTP/2, with its resets and GOAWAYs.
//! - [`tls`]: handshakes that fail.
//! - [`inside`]: middleware further in.
//! - [`program`]: servers that others wrote, started by the test.
//! - [`fault`]: real `reqwest::Error`s for tests under a paused clock.
//!
//! Servers listen on 127.0.0.1, run on a thread of their own in real time, stop when dropped and
//! fail the test if they panicked.

pub(crate) mod fault;
pub(crate) mod folder;
#[cfg(feature = "http2")]
pub(crate) mod h2;
pub(crate) mod host;
pub(crate) mod inside;
pub(crate) mod log;
pub(crate) mod pem;
pub(crate) mod program;
pub(crate) mod reply;
pub(crate) mod server;
#[cfg(feature = "rustls-errors")]
pub(crate) mod tls;

use std::{sync::LazyLock, time::Duration};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    Constant, HostStates, Jitter, Resilient, ResilientConfig, ResilientConfigBuilder,
};

pub(crate) const URL: &str = "https://api.example.com/data";

/// The loop alone: waits of one second, without jitter, breaker, budget and gate.
pub(crate) fn steady() -> ResilientConfigBuilder {
    ResilientConfig::builder()
        .backoff(Constant::new(Duration::from_secs(1)))
        .jitter(Jitter::None)
        .without_circuit_breaker()
        .without_retry_budget()
        .without_gate()
}

/// A client whose requests end in the script that is returned with it.
pub(crate) fn scripted(
    config: ResilientConfig,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    ending_in(Resilient::new(config), replies)
}

/// The same for a client that keeps what it learns in `hosts`.
pub(crate) fn scripted_on(
    hosts: &HostStates,
    config: ResilientConfig,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    ending_in(Resilient::new(config).with_hosts(hosts.clone()), replies)
}

fn ending_in(
    resilient: Resilient,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    let script = Script::new(replies);
    let client = ClientBuilder::new(idle_client()).with(resilient).with(script.clone()).build();
    (client, script)
}

/// A builder of clients that trust no certificate: to read those of the machine takes long.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().no_proxy();
    #[cfg(feature = "default-tls")]
    let builder = builder.tls_certs_only([]);
    builder
}

/// A client for the head of a chain whose end is scripted. Clients are costly to make, and this one
/// never sends anything.
pub(crate) fn idle_client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| client_builder().build().unwrap());
    CLIENT.clone()
}

/// Runs a future to its end in a runtime of its own, whose time passes only while all sleep.
pub(crate) fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}
