//! `Resilient` as a middleware of reqwest-middleware.

use std::error::Error;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::body::BoxFuture;
use crate::error::HttpRequestError;
use crate::middleware::Resilient;
use crate::send::Chain;

#[async_trait::async_trait]
impl Middleware for Resilient {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.run(next, request, extensions).await
    }
}

impl Chain for Next<'_> {
    type Error = reqwest_middleware::Error;

    fn send<'a>(
        self,
        request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, Self::Error>>
    where
        Self: 'a,
    {
        self.run(request, extensions)
    }

    fn as_error(error: &Self::Error) -> &(dyn Error + 'static) {
        match error {
            reqwest_middleware::Error::Middleware(error) => error.as_ref(),
            reqwest_middleware::Error::Reqwest(error) => error,
        }
    }

    fn local(error: HttpRequestError) -> Self::Error {
        error.into()
    }
}
