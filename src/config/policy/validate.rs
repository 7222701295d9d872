//! Validation: every fault of a policy, by field and value.

use std::{fmt, time::Duration};

use crate::breaker::CircuitBreakers;
use crate::common::fault::{ConfigError, ConfigFault};
use crate::common::host_pattern::{INVALID_HOST, without_secrets};
use crate::config::policy::{Policy, RetryAfter};
use crate::host::hedge::Hedge;
use crate::host::limit::ConcurrencyLimit;
use crate::host::mirrors::MirrorSets;
use crate::host::rate::RateLimit;
use crate::outcome::idempotency::IdempotencyKey;
use crate::retry::backoff::Jitter;
use crate::retry::budget::RetryBudget;

impl Policy {
    /// Validates all settings, those of hosts too.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut faults = self.faults();
        if self.max_hosts == 0 {
            faults.push(ConfigFault::new("max_hosts", "must be > 0", self.max_hosts));
        }
        faults.extend(self.window_fault());
        faults.extend(self.host_faults(&faults));
        ConfigError::unless_none(faults)
    }

    /// Returns the fault of a window that is shorter than an attempt. Not for single requests, whose
    /// attempts may take longer than others.
    fn window_fault(&self) -> Option<ConfigFault> {
        self.breaker.as_ref()?.config().window_fault(self.attempt_timeout.flatten()?)
    }

    /// Returns the faults of a cap that does not fit its backoff or `max_wait_time`.
    fn cap_faults(&self) -> impl Iterator<Item = ConfigFault> {
        let cap = self.backoff.max_delay().filter(|it| !it.is_zero() && *it < Duration::MAX);
        let base = self.backoff.shape().map(|it| it.delay);
        let (longest, limited) = (self.max_wait_time, self.is_backoff_limited);
        let below = cap.zip(base).filter(|(cap, base)| cap < base).map(|(cap, base)| {
            let rule = format!("must not be shorter than the first delay ({base:?})");
            ConfigFault::new("backoff.max_delay", rule, cap)
        });
        let is_above = |cap: &Duration| self.is_backoff_set && !limited && *cap > longest;
        let above = cap.filter(is_above).map(|cap| {
            let rule = format!("must not be longer than max_wait_time ({longest:?})");
            ConfigFault::new("backoff.max_delay", rule, cap)
        });
        below.into_iter().chain(above)
    }

    /// Returns the faults of the settings of one request.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = vec![];
        let mut refuse = |broken: bool, field, rule, value: &dyn fmt::Debug| {
            if broken {
                faults.push(ConfigFault::new(field, rule, value));
            }
        };
        let positive = "must be > 0";
        let is_zero = |it: Option<Duration>| it == Some(Duration::ZERO);
        let cap = self.backoff.max_delay();
        refuse(is_zero(cap), "backoff.max_delay", positive, &Duration::ZERO);
        let cap = match self.retry_after {
            RetryAfter::Capped(cap) => Some(cap),
            _ => None,
        };
        refuse(is_zero(cap), "retry_after.capped", positive, &Duration::ZERO);
        if let Jitter::Proportional(share) = self.jitter {
            refuse(!share.is_finite(), "jitter", "must be finite", &share);
            refuse(share < 0.0 && share.is_finite(), "jitter", "must be >= 0", &share);
        }
        if let Some(timeout) = self.attempt_timeout.flatten() {
            refuse(timeout.is_zero(), "attempt_timeout", positive, &timeout);
            let longer = self.max_total_time.is_some_and(|it| timeout > it);
            let rule = "must not be longer than max_total_time";
            refuse(longer, "attempt_timeout", rule, &timeout);
        }
        refuse(is_zero(self.max_total_time), "max_total_time", positive, &Duration::ZERO);
        for (field, set) in
            [("retry_statuses", &self.statuses), ("refused_statuses", &self.refused)]
        {
            let invalid = set.invalid();
            refuse(
                invalid.is_some(),
                field,
                "must be from 100 to 999",
                &invalid.unwrap_or_default(),
            );
        }
        let no_wait = self.max_wait_time.is_zero();
        refuse(no_wait, "max_wait_time", positive, &self.max_wait_time);
        refuse(self.read_body == Some(0), "read_body", positive, &0);
        if let Some(key) = self.idempotency_key.as_ref().and_then(IdempotencyKey::fault) {
            let rule = "must be printable ASCII without quotes and backslashes";
            refuse(true, "idempotency_key", rule, &key);
        }
        faults.extend(stall_faults(self.stall_timeout, self.min_speed));
        faults.extend(self.backoff.fault());
        faults.extend(self.breaker.iter().flat_map(CircuitBreakers::faults));
        faults.extend(self.budget.iter().flat_map(RetryBudget::faults));
        faults.extend(self.concurrency.iter().flat_map(ConcurrencyLimit::faults));
        faults.extend(self.rate.iter().flat_map(RateLimit::faults));
        faults.extend(self.hedge.iter().flat_map(Hedge::faults));
        faults.extend(self.mirrors.iter().flat_map(MirrorSets::faults));
        faults.extend(self.cap_faults());
        faults
    }

    /// Returns the faults of the settings of hosts that are not `known` already.
    fn host_faults(&self, known: &[ConfigFault]) -> Vec<ConfigFault> {
        let Some(hosts) = &self.hosts else { return vec![] };
        let mut faults: Vec<_> = hosts
            .invalid()
            .map(|it| ConfigFault::new("hosts", INVALID_HOST, without_secrets(it)))
            .collect();
        for host in hosts.values() {
            let own = host.policy.faults().into_iter().chain(host.policy.window_fault());
            let own = own.filter(|it| !known.contains(it));
            faults.extend(own.map(|it| it.within(&format!("hosts.{:?}", host.name))));
        }
        // The order of a map is none.
        faults.sort_by(|a, b| a.field.cmp(&b.field));
        faults
    }
}

/// Returns the faults of the limits of waiting for bytes: those of settings, and of one download.
pub(crate) fn stall_faults(
    timeout: Option<Duration>,
    min_speed: Option<(u64, Duration)>,
) -> impl Iterator<Item = ConfigFault> {
    let zero = |field, is_zero: bool, value: &dyn fmt::Debug| {
        is_zero.then(|| ConfigFault::new(field, "must be > 0", value))
    };
    let timeout = timeout.and_then(|it| zero("stall_timeout", it.is_zero(), &it));
    let speed = min_speed.and_then(|it| zero("min_speed.bytes_per_second", it.0 == 0, &it.0));
    let period = min_speed.and_then(|it| zero("min_speed.period", it.1.is_zero(), &it.1));
    [timeout, speed, period].into_iter().flatten()
}
