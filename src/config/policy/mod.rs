//! The settings of one request, resolved.

mod patch;
mod presets;
mod table;
mod validate;

use std::{fmt, iter, sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use reqwest::Url;

#[cfg(feature = "download")]
pub(crate) use self::validate::stall_faults;
pub(crate) use self::{
    patch::Patch,
    table::{Policy, Setting},
};
use crate::breaker::Health;
use crate::common::fault::BoxError;
#[cfg(feature = "serde")]
use crate::common::host_pattern;
use crate::common::host_pattern::HostPatterns;
use crate::host::parts::HostRules;
use crate::observe::listeners::Listeners;
use crate::observe::redact::RedactedUrl;
use crate::outcome::classify::{self, Verdict};
use crate::outcome::hint::Advice;
use crate::outcome::idempotency;
use crate::outcome::{Defaults, Outcome};
use crate::retry::backoff::{Backoff, Exponential, LONGEST_BACKOFF};

/// The treatment of a wait that the server asked for.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{ResilientConfig, RetryAfter};
///
/// // A server that asks for an hour is asked again after ten seconds.
/// let config = ResilientConfig::builder()
///     .retry_after(RetryAfter::Capped(Duration::from_secs(10)))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryAfter {
    /// Wait at least as long as the server said, longer if the backoff is. The default.
    #[default]
    Floor,
    /// Wait as long as the server said, even where the backoff is longer.
    Replaces,
    /// Wait at least as long as the server said, but no longer than this: a longer hint is cut to
    /// it instead of ending the request, and to
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time). Above zero.
    ///
    /// For the gate and the breaker, too, the hint is cut.
    Capped(Duration),
    /// Wait as the backoff says.
    Ignored,
}

/// The settings of one host.
#[derive(Clone)]
pub(crate) struct HostPolicy {
    pub(crate) name: Arc<str>,
    /// The differences from the policy that this one stands in for.
    pub(crate) patch: Arc<Patch>,
    /// Both together.
    pub(crate) policy: Arc<Policy>,
}

/// The backoff after a rate limit that closed no gate, unless one is set.
const AFTER_RATE_LIMIT: Exponential =
    Exponential::new(Duration::from_secs(1)).max_delay(LONGEST_BACKOFF);

/// The longest wait for a byte of a body, by default.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// With twice as much, small fleets stay down: their requests only move to the next opening.
const MAX_OPEN_WAIT: Duration = Duration::from_secs(2);

impl Policy {
    /// Returns the backoff after a failed attempt: after a rate limit that closed no gate it begins at
    /// a second, unless another one is set.
    pub(crate) fn backoff_after(&self, is_throttled: bool) -> &dyn Backoff {
        if is_throttled && !self.is_backoff_set { &AFTER_RATE_LIMIT } else { &*self.backoff }
    }

    /// Returns how much of a server's hint counts.
    pub(crate) fn cut_hint(&self, hint: Duration) -> Duration {
        match self.retry_after {
            RetryAfter::Capped(cap) => hint.min(cap).min(self.max_wait_time),
            _ => hint,
        }
    }

    /// Returns the retry hint that breaker and gate hear.
    pub(crate) fn heeded_hint(&self, advice: &Advice) -> Option<Duration> {
        let is_heeded = self.retry_after != RetryAfter::Ignored;
        advice.hint.as_ref().map(|it| it.after).filter(|_| is_heeded)
    }

    /// Returns the verdict on an outcome. The caller's own puts a wait or a proof into `advice`, and
    /// an error of its own into `error`.
    pub(crate) fn verdict(
        &self,
        outcome: &Outcome<'_>,
        advice: &mut Advice,
        error: &mut Option<BoxError>,
    ) -> Verdict {
        let Some(retry_if) = &self.retry_if else {
            return classify::verdict(outcome, advice, &self.statuses);
        };
        let own = retry_if(&self.with_defaults(outcome, advice));
        classify::own_verdict(own, outcome, advice, error)
    }

