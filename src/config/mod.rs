//! The settings of a `Resilient`: presets, and a builder that names every fault.

#[cfg(feature = "serde")]
pub mod file;
pub(crate) mod headers;
pub(crate) mod overrides;
pub(crate) mod policy;
pub(crate) mod reload;
mod settings;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::{fmt, sync::Arc, time::Duration};

use crate::common::fault::ConfigError;
use crate::common::opaque::opaque;
use crate::config::overrides::RetryOverride;
use crate::config::policy::{HostPolicy, Patch, Policy};

/// The settings of a [`Resilient`](crate::Resilient). Cheap to clone.
///
/// # Default
///
/// Chosen for programs that many users run against the same server:
///
/// | setting | default |
/// |---|---|
/// | `max_retries` | 3 |
/// | `backoff`, `jitter` | exponential from 300 ms (1 s after a rate limit without a gate), at most 20 s; full jitter |
/// | `retry_statuses` | 408, 425, 429, 500, 502, 503, 504, a 403 that is a rate limit; 413, 529, 530 that say when to retry |
/// | `retry_methods` | idempotent ones |
/// | `refused_statuses` | 425, 429, and a 403 that is a rate limit: not processed, so that a POST is sent again |
/// | `retry_after` | waits at least as long as the server says |
/// | `max_wait_time` | 60 s, and the spread of a hint |
/// | `max_open_wait` | 2 s, or half the attempt timeout if that is less |
/// | `circuit_breaker` | one per host, [`BreakerConfig::default`](crate::BreakerConfig) |
/// | `retry_budget` | one per host, [`BudgetConfig::default`](crate::BudgetConfig) |
/// | `gate` | on |
/// | `concurrency_limit`, `rate_limit` | none |
/// | `hedge` | off |
/// | `attempt_timeout`, `max_total_time` | none; 10 s an attempt in a `ResilientClient` |
/// | `stall_timeout`, `min_speed` | 30 s without a byte, no least speed: of downloads, and the first of the bodies of a `ResilientClient` |
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Exponential, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .max_retries(5)
///     .backoff(Exponential::new(Duration::from_millis(100)))
///     .max_total_time(Duration::from_secs(30))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ResilientConfig {
    policy: Arc<Policy>,
}

impl ResilientConfig {
    /// Returns a builder that starts from the defaults.
    pub fn builder() -> ResilientConfigBuilder {
        Self::default().to_builder()
    }

    /// Returns the settings of crawlers, downloads and command-line tools: jobs whose results are
    /// wanted even if they come late.
    ///
    /// | setting | value | why |
    /// |---|---|---|
    /// | `max_retries` | 10 | of 1,000 requests one is lost at 50 % failures, 64 with three retries |
    /// | `backoff` | from 300 ms, half as long again each time, at most 2.5 s | outages are waited out at the breaker; while a host still responds, most attempts work, and sooner is better |
    /// | `max_wait_time` | 15 min | longer than the windows of most rate limits: a server that asks for minutes gets them |
    /// | `max_open_wait` | 1 min, whatever probes fail in it | an outage delays the job instead of costing a page for each request that meets it |
    /// | `retry_budget` | 200 retries, by the rule of the default; each second adds one | bursts are larger where hundreds of requests run side by side; and where all of them wait for a token, no success brings one. No budget at all put 4 to 21 times the load on the host after an outage, in a model |
    /// | `concurrency_limit` | 64 for each host | a job that starts all of its requests at once must not be an attack. Those that wait keep their order |
    /// | `read_body` | 1 MiB | a page that breaks off is a failed attempt, not half a page; longer ones are streamed |
    ///
    /// A request waits at an open breaker only if its host has ever responded to this client, be it
    /// by a 503: a dead host costs a crawler nothing more once its breaker is open. Once the
    /// host is back, those that waited are released over as long a time as they waited, 10 s at most,
    /// and pass the [gate](ResilientConfigBuilder::gate) like slow start: one first, and two more for
    /// each that succeeds. All at once they would bring the host down again.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{ResilientClient, ResilientConfig};
    ///
    /// let crawler = ResilientClient::new(ResilientConfig::batch())?;
    /// # Ok::<(), reqwest_resilient::BuildError>(())
    /// ```
    pub fn batch() -> Self {
        Self { policy: Arc::new(Policy::batch()) }
    }

