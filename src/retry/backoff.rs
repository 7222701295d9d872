//! Waits before retries: growing strategies, and jitter.

use std::time::Duration;

use crate::common::{amount::scale, fault::ConfigFault};

/// The delay before each retry, before jitter.
///
/// Any `Fn(u32) -> Duration` is one:
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .backoff(|retry: u32| Duration::from_millis(100) * (retry + 1))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
pub trait Backoff: Send + Sync + 'static {
    /// Returns the delay before retry number `retry`, counted from 0.
    fn delay(&self, retry: u32) -> Duration;

    /// Returns the longest delay, which jitter does not exceed either. Default: none.
    fn max_delay(&self) -> Option<Duration> {
        None
    }

    /// Returns an invalid setting of the strategy, which
    /// [`build`](crate::ResilientConfigBuilder::build) refuses. Default: none.
    fn fault(&self) -> Option<ConfigFault> {
        None
    }

    /// Returns the values of a strategy that is data; for configuration files.
    #[doc(hidden)]
    fn shape(&self) -> Option<BackoffShape> {
        None
    }
}

/// The values of a strategy of this crate, as configuration files name them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "serde"), expect(dead_code))]
pub struct BackoffShape {
    pub(crate) kind: &'static str,
    pub(crate) delay: Duration,
    pub(crate) factor: f64,
    pub(crate) max_delay: Option<Duration>,
}

/// The longest backoff by default.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

/// The default backoff.
pub(crate) const DEFAULT_BACKOFF: Exponential =
    Exponential::new(Duration::from_millis(300)).max_delay(LONGEST_BACKOFF);

impl Default for BackoffShape {
    fn default() -> Self {
        let Exponential { base: delay, factor, max_delay } = DEFAULT_BACKOFF;
        Self { kind: "exponential", delay, factor, max_delay }
    }
}

impl<F: Fn(u32) -> Duration + Send + Sync + 'static> Backoff for F {
    fn delay(&self, retry: u32) -> Duration {
        self(retry)
    }
}

/// The same delay before every retry.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Backoff, Constant};
///
/// let backoff = Constant::new(Duration::from_millis(250));
/// assert_eq!(backoff.delay(7), Duration::from_millis(250));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Constant {
    delay: Duration,
}

impl Constant {
    /// Waits `delay` each time.
    pub const fn new(delay: Duration) -> Self {
        Self { delay }
    }
}

impl Backoff for Constant {
    fn delay(&self, _: u32) -> Duration {
        self.delay
    }

    fn shape(&self) -> Option<BackoffShape> {
        Some(BackoffShape { kind: "constant", delay: self.delay, factor: 2.0, max_delay: None })
    }
}

/// Doubles each time, or grows by another [`factor`](Self::factor): `base`, `2 base`, `4 base`, …
///
/// # Default
///
/// No cap of its own; [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time) always
/// applies. Arithmetic saturates.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Backoff, Exponential};
///
/// let backoff = Exponential::new(Duration::from_millis(200)).factor(1.5);
/// assert_eq!(backoff.delay(2), Duration::from_millis(450));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Exponential {
    base: Duration,
    factor: f64,
    max_delay: Option<Duration>,
}

impl Exponential {
    /// Starts at `base`.
    pub const fn new(base: Duration) -> Self {
        Self { base, factor: 2.0, max_delay: None }
    }

    /// Multiplies each delay by `factor` for the next one. Default: 2. A factor that is not finite
    /// or below 1 is refused by [`build`](crate::ResilientConfigBuilder::build).
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Never waits longer than this, jitter included. A cap of zero, below the base or above
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time) is refused by
    /// [`build`](crate::ResilientConfigBuilder::build).
    pub const fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = Some(max_delay);
        self
    }
}

impl Backoff for Exponential {
    fn delay(&self, retry: u32) -> Duration {
        let factor = self.factor.powi(i32::try_from(retry).unwrap_or(i32::MAX));
        let delay = if self.base.is_zero() { self.base } else { scale(self.base, factor) };
        self.max_delay.map_or(delay, |cap| delay.min(cap))
    }

