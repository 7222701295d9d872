//! What is kept per host or per key, bounded: a service that is asked for ever new names must not
//! make its client grow without end.

use std::{
    any::Any,
    borrow::Cow,
    collections::HashMap,
    fmt::{self, Debug, Formatter},
    marker::PhantomData,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use reqwest::{Request, Url};
use url::Position;

/// One kind of state that is kept per key, such as a circuit or a bucket.
pub(crate) trait Part: Send + Sync + 'static {
    /// Whether forgetting it would lose a decision, so that others should go first.
    fn pinned(&self) -> bool;
}

/// A part of any kind, that can be had as its own again.
#[derive(Debug)]
struct AnyPart {
    /// An `Arc` of it.
    part: Box<dyn Any + Send + Sync>,
    pinned: fn(&Self) -> bool,
}

impl AnyPart {
    fn new<P: Part>(part: P) -> Self {
        let pinned = |it: &Self| it.get::<P>().is_some_and(|part| part.pinned());
        Self { part: Box::new(Arc::new(part)), pinned }
    }

    fn get<P: Part>(&self) -> Option<&Arc<P>> {
        self.part.downcast_ref()
    }

    fn pinned(&self) -> bool {
        (self.pinned)(self)
    }
}

/// How many kinds of state one registry has room for: a breaker's, a budget's, and the gates of
/// two clients that share them.
const PLACES: usize = 4;

/// Everything that is kept under one key. Aligned so that who reads it need not wait for those who
/// count themselves in and out beside it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Entry {
    registry: u64,
    /// Whether it is never forgotten.
    stays: bool,
    parts: [OnceLock<AnyPart>; PLACES],
}

impl Entry {
    fn pinned(&self) -> bool {
        self.parts.iter().filter_map(OnceLock::get).any(AnyPart::pinned)
    }
}

/// A bounded map from key to shared state.
///
/// When it is full, the entry that was looked up least recently goes, of those that do not stay, and
/// a pinned one only if all of them are. Whoever still holds a part of a dropped entry keeps using it; the next look-up
/// of its key starts afresh. The first few stay for ever, unless there is room for few: most
/// clients talk to a few hosts, and what stays need be neither locked nor counted.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Tells entries of different registries apart.
    id: u64,
    staying: Staying,
    table: RwLock<Table>,
    /// Counts look-ups of another entry than before; what an entry remembers of it orders entries
    /// by last use.
    clock: Clock,
    claimed: AtomicUsize,
}

/// How many entries stay.
pub(crate) const STAYING: usize = 8;

/// The entries that stay, which are in the table as well. Aligned for the same reason: it lies
/// beside the lock.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Staying([OnceLock<(Box<str>, Arc<Entry>)>; STAYING]);

impl Staying {
    fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        let mut all = self.0.iter().map_while(OnceLock::get);
        all.find(|(it, _)| **it == *key).map(|(_, entry)| entry)
    }
}

/// Aligned for the same reason, too.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Clock(AtomicU64);

#[derive(Debug)]
struct Table {
    slots: HashMap<Box<str>, Slot, RandomState>,
    capacity: NonZeroUsize,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    last_used: AtomicU64,
}

