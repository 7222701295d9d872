//! The waits for the limits of the client: for the slot of a rate, and for a permit.

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use reqwest::Request;
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::common::clock::{self, Instant};
use crate::execution::admit::opened;
use crate::execution::attempt::Rejection;
use crate::execution::run::Execution;
use crate::host::fleet::share::Turn;
use crate::host::limit::{LimitPermit, LimitWaiter, Limited, LimitedBy, Load};
use crate::host::rate::{Learner, Pacing, Ticket};
use crate::host::within::Place;
use crate::outcome::classify::{self, Throttling};
use crate::outcome::hint::Advice;
use crate::outcome::{FailureKind, Outcome};
use crate::retry::decision::WaitSource;

/// The end of a wait for a permit.
enum Waited {
    Permit(LimitPermit),
    /// The breaker opened: it decides.
    Opened,
    TooLate,
}

impl Execution<'_> {
    /// Takes a slot of the rate limit and a permit of the concurrency limit, for an attempt that
    /// gate and breaker admit. Returns `false` if they are to be asked anew.
    ///
    /// While the request waits it holds no permit of the breaker, and it asks breaker and gate again
    /// afterwards. It waits for them without slot and permit only, so that a host that is down takes
    /// no turns of requests that could be sent. All waits for permits end at `until`.
    pub(super) async fn take_turn(
        &mut self,
        request: &Request,
        until: &mut Option<Instant>,
    ) -> Result<bool, Rejection> {
        if !self.admission.is_limited() {
            return Ok(true);
        }
        let waited_for_slot =
            self.wait_for_slot(request).await? | self.wait_for_quota(request).await?;
        let waited_for_permit = self.wait_for_permit(request, until).await?;
        let may_send = match waited_for_permit {
            None => false,
            Some(waited) => !(waited || waited_for_slot) || self.ask_again(request),
        };
        if !may_send {
            self.admission.step_back();
            self.admission.leave_gate(None, self.now);
            self.admission.leave_limits();
        }
        Ok(may_send)
    }

    /// Reserves a slot and waits for it. Returns whether it had to wait.
    async fn wait_for_slot(&mut self, request: &Request) -> Result<bool, Rejection> {
        let (nodes, had_to_wait) = match self.wait_for_share(request).await? {
            Ok(waited) => (None, waited),
            Err(nodes) => (Some(nodes), false),
        };
        let (longest, began) = (self.longest_slot_wait(), self.now);
        let at = self.admission.reserve_slot(request, nodes, longest, began).map_err(reject)?;
        let Some(at) = at.filter(|it| *it > began) else { return Ok(had_to_wait) };
        self.admission.step_back();
        sleep_until(at).await;
        self.now = Instant::now();
        self.queued(request, WaitSource::Rate, began);
        Ok(true)
    }

    /// Waits until the fleet's rate lets the attempt go. Returns whether it had to wait; as an error,
    /// among how many nodes the rate is divided, if this node has to keep to it by itself.
    async fn wait_for_share(&mut self, request: &Request) -> Result<Result<bool, u32>, Rejection> {
        let (longest, began) = (self.longest_slot_wait(), self.now);
        loop {
            let turn = self.admission.fleet_turn(request, self.now, &self.policy.sources);
            let spacing = match turn {
                None => return Ok(Err(1)),
                Some(Turn::Local { nodes }) => return Ok(Err(nodes)),
                Some(Turn::Go) => break,
                Some(Turn::Wait(spacing)) => spacing,
            };
            let waited = self.now.saturating_duration_since(began);
            if spacing > longest.saturating_sub(waited) {
                return Err(reject(Limited(LimitedBy::Rate { retry_in: spacing })));
            }
            self.admission.step_back();
            sleep(spacing).await;
            self.now = Instant::now();
        }
        let has_waited = self.now > began;
        if has_waited {
            self.queued(request, WaitSource::Rate, began);
        }
        Ok(Ok(has_waited))
    }

    /// Waits until the learned quotas let the request go. Returns whether it had to wait.
    async fn wait_for_quota(&mut self, request: &Request) -> Result<bool, Rejection> {
        let Some(learner) = self.admission.learner() else { return Ok(false) };
        let (longest, began, slowest) =
            (self.longest_slot_wait(), self.now, self.policy.max_wait_time);
        let pacing = Pacing { longest: slowest, unit: self.policy.sources.random() };
        if let Some(ticket) = learner.try_turn(pacing, began) {
            self.admission.hold_ticket(ticket);
            return Ok(false);
        }
        let too_long = |retry_in| reject(Limited(LimitedBy::Rate { retry_in }));
        // `None` if the line is full.
        let expected = learner.expected_wait(slowest, began);
        let Some(expected) = expected.filter(|it| *it <= longest) else {
            return Err(too_long(expected.unwrap_or(Duration::MAX)));
        };
        let until = clock::after(began, longest);
        self.admission.step_back();
        let ticket = timeout_at(until, turn(learner, pacing)).await;
        self.now = Instant::now();
        self.queued(request, WaitSource::Rate, began);
        self.admission.hold_ticket(ticket.map_err(|_| too_long(expected))?);
        Ok(true)
    }

    /// Returns the longest wait for a slot. One at the very deadline is of no use.
    fn longest_slot_wait(&self) -> Duration {
        let longest = self.admission.longest_slot_wait().unwrap_or(self.policy.max_wait_time);
        let left = self.retry.left(self.now).map(|it| it.saturating_sub(Duration::from_nanos(1)));
        longest.min(left.unwrap_or(Duration::MAX))
    }

    /// Waits for a permit. Returns whether it had to wait; `None` if the breaker opened meanwhile.
    async fn wait_for_permit(
        &mut self,
        request: &Request,
        until: &mut Option<Instant>,
    ) -> Result<Option<bool>, Rejection> {
        let is_hurried = self.retry.deadline().is_some();
        let (now, sources) = (self.now, &self.policy.sources);
        let place = self.admission.take_permit(is_hurried, now, || sources.random());
        let Place::Wait(waiter) = place.map_err(reject)? else { return Ok(Some(false)) };
        let Some((rules, limiter)) = self.admission.concurrency() else { return Ok(Some(false)) };
        let limiter = Arc::clone(limiter);
        let longest = rules.max_queue_time.unwrap_or(self.policy.max_wait_time);
        let longest = longest.min(limiter.longest_wait(self.retry.left(now)));
        let until = match *until {
            Some(until) => until,
            None => *until.insert(clock::after(now, longest)),
        };
        self.admission.step_back();
        let waited = self.permit_by(until, waiter).await;
        self.now = Instant::now();
        if self.now > now {
            self.queued(request, WaitSource::Limit, now);
        }
        match waited {
            Waited::Permit(permit) => {
                self.admission.hold_permit(permit);
                Ok(Some(true))
            }
            Waited::Opened => Ok(None),
            Waited::TooLate => {
                let waited = self.now.saturating_duration_since(now);
                Err(reject(limiter.rejection(waited, self.policy.sources.random())))
            }
        }
    }

    /// Waits for a permit until `until`, or until the breaker opens.
    async fn permit_by(&self, until: Instant, mut waiter: LimitWaiter) -> Waited {
        let breaker = self.admission.breaker().cloned();
        let mut opened = pin!(opened(breaker.as_deref()));
        let first = poll_fn(|cx| match Pin::new(&mut waiter).poll(cx) {
            Poll::Ready(permit) => Poll::Ready(Waited::Permit(permit)),
            Poll::Pending => opened.as_mut().poll(cx).map(|()| Waited::Opened),
        });
        timeout_at(until, first).await.unwrap_or(Waited::TooLate)
    }

    /// Asks gate and breaker again after a wait, without waiting for them.
    fn ask_again(&mut self, request: &Request) -> bool {
        match self.admission.has_gate_pass() {
            true => self.enter().is_ok(),
            false => self.enter_at_once(request),
        }
    }

    /// Records that the request waited for a limit from `began` to now.
    fn queued(&mut self, request: &Request, source: WaitSource, began: Instant) {
        let waited = self.now.saturating_duration_since(began);
        let limit = self.admission.limit_use();
        let now = self.standing();
        self.recorder.queued(request, source, waited, limit, now);
    }
}

