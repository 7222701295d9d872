//! The caller's own verdict on an outcome.

use std::{error::Error, time::Duration};

/// The verdict of [`retry_if`](crate::ResilientConfigBuilder::retry_if) on an outcome. A `bool` is
/// one, too: `true` for [`Retry`](Self::Retry), `false` for [`Stop`](Self::Stop).
///
/// # Examples
///
/// ```
/// use http::{Method, StatusCode};
/// use reqwest_resilient::{ResilientConfig, RetryVerdict};
///
/// // By the statuses, and this server turns requests away by 403 before it looks at them.
/// let config = ResilientConfig::builder()
///     .retry_if(|outcome| match outcome.status() {
///         Some(StatusCode::FORBIDDEN) => RetryVerdict::NotProcessed,
///         Some(StatusCode::UNAUTHORIZED) => RetryVerdict::Fail("the token has expired".into()),
///         _ => outcome.default_verdict(),
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RetryVerdict {
    /// Another attempt may end better.
    Retry,
    /// Another attempt may end better, but not before this time. Counts like a hint of the server:
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time) bounds it, and 429 and 503
    /// close the [gate](crate::ResilientConfigBuilder::gate) for as long.
    RetryAfter(Duration),
    /// Another attempt may end better, and the server did not process this one: the request is sent
    /// again with any method of
    /// [`RetryMethods::Idempotent`](crate::RetryMethods::Idempotent) and `All`, a POST as well.
    NotProcessed,
    /// No further attempt: a success if the status is below 400, final otherwise.
    Stop,
    /// No further attempt, and the request ends with this error in place of its response or error.
    Fail(Box<dyn Error + Send + Sync>),
}

impl RetryVerdict {
    /// Returns whether it asks for another attempt.
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Retry | Self::RetryAfter(_) | Self::NotProcessed)
    }
}

impl From<bool> for RetryVerdict {
    fn from(retry: bool) -> Self {
        if retry { Self::Retry } else { Self::Stop }
    }
}
