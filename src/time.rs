//! The clock type every decision takes, and its moments as numbers.

use std::time::Duration;

pub(crate) use tokio::time::Instant;

/// Saturates after 584 years.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
