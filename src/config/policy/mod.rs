//! The settings of one request, resolved.

mod patch;
mod presets;
mod validate;

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::Url;

pub(crate) use self::patch::Patch;
use crate::breaker::{BreakerConfig, CircuitBreakers, Health};
use crate::common::clock::Sources;
#[cfg(feature = "serde")]
use crate::common::host_pattern;
use crate::common::host_pattern::HostPatterns;
use crate::common::path_redactor::PathRedactor;
use crate::config::headers::DeadlineHeader;
use crate::host::gate::GateKey;
use crate::host::map::DEFAULT_MAX_HOSTS;
use crate::host::parts::HostRules;
use crate::observe::listeners::Listeners;
use crate::observe::redact::RedactedUrl;
use crate::outcome::Outcome;
use crate::outcome::classify::{
    self, HintFrom, Judge, Predicate, RetryMethods, StatusSet, Verdict,
};
use crate::outcome::hint::{Advice, HintHeaders};
use crate::outcome::idempotency::{self, IdempotencyKey};
use crate::retry::backoff::{Backoff, Exponential, Jitter};
use crate::retry::budget::{BudgetConfig, RetryBudget};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The gate and the breaker hear the cut hint, too.
    Capped(Duration),
    /// Wait as the backoff says.
    Ignored,
}

/// Every setting that the loop reads.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) max_retries: u32,
    pub(crate) backoff: Arc<dyn Backoff>,
    /// Set if the backoff is the caller's or a preset's choice: then it serves rate limits, too.
    pub(crate) is_backoff_set: bool,
    /// Set if `max_wait_time` was set after the backoff, and so cuts its cap.
    pub(crate) is_backoff_limited: bool,
    pub(crate) jitter: Jitter,
    pub(crate) statuses: StatusSet,
    /// The statuses that say that the request was not processed.
    pub(crate) refused: StatusSet,
    pub(crate) retry_if: Option<Predicate>,
    pub(crate) methods: RetryMethods,
    pub(crate) idempotent: Option<bool>,
    /// `None` where nothing is said, so that a client may have a timeout of its own.
    pub(crate) attempt_timeout: Option<Option<Duration>>,
    pub(crate) max_total_time: Option<Duration>,
    pub(crate) max_wait_time: Duration,
    /// `None` for the default, which depends on the attempt timeout.
    pub(crate) max_open_wait: Option<Duration>,
    /// Set if `max_open_wait` goes on over failed probes, but only at a host that has responded, and
    /// those that waited return like slow start.
    pub(crate) waits_out_outages: bool,
    pub(crate) retry_after: RetryAfter,
    pub(crate) hints: Arc<HintHeaders>,
    pub(crate) hint_from: Option<HintFrom>,
    pub(crate) redact_path: Option<PathRedactor>,
    pub(crate) read_body: Option<usize>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) deadline_header: Option<DeadlineHeader>,
    pub(crate) attempt_header: Option<HeaderName>,
    pub(crate) breaker: Option<CircuitBreakers>,
    pub(crate) breaker_health: Option<Judge>,
    /// Set if what only `retry_if` retries is a failure to the breaker: so in the Python library.
    pub(crate) retried_counts: bool,
    pub(crate) budget: Option<RetryBudget>,
    /// The overdraft of the budget in tokens: only for requests that name `max_retries` themselves.
    pub(crate) overdraft: u32,
    pub(crate) gate: Option<GateKey>,
    pub(crate) listeners: Listeners,
    pub(crate) sources: Sources,
    pub(crate) hosts: Option<Arc<HostPatterns<HostPolicy>>>,
    /// Read once, when a client is built.
    pub(crate) max_hosts: NonZeroUsize,
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

/// 408, 425, 429, 500, 502, 503, 504: the statuses that tell of a passing state. Not 501 and 505,
/// which no retry changes.
const TRANSIENT: [StatusCode; 7] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// 425 and 429: by convention, a server that sends them did not begin. A 503 may come from a proxy
/// whose server did.
const REFUSED: [StatusCode; 2] = [StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];

/// The longest backoff by default.
const LONGEST_BACKOFF: Duration = Duration::from_secs(20);

/// The backoff after a rate limit that closed no gate, unless one is set.
const AFTER_RATE_LIMIT: Exponential =
    Exponential::new(Duration::from_secs(1)).max_delay(LONGEST_BACKOFF);

/// With twice as much, small fleets stay down: their requests only move to the next opening.
const MAX_OPEN_WAIT: Duration = Duration::from_secs(2);

