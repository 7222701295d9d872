//! Settings that are replaced at runtime.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Extensions;
use reqwest::Request;

use crate::config::ResilientConfig;
use crate::config::overrides::{self, Invalid};
use crate::config::policy::Policy;
use crate::host::mirrors::Mirrors;
use crate::host::states::HostStates;
use crate::observe::event::Event;
use crate::observe::listeners::Listeners;

/// Replaces the settings of a [`Resilient`](crate::Resilient) at runtime; returned by
/// [`Resilient::reload_handle`](crate::Resilient::reload_handle). Cheap to clone.
///
/// # What changes, and what stays
///
/// A request that begins after [`reload`](Self::reload) has all the new settings, one that is under
/// way keeps all of its old ones. No request waits for a reload, and none sees a mixture. The old
/// settings, their closures included, are dropped with the last request that has them.
///
/// The state of hosts stays, as it belongs to the client and not to the settings: an open
/// circuit breaker stays open for the time it was opened for, a retry budget keeps its balance (as
/// far as the new size holds it), a closed gate stays closed. The next request of a host brings the
/// new rules to them. Counts stay unless the breaker's window is another.
///
/// Observers of the old and of the new settings, those of hosts too, receive
/// [`Event::Reloaded`](crate::Event::Reloaded) once each.
///
/// # Code
///
/// [`reload`](Self::reload) replaces all settings, callbacks, observers and predicates too: a
/// config that was only read from a file has none. [`reload_with`](Self::reload_with) starts from
/// the settings in force, and `file::RawConfig::over_config` lays a file over a config that has the
/// code.
///
/// ```
/// use reqwest_resilient::{Resilient, ResilientConfig};
///
/// let config = ResilientConfig::builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
/// let resilient = Resilient::new(config);
/// let handle = resilient.reload_handle();
/// // … `resilient` goes into a client; later, when a setting has changed:
/// handle.reload_with(|current| current.to_builder().max_retries(1).build())?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ResilientHandle {
    policy: Arc<ArcSwap<Policy>>,
    hosts: HostStates,
}

impl ResilientHandle {
    /// Replaces all settings for requests that begin from now on, code included.
    ///
    /// Cannot fail: every `ResilientConfig` has been validated.
    pub fn reload(&self, config: ResilientConfig) {
        let old = self.policy.swap(Arc::clone(config.policy()));
        self.finish_reload(&old, config.policy());
    }

    /// Replaces the settings by those that `change` makes of the settings in force, for requests
    /// that begin from now on.
    ///
    /// Atomic: no other reload is lost. If another one comes first, `change` is called again, with
    /// its settings. No lock is held meanwhile. A `change` that reloads the same client each time
    /// never ends.
    ///
    /// # Errors
    ///
    /// The error of `change`; the settings in force then stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Resilient, ResilientConfig};
    ///
    /// let config = ResilientConfig::builder().on_retry(|it| eprintln!("{}", it.url)).build()?;
    /// let handle = Resilient::new(config).reload_handle();
    ///
    /// // The callback stays.
    /// handle.reload_with(|current| current.to_builder().max_retries(1).build())?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn reload_with<E>(
        &self,
        mut change: impl FnMut(&ResilientConfig) -> Result<ResilientConfig, E>,
    ) -> Result<(), E> {
        loop {
            let old = self.policy.load_full();
            let config = change(&ResilientConfig::from_policy(Arc::clone(&old)))?;
            let found = self.policy.compare_and_swap(&old, Arc::clone(config.policy()));
            if Arc::ptr_eq(&found, &old) {
                self.finish_reload(&old, config.policy());
                return Ok(());
            }
        }
    }

    /// Brings windows of another size to the breakers, and notifies observers.
    fn finish_reload(&self, old: &Policy, new: &Policy) {
        // The last of several reloads at once wins here as well: check after adopting.
        let mut current = self.policy.load_full();
        loop {
            self.hosts.map().adopt_windows(|url| {
                let policy = url.and_then(|it| current.of_host(it)).unwrap_or(&current);
                policy.breaker.as_ref()
            });
            let latest = self.policy.load_full();
            if Arc::ptr_eq(&latest, &current) {
                break;
            }
            current = latest;
        }
        let listeners = [old, new].into_iter().flat_map(Policy::all_listeners);
        Listeners::notify_each_once(listeners, &Event::Reloaded);
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

/// The endpoints of one request, and the policy of its attempts at each.
pub(crate) struct EndpointPolicies {
    pub(crate) mirrors: Arc<Mirrors>,
    pub(crate) policies: Vec<Arc<Policy>>,
}

/// The side of the loop.
impl ResilientHandle {
    pub(crate) fn new(config: ResilientConfig, hosts: HostStates) -> Self {
        Self { policy: Arc::new(ArcSwap::new(Arc::clone(config.policy()))), hosts }
    }

    pub(crate) fn set_hosts(&mut self, hosts: HostStates) {
        self.hosts = hosts;
    }

    /// The policy of one request.
    #[inline]
    pub(crate) fn resolve(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> Result<Arc<Policy>, Invalid> {
        overrides::resolve(&self.policy.load(), request.url(), extensions)
    }

    /// The policy of one request, and of its attempts at each endpoint if it has several: all of the
    /// same settings.
    pub(crate) fn resolve_mirrored(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> Result<(Arc<Policy>, Option<EndpointPolicies>), Invalid> {
        let (configured, url) = (self.policy.load_full(), request.url());
        let policy = overrides::resolve(&configured, url, extensions)?;
        let Some(mirrors) = policy.mirrors.as_ref().and_then(|it| it.of(url)).map(Arc::clone)
        else {
            return Ok((policy, None));
        };
        let place = (&*mirrors, url);
        let policies = overrides::resolve_endpoints(&configured, &policy, place, extensions)?;
        Ok((policy, Some(EndpointPolicies { mirrors, policies })))
    }
}
