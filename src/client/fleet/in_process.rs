//! The store of a fleet within one process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, sleep_until},
};

use crate::common::clock::{Instant, nanos};
use crate::common::lock::lock;
use crate::common::opaque::opaque;
use crate::host::fleet::advice::{FleetNews, HostAdvice};
use crate::host::fleet::report::{HostReport, NodeId};
use crate::host::fleet::rule::HostRecord;
use crate::host::fleet::store::{BoxError, BoxFuture, FleetStore};

/// The most hosts that are kept; a report of a further one gets no advice.
const MOST_HOSTS: usize = 4_096;

/// A host that is not reported for so long is forgotten.
const KEPT_MS: u64 = 90_000;

/// The most messages that are kept for nodes that have not read them; older ones are lost, and the next
/// exchange makes them good.
const MOST_NEWS: usize = 1_024;

/// The store of a fleet within one process: for several clients that do not share their
/// [hosts](crate::HostStates), and for tests.
///
/// Cheap to clone; clones are the same store, each with its place in the messages: give every node a
/// clone of its own. Keeps at most 4,096 hosts, each until it was not reported for 90 s, and the latest
/// 1,024 messages. Its clock is tokio's, which tests can pause.
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
pub struct InProcessFleet {
    shared: Arc<Shared>,
    /// The number of the next message to read.
    next: AtomicU64,
}

struct Shared {
    start: Instant,
    delay_nanos: AtomicU64,
    hosts: Mutex<HashMap<Arc<str>, (HostRecord, u64)>>,
    news: Mutex<News>,
    has_news: Notify,
}

/// The latest messages, numbered, and when each arrives.
#[derive(Default)]
struct News {
    sent: u64,
    latest: VecDeque<(Instant, FleetNews)>,
}

impl News {
    fn push(&mut self, arrives: Instant, news: FleetNews) {
        if self.latest.len() == MOST_NEWS {
            self.latest.pop_front();
        }
        self.latest.push_back((arrives, news));
        self.sent += 1;
    }

    /// Returns the first message from number `from` on that is still kept, and its number.
    fn get(&self, from: u64) -> Option<(u64, Instant, FleetNews)> {
        let number = from.max(self.sent - self.latest.len() as u64);
        let at = usize::try_from(self.latest.len() as u64 - self.sent.checked_sub(number)?).ok()?;
        let (arrives, news) = self.latest.get(at)?;
        Some((number, *arrives, news.clone()))
    }
}

impl Default for InProcessFleet {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for InProcessFleet {
    fn clone(&self) -> Self {
        let next = AtomicU64::new(lock(&self.shared.news).sent);
        Self { shared: Arc::clone(&self.shared), next }
    }
}

impl InProcessFleet {
    /// Creates an empty store that responds at once.
    pub fn new() -> Self {
        let shared = Shared {
            start: Instant::now(),
            delay_nanos: AtomicU64::new(0),
            hosts: Mutex::default(),
            news: Mutex::default(),
            has_news: Notify::new(),
        };
        Self { shared: Arc::new(shared), next: AtomicU64::new(0) }
    }

    /// Sets the time of an exchange, half of it each way: what a network would take. A message takes
    /// half of it.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_nanos.store(nanos(delay), Ordering::Relaxed);
    }

    fn delay(&self) -> Duration {
        Duration::from_nanos(self.shared.delay_nanos.load(Ordering::Relaxed))
    }

    fn report(&self, node: NodeId, reports: &[HostReport]) -> Vec<HostAdvice> {
        let since_start = Instant::now().saturating_duration_since(self.shared.start);
        // Away from zero, so that nothing seems to be of the first second.
        let now = 1_000_000 + u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX / 2);
        let mut hosts = lock(&self.shared.hosts);
        let mut all = Vec::with_capacity(reports.len());
        let mut news = vec![];
        for report in reports {
            if !hosts.contains_key(&report.host) && hosts.len() >= MOST_HOSTS {
                hosts.retain(|_, (_, used)| *used + KEPT_MS > now);
                if hosts.len() >= MOST_HOSTS {
                    continue;
                }
            }
            let new = || (HostRecord::new(rand::random::<u64>().max(1)), now);
            let (record, used) = hosts.entry(Arc::clone(&report.host)).or_insert_with(new);
            if *used + KEPT_MS <= now {
                (*record, *used) = new();
            }
            *used = now;
            let host = || Arc::clone(&report.host);
            let added = report.gates.iter().filter(|it| record.is_gate_news(it, now));
            news.extend(added.map(|&gate| FleetNews::GateClosed { host: host(), gate }));
            let before = record.breaker(now).epoch;
            let advice = record.report(node, report, now);
            if advice.breaker.epoch != before {
                news.push(FleetNews::Breaker { host: host(), breaker: advice.breaker });
            }
            all.push(advice);
        }
        drop(hosts);
        self.publish(news);
        all
    }

    fn publish(&self, all: Vec<FleetNews>) {
        if all.is_empty() {
            return;
        }
        let arrives = Instant::now() + self.delay() / 2;
        let mut news = lock(&self.shared.news);
        all.into_iter().for_each(|it| news.push(arrives, it));
        drop(news);
        self.shared.has_news.notify_waiters();
    }
}

impl FleetStore for InProcessFleet {
    fn exchange<'a>(
        &'a self,
        node: NodeId,
        reports: &'a [HostReport],
    ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
        Box::pin(async move {
            let delay = self.delay();
            if delay.is_zero() {
                return Ok(self.report(node, reports));
            }
            sleep(delay / 2).await;
            let advice = self.report(node, reports);
            sleep(delay / 2).await;
            Ok(advice)
        })
    }

    fn next_news(&self) -> BoxFuture<'_, FleetNews> {
        Box::pin(async move {
            loop {
                // Made before the look, so that no message comes unnoticed between the two.
                let has_news = self.shared.has_news.notified();
                let unread = lock(&self.shared.news).get(self.next.load(Ordering::Relaxed));
                let Some((number, arrives, news)) = unread else {
                    has_news.await;
                    continue;
                };
                sleep_until(arrives).await;
                self.next.store(number + 1, Ordering::Relaxed);
                return news;
            }
        })
    }
}

opaque!(InProcessFleet {});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_read_in_order() {
        let (mut news, now) = (News::default(), Instant::now());
        assert!(news.get(0).is_none());
        let message = |at: u64| FleetNews::GateClosed {
            host: "https://example.com".into(),
            gate: crate::host::fleet::report::FleetGate::new(at, Duration::from_secs(1)),
        };
        (0..1_500).for_each(|it| news.push(now, message(it)));
        assert_eq!(news.latest.len(), MOST_NEWS);
        let number = |from| news.get(from).map(|it| (it.0, it.2));
        assert_eq!(number(0), Some((476, message(476))));
        assert_eq!(number(477), Some((477, message(477))));
        assert_eq!(number(1_499), Some((1_499, message(1_499))));
        assert_eq!((number(1_500), number(9_999)), (None, None));
    }
}
