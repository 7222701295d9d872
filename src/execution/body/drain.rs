//! Draining a response nobody will read, so that its connection can be used again.

use std::time::Duration;

use reqwest::{Response, StatusCode, Version};

/// A body longer than this costs more to read than a new connection costs to open.
const MOST_BYTES: usize = 64 * 1024;
/// A body that stalls is not waited for longer than this.
const MOST_TIME: Duration = Duration::from_millis(50);

/// Reads up to 64 KiB within 50 ms, then drops the response; `None` if it is dropped at once,
/// because that does no harm or reading would not help.
///
/// It may take longer than the `wait` that it fills, but not where it would use up the time that
/// is `left` for the next attempt.
pub(crate) fn drain(
    response: Response,
    wait: Duration,
    left: Option<Duration>,
) -> Option<impl Future<Output = ()>> {
    // An HTTP/2 stream is cancelled without harm to its connection.
    let shares = response.version() >= Version::HTTP_2;
    // A connection to another host is not to be used again.
    if response.status() == StatusCode::MISDIRECTED_REQUEST {
        return None;
    }
    let odd = response.content_length().is_some_and(|it| it == 0 || it > MOST_BYTES as u64);
    if shares || odd {
        return None;
    }
    let short = left.is_some_and(|it| it <= wait.saturating_add(MOST_TIME));
    let most = if short { wait.min(MOST_TIME) } else { MOST_TIME };
    Some(async move {
        let _ = tokio::time::timeout(most, read(response)).await;
    })
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
