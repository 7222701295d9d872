//! Middleware further in, as users have it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Extensions;
use reqwest::{Client, Request, Response, Url};
use reqwest_middleware::{Error, Middleware, Next, Result};

/// A middleware of one of these kinds.
#[derive(Clone)]
pub(crate) enum Inside {
    /// Passes the request on.
    Nothing,
    /// Signs the URL: adds to its query.
    Signs,
    /// Sends the request to this server, whatever it was for.
    Picks(Url),
    /// Rebuilds the response, as one that logs bodies does.
    Rebuilds,
    /// Sends, and then fails by itself.
    FailsAfter(Arc<dyn Fn() -> Error + Send + Sync>),
    /// Fails by itself before it sends.
    FailsBefore(Arc<dyn Fn() -> Error + Send + Sync>),
    /// Sends by a client of its own, in a task of its own.
    Spawns(Client),
    /// Makes an error of a status of 400 and more.
    ChecksStatus,
}

impl Inside {
    pub(crate) fn fails_after(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self::FailsAfter(Arc::new(error))
    }

    pub(crate) fn fails_before(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self::FailsBefore(Arc::new(error))
    }
}

#[async_trait::async_trait]
impl Middleware for Inside {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        match self {
            Self::Nothing => next.run(request, extensions).await,
            Self::Signs => {
                request.url_mut().query_pairs_mut().append_pair("signature", "s3cret");
                next.run(request, extensions).await
            }
            Self::Picks(server) => {
                let mut url = server.clone();
                url.set_path(request.url().path());
                *request.url_mut() = url;
                next.run(request, extensions).await
            }
            Self::Rebuilds => {
                let response = next.run(request, extensions).await?;
                let (status, headers) = (response.status(), response.headers().clone());
                let mut rebuilt = http::Response::new(response.bytes().await?);
                (*rebuilt.status_mut(), *rebuilt.headers_mut()) = (status, headers);
                Ok(rebuilt.into())
            }
            Self::FailsAfter(error) => {
                next.run(request, extensions).await?;
                Err(error())
            }
            Self::FailsBefore(error) => Err(error()),
            Self::Spawns(client) => {
                let sending = client.execute(request);
                Ok(tokio::spawn(sending).await.map_err(Error::middleware)??)
            }
            Self::ChecksStatus => Ok(next.run(request, extensions).await?.error_for_status()?),
        }
    }
}

/// A middleware that is a closure.
pub(crate) struct Does<F>(F);

/// A middleware that does this.
pub(crate) fn does<F>(handle: F) -> Does<F>
where
    F: for<'a> Fn(Request, &'a mut Extensions, Next<'a>) -> Handled<'a> + Send + Sync + 'static,
{
    Does(handle)
}

pub(crate) type Handled<'a> = Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>;

#[async_trait::async_trait]
impl<F> Middleware for Does<F>
where
    F: for<'a> Fn(Request, &'a mut Extensions, Next<'a>) -> Handled<'a> + Send + Sync + 'static,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        (self.0)(request, extensions, next).await
    }
}
