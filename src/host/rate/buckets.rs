//! The buckets of one host, and the routes that are counted in each.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, Mutex},
};

use reqwest::Method;

use crate::common::lock::lock;
use crate::host::rate::Learner;

/// Half of the most routes, and of the most buckets, of one host.
const HALF: usize = 512;

/// The learned quotas of one host by bucket. Keys are hashes with a seed of their own.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routes: Latest<Arc<Learner>>,
    buckets: Latest<Arc<Learner>>,
}

/// A route of one host, whose quotas are those of a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    buckets: Arc<Buckets>,
    key: u64,
}

impl Buckets {
    /// Returns a route.
    pub(crate) fn route(self: &Arc<Self>, (method, path): &(Method, String)) -> Route {
        let key = self.hasher.hash_one((method.as_str(), path));
        Route { buckets: Arc::clone(self), key }
    }
}

impl Route {
    /// Returns the quotas of the route: those of its bucket, once that is known.
    pub(crate) fn learner(&self) -> Arc<Learner> {
        let mut known = lock(&self.buckets.known);
        Arc::clone(known.routes.get_or_insert(self.key, Arc::default))
    }

    /// Records that a request of the route, which kept to the quotas of `learner`, was counted in the
    /// bucket of this name. Returns the quotas of the bucket.
    pub(crate) fn is_in(&self, name: &[u8], learner: &Arc<Learner>) -> Arc<Learner> {
        let bucket = self.buckets.hasher.hash_one(name).max(1);
        if learner.bucket() == Some(bucket) {
            return Arc::clone(learner);
        }
        let is_new = learner.bucket().is_none();
        let right = {
            let mut known = lock(&self.buckets.known);
            let first = || if is_new { Arc::clone(learner) } else { Arc::default() };
            let right = Arc::clone(known.buckets.get_or_insert(bucket, first));
            right.set_bucket(bucket);
            known.routes.insert(self.key, Arc::clone(&right));
            right
        };
        if is_new && !Arc::ptr_eq(&right, learner) {
            learner.move_to(&right);
        }
        right
    }
}

/// The latest entries: of 512 at least, and twice as many at most.
///
/// Two halves: what is used moves to the young one, and once that is full, the old one goes.
#[derive(Debug)]
struct Latest<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
}

impl<V> Default for Latest<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Latest<V> {
    fn get_or_insert(&mut self, key: u64, new: impl FnOnce() -> V) -> &V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(new);
            self.insert(key, value);
        }
        // It is there: this inserts nothing.
        let Self { young, .. } = self;
        &young[&key]
    }

    fn insert(&mut self, key: u64, value: V) {
        if self.young.len() >= HALF {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(buckets: &Arc<Buckets>, path: &str) -> Route {
        buckets.route(&(Method::GET, path.to_owned()))
    }

    #[test]
    fn routes_of_one_bucket_share_its_quotas() {
        let buckets = Arc::new(Buckets::default());
        let (a, b, c) = (route(&buckets, "/a"), route(&buckets, "/b"), route(&buckets, "/c"));
        let [of_a, of_b, of_c] = [&a, &b, &c].map(Route::learner);
        assert!(!Arc::ptr_eq(&of_a, &of_b), "nothing is known");
        assert!(Arc::ptr_eq(&a.is_in(b"x", &of_a), &of_a));
        assert!(Arc::ptr_eq(&b.is_in(b"x", &of_b), &of_a));
        assert!(Arc::ptr_eq(&of_b.moved().unwrap(), &of_a), "those that wait there follow");
        assert!(Arc::ptr_eq(&c.is_in(b"y", &of_c), &of_c));
        for (route, learner) in [(&a, &of_a), (&b, &of_a), (&c, &of_c)] {
            assert!(Arc::ptr_eq(&route.learner(), learner));
        }
        // A route that moves takes no other with it.
        assert!(Arc::ptr_eq(&b.is_in(b"y", &of_a), &of_c));
        assert!(of_a.moved().is_none() && Arc::ptr_eq(&a.learner(), &of_a));
    }

    #[test]
    fn a_method_is_a_part_of_the_route() {
        let buckets = Arc::new(Buckets::default());
        let post = buckets.route(&(Method::POST, "/a".to_owned()));
        assert!(!Arc::ptr_eq(&post.learner(), &route(&buckets, "/a").learner()));
    }

    #[test]
    fn the_latest_are_known_and_no_more_than_1_024() {
        let buckets = Arc::new(Buckets::default());
        let used = route(&buckets, "/used");
        let learner = used.learner();
        for it in 0..10_000 {
            let other = route(&buckets, &format!("/{it}"));
            other.is_in(format!("{it}").as_bytes(), &other.learner());
            assert!(Arc::ptr_eq(&used.learner(), &learner), "{it}");
        }
        let known = lock(&buckets.known);
        for latest in [&known.routes, &known.buckets] {
            assert!(latest.young.len() + latest.old.len() <= 2 * HALF);
        }
    }
}
