//! The observers of state changes, notified while no lock is held.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use crate::breaker::status::StateChange;
use crate::common::opaque::opaque;

/// The observers of a breaker's state changes, or of all breakers of one map.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Vec<Observer>>);

type Observer = Arc<dyn Fn(&StateChange) + Send + Sync>;

impl Observers {
    pub(crate) fn add(&self, observer: Observer) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    pub(super) fn notify(&self, change: &StateChange) {
        // A copy, so that no lock is held while observers run.
        let observers = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers {
            // The notifying request must go on although an observer panics.
            drop(catch_unwind(AssertUnwindSafe(|| observer(change))));
        }
    }
}

opaque!(Observers {});
