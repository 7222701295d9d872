//! The error of a request that may not wait for its gate.

use std::{error::Error, fmt, time::Duration};

/// The error of a request that its host's rate limit ends before it is sent.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// if let Err(error) = client.get("https://example.com/").send_resilient().await {
///     if let Some(limited) = error.rate_limited() {
///         eprintln!("again in {:?}", limited.retry_in());
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    pub(super) asked: Option<Duration>,
    /// Set if another process of the fleet heard of the limit.
    pub(super) by_fleet: bool,
    pub(super) retry_in: Duration,
    pub(super) reason: Reason,
}

/// Why a request is rejected instead of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The gate opens too late for this request.
    TooLong,
    /// Older requests went first until its time was up.
    Waited(Duration),
    /// As many as may wait do so already.
    Full(usize),
}

impl RateLimited {
    /// Returns how long until the next request to this host is allowed; zero if it is now, but
    /// other requests go first.
    pub fn retry_in(&self) -> Duration {
        self.retry_in
    }

    /// Returns whether another process of the [fleet](crate::fleet) heard of the limit, and not this one.
    pub fn is_of_fleet(&self) -> bool {
        self.by_fleet
    }

    /// Returns for how long the host asked to be left alone; `None` if it named no time.
    pub fn asked_for(&self) -> Option<Duration> {
        self.asked
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heard = if self.by_fleet { ", as the fleet heard" } else { "" };
        write!(f, "host is rate limited{heard}: ")?;
        match self.asked {
            Some(asked) if asked.subsec_nanos() == 0 => {
                write!(f, "asked for {} s, ", asked.as_secs())?
            }
            Some(asked) => write!(f, "asked for {:.1} s, ", asked.as_secs_f64())?,
            None => f.write_str("named no time, ")?,
        }
        match self.reason {
            Reason::TooLong => {}
            Reason::Waited(it) => {
                write!(f, "waited {:.1} s behind older requests, ", it.as_secs_f64())?
            }
            Reason::Full(it) => write!(f, "{it} requests wait already, ")?,
        }
        if self.retry_in.is_zero() {
            f.write_str("next try now")
        } else {
            write!(f, "next try in {:.1} s", self.retry_in.as_secs_f64())
        }
    }
}

impl Error for RateLimited {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_asked_for_and_when_the_next_try_is_allowed() {
        let message = |asked: Option<u64>, retry_in, reason| {
            let asked = asked.map(Duration::from_millis);
            let (by_fleet, retry_in) = (false, Duration::from_millis(retry_in));
            let error = RateLimited { asked, by_fleet, retry_in, reason };
            assert_eq!(error.retry_in(), retry_in);
            let of_fleet = RateLimited { by_fleet: true, ..error }.to_string();
            let (heard, heard_by_fleet) = ("limited:", "limited, as the fleet heard:");
            assert_eq!(of_fleet, error.to_string().replace(heard, heard_by_fleet));
            error.to_string()
        };
        for (asked, retry_in, reason, expected) in [
            (Some(3_590_000), 3_531_200, Reason::TooLong, "asked for 3590 s, next try in 3531.2 s"),
            (Some(2_500), 900, Reason::TooLong, "asked for 2.5 s, next try in 0.9 s"),
            (None, 1_100, Reason::TooLong, "named no time, next try in 1.1 s"),
            (
                Some(1_000),
                0,
                Reason::Waited(Duration::from_secs(60)),
                "asked for 1 s, waited 60.0 s behind older requests, next try now",
            ),
            (
                Some(1_000),
                900,
                Reason::Full(10_000),
                "asked for 1 s, 10000 requests wait already, next try in 0.9 s",
            ),
        ] {
            let expected = format!("host is rate limited: {expected}");
            assert_eq!(message(asked, retry_in, reason), expected);
        }
    }
}
