//! Settings that are replaced at runtime.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Extensions;
use reqwest::Request;

use crate::config::ResilientConfig;
use crate::config::overrides::{self, Invalid};
use crate::config::policy::Policy;
use crate::host::states::HostStates;

/// Replaces the settings of a [`Resilient`](crate::Resilient) at runtime; returned by
/// [`Resilient::handle`](crate::Resilient::handle). Cheap to clone.
///
/// # What changes, and what stays
///
/// A request that begins after [`reload`](Self::reload) has all the new settings, one that is under
/// way keeps all of its old ones. No request waits for a reload, and none sees a mixture. The old
/// settings, their closures included, are dropped with the last request that has them.
///
/// What is known of hosts stays, as it belongs to the client and not to the settings: an open
/// circuit breaker stays open for the time it was opened for, a retry budget keeps its balance (as
/// far as the new size holds it), a closed gate stays closed. The next request of a host brings the
/// new rules to them. Counts stay unless the breaker's window is another.
///
/// ```
/// use reqwest_resilient::{Resilient, ResilientConfig};
///
/// let resilient = Resilient::default();
/// let handle = resilient.handle();
/// // … `resilient` goes into a client; later, when the settings have changed:
/// handle.reload(ResilientConfig::builder().max_retries(1).build()?);
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ResilientHandle {
    policy: Arc<ArcSwap<Policy>>,
    hosts: HostStates,
}

impl ResilientHandle {
    /// Replaces the settings for requests that begin from now on.
    ///
    /// Cannot fail: every `ResilientConfig` has been validated.
    pub fn reload(&self, config: ResilientConfig) {
        self.policy.store(Arc::clone(config.policy()));
        self.hosts.map().adopt_windows(|url| {
            let policy =
                url.and_then(|it| config.policy().of_host(it)).unwrap_or_else(|| config.policy());
            policy.breaker.as_ref()
        });
    }

    /// Returns the settings of requests that begin now.
    pub fn config(&self) -> ResilientConfig {
        ResilientConfig::from_policy(self.policy.load_full())
    }

    /// Returns what is known of hosts.
    pub fn hosts(&self) -> &HostStates {
        &self.hosts
    }
}

impl fmt::Debug for ResilientHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientHandle").field("config", &self.config()).finish()
    }
}

/// The settings in force, on the side of the loop.
#[derive(Clone, Debug)]
pub(crate) struct Current(ResilientHandle);

impl Current {
    pub(crate) fn new(config: ResilientConfig, hosts: HostStates) -> Self {
        let policy = Arc::new(ArcSwap::new(Arc::clone(config.policy())));
        Self(ResilientHandle { policy, hosts })
    }

    pub(crate) fn hosts(&self) -> &HostStates {
        &self.0.hosts
    }

    pub(crate) fn set_hosts(&mut self, hosts: HostStates) {
        self.0.hosts = hosts;
    }

    pub(crate) fn config(&self) -> ResilientConfig {
        self.0.config()
    }

    pub(crate) fn handle(&self) -> ResilientHandle {
        self.0.clone()
    }

    /// The policy of one request.
    #[inline]
    pub(crate) fn resolve(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> Result<Arc<Policy>, Invalid> {
        overrides::resolve(&self.0.policy.load(), request.url(), extensions)
    }
}