impl Registry {
    /// How many keys are kept unless told otherwise.
    const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (slots, capacity) = (HashMap::default(), Self::DEFAULT_CAPACITY);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            staying: Staying::default(),
            table: RwLock::new(Table { slots, capacity }),
            clock: Clock::default(),
            claimed: AtomicUsize::new(0),
        }
    }

    /// A place in every entry, for one kind of state of one owner; `None` if all are taken.
    fn claim(&self) -> Option<usize> {
        let next = |it: usize| (it < PLACES).then_some(it + 1);
        self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }

    /// All entries, in no particular order. Does not count as use.
    fn entries(&self) -> Vec<(Box<str>, Arc<Entry>)> {
        let table = self.read();
        table.slots.iter().map(|(key, slot)| (key.clone(), Arc::clone(&slot.entry))).collect()
    }

    /// The entry of `key`, a new one if there is none.
    ///
    /// Finding one allocates nothing and shares the lock with other readers, if it needs it.
    fn entry(&self, key: &str) -> Cow<'_, Arc<Entry>> {
        match self.staying.get(key) {
            Some(entry) => Cow::Borrowed(entry),
            None => Cow::Owned(self.look_up(key)),
        }
    }

    fn look_up(&self, key: &str) -> Arc<Entry> {
        if let Some(slot) = self.read().slots.get(key) {
            self.touch(slot);
            return Arc::clone(&slot.entry);
        }
        let mut table = self.write();
        // Another thread may have been quicker between the two locks.
        if let Some(slot) = table.slots.get(key) {
            self.touch(slot);
            return Arc::clone(&slot.entry);
        }
        let capacity = table.capacity.get();
        table.shrink_to(capacity - 1);
        let free = self.staying.0.iter().find(|it| it.get().is_none());
        let room = free.filter(|_| capacity >= 4 * STAYING);
        let (stays, parts) = (room.is_some(), Default::default());
        let entry = Arc::new(Entry { registry: self.id, stays, parts });
        if let Some(room) = room {
            // Only set here, under the lock.
            room.get_or_init(|| (key.into(), Arc::clone(&entry)));
        }
        let last_used = AtomicU64::new(self.tick());
        table.slots.insert(key.into(), Slot { entry: Arc::clone(&entry), last_used });
        entry
    }

    /// Changes how many keys are kept, dropping what is too many at once.
    fn set_capacity(&self, capacity: NonZeroUsize) {
        let mut table = self.write();
        table.capacity = capacity;
        table.shrink_to(capacity.get());
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes nothing for the entry that was used last: threads that share it stay out of each
    /// other's way.
    fn touch(&self, slot: &Slot) {
        if slot.last_used.load(Ordering::Relaxed) != self.clock.0.load(Ordering::Relaxed) {
            slot.last_used.store(self.tick(), Ordering::Relaxed);
        }
    }

    /// A number above all before it.
    fn tick(&self) -> u64 {
        self.clock.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Table {
    /// A scan of the whole table per dropped entry: it only runs for a key not seen before in a
    /// full table, and costs microseconds beside the connection such a key needs.
    fn shrink_to(&mut self, len: usize) {
        while self.slots.len() > len {
            let first_to_go = self
                .slots
                .iter()
                .filter(|(_, slot)| !slot.entry.stays)
                .min_by_key(|(_, slot)| {
                    (slot.entry.pinned(), slot.last_used.load(Ordering::Relaxed))
                })
                .map(|(key, _)| key.clone());
            let Some(key) = first_to_go else { return };
            self.slots.remove(&key);
        }
    }
}

/// By what a kind of state is kept.
pub(crate) enum KeyOf {
    /// Scheme, host and port.
    Host,
    Request(Box<dyn Fn(&Request) -> String + Send + Sync>),
}

impl Debug for KeyOf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host",
            Self::Request(_) => "Request",
        })
    }
}

/// One kind of state, kept per key in a registry: one of its own, or that of another kind with
/// the same keys, so that one look-up finds both.
#[derive(Debug)]
pub(crate) struct Keyed<P> {
    key_of: KeyOf,
    room: OnceLock<Room>,
    part: PhantomData<fn() -> P>,
}

#[derive(Clone, Debug)]
struct Room {
    registry: Arc<Registry>,
    place: usize,
}

impl<P: Part> Keyed<P> {
    pub(crate) fn new(key_of: KeyOf) -> Self {
        Self { key_of, room: OnceLock::new(), part: PhantomData }
    }

    /// Moves in with `other`, if both are kept per host and this one has not settled yet.
    pub(crate) fn join<Q: Part>(&self, other: &Keyed<Q>) {
        if let (KeyOf::Host, KeyOf::Host) = (&self.key_of, &other.key_of) {
            let registry = Arc::clone(&other.room().registry);
            self.room.get_or_init(|| match registry.claim() {
                Some(place) => Room { registry, place },
                None => Room::own(),
            });
        }
    }

