//! The choice of an endpoint: a pure function of who is available, and how they do.

/// A set of endpoints, by their places in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(u16);

impl Places {
    /// Returns the first `count` places.
    pub(crate) fn first(count: usize) -> Self {
        (0..count.min(super::MOST_ENDPOINTS)).collect()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, at: usize) -> bool {
        self.0 & bit(at) != 0
    }

    pub(crate) fn insert(&mut self, at: usize) {
        self.0 |= bit(at);
    }

    pub(crate) fn extend(&mut self, places: impl IntoIterator<Item = usize>) {
        places.into_iter().for_each(|it| self.insert(it));
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns them, in the order of the list.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..super::MOST_ENDPOINTS).filter(move |it| self.contains(*it))
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut all = Self::default();
        places.into_iter().for_each(|it| all.insert(it));
        all
    }
}

/// Returns the bit of a place; none beyond the most endpoints.
fn bit(at: usize) -> u16 {
    u32::try_from(at).ok().and_then(|it| 1_u16.checked_shl(it)).unwrap_or_default()
}

/// The order in which endpoints are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// The first that is available.
    #[default]
    Listed,
    /// The quicker and less busy of two that are drawn.
    Spread,
}

/// Costs that differ by less than this factor count as equal: latency is noisy.
const SIMILAR: f64 = 1.5;

/// Chooses among `candidates`; `None` if there are none.
///
/// `favourite` is the endpoint to stay with; `cost` and `random`, which is from 0 to 1, are asked
/// only to spread.
pub(crate) fn choose(
    order: Order,
    candidates: Places,
    favourite: Option<usize>,
    cost: impl Fn(usize) -> f64,
    mut random: impl FnMut() -> f64,
) -> Option<usize> {
    if let Some(favourite) = favourite.filter(|it| candidates.contains(*it)) {
        return Some(favourite);
    }
    let mut places = candidates.iter();
    let first = places.next()?;
    if order == Order::Listed || places.next().is_none() {
        return Some(first);
    }
    let one = draw(candidates, random())?;
    let other = draw(candidates.without([one].into_iter().collect()), random())?;
    let (a, b) = (cost(one), cost(other));
    // Drawn at random: the first of two equals is either.
    Some(if a <= b * SIMILAR { one } else { other })
}

/// Draws one of `places`, all equally likely.
fn draw(places: Places, unit: f64) -> Option<usize> {
    let count = places.iter().count();
    let at = (unit.clamp(0.0, 1.0) * count as f64) as usize;
    places.iter().nth(at.min(count.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places<const N: usize>(of: [usize; N]) -> Places {
        of.into_iter().collect()
    }

    fn never(_: usize) -> f64 {
        panic!("a list needs no cost")
    }

    #[test]
    fn mirrors_places_are_a_set() {
        let mut of = Places::default();
        assert!(of.is_empty());
        of.extend([3, 1, 3]);
        assert!(!of.is_empty() && of.iter().eq([1, 3]), "{of:?}");
    }

    #[test]
    fn mirrors_ordered_takes_the_first_available() {
        let listed = |of, favourite| {
            choose(Order::Listed, of, favourite, never, || panic!("a list needs no dice"))
        };
        assert_eq!(listed(places([]), None), None);
        assert_eq!(listed(places([0, 1, 2]), None), Some(0));
        assert_eq!(listed(places([1, 2]), None), Some(1));
        assert_eq!(listed(places([0, 1, 2]), Some(2)), Some(2), "sticky");
        assert_eq!(listed(places([0, 1]), Some(2)), Some(0), "the favourite is not available");
    }

    #[test]
    fn mirrors_spread_takes_the_cheaper_of_two() {
        let mut draws = [0.0, 0.0, 0.99, 0.0].into_iter().cycle();
        let mut pick = |costs: [f64; 2]| {
            let chosen = choose(
                Order::Spread,
                places([0, 1]),
                None,
                |at| costs[at],
                || draws.next().unwrap(),
            );
            chosen.unwrap()
        };
        assert_eq!((pick([10.0, 100.0]), pick([10.0, 100.0])), (0, 0));
        assert_eq!((pick([100.0, 10.0]), pick([100.0, 10.0])), (1, 1));
        assert_eq!((pick([10.0, 11.0]), pick([10.0, 11.0])), (0, 1), "equals are drawn");
        assert_eq!((pick([150.0, 100.0]), pick([100.0, 150.0])), (0, 1), "half as much again, too");
        assert_eq!((pick([151.0, 100.0]), pick([100.0, 151.0])), (1, 0));
    }

    #[test]
    fn mirrors_places_are_bounded() {
        assert_eq!(Places::first(99), Places(u16::MAX));
        assert!(!Places::first(16).contains(16));
        let mut all = Places::default();
        all.insert(200);
        assert!(all.is_empty());
    }

    proptest! {
        /// The choice is one of the candidates, whatever the costs and the dice.
        #[test]
        fn mirrors_choice_is_a_candidate(
            mask in any::<u16>(),
            spread in any::<bool>(),
            favourite in proptest::option::of(0..20_usize),
            costs in proptest::array::uniform16(any::<f64>()),
            dice in proptest::array::uniform2(any::<f64>()),
        ) {
            let order = if spread { Order::Spread } else { Order::Listed };
            let mut dice = dice.into_iter().cycle();
            let chosen =
                choose(order, Places(mask), favourite, |at| costs[at], || dice.next().unwrap());
            prop_assert_eq!(chosen.is_none(), mask == 0);
            prop_assert!(chosen.is_none_or(|it| Places(mask).contains(it)));
        }
    }
}
