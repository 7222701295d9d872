//! The one map of hosts: bounded, least recently used out first, found without a lock for the first.

use std::{
    borrow::Cow,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use foldhash::fast::RandomState;
use lru::LruCache;
use reqwest::Url;
use url::Position;

use crate::breaker::CircuitBreakers;
use crate::common::clock::Instant;
use crate::host::state::{Eviction, Family, HostState, Mode};

/// A bounded, sharded map from a host's key to its state.
///
/// When a shard is full, its least recently used state goes that is free to go. Eviction looks at
/// [`LOOKED_AT`] states, whatever the size of the map. States that were set by hand stay, and the map
/// grows beyond its bound by those. Whoever still holds an evicted state keeps using it; the next
/// request of its host starts with a new one.
#[derive(Debug)]
pub(crate) struct HostMap {
    first: FirstHosts,
    shards: Box<[Shard]>,
    /// The most states a shard keeps.
    bound: usize,
    hasher: RandomState,
    shared: Arc<HostState>,
    family: Arc<Family>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<LruCache<Box<str>, Arc<HostState>, RandomState>>);

/// How many states a map keeps by default.
pub(crate) const DEFAULT_MAX_HOSTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

/// The most shards; a small map has one, so that its bound is exact.
const SHARDS: usize = 16;

/// The fewest states that are worth a shard of their own.
const LEAST_PER_SHARD: usize = 32;

/// How many states an eviction looks at.
const LOOKED_AT: usize = 8;

/// Begins the keys that are the user's own, so that none is taken for a host's.
const OWN_KEY: char = '\0';

impl Default for HostMap {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_HOSTS)
    }
}

impl HostMap {
    pub(crate) fn new(bound: NonZeroUsize) -> Self {
        let first = FirstHosts::new(bound.get());
        let rest = bound.get() - first.0.len();
        let shards = (rest / LEAST_PER_SHARD).clamp(1, SHARDS);
        let hasher = RandomState::default();
        let shard = |_| Shard(Mutex::new(LruCache::unbounded_with_hasher(hasher.clone())));
        let family = Arc::default();
        Self {
            first,
            shards: (0..shards).map(shard).collect(),
            bound: (rest / shards).max(1),
            hasher,
            shared: Arc::new(HostState::new("", &family)),
            family,
        }
    }

