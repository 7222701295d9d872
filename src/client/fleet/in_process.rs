//! The store of a fleet within one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::common::clock::{Instant, nanos};
use crate::host::fleet::advice::HostAdvice;
use crate::host::fleet::report::{HostReport, NodeId};
use crate::host::fleet::rule::HostRecord;
use crate::host::fleet::store::{BoxError, BoxFuture, FleetStore};

/// The most hosts that are kept; a report of a further one gets no advice.
const MOST_HOSTS: usize = 4_096;

/// A host that is not reported for so long is forgotten.
const KEPT_MS: u64 = 90_000;

/// The store of a fleet within one process: for several clients that do not share their
/// [hosts](crate::HostStates), and for tests.
///
/// Cheap to clone; clones are the same store. Keeps at most 4,096 hosts, each until it was not reported
/// for 90 s. Its clock is tokio's, which tests can pause.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Resilient, ResilientConfig};
/// use reqwest_resilient::fleet::{Fleet, InProcessFleet};
///
/// let store = InProcessFleet::new();
/// let one = Resilient::new(ResilientConfig::default()).with_fleet(&Fleet::new(store.clone()));
/// let other = Resilient::new(ResilientConfig::default()).with_fleet(&Fleet::new(store));
/// ```
#[derive(Clone)]
pub struct InProcessFleet(Arc<Shared>);

struct Shared {
    start: Instant,
    delay_nanos: AtomicU64,
    hosts: Mutex<HashMap<Arc<str>, (HostRecord, u64)>>,
}

impl Default for InProcessFleet {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessFleet {
    /// Creates an empty store that responds at once.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            start: Instant::now(),
            delay_nanos: AtomicU64::new(0),
            hosts: Mutex::default(),
        }))
    }

    /// Sets the time of an exchange, half of it each way: what a network would take.
    pub fn set_delay(&self, delay: Duration) {
        self.0.delay_nanos.store(nanos(delay), Ordering::Relaxed);
    }

    fn report(&self, node: NodeId, reports: &[HostReport]) -> Vec<HostAdvice> {
        let since_start = Instant::now().saturating_duration_since(self.0.start);
        // Away from zero, so that nothing seems to be of the first second.
        let now = 1_000_000 + u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX / 2);
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(reports.len());
        for report in reports {
            if !hosts.contains_key(&report.host) && hosts.len() >= MOST_HOSTS {
                hosts.retain(|_, (_, used)| *used + KEPT_MS > now);
                if hosts.len() >= MOST_HOSTS {
                    continue;
                }
            }
            let new = || (HostRecord::new(rand::random::<u64>().max(1)), now);
            let (host, used) = hosts.entry(Arc::clone(&report.host)).or_insert_with(new);
            if *used + KEPT_MS <= now {
                (*host, *used) = new();
            }
            *used = now;
            all.push(host.report(node, report, now));
        }
        all
    }
}

impl FleetStore for InProcessFleet {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        Box::pin(async move {
            let delay = Duration::from_nanos(self.0.delay_nanos.load(Ordering::Relaxed));
            if delay.is_zero() {
                return Ok(self.report(node, reports));
            }
            sleep(delay / 2).await;
            let advice = self.report(node, reports);
            sleep(delay / 2).await;
            Ok(advice)
        })
    }
}

impl fmt::Debug for InProcessFleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessFleet").finish_non_exhaustive()
    }
}
