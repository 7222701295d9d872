//! Many breakers under one name.

use std::{
    fmt::{self, Debug, Formatter},
    num::NonZeroUsize,
    sync::Arc,
};

use reqwest::Request;

use crate::{
    breaker::{
        BreakerConfig, BreakerSnapshot, CircuitBreaker, StateChange,
        circuit::{Circuit, Common},
        home::Home,
    },
    registry::{Registry, host_key},
    time::Instant,
};

/// A family of circuit breakers, one a key, or a single one for all requests.
///
/// Made by [`CircuitBreaker::per_host`], [`CircuitBreaker::per_key`], or from a single
/// [`CircuitBreaker`]. Cheap to clone; clones share the breakers.
///
/// # Bounded
///
/// At most 1,024 keys are kept ([`max_keys`](Self::max_keys)). When one more comes, the breaker
/// used least recently is forgotten, and one that is not closed only if none is: a client that
/// is asked for ever new hosts must neither grow without end nor forget which are down. Whoever
/// still holds the [`CircuitBreaker`] of a forgotten key, or a permit, keeps using that one; the
/// next request of the key starts with a new, closed one.
#[derive(Clone, Debug)]
pub struct CircuitBreakers {
    scope: Arc<Scope>,
}

enum Scope {
    Single(CircuitBreaker),
    Keyed { key_of: KeyOf, common: Arc<Common>, homes: Registry<Home> },
}

enum KeyOf {
    Host,
    Request(Box<dyn Fn(&Request) -> String + Send + Sync>),
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
        let homes = Registry::new(Registry::<Home>::DEFAULT_CAPACITY);
        Self { scope: Arc::new(Scope::Keyed { key_of, common, homes }) }
    }

    /// Keeps at most `keys` breakers; 1,024 by default, some megabytes at worst.
    ///
    /// Counts for all clones, at once. Says nothing to a single breaker.
    pub fn max_keys(self, keys: NonZeroUsize) -> Self {
        if let Scope::Keyed { homes, .. } = &*self.scope {
            homes.set_capacity(keys);
        }
        self
    }

    /// Adds an observer of the changes of all breakers, for all clones: see
    /// [`CircuitBreaker::on_state_change`].
    pub fn on_state_change(self, observer: impl Fn(&StateChange) + Send + Sync + 'static) -> Self {
        match &*self.scope {
            Scope::Single(breaker) => breaker.common().observe(Arc::new(observer)),
            Scope::Keyed { common, .. } => common.observe(Arc::new(observer)),
        }
        self
    }

    /// The breaker that `request` has to ask.
    pub fn for_request(&self, request: &Request) -> CircuitBreaker {
        match &*self.scope {
            Scope::Single(breaker) => breaker.clone(),
            Scope::Keyed { key_of: KeyOf::Host, .. } => self.for_key(&host_key(request.url())),
            Scope::Keyed { key_of: KeyOf::Request(key_of), .. } => self.for_key(&key_of(request)),
        }
    }

    /// The breaker of `key`, a new one if there is none yet.
    ///
    /// A key of [`per_host`](CircuitBreaker::per_host) looks like `https://example.com` or
    /// `http://localhost:8080`. A single breaker is the breaker of every key.
    pub fn for_key(&self, key: &str) -> CircuitBreaker {
        match &*self.scope {
            Scope::Single(breaker) => breaker.clone(),
            Scope::Keyed { common, homes, .. } => CircuitBreaker {
                home: homes
                    .get_or_insert_with(key, || Home::new(Circuit::new(key, Arc::clone(common)))),
            },
        }
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
                homes.snapshot().into_iter().map(|(_, home)| CircuitBreaker { home }).collect()
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
