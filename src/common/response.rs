//! Responses with another body.

use reqwest::{Body, Response, ResponseBuilderExt};

/// Returns the same response with another body; keeps URL and extensions.
///
/// With a response that has extensions, as those of reqwest's client have, these are six allocations
/// that reqwest's conversions need: the URL's copy and its two boxes, and three boxes of bodies.
pub(crate) fn rebuild(response: Response, body: impl FnOnce(Body) -> Body) -> Response {
    let url = response.url().clone();
    let (mut parts, old) = http::Response::<Body>::from(response).into_parts();
    // reqwest keeps the URL apart and takes it back by an extension of a private type.
    let mut carrier = http::Response::builder();
    if let Some(extensions) = carrier.extensions_mut() {
        std::mem::swap(extensions, &mut parts.extensions);
    }
    if let Ok(carrier) = carrier.url(url).body(()) {
        parts.extensions = carrier.into_parts().0.extensions;
    }
    let mut response = Response::from(http::Response::from_parts(parts, body(old)));
    if response.extensions().is_empty() {
        // The map that carried the URL would be kept for nothing.
        *response.extensions_mut() = http::Extensions::new();
    }
    response
}
