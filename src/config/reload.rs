//! Settings that can be replaced while requests are under way.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use http::Extensions;
use reqwest::Request;

use crate::breaker::CircuitBreakers;
use crate::common::host_pattern::HostMap;
use crate::config::ResilientConfig;
use crate::config::overrides::{self, Invalid};
use crate::config::policy::{HostPolicy, Policy};
use crate::host::gate::Gates;
use crate::retry::budget::RetryBudget;

/// Replaces the settings of a [`Resilient`](crate::Resilient) while it works; made by
/// [`Resilient::handle`](crate::Resilient::handle). Cheap to clone.
///
/// # What changes, and what stays
///
/// A request that begins after [`reload`](Self::reload) has all the new settings, one that is under
/// way keeps all of its old ones. No request waits for a reload, and none sees a mixture.
///
/// What is known of hosts stays: an open circuit breaker stays open for the time it was opened for,
/// a retry budget keeps its balance (as far as the new size holds it), a closed gate stays closed.
/// That goes for breakers and budgets that are kept in the same way before and after, per host or
/// as a single one; they take over the new rules when the next request asks for them, and counts
/// stay unless the window is another. What is kept by keys of your own starts afresh, unless it is
/// the very same handle in both.
///
/// Handles and observers of the breakers and budgets there were stay in use as well; those of the
/// ones that came with the new settings then belong to nothing.
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
    shared: Arc<Shared>,
}

struct Shared {
    first: Arc<Policy>,
    /// Only there once something was reloaded: until then, requests borrow what does not change.
    later: OnceLock<ArcSwap<Policy>>,
    /// Held while reloading: two at once could each keep what the other has just replaced.
    reloading: Mutex<()>,
}

impl ResilientHandle {
    /// Puts these settings in place of those there are, for requests that begin from now on.
    ///
    /// Only a config that can be gets here: one that cannot is an error before it is one, and the
    /// old settings stay in force.
    pub fn reload(&self, config: ResilientConfig) {
        let _one_at_a_time = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = Arc::new(successor(&self.shared.policy(), config.policy()));
        match self.shared.later.get() {
            Some(later) => later.store(policy),
            None => drop(self.shared.later.set(ArcSwap::new(policy))),
        }
    }

    /// The settings of requests that begin now.
    pub fn config(&self) -> ResilientConfig {
        ResilientConfig::from_policy(self.shared.policy())
    }
}

impl Shared {
    fn policy(&self) -> Arc<Policy> {
        self.later.get().map_or_else(|| Arc::clone(&self.first), ArcSwap::load_full)
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
    pub(crate) fn new(config: ResilientConfig) -> Self {
        let first = Arc::clone(config.policy());
        let shared = Shared { first, later: OnceLock::new(), reloading: Mutex::new(()) };
        Self(ResilientHandle { shared: Arc::new(shared) })
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
    ) -> Result<Cow<'_, Arc<Policy>>, Invalid> {
        let Shared { first, later, .. } = &*self.0.shared;
        let Some(later) = later.get() else {
            return overrides::resolve(first, request.url(), extensions);
        };
        let later = later.load();
        let policy = overrides::resolve(&later, request.url(), extensions)?;
        Ok(Cow::Owned(policy.into_owned()))
    }
}

/// The policy `new`, with what `old` keeps for hosts wherever both keep the same.
fn successor(old: &Policy, new: &Policy) -> Policy {
    let mut hosts: Vec<HostPolicy> = new.all_hosts().cloned().collect();
    // What new and old have for the same host is a pair; the general policies are the first one.
    let named = |it: &HostPolicy| old.hosts.as_ref()?.named(&it.name).map(|it| &*it.policy);
    let olds: Vec<_> =
        [old].into_iter().chain(hosts.iter().map(|it| named(it).unwrap_or(old))).collect();
    let general = Policy { hosts: None, ..new.clone() };
    let mut news: Vec<_> =
        [general].into_iter().chain(hosts.iter().map(|it| (*it.policy).clone())).collect();

    keep(&olds, &mut news, |it| &it.breaker, |it| &mut it.breaker);
    keep(&olds, &mut news, |it| &it.budget, |it| &mut it.budget);
    keep(&olds, &mut news, |it| &it.gates, |it| &mut it.gates);
    news.iter_mut().for_each(|it| it.firsts = Some(Arc::default()));

    let mut news = news.into_iter();
    let general = news.next().unwrap_or_default();
    hosts.iter_mut().zip(news).for_each(|(host, policy)| host.policy = Arc::new(policy));
    let hosts: HostMap<_> = hosts.into_iter().map(|it| (Arc::clone(&it.name), it)).collect();
    Policy { hosts: (!hosts.is_empty()).then(|| Arc::new(hosts)), ..general }
}

/// One kind of state that policies keep for hosts, behind a handle.
trait Kept: Clone {
    fn is(&self, other: &Self) -> bool;

    /// Whether this one, with its state, can stand in for `other`, whose rules it has then.
    fn replaces(&self, other: &Self) -> bool;
}

/// Puts what is kept in `olds` in the place of its counterpart in `news`, each for one of them.
fn keep<T: Kept>(
    olds: &[&Policy],
    news: &mut [Policy],
    of_old: fn(&Policy) -> &Option<T>,
    of_new: fn(&mut Policy) -> &mut Option<T>,
) {
    let mut settled: Vec<(T, T)> = vec![];
    for (old, new) in olds.iter().zip(news) {
        let Some(new) = of_new(new) else { continue };
        if let Some((_, stays)) = settled.iter().find(|(it, _)| it.is(new)) {
            new.clone_from(stays);
            continue;
        }
        let in_use = olds.iter().filter_map(|it| of_old(it).as_ref()).any(|it| it.is(new));
        let free = of_old(old).as_ref().filter(|it| !settled.iter().any(|(_, stays)| stays.is(it)));
        let stays = free.filter(|it| !in_use && it.replaces(new)).unwrap_or(new).clone();
        settled.push((new.clone(), stays.clone()));
        *new = stays;
    }
}

impl Kept for CircuitBreakers {
    fn is(&self, other: &Self) -> bool {
        self.is(other)
    }

    fn replaces(&self, other: &Self) -> bool {
        self.replaces(other)
    }
}

impl Kept for RetryBudget {
    fn is(&self, other: &Self) -> bool {
        self.is(other)
    }

    fn replaces(&self, other: &Self) -> bool {
        self.replaces(other)
    }
}

impl Kept for Arc<Gates> {
    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }

    fn replaces(&self, _: &Self) -> bool {
        // Gates have no rules, and are always kept per host.
        true
    }
}
