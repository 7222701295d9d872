//! The rules that hosts follow: what shares one state under them, and the numbers that tell rules
//! apart.

use std::fmt;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use reqwest::Request;

/// A function of the caller's that finds the key of a request, such as its route or its tenant.
pub(crate) type KeyOf = Arc<dyn Fn(&Request) -> String + Send + Sync>;

/// The requests that share one breaker, budget or limit.
#[derive(Clone)]
pub(crate) enum Scope {
    /// Those to one host.
    Host,
    /// Those with one key.
    Key(KeyOf),
    /// All of a client.
    Shared,
}

impl Scope {
    /// Returns whether one state serves all requests of a client.
    #[cfg(feature = "serde")]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host",
            Self::Key(_) => "Key",
            Self::Shared => "Shared",
        })
    }
}

/// Returns a number above zero that no other rules have: state notices new rules by one comparison.
pub(crate) fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
