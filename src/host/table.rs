//! The states of one shard of the host map, in the order of their last use.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::common::clock::Instant;
use crate::host::state::{Eviction, HostState, Key};

/// A table from a key to its state, with a list of the states that can be evicted.
///
/// All operations take constant time. The caller passes the hash of a key, so that it is computed
/// once and outside of the shard's lock.
#[derive(Debug)]
pub(super) struct Table {
    /// The place of each state in `slots`.
    index: HashTable<usize>,
    /// The first one is the head of the list, which is a ring: its `older` is the most recently
    /// used state, its `newer` the least recently used one.
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The number of states in the list: at most the bound.
    listed: usize,
}

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    /// `None` in the head and in free slots.
    state: Option<Arc<HostState>>,
    /// `false` for a state that was set by hand when eviction met it: back in the list when it is
    /// used after a reset.
    is_listed: bool,
    newer: usize,
    older: usize,
}

/// The most states that an eviction looks at.
pub(super) const LOOKED_AT: usize = 8;

const HEAD: usize = 0;

impl Default for Table {
    fn default() -> Self {
        Self { index: HashTable::new(), slots: vec![Slot::default()], free: Vec::new(), listed: 0 }
    }
}

impl Table {
    /// Returns the state with this key, which counts as use.
    #[inline]
    pub(super) fn get(
        &mut self,
        key: Key<'_>,
        hash: u64,
        bound: usize,
        now: Instant,
    ) -> Option<Arc<HostState>> {
        let at = self.position(key, hash)?;
        let state = self.slots[at].state.clone()?;
        if !self.slots[at].is_listed {
            self.list_again(at, &state, bound, now);
        } else if self.slots[HEAD].older != at {
            self.unlink(at);
            self.link(at);
        }
        Some(state)
    }

    /// Returns the state with this key. Does not count as use.
    pub(super) fn peek(&self, key: Key<'_>, hash: u64) -> Option<Arc<HostState>> {
        self.slots[self.position(key, hash)?].state.clone()
    }

    /// Returns all states, in no particular order. Does not count as use.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<HostState>> {
        self.slots.iter().filter_map(|it| it.state.as_ref())
    }

    /// Inserts a state with a new key. Returns the state that was evicted for it, to be dropped
    /// outside of the lock.
    pub(super) fn insert(
        &mut self,
        state: Arc<HostState>,
        hash: u64,
        bound: usize,
        now: Instant,
    ) -> Option<Arc<HostState>> {
        let evicted = self.make_room(bound, now);
        let slot = Slot { hash, state: Some(state), ..Slot::default() };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        let Self { index, slots, .. } = self;
        index.insert_unique(hash, at, |&it| slots[it].hash);
        self.list(at);
        evicted
    }

    /// Evicts a state from a full list: the least recently used one that is free to go, or else the
    /// first examined one that is costly. A state that is passed over counts as used.
    fn make_room(&mut self, bound: usize, now: Instant) -> Option<Arc<HostState>> {
        let mut costly = None;
        for _ in 0..LOOKED_AT.min(self.listed) {
            if self.listed < bound {
                return None;
            }
            let oldest = self.slots[HEAD].newer;
            let eviction = self.slots[oldest].state.as_ref().map(|it| it.eviction(now));
            match eviction {
                Some(Eviction::Costly) => {
                    costly = costly.or(Some(oldest));
                    self.unlink(oldest);
                    self.link(oldest);
                }
                Some(Eviction::Never) => self.unlist(oldest),
                Some(Eviction::Free) | None => return self.remove(oldest),
            }
        }
        (self.listed >= bound).then_some(costly).flatten().and_then(|it| self.remove(it))
    }

    #[cold]
    fn list_again(&mut self, at: usize, state: &HostState, bound: usize, now: Instant) {
        if state.eviction(now) != Eviction::Never {
            drop(self.make_room(bound, now));
            self.list(at);
        }
    }

    #[inline]
    fn position(&self, key: Key<'_>, hash: u64) -> Option<usize> {
        let is_it = |&at: &usize| {
            let slot = &self.slots[at];
            slot.hash == hash && slot.state.as_ref().is_some_and(|it| it.is(key))
        };
        self.index.find(hash, is_it).copied()
    }

    fn remove(&mut self, at: usize) -> Option<Arc<HostState>> {
        self.unlist(at);
        let Slot { hash, state, .. } = std::mem::take(&mut self.slots[at]);
        if let Ok(entry) = self.index.find_entry(hash, |it| *it == at) {
            entry.remove();
        }
        self.free.push(at);
        state
    }

    fn list(&mut self, at: usize) {
        self.link(at);
        self.slots[at].is_listed = true;
        self.listed += 1;
    }

    fn unlist(&mut self, at: usize) {
        self.unlink(at);
        self.slots[at].is_listed = false;
        self.listed -= 1;
    }

    /// Puts a state into the list, as the most recently used one.
    fn link(&mut self, at: usize) {
        let second = self.slots[HEAD].older;
        (self.slots[at].newer, self.slots[at].older) = (HEAD, second);
        self.slots[second].newer = at;
        self.slots[HEAD].older = at;
    }

    fn unlink(&mut self, at: usize) {
        let Slot { newer, older, .. } = self.slots[at];
        self.slots[newer].older = older;
        self.slots[older].newer = newer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_the_same_hash_have_states_of_their_own() {
        let (mut table, family, now) = (Table::default(), Arc::default(), Instant::now());
        let (host, users) = (Key::of_host("a"), Key::of_user("a"));
        for key in [host, users] {
            assert!(table.peek(key, 1).is_none());
            table.insert(Arc::new(HostState::new(key, &family)), 1, 8, now);
        }
        assert!(table.peek(host, 1).is_some_and(|it| it.is(host) && !it.is(users)));
        assert!(table.peek(users, 1).is_some_and(|it| it.is(users)));
        assert!(table.peek(Key::of_host("b"), 1).is_none());
        assert!(table.peek(host, 2).is_none());
    }
}
