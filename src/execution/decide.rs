//! The state of one logical request, and the decision after each of its attempts.

use std::{mem, time::Duration};

use http::{Extensions, Method};
use reqwest::Request;

use crate::common::clock::Instant;
use crate::config::policy::{Policy, RetryAfter};
use crate::error::BoxError;
use crate::execution::body::BodyFactory;
use crate::host::gate::Closing;
use crate::outcome::classify::{self, Verdict};
use crate::outcome::hint::{Advice, Hint, RetryDirective};
use crate::outcome::{Delivery, FailureKind, Heard, Outcome};
use crate::retry::backoff::{Constant, Progress};
use crate::retry::decision::{Decision, StopReason, WaitSource};

/// A longer body may be refused while it is still being sent.
const LARGE: usize = 64 * 1024;

/// Where one logical request stands.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    started: Instant,
    deadline: Option<Instant>,
    repeat: Repeat,
    /// Sends so far.
    attempts: u32,
    /// The hedges among them.
    hedges: u32,
    /// Sends and rejections so far: what `max_retries` bounds.
    turns: u32,
    /// The backoff before the last retry; zero before the first.
    backed_off: Duration,
    went_at_once: bool,
    /// The retries at other endpoints, which were made without a backoff.
    failovers: u32,
    upload: Upload,
}

/// The size of a request's body: a server that will not have a large upload cuts it short, and its answer
/// (413, as a rule) is lost with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// Little enough to be sent as often as anything else.
    Small,
    /// More than is buffered on its way, or an unknown size.
    Large,
    /// It was cut once: a second time would be no accident.
    Cut,
}

/// The conditions under which a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Whatever became of it.
    Always,
    /// Only if it was certainly not processed.
    IfNotProcessed,
    /// Never: the settings exclude its method.
    NotAllowed,
    /// Never: its body is gone.
    Never,
}

/// The input of a decision, drawn only once an attempt has failed.
#[derive(Clone, Debug)]
pub(crate) struct DecisionInput {
    pub(crate) now: Instant,
    /// A sample of the unit interval, for the jitter.
    pub(crate) random: f64,
    pub(crate) advice: Advice,
    /// Set if the response was a rate limit that closed no gate.
    pub(crate) is_throttled: bool,
    /// The time for which the circuit breaker rejects from now on.
    pub(crate) rejected_for: Option<Duration>,
    /// The longest wait of the next attempt at the breaker.
    pub(crate) open_wait: Duration,
    /// Set if another endpoint, which was not asked in this round, is available.
    pub(crate) failover: bool,
}

/// An outcome, classified, and what it says about retries.
pub(super) struct Judged {
    pub(super) advice: Advice,
    pub(super) heard: Heard,
    pub(super) verdict: Verdict,
    /// The error that the caller's own verdict ends the request with.
    pub(super) error: Option<BoxError>,
    /// Set if the response has closed the gate of its host already, before it was chosen in a race.
    pub(super) closing: Option<Closing>,
}

impl Judged {
    /// Returns whether the server said when to retry.
    pub(super) fn has_hint(&self) -> bool {
        self.advice.hint.is_some()
    }

    /// Shortens the waits that the response asks for by the time that has passed since it arrived.
    pub(super) fn shorten_waits(&mut self, passed: Duration) {
        let Self { advice, closing, .. } = self;
        let hint = advice.hint.iter_mut().map(|it| &mut it.after);
        let of_gate = closing.iter_mut().flat_map(|it| [&mut it.opens_in, &mut it.announced_in]);
        hint.chain(of_gate).for_each(|it| *it = it.saturating_sub(passed));
    }
}

impl Retry {
    #[inline]
    pub(crate) fn new(policy: &Policy, repeat: Repeat, upload: Upload, now: Instant) -> Self {
        // A limit too far away for the clock is no limit.
        let deadline = policy.max_total_time.and_then(|it| now.checked_add(it));
        Self {
            started: now,
            deadline,
            repeat,
            attempts: 0,
            hedges: 0,
            turns: 0,
            backed_off: Duration::ZERO,
            went_at_once: false,
            failovers: 0,
            upload,
        }
    }

