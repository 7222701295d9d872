//! The permit of a concurrency limit, held to the end of the response's body.

use std::task::Poll;

use http_body::Body as _;
use reqwest::{Body, Response};

use crate::common::response::{polled, rebuild};
use crate::host::limit::LimitPermit;

/// Returns the same response with a body that holds `permit` until it ends, fails or is dropped. A
/// body that is empty returns it at once: the `content-length` of a HEAD may say otherwise.
pub(crate) fn holding(response: Response, permit: LimitPermit) -> Response {
    if response.content_length() == Some(0) {
        return response;
    }
    rebuild(response, |body| if body.is_end_stream() { body } else { held(body, permit) })
}

fn held(body: Body, permit: LimitPermit) -> Body {
    let mut permit = Some(permit);
    polled(body, move |mut body, cx| {
        let polled = body.as_mut().poll_frame(cx);
        let is_over = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => true,
        };
        if is_over {
            drop(permit.take());
        }
        polled
    })
}
