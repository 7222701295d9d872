//! `Resilient` as a middleware of reqwest-middleware.

use std::error::Error;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::body::BoxFuture;
use crate::error::HttpRequestError;
use crate::failure::Unmade;
use crate::middleware::Resilient;
use crate::send::Chain;

/// Written out, because the macro would wrap the future of `run` into another one.
impl Middleware for Resilient {
    fn handle<'a, 'extensions, 'next, 'future>(
        &'a self,
        request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> BoxFuture<'future, reqwest_middleware::Result<Response>>
    where
        'a: 'future,
        'extensions: 'future,
        'next: 'future,
        Self: 'future,
    {
        Box::pin(self.run(next, request, extensions))
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

    fn unmade(error: Unmade) -> Self::Error {
        Self::Error::middleware(error)
    }
}
