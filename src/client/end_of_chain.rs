//! The innermost middleware of a client of our own: what it sends is what was sent.

use std::sync::OnceLock;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Client, ClientBuilder, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::execution::record::{OwnConnection, SendRecord};

/// Records what reaches the transport, and what the transport makes of it; sends what needs a
/// connection of its own by a client that keeps none.
pub(crate) struct EndOfChain {
    builder: Box<dyn Fn() -> ClientBuilder + Send + Sync>,
    /// Built when it is first needed, as few clients need it.
    unpooled: OnceLock<Option<Client>>,
}

impl EndOfChain {
    /// Returns the end of a chain whose clients are built by `builder`.
    pub(crate) fn new(builder: impl Fn() -> ClientBuilder + Send + Sync + 'static) -> Self {
        Self { builder: Box::new(builder), unpooled: OnceLock::new() }
    }

    /// Returns the client that keeps no connection; `None` if it cannot be built.
    fn unpooled(&self) -> Option<&Client> {
        let build = || (self.builder)().pool_max_idle_per_host(0).build().ok();
        self.unpooled.get_or_init(build).as_ref()
    }
}

#[async_trait]
impl Middleware for EndOfChain {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        SendRecord::begin(extensions, request.url().clone());
        let alone = extensions.remove::<OwnConnection>().and_then(|_| self.unpooled());
        let result = match alone {
            Some(client) => client.execute(request).await.map_err(Error::from),
            None => next.run(request, extensions).await,
        };
        match &result {
            Ok(response) => SendRecord::end(extensions, Ok(response)),
            Err(Error::Reqwest(error)) => SendRecord::end(extensions, Err(error)),
            // Not of a client of reqwest: what it means is not known.
            Err(Error::Middleware(_)) => {}
        }
        result
    }
}
