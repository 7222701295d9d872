//! The clock's type, and the sources of randomness and wall-clock time: the system, or those of a
//! test.

use std::time::{Duration, SystemTime};

pub(crate) use tokio::time::Instant;

/// As good as never: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Returns the moment after a wait; one that never comes if the clock does not reach it.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// Saturates after 584 years.
pub(crate) fn nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(span.subsec_nanos().into())
}

#[cfg(feature = "test-util")]
type Source<T> = Option<std::sync::Arc<dyn Fn() -> T + Send + Sync>>;

#[derive(Clone, Default)]
pub(crate) struct Sources {
    #[cfg(feature = "test-util")]
    pub(crate) random: Source<f64>,
    #[cfg(feature = "test-util")]
    pub(crate) wall_clock: Source<SystemTime>,
}

impl Sources {
    /// Returns a sample of the unit interval.
    pub(crate) fn random(&self) -> f64 {
        #[cfg(feature = "test-util")]
        if let Some(random) = &self.random {
            return random().clamp(0.0, 1.0);
        }
        rand::random()
    }

    /// Returns the wall-clock time, which serves only to read HTTP dates.
    pub(crate) fn wall_clock(&self) -> SystemTime {
        #[cfg(feature = "test-util")]
        if let Some(wall_clock) = &self.wall_clock {
            return wall_clock();
        }
        SystemTime::now()
    }

    #[cfg_attr(not(feature = "test-util"), expect(clippy::needless_pass_by_ref_mut))]
    pub(crate) fn replace(&mut self, _other: &Self) {
        #[cfg(feature = "test-util")]
        {
            self.random = _other.random.clone().or_else(|| self.random.clone());
            self.wall_clock = _other.wall_clock.clone().or_else(|| self.wall_clock.clone());
        }
    }
}
