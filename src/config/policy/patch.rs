//! Patches: some settings, which change those of a policy.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::breaker::CircuitBreakers;
use crate::common::clock::Sources;
use crate::common::path_redactor::PathRedactor;
use crate::config::headers::DeadlineHeader;
use crate::config::policy::{Policy, RetryAfter};
use crate::host::gate::GateKey;
use crate::observe::listeners::Listeners;
use crate::outcome::classify::{HintFrom, Judge, Predicate, RetryMethods, StatusSet};
use crate::outcome::hint::HintHeaders;
use crate::outcome::idempotency::IdempotencyKey;
use crate::retry::backoff::{Backoff, Jitter};
use crate::retry::budget::RetryBudget;

/// Some settings: those that are `Some` replace the policy's.
#[derive(Clone, Default)]
pub(crate) struct Patch {
    pub(crate) max_retries: Option<u32>,
    pub(crate) backoff: Option<Arc<dyn Backoff>>,
    pub(crate) jitter: Option<Jitter>,
    pub(crate) statuses: Option<StatusSet>,
    pub(crate) refused: Option<StatusSet>,
    pub(crate) retry_if: Option<Option<Predicate>>,
    pub(crate) methods: Option<RetryMethods>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) attempt_timeout: Option<Option<Duration>>,
    pub(crate) max_total_time: Option<Option<Duration>>,
    pub(crate) max_wait_time: Option<Duration>,
    pub(crate) max_open_wait: Option<Duration>,
    pub(crate) retry_after: Option<RetryAfter>,
    pub(crate) hints: Option<Arc<HintHeaders>>,
    pub(crate) hint_from: Option<Option<HintFrom>>,
    pub(crate) redact_path: Option<Option<PathRedactor>>,
    pub(crate) read_body: Option<Option<usize>>,
    pub(crate) idempotency_key: Option<Option<IdempotencyKey>>,
    pub(crate) deadline_header: Option<Option<DeadlineHeader>>,
    pub(crate) attempt_header: Option<Option<HeaderName>>,
    pub(crate) breaker: Option<Option<CircuitBreakers>>,
    pub(crate) breaker_health: Option<Option<Judge>>,
    pub(crate) budget: Option<Option<RetryBudget>>,
    pub(crate) gate: Option<Option<GateKey>>,
    pub(crate) listeners: Listeners,
    pub(crate) sources: Sources,
}

impl Patch {
    pub(crate) fn apply(&self, policy: &mut Policy) {
        fn set<T: Clone>(target: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        set(&mut policy.max_retries, self.max_retries.as_ref());
        set(&mut policy.backoff, self.backoff.as_ref());
        policy.is_backoff_set |= self.backoff.is_some();
        set(&mut policy.jitter, self.jitter.as_ref());
        set(&mut policy.statuses, self.statuses.as_ref());
        set(&mut policy.refused, self.refused.as_ref());
        set(&mut policy.retry_if, self.retry_if.as_ref());
        set(&mut policy.methods, self.methods.as_ref());
        set(&mut policy.idempotent, self.idempotent.as_ref().map(|_| &self.idempotent));
        set(
            &mut policy.attempt_timeout,
            self.attempt_timeout.is_some().then_some(&self.attempt_timeout),
        );
        set(&mut policy.max_total_time, self.max_total_time.as_ref());
        set(&mut policy.max_wait_time, self.max_wait_time.as_ref());
        set(&mut policy.max_open_wait, self.max_open_wait.is_some().then_some(&self.max_open_wait));
        set(&mut policy.retry_after, self.retry_after.as_ref());
        set(&mut policy.hints, self.hints.as_ref());
        set(&mut policy.hint_from, self.hint_from.as_ref());
        set(&mut policy.redact_path, self.redact_path.as_ref());
        set(&mut policy.read_body, self.read_body.as_ref());
        set(&mut policy.idempotency_key, self.idempotency_key.as_ref());
        set(&mut policy.deadline_header, self.deadline_header.as_ref());
        set(&mut policy.attempt_header, self.attempt_header.as_ref());
        set(&mut policy.breaker, self.breaker.as_ref());
        set(&mut policy.breaker_health, self.breaker_health.as_ref());
        set(&mut policy.budget, self.budget.as_ref());
        set(&mut policy.gate, self.gate.as_ref());
        self.limit(policy);
        policy.listeners.add(&self.listeners);
        policy.sources.replace(&self.sources);
    }

    /// Lets a limit of this patch shorten what was set elsewhere, instead of contradicting it.
    fn limit(&self, policy: &mut Policy) {
        let total = self.max_total_time.flatten().filter(|it| !it.is_zero());
        if let (None, Some(total), Some(Some(attempt))) =
            (self.attempt_timeout, total, policy.attempt_timeout)
        {
            policy.attempt_timeout = Some(Some(attempt.min(total)));
        }
        if self.backoff.is_some() {
            policy.is_backoff_limited = false;
        } else if self.max_wait_time.is_some() {
            policy.is_backoff_limited = true;
        }
    }
}