    /// Returns the settings of a service that asks other services while its own callers wait for
    /// `deadline`. A deadline below 1 ms counts as 1 ms.
    ///
    /// | setting | value | why |
    /// |---|---|---|
    /// | `max_total_time` | `deadline` | a later response is of no use |
    /// | `deadline_header` | `grpc-timeout` | the server learns how much of it is left, and need not begin what comes too late |
    /// | `max_retries` | 2 | services call services: retries of each level multiply |
    /// | `backoff` | from 50 ms | most failures inside a data centre are over by then |
    /// | `max_open_wait` | `deadline / 2`, at most 2 s | an outage of a second costs a third of its requests at most, not all: those that failed wait for the token that the first success brings, and there is time left for their retry |
    /// | `circuit_breaker` | opens for half of that wait, 250 ms at least, growing to twice as long | a breaker that is open for longer than requests wait loses them after the host is back |
    /// | `max_wait_time` | `deadline / 10` | where the server asks for more, a request fails fast and leaves the caller time for a fallback. The spread of a hint comes on top |
    ///
    /// Set [`attempt_timeout`](ResilientConfigBuilder::attempt_timeout), a little above the 99th
    /// percentile of the server's latency: without it an attempt that hangs takes all of `deadline`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::ResilientConfig;
    ///
    /// let config = ResilientConfig::service(Duration::from_secs(2))
    ///     .to_builder()
    ///     .attempt_timeout(Duration::from_millis(600))
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn service(deadline: Duration) -> Self {
        Self { policy: Arc::new(Policy::service(deadline)) }
    }

    /// Returns the settings of retries alone, as *reqwest-retry* makes them: 3 of them after 408, 429, any 5xx and failures
    /// of the transport, without breaker, budget and gate, deaf to Retry-After and its like.
    ///
    /// Retries still go by the proofs of [`Delivery`](crate::Delivery): no POST twice
    /// that may have been processed. Backoff and jitter are those of the default, from 300 ms up to
    /// 20 s, for rate limits as well.
    ///
    /// For clients that are alone with their server, for measuring what the rest brings, and for
    /// moving over from reqwest-retry without a change. In a fleet three plain retries keep a host
    /// down that is overloaded.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{HintHeaders, ResilientConfig};
    ///
    /// // Retries that keep to Retry-After.
    /// let config = ResilientConfig::plain().to_builder().hint_headers(HintHeaders::default()).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn plain() -> Self {
        Self { policy: Arc::new(Policy::plain()) }
    }

    /// Returns the defaults of the Python library *aresilient*, for ports of Python programs.
    ///
    /// 429, 500, 502, 503 and 504, exponential from 0.3 s without a cap, no jitter, every method,
    /// 3 retries, and a Retry-After in place of the backoff. It re-sends a POST that may have been
    /// processed, as the library does. A retry hint of an hour or more, for which the library would
    /// sleep, ends the request: `max_wait_time` is just under an hour.
    pub fn aresilient() -> Self {
        Self { policy: Arc::new(Policy::aresilient()) }
    }

    /// Returns a builder that starts from these settings. A limit that is set on it shortens what they
    /// say, those of hosts too: `max_total_time` the `attempt_timeout`, and `max_wait_time` the longest
    /// delay of the backoff.
    pub fn to_builder(&self) -> ResilientConfigBuilder {
        let host = |it: &HostPolicy| (Arc::clone(&it.name), Arc::clone(&it.patch));
        let hosts: Vec<_> = self.policy.all_hosts().map(host).collect();
        let (base, max_hosts) = (Arc::clone(&self.policy), self.policy.max_hosts);
        let (patch, inherited) = (Patch::default(), hosts.len());
        ResilientConfigBuilder { base, patch, hosts, inherited, max_hosts }
    }

    /// Returns these settings with the callbacks, observers, predicates and hosts of `other`.
    #[cfg(feature = "serde")]
    pub(crate) fn with_code_of(&self, other: &Self) -> Self {
        Self { policy: Arc::new(self.policy.with_code_of(&other.policy)) }
    }

    pub(crate) fn from_policy(policy: Arc<Policy>) -> Self {
        Self { policy }
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }
}

