//! The handle to the states of a client's hosts.

use std::{sync::Arc, time::Instant};

use reqwest::Url;

use crate::breaker::{BreakerSnapshot, CircuitBreaker, RuleSet, StateChange};
use crate::common::clock;
use crate::host::limit::LimitUse;
use crate::host::map::{HostMap, host_key};
use crate::host::rate::LearnedQuota;
use crate::host::state::{HostState, Mode};

/// The states of the hosts that a client talks to: circuit breakers, retry budgets, gates and limits,
/// in one bounded map. Cheap to clone; clones share the map.
///
/// Every [`Resilient`](crate::Resilient) has one of its own, or the one it is
/// [given](crate::Resilient::with_hosts). Clients that are given the same one share what they know;
/// each judges by its own settings. Settings hold no state: clients built from clones of one
/// [`ResilientConfig`](crate::ResilientConfig) share nothing.
///
/// # Keys
///
/// A host's key is scheme, host and port, such as `https://example.com` or `http://localhost:8080`.
/// With [`CircuitBreakers::per_key`](crate::CircuitBreakers::per_key) and
/// [`RetryBudget::per_key`](crate::RetryBudget::per_key) it is the user's own, and what all
/// requests share has the empty key.
///
/// # Bounded
///
/// At most 1,024 hosts are kept ([`with_max_hosts`](Self::with_max_hosts)); the least recently used
/// is evicted first, one whose breaker is open, gate closed or limit in use only if there is no other. A
/// breaker that was set by hand is never evicted, nor are the first hosts of a map for 64 or more, an
/// eighth of it and 128 at most. A caller that still holds an evicted breaker keeps using that one;
/// the next request of its host starts with a new one.
///
/// ```
/// use reqwest_resilient::{HostStates, Resilient, ResilientConfig};
///
/// let hosts = HostStates::new();
/// let one = Resilient::new(ResilientConfig::default()).with_hosts(hosts.clone());
/// let other = Resilient::new(ResilientConfig::default()).with_hosts(hosts.clone());
/// // Maintenance: no client sends anything there until `reset`.
/// hosts.breaker("https://api.example.com").force_open();
/// ```
#[derive(Clone, Debug, Default)]
pub struct HostStates(Arc<HostMap>);

impl HostStates {
    /// Creates an empty map for at most 1,024 hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty map for at most `hosts` hosts; zero counts as one.
    pub fn with_max_hosts(hosts: usize) -> Self {
        Self(Arc::new(HostMap::new(hosts)))
    }

    /// Returns the breaker of a host, or of a key that is in use; creates a closed one for a
    /// host without a request yet. It follows the rules of the request that last used it.
    ///
    /// A host is named by any of its URLs, such as `https://api.example.com`: scheme, host and port
    /// count.
    pub fn breaker(&self, key: &str) -> CircuitBreaker {
        let state = self.peek(key).unwrap_or_else(|| {
            let key = host_of(key).unwrap_or_else(|| key.into());
            self.0.of_host(&key, clock::Instant::now()).into_owned()
        });
        CircuitBreaker::of_handle(Arc::clone(state.breaker(&RuleSet::provisional())))
    }

    /// Returns how many retries the budget of a host or key holds at `now`; `None` before its first
    /// request.
    pub fn budget_left(&self, key: &str, now: impl Into<Instant>) -> Option<f64> {
        self.peek(key)?.used_budget().map(|it| it.balance(clock::Instant::from_std(now.into())))
    }

    /// Returns the use of the concurrency limit of a host or key; `None` before its first request
    /// under a limit.
    pub fn limit_use(&self, key: &str) -> Option<LimitUse> {
        Some(self.peek(key)?.used_limiter()?.usage())
    }

    /// Returns the quotas of a host or key at `now`, of which at most eight are kept; none before its
    /// first response under [`RateLimit::learned`](crate::RateLimit::learned), and none of those that
    /// are counted in [buckets](crate::RateLimit::bucket_header).
    pub fn quotas(&self, key: &str, now: impl Into<Instant>) -> Vec<LearnedQuota> {
        let Some(state) = self.peek(key) else { return vec![] };
        let learner = state.used_pacer().and_then(|it| it.used_learner());
        learner.map_or_else(Vec::new, |it| it.quotas(clock::Instant::from_std(now.into())))
    }

    /// Returns what every breaker knows at `now`, in no particular order.
    pub fn snapshot(&self, now: impl Into<Instant>) -> Vec<BreakerSnapshot> {
        let now = clock::Instant::from_std(now.into());
        self.0.all().iter().filter_map(|it| Some(it.used_breaker()?.snapshot(now))).collect()
    }

    /// Rejects every request to every host, those not met yet included, until another mode is set
    /// or all are [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.0.set_mode(Some(Mode::ForcedOpen));
    }

    /// Admits every request to every host, those not met yet included, and records nothing, until
    /// another mode is set or all are [`reset`](Self::reset).
    pub fn disable(&self) {
        self.0.set_mode(Some(Mode::Disabled));
    }

    /// Admits every request to every host, those not met yet included, and keeps counting, until
    /// another mode is set or all are [`reset`](Self::reset).
    pub fn metrics_only(&self) {
        self.0.set_mode(Some(Mode::MetricsOnly));
    }

    /// Closes every breaker and clears its counts; ends the modes above.
    pub fn reset(&self) {
        self.0.set_mode(None);
    }

    /// Adds an observer of the state changes of all breakers, those to come included; see
    /// [`CircuitBreaker::on_state_change`].
    pub fn on_state_change(&self, observer: impl Fn(&StateChange) + Send + Sync + 'static) {
        self.0.family().observers.add(Arc::new(observer));
    }

    fn peek(&self, key: &str) -> Option<Arc<HostState>> {
        match key {
            "" => Some(Arc::clone(self.0.shared())),
            key => self.0.peek(key).or_else(|| self.0.peek(&host_of(key)?)),
        }
    }

    pub(crate) fn map(&self) -> &HostMap {
        &self.0
    }
}

/// Returns the key of the host that a URL is for.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(Url::has_host)?;
    Some(host_key(&url).into_owned())
}