/// Waits in the line for learned quotas, and then until they let the first request go.
async fn turn(mut learner: Arc<Learner>, pacing: Pacing) -> Ticket {
    loop {
        match turn_by(&learner, pacing).await {
            Ok(ticket) => return ticket,
            Err(other) => learner = other,
        }
    }
}

/// Waits for a turn by these quotas.
///
/// # Errors
///
/// The quotas to wait for instead, once it is known that the route is counted there.
async fn turn_by(learner: &Arc<Learner>, pacing: Pacing) -> Result<Ticket, Arc<Learner>> {
    let _in_line = learner.join();
    // Never closed.
    let Ok(mut first) = learner.line().acquire_owned().await else { return pending().await };
    loop {
        let news = learner.news().notified();
        if let Some(other) = learner.moved() {
            return Err(other);
        }
        match learner.turn(first, pacing, Instant::now()) {
            Ok(ticket) => return Ok(ticket),
            Err((place, at)) => {
                first = place;
                let _ = timeout_at(at, news).await;
            }
        }
    }
}

/// Returns what an outcome says about the load of the host, `None` for nothing.
///
/// A 500 and a refused connection are failures, but no congestion.
pub(super) fn load(outcome: &Outcome<'_>, advice: &Advice) -> Option<Load> {
    if classify::throttling(outcome, advice) == Some(Throttling::RateLimit) {
        return Some(Load::Overloaded);
    }
    match (outcome.status().map(|it| it.as_u16()), outcome.failure()) {
        (Some(408 | 429 | 503 | 504 | 529), _) => Some(Load::Overloaded),
        (Some(status), _) => (status < 500).then_some(Load::Good),
        (None, Some(FailureKind::Timeout | FailureKind::Disconnect | FailureKind::Throttled)) => {
            Some(Load::Overloaded)
        }
        (None, _) => None,
    }
}

fn reject(limited: Limited) -> Rejection {
    Rejection { kind: FailureKind::Limited, error: limited.into() }
}