    fn max_delay(&self) -> Option<Duration> {
        self.max_delay
    }

    fn fault(&self) -> Option<ConfigFault> {
        let refuse = |rule| Some(ConfigFault::new("backoff.factor", rule, self.factor));
        match self.factor {
            it if !it.is_finite() => refuse("must be finite"),
            it if it < 1.0 => refuse("must be >= 1"),
            _ => None,
        }
    }

    fn shape(&self) -> Option<BackoffShape> {
        let Self { base: delay, factor, max_delay } = *self;
        Some(BackoffShape { kind: "exponential", delay, factor, max_delay })
    }
}

/// The strategies that grow by whole multiples of a base delay, up to an optional cap.
macro_rules! growing {
    ($(#[$doc:meta])* $Name:ident, $kind:literal, $factor:expr) => {
        $(#[$doc])*
        ///
        /// # Default
        ///
        /// No cap of its own; [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time)
        /// always applies. Arithmetic saturates.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[must_use]
        pub struct $Name {
            base: Duration,
            max_delay: Option<Duration>,
        }

        impl $Name {
            /// Starts at `base`.
            pub const fn new(base: Duration) -> Self {
                Self { base, max_delay: None }
            }

            /// Never waits longer than this, jitter included. A cap of zero, below the base or above
            /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time) is refused by
            /// [`build`](crate::ResilientConfigBuilder::build).
            pub const fn max_delay(mut self, max_delay: Duration) -> Self {
                self.max_delay = Some(max_delay);
                self
            }
        }

        impl Backoff for $Name {
            fn delay(&self, retry: u32) -> Duration {
                let factor: u128 = $factor(retry);
                let delay = nanos(self.base.as_nanos().saturating_mul(factor));
                self.max_delay.map_or(delay, |cap| delay.min(cap))
            }

            fn max_delay(&self) -> Option<Duration> {
                self.max_delay
            }

            fn shape(&self) -> Option<BackoffShape> {
                let Self { base: delay, max_delay } = *self;
                Some(BackoffShape { kind: $kind, delay, max_delay, ..BackoffShape::default() })
            }
        }
    };
}

growing!(
    /// Adds `base` each time: `base`, `2 base`, `3 base`, …
    Linear,
    "linear",
    |retry| u128::from(retry) + 1
);
growing!(
    /// Grows by the Fibonacci numbers: `base`, `base`, `2 base`, `3 base`, `5 base`, …
    Fibonacci,
    "fibonacci",
    fibonacci
);

/// `fibonacci(0) == fibonacci(1) == 1`, saturating (within 187 steps).
fn fibonacci(n: u32) -> u128 {
    let (mut this, mut next) = (1u128, 1u128);
    for _ in 0..n.min(187) {
        (this, next) = (next, this.saturating_add(next));
    }
    this
}

fn nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    u64::try_from(nanos / PER_SECOND)
        .map_or(Duration::MAX, |seconds| Duration::new(seconds, (nanos % PER_SECOND) as u32))
}

/// The spread of a delay, so that clients that failed together do not retry together.
///
/// A cap, that of the backoff or [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time),
/// narrows the range instead of cutting single waits: clients at the cap are spread as well.
///
/// A server's hint is spread upward only, by up to a quarter of it, at least 250 ms and at most 5
/// s; `Proportional` has its own share, `None` keeps to the hint.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Constant, Jitter, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .backoff(Constant::new(Duration::from_millis(100)))
///     .jitter(Jitter::Decorrelated)
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// Anything between zero and the delay: the least total work for a recovering server, hence
    /// the default (Brooker, *Exponential Backoff and Jitter*, AWS 2015).
    #[default]
    Full,
    /// Half the delay, plus anything up to the other half.
    Equal,
    /// The delay, plus up to this share of it. Finite and not negative. At a cap the range ends at
    /// the cap and begins at `cap / (1 + share)`.
    Proportional(f64),
    /// Anything between the backoff's first delay and three times the previous wait, below the cap
    /// (the same article). Of the backoff only its first delay and its cap count. A first delay of
    /// zero stays zero.
    Decorrelated,
    /// Exactly the delay.
    None,
}

