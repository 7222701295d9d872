//! Hosts without sockets, at the end of a chain of middleware, for a paused clock.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Error, Result};
use tokio::time::sleep;

use crate::{
    figures::Ledger,
    host::{HostState, Reply},
    scenario::Scenario,
};

/// The only host of a scenario. Responds and hangs; connections, which it has none of, are neither
/// cut nor refused.
pub(crate) struct Scripted {
    scenario: Arc<Scenario>,
    host: Mutex<HostState>,
    ledger: Arc<Ledger>,
}

impl Scripted {
    pub(crate) fn new(scenario: Arc<Scenario>, seed: u64, ledger: Arc<Ledger>) -> Self {
        let host = Mutex::new(HostState::new(scenario.hosts[0].rule, seed));
        Self { scenario, host, ledger }
    }

    pub(crate) async fn respond(&self, request: &Request) -> Result<Response> {
        self.ledger.record_send();
        let id = request.url().path().rsplit('/').next().and_then(|it| it.parse().ok());
        let ask = self.scenario.ask(id.expect("a number"));
        let now = self.ledger.start().elapsed();
        let reply = self.host.lock().expect("a host").reply(ask, now);
        match reply {
            Reply::Respond { status, quota, after, .. } => {
                sleep(after).await;
                self.host.lock().expect("a host").responded(status);
                self.ledger.record_status(status);
                let mut response =
                    http::Response::builder().status(status).url(request.url().clone());
                if let Some(it) = quota {
                    response = response
                        .header("ratelimit-limit", it.limit)
                        .header("ratelimit-remaining", it.remaining)
                        .header("ratelimit-reset", it.reset);
                }
                Ok(response.body("ok").map_err(Error::middleware)?.into())
            }
            Reply::Hang => pending().await,
            Reply::Cut { .. } => unreachable!("a scripted end has no connections"),
        }
    }
}
