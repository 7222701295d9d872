//! Half-open: the probes under way and their results.

use std::time::Duration;

use crate::breaker::{config::BreakerConfig, settings::Recovery};
use crate::common::clock::Instant;

/// The progress of half-open.
#[derive(Debug)]
pub(super) struct Probing {
    /// Probes under way.
    out: u32,
    last_admitted: Instant,
    successes: u32,
    failures: u32,
    /// The number of times that all probes under way were replaced.
    replacements: u64,
}

/// The verdict of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Recovered,
    Failed,
}

impl Probing {
    /// Creates it without a probe.
    pub(super) fn new(now: Instant) -> Self {
        Self { out: 0, last_admitted: now, successes: 0, failures: 0, replacements: 0 }
    }

    pub(super) fn out(&self) -> u32 {
        self.out
    }

    pub(super) fn is_full(&self, config: &BreakerConfig) -> bool {
        self.out >= config.max_probes
    }

    /// Returns the time until a place may be free; zero if one is.
    pub(super) fn wait(&self, config: &BreakerConfig, now: Instant) -> Duration {
        if !self.is_full(config) {
            return Duration::ZERO;
        }
        // All places have been occupied for at least as long as the newest.
        let silent = now.saturating_duration_since(self.last_admitted);
        config.half_open_max_wait.saturating_sub(silent).min(config.open_for)
    }

    /// Abandons all probes under way. A later success of one of them still counts.
    pub(super) fn replace_all(&mut self) {
        self.out = 0;
        self.replacements += 1;
    }

    pub(super) fn replacements(&self) -> u64 {
        self.replacements
    }

    pub(super) fn admit(&mut self, now: Instant) {
        self.out += 1;
        self.last_admitted = self.last_admitted.max(now);
    }

    /// Frees the place of a probe that ended.
    pub(super) fn abandon(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// Records the result of a probe. A slow success is a success: the service is back.
    pub(super) fn judge(&mut self, failed: bool, recovery: Recovery) -> Option<Judgement> {
        if failed {
            self.failures += 1;
        } else {
            self.successes += 1;
        }
        match recovery {
            Recovery::Successes(_) if self.failures > 0 => Some(Judgement::Failed),
            Recovery::Successes(enough) => {
                (self.successes >= enough).then_some(Judgement::Recovered)
            }
            Recovery::Rate { probes, percent } if percent.reached(self.failures, probes) => {
                Some(Judgement::Failed)
            }
            Recovery::Rate { probes, .. } => {
                (self.successes + self.failures >= probes).then_some(Judgement::Recovered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::percent::Percent;

    const GOOD: bool = false;
    const FAILED: bool = true;

    /// Returns the verdict after each of the samples.
    fn judged(recovery: Recovery, samples: &[bool]) -> Vec<Option<Judgement>> {
        let now = Instant::now();
        let mut probing = Probing::new(now);
        samples.iter().map(|failed| probing.judge(*failed, recovery)).collect()
    }

    #[test]
    fn breaker_probes_wait_for_a_place() {
        let (now, secs) = (Instant::now(), Duration::from_secs);
        let config =
            BreakerConfig::default().max_probes(2).open_for(secs(5)).half_open_max_wait(secs(30));
        let mut probing = Probing::new(now);
        assert_eq!(probing.wait(&config, now), secs(0));
        probing.admit(now);
        assert!(!probing.is_full(&config));
        assert_eq!(probing.wait(&config, now), secs(0));
        probing.admit(now + secs(1));
        assert!(probing.is_full(&config));
        assert_eq!(probing.out(), 2);
        assert_eq!(probing.wait(&config, now + secs(1)), secs(5));
        assert_eq!(probing.wait(&config, now + secs(29)), secs(2));
        assert_eq!(probing.wait(&config, now + secs(31)), secs(0), "they are taken for lost");
        probing.abandon();
        assert_eq!((probing.out(), probing.wait(&config, now)), (1, secs(0)));
        probing.replace_all();
        assert_eq!((probing.out(), probing.replacements()), (0, 1));
    }

    #[test]
    fn breaker_closes_after_enough_successes_and_opens_at_one_failure() {
        let two = Recovery::Successes(2);
        let (recovered, failed) = (Some(Judgement::Recovered), Some(Judgement::Failed));
        assert_eq!(judged(two, &[GOOD, GOOD]), [None, recovered]);
        assert_eq!(judged(two, &[GOOD, FAILED]), [None, failed]);
    }

    #[test]
    fn breaker_judges_probes_by_a_rate_as_soon_as_it_is_certain() {
        let half = Recovery::Rate { probes: 4, percent: Percent::HALF };
        let (recovered, failed) = (Some(Judgement::Recovered), Some(Judgement::Failed));
        assert_eq!(judged(half, &[FAILED, FAILED]), [None, failed]);
        assert_eq!(judged(half, &[FAILED, GOOD, GOOD, GOOD]), [None, None, None, recovered]);
        assert_eq!(judged(half, &[GOOD, GOOD, FAILED, FAILED]), [None, None, None, failed]);
    }
}
