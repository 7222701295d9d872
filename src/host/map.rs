//! The one map of hosts: bounded, least recently used out first, found without a lock for the
//! first.

use std::{
    borrow::Cow,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use reqwest::Url;
use url::Position;

use crate::breaker::CircuitBreakers;
use crate::common::clock::Instant;
use crate::host::fleet::hub::Hub;
use crate::host::mirrors::Favourites;
use crate::host::state::{Family, HostState, Key, Mode};
use crate::host::table::Table;

/// A bounded, sharded map from a host's key to its state.
///
/// A full shard evicts its least recently used state that is free to go, and looks at eight for
/// that, whatever the size of the map. States that were set by hand are never evicted and do not
/// count for the bound. A caller that still holds an evicted state keeps using it; the next request
/// of its host starts with a new one.
#[derive(Debug)]
pub(crate) struct HostMap {
    first: FirstHosts,
    shards: Box<[Shard]>,
    /// The most states a shard keeps.
    bound: usize,
    hasher: RandomState,
    shared: Arc<HostState>,
    family: Arc<Family>,
    pub(crate) favourites: Favourites,
    fleet: OnceLock<Arc<Hub>>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Table>);

/// The lock of a shard without the state that was looked for, and the hash of its key.
struct Absent<'m> {
    shard: MutexGuard<'m, Table>,
    hash: u64,
}

/// The number of states that a map keeps by default.
pub(crate) const DEFAULT_MAX_HOSTS: usize = 1_024;

/// The most shards; a small map has one, so that its bound is exact.
const SHARDS: usize = 16;

/// The fewest states that are worth a shard of their own.
const LEAST_PER_SHARD: usize = 32;

impl Default for HostMap {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_HOSTS)
    }
}

impl HostMap {
    /// Creates an empty map for `bound` hosts; for one if that is zero.
    pub(crate) fn new(bound: usize) -> Self {
        let first = FirstHosts::new(bound);
        let rest = bound - first.free.load(Ordering::Relaxed);
        let shards = (rest / LEAST_PER_SHARD).clamp(1, SHARDS);
        let family = Arc::default();
        Self {
            first,
            shards: (0..shards).map(|_| Shard(Mutex::default())).collect(),
            bound: (rest / shards).max(1),
            hasher: RandomState::default(),
            shared: Arc::new(HostState::new(Key::of_host(""), &family)),
            family,
            favourites: Favourites::default(),
            fleet: OnceLock::new(),
        }
    }