// The caller's closures run while no lock is held and nothing is half done.
impl UnwindSafe for ResilientConfig {}
impl RefUnwindSafe for ResilientConfig {}

/// Everything that is data, and of the backoff the first delays.
impl fmt::Debug for ResilientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ResilientConfig");
        self.policy.describe(&mut out);
        out.finish_non_exhaustive()
    }
}

/// Builds a [`ResilientConfig`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .max_retries(2)
///     .attempt_timeout(Duration::from_secs(5))
///     .build()?;
/// let patient = config.to_builder().max_retries(8).build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ResilientConfigBuilder {
    base: Arc<Policy>,
    patch: Patch,
    hosts: Vec<(Arc<str>, Arc<Patch>)>,
    /// The number of hosts, the first ones, that are those of `base`.
    inherited: usize,
    max_hosts: usize,
}

impl ResilientConfigBuilder {
    /// Sets what differs for a host, such as `api.example.com`, or for all hosts below a domain,
    /// `*.example.com`, on any port. The most specific name wins; a second time for the same name
    /// replaces the first.
    ///
    /// They win over the settings here, one by one, and an override or a scope wins over them.
    /// After a redirect those of the first host stay.
    ///
    /// ```
    /// use reqwest_resilient::{ResilientConfig, RetryOverride};
    ///
    /// let config = ResilientConfig::builder()
    ///     .max_retries(5)
    ///     .host("payments.example.com", RetryOverride::new().max_retries(1))
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn host(mut self, name: &str, settings: RetryOverride) -> Self {
        self.hosts.push((name.into(), settings.into_patch()));
        self
    }

    /// Sets how many hosts a client keeps breakers, budgets and gates for; see
    /// [`HostStates`](crate::HostStates). Default: 1,024.
    ///
    /// A client has its map for life: a reload does not change this.
    pub fn max_hosts(mut self, hosts: usize) -> Self {
        self.max_hosts = hosts;
        self
    }

    /// Validates the settings and builds the configuration.
    ///
    /// # Errors
    ///
    /// All faults at once, each with its field and value: a duration or a count of zero where that
    /// means nothing, a jitter that is negative or no number, a factor below 1, an attempt timeout
    /// longer than the total time, an invalid host pattern, a breaker without a rule, settings that
    /// contradict each other.
    pub fn build(self) -> Result<ResilientConfig, ConfigError> {
        let mut hosts = self.hosts;
        for (_, patch) in hosts.iter_mut().take(self.inherited) {
            Arc::make_mut(patch).shorten(&Patch::default(), &self.patch);
        }
        let hosts = hosts.iter().map(|(name, patch)| (&**name, patch));
        let mut policy = self.base.patched([&self.patch]).with_hosts(hosts);
        policy.max_hosts = self.max_hosts;
        policy.check()?;
        Ok(ResilientConfig { policy: Arc::new(policy) })
    }

    /// Sets all that `settings` sets, on top of the base alone.
    #[cfg(feature = "serde")]
    pub(crate) fn settings(mut self, settings: RetryOverride) -> Self {
        self.patch = Arc::unwrap_or_clone(settings.into_patch());
        self
    }

    pub(crate) fn patch(&mut self) -> &mut Patch {
        &mut self.patch
    }
}

opaque!(ResilientConfigBuilder {});