    /// All that is kept under the key of `request`, if that is its host.
    pub(crate) fn entry(&self, request: &Request) -> Option<Cow<'_, Arc<Entry>>> {
        self.is_per_host().then(|| self.room().registry.entry(&host_key(request.url())))
    }

    /// The state for `request`, looked up by its key unless it is in the entry that was found; and
    /// whether it stays with the host for ever.
    pub(crate) fn of_request(
        &self,
        request: &Request,
        found: Option<&Arc<Entry>>,
        create: impl Fn(&str) -> P,
    ) -> (Arc<P>, bool) {
        let room = self.room();
        let found = found.filter(|it| it.registry == room.registry.id);
        let key = self.key(request);
        let entry = found.map_or_else(|| room.registry.entry(&key), Cow::Borrowed);
        (room.part(&entry, || create(&key)), entry.stays && self.is_per_host())
    }

    /// By what the state for `request` is kept.
    pub(crate) fn key<'r>(&self, request: &'r Request) -> Cow<'r, str> {
        match &self.key_of {
            KeyOf::Host => host_key(request.url()),
            KeyOf::Request(key_of) => Cow::Owned(key_of(request)),
        }
    }

    /// The state of `key`.
    pub(crate) fn of_key(&self, key: &str, create: impl Fn(&str) -> P) -> Arc<P> {
        let room = self.room();
        room.part(&room.registry.entry(key), || create(key))
    }

    /// All there is, in no particular order.
    pub(crate) fn all(&self) -> Vec<(Box<str>, Arc<P>)> {
        let Room { registry, place } = self.room();
        let part = |entry: &Entry| entry.parts.get(*place)?.get()?.get().cloned();
        let entries = registry.entries().into_iter();
        entries.filter_map(|(key, entry)| Some((key, part(&entry)?))).collect()
    }

    pub(crate) fn is_per_host(&self) -> bool {
        matches!(self.key_of, KeyOf::Host)
    }

    pub(crate) fn capacity(&self) -> NonZeroUsize {
        self.room().registry.read().capacity
    }

    pub(crate) fn set_capacity(&self, capacity: NonZeroUsize) {
        self.room().registry.set_capacity(capacity);
    }

    fn room(&self) -> &Room {
        self.room.get_or_init(Room::own)
    }
}

impl Room {
    fn own() -> Self {
        let registry = Arc::new(Registry::new());
        let place = registry.claim().unwrap_or_default();
        Self { registry, place }
    }

    /// The part in this room's place in `entry`, a new one if there is none yet.
    fn part<P: Part>(&self, entry: &Entry, create: impl Fn() -> P) -> Arc<P> {
        let place = entry.parts.get(self.place);
        let part = place.and_then(|it| it.get_or_init(|| AnyPart::new(create())).get());
        // A place is claimed once, so its parts are all of one kind.
        part.map_or_else(|| Arc::new(create()), Arc::clone)
    }
}

