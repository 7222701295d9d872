//! Half-open: who may probe, and what the probes say.

use std::{num::NonZeroU32, time::Duration};

use crate::breaker::{config::BreakerConfig, percent::Percent, window::Sample};
use crate::common::clock::Instant;

/// What ends half-open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Recovery {
    /// This many successes close it, one failure opens it.
    Successes(NonZeroU32),
    /// Of `probes` results, `percent` failures open it; with fewer it closes.
    Rate { probes: NonZeroU32, percent: Percent },
}

/// Half-open, as far as it has got.
#[derive(Debug)]
pub(super) struct Probing {
    /// Probes under way.
    out: u32,
    last_admitted: Instant,
    successes: u32,
    failures: u32,
}

/// What the probes have proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Recovered,
    Failed,
}

impl Probing {
    /// Without a probe yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { out: 0, last_admitted: now, successes: 0, failures: 0 }
    }

    pub(super) fn out(&self) -> u32 {
        self.out
    }

    pub(super) fn is_full(&self, config: &BreakerConfig) -> bool {
        self.out >= config.max_probes.get()
    }

    /// How long to wait before asking for a place again; zero if one is free.
    pub(super) fn wait(&self, config: &BreakerConfig, now: Instant) -> Duration {
        if !self.is_full(config) {
            return Duration::ZERO;
        }
        // All places have been taken for at least as long as the newest of them.
        let silent = now.saturating_duration_since(self.last_admitted);
        config.half_open_max_wait.saturating_sub(silent).min(config.open_for)
    }

    /// Forgets those under way: they are lost.
    pub(super) fn replace_all(&mut self) {
        self.out = 0;
    }

    pub(super) fn admit(&mut self, now: Instant) {
        self.out += 1;
        self.last_admitted = self.last_admitted.max(now);
    }

    /// Frees the place of a probe that ended without a result.
    pub(super) fn abandon(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// Takes the result of a probe.
    pub(super) fn judge(&mut self, sample: Sample, recovery: Recovery) -> Option<Judgement> {
        self.abandon();
        // A slow-call rule that opened it would open it again if slow probes closed it.
        if sample.failed || sample.slow {
            self.failures += 1;
        } else {
            self.successes += 1;
        }
        match recovery {
            Recovery::Successes(_) if self.failures > 0 => Some(Judgement::Failed),
            Recovery::Successes(enough) => {
                (self.successes >= enough.get()).then_some(Judgement::Recovered)
            }
            Recovery::Rate { probes, percent } if percent.reached(self.failures, probes.get()) => {
                Some(Judgement::Failed)
            }
            Recovery::Rate { probes, .. } => {
                (self.successes + self.failures >= probes.get()).then_some(Judgement::Recovered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Sample = Sample { failed: false, slow: false };
    const FAILED: Sample = Sample { failed: true, slow: false };
    const SLOW: Sample = Sample { failed: false, slow: true };

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    /// What is said after each of the samples.
    fn judged(recovery: Recovery, samples: &[Sample]) -> Vec<Option<Judgement>> {
        let now = Instant::now();
        let mut probing = Probing::new(now);
        let judge = |sample: &Sample| {
            probing.admit(now);
            let judgement = probing.judge(*sample, recovery);
            assert_eq!(probing.out(), 0, "whoever reports has left");
            judgement
        };
        samples.iter().map(judge).collect()
    }

    #[test]
    fn breaker_probes_wait_for_a_place() {
        let (now, secs) = (Instant::now(), Duration::from_secs);
        let config = BreakerConfig::default()
            .max_probes(number(2))
            .open_for(secs(5))
            .half_open_max_wait(secs(30));
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
        assert_eq!(probing.out(), 0);
    }

    #[test]
    fn breaker_closes_after_enough_successes_and_opens_at_one_failure() {
        let two = Recovery::Successes(number(2));
        let (recovered, failed) = (Some(Judgement::Recovered), Some(Judgement::Failed));
        assert_eq!(judged(two, &[GOOD, GOOD]), [None, recovered]);
        assert_eq!(judged(two, &[GOOD, FAILED]), [None, failed]);
        assert_eq!(judged(two, &[SLOW]), [failed]);
    }

    #[test]
    fn breaker_judges_probes_by_a_rate_as_soon_as_it_is_certain() {
        let half = Recovery::Rate { probes: number(4), percent: Percent::HALF };
        let (recovered, failed) = (Some(Judgement::Recovered), Some(Judgement::Failed));
        assert_eq!(judged(half, &[FAILED, FAILED]), [None, failed]);
        assert_eq!(judged(half, &[FAILED, GOOD, GOOD, GOOD]), [None, None, None, recovered]);
        assert_eq!(judged(half, &[GOOD, GOOD, SLOW, FAILED]), [None, None, None, failed]);
    }
}
