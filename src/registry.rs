//! What is kept per host or per key, bounded: a service that is asked for ever new names must not
//! make its client grow without end.

use std::{
    borrow::Cow,
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a [`Registry`] keeps under each key.
pub(crate) trait Entry {
    /// Whether forgetting this entry would lose a decision, so that others should go first.
    fn pinned(&self) -> bool;
}

/// A bounded map from key to shared state.
///
/// When it is full, the entry that was looked up least recently goes, and a pinned one only if
/// all are pinned. Whoever still holds the `Arc` of a dropped entry keeps using it; the next
/// look-up of its key starts afresh.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    table: RwLock<Table<T>>,
    /// Counts look-ups; what an entry remembers of it orders entries by last use.
    clock: AtomicU64,
}

#[derive(Debug)]
struct Table<T> {
    slots: HashMap<Box<str>, Slot<T>>,
    capacity: NonZeroUsize,
}

#[derive(Debug)]
struct Slot<T> {
    entry: Arc<T>,
    last_used: AtomicU64,
}

impl<T> Registry<T> {
    /// How many keys are kept unless told otherwise.
    pub(crate) const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        let table = Table { slots: HashMap::new(), capacity };
        Self { table: RwLock::new(table), clock: AtomicU64::new(0) }
    }

    /// All keys with their entries, in no particular order. Does not count as use.
    pub(crate) fn snapshot(&self) -> Vec<(Box<str>, Arc<T>)> {
        let table = self.read();
        table.slots.iter().map(|(key, slot)| (key.clone(), Arc::clone(&slot.entry))).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<T>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<T>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

impl<T: Entry> Registry<T> {
    /// The entry of `key`, made by `create` if there is none.
    ///
    /// Finding one allocates nothing and shares the lock with other readers. `create` runs under
    /// the lock, so that a key never has two entries.
    pub(crate) fn get_or_insert_with(&self, key: &str, create: impl FnOnce() -> T) -> Arc<T> {
        if let Some(slot) = self.read().slots.get(key) {
            slot.last_used.store(self.tick(), Ordering::Relaxed);
            return Arc::clone(&slot.entry);
        }
        let mut table = self.write();
        // Another thread may have been quicker between the two locks.
        if let Some(slot) = table.slots.get(key) {
            slot.last_used.store(self.tick(), Ordering::Relaxed);
            return Arc::clone(&slot.entry);
        }
        let room = table.capacity.get() - 1;
        table.shrink_to(room);
        let entry = Arc::new(create());
        let last_used = AtomicU64::new(self.tick());
        table.slots.insert(key.into(), Slot { entry: Arc::clone(&entry), last_used });
        entry
    }

    /// Changes how many keys are kept, dropping what is too many at once.
    pub(crate) fn set_capacity(&self, capacity: NonZeroUsize) {
        let mut table = self.write();
        table.capacity = capacity;
        table.shrink_to(capacity.get());
    }
}

impl<T: Entry> Table<T> {
    /// A scan of the whole table per dropped entry: it only runs for a key not seen before in a
    /// full table, and costs microseconds beside the connection such a key needs.
    fn shrink_to(&mut self, len: usize) {
        while self.slots.len() > len {
            let first_to_go = self
                .slots
                .iter()
                .min_by_key(|(_, slot)| {
                    (slot.entry.pinned(), slot.last_used.load(Ordering::Relaxed))
                })
                .map(|(key, _)| key.clone());
            let Some(key) = first_to_go else { return };
            self.slots.remove(&key);
        }
    }
}

/// Scheme, host and port of `url`, never its userinfo; the scheme's own port is left out.
pub(crate) fn host_key(url: &reqwest::Url) -> Cow<'_, str> {
    let text = url.as_str();
    let Some(authority) = text.find("://").map(|colon| colon + "://".len()) else {
        return Cow::Borrowed(url.scheme());
    };
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |len| authority + len);
    // The parser escapes an `@` inside the userinfo, so the first one ends it.
    match text[authority..end].find('@') {
        None => Cow::Borrowed(&text[..end]),
        Some(at) => {
            Cow::Owned([&text[..authority], &text[authority + at + '@'.len_utf8()..end]].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Thing {
        pinned: bool,
    }

    impl Entry for Thing {
        fn pinned(&self) -> bool {
            self.pinned
        }
    }

    fn registry(capacity: usize) -> Registry<Thing> {
        Registry::new(NonZeroUsize::new(capacity).unwrap())
    }

    fn get(registry: &Registry<Thing>, key: &str) -> Arc<Thing> {
        registry.get_or_insert_with(key, || Thing { pinned: key.starts_with("pinned") })
    }

    fn keys(registry: &Registry<Thing>) -> Vec<String> {
        let mut keys: Vec<_> =
            registry.snapshot().into_iter().map(|(key, _)| key.into_string()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn breaker_registry_finds_what_it_made() {
        let registry = registry(2);
        assert!(Arc::ptr_eq(&get(&registry, "a"), &get(&registry, "a")));
        assert!(!Arc::ptr_eq(&get(&registry, "a"), &get(&registry, "b")));
    }

    #[test]
    fn breaker_registry_drops_the_least_recently_used() {
        let registry = registry(2);
        for key in ["a", "b", "a", "c"] {
            get(&registry, key);
        }
        assert_eq!(keys(&registry), ["a", "c"]);
    }

    #[test]
    fn breaker_registry_drops_pinned_entries_last() {
        let registry = registry(2);
        for key in ["pinned1", "a", "b"] {
            get(&registry, key);
        }
        assert_eq!(keys(&registry), ["b", "pinned1"]);
        for key in ["pinned2", "pinned3"] {
            get(&registry, key);
        }
        assert_eq!(keys(&registry), ["pinned2", "pinned3"], "all pinned: the oldest goes");
    }

    #[test]
    fn breaker_registry_shrinks_when_told() {
        let registry = registry(3);
        for key in ["a", "b", "c"] {
            get(&registry, key);
        }
        registry.set_capacity(NonZeroUsize::MIN);
        assert_eq!(keys(&registry), ["c"]);
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
            ("data:text/plain,hello", "data", true),
        ] {
            let url = reqwest::Url::parse(url).unwrap();
            let found = host_key(&url);
            assert_eq!(found, key);
            assert_eq!(matches!(found, Cow::Borrowed(_)), borrowed, "{url}");
        }
    }
}
