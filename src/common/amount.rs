//! Amounts: numbers of things in words, and multiples of times.

use std::{fmt, time::Duration};

/// A number of things, in the plural unless it is one.
#[derive(Clone, Copy)]
pub(crate) struct Counted(pub(crate) u32, pub(crate) &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, thing) = self;
        write!(f, "{number} {thing}{}", if *number == 1 { "" } else { "s" })
    }
}

/// Returns `time * factor`, saturating; a NaN leaves the time as it is.
pub(crate) fn scale(time: Duration, factor: f64) -> Duration {
    if factor.is_nan() {
        return time;
    }
    Duration::try_from_secs_f64(time.as_secs_f64() * factor.max(0.0)).unwrap_or(Duration::MAX)
}
