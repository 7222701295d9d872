//! The kinds of attempts.

use crate::common::names::names;

/// The kind of an attempt: why it was sent.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{AttemptKind, History};
///
/// fn hedges(history: &History) -> usize {
///     history.attempts().iter().filter(|it| it.kind == AttemptKind::Hedge).count()
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptKind {
    /// The first attempt of the request.
    #[default]
    First,
    /// An attempt after one that failed.
    Retry,
    /// An attempt beside one that is slow; see [`Hedge`](crate::Hedge).
    Hedge,
}

names!(AttemptKind { First: "first", Retry: "retry", Hedge: "hedge" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_names() {
        let kinds = [AttemptKind::First, AttemptKind::Retry, AttemptKind::Hedge];
        assert_eq!(kinds.map(|it| it.to_string()), ["first", "retry", "hedge"]);
    }
}
