//! What the tests share.

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
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(Resilient::new(config))
        .with(script.clone())
        .build();
    (client, script)
}