    /// Returns the state of a request that begins; makes its body one that can be sent again.
    pub(crate) fn of_request(
        policy: &Policy,
        request: &mut Request,
        extensions: &Extensions,
        now: Instant,
    ) -> Self {
        let is_made = extensions.get::<BodyFactory>().is_some();
        if is_made {
            // Each attempt gets a body of its own.
            *request.body_mut() = None;
        }
        let repeat = match request.body() {
            Some(body) if body.as_bytes().is_none() => Repeat::Never,
            _ if policy.may_repeat(request.method(), request.headers()) => Repeat::Always,
            _ if policy.methods.allows_unprocessed(request.method()) => Repeat::IfNotProcessed,
            _ => Repeat::NotAllowed,
        };
        let length = request.body().map_or(0, |it| it.as_bytes().map_or(usize::MAX, <[u8]>::len));
        let upload = if is_made || length > LARGE { Upload::Large } else { Upload::Small };
        Self::new(policy, repeat, upload, now)
    }

    /// Begins a turn, which ends in an attempt or in a rejection.
    pub(crate) fn turn(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// Counts an attempt about to be sent.
    pub(crate) fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Counts a hedge about to be sent.
    pub(crate) fn hedge(&mut self) {
        self.attempt();
        self.hedges = self.hedges.saturating_add(1);
    }

    /// Returns whether no attempt was sent after one that failed.
    pub(crate) fn is_first(&self) -> bool {
        self.attempts - self.hedges <= 1
    }

    /// Returns whether a copy of the request may be sent beside it.
    pub(crate) fn may_race(&self) -> bool {
        self.repeat == Repeat::Always
    }

    /// Returns how many turns were taken, the one under way included.
    pub(crate) fn turns(&self) -> u32 {
        self.turns
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
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
    pub(crate) fn forbid_retry(&mut self) {
        if self.repeat != Repeat::NotAllowed {
            self.repeat = Repeat::Never;
        }
    }

    /// Returns whether it matters that the client follows a redirect: what was answered by one may have
    /// been processed.
    pub(crate) fn watches_redirects(&self) -> bool {
        self.repeat == Repeat::IfNotProcessed
    }

    /// Returns whether another attempt could follow the one under way, whatever comes of it.
    pub(crate) fn may_repeat(&self, policy: &Policy) -> bool {
        !matches!(self.repeat, Repeat::Never | Repeat::NotAllowed)
            && self.turns <= policy.max_retries
    }

    /// Returns how much of the time is left, if it is limited.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|it| it.saturating_duration_since(now))
    }

    /// Decides what follows an attempt that another one may better.
    ///
    /// The order of the questions is the order of the reasons given: may it be repeated at all,
    /// does the server mind, does the wait fit.
    pub(crate) fn decide(
        &mut self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        facts: &DecisionInput,
    ) -> Decision {
        let left = self.left(facts.now);
        let cut_again = self.note_interruption(outcome);
        let stop = match self.repeat {
            _ if left == Some(Duration::ZERO) => StopReason::Deadline,
            _ if self.turns > policy.max_retries => StopReason::Exhausted,
            Repeat::Never => StopReason::NotReplayable,
            Repeat::NotAllowed => StopReason::UnsafeToRepeat,
            Repeat::IfNotProcessed
                if !classify::not_processed(outcome, &policy.refused, &facts.advice) =>
            {
                StopReason::UnsafeToRepeat
            }
            _ if matches!(facts.advice.directive, RetryDirective::DoNotRetry(_)) => {
                StopReason::Vetoed
            }
            _ if cut_again => StopReason::Final,
            _ => return self.wait(policy, outcome, facts, left),
        };
        Decision::Return(stop)
    }

    fn wait(
        &mut self,
        policy: &Policy,
        outcome: &Outcome<'_>,
        facts: &DecisionInput,
        left: Option<Duration>,
    ) -> Decision {
        let hint = facts.advice.hint.as_ref();
        let hint = hint.filter(|_| policy.retry_after != RetryAfter::Ignored);
        if hint.is_none() && facts.rejected_for.is_none() && self.take_immediate_retry(outcome) {
            return Decision::Retry { after: Duration::ZERO, source: WaitSource::Immediate };
        }
        if facts.failover {
            return self.fail_over();
        }
        let longest = policy.max_wait_time;
        let retry = self.turns.saturating_sub(1).saturating_sub(self.failovers);
        let previous = self.backed_off;
        let progress = Progress { retry, previous, longest };
        let own = policy.backoff_from.as_ref().and_then(|it| it(outcome, retry));
        let own = own.map(Constant::new);
        let backoff = match &own {
            Some(own) => own,
            None => policy.backoff_after(facts.is_throttled),
        };
        self.backed_off = policy.jitter.wait(backoff, progress, facts.random);

        let (mut after, mut source) = (self.backed_off, WaitSource::Backoff);
        if let Some(Hint { after: hint, header, .. }) = hint {
            if *hint > longest {
                return Decision::Return(StopReason::HintTooLong);
            }
            let hinted = policy.jitter.above(*hint, longest, facts.random);
            if policy.retry_after == RetryAfter::Replaces || hinted >= after {
                let by = header.clone().map_or(WaitSource::HintFrom, WaitSource::Hint);
                (after, source) = (hinted, by);
            }
        }
        // A batch job leaves a host that is down and never responded, instead of trying it again
        // through all of its long backoff.
        let is_in_vain = policy.waits_out_outages && facts.open_wait.is_zero();
        let waits_for = |rejected_for| {
            let waited = if is_in_vain { Duration::ZERO } else { after };
            let open = waited.saturating_add(facts.open_wait);
            rejected_for <= open && left.is_none_or(|it| rejected_for < it)
        };
        if !facts.rejected_for.is_none_or(waits_for) {
            return Decision::Return(StopReason::CircuitOpen);
        }
        match left.is_none_or(|it| after < it) {
            true => Decision::Retry { after, source },
            false => Decision::Return(StopReason::Deadline),
        }
    }

    /// Asks another endpoint at once. Backoff begins after a full round.
    pub(crate) fn fail_over(&mut self) -> Decision {
        self.failovers = self.failovers.saturating_add(1);
        Decision::Retry { after: Duration::ZERO, source: WaitSource::Failover }
    }

    /// Returns whether another endpoint may be asked for what this one does not have: not if the
    /// request has no retry or no time left, or changes something.
    pub(crate) fn may_look_elsewhere(
        &self,
        policy: &Policy,
        method: &Method,
        now: Instant,
    ) -> bool {
        let may_repeat = self.repeat == Repeat::Always && self.may_repeat(policy);
        let has_time = self.left(now) != Some(Duration::ZERO);
        method.is_safe() && may_repeat && has_time
    }

    fn note_interruption(&mut self, outcome: &Outcome<'_>) -> bool {
        let cut = self.upload != Upload::Small
            && outcome.failure() == Some(FailureKind::Disconnect)
            && outcome.delivery() == Delivery::MaybeProcessed;
        cut && mem::replace(&mut self.upload, Upload::Cut) == Upload::Cut
    }

    /// Once per request, a connection that was stale is replaced without a wait: the server had
    /// closed it while it was idle, before or while the request was written (RFC 9112 §9.5), or
    /// says so by 408. A large upload may as well have been cut because of what it is.
    fn take_immediate_retry(&mut self, outcome: &Outcome<'_>) -> bool {
        outcome.is_stale()
            && self.upload == Upload::Small
            && !mem::replace(&mut self.went_at_once, true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName, Method, StatusCode, header};
    use reqwest::{Body, Url};

    use super::*;
    use crate::config::policy::{Patch, Setting};
    use crate::outcome::classify::RetryMethods;
    use crate::outcome::{Failure, OutcomeResult};
    use crate::retry::backoff::{Exponential, Jitter};

    const SECOND: Duration = Duration::from_secs(1);

    const MAYBE: Failure = Failure::new(FailureKind::Disconnect, Delivery::MaybeProcessed);
    const NOT_SENT: Failure = Failure::new(FailureKind::Connect, Delivery::NotSent);

    /// Three retries, a second apart.
    fn policy() -> Policy {
        let backoff = Arc::new(Constant::new(SECOND));
        Policy { backoff, jitter: Jitter::None, ..Policy::default() }
    }

    fn request(policy: &Policy, repeat: Repeat, upload: Upload) -> (Retry, DecisionInput) {
        let now = Instant::now();
        let mut retry = Retry::new(policy, repeat, upload, now);
        retry.turn();
        let (advice, open_wait, is_throttled) = (Advice::default(), 2 * SECOND, false);
        let (random, rejected_for, failover) = (0.0, None, false);
        let facts =
            DecisionInput { now, random, advice, is_throttled, rejected_for, open_wait, failover };
        (retry, facts)
    }

    fn small(policy: &Policy) -> (Retry, DecisionInput) {
        request(policy, Repeat::Always, Upload::Small)
    }

    fn hint(header: &'static str, after: Duration) -> Advice {
        let header = Some(HeaderName::from_static(header));
        Advice { hint: Some(Hint { after, header, asks: true }), ..Advice::default() }
    }

    fn decide(
        retry: &mut Retry,
        policy: &Policy,
        facts: &DecisionInput,
        result: OutcomeResult<'_>,
    ) -> Decision {
        let (method, url) = (&Method::GET, &Url::parse("http://a.example/").unwrap());
        let (attempt, elapsed, keyed) = (1, SECOND, false);
        retry.decide(
            policy,
            &Outcome { attempt, elapsed, keyed, ..Outcome::new(method, url, result) },
            facts,
        )
    }

    fn after_failure(
        retry: &mut Retry,
        policy: &Policy,
        facts: &DecisionInput,
        failure: Failure,
    ) -> Decision {
        decide(retry, policy, facts, OutcomeResult::Failure(failure, &std::fmt::Error))
    }

    fn after_answer(
        retry: &mut Retry,
        policy: &Policy,
        facts: &DecisionInput,
        status: StatusCode,
        connection: &'static str,
    ) -> Decision {
        let url = &Url::parse("http://a.example/").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, connection.parse().unwrap());
        let headers = &headers;
        decide(
            retry,
            policy,
            facts,
            OutcomeResult::Response { status, headers, url, body: None, redirected: false },
        )
    }

    fn waits(after: Duration, source: WaitSource) -> Decision {
        Decision::Retry { after, source }
    }

    fn backoff() -> Decision {
        waits(SECOND, WaitSource::Backoff)
    }

    #[test]
    fn a_request_knows_its_attempts_and_its_time() {
        let limited = Policy { max_total_time: Some(10 * SECOND), ..policy() };
        let (mut retry, DecisionInput { now, .. }) = small(&limited);
        assert_eq!(retry.attempts(), 0);
        retry.attempt();
        retry.attempt();
        assert_eq!(retry.attempts(), 2);
        assert_eq!(retry.elapsed(now + 3 * SECOND), 3 * SECOND);
        assert_eq!(retry.deadline(), Some(now + 10 * SECOND));
        assert_eq!(retry.left(now + 3 * SECOND), Some(7 * SECOND));
        assert_eq!(small(&policy()).0.left(now), None);
        let endless = Policy { max_total_time: Some(Duration::MAX), ..policy() };
        assert_eq!(small(&endless).0.deadline(), None);
    }

    #[test]
    fn another_endpoint_is_asked_for_what_is_safe_and_has_a_retry_and_time_left() {
        let policy = Policy { max_total_time: Some(SECOND), ..policy() };
        let none = Policy { max_retries: 0, ..policy.clone() };
        for (repeat, policy, method, after, expected) in [
            (Repeat::Always, &policy, Method::GET, SECOND / 2, true),
            (Repeat::IfNotProcessed, &policy, Method::GET, SECOND / 2, false),
            (Repeat::Always, &none, Method::GET, SECOND / 2, false),
            (Repeat::Always, &policy, Method::PUT, SECOND / 2, false),
            (Repeat::Always, &policy, Method::GET, SECOND, false),
        ] {
            let (retry, facts) = request(policy, repeat, Upload::Small);
            let may_look = retry.may_look_elsewhere(policy, &method, facts.now + after);
            assert_eq!(may_look, expected, "{method} {repeat:?} {after:?}");
        }
    }

    #[test]
    fn a_hedge_is_part_of_the_first_attempt() {
        let (mut retry, _) = small(&policy());
        assert!(retry.is_first());
        retry.attempt();
        retry.hedge();
        assert!(retry.is_first());
        assert_eq!(retry.attempts(), 2);
        retry.attempt();
        assert!(!retry.is_first());
    }

    #[test]
    fn method_and_body_say_how_often_a_request_may_be_sent() {
        let of = |policy: &Policy, method: Method, body: Option<Body>, is_made: bool| {
            let mut request = Request::new(method, Url::parse("http://a.example/").unwrap());
            *request.body_mut() = body;
            let mut extensions = Extensions::new();
            if is_made {
                extensions.insert(BodyFactory::new(|| async { Ok(Body::default()) }));
            }
            let retry = Retry::of_request(policy, &mut request, &extensions, Instant::now());
            (retry.repeat, retry.upload)
        };
        let some = Policy { methods: RetryMethods::Only(vec![Method::PUT]), ..policy() };
        let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
        let bytes = |length: usize| Some(Body::from(vec![0; length]));
        let stream = || Some(Body::wrap(Body::from("")));
        for (policy, method, body, is_made, expected) in [
            (&policy(), &get, None, false, (Repeat::Always, Upload::Small)),
            (&policy(), &post, None, false, (Repeat::IfNotProcessed, Upload::Small)),
            (&some, &put, None, false, (Repeat::Always, Upload::Small)),
            (&some, &get, None, false, (Repeat::NotAllowed, Upload::Small)),
            (&policy(), &put, bytes(65_536), false, (Repeat::Always, Upload::Small)),
            (&policy(), &put, bytes(65_537), false, (Repeat::Always, Upload::Large)),
            (&policy(), &put, stream(), false, (Repeat::Never, Upload::Large)),
            (&policy(), &put, stream(), true, (Repeat::Always, Upload::Large)),
        ] {
            assert_eq!(of(policy, method.clone(), body, is_made), expected, "{method} {is_made}");
        }
    }

    #[test]
    fn a_copy_is_kept_while_a_retry_could_follow() {
        let policy = policy();
        let (mut retry, _) = small(&policy);
        assert!(retry.may_repeat(&policy) && !retry.watches_redirects());
        retry.turn();
        retry.turn();
        assert!(retry.may_repeat(&policy));
        retry.turn();
        assert!(!retry.may_repeat(&policy));
        let (mut retry, _) = request(&policy, Repeat::IfNotProcessed, Upload::Small);
        assert!(retry.may_repeat(&policy) && retry.watches_redirects());
        retry.forbid_retry();
        assert!(!retry.may_repeat(&policy));
    }

    #[test]
    fn time_and_retries_run_out() {
        let policy = Policy { max_total_time: Some(10 * SECOND), ..policy() };
        let (mut retry, mut facts) = small(&policy);
        retry.turn();
        retry.turn();
        assert_eq!(after_failure(&mut retry, &policy, &facts, MAYBE), backoff());
        retry.turn();
        let decision = after_failure(&mut retry, &policy, &facts, MAYBE);
        assert_eq!(decision, Decision::Return(StopReason::Exhausted));
        facts.now += 10 * SECOND;
        let decision = after_failure(&mut retry, &policy, &facts, MAYBE);
        assert_eq!(decision, Decision::Return(StopReason::Deadline));
    }

    #[test]
    fn what_may_have_been_processed_is_not_repeated() {
        let policy = policy();
        let stops = |reason| Decision::Return(reason);
        let (mut never, facts) = request(&policy, Repeat::Never, Upload::Small);
        let decision = after_failure(&mut never, &policy, &facts, NOT_SENT);
        assert_eq!(decision, stops(StopReason::NotReplayable));

        let (mut unsafe_, mut facts) = request(&policy, Repeat::IfNotProcessed, Upload::Small);
        assert_eq!(after_failure(&mut unsafe_, &policy, &facts, NOT_SENT), backoff());
        let decision = after_failure(&mut unsafe_, &policy, &facts, MAYBE);
        assert_eq!(decision, stops(StopReason::UnsafeToRepeat));
        let mut after_503 = |advice| {
            facts.advice = advice;
            let status = StatusCode::SERVICE_UNAVAILABLE;
            after_answer(&mut unsafe_, &policy, &facts, status, "keep-alive")
        };
        for header in ["retry-after", "x-ms-retry-after-ms", "ratelimit"] {
            let hinted = hint(header, SECOND);
            assert_eq!(after_503(hinted), stops(StopReason::UnsafeToRepeat), "{header}");
        }
        let refusing = [StatusCode::SERVICE_UNAVAILABLE].into_iter().collect();
        let policy = Policy { refused: refusing, ..policy };
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let decision = after_answer(&mut unsafe_, &policy, &facts, busy, "keep-alive");
        assert!(matches!(decision, Decision::Retry { .. }), "{decision:?}");

        let (mut excluded, facts) = request(&policy, Repeat::NotAllowed, Upload::Small);
        excluded.forbid_retry();
        assert!(!excluded.may_repeat(&policy));
        let decision = after_failure(&mut excluded, &policy, &facts, NOT_SENT);
        assert_eq!(decision, stops(StopReason::UnsafeToRepeat));
    }

    #[test]
    fn a_server_may_send_the_client_away() {
        let policy = policy();
        let (mut retry, mut facts) = small(&policy);
        facts.advice.directive = RetryDirective::DoNotRetry(header::RETRY_AFTER);
        let decision = after_failure(&mut retry, &policy, &facts, MAYBE);
        assert_eq!(decision, Decision::Return(StopReason::Vetoed));
        facts.advice.directive = RetryDirective::Retry;
        assert_eq!(after_failure(&mut retry, &policy, &facts, MAYBE), backoff());
    }

    #[test]
    fn a_large_upload_is_not_cut_a_third_time() {
        let policy = policy();
        let ends = Decision::Return(StopReason::Final);
        let (mut large, facts) = request(&policy, Repeat::Always, Upload::Large);
        for harmless in [NOT_SENT, Failure { kind: FailureKind::Timeout, ..MAYBE }] {
            assert_eq!(after_failure(&mut large, &policy, &facts, harmless), backoff());
        }
        let refused = Failure { delivery: Delivery::NotProcessed, ..MAYBE };
        assert_eq!(after_failure(&mut large, &policy, &facts, refused), backoff());
        assert_eq!(after_failure(&mut large, &policy, &facts, MAYBE), backoff());
        assert_eq!(after_failure(&mut large, &policy, &facts, refused), backoff());
        assert_eq!(after_failure(&mut large, &policy, &facts, MAYBE), ends);
        let (mut small, facts) = small(&policy);
        for _ in 0..3 {
            assert_eq!(after_failure(&mut small, &policy, &facts, MAYBE), backoff());
        }
    }

    #[test]
    fn backoff_grows_with_each_turn_up_to_the_longest_wait() {
        let seconds = |retry: u32| SECOND * (10 + 30 * retry);
        let growing = Policy { backoff: Arc::new(seconds), ..policy() };
        let (mut retry, facts) = small(&growing);
        for expected in [10, 40, 60] {
            let decision = after_failure(&mut retry, &growing, &facts, MAYBE);
            assert_eq!(decision, waits(expected * SECOND, WaitSource::Backoff));
            retry.turn();
        }
        let spread = Policy { jitter: Jitter::Full, ..policy() };
        let (mut retry, mut facts) = small(&spread);
        facts.random = 0.5;
        let decision = after_failure(&mut retry, &spread, &facts, MAYBE);
        assert_eq!(decision, waits(SECOND / 2, WaitSource::Backoff));
    }

    #[test]
    fn decorrelated_waits_remember_the_backoff_before() {
        let policy = Policy { jitter: Jitter::Decorrelated, ..policy() };
        let (mut retry, mut facts) = small(&policy);
        for (random, expected) in [(1.0, 3), (1.0, 9), (0.0, 1)] {
            facts.random = random;
            let decision = after_failure(&mut retry, &policy, &facts, MAYBE);
            assert_eq!(decision, waits(expected * SECOND, WaitSource::Backoff));
            retry.turn();
        }
    }

    #[test]
    fn a_rate_limit_that_closes_no_gate_is_backed_off_from_a_second() {
        let one_at_most = |policy: &Policy, is_throttled| {
            let (mut retry, facts) = small(policy);
            let facts = DecisionInput { random: 1.0, is_throttled, ..facts };
            after_failure(&mut retry, policy, &facts, MAYBE)
        };
        let default = Policy::default();
        let after = |millis| waits(Duration::from_millis(millis), WaitSource::Backoff);
        assert_eq!(one_at_most(&default, true), after(1_000));
        assert_eq!(one_at_most(&default, false), after(300));
        let same = Arc::new(Exponential::new(Duration::from_millis(300)));
        let patch = Patch::from_iter([Setting::Backoff(same)]);
        assert_eq!(one_at_most(&default.patched([&patch]), true), after(300), "it was set");
        assert_eq!(one_at_most(&Policy::aresilient(), true), after(300));
    }

    #[test]
    fn hints_are_obeyed_as_the_policy_says() {
        use RetryAfter::{Floor, Ignored, Replaces};
        let by_hint = |after| waits(after, WaitSource::Hint(header::RETRY_AFTER));
        let too_long = Decision::Return(StopReason::HintTooLong);
        for (retry_after, jitter, after, expected) in [
            (Floor, Jitter::None, SECOND / 2, backoff()),
            (Floor, Jitter::None, SECOND, by_hint(SECOND)),
            (Floor, Jitter::None, 60 * SECOND, by_hint(60 * SECOND)),
            (Floor, Jitter::None, 61 * SECOND, too_long.clone()),
            (Floor, Jitter::Proportional(0.5), 4 * SECOND, by_hint(6 * SECOND)),
            (Floor, Jitter::Proportional(0.5), 50 * SECOND, by_hint(65 * SECOND)),
            (Floor, Jitter::Full, SECOND, by_hint(SECOND * 5 / 4)),
            (Floor, Jitter::Full, 60 * SECOND, by_hint(65 * SECOND)),
            (Floor, Jitter::Full, 61 * SECOND, too_long.clone()),
            (Replaces, Jitter::None, SECOND / 2, by_hint(SECOND / 2)),
            (Replaces, Jitter::None, 61 * SECOND, too_long),
            (Ignored, Jitter::None, 61 * SECOND, backoff()),
        ] {
            let policy = Policy { retry_after, jitter, ..policy() };
            let (mut retry, facts) = small(&policy);
            let facts = DecisionInput { random: 1.0, advice: hint("retry-after", after), ..facts };
            let decision = after_failure(&mut retry, &policy, &facts, MAYBE);
            assert_eq!(decision, expected, "{retry_after:?} {jitter:?} {after:?}");
        }
    }

    #[test]
    fn a_retry_follows_if_the_breaker_lets_it_through_soon() {
        let policy = policy();
        let ends = Decision::Return(StopReason::CircuitOpen);
        for (rejected_for, open_wait, expected) in [
            (SECOND, 2 * SECOND, backoff()),
            (3 * SECOND, 2 * SECOND, backoff()),
            (4 * SECOND, 2 * SECOND, ends.clone()),
            (4 * SECOND, 3 * SECOND, backoff()),
            (SECOND, Duration::ZERO, backoff()),
            (2 * SECOND, Duration::ZERO, ends),
        ] {
            let (mut retry, facts) = small(&policy);
            let facts = DecisionInput { rejected_for: Some(rejected_for), open_wait, ..facts };
            assert_eq!(after_failure(&mut retry, &policy, &facts, MAYBE), expected);
        }
    }

    #[test]
    fn no_wait_ends_at_the_deadline_or_after_it() {
        let millis = Duration::from_millis;
        for (total, rejected_for, expected) in [
            (1001, None, backoff()),
            (1000, None, Decision::Return(StopReason::Deadline)),
            (2001, Some(2 * SECOND), backoff()),
            (2000, Some(2 * SECOND), Decision::Return(StopReason::CircuitOpen)),
        ] {
            let policy = Policy { max_total_time: Some(millis(total)), ..policy() };
            let (mut retry, facts) = small(&policy);
            let facts = DecisionInput { rejected_for, ..facts };
            assert_eq!(after_failure(&mut retry, &policy, &facts, MAYBE), expected);
        }
    }

    #[test]
    fn a_stale_connection_is_replaced_at_once_but_only_once() {
        let policy = policy();
        let stale = Failure { may_be_stale: true, ..MAYBE };
        let at_once = waits(Duration::ZERO, WaitSource::Immediate);
        let (mut retry, facts) = small(&policy);
        assert_eq!(after_failure(&mut retry, &policy, &facts, stale), at_once);
        assert_eq!(after_failure(&mut retry, &policy, &facts, stale), backoff());
        let (mut large, _) = request(&policy, Repeat::Always, Upload::Large);
        assert_eq!(after_failure(&mut large, &policy, &facts, stale), backoff());

        let rejected = DecisionInput { rejected_for: Some(SECOND), ..facts.clone() };
        assert_eq!(after_failure(&mut small(&policy).0, &policy, &rejected, stale), backoff());
        let hinted = DecisionInput { advice: hint("retry-after", SECOND), ..facts.clone() };
        let decision = after_failure(&mut small(&policy).0, &policy, &hinted, stale);
        assert_eq!(decision, waits(SECOND, WaitSource::Hint(header::RETRY_AFTER)));

        for (status, connection, expected) in [
            (StatusCode::REQUEST_TIMEOUT, "close", &at_once),
            (StatusCode::REQUEST_TIMEOUT, "keep-alive, Close", &at_once),
            (StatusCode::REQUEST_TIMEOUT, "keep-alive", &backoff()),
            (StatusCode::BAD_GATEWAY, "close", &backoff()),
        ] {
            let (mut retry, facts) = small(&policy);
            let decision = after_answer(&mut retry, &policy, &facts, status, connection);
            assert_eq!(decision, *expected, "{status} {connection}");
        }
    }
}
