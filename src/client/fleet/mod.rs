//! `Fleet`, the handle of a fleet's store.

pub(crate) mod in_process;
mod task;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Handle;

use crate::common::clock::{Instant, Sources};
use crate::common::fault::{ConfigError, ConfigFault};
use crate::common::opaque::opaque;
use crate::host::fleet::advice::FleetState;
use crate::host::fleet::hub::Hub;
use crate::host::fleet::report::NodeId;
use crate::host::fleet::signals::FleetSettings;
use crate::host::fleet::store::FleetStore;
use crate::host::states::host_of;

/// The bounds of the time between two reports.
const REPORT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// One node of a fleet: what it learns of a host, all nodes heed that use the same store.
///
/// Shares the circuit breaker of hosts, by counts and votes, and their gates, by what servers ask for.
/// A client's own breaker, gate and budget work as ever; the fleet can only reject or delay more, and
/// restarts a breaker once the host is back. Without its store, each node goes on by itself.
///
/// No request waits for the store. A request reads one number of its host; a background task reports
/// what was counted, about once a second, and hears what others found. The task is started by the
/// first request within a tokio runtime, and ends with the last handle: `Fleet`, clients and
/// [`HostStates`](crate::HostStates) that use it. Requests outside of a tokio runtime start none: the
/// fleet then does nothing. If its runtime ends, the next request in another one starts it anew; a
/// blocking client has a runtime of its own.
///
/// Cheap to clone; clones are the same node. See the [guide](crate::guide::fleet).
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Resilient, ResilientConfig};
/// use reqwest_resilient::fleet::{Fleet, InProcessFleet};
///
/// let store = InProcessFleet::new();
/// let fleet = Fleet::new(store);
/// let resilient = Resilient::new(ResilientConfig::default()).with_fleet(&fleet);
/// ```
#[derive(Clone)]
pub struct Fleet {
    hub: Arc<Hub>,
    node: NodeId,
    store: Arc<dyn FleetStore>,
    sources: Sources,
    is_running: Arc<AtomicBool>,
}

impl Fleet {
    /// Creates a node of the fleet whose nodes meet in `store`: it shares breakers and gates, and
    /// reports every second.
    pub fn new(store: impl FleetStore) -> Self {
        Self::builder(store).built()
    }

    /// Returns a builder of a node with other settings.
    pub fn builder(store: impl FleetStore) -> FleetBuilder {
        let settings = FleetSettings {
            report_every: Duration::from_secs(1),
            timeout: Duration::from_millis(200),
            shares_breaker: true,
            shares_gate: true,
        };
        FleetBuilder { store: Arc::new(store), settings, sources: Sources::default() }
    }

    /// Returns the id of this node: random, another one with each `Fleet` that is built.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the state of the fleet's breaker of a host, as this node sees it.
    ///
    /// A host is named by any of its URLs, such as `https://api.example.com`: scheme, host and port
    /// count.
    pub fn state_of(&self, host: &str) -> FleetState {
        let key = host_of(host);
        self.hub.state_of(key.as_deref().unwrap_or(host), Instant::now())
    }

    /// Returns the figures of this node.
    pub fn stats(&self) -> FleetStats {
        let count = |it: &std::sync::atomic::AtomicU64| it.load(Ordering::Relaxed);
        let age = |it: Instant| Instant::now().saturating_duration_since(it);
        FleetStats {
            exchanges: count(&self.hub.exchanges),
            failures: count(&self.hub.failures),
            last_contact: self.hub.last_contact().map(age),
            nodes: self.hub.signals().nodes(),
            is_running: self.is_running.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Starts the task, unless it runs, or there is no runtime.
    #[inline]
    pub(crate) fn ensure_running(&self) {
        if !self.is_running.load(Ordering::Relaxed) {
            self.start();
        }
    }

    #[cold]
    fn start(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_running.swap(true, Ordering::AcqRel) {
            let (store, running) = (Arc::clone(&self.store), Arc::clone(&self.is_running));
            let sources = self.sources.clone();
            drop(runtime.spawn(task::run(&self.hub, self.node, store, sources, running)));
        }
    }
}

opaque!(Fleet { node });

/// Builds a [`Fleet`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::fleet::{Fleet, InProcessFleet};
///
/// let fleet = Fleet::builder(InProcessFleet::new())
///     .report_every(Duration::from_secs(2))
///     .without_gate()
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct FleetBuilder {
    store: Arc<dyn FleetStore>,
    settings: FleetSettings,
    sources: Sources,
}

impl FleetBuilder {
    /// Sets the time between two reports, 1 s by default; from 100 ms to 60 s. Failures after a quiet
    /// time, probes and rate limits are reported at once.
    pub fn report_every(mut self, time: Duration) -> Self {
        self.settings.report_every = time;
        self
    }

    /// Sets the time after which an exchange with the store is given up, 200 ms by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Does not share circuit breakers.
    pub fn without_breaker(mut self) -> Self {
        self.settings.shares_breaker = false;
        self
    }

    /// Does not share gates.
    pub fn without_gate(mut self) -> Self {
        self.settings.shares_gate = false;
        self
    }

    /// Sets the source of randomness, by which the node spreads its reports and its returns: samples of
    /// the unit interval. For tests and simulations.
    #[cfg(feature = "test-util")]
    pub fn random(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.sources.random = Some(Arc::new(random));
        self
    }

    /// Builds the node. It calls the store with the first request of a client that uses it.
    ///
    /// # Errors
    ///
    /// A time is out of its bounds: [`report_every`](Self::report_every) or a
    /// [`timeout`](Self::timeout) of zero.
    pub fn build(self) -> Result<Fleet, ConfigError> {
        let FleetSettings { report_every, timeout, .. } = self.settings;
        let is_valid = (REPORT_EVERY.0..=REPORT_EVERY.1).contains(&report_every);
        let rule = "must be from 100 ms to 60 s";
        let report_every =
            (!is_valid).then(|| ConfigFault::new("fleet.report_every", rule, report_every));
        let timeout = timeout.is_zero();
        let timeout =
            timeout.then(|| ConfigFault::new("fleet.timeout", "must be > 0", Duration::ZERO));
        ConfigError::unless_none(report_every.into_iter().chain(timeout).collect())?;
        Ok(self.built())
    }

    fn built(self) -> Fleet {
        Fleet {
            hub: Arc::new(Hub::new(self.settings)),
            node: NodeId::new(rand::random()),
            store: self.store,
            sources: self.sources,
            is_running: Arc::default(),
        }
    }
}

opaque!(FleetBuilder { settings });

/// The figures of one node of a fleet.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::fleet::{Fleet, InProcessFleet};
///
/// let stats = Fleet::new(InProcessFleet::new()).stats();
/// assert_eq!((stats.exchanges, stats.failures, stats.last_contact), (0, 0, None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStats {
    /// Exchanges with the store.
    pub exchanges: u64,
    /// Those of them that failed or took too long.
    pub failures: u64,
    /// The time since the last one that succeeded; `None` if none did. Grows while there is nothing to
    /// report.
    pub last_contact: Option<Duration>,
    /// The nodes that reported a host within 10 s, as of the last exchange; at least 1.
    pub nodes: u32,
    /// `true` while the background task runs.
    pub is_running: bool,
}
