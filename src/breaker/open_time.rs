//! The open time of a breaker.

use std::time::Duration;

use crate::breaker::config::BreakerConfig;
use crate::common::amount::scale;

/// Returns how long an opening lasts, after `earlier` ones without a close in between.
///
/// Jitter never exceeds a bound: under a growing time's `max` the base shrinks to make room for it,
/// and a hint at its bound gets none.
pub(super) fn open_time(
    config: &BreakerConfig,
    earlier: u32,
    retry_after: Option<Duration>,
    random: impl FnOnce() -> f64,
) -> Duration {
    let jitter = config.open_jitter.map_or(0.0, |percent| percent.get() / 100.0);
    let share = if jitter > 0.0 { jitter * random().clamp(0.0, 1.0) } else { 0.0 };
    let own = match config.growth {
        None => lengthen(config.open_for, share),
        Some(growth) => {
            let max = growth.max.unwrap_or_else(|| config.open_for.saturating_mul(2));
            let roof = scale(max, 1.0 / (1.0 + jitter));
            // `max` also turns NaN into 1.
            let factor = growth.factor.max(1.0).powf(earlier.into());
            let grown = scale(config.open_for, factor).min(roof).max(config.open_for);
            lengthen(grown, share).min(max.max(config.open_for))
        }
    };
    let hinted = retry_after.unwrap_or_default();
    own.max(lengthen(hinted, share).min(config.max_retry_after))
}

fn lengthen(time: Duration, share: f64) -> Duration {
    if share == 0.0 { time } else { time.saturating_add(scale(time, share)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::percent::Percent;

    #[test]
    fn breaker_open_time_respects_every_bound() {
        let secs = Duration::from_secs;
        let fifth = Percent::new(20).unwrap();
        let plain = BreakerConfig::consecutive(2)
            .open_for(secs(10))
            .open_jitter(fifth)
            .without_open_growth();
        let growing = plain.clone().open_growth(2.0, secs(24));
        let endless = plain.clone().open_growth(f64::MAX, Duration::MAX).without_open_jitter();
        let shrinking = plain.clone().open_growth(f64::NAN, secs(24));
        let by_halves = plain.clone().open_growth(1.5, secs(600)).without_open_jitter();
        for (config, earlier, hint, random, expected) in [
            (&plain, 9, None, 0.0, secs(10)),
            (&plain, 9, None, 1.0, secs(12)),
            (&plain, 0, Some(secs(30)), 1.0, secs(36)),
            (&plain, 0, Some(secs(55)), 1.0, secs(60)),
            (&plain, 0, Some(secs(90)), 0.0, secs(60)),
            (&growing, 0, None, 0.0, secs(10)),
            (&growing, 1, None, 0.0, secs(20)),
            (&growing, 1, None, 1.0, secs(24)),
            (&growing, 2, None, 0.0, secs(20)),
            (&growing, u32::MAX, None, 1.0, secs(24)),
            (&by_halves, 1, None, 0.0, secs(15)),
            (&by_halves, 3, None, 0.0, Duration::from_millis(33_750)),
            (&endless, 0, None, 0.0, secs(10)),
            (&endless, 2, None, 0.0, Duration::MAX),
            (&shrinking, 9, None, 0.0, secs(10)),
        ] {
            let found = open_time(config, earlier, hint, || random);
            assert!(found.abs_diff(expected) < Duration::from_micros(1), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn breaker_opens_for_one_to_two_seconds_by_default() {
        let config = BreakerConfig::default();
        for (earlier, random, millis) in [
            (0, 0.0, 1_000),
            (0, 1.0, 1_250),
            (1, 0.0, 1_500),
            (1, 1.0, 1_875),
            (2, 0.0, 1_600),
            (2, 1.0, 2_000),
            (u32::MAX, 1.0, 2_000),
        ] {
            let (found, expected) =
                (open_time(&config, earlier, None, || random), Duration::from_millis(millis));
            assert!(found.abs_diff(expected) < Duration::from_micros(1), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn breaker_without_jitter_asks_for_no_randomness() {
        let config = BreakerConfig::default().open_for(Duration::from_secs(10));
        let unasked = || -> f64 { panic!("no jitter") };
        let time = open_time(&config.without_open_jitter(), 0, None, unasked);
        assert_eq!(time, Duration::from_secs(10));
    }
}
