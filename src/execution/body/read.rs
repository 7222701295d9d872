//! Reading a body within the attempt, so that a truncated body is retried like a failed head; or its
//! first byte alone, for a race that goes on until then.

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response};

use crate::common::response::{is_open_ended, rebuild, rebuild_polled};
use crate::execution::body::stall::{ReadError, ReadWatch};

/// Reads the whole body, if it has at most `limit` bytes and is no stream of events.
///
/// The returned response gives the same body again, trailers included. A longer one gets the part
/// that was read in front of the rest, and no bytes are returned. It fails after `stall` without a
/// byte.
pub(crate) async fn read(
    response: Response,
    limit: usize,
    stall: Option<Duration>,
) -> Result<(Response, Option<Bytes>), ReadError> {
    let is_longer = response.content_length().is_some_and(|it| it > limit as u64);
    if is_longer || is_open_ended(response.headers()) {
        return Ok((response, None));
    }
    // Those who read only the data of a body do not see its trailers.
    let trailers = Arc::new(OnceLock::new());
    let kept = Arc::clone(&trailers);
    let mut response = rebuild_polled(response, move |body, cx| {
        let polled = http_body::Body::poll_frame(body, cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(trailers) = frame.trailers_ref() {
                let _ = kept.set(trailers.clone());
            }
        }
        polled
    });
    let (mut read, mut watch) = (BytesMut::new(), ReadWatch::new(stall));
    while let Some(chunk) = watch.next(response.chunk()).await? {
        read.extend_from_slice(&chunk);
        if read.len() > limit {
            let start = Some(read.freeze());
            let response = rebuild(response, |rest| Body::wrap(Prefixed { start, rest }));
            return Ok((response, None));
        }
    }
    let read = read.freeze();
    let response = rebuild(response, |_| match trailers.get().cloned() {
        None => Body::from(read.clone()),
        Some(trailers) => {
            let start = Some(read.clone()).filter(|it| !it.is_empty());
            Body::wrap(Whole { data: start, trailers: Some(trailers) })
        }
    });
    Ok((response, Some(read)))
}

/// Waits for the first byte of the body, or for its end. The returned response gives the same body
/// again, trailers included. It fails after `stall` without a byte, unless it is a stream of events.
pub(crate) async fn begin(
    response: Response,
    stall: Option<Duration>,
) -> Result<Response, ReadError> {
    if response.content_length() == Some(0) {
        return Ok(response);
    }
    let mut watch = ReadWatch::new(stall.filter(|_| !is_open_ended(response.headers())));
    let mut rest = Body::default();
    let response = rebuild(response, |body| mem::replace(&mut rest, body));
    let first = loop {
        let frame = poll_fn(|cx| {
            http_body::Body::poll_frame(Pin::new(&mut rest), cx).map(Option::transpose)
        });
        match watch.next(frame).await?.map(Frame::into_data) {
            Some(Ok(data)) if data.is_empty() => {}
            first => break first,
        }
    };
    Ok(rebuild(response, |_| match first {
        Some(Ok(data)) => Body::wrap(Prefixed { start: Some(data), rest }),
        Some(Err(frame)) => Body::wrap(Whole { data: None, trailers: frame.into_trailers().ok() }),
        None => Body::default(),
    }))
}

/// A body that was read whole, with its trailers.
struct Whole {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |it| it.len() as u64))
    }
}

/// A body with a start that was read already.
pub(crate) struct Prefixed {
    pub(crate) start: Option<Bytes>,
    pub(crate) rest: Body,
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

    fn is_end_stream(&self) -> bool {
        self.start.is_none() && http_body::Body::is_end_stream(&self.rest)
    }

    fn size_hint(&self) -> SizeHint {
        size_with(self.start.as_ref(), &self.rest)
    }
}

/// Returns the size of a body with a start that was read already.
pub(crate) fn size_with(start: Option<&Bytes>, rest: &Body) -> SizeHint {
    let start = start.map_or(0, |it| it.len() as u64);
    let rest = http_body::Body::size_hint(rest);
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(start));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(start));
    }
    hint
}
