//! When a breaker opens, for how long, and what closes it again.

use std::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use crate::breaker::{
    open_time::Growth,
    percent::Percent,
    probing::Recovery,
    rules::{Consecutive, SlowCalls},
};
use crate::common::fault::ConfigFault;

/// When a circuit breaker opens, for how long, and what closes it again.
///
/// Start from a rule ([`default`](Self::default), [`consecutive`](Self::consecutive),
/// [`failure_rate`](Self::failure_rate), [`slow_call_rate`](Self::slow_call_rate)), join others
/// to it with the `or_…` methods: the breaker opens as soon as one of them says so.
///
/// # Default
///
/// - Opens at a failure rate of 50 % once the last 10 s hold at least 20 results, and after 5
///   failures in a row while they hold fewer. Failures in a row alone turn a 20 to 35 % partial
///   failure of a busy client into an outage; a rate alone never sees the thousand clients that
///   each send little. Joined, neither happens.
/// - Stays open for 5 s and up to 20 % more: long enough to relieve a service, short enough not
///   to be the outage itself, and spread so that the clients of a service do not come back
///   together.
/// - Then lets one probe through at a time; one success closes it, one failure opens it again.
///
/// ```
/// use std::{num::{NonZeroU16, NonZeroU32}, time::Duration};
/// use reqwest_resilient::{BreakerConfig, Percent, Window};
///
/// let five = NonZeroU32::new(5).unwrap();
/// let hundred = NonZeroU16::new(100).unwrap();
/// let config = BreakerConfig::failure_rate(Percent::HALF, Window::Count(hundred))
///     .or_consecutive(five)
///     .or_slow_calls(Duration::from_secs(2), Percent::HALF)
///     .open_for(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    pub(super) window: Window,
    pub(super) min_samples: Option<NonZeroU32>,
    pub(super) consecutive: Option<Consecutive>,
    pub(super) failure_rate: Option<Percent>,
    pub(super) slow_calls: Option<SlowCalls>,
    pub(super) max_probes: NonZeroU32,
    pub(super) recovery: Recovery,
    pub(super) half_open_max_wait: Duration,
    pub(super) open_for: Duration,
    pub(super) growth: Option<Growth>,
    pub(super) open_jitter: Option<Percent>,
    pub(super) max_retry_after: Duration,
}

/// Which results a breaker looks at for its rates and minimum of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last N results, however old, exactly. Takes two bytes a result, for each key.
    Count(NonZeroU16),
    /// The results of this much time. It slides by tenths of itself, counted from the first
    /// result since the breaker closed or was reset: the tenth that is now and the nine before.
    Time(Duration),
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_rate: Some(Percent::HALF),
            consecutive: Some(Consecutive { failures: number(5), only_while_few: true }),
            ..Self::without_rule(Window::Time(Duration::from_secs(10)))
        }
    }
}

impl BreakerConfig {
    /// Opens after `failures` in a row, however long that takes.
    pub fn consecutive(failures: NonZeroU32) -> Self {
        Self::without_rule(Window::Time(Duration::from_secs(10))).or_consecutive(failures)
    }

    /// Opens when at least `percent` of the results in `window` are failures, once it holds
    /// [`min_samples`](Self::min_samples).
    pub fn failure_rate(percent: Percent, window: Window) -> Self {
        Self::without_rule(window).or_failure_rate(percent)
    }

    /// Opens when at least `percent` of the calls in `window` took `slower_than` or longer, once
    /// it holds [`min_samples`](Self::min_samples).
    pub fn slow_call_rate(slower_than: Duration, percent: Percent, window: Window) -> Self {
        Self::without_rule(window).or_slow_calls(slower_than, percent)
    }

    /// Also opens after `failures` in a row, whatever the window holds.
    pub fn or_consecutive(mut self, failures: NonZeroU32) -> Self {
        self.consecutive = Some(Consecutive { failures, only_while_few: false });
        self
    }

    /// Also opens after `failures` in a row while the window holds fewer than
    /// [`min_samples`](Self::min_samples): for clients that send too little for a rate.
    pub fn or_consecutive_while_few(mut self, failures: NonZeroU32) -> Self {
        self.consecutive = Some(Consecutive { failures, only_while_few: true });
        self
    }

    /// Also opens when at least `percent` of the results in the window are failures.
    pub fn or_failure_rate(mut self, percent: Percent) -> Self {
        self.failure_rate = Some(percent);
        self
    }

    /// Also opens when at least `percent` of the calls in the window took `slower_than` or
    /// longer, whether they succeeded or not. A slow probe then counts as a failed one.
    pub fn or_slow_calls(mut self, slower_than: Duration, percent: Percent) -> Self {
        self.slow_calls = Some(SlowCalls { slower_than, percent });
        self
    }

    /// Does not open for failures in a row.
    pub fn without_consecutive(mut self) -> Self {
        self.consecutive = None;
        self
    }

