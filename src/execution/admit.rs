//! The waits before an attempt: at the gate, at an open circuit breaker, and for a token.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use reqwest::Request;
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::breaker::{BreakerHandle, BreakerState, CircuitOpen, Waiter};
use crate::common::clock::{self, Instant};
use crate::execution::attempt::Rejection;
use crate::execution::original::Original;
use crate::execution::run::Execution;
use crate::host::gate::{Patience, RateLimited};
use crate::outcome::FailureKind;
use crate::retry::budget::TokenWaiter;
use crate::retry::decision::WaitSource;

/// Requests that waited at a breaker leave it spread over this time once it has closed.
const SPREAD: Duration = Duration::from_millis(100);

/// Where outages are waited out, they leave it over as long as they waited, but no longer than this.
///
/// After 10 s without a host, the busiest second so has four times the requests of a usual one, and
/// eleven times without a spread.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// A retry that waits for a token looks this often for one that trickled in.
const TRICKLE: Duration = Duration::from_secs(1);

impl Execution<'_> {
    /// Waits until the gate lets the request pass, the circuit breaker gives it a permit, and the
    /// limits of the client have room for it.
    ///
    /// A breaker is waited for up to `max_open_wait`, and once more for every probe that fails, each
    /// at the cost of a retry; where outages are waited out, once in all and at no cost. An endpoint
    /// that went down while the request waited for its limits is left, if another one is available.
    pub(super) async fn admit(&mut self, original: &mut Original<'_>) -> Result<(), Rejection> {
        let (mut patience, mut queue_until) = (None, None);
        loop {
            let request = &*original.request;
            if self.admission.may_be_held_back() {
                self.pass_gate(request).await?;
            }
            let Err(open) = self.enter() else {
                if self.take_turn(request, &mut queue_until).await? {
                    return Ok(());
                }
                if self.has_other_endpoint(request) && !self.must_wait(original) {
                    return Ok(());
                }
                continue;
            };
            // Others may pass the gate meanwhile.
            self.admission.leave_gate(None, self.now);
            let until = self.patience(request, &open, &mut patience)?;
            self.wait_at_breaker(open, until).await?;
        }
    }

    /// Waits until the gate lets the request pass, if there is the time for it.
    ///
    /// The waits of one request at the gate add up to no more than `max_wait_time` and the spread.
    async fn pass_gate(&mut self, request: &Request) -> Result<(), Rejection> {
        let rejection = |limited: RateLimited| Rejection {
            kind: FailureKind::RateLimited,
            error: limited.into(),
        };
        // The wait after a response that closed the gate has been reported with that.
        let mut decided = self.waits_at_gate.take();
        let waiting = loop {
            let left = self.retry.left(self.now).unwrap_or(Duration::MAX);
            let (patience, started) =
                (Patience { wait: self.gate_time, left }, self.retry.started());
            let entered = self.admission.enter_gate(request, started, patience, self.now);
            if let Some(waiting) = entered.map_err(rejection)? {
                break waiting;
            }
            let Some(until) = decided.take().filter(|it| *it > self.now) else { return Ok(()) };
            // The gate was evicted in favour of other keys. This request still waits for its own
            // hint.
            self.admission.leave_gate(None, self.now);
            sleep_until(until).await;
            self.count_gate_time();
        };
        if decided.is_none() {
            let source = match waiting.is_of_fleet() {
                true => WaitSource::FleetGate,
                false => WaitSource::Gate,
            };
            self.held_back(request, source, waiting.opens_in());
        }
        let passed = waiting.wait().await;
        self.count_gate_time();
        self.admission.hold_gate(passed.map_err(rejection)?);
        Ok(())
    }

    /// Counts a wait at the gate, which ends now.
    fn count_gate_time(&mut self) {
        let began = mem::replace(&mut self.now, Instant::now());
        self.gate_time = self.gate_time.saturating_sub(self.now.saturating_duration_since(began));
    }

    /// Returns until when the request waits at the breaker that rejects it.
    fn patience(
        &mut self,
        request: &Request,
        open: &CircuitOpen,
        patience: &mut Option<Instant>,
    ) -> Result<Instant, Rejection> {
        let (rejected, now) = (|| reject(*open), self.now);
        // Forced open, since the request began to wait or before.
        if open.may_close_in().is_none() {
            return Err(rejected());
        }
        // After a wait, nothing but a probe that failed has opened it.
        let costs_retry = !self.policy.waits_out_outages;
        let has_failed = costs_retry && patience.is_some() && !open.is_probing();
        if has_failed {
            self.retry.turn();
            *patience = None;
        }
        if self.retry.turns() > self.policy.max_retries.saturating_add(1) {
            return Err(rejected());
        }
        let until = match *patience {
            Some(until) => until,
            None => {
                let wait = self.open_wait().min(self.retry.left(now).unwrap_or(Duration::MAX));
                let may_close_in = open.may_close_in().filter(|it| *it <= wait && !wait.is_zero());
                let may_close_in = may_close_in.ok_or_else(rejected)?;
                let source = match open.is_of_fleet() {
                    true => WaitSource::Fleet,
                    false => WaitSource::CircuitBreaker,
                };
                self.held_back(request, source, may_close_in);
                clock::after(now, wait)
            }
        };
        *patience = Some(until);
        if now < until { Ok(until) } else { Err(rejected()) }
    }

    /// Waits until the breaker, or the fleet's, may let the request through, or until `until`.
    async fn wait_at_breaker(
        &mut self,
        open: CircuitOpen,
        until: Instant,
    ) -> Result<(), Rejection> {
        if open.is_of_fleet() {
            let Some(it) = self.admission.member().cloned() else { return Ok(()) };
            // `None` if it closed or was lost since it was asked; while it is half-open, the
            // rejection says when to ask.
            let rejects = |now| it.is_open().then(|| it.rejects(now).unwrap_or(open));
            return self.wait_for_change(it.wait(), open, rejects, || it.is_open(), until).await;
        }
        let Some(it) = self.admission.breaker().cloned() else { return Ok(()) };
        self.wait_for_change(it.wait(), open, |now| it.rejects(now), || it.is_probing(), until)
            .await
    }

    /// Waits for a change, until the rejection says to ask again or until `until`.
    async fn wait_for_change(
        &mut self,
        waiter: Option<Waiter<'_>>,
        open: CircuitOpen,
        rejects: impl Fn(Instant) -> Option<CircuitOpen>,
        is_probing: impl Fn() -> bool,
        until: Instant,
    ) -> Result<(), Rejection> {
        let waiter = waiter.ok_or_else(|| reject(open))?;
        let changed = waiter.changed();
        let Some(open) = rejects(self.now) else { return Ok(()) };
        // While a probe is under way that is when it is given up for lost.
        let ask_at = open.retry_in().and_then(|it| self.now.checked_add(it));
        let ask_at = ask_at.map_or(until, |it| it.min(until));
        let has_changed = timeout_at(ask_at, changed).await.is_ok();
        self.now = Instant::now();
        if has_changed && !is_probing() {
            self.leave_spread(until).await;
        }
        Ok(())
    }

    /// Waits a little, after a wait up to `until` at most: others waited, too.
    async fn leave_spread(&mut self, until: Instant) {
        let spread = match self.policy.waits_out_outages {
            true => {
                let left = until.saturating_duration_since(self.now);
                self.open_wait().saturating_sub(left).min(LONGEST_SPREAD)
            }
            false => SPREAD,
        };
        let spread = spread.min(self.retry.left(self.now).unwrap_or(Duration::MAX));
        sleep(spread.mul_f64(self.policy.sources.random().clamp(0.0, 1.0))).await;
        self.now = Instant::now();
    }

    /// Waits for the token of a retry that has just been decided upon. Returns `false` if none came
    /// in time.
    ///
    /// Where outages are waited out, an open breaker ends the wait: it lets one request through at a
    /// time, and if all waited for tokens that only a success brings, no request would be its probe.
    pub(super) async fn wait_for_token(&mut self, request: &Request) -> bool {
        let Some(waiter) = self.admission.token_waiter() else { return true };
        let wait = self.open_wait().min(self.retry.left(self.now).unwrap_or(Duration::MAX));
        let may_send = self.token_by(clock::after(self.now, wait), waiter, request).await;
        self.now = Instant::now();
        may_send
    }

    /// Waits for the token until `until`. Returns whether the retry may be sent.
    async fn token_by(
        &mut self,
        until: Instant,
        mut waiter: TokenWaiter,
        request: &Request,
    ) -> bool {
        let mut polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut waiter).poll(cx))).await;
        if polled.is_pending() {
            let breaker = self.admission.breaker();
            let breaker = breaker.filter(|_| self.policy.waits_out_outages).cloned();
            if breaker.as_ref().is_some_and(|it| is_open(it)) {
                return true;
            }
            self.now = Instant::now();
            self.held_back(request, WaitSource::Budget, Duration::ZERO);
            let mut opened = pin!(opened(breaker.as_deref()));
            while polled.is_pending() && self.now < until {
                waiter.trickle(self.now);
                let first = poll_fn(|cx| match Pin::new(&mut waiter).poll(cx) {
                    Poll::Ready(token) => Poll::Ready(Some(token)),
                    Poll::Pending => opened.as_mut().poll(cx).map(|()| None),
                });
                let look = self.now.checked_add(TRICKLE).map_or(until, |it| it.min(until));
                match timeout_at(look, first).await {
                    Ok(Some(token)) => polled = Poll::Ready(token),
                    Ok(None) => return true,
                    Err(_) => self.now = Instant::now(),
                }
            }
        }
        match polled {
            Poll::Ready(token) => {
                self.admission.hold_token(token);
                true
            }
            Poll::Pending => false,
        }
    }

    /// Records that the request waits, and for what.
    fn held_back(&mut self, request: &Request, source: WaitSource, wait: Duration) {
        let now = self.standing();
        self.recorder.held_back(request, source, wait, now);
    }
}

fn is_open(breaker: &BreakerHandle) -> bool {
    matches!(breaker.state(), BreakerState::Open | BreakerState::HalfOpen)
}

/// Waits until the breaker is open; for ever if there is none, or too many wait at it.
pub(super) async fn opened(breaker: Option<&BreakerHandle>) {
    let Some((breaker, waiter)) = breaker.and_then(|it| Some((it, it.wait()?))) else {
        return pending().await;
    };
    loop {
        let changed = waiter.changed();
        if is_open(breaker) {
            return;
        }
        changed.await;
    }
}

fn reject(open: CircuitOpen) -> Rejection {
    Rejection { kind: FailureKind::CircuitOpen, error: open.into() }
}
