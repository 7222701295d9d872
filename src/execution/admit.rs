//! The waits before an attempt: at the gate, at an open circuit breaker, and for a token.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use reqwest::Request;
use tokio::time::{sleep, timeout_at};

use crate::breaker::{BreakerHandle, BreakerState, CircuitOpen};
use crate::common::clock::Instant;
use crate::execution::attempt::Refusal;
use crate::execution::call::Execution;
use crate::host::gate::{Patience, RateLimited};
use crate::observe::event::{Event, HeldInfo};
use crate::outcome::FailureKind;
use crate::retry::decision::{StopReason, WaitSource};

/// Requests that waited at a breaker leave it spread over this time once it has closed.
const SPREAD: Duration = Duration::from_millis(100);

/// A retry that waits for a token looks this often for one that trickled in.
const TRICKLE: Duration = Duration::from_secs(1);

impl Execution<'_> {
    /// Waits until the gate lets the request pass and the circuit breaker gives it a permit.
    ///
    /// A breaker is waited for up to `max_open_wait`, and once more for every probe that fails, each
    /// at the cost of a retry; where outages are waited out, once in all and at no cost.
    pub(crate) async fn admit(
        &mut self,
        request: &Request,
        mut now: Instant,
    ) -> Result<Instant, Refusal> {
        let mut patience = None;
        loop {
            if self.may_be_held_back() {
                now = self.pass_gate(request, now).await?;
            }
            let Err(open) = self.enter(now) else { return Ok(now) };
            // Others may pass the gate meanwhile.
            self.guard.leave_gate(None, now);
            let until = self.patience(request, &open, &mut patience, now)?;
            now = self.wait_at_breaker(open, until, now).await?;
        }
    }

    /// Waits until the gate lets the request pass, if there is the time for it.
    ///
    /// The waits of one request at the gate add up to no more than `max_wait_time` and the spread.
    async fn pass_gate(&mut self, request: &Request, now: Instant) -> Result<Instant, Refusal> {
        let refused = |limited: RateLimited, now| Refusal {
            kind: FailureKind::RateLimited,
            error: limited.into(),
            now,
        };
        let left = self.retry.left(now).unwrap_or(Duration::MAX);
        let patience = Patience { wait: self.gate_time, left };
        let entered = self.guard.enter_gate(request, self.retry.started(), patience, now);
        let Some(waiting) = entered.map_err(|it| refused(it, now))? else { return Ok(now) };
        // The wait after a response that closed the gate has been reported with that.
        if !mem::take(&mut self.waits_at_gate) {
            self.held_back(request, StopReason::RateLimited, waiting.opens_in(), now);
        }
        let passed = waiting.wait().await;
        let later = Instant::now();
        self.gate_time = self.gate_time.saturating_sub(later.saturating_duration_since(now));
        self.guard.hold_gate(passed.map_err(|it| refused(it, later))?);
        Ok(later)
    }

    /// Returns until when the request waits at the breaker that rejects it.
    fn patience(
        &mut self,
        request: &Request,
        open: &CircuitOpen,
        patience: &mut Option<Instant>,
        now: Instant,
    ) -> Result<Instant, Refusal> {
        let rejected = || refuse(*open, now);
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
                self.held_back(request, StopReason::CircuitOpen, may_close_in, now);
                now.checked_add(wait).ok_or_else(rejected)?
            }
        };
        *patience = Some(until);
        if now < until { Ok(until) } else { Err(rejected()) }
    }

    /// Waits until the breaker may let the request through, or until `until`.
    async fn wait_at_breaker(
        &self,
        open: CircuitOpen,
        until: Instant,
        now: Instant,
    ) -> Result<Instant, Refusal> {
        let Some(breaker) = self.guard.breaker().cloned() else { return Ok(now) };
        let waiter = breaker.wait().ok_or_else(|| refuse(open, now))?;
        let changed = waiter.changed();
        let Some(open) = breaker.rejects(now) else { return Ok(now) };
        // While a probe is under way that is when it is given up for lost.
        let ask_at = open.retry_in().and_then(|it| now.checked_add(it));
        let has_changed =
            timeout_at(ask_at.map_or(until, |it| it.min(until)), changed).await.is_ok();
        // At the gate they go like slow start.
        let is_spread = self.policy.waits_out_outages && self.may_be_held_back();
        if has_changed && !breaker.is_probing() && !is_spread {
            sleep(SPREAD.mul_f64(self.policy.sources.random().clamp(0.0, 1.0))).await;
        }
        Ok(Instant::now())
    }

    /// Waits for the token of a retry that was decided upon at `decided_at`. Returns when it came;
    /// `None` if the retry needs none.
    ///
    /// Where outages are waited out, an open breaker ends the wait: it lets one request through at a
    /// time, and if all waited for tokens that only a success brings, no request would be its probe.
    ///
    /// # Errors
    ///
    /// The time at which it gave up.
    pub(crate) async fn wait_for_token(
        &mut self,
        request: &Request,
        decided_at: Instant,
    ) -> Result<Option<Instant>, Instant> {
        let Some(mut waiter) = self.guard.token_waiter() else { return Ok(None) };
        let wait = self.open_wait().min(self.retry.left(decided_at).unwrap_or(Duration::MAX));
        let Some(until) = decided_at.checked_add(wait) else { return Err(decided_at) };
        let mut polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut waiter).poll(cx))).await;
        if polled.is_pending() {
            let breaker = self.guard.breaker().filter(|_| self.policy.waits_out_outages).cloned();
            if breaker.as_ref().is_some_and(|it| is_open(it)) {
                return Ok(Some(Instant::now()));
            }
            self.held_back(request, StopReason::Budget, Duration::ZERO, Instant::now());
            let mut opened = pin!(opened(breaker.as_deref()));
            let mut now = decided_at;
            while polled.is_pending() && now < until {
                waiter.trickle(now);
                let first = poll_fn(|cx| match Pin::new(&mut waiter).poll(cx) {
                    Poll::Ready(token) => Poll::Ready(Some(token)),
                    Poll::Pending => opened.as_mut().poll(cx).map(|()| None),
                });
                let look = now.checked_add(TRICKLE).map_or(until, |it| it.min(until));
                match timeout_at(look, first).await {
                    Ok(Some(token)) => polled = Poll::Ready(token),
                    Ok(None) => return Ok(Some(Instant::now())),
                    Err(_) => now = Instant::now(),
                }
            }
        }
        match polled {
            Poll::Ready(token) => {
                self.guard.hold_token(token);
                Ok(Some(Instant::now()))
            }
            Poll::Pending => Err(Instant::now()),
        }
    }

    /// Records and tells that the request waits, and for what.
    fn held_back(&mut self, request: &Request, by: StopReason, wait: Duration, now: Instant) {
        let source = match by {
            StopReason::CircuitOpen => WaitSource::CircuitBreaker,
            StopReason::Budget => WaitSource::Budget,
            _ => WaitSource::Gate,
        };
        self.notify(|call| {
            let (method, url) = (request.method(), call.policy.redacted(request.url()));
            let info = HeldInfo { method, url, wait, source: &source };
            call.policy.listeners.notify(&Event::HeldBack(&info));
        });
        self.hold(by, Some((wait, source)), now);
    }
}

fn is_open(breaker: &BreakerHandle) -> bool {
    matches!(breaker.state(), BreakerState::Open | BreakerState::HalfOpen)
}

/// Waits until the breaker is open; for ever if there is none, or too many wait at it.
async fn opened(breaker: Option<&BreakerHandle>) {
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

fn refuse(open: CircuitOpen, now: Instant) -> Refusal {
    Refusal { kind: FailureKind::CircuitOpen, error: open.into(), now }
}
