//! The permit of a concurrency limit, held to the end of the response's body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response};

use crate::common::response::rebuild;
use crate::host::limit::LimitPermit;

/// Returns the same response with a body that holds `permit` until it ends, fails or is dropped. A
/// body that is empty returns it at once.
pub(crate) fn holding(response: Response, permit: LimitPermit) -> Response {
    if response.content_length() == Some(0) {
        return response;
    }
    rebuild(response, |inner| Body::wrap(Holding { inner, permit: Some(permit) }))
}

struct Holding {
    inner: Body,
    permit: Option<LimitPermit>,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let is_over = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => self.inner.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => true,
        };
        if is_over {
            self.permit = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
