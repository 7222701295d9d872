//! Many breakers under one name.

use std::{
    fmt::{self, Debug, Formatter},
    num::NonZeroUsize,
    sync::Arc,
};

use reqwest::Request;

use crate::breaker::{
    BreakerConfig, BreakerSnapshot, CircuitBreaker, StateChange,
    circuit::{Circuit, Common},
    home::BreakerHandle,
};
use crate::common::clock::Instant;
use crate::common::fault::ConfigFault;
use crate::host::registry::{Entry, KeyOf, Keyed, Part};

/// A family of circuit breakers, one a key, or a single one for all requests.
///
/// Made by [`CircuitBreaker::per_host`], [`CircuitBreaker::per_key`], or from a single
/// [`CircuitBreaker`]. Cheap to clone; clones share the breakers.
///
/// # Bounded
///
/// At most 1,024 keys are kept ([`max_keys`](Self::max_keys)). When one more comes, the breaker
/// used least recently is forgotten, and one that is not closed only if none is: a client that
/// is asked for ever new hosts must neither grow without end nor forget which are down. The first
/// eight keys stay, where 32 or more are kept, closed or not: they are found without a lock. Whoever
/// still holds the [`CircuitBreaker`] of a forgotten key, or a permit, keeps using that one; the
/// next request of the key starts with a new, closed one.
#[derive(Clone, Debug)]
pub struct CircuitBreakers {
    scope: Arc<Scope>,
}

enum Scope {
    Single(CircuitBreaker),
    Keyed { common: Arc<Common>, homes: Keyed<BreakerHandle> },
}

impl CircuitBreakers {
    pub(super) fn per_host(config: BreakerConfig) -> Self {
        Self::keyed(KeyOf::Host, config)
    }

    pub(super) fn per_key(
        config: BreakerConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::keyed(KeyOf::Request(Box::new(key_of)), config)
    }

    fn keyed(key_of: KeyOf, config: BreakerConfig) -> Self {
        let common = Arc::new(Common::new(config));
        Self { scope: Arc::new(Scope::Keyed { common, homes: Keyed::new(key_of) }) }
    }

    /// Keeps at most `keys` breakers; 1,024 by default, some megabytes at worst.
    ///
    /// Counts for all clones, at once; eight that came while there was room for 32 or more stay all
    /// the same. Says nothing to a single breaker.
    pub fn max_keys(self, keys: NonZeroUsize) -> Self {
        if let Scope::Keyed { homes, .. } = &*self.scope {
            homes.set_capacity(keys);
        }
        self
    }

    /// Adds an observer of the changes of all breakers, for all clones: see
    /// [`CircuitBreaker::on_state_change`].
    pub fn on_state_change(self, observer: impl Fn(&StateChange) + Send + Sync + 'static) -> Self {
        self.common().observe(Arc::new(observer));
        self
    }

    /// Gives a host, such as `api.example.com`, or all hosts below a domain, `*.example.com`, a
    /// rule of their own; for all clones, from the next request on.
    ///
    /// For breakers that are kept per host. A name that no host can have is refused by
    /// [`build`](crate::ResilientConfigBuilder::build).
    pub fn for_host(self, host: &str, config: BreakerConfig) -> Self {
        self.common().rules.set_host(host, Arc::new(config));
        self
    }

    /// The breaker that `request` has to ask.
    pub fn for_request(&self, request: &Request) -> CircuitBreaker {
        match &*self.scope {
            Scope::Single(_) => self.for_key(""),
            Scope::Keyed { homes, .. } => self.for_key(&homes.key(request)),
        }
    }

    /// What that breaker is, if need be in the entry that was found for the request, and whether it
    /// is never forgotten.
    pub(crate) fn of_request(
        &self,
        request: &Request,
        found: Option<&Arc<Entry>>,
    ) -> (Arc<BreakerHandle>, bool) {
        let (home, stays) = match &*self.scope {
            Scope::Single(breaker) => (Arc::clone(&breaker.home), true),
            Scope::Keyed { common, homes } => {
                let create = |key: &str| BreakerHandle::new(Circuit::new(key, Arc::clone(common)));
                homes.of_request(request, found, create)
            }
        };
        home.keep_up();
        (home, stays)
    }

