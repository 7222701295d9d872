//! The deadline of a request, applied to the body of its response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response};
use tokio::time::Sleep;

use crate::common::clock::Instant;
use crate::common::response::rebuild;
use crate::error::BoxError;
use crate::observe::message::TimeLimit;

/// Returns the same response with a body that fails at `deadline` if it has not ended by then.
pub(crate) fn until(response: Response, deadline: Instant, limit: Duration) -> Response {
    rebuild(response, |inner| {
        let sleep = Box::pin(tokio::time::sleep_until(deadline));
        Body::wrap(Until { inner, sleep, limit })
    })
}

struct Until {
    inner: Body,
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The clock is read as well: the timer of a task that never waits may never fire.
        let is_late = Instant::now() >= self.sleep.deadline();
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if is_late && frame.is_data() => {}
            Poll::Ready(frame) => return Poll::Ready(frame.map(|it| it.map_err(Into::into))),
            Poll::Pending if is_late => {}
            Poll::Pending => ready!(self.sleep.as_mut().poll(cx)),
        }
        Poll::Ready(Some(Err(super::cut_by(TimeLimit::MaxTotalTime, self.limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
