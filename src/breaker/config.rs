//! The settings of a breaker: rules, open time, probes.

use std::time::Duration;

use crate::breaker::{
    percent::Percent,
    settings::{Consecutive, Growth, Recovery, SlowCalls, Sustained},
    window::Window,
};
use crate::common::fault::ConfigFault;

/// The settings of a circuit breaker: when it opens, for how long, and what closes it again.
///
/// Start from a rule ([`default`](Self::default), [`sustained`](Self::sustained),
/// [`consecutive`](Self::consecutive), [`failure_rate`](Self::failure_rate),
/// [`slow_call_rate`](Self::slow_call_rate)), add others with the `or_…` methods: the breaker opens
/// as soon as one of them is broken. Of the two about failures in a row the last one stays.
///
/// Counts, and most times, must be above zero. [`build`](crate::ResilientConfigBuilder::build) and
/// [`CircuitBreaker::new`](crate::CircuitBreaker::new) name every invalid setting at once.
///
/// # Default
///
/// - Opens when there was no success for 2 s and at least 5 attempts failed in that time. While
///   some requests still succeed it stays closed: a share of failures, or a short row of them, is
///   ordinary. A share would also punish the good endpoints of a host for a bad one.
/// - Stays open for 1 s, half as long again after each probe that fails. Each time is longer by a
///   random share of up to 25 %, so that the clients of a service do not retry together; 2 s is the
///   most, that share included, unless the response that opened it asks for more
///   ([`max_retry_after`](Self::max_retry_after)).
/// - Then admits one probe at a time; one success closes it, one failure opens it again.
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{BreakerConfig, Percent, Window};
///
/// let config = BreakerConfig::failure_rate(Percent::HALF, Window::Count(100))
///     .or_consecutive(5)
///     .or_slow_calls(Duration::from_secs(2), Percent::HALF)
///     .open_for(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BreakerConfig {
    pub(super) window: Window,
    pub(super) min_samples: Option<u32>,
    pub(super) sustained: Option<Sustained>,
    pub(super) consecutive: Option<Consecutive>,
    pub(super) failure_rate: Option<Percent>,
    pub(super) slow_calls: Option<SlowCalls>,
    pub(super) max_probes: u32,
    pub(super) recovery: Recovery,
    pub(super) half_open_max_wait: Duration,
    pub(super) open_for: Duration,
    pub(super) growth: Option<Growth>,
    pub(super) open_jitter: Option<Percent>,
    pub(super) max_retry_after: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self::sustained(Duration::from_secs(2), 5)
    }
}

impl BreakerConfig {
    /// Opens when there was no success for `no_success_for` and at least `min_failures` attempts
    /// failed in that time; 2 s and 5 in the default.
    ///
    /// The time counts from the first failure since the last success, retries included, and ends
    /// with a failure. A pause of more than ten times `no_success_for` between two failures
    /// restarts the count: after it, old failures are no evidence.
    pub fn sustained(no_success_for: Duration, min_failures: u32) -> Self {
        let window = Window::Time(Duration::from_secs(10));
        Self::without_rule(window).or_sustained(no_success_for, min_failures)
    }

    /// Opens after `failures` in a row, however long that takes.
    pub fn consecutive(failures: u32) -> Self {
        Self::without_rule(Window::Time(Duration::from_secs(10))).or_consecutive(failures)
    }

    /// Opens when at least `percent` of the results in `window` are failures, once it holds
    /// [`min_samples`](Self::min_samples). Counts the first attempts of requests: retries would
    /// give a failing endpoint several samples a request and a good one a single sample.
    pub fn failure_rate(percent: Percent, window: Window) -> Self {
        Self::without_rule(window).or_failure_rate(percent)
    }

    /// Opens when at least `percent` of the calls in `window` took `slower_than` or longer, once
    /// it holds [`min_samples`](Self::min_samples).
    pub fn slow_call_rate(slower_than: Duration, percent: Percent, window: Window) -> Self {
        Self::without_rule(window).or_slow_calls(slower_than, percent)
    }

