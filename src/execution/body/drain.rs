//! Draining a response that is retried, so that its connection can be used again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use reqwest::{Body, Response, StatusCode, Version};

use crate::common::response::rebuild;

/// A body longer than this costs more to read than a new connection costs to open.
const MOST_BYTES: usize = 64 * 1024;
/// A body that stalls holds its connection no longer than this, however long the wait.
const MOST_TIME: Duration = Duration::from_secs(2);
/// A shorter wait may be exceeded up to this: a new connection costs as much.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// Reads up to 64 KiB within `wait`, at most 2 s, and releases the connection. The body of the
/// returned response is the part that was read, followed by an error if that is not all.
///
/// A wait below 50 ms is exceeded up to that, unless that would use up the time that is `left` for
/// the next attempt.
pub(crate) async fn drain(
    mut response: Response,
    wait: Duration,
    left: Option<Duration>,
) -> Response {
    // An HTTP/2 stream is cancelled without harm to its connection.
    let shares = response.version() >= Version::HTTP_2
        // This connection is for another host (421): it is not to be used again.
        || response.status() == StatusCode::MISDIRECTED_REQUEST;
    let length = response.content_length();
    if length == Some(0) {
        return response;
    }
    let mut read = BytesMut::new();
    let mut is_whole = false;
    if !shares && length.is_none_or(|it| it <= MOST_BYTES as u64) {
        let is_short = left.is_some_and(|it| it <= wait.saturating_add(LEAST_TIME));
        let most = if is_short { wait } else { wait.max(LEAST_TIME) }.min(MOST_TIME);
        let drained = tokio::time::timeout(most, fill(&mut read, &mut response)).await;
        is_whole = drained == Ok(true);
    }
    let start = Some(read.freeze()).filter(|it| !it.is_empty());
    rebuild(response, |_| match is_whole {
        true => Body::from(start.unwrap_or_default()),
        false => Body::wrap(CutShort { start, was_told: false }),
    })
}

/// Reads into `read`; returns whether it reached the end.
async fn fill(read: &mut BytesMut, response: &mut Response) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if read.len() + chunk.len() > MOST_BYTES => return false,
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The body of a response that was abandoned for a retry.
struct CutShort {
    start: Option<Bytes>,
    was_told: bool,
}

impl http_body::Body for CutShort {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.start.take() {
            Some(start) => Some(Ok(Frame::data(start))),
            None if self.was_told => None,
            None => {
                self.was_told = true;
                let text = "the rest of this body was given up for a retry, which was not sent";
                Some(Err(io::Error::other(text)))
            }
        })
    }
}
