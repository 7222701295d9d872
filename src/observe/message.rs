//! The message about the end of a request.

use std::{error::Error, fmt, time::Duration};

use http::{Method, StatusCode};

use crate::common::amount::Counted;
use crate::common::fault::ConfigError;
use crate::observe::redact::RedactedUrl;
use crate::outcome::{FailureKind, Outcome, OutcomeResult, transport_error};
use crate::retry::decision::StopReason;

/// The message about the end of a request, without secrets.
///
/// It has the root cause of a failure only if that is a decision of this crate, or in the alternate
/// form: otherwise the sources of the error have it.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: RedactedUrl<'a>,
    pub(crate) stop: StopReason,
    pub(crate) attempts: u32,
    /// `true` if an earlier attempt may have been applied.
    pub(crate) maybe_applied: bool,
    pub(crate) cause: Reported<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Reported<'a> {
    Status(StatusCode),
    Failure(FailureKind, &'a (dyn Error + 'static)),
}

impl<'a> From<&Outcome<'a>> for Reported<'a> {
    fn from(outcome: &Outcome<'a>) -> Self {
        match outcome.result {
            OutcomeResult::Response { status, .. } => Self::Status(status),
            OutcomeResult::Failure(failure, error) => Self::Failure(failure.kind, error),
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, stop, .. } = *self;
        let attempts = Counted(self.attempts, "attempt");
        write!(f, "{method} request to {} ", self.url)?;
        match self.cause {
            Reported::Status(status) => {
                let verb = if status.as_u16() < 400 { "is still to be retried" } else { "failed" };
                write!(f, "{verb} with status {}", status.as_u16())?;
                match stop {
                    // For example a 412 to a PUT, or a 404 to a DELETE, that took effect before.
                    StopReason::Final if self.maybe_applied => {
                        write!(f, " after {attempts} (an earlier attempt may have been applied)")
                    }
                    StopReason::Final | StopReason::Success => Ok(()),
                    _ => write!(f, " after {attempts}{}", because(stop)),
                }
            }
            Reported::Failure(FailureKind::Deadline, error) => write!(f, "{error}, {attempts}"),
            Reported::Failure(FailureKind::Timeout, error)
                if error.is::<Elapsed>() && stop != StopReason::Deadline =>
            {
                write!(f, "{error}, {attempts}{}", because(stop))
            }
            Reported::Failure(FailureKind::Timeout, _) if stop != StopReason::Deadline => {
                write!(f, "timed out ({attempts}){}", because(stop))
            }
            Reported::Failure(
                FailureKind::CircuitOpen | FailureKind::Limited | FailureKind::RateLimited,
                error,
            ) => {
                write!(f, "was rejected after {attempts}: {error}")
            }
            Reported::Failure(kind, error) => {
                let because = match stop {
                    StopReason::Final if self.maybe_applied => {
                        " (an earlier attempt may have been applied)"
                    }
                    _ => because(stop),
                };
                write!(f, "failed after {attempts}{because}")?;
                if is_own(kind, error) || f.alternate() {
                    let text = transport_error::root_text(error);
                    return write!(f, ": {}", self.url.redact(&text));
                }
                let words = match error.is::<ConfigError>() {
                    true => Some("its settings are invalid"),
                    false => transport_error::remedy(error).or_else(|| in_words(kind)),
                };
                words.map_or(Ok(()), |it| write!(f, ": {it}"))
            }
        }
    }
}

/// A time limit of the settings.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::TimeLimit;
///
/// if let Err(error) = client.get("https://example.com/").send_resilient().await {
///     if let Some((TimeLimit::MaxTotalTime, length)) = error.time_limit() {
///         eprintln!("no response within {length:?}");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeLimit {
    /// [`attempt_timeout`](crate::ResilientConfigBuilder::attempt_timeout), or the request's own
    /// timeout where inner middleware took the time.
    AttemptTimeout,
    /// [`max_total_time`](crate::ResilientConfigBuilder::max_total_time).
    MaxTotalTime,
    /// [`stall_timeout`](crate::ResilientConfigBuilder::stall_timeout): no byte of a body came.
    StallTimeout,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AttemptTimeout => "attempt timeout",
            Self::MaxTotalTime => "max_total_time",
            Self::StallTimeout => "stall_timeout",
        })
    }
}

/// A limit of ours that ended an attempt or a request, and its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed {
    pub(crate) limit: TimeLimit,
    pub(crate) after: Duration,
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after;
        f.write_str("timed out after ")?;
        match () {
            () if after.subsec_nanos() == 0 => write!(f, "{} s", after.as_secs())?,
            () if after < Duration::from_millis(1) => write!(f, "{after:?}")?,
            () if after.as_secs() == 0 => write!(f, "{} ms", after.as_micros() as f64 / 1e3)?,
            () => write!(f, "{} s", after.as_secs_f64())?,
        }
        write!(f, " ({})", self.limit)
    }
}

impl Error for Elapsed {}