/// Scheme, host and port of `url`, never its userinfo; the scheme's own port is left out.
pub(crate) fn host_key(url: &Url) -> Cow<'_, str> {
    if url.username().is_empty() && url.password().is_none() {
        return Cow::Borrowed(&url[..Position::AfterPort]);
    }
    Cow::Owned(
        [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPort]]
            .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Thing {
        pinned: bool,
    }

    impl Part for Thing {
        fn pinned(&self) -> bool {
            self.pinned
        }
    }

    fn things(capacity: usize) -> Keyed<Thing> {
        let things = Keyed::new(KeyOf::Host);
        things.set_capacity(NonZeroUsize::new(capacity).unwrap());
        things
    }

    fn get(things: &Keyed<Thing>, key: &str) -> Arc<Thing> {
        things.of_key(key, |key| Thing { pinned: key.starts_with("pinned") })
    }

    fn keys(things: &Keyed<Thing>) -> Vec<String> {
        let mut keys: Vec<_> = things.all().into_iter().map(|(key, _)| key.into_string()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn breaker_registry_finds_what_it_made() {
        let things = things(2);
        assert!(Arc::ptr_eq(&get(&things, "a"), &get(&things, "a")));
        assert!(!Arc::ptr_eq(&get(&things, "a"), &get(&things, "b")));
    }

    #[test]
    fn one_look_up_finds_what_moved_in_together() {
        let url = "http://example.com/a".parse().unwrap();
        let request = Request::new(reqwest::Method::GET, url);
        let (first, second, third) = (things(9), Keyed::new(KeyOf::Host), things(9));
        second.join(&first);
        third.join(&first);
        let all = [&first, &second, &third];
        let create = |_: &str| Thing { pinned: false };
        let found = first.entry(&request);
        assert!(found.is_some());
        let parts = all.map(|it| it.of_request(&request, found.as_deref(), create).0);
        for (part, keyed) in parts.iter().zip(all) {
            assert!(Arc::ptr_eq(part, &get(keyed, "http://example.com")));
        }
        assert!(!Arc::ptr_eq(&parts[0], &parts[1]));
    }

    #[test]
    fn what_is_kept_by_a_key_is_found_apart() {
        let request = Request::new(reqwest::Method::GET, "http://a.example".parse().unwrap());
        let key_of = |request: &Request| request.method().to_string();
        let things = Keyed::new(KeyOf::Request(Box::new(key_of)));
        assert!(things.entry(&request).is_none());
        let others = self::things(9);
        let found = others.entry(&request);
        let create = |_: &str| Thing { pinned: false };
        let (part, stays) = things.of_request(&request, found.as_deref(), create);
        assert!(Arc::ptr_eq(&part, &get(&things, "GET")) && !stays);
    }

    #[test]
    fn a_registry_without_room_sends_newcomers_away() {
        let first = things(9);
        let all: Vec<_> = (0..PLACES).map(|_| Keyed::<Thing>::new(KeyOf::Host)).collect();
        all.iter().for_each(|it| it.join(&first));
        let shared = |it: &Keyed<Thing>| it.room().registry.id == first.room().registry.id;
        assert_eq!(all.iter().filter(|it| shared(it)).count(), PLACES - 1);
    }

    #[test]
    fn breaker_registry_drops_the_least_recently_used() {
        let things = things(2);
        for key in ["a", "b", "a", "c"] {
            get(&things, key);
        }
        assert_eq!(keys(&things), ["a", "c"]);
    }

    #[test]
    fn breaker_registry_drops_pinned_entries_last() {
        let things = things(2);
        for key in ["pinned1", "a", "b"] {
            get(&things, key);
        }
        assert_eq!(keys(&things), ["b", "pinned1"]);
        for key in ["pinned2", "pinned3"] {
            get(&things, key);
        }
        assert_eq!(keys(&things), ["pinned2", "pinned3"], "all pinned: the oldest goes");
    }

    #[test]
    fn the_first_keys_stay_where_there_is_room_for_many() {
        let after_a_hundred = |capacity: usize| {
            let things = things(capacity);
            (0..100).for_each(|key| drop(get(&things, &key.to_string())));
            let stay = (0..100).take_while(|it| keys(&things).contains(&it.to_string())).count();
            (things, stay)
        };
        let (many, stay) = after_a_hundred(4 * STAYING);
        assert_eq!((keys(&many).len(), stay), (4 * STAYING, STAYING));
        let same = get(&many, "3");
        assert!(many.all().iter().any(|(_, it)| Arc::ptr_eq(it, &same)), "one and the same");
        let uncounted = |key| matches!(many.room().registry.entry(key), Cow::Borrowed(_));
        assert!(uncounted("3") && !uncounted("99"));
        many.set_capacity(NonZeroUsize::MIN);
        get(&many, "100");
        assert_eq!(keys(&many), ["0", "1", "100", "2", "3", "4", "5", "6", "7"]);

        let (few, stay) = after_a_hundred(4 * STAYING - 1);
        assert_eq!((keys(&few).len(), stay), (4 * STAYING - 1, 0));
    }

    #[test]
    fn breaker_registry_shrinks_when_told() {
        let things = things(3);
        for key in ["a", "b", "c"] {
            get(&things, key);
        }
        things.set_capacity(NonZeroUsize::MIN);
        assert_eq!(keys(&things), ["c"]);
    }

    #[test]
    fn breaker_host_key_is_scheme_host_and_port() {
        for (url, key, borrowed) in [
            ("http://example.com", "http://example.com", true),
            ("https://Example.com:443/a?b#c", "https://example.com", true),
            ("https://example.com:8443/@a", "https://example.com:8443", true),
            ("http://[::1]:80/", "http://[::1]", true),
            ("http://user:p%40ss@example.com:81/x", "http://example.com:81", false),
            ("http://user@example.com?q=a@b", "http://example.com", false),
            ("http://us@er:pw@example.com/", "http://example.com", false),
            ("data:text/plain,hello", "data:", true),
        ] {
            let url = Url::parse(url).unwrap();
            let found = host_key(&url);
            assert_eq!(found, key);
            assert_eq!(matches!(found, Cow::Borrowed(_)), borrowed, "{url}");
        }
    }
}
