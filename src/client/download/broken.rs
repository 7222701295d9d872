//! The reasons why a download has to go on.

use std::{fmt, io, time::Duration};

use crate::client::download::error::Cause;
use crate::error::{BoxError, ErrorKind, HttpRequestError};
use crate::execution::body::stall::Stall;
use crate::outcome::{FailureKind, classify, transport_error};

/// The reason why a body ended before its time.
pub(crate) enum Broken {
    /// The connection failed.
    Error(BoxError),
    /// The limits of waiting were exceeded.
    Stall(Stall),
    /// The body ended early, without an error.
    Short,
    /// The server sent less than was asked for, as it had announced.
    Segment,
    /// An earlier process had begun the download.
    Continued,
    /// A request for the rest failed.
    Request(HttpRequestError),
    /// A request for the rest brought nothing that can be used.
    Unusable,
}

impl Broken {
    /// Returns the cause in an error.
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Error(error) => Cause::Other(error),
            Self::Stall(stall) => {
                Cause::Other(io::Error::new(io::ErrorKind::TimedOut, stall.to_string()).into())
            }
            Self::Short => Cause::Other(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Self::Request(error) => Cause::Request(error),
            Self::Segment | Self::Continued | Self::Unusable => Cause::None,
        }
    }

    /// Drops the body of a response that failed, with its permit and its connection: neither waits with
    /// the download.
    pub(crate) fn release(&mut self) {
        if let Self::Request(error) = self {
            error.release_body();
        }
    }

    /// Returns whether it is a failure of the host. A limit of the caller's own, such as the timeout
    /// of the request, says nothing of it.
    pub(crate) fn concerns_host(&self) -> bool {
        match self {
            Self::Error(error) => transport_error::kind_of(error.as_ref()) != FailureKind::Timeout,
            Self::Stall(_) | Self::Short => true,
            Self::Segment | Self::Continued | Self::Request(_) | Self::Unusable => false,
        }
    }

    /// Returns the time until another request makes sense.
    pub(crate) fn hint(&self) -> Option<Duration> {
        match self {
            Self::Request(error) => error.retry_in(),
            _ => None,
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "no byte came for {time:?} (stall_timeout)"),
            Self::Slow(speed, period) => {
                write!(f, "fewer than {speed} bytes a second came for {period:?} (min_speed)")
            }
        }
    }
}

/// Returns whether a failure passes, where only its kind is known.
pub(crate) fn is_transient(error: &HttpRequestError) -> bool {
    match error.kind() {
        ErrorKind::Status(status) => {
            status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
        }
        ErrorKind::Failure(kind) => classify::is_transient(kind),
    }
}
