//! Shares of calls, compared without rounding.

use std::num::NonZeroU8;

/// A share of calls: a whole number of percent from 1 to 100.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::Percent;
///
/// let third = Percent::new(33).unwrap();
/// assert_eq!((third.get(), Percent::new(101)), (33, None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(NonZeroU8);

impl Percent {
    /// 50 %.
    pub const HALF: Self = Self(NonZeroU8::MIN.saturating_add(49));

    /// 25 %.
    pub(super) const QUARTER: Self = Self(NonZeroU8::MIN.saturating_add(24));

    /// Creates a share of this many percent; `None` unless it is 1 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        match NonZeroU8::new(percent) {
            Some(percent) if percent.get() <= 100 => Some(Self(percent)),
            _ => None,
        }
    }

    /// Returns the number of percent.
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// Returns whether `part` is at least this share of `total`, without rounding.
    pub(super) fn reached(self, part: u32, total: u32) -> bool {
        u64::from(part) * 100 >= u64::from(self.get()) * u64::from(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_percent_is_1_to_100() {
        assert_eq!(Percent::new(0), None);
        assert_eq!(Percent::new(1).map(Percent::get), Some(1));
        assert_eq!(Percent::new(100).map(Percent::get), Some(100));
        assert_eq!(Percent::new(101), None);
    }

    #[test]
    fn breaker_percent_is_reached_without_rounding() {
        let third = Percent::new(33).unwrap();
        for (part, total, expected) in
            [(33, 100, true), (32, 100, false), (1, 3, true), (32, 97, false), (0, 1, false)]
        {
            assert_eq!(third.reached(part, total), expected, "{part} of {total}");
        }
        assert!(Percent::new(100).unwrap().reached(u32::MAX, u32::MAX));
    }
}
