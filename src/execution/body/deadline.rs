//! The deadline of a request, applied to the body of its response.

use std::task::{Poll, ready};
use std::time::Duration;

use http_body::Body;
use reqwest::Response;

use crate::common::clock::Instant;
use crate::common::response::rebuild_polled;
use crate::error::BoxError;
use crate::observe::message::TimeLimit;

/// Returns the same response with a body that fails at `deadline` if it has not ended by then.
pub(crate) fn until(response: Response, deadline: Instant, limit: Duration) -> Response {
    let mut sleep = Box::pin(tokio::time::sleep_until(deadline));
    rebuild_polled(response, move |body, cx| {
        // The clock is read as well: the timer of a task that never waits may never fire.
        let is_late = Instant::now() >= sleep.deadline();
        match body.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if is_late && frame.is_data() => {}
            Poll::Ready(frame) => return Poll::Ready(frame.map(|it| it.map_err(BoxError::from))),
            Poll::Pending if is_late => {}
            Poll::Pending => ready!(sleep.as_mut().poll(cx)),
        }
        Poll::Ready(Some(Err(super::cut_by(TimeLimit::MaxTotalTime, limit))))
    })
}