/// The least and the most of the widest spread on top of a hint.
const HINT_SPREAD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Returns the widest spread on top of a hint: a quarter of it, at least 250 ms, at most 5 s.
pub(crate) fn widest_spread(hint: Duration) -> Duration {
    (hint / 4).clamp(HINT_SPREAD.0, HINT_SPREAD.1)
}

/// Returns the share `unit`, from 0 to 1, of the widest spread on top of a hint.
pub(crate) fn spread(hint: Duration, unit: f64) -> Duration {
    between(Duration::ZERO, widest_spread(hint), unit)
}

/// The state of a request's waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// The number of the retry, counted from 0.
    pub(crate) retry: u32,
    /// The backoff before the last retry; zero before the first.
    pub(crate) previous: Duration,
    /// The longest wait.
    pub(crate) longest: Duration,
}

impl Jitter {
    /// Returns the wait that `backoff` leads to, spread by `unit` (0 to 1), never above its cap.
    pub(crate) fn wait(self, backoff: &dyn Backoff, progress: Progress, unit: f64) -> Duration {
        let Progress { retry, previous, longest } = progress;
        let cap = backoff.max_delay().map_or(longest, |it| it.min(longest));
        let (low, high) = match self {
            Self::Decorrelated => {
                let base = backoff.delay(0).min(cap);
                (base, previous.max(base).saturating_mul(3).min(cap))
            }
            _ => self.range(backoff.delay(retry), cap),
        };
        between(low, high, unit)
    }

    /// Returns the bounds of the spread of `delay`.
    fn range(self, delay: Duration, cap: Duration) -> (Duration, Duration) {
        let cut = delay.min(cap);
        match self {
            Self::Full => (Duration::ZERO, cut),
            Self::Equal => (cut / 2, cut),
            Self::Proportional(share) => {
                let factor = 1.0 + share;
                (delay.min(scale(cap, factor.recip())), scale(delay, factor).min(cap))
            }
            Self::Decorrelated | Self::None => (cut, cut),
        }
    }

    /// Returns a server's `hint` spread upward only: no client retries before the server allows it.
    /// The spread may go beyond `longest`, the longest hint accepted, so that hints near it are
    /// spread as well.
    pub(crate) fn above(self, hint: Duration, longest: Duration, unit: f64) -> Duration {
        let widest = widest_spread(hint);
        let added = match self {
            Self::None => Duration::ZERO,
            Self::Proportional(share) => {
                let room = longest.saturating_sub(hint).saturating_add(widest);
                scale(hint, share).min(room)
            }
            Self::Full | Self::Equal | Self::Decorrelated => widest,
        };
        between(hint, hint.saturating_add(added), unit)
    }
}

