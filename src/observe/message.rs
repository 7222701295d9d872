//! The message about the end of a request.

use std::{error::Error, fmt};

use http::{Method, StatusCode};

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
        let Self { method, attempts, stop, .. } = *self;
        write!(f, "{method} request to {} ", self.url)?;
        match self.cause {
            Reported::Status(status) => {
                let verb = if status.as_u16() < 400 { "is still to be retried" } else { "failed" };
                write!(f, "{verb} with status {}", status.as_u16())?;
                match stop {
                    // For example a 412 to a PUT, or a 404 to a DELETE, that took effect before.
                    StopReason::Final if self.maybe_applied => write!(
                        f,
                        " after {attempts} attempts (an earlier attempt may have been applied)"
                    ),
                    StopReason::Final | StopReason::Success => Ok(()),
                    _ => write!(f, " after {attempts} attempts{}", because(stop)),
                }
            }
            Reported::Failure(FailureKind::Timeout, _) if stop != StopReason::Deadline => {
                write!(f, "timed out ({attempts} attempts){}", because(stop))
            }
            Reported::Failure(FailureKind::CircuitOpen | FailureKind::RateLimited, error) => {
                write!(f, "was rejected after {attempts} attempts: {error}")
            }
            Reported::Failure(kind, error) => {
                let because = match stop {
                    StopReason::Final if self.maybe_applied => {
                        " (an earlier attempt may have been applied)"
                    }
                    _ => because(stop),
                };
                write!(f, "failed after {attempts} attempts{because}")?;
                if is_own(kind) || f.alternate() {
                    let text = transport_error::root_text(error);
                    return write!(f, ": {}", self.url.redact(&text));
                }
                let words = transport_error::remedy(error).or_else(|| in_words(kind));
                words.map_or(Ok(()), |it| write!(f, ": {it}"))
            }
        }
    }
}

/// Returns whether a failure of this kind is a decision of this crate, which the message has whole.
pub(crate) fn is_own(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::CircuitOpen | FailureKind::Deadline | FailureKind::RateLimited)
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
        StopReason::NotReplayable => " (body cannot be sent again)",
        StopReason::RateLimited => " (host is rate limited)",
        StopReason::UnsafeToRepeat => " (not safe to repeat)",
        StopReason::Vetoed => " (told not to retry)",
    }
}