    /// Does not open for a rate of failures.
    pub fn without_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Does not open for slow calls.
    pub fn without_slow_calls(mut self) -> Self {
        self.slow_calls = None;
        self
    }

    /// The results that rates and the minimum of samples look at; 10 s by default.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// How many results the window must hold before a rate means anything.
    ///
    /// 20 by default, or the size of a count window that is smaller: below that, one failure more
    /// or less moves the rate by more than 5 %.
    pub fn min_samples(mut self, samples: NonZeroU32) -> Self {
        self.min_samples = Some(samples);
        self
    }

    /// How many probes may be under way at a time in half-open; 1 by default, the least load
    /// that can tell whether the service is back.
    pub fn max_probes(mut self, probes: NonZeroU32) -> Self {
        self.max_probes = probes;
        self
    }

    /// Closes after this many successful probes, opens again at the first failed one; 1 by
    /// default.
    pub fn close_after(mut self, successes: NonZeroU32) -> Self {
        self.recovery = Recovery::Successes(successes);
        self
    }

    /// Judges half-open by a rate: of `probes` results, `percent` failures open it again, fewer
    /// close it. It opens as soon as the failures suffice, and closes when all results are in.
    pub fn close_unless(mut self, percent: Percent, probes: NonZeroU32) -> Self {
        self.recovery = Recovery::Rate { probes, percent };
        self
    }

    /// How long half-open waits for probes that do not report before it replaces them; 30 s by
    /// default, longer than a healthy service takes for an answer.
    ///
    /// Without such a bound a single hanging probe would keep the breaker half-open for ever.
    /// What a replaced probe reports later is ignored.
    pub fn half_open_max_wait(mut self, wait: Duration) -> Self {
        self.half_open_max_wait = wait;
        self
    }

    /// How long the breaker stays open before it lets a probe through; 5 s by default.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Makes each further opening without a close in between last `factor` times as long, up to
    /// `max`, jitter included; off by default, because a service that is back should be found
    /// soon.
    pub fn open_growth(mut self, factor: NonZeroU32, max: Duration) -> Self {
        self.growth = Some(Growth { factor, max });
        self
    }

    /// Makes every opening last the same.
    pub fn without_open_growth(mut self) -> Self {
        self.growth = None;
        self
    }

    /// Lengthens every open time by a random share of up to `percent`; 20 % by default, so that
    /// the clients of a service do not probe it all at once.
    pub fn open_jitter(mut self, percent: Percent) -> Self {
        self.open_jitter = Some(percent);
        self
    }

    /// Makes every open time exactly as long as it is set.
    pub fn without_open_jitter(mut self) -> Self {
        self.open_jitter = None;
        self
    }

