//! Factories of request bodies that cannot be copied.

use std::{pin::Pin, sync::Arc};

use reqwest::{Body, Request};

use crate::common::opaque::opaque;
use crate::error::BoxError;
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A factory of a request's body, called once per attempt: for streams, files and forms, which can
/// be read only once and would otherwise be sent only once.
///
/// Put it into the request's extensions; the request itself needs no body. If the closure fails,
/// so does the request. An attempt whose time runs out while it works was not sent.
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_middleware::Error> {
/// use reqwest_resilient::BodyFactory;
///
/// let upload = BodyFactory::new(async || {
///     let file = tokio::fs::File::open("backup.tar").await?;
///     Ok(reqwest::Body::from(file))
/// });
/// client.put("https://example.com/backup.tar").with_extension(upload).send().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct BodyFactory {
    make: Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Request, BoxError>> + Send + Sync>,
}

impl BodyFactory {
    /// Makes bodies by this closure.
    pub fn new<F, B>(make: F) -> Self
    where
        F: Fn() -> B + Send + Sync + 'static,
        B: Future<Output = Result<Body, BoxError>> + Send + 'static,
    {
        Self::from_request(make, |mut request, body| {
            *request.body_mut() = Some(body);
            Ok(request)
        })
    }

    /// Makes forms by this closure. Each attempt gets the `Content-Type`, with a boundary of its
    /// own, and the length of its form.
    #[cfg(feature = "multipart")]
    pub fn multipart<F, B>(make: F) -> Self
    where
        F: Fn() -> B + Send + Sync + 'static,
        B: Future<Output = Result<reqwest::multipart::Form, BoxError>> + Send + 'static,
    {
        // A request builder needs a client, though it sends nothing.
        static CLIENT: std::sync::OnceLock<Option<reqwest::Client>> = std::sync::OnceLock::new();
        Self::from_request(make, |mut request, form| {
            let client = CLIENT.get_or_init(|| reqwest::Client::builder().no_proxy().build().ok());
            let client = client.clone().ok_or("no client to write the form with")?;
            request.headers_mut().remove(http::header::CONTENT_TYPE);
            request.headers_mut().remove(http::header::CONTENT_LENGTH);
            Ok(reqwest::RequestBuilder::from_parts(client, request).multipart(form).build()?)
        })
    }

    fn from_request<F, B, T>(
        make: F,
        put: impl Fn(Request, T) -> Result<Request, BoxError> + Send + Sync + Copy + 'static,
    ) -> Self
    where
        F: Fn() -> B + Send + Sync + 'static,
        B: Future<Output = Result<T, BoxError>> + Send + 'static,
    {
        let make = Arc::new(move |request| -> BoxFuture<'static, _> {
            let made = make();
            Box::pin(async move { put(request, made.await?) })
        });
        Self { make }
    }

    /// Gives the request a body of its own.
    pub(crate) async fn fill(&self, request: Request) -> Result<Request, BoxError> {
        (self.make)(request).await
    }
}

opaque!(BodyFactory {});
