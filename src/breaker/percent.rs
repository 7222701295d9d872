//! Shares of calls, compared without rounding.

use std::fmt::{self, Debug, Display, Formatter};

/// A share of calls, from a hundredth of a percent to 100 %.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::Percent;
///
/// let third = Percent::new(33).unwrap();
/// let quarter_percent = Percent::hundredths(25).unwrap();
/// assert_eq!((third.get(), quarter_percent.get(), Percent::new(101)), (33.0, 0.25, None));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

impl Percent {
    /// 50 %.
    pub const HALF: Self = Self(5_000);

    /// 25 %.
    pub(super) const QUARTER: Self = Self(2_500);

    /// Creates a share of this many percent; `None` unless it is 1 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        Self::hundredths(percent as u16 * 100)
    }

    /// Creates a share of this many hundredths of a percent, 25 for 0.25 %; `None` unless it is 1 to
    /// 10,000.
    pub const fn hundredths(hundredths: u16) -> Option<Self> {
        match hundredths {
            1..=10_000 => Some(Self(hundredths)),
            _ => None,
        }
    }

    /// Returns the number of percent.
    pub const fn get(self) -> f64 {
        self.0 as f64 / 100.0
    }

    /// Returns whether `part` is at least this share of `total`, without rounding.
    pub(super) fn reached(self, part: u32, total: u32) -> bool {
        u64::from(part) * 10_000 >= u64::from(self.0) * u64::from(total)
    }
}

/// `50 %`
impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.get())
    }
}

impl Debug for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_percent_is_shown_as_it_is_written() {
        for (share, text) in [
            (Percent::HALF, "50 %"),
            (Percent::new(100).unwrap(), "100 %"),
            (Percent::hundredths(29).unwrap(), "0.29 %"),
            (Percent::hundredths(3_330).unwrap(), "33.3 %"),
        ] {
            assert_eq!(
                (share.to_string(), format!("{share:?}")),
                (text.to_owned(), text.to_owned())
            );
        }
    }

    #[test]
    fn breaker_percent_is_above_0_and_up_to_100() {
        assert_eq!((Percent::new(0), Percent::hundredths(0)), (None, None));
        assert_eq!(Percent::hundredths(1).map(Percent::get), Some(0.01));
        assert_eq!(Percent::new(1).map(Percent::get), Some(1.0));
        assert_eq!(Percent::new(100), Percent::hundredths(10_000));
        assert_eq!((Percent::new(101), Percent::hundredths(10_001)), (None, None));
        assert_eq!(Percent::new(u8::MAX), None);
    }

    #[test]
    fn breaker_percent_is_reached_without_rounding() {
        let third = Percent::new(33).unwrap();
        for (part, total, expected) in
            [(33, 100, true), (32, 100, false), (1, 3, true), (32, 97, false), (0, 1, false)]
        {
            assert_eq!(third.reached(part, total), expected, "{part} of {total}");
        }
        let quarter_percent = Percent::hundredths(25).unwrap();
        assert!(quarter_percent.reached(1, 400) && !quarter_percent.reached(1, 401));
        assert!(Percent::new(100).unwrap().reached(u32::MAX, u32::MAX));
    }
}
