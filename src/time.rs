//! The clock type every decision takes.

pub(crate) use tokio::time::Instant;
