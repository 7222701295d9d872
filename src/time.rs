//! The clock type every decision takes: monotonic, and paused by `tokio`'s test clock.

pub(crate) use tokio::time::Instant;
