//! Reading a body within the attempt, so that a body that breaks off is retried like a head.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response};

/// Reads the whole body, if it is no longer than `limit` bytes.
///
/// The response returned gives the same body again. A longer one comes back with what was read
/// put in front of the rest, and without the bytes to look at.
pub(crate) async fn read(
    mut response: Response,
    limit: usize,
) -> reqwest::Result<(Response, Option<Bytes>)> {
    if response.content_length().is_some_and(|it| it > limit as u64) {
        return Ok((response, None));
    }
    let mut read = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        read.extend_from_slice(&chunk);
        if read.len() > limit {
            let start = Some(read.freeze());
            let response = super::rebuild(response, |rest| Body::wrap(Prefixed { start, rest }));
            return Ok((response, None));
        }
    }
    let read = read.freeze();
    Ok((super::rebuild(response, |_| Body::from(read.clone())), Some(read)))
}

/// A body whose start was read already.
struct Prefixed {
    start: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        match self.start.take() {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let start = self.start.as_ref().map_or(0, |it| it.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(start));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(start));
        }
        hint
    }
}
