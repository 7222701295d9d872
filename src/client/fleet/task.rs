//! The one task of a fleet's node: reports, hears, and waits in between.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{sleep_until, timeout},
};

use crate::common::clock::{Instant, Sources};
use crate::host::fleet::advice::{FleetNews, HostAdvice};
use crate::host::fleet::hub::Hub;
use crate::host::fleet::report::{HostReport, NodeId};
use crate::host::fleet::schedule::Schedule;
use crate::host::fleet::signals::{Signals, Urgency};
use crate::host::fleet::store::{BoxFuture, FleetStore};

/// Results that could not be reported for so long are no evidence any more.
const EVIDENCE_LASTS: Duration = Duration::from_secs(10);

/// Returns the task of a node, which ends once the hub is dropped.
pub(super) fn run(
    hub: &Arc<Hub>,
    node: NodeId,
    store: Arc<dyn FleetStore>,
    sources: Sources,
    is_running: Arc<AtomicBool>,
) -> impl Future<Output = ()> + Send + 'static {
    let signals = Arc::clone(hub.signals());
    let schedule = Schedule::new(signals.settings.report_every);
    // Made here, so that the flag is cleared as well if the runtime never polls the task.
    let running = Running(is_running);
    let task = Task { hub: Arc::downgrade(hub), signals, node, sources, schedule };
    async move {
        let _running = running;
        task.serve(&*store).await;
    }
}

struct Task {
    hub: Weak<Hub>,
    signals: Arc<Signals>,
    node: NodeId,
    sources: Sources,
    schedule: Schedule,
}

/// The next thing to do.
enum Step {
    Woken,
    Due,
    News(FleetNews),
}

impl Task {
    async fn serve(mut self, store: &dyn FleetStore) {
        let mut news = store.next_news();
        loop {
            let step = self.next(&mut news).await;
            // The hub is held no longer than a step: its last handle ends the task.
            let Some(hub) = self.hub.upgrade().filter(|_| !self.signals.is_closed()) else {
                return;
            };
            let now = Instant::now();
            match step {
                Step::Woken => {
                    self.schedule.ask(self.signals.urgency(), self.sources.random(), now);
                }
                Step::News(message) => {
                    hub.heed_news(&message, now, &|| self.sources.random());
                    self.schedule.hear(now);
                    // An open fleet is asked every second, or what it said would soon be out of date.
                    // All nodes hear at once, and must not ask at once.
                    if hub.is_any_open() {
                        self.schedule.ask(Urgency::Count, self.sources.random(), now);
                    }
                    news = store.next_news();
                    // A store with news without end holds up no other task.
                    yield_now().await;
                }
                Step::Due => {
                    self.signals.take();
                    self.schedule.begin(now);
                    let reports = self.reports(&hub, now);
                    drop(hub);
                    self.exchange(store, reports).await;
                }
            }
        }
    }

    async fn next(&self, news: &mut BoxFuture<'_, FleetNews>) -> Step {
        let mut woken = pin!(self.signals.wake.notified());
        let mut due = pin!(async {
            match self.schedule.due() {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        });
        poll_fn(|cx| {
            if woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Step::Woken);
            }
            if due.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Step::Due);
            }
            news.as_mut().poll(cx).map(Step::News)
        })
        .await
    }

    fn reports(&self, hub: &Hub, now: Instant) -> Vec<HostReport> {
        let mut reports = hub.take_reports(now);
        if self.schedule.fails_for(now) >= EVIDENCE_LASTS {
            for report in &mut reports {
                let empty = HostReport::new(Arc::clone(&report.host));
                let gates = std::mem::take(&mut report.gates);
                let (run, epoch) = (report.run, report.epoch);
                *report = HostReport { run, epoch, gates, ..empty };
            }
        }
        reports
    }

    async fn exchange(&mut self, store: &dyn FleetStore, reports: Vec<HostReport>) {
        if reports.is_empty() {
            return;
        }
        let exchange = store.exchange(self.node, &reports);
        let result = timeout(self.signals.settings.timeout, exchange).await;
        let (Some(hub), now) = (self.hub.upgrade(), Instant::now()) else { return };
        let advice = match result {
            Ok(Ok(advice)) => Some(advice),
            Ok(Err(_)) | Err(_) => None,
        };
        hub.count(advice.is_none());
        match advice {
            Some(advice) => self.heard(&hub, &reports, &advice, now),
            None => {
                hub.put_back(&reports);
                self.schedule.failed(self.sources.random(), now);
                if self.schedule.fails_for(now) >= self.signals.stale_after() {
                    hub.lose_contact();
                }
            }
        }
    }

    fn heard(&mut self, hub: &Hub, reports: &[HostReport], advice: &[HostAdvice], now: Instant) {
        self.schedule.succeeded();
        hub.heed(advice, now, &|| self.sources.random());
        let is_missing = |it: &&HostReport| !advice.iter().any(|of| of.host == it.host);
        // Quadratic for thousands of hosts, but a store leaves none out as a rule.
        if advice.len() < reports.len() {
            let missing: Vec<_> = reports.iter().filter(is_missing).cloned().collect();
            hub.put_back(&missing);
            self.schedule.go_on(now);
        }
        if hub.is_any_open() {
            self.schedule.go_on(now);
        }
    }
}

/// Set while the task runs, whatever ends it.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
