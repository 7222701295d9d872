//! Hedges: when one is sent, which result counts, and what becomes of the others.

mod counts;
mod delay;
mod early;
mod first_byte;
mod mirrors;
mod race;
mod refused;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Event, Hedge, ResilientConfigBuilder};

use crate::support::{URL, scripted, steady};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A hedge after 100 ms.
fn hedge() -> Hedge {
    Hedge::after(ms(100))
}

/// A response after so many milliseconds.
fn after(millis: u64, status: u16) -> Reply {
    Reply::status(status).after(ms(millis))
}

/// The loop alone, with this hedge.
fn hedged(hedge: Hedge) -> ResilientConfigBuilder {
    steady().hedge(hedge)
}

/// The events of a client, as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(config: ResilientConfigBuilder) -> (Self, ResilientConfigBuilder) {
        let lines = Self::default();
        let log = lines.clone();
        let config = config.on_event(move |event| log.add(event));
        (lines, config)
    }

    fn add(&self, event: &Event<'_>) {
        let text = event.to_string();
        let line = text.split_once("/data: ").map_or(&*text, |it| it.1);
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The number of lines with this in them.
    fn count(&self, part: &str) -> usize {
        self.all().iter().filter(|it| it.contains(part)).count()
    }
}

/// Returns the times at which requests reached the script, in milliseconds from the first.
fn times(script: &Script) -> Vec<u128> {
    let sent = script.sent();
    sent.iter().map(|it| (it.at - sent[0].at).as_millis()).collect()
}

/// A client and its script.
fn client(
    config: ResilientConfigBuilder,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    scripted(config.build().unwrap(), replies)
}

async fn status(client: &ClientWithMiddleware) -> u16 {
    client.get(URL).send().await.unwrap().status().as_u16()
}
