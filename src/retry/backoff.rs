//! How long to wait before a retry: strategies that grow, and jitter that spreads.

use std::time::Duration;

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
    /// The delay before retry number `retry`, counted from 0.
    fn delay(&self, retry: u32) -> Duration;

    /// The longest delay, which jitter does not exceed either. Default: none.
    fn max_delay(&self) -> Option<Duration> {
        None
    }
}

impl<F: Fn(u32) -> Duration + Send + Sync + 'static> Backoff for F {
    fn delay(&self, retry: u32) -> Duration {
        self(retry)
    }
}

/// The same delay before every retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// The strategies that grow from a base delay up to an optional cap differ in their factor alone.
macro_rules! growing {
    ($(#[$doc:meta])* $Name:ident, $factor:expr) => {
        $(#[$doc])*
        ///
        /// # Default
        ///
        /// No cap of its own; [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time)
        /// always applies. Arithmetic saturates.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $Name {
            base: Duration,
            max_delay: Option<Duration>,
        }

        impl $Name {
            /// Starts at `base`.
            pub const fn new(base: Duration) -> Self {
                Self { base, max_delay: None }
            }

            /// Never waits longer than this, jitter included. A cap of zero is refused by
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
        }
    };
}

growing!(
    /// Doubles each time: `base`, `2 base`, `4 base`, …
    Exponential,
    |retry| 1u128.checked_shl(retry).unwrap_or(u128::MAX)
);
growing!(
    /// Adds `base` each time: `base`, `2 base`, `3 base`, …
    Linear,
    |retry| u128::from(retry) + 1
);
growing!(
    /// Grows by the Fibonacci numbers: `base`, `base`, `2 base`, `3 base`, `5 base`, …
    Fibonacci,
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

/// How a delay is spread, so that clients that failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// Anything between zero and the delay: the least total work for a recovering server, hence
    /// the default (Brooker, *Exponential Backoff and Jitter*, AWS 2015).
    #[default]
    Full,
    /// Half the delay, plus anything up to the other half.
    Equal,
    /// The delay, plus up to this share of it. Finite and not negative.
    Proportional(f64),
    /// Exactly the delay.
    None,
}

/// The share of a server's hint by which `Full` and `Equal` spread the clients that obey it.
const HINT_SPREAD: f64 = 0.25;

impl Jitter {
    /// `delay` spread by `unit` (0 to 1), never above `cap`.
    pub(crate) fn spread(self, delay: Duration, cap: Duration, unit: f64) -> Duration {
        let delay = delay.min(cap);
        match self {
            Self::Full => scale(delay, unit).min(delay),
            Self::Equal => scale(delay, 0.5 + unit / 2.0).min(delay),
            Self::Proportional(share) => scale(delay, 1.0 + share * unit).min(cap),
            Self::None => delay,
        }
    }

    /// A server's `hint` spread upward only: nobody comes back before the server allowed it.
    pub(crate) fn above(self, hint: Duration, unit: f64) -> Duration {
        let share = match self {
            Self::Full | Self::Equal => HINT_SPREAD,
            Self::Proportional(share) => share,
            Self::None => return hint,
        };
        scale(hint, 1.0 + share * unit).max(hint)
    }
}

/// `delay * factor`, saturating; a factor that is no number leaves the delay as it is.
fn scale(delay: Duration, factor: f64) -> Duration {
    if factor.is_nan() {
        return delay;
    }
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor.max(0.0)).unwrap_or(Duration::MAX)
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
    fn arithmetic_saturates() {
        for backoff in [&Exponential::new(secs(1)) as &dyn Backoff, &Fibonacci::new(Duration::MAX)]
        {
            assert_eq!(backoff.delay(u32::MAX), Duration::MAX);
        }
        assert_eq!(Exponential::new(Duration::ZERO).delay(u32::MAX), Duration::ZERO);
        assert_eq!(Linear::new(Duration::MAX).max_delay(secs(7)).delay(u32::MAX), secs(7));
    }

    #[test]
    fn jitter_spreads_within_its_range() {
        let (delay, cap) = (secs(10), secs(60));
        let check = |jitter: Jitter, low: f64, high: f64| {
            assert!((jitter.spread(delay, cap, 0.0).as_secs_f64() - low).abs() < 1e-9);
            assert!((jitter.spread(delay, cap, 1.0).as_secs_f64() - high).abs() < 1e-9);
        };
        check(Jitter::Full, 0.0, 10.0);
        check(Jitter::Equal, 5.0, 10.0);
        check(Jitter::Proportional(0.5), 10.0, 15.0);
        check(Jitter::None, 10.0, 10.0);
        assert_eq!(Jitter::Proportional(9.0).spread(delay, cap, 1.0), cap);
        assert_eq!(Jitter::Full.spread(delay, cap, 0.25), secs(10) / 4);
        assert_eq!(Jitter::Equal.spread(delay, cap, 0.5), secs(10) * 3 / 4);
    }

    #[test]
    fn hints_are_spread_upward_by_a_quarter_or_by_what_is_set() {
        let check = |jitter: Jitter, unit: f64, expected: Duration| {
            assert_eq!(jitter.above(secs(100), unit), expected, "{jitter:?}");
        };
        for jitter in [Jitter::Full, Jitter::Equal] {
            check(jitter, 0.0, secs(100));
            check(jitter, 0.5, Duration::from_millis(112_500));
            check(jitter, 1.0, secs(125));
        }
        check(Jitter::Proportional(0.5), 0.5, secs(125));
        check(Jitter::None, 1.0, secs(100));
    }

    proptest! {
        #[test]
        fn jitter_stays_under_the_cap_and_above_the_hint(
            delay in any::<u64>(), cap in any::<u64>(), unit in 0.0..1.0f64, share in 0.0..1e300f64,
        ) {
            let (delay, cap) = (Duration::from_nanos(delay), Duration::from_nanos(cap));
            for jitter in [Jitter::Full, Jitter::Equal, Jitter::Proportional(share), Jitter::None] {
                prop_assert!(jitter.spread(delay, cap, unit) <= cap);
                prop_assert!(jitter.above(delay, unit) >= delay);
            }
        }
    }
}