    /// Also opens after `no_success_for` without a success, with at least `min_failures` in it: see
    /// [`sustained`](Self::sustained).
    pub fn or_sustained(mut self, no_success_for: Duration, min_failures: u32) -> Self {
        self.sustained = Some(Sustained { no_success_for, min_failures });
        self
    }

    /// Also opens after `failures` in a row, regardless of the window.
    pub fn or_consecutive(mut self, failures: u32) -> Self {
        self.consecutive = Some(Consecutive { failures, only_while_few: false });
        self
    }

    /// Also opens after `failures` in a row while the window holds fewer than
    /// [`min_samples`](Self::min_samples): for clients with too few requests for a rate.
    pub fn or_consecutive_while_few(mut self, failures: u32) -> Self {
        self.consecutive = Some(Consecutive { failures, only_while_few: true });
        self
    }

    /// Also opens when at least `percent` of the results in the window are failures.
    pub fn or_failure_rate(mut self, percent: Percent) -> Self {
        self.failure_rate = Some(percent);
        self
    }

    /// Also opens when at least `percent` of the calls in the window took `slower_than` or
    /// longer, successful or not. Counts the first attempts of requests. A slow probe that succeeds
    /// closes the breaker like any other.
    pub fn or_slow_calls(mut self, slower_than: Duration, percent: Percent) -> Self {
        self.slow_calls = Some(SlowCalls { slower_than, percent });
        self
    }

    /// Removes the rule on time without success.
    pub fn without_sustained(mut self) -> Self {
        self.sustained = None;
        self
    }

    /// Removes the rule on failures in a row if it is the one that `only_while_few` tells.
    #[cfg(feature = "serde")]
    pub(crate) fn without_consecutive_of(mut self, only_while_few: bool) -> Self {
        self.consecutive = self.consecutive.filter(|it| it.only_while_few != only_while_few);
        self
    }

    /// Removes the rule on the rate of failures.
    #[cfg(any(test, feature = "serde"))]
    pub(crate) fn without_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Removes the rule on slow calls.
    #[cfg(any(test, feature = "serde"))]
    pub(crate) fn without_slow_calls(mut self) -> Self {
        self.slow_calls = None;
        self
    }

    /// Sets the window of results that rates and the minimum of samples count; 10 s by default.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets how many results the window must hold before a rate can open the breaker.
    ///
    /// 20 by default, or the size of a count window that is smaller: below that, one failure more
    /// or less moves the rate by more than 5 %.
    pub fn min_samples(mut self, samples: u32) -> Self {
        self.min_samples = Some(samples);
        self
    }

    /// Sets how many probes may be under way at a time in half-open; 1 by default, the least load
    /// that shows whether the service is back.
    pub fn max_probes(mut self, probes: u32) -> Self {
        self.max_probes = probes;
        self
    }

    /// Closes after this many successful probes, opens again at the first failed one; 1 by
    /// default.
    pub fn close_after(mut self, successes: u32) -> Self {
        self.recovery = Recovery::Successes(successes);
        self
    }

    /// Judges half-open by a rate: of `probes` results, `percent` failures open it again, fewer
    /// close it. It opens as soon as the failures suffice, and closes when all results are in.
    pub fn close_unless(mut self, percent: Percent, probes: u32) -> Self {
        self.recovery = Recovery::Rate { probes, percent };
        self
    }

    /// Sets how long half-open waits for probes that do not report before it replaces them; 30 s
    /// by default, longer than a healthy service takes for a response.
    ///
    /// Without such a bound a single hanging probe would keep the breaker half-open for ever.
    /// A late success of a replaced probe still counts, its failure does not.
    pub fn half_open_max_wait(mut self, wait: Duration) -> Self {
        self.half_open_max_wait = wait;
        self
    }

    /// Sets how long the breaker stays open before it admits a probe; 1 s by default.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Makes each further opening without a close in between last `factor` times as long, up to
    /// `max`, jitter included; by default 1.5 and twice [`open_for`](Self::open_for), which
    /// is 2 s. Longer times delay the recovery.
    ///
    /// [`build`](crate::ResilientConfigBuilder::build) rejects a factor below 1 or not finite.
    pub fn open_growth(mut self, factor: f64, max: Duration) -> Self {
        self.growth = Some(Growth { factor, max: Some(max) });
        self
    }

