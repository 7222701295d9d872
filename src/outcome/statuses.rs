//! Sets of status codes.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use http::StatusCode;

/// A set of status codes, as the setters for statuses take it.
///
/// Made from a status or its number, from a range, and from lists and tuples of these. Numbers
/// outside of 100 to 999 are refused by [`build`](crate::ResilientConfigBuilder::build).
///
/// # Examples
///
/// ```
/// use http::StatusCode;
/// use reqwest_resilient::{ResilientConfig, Statuses};
///
/// let config = ResilientConfig::builder()
///     .retry_statuses((408, StatusCode::TOO_MANY_REQUESTS, 500..=599))
///     .refused_statuses([429, 503])
///     .build()?;
/// let even: Statuses = (500..600).filter(|it| it % 2 == 0).collect();
/// assert!(even.contains(StatusCode::BAD_GATEWAY));
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Statuses {
    bits: [u64; 15],
    /// `true` if it includes statuses that are transient only with a hint.
    hinted: bool,
    /// A number that is no status.
    invalid: Option<u16>,
}

impl Statuses {
    /// Returns whether it contains `status`.
    pub fn contains(&self, status: StatusCode) -> bool {
        let (word, bit) = Self::place(status.as_u16());
        self.bits.get(word).is_some_and(|it| it & bit != 0)
    }

    pub(crate) fn with_hinted(mut self) -> Self {
        self.hinted = true;
        self
    }

    /// Returns whether it includes statuses that are transient only with a hint.
    pub(crate) fn is_hinted(&self) -> bool {
        self.hinted
    }

    /// Returns a number that was put in and is no status.
    pub(crate) fn invalid(&self) -> Option<u16> {
        self.invalid
    }

    fn add(&mut self, other: &Self) {
        self.bits.iter_mut().zip(other.bits).for_each(|(it, other)| *it |= other);
        self.hinted |= other.hinted;
        self.invalid = self.invalid.or(other.invalid);
    }

    fn place(status: u16) -> (usize, u64) {
        let index = usize::from(status).saturating_sub(100);
        (index / 64, 1 << (index % 64))
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (100..=999).filter_map(|it| StatusCode::from_u16(it).ok());
        f.debug_set().entries(all.filter(|it| self.contains(*it)).map(|it| it.as_u16())).finish()
    }
}

impl From<u16> for Statuses {
    fn from(status: u16) -> Self {
        let mut set = Self::default();
        let (word, bit) = Self::place(status);
        match set.bits.get_mut(word).filter(|_| (100..=999).contains(&status)) {
            Some(it) => *it = bit,
            None => set.invalid = Some(status),
        }
        set
    }
}

impl From<StatusCode> for Statuses {
    fn from(status: StatusCode) -> Self {
        status.as_u16().into()
    }
}

impl From<RangeInclusive<u16>> for Statuses {
    fn from(statuses: RangeInclusive<u16>) -> Self {
        statuses.collect()
    }
}

impl From<Range<u16>> for Statuses {
    fn from(statuses: Range<u16>) -> Self {
        statuses.collect()
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Statuses {
    fn from(statuses: [T; N]) -> Self {
        statuses.into_iter().collect()
    }
}

impl<T: Into<Self>> From<Vec<T>> for Statuses {
    fn from(statuses: Vec<T>) -> Self {
        statuses.into_iter().collect()
    }
}

macro_rules! tuples {
    ($(($($T:ident $t:ident),+))+) => { $(
        impl<$($T: Into<Self>),+> From<($($T,)+)> for Statuses {
            fn from(($($t,)+): ($($T,)+)) -> Self {
                Self::from([$($t.into()),+])
            }
        }
    )+ };
}
tuples! {
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
}

impl<T: Into<Self>> FromIterator<T> for Statuses {
    fn from_iter<I: IntoIterator<Item = T>>(statuses: I) -> Self {
        let mut set = Self::default();
        statuses.into_iter().for_each(|it| set.add(&it.into()));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_set_holds_what_was_put_in() {
        let all = || (100..=999).filter_map(|it| StatusCode::from_u16(it).ok());
        let even: Statuses = all().filter(|it| it.as_u16() % 2 == 0).collect();
        assert!(all().all(|it| even.contains(it) == (it.as_u16() % 2 == 0)));
        let few: Statuses = all().filter(|it| it.as_u16() % 499 == 0).collect();
        assert_eq!(format!("{few:?}"), "{499, 998}");
    }

    #[test]
    fn a_status_set_is_made_of_numbers_ranges_and_lists() {
        let set = Statuses::from((408, StatusCode::TOO_EARLY, 500..=503, [598, 599], 700..702));
        assert_eq!(format!("{set:?}"), "{408, 425, 500, 501, 502, 503, 598, 599, 700, 701}");
        assert_eq!(Statuses::from(vec![429, 503]), Statuses::from([503, 429]));
        assert_eq!(set.invalid(), None);
        assert!(!set.is_hinted() && Statuses::from((503, set.with_hinted())).is_hinted());
    }

    #[test]
    fn a_number_that_is_no_status_is_remembered() {
        for number in [0, 99, 1000, u16::MAX] {
            assert_eq!(Statuses::from((503, number)).invalid(), Some(number));
        }
        assert_eq!(Statuses::from(98..=101).invalid(), Some(98));
        assert_eq!(format!("{:?}", Statuses::from(98..=101)), "{100, 101}");
    }
}