impl Default for Policy {
    fn default() -> Self {
        let backoff = Exponential::new(Duration::from_millis(300));
        Self {
            max_retries: 3,
            backoff: Arc::new(backoff.max_delay(LONGEST_BACKOFF)),
            is_backoff_set: false,
            is_backoff_limited: false,
            jitter: Jitter::Full,
            statuses: TRANSIENT.into_iter().collect::<StatusSet>().with_hinted(),
            refused: REFUSED.into_iter().collect::<StatusSet>().with_hinted(),
            retry_if: None,
            methods: RetryMethods::Idempotent,
            idempotent: None,
            attempt_timeout: None,
            max_total_time: None,
            max_wait_time: Duration::from_secs(60),
            max_open_wait: None,
            waits_out_outages: false,
            retry_after: RetryAfter::Floor,
            hints: Arc::default(),
            hint_from: None,
            redact_path: None,
            read_body: None,
            idempotency_key: None,
            deadline_header: None,
            attempt_header: None,
            breaker: Some(BreakerConfig::default().into()),
            breaker_health: None,
            retried_counts: false,
            budget: Some(BudgetConfig::default().into()),
            overdraft: 0,
            gate: Some(GateKey::default()),
            listeners: Listeners::default(),
            sources: Sources::default(),
            hosts: None,
            max_hosts: DEFAULT_MAX_HOSTS,
        }
    }
}

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

    pub(crate) fn verdict(&self, outcome: &Outcome<'_>, advice: &Advice) -> Verdict {
        classify::verdict(outcome, advice, self.retry_if.as_ref(), &self.statuses)
    }

    /// Returns what an outcome of this verdict says to the breaker.
    ///
    /// An outcome that only the caller's predicate retries, such as a 404 that is to become a 200, is a sign of
    /// life.
    pub(crate) fn health(
        &self,
        outcome: &Outcome<'_>,
        verdict: Verdict,
        advice: &Advice,
    ) -> Option<Health> {
        match (&self.breaker_health, &self.retry_if) {
            (Some(judge), _) => judge(outcome),
            (None, Some(_)) if !self.retried_counts => {
                let verdict = classify::verdict(outcome, advice, None, &self.statuses);
                classify::health(outcome, verdict, advice)
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

    /// Returns whether a request may be sent twice if it was certainly not processed.
    pub(crate) fn may_repeat_unprocessed(&self, method: &Method) -> bool {
        self.methods.allows_unprocessed(method)
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
        HostRules { breaker, budget, gate: self.gate.as_ref(), overdraft: self.overdraft }
    }

    /// The policy for requests to the host of `url`, if it has one of its own.
    #[inline]
    pub(crate) fn of_host(&self, url: &Url) -> Option<&Arc<Self>> {
        let hosts = self.hosts.as_ref()?;
        Some(&hosts.get(url.host_str()?)?.policy)
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
        let other = other.clone();
        Self {
            retry_if: other.retry_if,
            hint_from: other.hint_from,
            redact_path: other.redact_path,
            breaker_health: other.breaker_health,
            listeners: other.listeners,
            sources: other.sources,
            hosts: other.hosts,
            ..self.clone()
        }
    }

    /// Every host that has settings of its own.
    pub(crate) fn all_hosts(&self) -> impl Iterator<Item = &HostPolicy> {
        self.hosts.iter().flat_map(|it| it.values())
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
        let delays = [0, 1, 2, 3].map(|retry| self.backoff.delay(retry));
        out.field("max_retries", &self.max_retries)
            .field("backoff", &delays)
            .field("max_delay", &self.backoff.max_delay().filter(|it| *it < Duration::MAX))
            .field("jitter", &self.jitter)
            .field("retry_statuses", &self.statuses)
            .field("refused_statuses", &self.refused)
            .field("retry_methods", &self.methods)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("max_total_time", &self.max_total_time)
            .field("max_wait_time", &self.max_wait_time)
            .field("max_open_wait", &self.max_open_wait)
            .field("retry_after", &self.retry_after)
            .field("hint_headers", &self.hints)
            .field("read_body", &self.read_body)
            .field("idempotency_key", &self.idempotency_key)
            .field("deadline_header", &self.deadline_header)
            .field("attempt_header", &self.attempt_header)
            .field("circuit_breaker", &self.breaker.as_ref().map(CircuitBreakers::config))
            .field("retry_budget", &self.budget.as_ref().map(RetryBudget::config))
            .field("gate", &self.gate)
            .field("max_hosts", &self.max_hosts);
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