    /// The longest a server's `Retry-After` may keep the breaker open; 60 s by default, so that
    /// one confused answer cannot shut out a service for a day. Zero ignores `Retry-After`.
    pub fn max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// Every setting that makes no sense, as its name, its value and the rule it breaks.
    ///
    /// A breaker made of such a config still works to the letter of it: an open time of zero lets
    /// the next call through as a probe, a minimum the window cannot hold is never reached.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let window = match self.window {
            Window::Time(span) => Some(span),
            Window::Count(_) => None,
        };
        let times = [
            ("circuit_breaker.open_for", Some(self.open_for)),
            ("circuit_breaker.half_open_max_wait", Some(self.half_open_max_wait)),
            ("circuit_breaker.slow_calls", self.slow_calls.map(|slow| slow.slower_than)),
            ("circuit_breaker.window", window),
        ];
        let zero = |(field, time): (_, Option<Duration>)| {
            time.filter(Duration::is_zero).map(|time| ConfigFault::new(field, "must be > 0", time))
        };
        let growth = self.growth.filter(|growth| growth.max < self.open_for).map(|growth| {
            let rule = "must not be shorter than open_for";
            ConfigFault::new("circuit_breaker.open_growth", rule, growth.max)
        });
        let samples = match (self.window, self.min_samples) {
            (Window::Count(len), Some(samples)) if samples.get() > len.get().into() => {
                let rule = "must fit into the count window";
                Some(ConfigFault::new("circuit_breaker.min_samples", rule, samples))
            }
            _ => None,
        };
        times.into_iter().filter_map(zero).chain(growth).chain(samples).collect()
    }

    fn without_rule(window: Window) -> Self {
        Self {
            window,
            min_samples: None,
            consecutive: None,
            failure_rate: None,
            slow_calls: None,
            max_probes: NonZeroU32::MIN,
            recovery: Recovery::Successes(NonZeroU32::MIN),
            half_open_max_wait: Duration::from_secs(30),
            open_for: Duration::from_secs(5),
            growth: None,
            open_jitter: Some(Percent::FIFTH),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_config_names_all_faults_at_once() {
        assert_eq!(BreakerConfig::default().faults(), []);
        assert_eq!(BreakerConfig::consecutive(number(5)).faults(), []);
        let ten = Window::Count(NonZeroU16::new(10).unwrap());
        assert_eq!(BreakerConfig::failure_rate(Percent::HALF, ten).faults(), []);
        let just = BreakerConfig::failure_rate(Percent::HALF, ten)
            .min_samples(number(10))
            .open_growth(number(2), Duration::from_secs(5));
        assert_eq!(just.faults(), []);
        assert_eq!(just.min_samples(number(9)).faults(), []);

        let broken = BreakerConfig::failure_rate(Percent::HALF, ten)
            .min_samples(number(11))
            .or_slow_calls(Duration::ZERO, Percent::HALF)
            .half_open_max_wait(Duration::ZERO)
            .open_growth(number(2), Duration::from_secs(1));
        let fields: Vec<_> = broken.faults().into_iter().map(|it| it.field).collect();
        assert_eq!(
            fields,
            [
                "circuit_breaker.half_open_max_wait",
                "circuit_breaker.slow_calls",
                "circuit_breaker.open_growth",
                "circuit_breaker.min_samples",
            ]
        );
    }

    #[test]
    fn breaker_rules_start_with_one_alone() {
        let five = NonZeroU32::new(5).unwrap();
        let default = BreakerConfig::default();
        let while_few = Some(Consecutive { failures: five, only_while_few: true });
        assert_eq!((default.consecutive, default.failure_rate), (while_few, Some(Percent::HALF)));

        let ten = Window::Count(NonZeroU16::new(10).unwrap());
        let always = Some(Consecutive { failures: five, only_while_few: false });
        let slow = SlowCalls { slower_than: Duration::from_secs(1), percent: Percent::FIFTH };
        for (config, consecutive, failure_rate, slow_calls) in [
            (BreakerConfig::consecutive(five), always, None, None),
            (BreakerConfig::failure_rate(Percent::HALF, ten), None, Some(Percent::HALF), None),
            (
                BreakerConfig::slow_call_rate(slow.slower_than, slow.percent, ten),
                None,
                None,
                Some(slow),
            ),
        ] {
            assert_eq!(config.consecutive, consecutive);
            assert_eq!(config.failure_rate, failure_rate);
            assert_eq!(config.slow_calls, slow_calls);
        }
    }

    #[test]
    fn breaker_settings_change_nothing_but_themselves() {
        let (second, three) = (Duration::from_secs(1), NonZeroU32::new(3).unwrap());
        let window = Window::Time(second);
        let consecutive = |only_while_few| Some(Consecutive { failures: three, only_while_few });
        let slow_calls = Some(SlowCalls { slower_than: second, percent: Percent::HALF });
        let growth = Some(Growth { factor: three, max: second });
        let rate = Recovery::Rate { probes: three, percent: Percent::HALF };

        let base = BreakerConfig::consecutive(number(9))
            .or_failure_rate(Percent::FIFTH)
            .or_slow_calls(second * 9, Percent::FIFTH)
            .open_growth(number(9), second * 9);
        let start = || base.clone();
        for (changed, expected) in [
            (
                start().or_consecutive(three),
                BreakerConfig { consecutive: consecutive(false), ..start() },
            ),
            (
                start().or_consecutive_while_few(three),
                BreakerConfig { consecutive: consecutive(true), ..start() },
            ),
            (
                start().or_failure_rate(Percent::HALF),
                BreakerConfig { failure_rate: Some(Percent::HALF), ..start() },
            ),
            (start().or_slow_calls(second, Percent::HALF), BreakerConfig { slow_calls, ..start() }),
            (start().without_consecutive(), BreakerConfig { consecutive: None, ..start() }),
            (start().without_failure_rate(), BreakerConfig { failure_rate: None, ..start() }),
            (start().without_slow_calls(), BreakerConfig { slow_calls: None, ..start() }),
            (start().window(window), BreakerConfig { window, ..start() }),
            (start().min_samples(three), BreakerConfig { min_samples: Some(three), ..start() }),
            (start().max_probes(three), BreakerConfig { max_probes: three, ..start() }),
            (
                start().close_after(three),
                BreakerConfig { recovery: Recovery::Successes(three), ..start() },
            ),
            (
                start().close_unless(Percent::HALF, three),
                BreakerConfig { recovery: rate, ..start() },
            ),
            (
                start().half_open_max_wait(second),
                BreakerConfig { half_open_max_wait: second, ..start() },
            ),
            (start().open_for(second), BreakerConfig { open_for: second, ..start() }),
            (start().open_growth(three, second), BreakerConfig { growth, ..start() }),
            (start().without_open_growth(), BreakerConfig { growth: None, ..start() }),
            (
                start().open_jitter(Percent::HALF),
                BreakerConfig { open_jitter: Some(Percent::HALF), ..start() },
            ),
            (start().without_open_jitter(), BreakerConfig { open_jitter: None, ..start() }),
            (start().max_retry_after(second), BreakerConfig { max_retry_after: second, ..start() }),
        ] {
            assert_eq!(changed, expected);
            assert_ne!(changed, base);
        }
    }
}