    /// Returns an outcome that knows the verdict without the caller's functions.
    fn with_defaults<'a>(&'a self, outcome: &Outcome<'a>, advice: &'a Advice) -> Outcome<'a> {
        let defaults = Some(Defaults { statuses: &self.statuses, advice });
        Outcome { defaults, ..*outcome }
    }

    /// Returns what an outcome of this verdict says to the breaker.
    ///
    /// An outcome that only the caller's predicate retries, such as a 404 that is to become a 200, is
    /// a sign of life.
    pub(crate) fn health(
        &self,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        advice: &Advice,
    ) -> Option<Health> {
        match (&self.breaker_health, &self.retry_if) {
            (Some(judge), _) => judge(&self.with_defaults(outcome, advice)),
            (None, Some(_)) if !self.retried_counts => {
                self.with_defaults(outcome, advice).default_health()
            }
            (None, _) => classify::health(outcome, verdict, advice),
        }
    }

    /// Returns `url` as it may be shown.
    pub(crate) fn redacted<'a>(&'a self, url: &'a Url) -> RedactedUrl<'a> {
        RedactedUrl::new(url, self.redact_path.as_ref())
    }

    /// Returns whether a request may be sent twice, whatever its outcome.
    #[inline]
    pub(crate) fn may_repeat(&self, method: &Method, headers: &HeaderMap) -> bool {
        let keyed = || idempotency::is_keyed(headers, self.idempotency_key.as_ref());
        self.idempotent.unwrap_or_else(|| self.methods.contains(method) || keyed())
    }

    /// Returns how long a request waits at an open breaker or for a token, if its attempts may take
    /// `timeout`.
    pub(crate) fn open_wait(&self, timeout: Option<Duration>) -> Duration {
        let half = timeout.map_or(Duration::MAX, |it| it / 2);
        self.max_open_wait.unwrap_or_else(|| MAX_OPEN_WAIT.min(half))
    }

    /// Returns the settings that concern the host of a request.
    #[inline]
    pub(crate) fn host_rules(&self) -> HostRules<'_> {
        let (breaker, budget) = (self.breaker.as_ref(), self.budget.as_ref());
        let (concurrency, rate) = (self.concurrency.as_ref(), self.rate.as_ref());
        let (gate, overdraft) = (self.gate.as_ref(), self.overdraft);
        HostRules { breaker, budget, gate, concurrency, rate, overdraft }
    }

    /// The policy for requests to the host of `url`, if it has one of its own.
    #[inline]
    pub(crate) fn of_host(&self, url: &Url) -> Option<&Arc<Self>> {
        let hosts = self.hosts.as_ref()?;
        Some(&hosts.get(url.host_str()?)?.policy)
    }

    /// Returns this policy, of an endpoint's host, for the attempts of a request that has `request`:
    /// what concerns the whole request stays.
    pub(crate) fn for_attempts_of(&self, request: &Self) -> Self {
        Self {
            max_retries: request.max_retries,
            max_total_time: request.max_total_time,
            methods: request.methods.clone(),
            idempotent: request.idempotent,
            idempotency_key: request.idempotency_key.clone(),
            redact_path: request.redact_path.clone(),
            overdraft: request.overdraft,
            listeners: request.listeners.clone(),
            sources: request.sources.clone(),
            mirrors: request.mirrors.clone(),
            hosts: None,
            ..self.clone()
        }
    }

    /// This policy, with others beside it for the hosts in `patches`.
    pub(crate) fn with_hosts<'a>(
        mut self,
        patches: impl IntoIterator<Item = (&'a str, &'a Arc<Patch>)>,
    ) -> Self {
        self.hosts = None;
        let host = |(name, patch): (&'a str, &'a Arc<Patch>)| {
            let policy = Arc::new(self.patched([&**patch]));
            (name, HostPolicy { name: name.into(), patch: Arc::clone(patch), policy })
        };
        let hosts: HostPatterns<_> = patches.into_iter().map(host).collect();
        self.hosts = (!hosts.is_empty()).then(|| Arc::new(hosts));
        self
    }

    /// Returns the patch of the host pattern `name`, in any spelling.
    #[cfg(feature = "serde")]
    pub(crate) fn patch_of(&self, name: &str) -> Option<Arc<Patch>> {
        let canonical = host_pattern::canonical(name)?;
        let is_it =
            |it: &&HostPolicy| host_pattern::canonical(&it.name).as_ref() == Some(&canonical);
        self.all_hosts().find(is_it).map(|it| Arc::clone(&it.patch))
    }

    /// Returns these settings with the code and the hosts of `other`.
    #[cfg(feature = "serde")]
    pub(crate) fn with_code_of(&self, other: &Self) -> Self {
        let mut policy = self.clone();
        policy.take_code_of(other);
        policy.listeners.clone_from(&other.listeners);
        policy.sources.clone_from(&other.sources);
        policy.hosts.clone_from(&other.hosts);
        policy
    }

    /// Every host that has settings of its own.
    pub(crate) fn all_hosts(&self) -> impl Iterator<Item = &HostPolicy> {
        self.hosts.iter().flat_map(|it| it.values())
    }

    /// Returns the listeners of all requests, and of those of each host.
    pub(crate) fn all_listeners(&self) -> impl Iterator<Item = &Listeners> {
        iter::once(&self.listeners).chain(self.all_hosts().map(|it| &it.policy.listeners))
    }

    /// The policy that results from `patches`, later ones winning field by field.
    pub(crate) fn patched<'a>(&self, patches: impl IntoIterator<Item = &'a Patch>) -> Self {
        let mut policy = self.clone();
        patches.into_iter().for_each(|it| it.apply(&mut policy));
        policy
    }
}

impl Policy {
    /// Adds what can be shown to `out`.
    pub(crate) fn describe(&self, out: &mut fmt::DebugStruct<'_, '_>) {
        self.show_data(out);
        out.field("max_hosts", &self.max_hosts);
        if let Some(hosts) = &self.hosts {
            out.field("hosts", hosts);
        }
    }
}

impl fmt::Debug for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("HostPolicy");
        self.policy.describe(&mut out);
        out.finish_non_exhaustive()
    }
}
