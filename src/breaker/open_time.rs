//! How long a breaker stays open.

use std::{num::NonZeroU32, time::Duration};

use crate::breaker::config::BreakerConfig;

/// Each further opening in a row lasts `factor` times as long, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) factor: NonZeroU32,
    pub(super) max: Duration,
}

/// How long an opening lasts, after `earlier` ones without a close in between.
///
/// Jitter never exceeds a bound: under a growing time's `max` it makes room for itself below,
/// and a hint at its bound gets none.
pub(super) fn open_time(
    config: &BreakerConfig,
    earlier: u32,
    retry_after: Option<Duration>,
    random: impl FnOnce() -> f64,
) -> Duration {
    let jitter = config.open_jitter.map_or(0.0, |percent| f64::from(percent.get()) / 100.0);
    let share = if jitter > 0.0 { jitter * random().clamp(0.0, 1.0) } else { 0.0 };
    let own = match config.growth {
        None => lengthen(config.open_for, share),
        Some(growth) => {
            let factor = growth.factor.get().saturating_pow(earlier);
            let roof = Duration::try_from_secs_f64(growth.max.as_secs_f64() / (1.0 + jitter))
                .unwrap_or(growth.max);
            let grown = config.open_for.saturating_mul(factor).min(roof).max(config.open_for);
            lengthen(grown, share).min(growth.max.max(config.open_for))
        }
    };
    let hinted = retry_after.unwrap_or_default();
    own.max(lengthen(hinted, share).min(config.max_retry_after))
}

fn lengthen(time: Duration, share: f64) -> Duration {
    if share == 0.0 {
        return time;
    }
    let extra = Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(Duration::MAX);
    time.saturating_add(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_open_time_respects_every_bound() {
        let two = NonZeroU32::new(2).unwrap();
        let secs = Duration::from_secs;
        let plain = BreakerConfig::consecutive(two).open_for(secs(10));
        let growing = plain.clone().open_growth(two, secs(24));
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
        ] {
            let found = open_time(config, earlier, hint, || random);
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
