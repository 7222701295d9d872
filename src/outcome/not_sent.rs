//! How a middleware further in says that the request was not sent.

use std::{error::Error, fmt};

use http::Extensions;

/// Says, for a middleware further in, that this attempt sent nothing: its request may be sent
/// again, whatever its method.
///
/// An error that a middleware returns proves nothing by itself: the request may have been sent
/// and processed before. So a POST is not sent again after it, and the circuit breaker hears
/// nothing of it. Where nothing was sent, say so, in one of two ways:
///
/// - [`NotSent::new`] wraps the error that is returned.
/// - [`NotSent::during`] covers what has to be done before the request can be sent, also where an
///   attempt's time runs out while it waits.
///
/// ```
/// # struct Token;
/// # async fn fetch_token() -> Result<http::HeaderValue, std::io::Error> { unimplemented!() }
/// use http::{Extensions, header};
/// use reqwest::{Request, Response};
/// use reqwest_middleware::{Error, Middleware, Next, Result};
/// use reqwest_resilient::NotSent;
///
/// #[async_trait::async_trait]
/// impl Middleware for Token {
///     async fn handle(
///         &self,
///         mut request: Request,
///         extensions: &mut Extensions,
///         next: Next<'_>,
///     ) -> Result<Response> {
///         let token = NotSent::during(extensions, fetch_token()).await.map_err(Error::middleware)?;
///         request.headers_mut().insert(header::AUTHORIZATION, token);
///         next.run(request, extensions).await
///     }
/// }
/// ```
#[derive(Debug)]
pub struct NotSent(Box<dyn Error + Send + Sync>);

impl NotSent {
    /// Wraps the error because of which nothing was sent.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was sent")
    }
}

impl Error for NotSent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// In the extensions of an attempt of which nothing was sent yet.
#[derive(Clone, Copy)]
struct Preparing;

/// Returns whether the error itself says so; its sources may be about another request.
pub(crate) fn is_said_by(error: &(dyn Error + 'static)) -> bool {
    error.is::<NotSent>()
}

/// Notes that nothing was sent yet.
pub(crate) fn mark(extensions: &mut Extensions) {
    extensions.insert(Preparing);
}

/// Returns whether an attempt ended before anything was sent.
#[inline]
pub(crate) fn is_marked(extensions: &Extensions) -> bool {
    extensions.get::<Preparing>().is_some()
}

/// Clears what an earlier attempt left.
#[inline]
pub(crate) fn forget(extensions: &mut Extensions) {
    extensions.remove::<Preparing>();
}
