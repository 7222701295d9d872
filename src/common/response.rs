//! Responses with another body, and the types of bodies.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt};

use crate::common::fault::BoxError;

/// The result of polling a body.
type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

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

/// Returns the same response with a body that is polled by `poll`, which gets the body before.
pub(crate) fn rebuild_polled<E: Into<BoxError>>(
    response: Response,
    poll: impl FnMut(Pin<&mut Body>, &mut Context<'_>) -> Polled<E> + Send + Sync + Unpin + 'static,
) -> Response {
    rebuild(response, |inner| polled(inner, poll))
}

/// Returns a body that is polled by `poll`, which gets the body before.
pub(crate) fn polled<E: Into<BoxError>>(
    inner: Body,
    poll: impl FnMut(Pin<&mut Body>, &mut Context<'_>) -> Polled<E> + Send + Sync + Unpin + 'static,
) -> Body {
    Body::wrap(PolledBy { inner, poll })
}

struct PolledBy<P> {
    inner: Body,
    poll: P,
}

impl<E, P> http_body::Body for PolledBy<P>
where
    P: FnMut(Pin<&mut Body>, &mut Context<'_>) -> Polled<E> + Unpin,
{
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<E> {
        let Self { inner, poll } = &mut *self;
        poll(Pin::new(inner), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Returns whether a body is an open-ended stream, of which each part is awaited.
pub(crate) fn is_open_ended(headers: &HeaderMap) -> bool {
    has_type(headers, &["text/event-stream", "multipart/x-mixed-replace"])
}

/// Returns whether the type of a body is one of `types`.
pub(crate) fn has_type(headers: &HeaderMap, types: &[&str]) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media_type = media_type.and_then(|it| it.split(';').next()).unwrap_or_default();
    types.iter().any(|it| media_type.trim_ascii().eq_ignore_ascii_case(it))
}