/// Interpolates between `low` and `high` by `unit`, from 0 to 1.
fn between(low: Duration, high: Duration, unit: f64) -> Duration {
    low.saturating_add(scale(high.saturating_sub(low), unit)).min(high.max(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn strategies_grow_as_their_names_say() {
        let first = |backoff: &dyn Backoff| (0..6).map(|i| backoff.delay(i).as_secs()).collect();
        let check = |backoff: &dyn Backoff, expected: [u64; 6]| {
            let delays: Vec<u64> = first(backoff);
            assert_eq!(delays, expected);
        };
        check(&Constant::new(secs(3)), [3, 3, 3, 3, 3, 3]);
        check(&Linear::new(secs(2)), [2, 4, 6, 8, 10, 12]);
        check(&Exponential::new(secs(1)), [1, 2, 4, 8, 16, 32]);
        check(&Exponential::new(secs(1)).max_delay(secs(5)), [1, 2, 4, 5, 5, 5]);
        check(&Fibonacci::new(secs(1)), [1, 1, 2, 3, 5, 8]);
        check(&|retry: u32| secs(u64::from(retry)), [0, 1, 2, 3, 4, 5]);
        let odd = Duration::from_millis(1500);
        assert_eq!(Exponential::new(odd).delay(1), 2 * odd);
    }

    #[test]
    fn only_strategies_that_grow_have_a_cap() {
        assert_eq!(Constant::new(secs(3)).max_delay(), None);
        assert_eq!((|_: u32| secs(3)).max_delay(), None);
        assert_eq!(Backoff::max_delay(&Linear::new(secs(3))), None);
        assert_eq!(Backoff::max_delay(&Linear::new(secs(3)).max_delay(secs(7))), Some(secs(7)));
    }

    #[test]
    fn strategies_that_are_data_have_a_shape() {
        let delay = Duration::from_secs(3);
        let constant = Constant::new(delay).shape().unwrap();
        assert_eq!((constant.kind, constant.delay), ("constant", delay));
        let longest = 3 * delay;
        let exponential = Exponential::new(delay).factor(4.0).max_delay(longest);
        let shape = exponential.shape().unwrap();
        let found = (shape.kind, shape.delay, shape.factor, shape.max_delay);
        assert_eq!(found, ("exponential", delay, 4.0, Some(longest)));
        #[derive(Debug)]
        struct Own;
        impl Backoff for Own {
            fn delay(&self, _: u32) -> Duration {
                Duration::ZERO
            }
        }
        assert!(Own.shape().is_none());
    }

    #[test]
    fn nanoseconds_are_exact() {
        assert_eq!(nanos(1_500_000_000), Duration::from_millis(1_500));
        assert_eq!(nanos(u128::MAX), Duration::MAX);
    }

    #[test]
    fn arithmetic_saturates() {
        for backoff in [&Exponential::new(secs(1)) as &dyn Backoff, &Fibonacci::new(Duration::MAX)]
        {
            assert_eq!(backoff.delay(u32::MAX), Duration::MAX);
        }
        assert_eq!(Exponential::new(Duration::ZERO).delay(u32::MAX), Duration::ZERO);
        assert_eq!(Linear::new(Duration::MAX).max_delay(secs(7)).delay(u32::MAX), secs(7));
    }

    #[test]
    fn a_factor_may_be_any_number_from_one() {
        let delays = |factor| {
            let backoff = Exponential::new(Duration::from_millis(100)).factor(factor);
            [0, 1, 2, 7].map(|retry| backoff.delay(retry).as_millis())
        };
        assert_eq!(delays(1.5), [100, 150, 225, 1708]);
        assert_eq!(delays(1.0), [100; 4]);
        assert_eq!(delays(10.0), [100, 1000, 10_000, 1_000_000_000]);
        let fault = |factor| Exponential::new(secs(1)).factor(factor).fault();
        for (factor, message) in [
            (f64::NAN, "backoff.factor must be finite, got NaN"),
            (f64::INFINITY, "backoff.factor must be finite, got inf"),
            (0.999, "backoff.factor must be >= 1, got 0.999"),
            (-2.0, "backoff.factor must be >= 1, got -2.0"),
        ] {
            assert_eq!(fault(factor).unwrap().to_string(), message);
        }
        assert!([1.0, 1.5, 2.0, f64::MAX].into_iter().all(|it| fault(it).is_none()));
        let steep = Exponential::new(secs(1)).factor(f64::MAX);
        assert_eq!((steep.delay(0), steep.delay(3)), (secs(1), Duration::MAX));
        assert_eq!(Exponential::new(Duration::ZERO).factor(f64::MAX).delay(9), Duration::ZERO);
    }

    /// The wait before the first retry.
    fn first(jitter: Jitter, delay: Duration, cap: Duration, unit: f64) -> Duration {
        let progress = Progress { retry: 0, previous: Duration::ZERO, longest: cap };
        jitter.wait(&Constant::new(delay), progress, unit)
    }

    #[test]
    fn jitter_spreads_within_its_range() {
        let (delay, cap) = (secs(10), secs(60));
        for (jitter, low, high) in [
            (Jitter::Full, 0, 10),
            (Jitter::Equal, 5, 10),
            (Jitter::Proportional(0.5), 10, 15),
            (Jitter::Proportional(5.0), 10, 60),
            (Jitter::Decorrelated, 10, 30),
            (Jitter::None, 10, 10),
        ] {
            for (unit, expected) in [(0.0, 2 * low), (0.5, low + high), (1.0, 2 * high)] {
                let wait = first(jitter, delay, cap, unit);
                assert_eq!(wait, secs(expected) / 2, "{jitter:?} {unit}");
            }
        }
    }

    #[test]
    fn clients_at_a_cap_are_spread_as_well() {
        let (cap, units) = (secs(60), [0.0, 0.25, 0.5, 0.75, 1.0]);
        for delay in [cap - secs(1), cap, cap + secs(1), secs(1_000_000)] {
            for jitter in [
                Jitter::Full,
                Jitter::Equal,
                Jitter::Proportional(0.5),
                Jitter::Proportional(1e300),
            ] {
                let waits = units.map(|unit| first(jitter, delay, cap, unit));
                let apart = waits.windows(2).all(|it| it[1] - it[0] >= secs(1));
                assert!(apart && waits[4] <= cap, "{jitter:?} {delay:?}: {waits:?}");
            }
        }
        let wait = |unit| first(Jitter::Proportional(0.5), secs(90), cap, unit);
        assert_eq!([wait(0.0), wait(0.5), wait(1.0)], [secs(40), secs(50), secs(60)]);
    }

    #[test]
    fn decorrelated_waits_grow_from_the_wait_before() {
        let backoff = Exponential::new(secs(1)).max_delay(secs(20));
        let wait = |previous, longest, unit| {
            // The previous wait counts, not the number of the retry.
            let progress = Progress { retry: 7, previous, longest };
            Jitter::Decorrelated.wait(&backoff, progress, unit)
        };
        for (previous, low, high) in [(0, 1, 3), (1, 1, 3), (3, 1, 9), (7, 1, 20), (20, 1, 20)] {
            let range = [0.0, 1.0].map(|unit| wait(secs(previous), secs(60), unit));
            assert_eq!(range, [secs(low), secs(high)], "{previous}");
        }
        assert_eq!(wait(secs(4), secs(5), 1.0), secs(5), "the longest wait is a cap as well");
        assert_eq!(wait(Duration::MAX, Duration::MAX, 1.0), secs(20));
        assert_eq!(wait(secs(4), secs(1) / 2, 0.5), secs(1) / 2);
    }

    #[test]
    fn hints_are_spread_upward_only_and_beyond_the_longest_one_too() {
        let millis = Duration::from_millis;
        let longest = secs(60);
        let check = |jitter: Jitter, hint: Duration, most: Duration| {
            let range = [0.0, 0.5, 1.0].map(|unit| jitter.above(hint, longest, unit));
            assert_eq!(range, [hint, hint + most / 2, hint + most], "{jitter:?} {hint:?}");
        };
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
            check(jitter, Duration::ZERO, millis(250));
            check(jitter, secs(1), millis(250));
            check(jitter, secs(10), millis(2_500));
            check(jitter, secs(60), secs(5));
        }
        check(Jitter::Proportional(0.5), secs(4), secs(2));
        check(Jitter::Proportional(0.5), secs(50), secs(15));
        check(Jitter::Proportional(9.0), secs(60), secs(5));
        check(Jitter::None, secs(50), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn jitter_stays_under_the_cap_and_above_the_hint(
            delay in any::<u64>(), cap in any::<u64>(), previous in any::<u64>(),
            unit in 0.0..=1.0f64, share in 0.0..1e300f64,
        ) {
            let [delay, cap, previous] = [delay, cap, previous].map(Duration::from_nanos);
            let progress = Progress { retry: 0, previous, longest: cap };
            for jitter in [
                Jitter::Full,
                Jitter::Equal,
                Jitter::Proportional(share),
                Jitter::Decorrelated,
                Jitter::None,
            ] {
                prop_assert!(jitter.wait(&Constant::new(delay), progress, unit) <= cap);
                let hint = delay.min(cap);
                let wait = jitter.above(hint, cap, unit);
                prop_assert!((hint..=cap + widest_spread(hint)).contains(&wait));
            }
        }
    }
}
