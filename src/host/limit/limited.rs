//! The error of a request that a limit of its own client ends before it is sent.

use std::{error::Error, fmt, time::Duration};

use crate::common::amount::Counted;

/// The error of a request that a concurrency or rate limit of its own client ends before it is sent.
///
/// # Examples
///
/// ```
/// # fn example(error: reqwest_resilient::HttpRequestError) {
/// if let Some(limited) = error.limited() {
///     eprintln!("{limited}; again in {:?}", limited.retry_in());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited(pub(crate) LimitedBy);

/// The limit that ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitedBy {
    Concurrency {
        limit: u32,
        /// The permits that responses hold whose body has not ended.
        bodies: u32,
        /// The requests that wait.
        queued: usize,
        waited: Duration,
        retry_in: Option<Duration>,
    },
    Rate {
        retry_in: Duration,
    },
}

impl Limited {
    /// Returns how long until another request makes sense: for a rate the time until the next free
    /// slot, for a concurrency limit a guess by the usual duration of requests and those that wait.
    /// `None` if nothing is known yet.
    pub fn retry_in(&self) -> Option<Duration> {
        match self.0 {
            LimitedBy::Concurrency { retry_in, .. } => retry_in,
            LimitedBy::Rate { retry_in } => Some(retry_in),
        }
    }

    /// Returns whether it was a [`RateLimit`](crate::RateLimit); otherwise it was a
    /// [`ConcurrencyLimit`](crate::ConcurrencyLimit).
    pub fn is_rate(&self) -> bool {
        matches!(self.0, LimitedBy::Rate { .. })
    }

    /// Returns how long the request waited for a permit; zero if it was rejected at once.
    pub fn waited(&self) -> Duration {
        match self.0 {
            LimitedBy::Concurrency { waited, .. } => waited,
            LimitedBy::Rate { .. } => Duration::ZERO,
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LimitedBy::Rate { retry_in } => {
                write!(f, "rate limit of the client: next slot in {:.1} s", retry_in.as_secs_f64())
            }
            LimitedBy::Concurrency { limit, bodies, queued, waited, .. } => {
                write!(
                    f,
                    "concurrency limit of the client: {} under way",
                    Counted(limit, "request")
                )?;
                if !waited.is_zero() {
                    write!(f, ", waited {:.1} s", waited.as_secs_f64())?;
                }
                if queued > 0 {
                    write!(f, ", {queued} waiting")?;
                }
                if bodies >= limit {
                    let verb = if bodies == 1 { "response holds" } else { "responses hold" };
                    write!(f, "; {bodies} {verb} all permits: read or drop their bodies")?;
                }
                Ok(())
            }
        }
    }
}

impl Error for Limited {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_limit_and_unread_bodies() {
        let concurrency = |limit, bodies, queued, seconds| LimitedBy::Concurrency {
            limit,
            bodies,
            queued,
            waited: Duration::from_secs(seconds),
            retry_in: None,
        };
        for (by, expected) in [
            (
                LimitedBy::Rate { retry_in: Duration::from_millis(42_000) },
                "rate limit of the client: next slot in 42.0 s",
            ),
            (concurrency(1, 0, 0, 0), "concurrency limit of the client: 1 request under way"),
            (
                concurrency(10, 9, 32, 5),
                "concurrency limit of the client: 10 requests under way, waited 5.0 s, 32 waiting",
            ),
            (
                concurrency(10, 10, 0, 5),
                "concurrency limit of the client: 10 requests under way, waited 5.0 s; 10 responses \
                 hold all permits: read or drop their bodies",
            ),
            (
                concurrency(1, 1, 0, 5),
                "concurrency limit of the client: 1 request under way, waited 5.0 s; 1 response \
                 holds all permits: read or drop their bodies",
            ),
        ] {
            assert_eq!(Limited(by).to_string(), expected);
        }
    }
}
