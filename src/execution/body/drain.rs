//! Draining a response nobody will read, so that its connection can be used again.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    time::Duration,
};

use reqwest::{Response, Version};

/// A body longer than this costs more to read than a new connection costs to open.
const MOST_BYTES: usize = 64 * 1024;
/// A body that stalls holds its connection no longer than this, however long the wait.
const MOST_TIME: Duration = Duration::from_secs(2);
/// A shorter wait may be exceeded up to this: a new connection costs as much.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// Reads up to 64 KiB within `wait`, at most 2 s, then drops the response; `None` if it is dropped at once,
/// because that does no harm or reading would not help.
///
/// A wait below 50 ms is exceeded up to that, but not where it would use up the time that is `left`
/// for the next attempt.
pub(crate) fn drain(
    response: Response,
    wait: Duration,
    left: Option<Duration>,
) -> Option<impl Future<Output = ()>> {
    // An HTTP/2 stream is cancelled without harm to its connection.
    let shares = response.version() >= Version::HTTP_2;
    let odd = response.content_length().is_some_and(|it| it == 0 || it > MOST_BYTES as u64);
    if shares || odd {
        return None;
    }
    let is_short = left.is_some_and(|it| it <= wait.saturating_add(LEAST_TIME));
    let most = if is_short { wait } else { wait.max(LEAST_TIME) }.min(MOST_TIME);
    Some(async move {
        let _ = tokio::time::timeout(most, read(response)).await;
    })
}

/// Waits, and drains meanwhile; what is not drained by then is dropped.
pub(crate) async fn beside<W: Future>(
    mut draining: Option<impl Future<Output = ()> + Unpin>,
    waiting: W,
) -> W::Output {
    let mut waiting = pin!(waiting);
    poll_fn(|cx| {
        if draining.as_mut().is_some_and(|it| Pin::new(it).poll(cx).is_ready()) {
            draining = None;
        }
        waiting.as_mut().poll(cx)
    })
    .await
}

async fn read(mut response: Response) {
    let mut left = MOST_BYTES;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => break,
        }
    }
}
