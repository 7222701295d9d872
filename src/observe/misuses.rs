//! The mistakes that a client has reported, so that it reports none twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::observe::event::Event;
use crate::observe::listeners::Listeners;
use crate::observe::misuse::Misuse;

/// The mistakes that a client has reported. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Misuses(Arc<[AtomicBool; 2]>);

impl Misuses {
    fn of(&self, misuse: Misuse) -> &AtomicBool {
        match misuse {
            Misuse::NoAttemptTimeout => &self.0[0],
            Misuse::Stacked => &self.0[1],
        }
    }

    /// Returns whether a mistake has been reported.
    #[inline]
    pub(crate) fn is_reported(&self, misuse: Misuse) -> bool {
        self.of(misuse).load(Ordering::Relaxed)
    }

    /// Reports a mistake, unless that has been done.
    #[cold]
    pub(crate) fn report(&self, misuse: Misuse, listeners: &Listeners) {
        if self.of(misuse).swap(true, Ordering::Relaxed) {
            return;
        }
        #[cfg(feature = "tracing")]
        tracing::warn!(target: "reqwest_resilient", "{misuse}");
        listeners.notify(&Event::Misuse(misuse));
    }
}
