//! The texts of the error: for people, for developers, and its sources.

use std::{error::Error, fmt};

use super::{Cause, HttpRequestError, Sources};
use crate::observe::invalid::InvalidPart;
use crate::observe::message::{Message, Reported};
use crate::observe::redact;
use crate::outcome::transport_error;

impl fmt::Display for HttpRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner.0;
        let cause = match &inner.cause {
            Cause::Response(response) => Reported::Status(response.status()),
            Cause::Failure(kind, source) => Reported::Failure(*kind, source.as_ref()),
        };
        let (stop, attempts) = (inner.stop, inner.attempts);
        let maybe_applied = self.may_have_been_applied();
        match (&inner.method, self.redacted_url(), &cause) {
            (Some(method), Some(url), _) => {
                Message { method, url, stop, attempts, cause, maybe_applied }.fmt(f)
            }
            (_, _, Reported::Failure(_, error)) => {
                f.write_str("request could not be built")?;
                if let Some(part) = error.downcast_ref::<InvalidPart>() {
                    write!(f, ": {part}")?;
                }
                if f.alternate() {
                    let text = transport_error::root_text(*error);
                    write!(f, ": {}", redact::redact(&text, inner.redact_path.as_ref()))?;
                }
                Ok(())
            }
            (_, _, Reported::Status(status)) => write!(f, "request failed with status {status}"),
        }
    }
}

impl fmt::Debug for HttpRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequestError")
            .field("method", &self.inner.0.method)
            .field("url", &self.redacted_url())
            .field("kind", &self.kind())
            .field("stop_reason", &self.inner.0.stop)
            .field("attempts", &self.inner.0.attempts)
            .finish_non_exhaustive()
    }
}

impl Error for HttpRequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match (&self.inner.1, &self.inner.0.cause) {
            (Sources::Whole, Cause::Failure(_, source)) => {
                let part = source.downcast_ref::<InvalidPart>();
                // `Display` has named the part.
                part.map_or_else(|| Some(source.as_ref() as _), Error::source)
            }
            (Sources::Redacted(source), _) => Some(source),
            _ => None,
        }
    }
}