    /// Makes every opening last the same.
    pub fn without_open_growth(mut self) -> Self {
        self.growth = None;
        self
    }

    /// Lengthens every open time by a random share of up to `percent`; 25 % by default, so that
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

    /// Sets how long a server's `Retry-After` may keep the breaker open at most; 60 s by default,
    /// so that one wrong response cannot block a service for a day. Zero ignores `Retry-After`.
    pub fn max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// Returns every invalid setting, as its name, its value and the rule it breaks.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let longest = self.growth.and_then(|growth| growth.max);
        let growth = longest.filter(|max| *max < self.open_for).map(|max| {
            let rule = "must not be shorter than open_for";
            ConfigFault::new("circuit_breaker.open_growth.max", rule, max)
        });
        let grows = |growth: &Growth| growth.factor >= 1.0 && growth.factor.is_finite();
        let factor = self.growth.filter(|growth| !grows(growth)).map(|growth| {
            let rule = "must be a finite number >= 1";
            ConfigFault::new("circuit_breaker.open_growth.factor", rule, growth.factor)
        });
        let samples = match (self.window, self.min_samples) {
            (Window::Count(len), Some(samples)) if len > 0 && samples > len.into() => {
                let rule = "must fit into the count window";
                Some(ConfigFault::new("circuit_breaker.min_samples", rule, samples))
            }
            _ => None,
        };
        let rule = (!self.has_rule()).then(|| {
            let rule = "must have a rule that opens it (switch it off by without_circuit_breaker)";
            ConfigFault::new("circuit_breaker", rule, format_args!("none"))
        });
        self.zeros().chain(growth).chain(factor).chain(samples).chain(rule).collect()
    }

    /// Returns the faults of times and counts that must be above zero and are not.
    fn zeros(&self) -> impl Iterator<Item = ConfigFault> {
        let (span, len) = match self.window {
            Window::Time(span) => (Some(span), None),
            Window::Count(len) => (None, Some(len.into())),
        };
        let (sustained, consecutive) = (self.sustained, self.consecutive);
        let times = [
            ("circuit_breaker.open_for", Some(self.open_for)),
            ("circuit_breaker.sustained.no_success_for", sustained.map(|it| it.no_success_for)),
            ("circuit_breaker.half_open_max_wait", Some(self.half_open_max_wait)),
            ("circuit_breaker.slow_calls.slower_than", self.slow_calls.map(|it| it.slower_than)),
            ("circuit_breaker.window", span),
        ];
        let in_a_row = match consecutive {
            Some(Consecutive { only_while_few: true, .. }) => {
                "circuit_breaker.consecutive_while_few"
            }
            _ => "circuit_breaker.consecutive",
        };
        let recovery = match self.recovery {
            Recovery::Successes(successes) => ("circuit_breaker.close_after", Some(successes)),
            Recovery::Rate { probes, .. } => ("circuit_breaker.close_unless.probes", Some(probes)),
        };
        let counts = [
            ("circuit_breaker.window", len),
            ("circuit_breaker.min_samples", self.min_samples),
            ("circuit_breaker.sustained.min_failures", sustained.map(|it| it.min_failures)),
            (in_a_row, consecutive.map(|it| it.failures)),
            ("circuit_breaker.max_probes", Some(self.max_probes)),
            recovery,
        ];
        let rule = "must be > 0";
        let times = times.into_iter().filter_map(move |(field, time)| {
            time.filter(Duration::is_zero).map(|time| ConfigFault::new(field, rule, time))
        });
        let counts = counts.into_iter().filter_map(move |(field, count): (_, Option<u32>)| {
            count.filter(|it| *it == 0).map(|count| ConfigFault::new(field, rule, count))
        });
        times.chain(counts)
    }

    fn has_rule(&self) -> bool {
        self.sustained.is_some()
            || self.consecutive.is_some()
            || self.failure_rate.is_some()
            || self.slow_calls.is_some()
    }

    /// Returns the span of a window that a rule counts in.
    fn counted_span(&self) -> Option<Duration> {
        let counts = self.failure_rate.is_some()
            || self.slow_calls.is_some()
            || self.consecutive.is_some_and(|it| it.only_while_few);
        match self.window {
            Window::Time(span) if counts => Some(span),
            _ => None,
        }
    }

    /// Returns the fault of a window that attempts of up to `timeout` do not fit into: when the last
    /// of them fails, the first is out of the window.
    pub(crate) fn window_fault(&self, timeout: Duration) -> Option<ConfigFault> {
        let span = self.counted_span().filter(|it| !it.is_zero() && *it < timeout)?;
        let rule = format!("must not be shorter than attempt_timeout ({timeout:?})");
        Some(ConfigFault::new("circuit_breaker.window", rule, span))
    }

    fn without_rule(window: Window) -> Self {
        Self {
            window,
            min_samples: None,
            sustained: None,
            consecutive: None,
            failure_rate: None,
            slow_calls: None,
            max_probes: 1,
            recovery: Recovery::Successes(1),
            half_open_max_wait: Duration::from_secs(30),
            open_for: Duration::from_secs(1),
            growth: Some(Growth { factor: 1.5, max: None }),
            open_jitter: Some(Percent::QUARTER),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_config_names_all_faults_at_once() {
        assert_eq!(BreakerConfig::default().faults(), []);
        assert_eq!(BreakerConfig::default().open_for(Duration::MAX).faults(), []);
        assert_eq!(BreakerConfig::consecutive(5).faults(), []);
        let ten = Window::Count(10);
        assert_eq!(BreakerConfig::failure_rate(Percent::HALF, ten).faults(), []);
        let just = BreakerConfig::failure_rate(Percent::HALF, ten)
            .min_samples(10)
            .open_growth(1.0, Duration::from_secs(1));
        assert_eq!(just.faults(), []);
        assert_eq!(just.min_samples(9).faults(), []);

        let broken = BreakerConfig::failure_rate(Percent::HALF, ten)
            .min_samples(11)
            .or_slow_calls(Duration::ZERO, Percent::HALF)
            .half_open_max_wait(Duration::ZERO)
            .or_sustained(Duration::ZERO, 1)
            .open_growth(f64::INFINITY, Duration::from_millis(999));
        let fields: Vec<_> = broken.faults().into_iter().map(|it| it.field).collect();
        assert_eq!(
            fields,
            [
                "circuit_breaker.sustained.no_success_for",
                "circuit_breaker.half_open_max_wait",
                "circuit_breaker.slow_calls.slower_than",
                "circuit_breaker.open_growth.max",
                "circuit_breaker.open_growth.factor",
                "circuit_breaker.min_samples",
            ]
        );
        let never = BreakerConfig::default().without_sustained().open_for(Duration::ZERO);
        let faults: Vec<_> = never.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "circuit_breaker.open_for must be > 0, got 0ns",
                "circuit_breaker must have a rule that opens it (switch it off by \
                 without_circuit_breaker), got none",
            ]
        );
        for factor in [0.99, -1.0, f64::NAN, f64::NEG_INFINITY] {
            let faults = BreakerConfig::default().open_growth(factor, Duration::MAX).faults();
            assert_eq!(faults.len(), 1, "{factor}");
            assert_eq!(faults[0].rule, "must be a finite number >= 1");
        }
    }

    #[test]
    fn breaker_counts_of_zero_are_faults_each_by_its_own_name() {
        let second = Duration::from_secs(1);
        let default = BreakerConfig::default;
        let rate = |window| BreakerConfig::failure_rate(Percent::HALF, window);
        for (config, field) in [
            (BreakerConfig::consecutive(0), "consecutive"),
            (default().or_consecutive(0), "consecutive"),
            (default().or_consecutive_while_few(0), "consecutive_while_few"),
            (BreakerConfig::sustained(second, 0), "sustained.min_failures"),
            (default().or_sustained(second, 0), "sustained.min_failures"),
            (default().min_samples(0), "min_samples"),
            (default().max_probes(0), "max_probes"),
            (default().close_after(0), "close_after"),
            (default().close_unless(Percent::HALF, 0), "close_unless.probes"),
            (rate(Window::Count(0)), "window"),
            (rate(Window::Count(0)).min_samples(9), "window"),
            (default().window(Window::Count(0)), "window"),
        ] {
            let faults: Vec<_> = config.faults().iter().map(ToString::to_string).collect();
            assert_eq!(faults, [format!("circuit_breaker.{field} must be > 0, got 0")]);
        }
        let all = BreakerConfig::consecutive(0)
            .or_sustained(Duration::ZERO, 0)
            .window(Window::Count(0))
            .min_samples(0)
            .max_probes(0)
            .close_after(0);
        assert_eq!(all.faults().len(), 7);
    }

    #[test]
    fn breaker_windows_hold_an_attempt_where_they_count() {
        let (second, five) = (Duration::from_secs(1), 5);
        let rate = BreakerConfig::failure_rate(Percent::HALF, Window::Time(second));
        let slow = BreakerConfig::slow_call_rate(second, Percent::HALF, Window::Time(second));
        let few =
            BreakerConfig::default().window(Window::Time(second)).or_consecutive_while_few(five);
        for config in [rate.clone(), slow, few] {
            assert_eq!(config.window_fault(second), None);
            let fault = config.window_fault(second * 2).unwrap().to_string();
            let expected =
                "circuit_breaker.window must not be shorter than attempt_timeout (2s), got 1s";
            assert_eq!(fault, expected);
        }
        let ten = Window::Count(10);
        let uncounted = BreakerConfig::consecutive(five).window(Window::Time(second));
        for config in [BreakerConfig::default(), uncounted, rate.window(ten)] {
            assert_eq!(config.window_fault(Duration::MAX), None);
        }
    }

    #[test]
    fn breaker_rules_start_with_one_alone() {
        let default = BreakerConfig::default();
        let sustained = Some(Sustained { no_success_for: Duration::from_secs(2), min_failures: 5 });
        assert_eq!(default.sustained, sustained);
        assert_eq!(
            (default.consecutive, default.failure_rate, default.slow_calls),
            (None, None, None)
        );
        assert_eq!(default, BreakerConfig::sustained(Duration::from_secs(2), 5));

        let ten = Window::Count(10);
        let always = Some(Consecutive { failures: 5, only_while_few: false });
        let slow = SlowCalls { slower_than: Duration::from_secs(1), percent: Percent::QUARTER };
        for (config, consecutive, failure_rate, slow_calls) in [
            (BreakerConfig::consecutive(5), always, None, None),
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
            assert_eq!(config.sustained, None);
        }
    }

    #[test]
    fn breaker_settings_change_nothing_but_themselves() {
        let (second, three) = (Duration::from_secs(1), 3);
        let window = Window::Time(second);
        let consecutive = |only_while_few| Some(Consecutive { failures: three, only_while_few });
        let slow_calls = Some(SlowCalls { slower_than: second, percent: Percent::HALF });
        let growth = Some(Growth { factor: 3.0, max: Some(second) });
        let rate = Recovery::Rate { probes: three, percent: Percent::HALF };

        let base = BreakerConfig::consecutive(9)
            .or_failure_rate(Percent::QUARTER)
            .or_slow_calls(second * 9, Percent::QUARTER)
            .or_sustained(second * 9, 9)
            .open_for(second * 9)
            .open_growth(9.0, second * 9);
        let start = || base.clone();
        for (changed, expected) in [
            (
                start().or_sustained(second, three),
                BreakerConfig {
                    sustained: Some(Sustained { no_success_for: second, min_failures: three }),
                    ..start()
                },
            ),
            (start().without_sustained(), BreakerConfig { sustained: None, ..start() }),
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
            (start().open_growth(3.0, second), BreakerConfig { growth, ..start() }),
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
