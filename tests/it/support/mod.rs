//! What the tests share.

use std::sync::LazyLock;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Resilient, ResilientConfig};

pub(crate) const URL: &str = "https://api.example.com/data";

/// A client whose requests end in the script that is returned with it.
pub(crate) fn scripted(
    config: ResilientConfig,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    let script = Script::new(replies);
    let client =
        ClientBuilder::new(idle_client()).with(Resilient::new(config)).with(script.clone()).build();
    (client, script)
}

/// A client for the head of a chain whose end is scripted. Clients are costly to make, and this one
/// never sends anything.
pub(crate) fn idle_client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);
    CLIENT.clone()
}

/// Runs a future to its end in a runtime of its own, whose time passes only while all sleep.
pub(crate) fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}