    /// Returns the state of the host of `url`, a new one if there is none.
    #[inline]
    pub(crate) fn find(&self, url: &Url, now: Instant) -> Cow<'_, Arc<HostState>> {
        // The key of the host, if the URL has no userinfo; with userinfo it is no host's.
        let start = &url[..Position::BeforePath];
        let hash = self.hasher.hash_one(Key::of_host(start));
        if let Some(state) = self.first.get(start, hash) {
            return Cow::Borrowed(state);
        }
        match self.known(Key::of_host(start), hash, now) {
            Ok(state) => Cow::Owned(state),
            Err(absent) => self.find_absent(url, start, absent, now),
        }
    }

    #[cold]
    fn find_absent(
        &self,
        url: &Url,
        start: &str,
        absent: Absent<'_>,
        now: Instant,
    ) -> Cow<'_, Arc<HostState>> {
        let key = host_key(url);
        if *key == *start {
            return self.create(Key::of_host(start), absent, now);
        }
        drop(absent);
        self.of_host(&key, now)
    }

    /// Returns the state of the host with this key, a new one if there is none.
    pub(crate) fn of_host(&self, key: &str, now: Instant) -> Cow<'_, Arc<HostState>> {
        let hash = self.hasher.hash_one(Key::of_host(key));
        match self.first.get(key, hash) {
            Some(state) => Cow::Borrowed(state),
            None => self.look_up(Key::of_host(key), hash, now),
        }
    }

    /// Returns the state of a key of the user's, a new one if there is none.
    pub(crate) fn of_key(&self, key: &str, now: Instant) -> Arc<HostState> {
        let key = Key::of_user(key);
        self.look_up(key, self.hasher.hash_one(key), now).into_owned()
    }

    /// Makes the hosts those of a fleet, unless they are in one already.
    pub(crate) fn join(&self, fleet: &Arc<Hub>) {
        self.fleet.get_or_init(|| Arc::clone(fleet));
    }

    /// Returns the fleet, if there is one.
    #[inline]
    pub(crate) fn fleet(&self) -> Option<&Arc<Hub>> {
        self.fleet.get()
    }

    /// Returns the state that all requests share.
    pub(crate) fn shared(&self) -> &Arc<HostState> {
        &self.shared
    }

    /// Returns the state of a host or key if there is one. Does not count as use.
    pub(crate) fn peek(&self, key: &str) -> Option<Arc<HostState>> {
        // The same for both kinds of key.
        let hash = self.hasher.hash_one(Key::of_host(key));
        let peek = |key| self.shard(hash).lock().peek(key, hash);
        let host = self.first.get(key, hash).cloned().or_else(|| peek(Key::of_host(key)));
        host.or_else(|| peek(Key::of_user(key)))
    }

    /// Returns all states, in no particular order. Does not count as use.
    pub(crate) fn all(&self) -> Vec<Arc<HostState>> {
        let mut all: Vec<_> = self.first.all().cloned().collect();
        for shard in &self.shards {
            all.extend(shard.lock().all().cloned());
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
    /// `None` for states with other keys.
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

    fn look_up(&self, key: Key<'_>, hash: u64, now: Instant) -> Cow<'_, Arc<HostState>> {
        match self.known(key, hash, now) {
            Ok(state) => Cow::Owned(state),
            Err(absent) => self.create(key, absent, now),
        }
    }

    /// Returns the state with this key, or its place in the shard if there is none.
    #[inline]
    fn known(&self, key: Key<'_>, hash: u64, now: Instant) -> Result<Arc<HostState>, Absent<'_>> {
        let mut shard = self.shard(hash).lock();
        shard.get(key, hash, self.bound, now).ok_or(Absent { shard, hash })
    }

    #[cold]
    fn create(&self, key: Key<'_>, absent: Absent<'_>, now: Instant) -> Cow<'_, Arc<HostState>> {
        let Absent { mut shard, hash } = absent;
        let state = Arc::new(HostState::new(key, &self.family));
        if let Some(state) = self.first.keep(&state, hash) {
            return Cow::Borrowed(state);
        }
        let evicted = shard.insert(Arc::clone(&state), hash, self.bound, now);
        // Outside of the lock: settings of the user's may go with it.
        drop(shard);
        drop(evicted);
        Cow::Owned(state)
    }

    fn shard(&self, hash: u64) -> &Shard {
        // By bits in the middle: the table inside takes the lowest and the highest ones. The
        // product spreads them over any number of shards without a division.
        let middle = u64::from((hash >> 24) as u32);
        &self.shards[((middle * self.shards.len() as u64) >> 32) as usize]
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first hosts of a client, found without lock and count, and never evicted.
///
/// Claim: most clients talk to a hundred hosts at most, and threads that find one of these write to
/// nothing that they share. Invariant: a slot is written once, and there are no free ones between
/// that of a hash and that of its host. Figure: `contention`, "finding the 100th host".
#[derive(Debug)]
struct FirstHosts {
    /// Half of them stay free, so that few are looked at.
    slots: Box<[OnceLock<First>]>,
    /// The number of hosts that can still be kept.
    free: AtomicUsize,
}

#[derive(Debug)]
struct First {
    hash: u64,
    state: Arc<HostState>,
}

impl FirstHosts {
    const MOST: usize = 128;

    /// Keeps an eighth of the hosts of a map; none of one so small that few would be.
    fn new(bound: usize) -> Self {
        let most = if bound < 64 { 0 } else { (bound / 8).min(Self::MOST) };
        let slots = if most == 0 { 0 } else { (2 * most).next_power_of_two() };
        Self { slots: (0..slots).map(|_| OnceLock::new()).collect(), free: AtomicUsize::new(most) }
    }

    #[inline]
    fn get(&self, key: &str, hash: u64) -> Option<&Arc<HostState>> {
        let mut all = self.slots_from(hash).map_while(OnceLock::get);
        all.find(|it| it.hash == hash && it.state.key() == key).map(|it| &it.state)
    }

    /// Keeps the state of a host if there is room, and returns the state that is kept for it. The
    /// caller holds the lock of its shard.
    fn keep(&self, state: &Arc<HostState>, hash: u64) -> Option<&Arc<HostState>> {
        // A text that is no URL takes no host's slot.
        if state.has_users_key() || !state.key().contains("://") {
            return None;
        }
        if let Some(kept) = self.get(state.key(), hash) {
            return Some(kept);
        }
        let one_less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        self.slots_from(hash)
            .map(|slot| &slot.get_or_init(|| First { hash, state: Arc::clone(state) }).state)
            .find(|it| Arc::ptr_eq(it, state))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<HostState>> {
        self.slots.iter().filter_map(OnceLock::get).map(|it| &it.state)
    }

    #[inline]
    fn slots_from(&self, hash: u64) -> impl Iterator<Item = &OnceLock<First>> {
        let wrap = self.slots.len().wrapping_sub(1);
        (0..self.slots.len()).map(move |it| &self.slots[(hash as usize).wrapping_add(it) & wrap])
    }
}

/// Returns scheme, host and port of `url`, never its userinfo; the scheme's own port is left out.
#[inline]
pub(crate) fn host_key(url: &Url) -> Cow<'_, str> {
    if &url[Position::AfterScheme..Position::BeforeHost] == "://" {
        return Cow::Borrowed(&url[..Position::AfterPort]);
    }
    Cow::Owned(
        [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPort]]
            .concat(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::breaker::{BreakerConfig, BreakerState, CircuitBreaker};
    use crate::host::state::Eviction;
    use crate::host::table::LOOKED_AT;

    const SECOND: Duration = Duration::from_secs(1);

    fn map(bound: usize) -> HostMap {
        HostMap::new(bound)
    }

    fn url(url: &str) -> Url {
        url.parse().unwrap()
    }

    /// Rules by which one failure opens a breaker for a second.
    fn rules() -> CircuitBreakers {
        let config = BreakerConfig::consecutive(1).open_for(SECOND);
        config.without_open_jitter().without_open_growth().into()
    }

    fn open(state: &HostState, rules: &CircuitBreakers, now: Instant) {
        let breaker = CircuitBreaker::of_handle(Arc::clone(state.breaker(&rules.rules)));
        breaker.reset();
        breaker.try_enter(now).unwrap().failure(now);
    }

    #[test]
    fn a_state_is_found_by_hash_and_key() {
        let (first, family) = (FirstHosts::new(64), Arc::default());
        let state = Arc::new(HostState::new(Key::of_host("https://a.example"), &family));
        assert!(first.keep(&state, 1).is_some());
        assert!(first.get("https://a.example", 1).is_some());
        assert!(first.get("https://b.example", 1).is_none());
        assert!(first.get("https://a.example", 2).is_none());
    }

    #[test]
    fn the_lowest_bits_of_a_hash_choose_no_shard() {
        let map = map(1_024);
        assert!(std::ptr::eq(map.shard(0), map.shard(0xff)));
        assert!(!std::ptr::eq(map.shard(0), map.shard(u64::from(u32::MAX) << 24)));
    }

    #[test]
    fn a_host_is_found_by_any_of_its_urls() {
        for bound in [1_024, 8] {
            let (map, now) = (map(bound), Instant::now());
            for (first, second, same) in [
                ("https://a.example", "https://a.example:443/b", true),
                ("https://a.example?b", "https://me:secret@a.example#c", true),
                ("http://a.example:81", "http://a.example:81/b@c", true),
                ("http://a.example:81", "http://a.example:8", false),
                ("https://a.example", "https://a.example.com", false),
                ("https://a.example", "http://a.example", false),
            ] {
                let (first, second) =
                    (map.find(&url(first), now).into_owned(), map.find(&url(second), now));
                assert_eq!(Arc::ptr_eq(&first, &second), same, "{} {}", first.key(), second.key());
            }
        }
    }

    #[test]
    fn the_first_hosts_stay_and_are_found_without_a_count() {
        let (map, now) = (map(64), Instant::now());
        let host = |it: usize| url(&format!("http://{it}.example"));
        let first = map.find(&host(0), now).into_owned();
        for other in 1..1_000 {
            map.find(&host(other), now);
        }
        assert!(matches!(map.find(&host(0), now), Cow::Borrowed(it) if Arc::ptr_eq(it, &first)));
        assert!(matches!(map.find(&host(8), now), Cow::Owned(_)));
        assert!(map.all().len() <= 64, "{}", map.all().len());
    }

    #[test]
    fn an_eighth_of_a_map_is_kept_and_a_hundred_and_twenty_eight_at_most() {
        for (bound, most) in [(8, 0), (63, 0), (64, 8), (800, 100), (1_024, 128), (65_536, 128)] {
            let (map, now) = (map(bound), Instant::now());
            let url = |it: usize| url(&format!("http://{it}.example"));
            (0..150).for_each(|it| drop(map.find(&url(it), now)));
            let kept =
                (0..150).filter(|it| matches!(map.find(&url(*it), now), Cow::Borrowed(_))).count();
            assert_eq!(kept, most, "{bound}");
        }
    }

    #[test]
    fn threads_that_meet_at_new_hosts_find_one_state_of_each() {
        let (map, now) = (map(1_024), Instant::now());
        let hosts: Vec<_> = (0..400).map(|it| url(&format!("http://{it}.example"))).collect();
        let found: Vec<Vec<_>> = std::thread::scope(|scope| {
            let find_all = || hosts.iter().map(|it| map.find(it, now).into_owned()).collect();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(find_all)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        for other in &found {
            let pairs = found[0].iter().zip(other);
            assert!(pairs.into_iter().all(|(one, other)| Arc::ptr_eq(one, other)));
        }
        assert_eq!(map.all().len(), hosts.len());
        let first = hosts.iter().filter(|it| matches!(map.find(it, now), Cow::Borrowed(_)));
        assert_eq!(first.count(), FirstHosts::MOST);
    }

    #[test]
    fn a_key_of_the_user_s_is_never_a_host() {
        let (map, now) = (map(64), Instant::now());
        let host = map.find(&url("http://a.example"), now).into_owned();
        let key = map.of_key("http://a.example", now);
        assert!(!Arc::ptr_eq(&host, &key));
        assert_eq!((host.key(), key.key()), ("http://a.example", "http://a.example"));
        assert!(Arc::ptr_eq(&map.of_key("tenant", now), &map.peek("tenant").unwrap()));
    }

    #[test]
    fn a_mode_of_all_reaches_hosts_to_come() {
        let (map, now, rules) = (map(8), Instant::now(), rules());
        let state_of = |host: &str| map.of_host(host, now).breaker(&rules.rules).state();
        assert_eq!(state_of("a"), BreakerState::Closed);
        map.set_mode(Some(Mode::ForcedOpen));
        assert_eq!(
            (state_of("a"), state_of("b")),
            (BreakerState::ForcedOpen, BreakerState::ForcedOpen)
        );
        map.set_mode(Some(Mode::MetricsOnly));
        assert_eq!(
            (state_of("b"), state_of("c")),
            (BreakerState::MetricsOnly, BreakerState::MetricsOnly)
        );
        map.set_mode(None);
        assert_eq!((state_of("c"), state_of("d")), (BreakerState::Closed, BreakerState::Closed));
    }

    #[test]
    fn what_is_set_by_hand_stays_though_the_map_is_full_of_it() {
        let (map, now, rules) = (map(4), Instant::now(), rules());
        for host in 0..10 {
            map.of_host(&host.to_string(), now).breaker(&rules.rules).force_open();
        }
        assert_eq!(map.all().len(), 10);
        map.of_host("one more", now);
        map.of_host("two more", now);
        let forced = map.all().iter().filter(|it| it.eviction(now) == Eviction::Never).count();
        assert_eq!((forced, map.all().len()), (10, 12), "none of them is lost");
        map.set_mode(None);
        for host in 0..20 {
            map.of_host(&host.to_string(), now);
        }
        assert!(map.all().len() <= 4, "{}", map.all().len());
    }

    #[test]
    fn a_report_about_another_host_creates_nothing() {
        let map = map(8);
        assert!(map.peek("http://a.example").is_none() && map.all().is_empty());
    }

    /// One step of a client's life.
    #[derive(Clone, Debug)]
    enum Act {
        Use(u8),
        Open(u8),
        Force(u8),
        Reset(u8),
        Wait,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0_u8..24).prop_map(Act::Use),
            2 => (0_u8..24).prop_map(Act::Open),
            1 => (0_u8..24).prop_map(Act::Force),
            1 => (0_u8..24).prop_map(Act::Reset),
            1 => Just(Act::Wait),
        ]
    }

    /// The simple map: a list, least recently used first, and those set by hand beside it.
    #[derive(Default)]
    struct Model {
        recent: Vec<Modelled>,
        by_hand: Vec<Modelled>,
    }

    #[derive(Clone, Copy)]
    struct Modelled {
        host: u8,
        opened: Option<Instant>,
        forced: bool,
    }

    impl Model {
        fn touch(&mut self, host: u8, bound: usize, now: Instant) -> &mut Modelled {
            if let Some(at) = self.by_hand.iter().position(|it| it.host == host) {
                if self.by_hand[at].forced {
                    return &mut self.by_hand[at];
                }
                let known = self.by_hand.remove(at);
                self.insert(known, bound, now);
            } else if let Some(at) = self.recent.iter().position(|it| it.host == host) {
                let known = self.recent.remove(at);
                self.recent.push(known);
            } else {
                self.insert(Modelled { host, opened: None, forced: false }, bound, now);
            }
            self.recent.last_mut().unwrap()
        }

        fn insert(&mut self, new: Modelled, bound: usize, now: Instant) {
            self.make_room(bound, now);
            self.recent.push(new);
        }

        fn make_room(&mut self, bound: usize, now: Instant) {
            let mut costly = None;
            for _ in 0..LOOKED_AT.min(self.recent.len()) {
                if self.recent.len() < bound {
                    return;
                }
                let oldest = self.recent.remove(0);
                match oldest.opened.is_some_and(|it| now < it + SECOND) {
                    _ if oldest.forced => self.by_hand.push(oldest),
                    true => {
                        costly = costly.or(Some(oldest.host));
                        self.recent.push(oldest);
                    }
                    false => return,
                }
            }
            if self.recent.len() >= bound {
                self.recent.retain(|it| Some(it.host) != costly);
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_the_least_recently_used_of_the_free_ones_goes(
            bound in 1_usize..12,
            acts in proptest::collection::vec(act(), 1..200),
        ) {
            let (map, rules) = (map(bound), rules());
            let (mut model, mut now) = (Model::default(), Instant::now());
            for act in acts {
                match act {
                    Act::Wait => now += SECOND,
                    Act::Use(host) => {
                        map.of_host(&host.to_string(), now);
                        model.touch(host, bound, now);
                    }
                    Act::Open(host) => {
                        open(&map.of_host(&host.to_string(), now), &rules, now);
                        let it = model.touch(host, bound, now);
                        (it.opened, it.forced) = (Some(now), false);
                    }
                    Act::Force(host) => {
                        map.of_host(&host.to_string(), now).breaker(&rules.rules).force_open();
                        model.touch(host, bound, now).forced = true;
                    }
                    Act::Reset(host) => {
                        map.of_host(&host.to_string(), now).breaker(&rules.rules).reset();
                        let it = model.touch(host, bound, now);
                        (it.opened, it.forced) = (None, false);
                    }
                }
                let mut kept: Vec<u8> =
                    map.all().iter().map(|it| it.key().parse().unwrap()).collect();
                let all = || model.recent.iter().chain(&model.by_hand);
                let mut modelled: Vec<u8> = all().map(|it| it.host).collect();
                kept.sort_unstable();
                modelled.sort_unstable();
                prop_assert_eq!(kept, modelled);
                prop_assert!(model.recent.len() <= bound);
            }
        }

        #[test]
        fn permits_survive_eviction(hosts in 1_usize..40) {
            let (map, rules, now) = (map(4), rules(), Instant::now());
            let states: Vec<_> = (0..hosts).map(|it| map.of_host(&it.to_string(), now).into_owned()).collect();
            let handles: Vec<_> = states.iter().map(|it| Arc::clone(it.breaker(&rules.rules))).collect();
            let permits: Vec<_> = handles.iter().map(|it| it.enter(now).0.unwrap()).collect();
            for (permit, handle) in permits.into_iter().zip(&handles) {
                prop_assert_eq!(handle.snapshot(now).permits_out, 1);
                permit.failure(now);
                prop_assert_eq!(handle.snapshot(now).permits_out, 0);
                prop_assert_eq!(handle.state(), BreakerState::Open);
            }
        }

        #[test]
        fn a_url_finds_the_host_of_its_key(
            [url, other] in [(); 2].map(|()| {
                "(http|https|a)://(b@)?(a|b|a[.]b|)(:8|:80|:81)?(/|/a|[?]b|#c|@|:)?|a:(/|b)"
            }),
        ) {
            if let (Ok(url), Ok(other)) = (url.parse::<Url>(), other.parse::<Url>()) {
                let (map, now) = (map(64), Instant::now());
                let (one, two) = (map.find(&url, now).into_owned(), map.find(&other, now));
                prop_assert_eq!(Arc::ptr_eq(&one, &two), host_key(&url) == host_key(&other));
            }
        }
    }
}