    /// The breaker of `key`, a new one if there is none yet.
    ///
    /// A key of [`per_host`](CircuitBreaker::per_host) looks like `https://example.com` or
    /// `http://localhost:8080`. A single breaker is the breaker of every key.
    pub fn for_key(&self, key: &str) -> CircuitBreaker {
        match &*self.scope {
            Scope::Single(breaker) => breaker.clone(),
            Scope::Keyed { common, homes } => {
                let create = |key: &str| BreakerHandle::new(Circuit::new(key, Arc::clone(common)));
                CircuitBreaker { home: homes.of_key(key, create) }
            }
        }
        .kept_up()
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        self.common().faults()
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.scope, &other.scope)
    }

    /// Whether these breakers, with their state, can stand in for `other`: they are kept in the
    /// same way, and have then taken over its rules.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        match (&*self.scope, &*other.scope) {
            (Scope::Single(_), Scope::Single(_)) => {}
            (Scope::Keyed { homes, .. }, Scope::Keyed { homes: theirs, .. })
                if homes.is_per_host() && theirs.is_per_host() =>
            {
                homes.set_capacity(theirs.capacity());
            }
            // Nobody can tell whether two functions find the same keys.
            _ => return false,
        }
        self.common().rules.replace(&other.common().rules);
        true
    }

    /// The rules, to be shown.
    pub(crate) fn rules(&self) -> &dyn Debug {
        &self.common().rules
    }

    fn common(&self) -> &Arc<Common> {
        match &*self.scope {
            Scope::Single(breaker) => breaker.common(),
            Scope::Keyed { common, .. } => common,
        }
    }

    /// Where the breakers are kept, if there are several.
    pub(crate) fn homes(&self) -> Option<&Keyed<impl Part>> {
        match &*self.scope {
            Scope::Single(_) => None,
            Scope::Keyed { homes, .. } => Some(homes),
        }
    }

    /// The breaker of another host than the one that was asked, if there is one a host.
    pub(crate) fn of_other_host(&self, key: &str) -> Option<Arc<BreakerHandle>> {
        let per_host = matches!(&*self.scope, Scope::Keyed { homes, .. } if homes.is_per_host());
        per_host.then(|| self.for_key(key).home)
    }

    /// What every breaker knows at `now`, in no particular order.
    pub fn snapshot(&self, now: Instant) -> Vec<BreakerSnapshot> {
        self.all().iter().map(|breaker| breaker.snapshot(now)).collect()
    }

    /// Forces every breaker there is open; keys that come later start closed.
    pub fn force_open(&self) {
        self.all().iter().for_each(CircuitBreaker::force_open);
    }

    /// Disables every breaker there is; keys that come later start closed.
    pub fn force_closed(&self) {
        self.all().iter().for_each(CircuitBreaker::force_closed);
    }

    /// Lets every breaker there is only measure; keys that come later start closed.
    pub fn metrics_only(&self) {
        self.all().iter().for_each(CircuitBreaker::metrics_only);
    }

    /// Resets every breaker there is.
    pub fn reset(&self) {
        self.all().iter().for_each(CircuitBreaker::reset);
    }

    fn all(&self) -> Vec<CircuitBreaker> {
        match &*self.scope {
            Scope::Single(breaker) => vec![breaker.clone()],
            Scope::Keyed { homes, .. } => {
                homes.all().into_iter().map(|(_, home)| CircuitBreaker { home }).collect()
            }
        }
    }
}

impl From<CircuitBreaker> for CircuitBreakers {
    fn from(breaker: CircuitBreaker) -> Self {
        Self { scope: Arc::new(Scope::Single(breaker)) }
    }
}

impl Debug for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(breaker) => f.debug_tuple("Single").field(breaker).finish(),
            Self::Keyed { homes, .. } => {
                f.debug_struct("Keyed").field("homes", homes).finish_non_exhaustive()
            }
        }
    }
}
