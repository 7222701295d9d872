//! Observability: events, history, messages, telemetry.

pub(crate) mod attempt_log;
pub(crate) mod event;
pub(crate) mod history;
pub(crate) mod info;
pub(crate) mod invalid;
pub(crate) mod listeners;
pub(crate) mod message;
pub(crate) mod misuse;
pub(crate) mod misuses;
pub(crate) mod redact;
pub(crate) mod redacted_source;
pub(crate) mod resend_count;
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub mod telemetry;
