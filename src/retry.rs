//! The state of one logical request, and the decision after each of its attempts.

use std::{mem, time::Duration};

use http::{HeaderMap, StatusCode, header};

use crate::classify;
use crate::decision::{Decision, StopReason, WaitSource};
use crate::hint::{Advice, Hint, Wish};
use crate::outcome::{Delivery, FailureKind, Gave, Outcome};
use crate::policy::{Policy, RetryAfter};
use crate::time::Instant;

/// Where one logical request stands.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    started: Instant,
    deadline: Option<Instant>,
    repeat: Repeat,
    /// Sends so far.
    attempts: u32,
    /// Sends and rejections so far: what `max_retries` bounds.
    turns: u32,
    went_at_once: bool,
    upload: Upload,
}

/// What a request carries: a server that will not have a large upload cuts it short, and its answer
/// (413, as a rule) is lost with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// Little enough to be sent as often as anything else.
    Small,
    /// More than is buffered on its way, or nobody knows how much.
    Large,
    /// It was cut once: a second time would be no accident.
    Cut,
}

/// Whether a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Whatever became of it.
    Always,
    /// Only if it was certainly not processed.
    IfNotProcessed,
    /// Never: its body is gone.
    Never,
}

/// What a decision takes from outside, drawn only once an attempt has failed.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    /// A sample of the unit interval, for the jitter.
    pub(crate) random: f64,
    pub(crate) advice: Advice,
    /// How long the circuit breaker will reject from now on.
    pub(crate) rejected_for: Option<Duration>,
}

impl Retry {
    pub(crate) fn new(policy: &Policy, repeat: Repeat, upload: Upload, now: Instant) -> Self {
        // A limit too far away for the clock is no limit.
        let deadline = policy.max_total_time.and_then(|it| now.checked_add(it));
        Self { started: now, deadline, repeat, attempts: 0, turns: 0, went_at_once: false, upload }
    }

    /// Begins a turn, which ends in an attempt or in a rejection.
    pub(crate) fn turn(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// Counts an attempt about to be sent.
    pub(crate) fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// There is no copy of the request that is about to be sent.
    pub(crate) fn is_last(&mut self) {
        self.repeat = Repeat::Never;
    }

    /// Whether it matters that the client follows a redirect: what was answered by one may have
    /// been processed.
    pub(crate) fn minds_redirects(&self) -> bool {
        self.repeat == Repeat::IfNotProcessed
    }

    /// Whether another attempt could follow the one under way, whatever comes of it.
    pub(crate) fn may_repeat(&self, policy: &Policy) -> bool {
        self.repeat != Repeat::Never && self.turns <= policy.max_retries
    }

    /// How much of the time is left, if it is limited.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|it| it.saturating_duration_since(now))
    }

    /// What follows an attempt that another one may better.
    ///
    /// The order of the questions is the order of the reasons given: may it be repeated at all,
    /// does the server mind, does the wait fit.
    pub(crate) fn decide(
        &mut self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        facts: &Facts,
    ) -> Decision {
        // The end of a quota says nothing of this request; only "come back later" does.
        let hint = facts.advice.hint.as_ref();
        let hinted = hint.is_some_and(|it| it.header.as_str().contains("retry-after"));
        let left = self.left(facts.now);
        let cut_again = self.is_cut_again(outcome);
        let stop = match self.repeat {
            _ if left == Some(Duration::ZERO) => StopReason::Deadline,
            _ if self.turns > policy.max_retries => StopReason::Exhausted,
            Repeat::Never => StopReason::NotReplayable,
            Repeat::IfNotProcessed if !classify::not_processed(outcome, hinted) => {
                StopReason::UnsafeToRepeat
            }
            _ if matches!(facts.advice.wish, Wish::StayAway(_)) => StopReason::Vetoed,
            _ if cut_again => StopReason::Final,
            _ => return self.wait(policy, outcome, facts, left),
        };
        Decision::Return(stop)
    }

    fn wait(
        &mut self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        facts: &Facts,
        left: Option<Duration>,
    ) -> Decision {
        let hint = facts.advice.hint.as_ref();
        let hint = hint.filter(|_| policy.retry_after != RetryAfter::Ignored);
        if hint.is_none() && facts.rejected_for.is_none() && self.goes_at_once(outcome) {
            return Decision::Retry { after: Duration::ZERO, source: WaitSource::Immediate };
        }
        let longest = policy.max_wait_time;
        let cap = policy.backoff.max_delay().map_or(longest, |it| it.min(longest));
        let delay = policy.backoff.delay(self.turns.saturating_sub(1));
        let backoff = policy.jitter.spread(delay, cap, facts.random);

        let (mut after, mut source) = (backoff, WaitSource::Backoff);
        if let Some(Hint { after: hint, header }) = hint {
            if *hint > longest {
                return Decision::Return(StopReason::HintTooLong);
            }
            let hinted = policy.jitter.above(*hint, facts.random).min(longest);
            if policy.retry_after == RetryAfter::Replaces || hinted >= after {
                (after, source) = (hinted, WaitSource::Hint(header.clone()));
            }
        }
        if let Some(rejected_for) = facts.rejected_for.filter(|it| *it > after) {
            if rejected_for > longest {
                return Decision::Return(StopReason::CircuitOpen);
            }
            (after, source) = (rejected_for, WaitSource::CircuitBreaker);
        }
        match source {
            _ if left.is_none_or(|it| after < it) => Decision::Retry { after, source },
            WaitSource::CircuitBreaker => Decision::Return(StopReason::CircuitOpen),
            _ => Decision::Return(StopReason::Deadline),
        }
    }

    fn is_cut_again(&mut self, outcome: &Outcome<'_>) -> bool {
        let cut = self.upload != Upload::Small
            && outcome.failure() == Some(FailureKind::Disconnect)
            && outcome.delivery() == Delivery::MaybeProcessed;
        cut && mem::replace(&mut self.upload, Upload::Cut) == Upload::Cut
    }

    /// Once per request, a connection that was stale is replaced without a wait: the server had
    /// closed it while it was idle, before or while the request was written (RFC 9112 §9.5), or
    /// says so by 408. A large upload may as well have been cut because of what it is.
    fn goes_at_once(&mut self, outcome: &Outcome<'_>) -> bool {
        let stale = match outcome.gave {
            Gave::Failure(failure, _) => failure.may_be_stale,
            Gave::Answer { status, headers, .. } => {
                status == StatusCode::REQUEST_TIMEOUT && says_close(headers)
            }
        };
        stale && self.upload == Upload::Small && !mem::replace(&mut self.went_at_once, true)
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter().filter_map(|it| it.to_str().ok());
    options.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("close"))
}
