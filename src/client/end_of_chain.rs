//! The innermost middleware of a client of our own: what it sends is what was sent.

use http::Extensions;
use reqwest::{Client, ClientBuilder, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::execution::body::BoxFuture;
use crate::execution::record::{OwnConnection, SendRecord};

/// Records what reaches the transport, and what the transport makes of it; sends what needs a
/// connection of its own by a client that keeps none.
pub(crate) struct EndOfChain {
    /// Keeps no connection. Built with its chain: TLS reads certificates, which would block a request
    /// and take its time.
    unpooled: Client,
}

impl EndOfChain {
    /// Builds the end of a chain whose clients are those of `builder`.
    ///
    /// # Errors
    ///
    /// reqwest could not build its client.
    pub(crate) fn new(builder: ClientBuilder) -> reqwest::Result<Self> {
        Ok(Self { unpooled: builder.pool_max_idle_per_host(0).build()? })
    }
}

/// Written out, as in [`Resilient`](crate::Resilient): the macro would hold the request twice.
impl Middleware for EndOfChain {
    fn handle<'a, 'extensions, 'next, 'future>(
        &'a self,
        request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> BoxFuture<'future, Result<Response>>
    where
        'a: 'future,
        'extensions: 'future,
        'next: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            SendRecord::begin(extensions, request.url().clone());
            let result = match extensions.remove::<OwnConnection>() {
                Some(_) => self.unpooled.execute(request).await.map_err(Error::from),
                None => next.run(request, extensions).await,
            };
            match &result {
                Ok(response) => SendRecord::end(extensions, Ok(response)),
                Err(Error::Reqwest(error)) => SendRecord::end(extensions, Err(error)),
                // Not of a client of reqwest: what it means is not known.
                Err(Error::Middleware(_)) => {}
            }
            result
        })
    }
}
