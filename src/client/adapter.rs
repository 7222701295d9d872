//! `Resilient` as a middleware of reqwest-middleware, and of its fork.

use std::error::Error;

use http::Extensions;
use reqwest::{Request, Response};

#[cfg(feature = "download")]
use crate::client::download::link::Link;
use crate::client::middleware::Resilient;
use crate::error::HttpRequestError;
use crate::execution::attempt::Chain;
use crate::execution::body::BoxFuture;
use crate::outcome::transport_error::BodyFactoryError;

/// A macro, because the traits and types of the two are alike and have nothing in common.
macro_rules! adapter {
    ($chain:ident) => {
        /// Written out: the macro would hold the request twice, 264 bytes more in flight and asleep.
        impl $chain::Middleware for Resilient {
            fn handle<'a, 'extensions, 'next, 'future>(
                &'a self,
                request: Request,
                extensions: &'extensions mut Extensions,
                next: $chain::Next<'next>,
            ) -> BoxFuture<'future, $chain::Result<Response>>
            where
                'a: 'future,
                'extensions: 'future,
                'next: 'future,
                Self: 'future,
            {
                #[cfg(feature = "download")]
                Link::fill(extensions, || self.context(&request, extensions));
                self.run(next, request, extensions)
            }
        }

        impl Chain for $chain::Next<'_> {
            type Error = $chain::Error;

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
                    $chain::Error::Middleware(error) => error.as_ref(),
                    $chain::Error::Reqwest(error) => error,
                }
            }

            fn transport_error(error: &Self::Error) -> Option<&reqwest::Error> {
                match error {
                    $chain::Error::Middleware(_) => None,
                    $chain::Error::Reqwest(error) => Some(error),
                }
            }

            fn local(error: HttpRequestError) -> Self::Error {
                error.into()
            }

            fn of_other_client(error: reqwest_middleware::Error) -> Self::Error {
                match error {
                    reqwest_middleware::Error::Middleware(error) => error.into(),
                    reqwest_middleware::Error::Reqwest(error) => error.into(),
                }
            }

            fn body_factory_error(error: BodyFactoryError) -> Self::Error {
                Self::Error::middleware(error)
            }
        }
    };
}

adapter!(reqwest_middleware);

#[cfg(feature = "astral")]
adapter!(astral_reqwest_middleware);
