//! The marker by which an inner middleware reports that the request was not sent.

use std::{error::Error, fmt};

use http::Extensions;

/// Marks an attempt in which an inner middleware sent nothing: the request may be sent again,
/// whatever its method.
///
/// An error that a middleware returns proves nothing by itself: the request may have been sent
/// and processed before. So a POST is not sent again after it, and the circuit breaker does not
/// record it. Where nothing was sent, say so, in one of two ways:
///
/// - [`NotSent::new`] wraps the error that is returned.
/// - [`NotSent::during`] covers work that precedes the sending, also where the attempt's time runs
///   out meanwhile.
///
/// ```
/// # struct Token;
/// # async fn fetch_token() -> std::io::Result<http::HeaderValue> { unimplemented!() }
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
    /// Wraps the error that prevented the sending.
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

/// A marker in the extensions of an attempt that has sent nothing yet.
#[derive(Clone, Copy)]
struct Preparing;

/// Returns whether the error itself is the marker; its sources may concern another request.
pub(crate) fn is_said_by(error: &(dyn Error + 'static)) -> bool {
    error.is::<NotSent>()
}

/// Marks an attempt that has sent nothing yet.
pub(crate) fn mark(extensions: &mut Extensions) {
    extensions.insert(Preparing);
}

/// Returns whether an attempt ended before anything was sent.
#[inline]
pub(crate) fn is_marked(extensions: &Extensions) -> bool {
    extensions.get::<Preparing>().is_some()
}

/// Clears the marker of an earlier attempt.
#[inline]
pub(crate) fn forget(extensions: &mut Extensions) {
    extensions.remove::<Preparing>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_prevented_the_sending_is_its_source() {
        let error = NotSent::new("no token");
        assert_eq!(error.to_string(), "nothing was sent");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no token"));
        assert!(is_said_by(&error) && !is_said_by(&fmt::Error));
    }

    #[test]
    fn an_attempt_is_marked_until_the_marker_is_cleared() {
        let mut extensions = Extensions::new();
        assert!(!is_marked(&extensions));
        mark(&mut extensions);
        assert!(is_marked(&extensions));
        forget(&mut extensions);
        assert!(!is_marked(&extensions));
    }
}
