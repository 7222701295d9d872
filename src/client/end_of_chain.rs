//! The innermost middleware of a client of our own: what it sends is what was sent.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::execution::body::BoxFuture;
use crate::execution::record::SendRecord;

/// Records what reaches the transport, and what the transport makes of it.
#[derive(Clone, Debug)]
pub(crate) struct EndOfChain;

/// Written out, because the macro would wrap one future into another.
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
            let result = next.run(request, extensions).await;
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