/// Returns whether a failure of this kind is a decision of this crate, which the message has whole.
pub(crate) fn is_own(kind: FailureKind, error: &(dyn Error + 'static)) -> bool {
    use FailureKind::{CircuitOpen, Deadline, Limited, RateLimited};
    matches!(kind, CircuitOpen | Deadline | Limited | RateLimited) || error.is::<Elapsed>()
}

/// Returns the kind of failure in words, where the sources have the details.
fn in_words(kind: FailureKind) -> Option<&'static str> {
    match kind {
        FailureKind::Builder => Some("it could not be built"),
        FailureKind::Certificate => Some("certificate refused"),
        FailureKind::Connect => Some("no connection"),
        FailureKind::Decode => Some("response could not be decoded"),
        FailureKind::Disconnect => Some("connection broken"),
        FailureKind::Protocol => Some("response is not HTTP"),
        FailureKind::Redirect => Some("redirect not followed"),
        FailureKind::Refused => Some("refused by the server"),
        FailureKind::Throttled => Some("throttled by the server"),
        FailureKind::Timeout => Some("timeout"),
        _ => None,
    }
}

/// Returns the reason in brackets, unless the message has it already.
fn because(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Exhausted | StopReason::Final | StopReason::Success => "",
        StopReason::Budget => " (retry budget exhausted)",
        StopReason::CircuitOpen => " (circuit breaker open)",
        StopReason::Deadline => " (max_total_time exceeded)",
        StopReason::HintTooLong => " (server asks to wait longer than max_wait_time)",
        StopReason::Limited => " (limit of the client reached)",
        StopReason::NotReplayable => " (body cannot be sent again)",
        StopReason::RateLimited => " (host is rate limited)",
        StopReason::UnsafeToRepeat => " (not safe to repeat)",
        StopReason::Vetoed => " (told not to retry)",
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;

    #[test]
    fn numbers_agree_and_limits_have_their_length() {
        let texts = [0, 1, 2].map(|it| Counted(it, "attempt").to_string());
        assert_eq!(texts, ["0 attempts", "1 attempt", "2 attempts"]);
        for (after, text) in [
            (Duration::from_secs(10), "10 s"),
            (Duration::from_millis(1_500), "1.5 s"),
            (Duration::from_millis(550), "550 ms"),
            (Duration::from_micros(2_500), "2.5 ms"),
            (Duration::from_millis(1), "1 ms"),
            (Duration::from_micros(5), "5µs"),
            (Duration::ZERO, "0 s"),
        ] {
            let elapsed = Elapsed { limit: TimeLimit::AttemptTimeout, after };
            assert_eq!(elapsed.to_string(), format!("timed out after {text} (attempt timeout)"));
        }
    }

    #[test]
    fn failures_of_the_transport_have_words() {
        for (kind, words) in [
            (FailureKind::Builder, "it could not be built"),
            (FailureKind::Certificate, "certificate refused"),
            (FailureKind::Connect, "no connection"),
            (FailureKind::Decode, "response could not be decoded"),
            (FailureKind::Disconnect, "connection broken"),
            (FailureKind::Protocol, "response is not HTTP"),
            (FailureKind::Redirect, "redirect not followed"),
            (FailureKind::Refused, "refused by the server"),
            (FailureKind::Throttled, "throttled by the server"),
            (FailureKind::Timeout, "timeout"),
        ] {
            assert_eq!(in_words(kind), Some(words));
        }
        assert_eq!(in_words(FailureKind::Other), None);
    }

    #[test]
    fn a_message_says_why_there_was_no_other_attempt() {
        let url = Url::parse("http://a.example/").unwrap();
        let failure = |kind| Reported::Failure(kind, &fmt::Error);
        let precondition = Reported::Status(StatusCode::PRECONDITION_FAILED);
        for (cause, stop, maybe_applied, text) in [
            (failure(FailureKind::Timeout), StopReason::Exhausted, false, "timed out (3 attempts)"),
            (
                failure(FailureKind::Timeout),
                StopReason::Deadline,
                false,
                "failed after 3 attempts (max_total_time exceeded): timeout",
            ),
            (
                failure(FailureKind::Disconnect),
                StopReason::Final,
                true,
                "failed after 3 attempts (an earlier attempt may have been applied): connection broken",
            ),
            (
                failure(FailureKind::Disconnect),
                StopReason::Final,
                false,
                "failed after 3 attempts: connection broken",
            ),
            (
                precondition,
                StopReason::Final,
                true,
                "failed with status 412 after 3 attempts (an earlier attempt may have been applied)",
            ),
            (precondition, StopReason::Final, false, "failed with status 412"),
        ] {
            let (method, url, attempts) = (&Method::GET, RedactedUrl::new(&url, None), 3);
            let message = Message { method, url, stop, attempts, maybe_applied, cause };
            let expected = format!("GET request to http://a.example/ {text}");
            assert_eq!(message.to_string(), expected);
        }
    }
}
