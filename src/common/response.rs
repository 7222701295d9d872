//! Responses with another body.

use reqwest::{Body, Response, ResponseBuilderExt};

/// Returns the same response with another body; keeps URL and extensions.
pub(crate) fn rebuild(response: Response, body: impl FnOnce(Body) -> Body) -> Response {
    let url = response.url().clone();
    let (mut parts, old) = http::Response::<Body>::from(response).into_parts();
    // reqwest keeps the URL apart and takes it back by an extension of a private type.
    if let Ok(carrier) = http::Response::builder().url(url).body(()) {
        parts.extensions.extend(carrier.into_parts().0.extensions);
    }
    let mut response = Response::from(http::Response::from_parts(parts, body(old)));
    if response.extensions().is_empty() {
        // The map that carried the URL would be kept for nothing.
        *response.extensions_mut() = http::Extensions::new();
    }
    response
}