    /// Returns the state of the host of `url`, a new one if there is none.
    #[inline]
    pub(crate) fn find(&self, url: &Url, now: Instant) -> Cow<'_, Arc<HostState>> {
        match self.first.of(url) {
            Some(state) => Cow::Borrowed(state),
            None => self.of_host(&host_key(url), now),
        }
    }

    /// Returns the state of the host with this key, a new one if there is none.
    pub(crate) fn of_host(&self, key: &str, now: Instant) -> Cow<'_, Arc<HostState>> {
        match self.first.get(key) {
            Some(state) => Cow::Borrowed(state),
            None => self.look_up(key, now),
        }
    }

    /// Returns the state of a key of the user's, a new one if there is none.
    pub(crate) fn of_key(&self, key: &str, now: Instant) -> Arc<HostState> {
        self.look_up(&own_key(key), now).into_owned()
    }

    /// Returns the state that all requests share.
    pub(crate) fn shared(&self) -> &Arc<HostState> {
        &self.shared
    }

    /// Returns the state of a host or key if there is one. Does not count as use.
    pub(crate) fn peek(&self, key: &str) -> Option<Arc<HostState>> {
        let own = || own_key(key);
        self.first.get(key).cloned().or_else(|| {
            let host = self.shard(key).peek(key).cloned();
            host.or_else(|| self.shard(&own()).peek(&*own()).cloned())
        })
    }

    /// Returns all states, in no particular order. Does not count as use.
    pub(crate) fn all(&self) -> Vec<Arc<HostState>> {
        let first = self.first.0.iter().map_while(OnceLock::get).map(|(_, it)| Arc::clone(it));
        let mut all: Vec<_> = first.collect();
        for shard in &self.shards {
            all.extend(shard.lock().iter().map(|(_, it)| Arc::clone(it)));
        }
        if self.shared.used_breaker().is_some() {
            all.push(Arc::clone(&self.shared));
        }
        all
    }

    /// Sets the mode of all breakers, those of hosts to come included; `None` resets them.
    pub(crate) fn set_mode(&self, mode: Option<Mode>) {
        self.family.set_mode(mode);
        for state in self.all() {
            match (mode, state.used_breaker()) {
                (Some(mode), Some(breaker)) => mode.apply(breaker),
                (None, Some(breaker)) => breaker.reset(),
                (_, None) => {}
            }
        }
    }

    /// Lets every breaker count in the window of its rules, which `rules` finds by the host's URL;
    /// `None` for what is kept by other keys.
    pub(crate) fn adopt_windows<'r>(
        &self,
        rules: impl Fn(Option<&Url>) -> Option<&'r CircuitBreakers>,
    ) {
        for state in self.all() {
            let url = Url::parse(state.key()).ok();
            if let (Some(breaker), Some(rules)) = (state.used_breaker(), rules(url.as_ref())) {
                breaker.adopt_window(&rules.rules);
            }
        }
    }

    pub(crate) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    fn look_up(&self, key: &str, now: Instant) -> Cow<'_, Arc<HostState>> {
        let mut shard = self.shard(key);
        if let Some(state) = shard.get(key) {
            return Cow::Owned(Arc::clone(state));
        }
        let state = Arc::new(HostState::new(key.trim_start_matches(OWN_KEY), &self.family));
        match self.first.keep(key, &state) {
            Some(state) => Cow::Borrowed(state),
            None => {
                make_room(&mut shard, self.bound, now);
                shard.put(key.into(), Arc::clone(&state));
                Cow::Owned(state)
            }
        }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, LruCache<Box<str>, Arc<HostState>, RandomState>> {
        use std::hash::BuildHasher;

        let shard = match self.shards.len() {
            1 => 0,
            // The table inside takes the lower bits of the same hash.
            many => (self.hasher.hash_one(key) >> 48) as usize % many,
        };
        self.shards[shard].lock()
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, LruCache<Box<str>, Arc<HostState>, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts states until one more fits: the least recently used that is free to go, or else the first
/// whose breaker is merely open. What it passes over counts as used.
fn make_room(
    shard: &mut LruCache<Box<str>, Arc<HostState>, RandomState>,
    bound: usize,
    now: Instant,
) {
    let mut costly = None;
    for _ in 0..LOOKED_AT {
        if shard.len() + usize::from(costly.is_some()) < bound {
            break;
        }
        let Some((key, state)) = shard.pop_lru() else { break };
        match state.eviction(now) {
            Eviction::Free => {
                if let Some((key, state)) = costly.take() {
                    shard.put(key, state);
                }
            }
            Eviction::Costly if costly.is_none() => costly = Some((key, state)),
            Eviction::Costly | Eviction::Never => drop(shard.put(key, state)),
        }
    }
}

/// The first hosts of a client, found without hash, lock and count, and never evicted.
///
/// Claim: most clients talk to a few hosts, and one comparison of the URL's beginning finds each of
/// those. Invariant: a slot is written once. Figure: `contention`, "finding the host".
#[derive(Debug)]
struct FirstHosts(Box<[OnceLock<(Box<str>, Arc<HostState>)>]>);

impl FirstHosts {
    const SLOTS: usize = 8;

    /// Empty slots; none for a map so small that they would fill it.
    fn new(bound: usize) -> Self {
        let slots = if bound >= 4 * Self::SLOTS { Self::SLOTS } else { 0 };
        Self((0..slots).map(|_| OnceLock::new()).collect())
    }

    #[inline]
    fn of(&self, url: &Url) -> Option<&Arc<HostState>> {
        let mut all = self.0.iter().map_while(OnceLock::get);
        all.find(|(host, _)| is_host_of(url, host)).map(|(_, state)| state)
    }

    fn get(&self, key: &str) -> Option<&Arc<HostState>> {
        let mut all = self.0.iter().map_while(OnceLock::get);
        all.find(|(host, _)| **host == *key).map(|(_, state)| state)
    }

    /// Keeps the state of a host if a slot is free, and returns what is kept for it.
    fn keep(&self, key: &str, state: &Arc<HostState>) -> Option<&Arc<HostState>> {
        // `is_host_of` would take `a:` for the host of `a://b`.
        let fits = key.contains("://") && !key.starts_with(OWN_KEY);
        let mut slots = self.0.iter().filter(|_| fits);
        slots.find_map(|slot| {
            let (host, state) = slot.get_or_init(|| (key.into(), Arc::clone(state)));
            (**host == *key).then_some(state)
        })
    }
}

/// Returns whether `host`, a [`host_key`], is that of `url`.
///
/// Quicker than making the key of `url`: what comes before `host` ends must be the same, and an
/// authority ends with it too. A URL with userinfo is found by its key.
#[inline]
fn is_host_of(url: &Url, host: &str) -> bool {
    let rest = url.as_str().strip_prefix(host);
    rest.is_some_and(|it| matches!(it.as_bytes().first(), None | Some(b'/' | b'?' | b'#')))
}

/// Returns scheme, host and port of `url`, never its userinfo; the scheme's own port is left out.
pub(crate) fn host_key(url: &Url) -> Cow<'_, str> {
    if url.username().is_empty() && url.password().is_none() {
        return Cow::Borrowed(&url[..Position::AfterPort]);
    }
    Cow::Owned(
        [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPort]]
            .concat(),
    )
}

fn own_key(key: &str) -> String {
    format!("{OWN_KEY}{key}")
}
