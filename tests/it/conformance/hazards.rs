//! The assertions in place of the reference's hazards: one function for each, under its name in the
//! corpus, according to its `instead`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use reqwest_resilient::{Backoff as _, Delivery, Health, StopReason};

use super::breaker;
use super::compare::{missing_failure, near, tick};
use super::replay::{self, Failed, Got, Observed, Without};
use super::schema::{
    Backoff, BodyKind, BreakerState, Ended, Event, Expected, FORCELIST, Growing, Num, Reply,
    Request, Scenario, State,
};
use super::settings::{self, Refused};

/// Returns the faults after a request of a scenario with this hazard.
pub(crate) fn check(
    hazard: &str,
    scenario: &Scenario,
    request: &Request,
    observed: &Observed,
) -> Vec<String> {
    let mut case = Case { hazard, scenario, request, observed, wrong: vec![] };
    if case.was_rejected() {
        case.a_rejection_sends_nothing();
    } else if observed.attempts == 0 || replay::reply(request, observed.attempts).is_none() {
        case.wrong("made other attempts than are scripted");
        return case.wrong;
    }
    match hazard {
        "H11" => case.h11_the_wall_clock_does_not_matter(),
        "H12" => case.h12_nothing_is_sent_while_it_is_open(),
        "H13" | "H19" => case.h13_h19_every_failure_counts(),
        "H14" => case.h14_one_probe_at_a_time(),
        "H15" => case.h15_every_answer_counts(),
        "H16" => case.h16_what_comes_too_late_does_not_matter(),
        // The rest is about attempts.
        _ if case.was_rejected() => {}
        "H01" => case.h01_only_what_was_not_processed_is_sent_again(),
        "H02" => case.h02_only_the_last_attempt_counts(),
        "H03" => case.h03_a_retry_tells_of_one_outcome(),
        "H04" => case.h04_nothing_outlasts_the_total_time(),
        "H05" => case.h05_the_error_tells_the_truth(),
        "H06" => case.h06_jitter_stays_under_the_cap(),
        "H07" => case.h07_nobody_comes_back_too_early(),
        "H08" => case.h08_no_hint_is_slept_for_hours(),
        "H09" => case.h09_what_is_no_number_is_no_hint(),
        "H10" => case.h10_every_http_date_is_read(),
        "H20" => case.h20_the_missing_failure_is_told(),
        "H21" => case.h21_what_a_callback_raises_does_not_matter(),
        "H22" => case.h22_a_success_to_be_retried_is_handed_back(),
        "H23" => case.h23_what_is_permanent_is_not_retried(),
        "H24" => case.h24_a_body_that_is_gone_is_not_sent_again(),
        "H25" => case.h25_listed_statuses_are_honoured(),
        "H27" => case.wrong("these settings should have been refused"),
        "H28" => case.h28_a_backoff_does_not_overflow(),
        "H29" => case.h29_no_secret_is_shown(),
        _ => case.wrong("nothing is asserted in place of this hazard"),
    }
    case.wrong
}

/// Returns the faults of rejected settings: none where a hazard asks for the rejection.
pub(crate) fn refused(scenario: &Scenario, refused: &Refused) -> Vec<String> {
    let asked_for = |it: &String| matches!(it.as_str(), "H09" | "H25" | "H27" | "H28");
    if scenario.hazard_ids.iter().any(asked_for) {
        return vec![];
    }
    vec![format!("the settings were refused: {refused:?}")]
}

struct Case<'a> {
    hazard: &'a str,
    scenario: &'a Scenario,
    request: &'a Request,
    observed: &'a Observed,
    wrong: Vec<String>,
}

/// The longest wait of the reference's preset, in seconds.
const LONGEST_WAIT: f64 = 3_599.0;

impl Case<'_> {
    fn h01_only_what_was_not_processed_is_sent_again(&mut self) {
        for attempt in 1..=self.observed.attempts {
            let reply = self.reply(attempt);
            let untouched = match reply.status {
                Some(status) => status == 425 || status == 429,
                None => self.observed.deliveries[attempt - 1] == Delivery::NotSent,
            };
            let last = attempt == self.observed.attempts;
            let success = reply.status.is_some_and(|it| it < 400);
            if untouched || success {
                continue;
            }
            self.hold(last, "was sent again although it may have been processed");
            self.ends_like(attempt);
            self.stopped_for(StopReason::UnsafeToRepeat);
        }
    }

    fn h02_only_the_last_attempt_counts(&mut self) {
        self.waits_are_due();
        self.h03_a_retry_tells_of_one_outcome();
        self.ends_like(self.observed.attempts);
    }

    fn h03_a_retry_tells_of_one_outcome(&mut self) {
        let mut told = vec![];
        for event in &self.observed.trace {
            if let Event::OnRetry { attempt, status, error, .. } = event {
                told.push((*attempt, *status, *error));
            }
        }
        for (attempt, status, error) in told {
            let reply = self.reply(attempt - 1);
            self.hold((status, error) == (reply.status, reply.error), "told of another attempt");
        }
    }

    fn h04_nothing_outlasts_the_total_time(&mut self) {
        let Some(Num(total)) = self.scenario.config.max_total_time else {
            return self.wrong("no total time is set");
        };
        self.hold(self.observed.elapsed <= total + 1e-3, "took longer than the total time");
        self.waits_are_due();
        let (ended, _) = *self.observed.ended.last().expect("an attempt");
        if let Some(Failed { stop: StopReason::Deadline, .. }) = self.observed.failed() {
            let gave_up_for_nothing = ended + self.due(self.observed.attempts) < total;
            self.hold(!gave_up_for_nothing, "another attempt would have fitted");
            self.hold(near(ended, self.observed.elapsed, 0.0), "slept before it gave up");
        }
    }

    fn h05_the_error_tells_the_truth(&mut self) {
        let Some(failed) = self.observed.failed() else { return };
        let attempts = self.observed.attempts;
        self.hold(failed.attempts == attempts, "counts other attempts");
        let counted = failed.message.contains(&format!("after {attempts} attempts"))
            || failed.message.contains(&format!("({attempts} attempts)"));
        self.hold(counted, "does not say how many attempts");
        let deadline = failed.stop == StopReason::Deadline;
        let says_so = failed.message.contains("(max_total_time exceeded)");
        self.hold(deadline == says_so, "does not say why it ended");
        if !self.was_cut() {
            self.ends_like(attempts);
        }
    }

    /// Amends `jitter/exceeds-max-wait-time` and `jitter/exceeds-max-delay`: the reference caps,
    /// then adds the jitter, and waits beyond its cap. To cap after it would give all clients at
    /// the cap the same wait, so that they retry in step. Here the range ends at the cap.
    fn h06_jitter_stays_under_the_cap(&mut self) {
        let cap = self.cap();
        let longest = self.observed.sleeps().fold(0.0, f64::max);
        self.hold(longest <= cap + tick(cap) + 1e-6, "slept longer than the cap");
        self.waits_are_due();
    }

    fn h07_nobody_comes_back_too_early(&mut self) {
        let sleeps: Vec<_> = self.observed.sleeps().collect();
        for attempt in 1..=self.observed.attempts {
            let Some(hint) = self.hint(attempt) else { continue };
            match sleeps.get(attempt - 1) {
                Some(slept) => self.hold(*slept >= hint - 1e-6, "came back too early"),
                None if hint > self.longest_wait() => {
                    self.stopped_for(StopReason::HintTooLong);
                    self.ends_like(attempt);
                    let said = self.reply(attempt).header("retry-after").concat();
                    let kept = self.observed.failed().and_then(|it| it.retry_after.clone());
                    self.hold(kept == Some(said), "the hint was lost");
                }
                None => {}
            }
        }
    }

    fn h08_no_hint_is_slept_for_hours(&mut self) {
        self.hold(self.observed.sleeps().all(|it| it <= LONGEST_WAIT), "slept for an hour");
        self.h07_nobody_comes_back_too_early();
    }

    fn h09_what_is_no_number_is_no_hint(&mut self) {
        self.waits_are_due();
        if let Some(at) = (1..=self.observed.attempts).find(|it| self.is_settled(*it)) {
            self.hold(at == self.observed.attempts, "went on after the end");
            self.ends_like(at);
        }
    }

    fn h10_every_http_date_is_read(&mut self) {
        let dated = self.hint(1).is_some();
        self.hold(dated, "is no date that has to be read");
        self.waits_are_due();
    }

    fn h11_the_wall_clock_does_not_matter(&mut self) {
        self.is_the_same_without(Without { wall_jumps: true, ..Without::default() });
        if self.scenario.config.max_total_time.is_some() {
            self.h04_nothing_outlasts_the_total_time();
        }
    }

    fn h12_nothing_is_sent_while_it_is_open(&mut self) {
        let Some(mut state) = self.found() else { return };
        let mut waited = 0.0;
        for event in self.observed.trace.clone() {
            match event {
                Event::Breaker { to, .. } => {
                    let early = to == State::HalfOpen && waited > 0.0 && waited < self.recovery();
                    self.hold(!early, "asked again while it was open");
                    (state, waited) = (to, 0.0);
                }
                Event::Sleep { s, .. } => waited += s.0,
                Event::Send { .. } => self.hold(state != State::Open, "was sent all the same"),
                _ => {}
            }
        }
        if !self.was_rejected() {
            self.ends_like(self.observed.attempts);
        }
    }

    fn h13_h19_every_failure_counts(&mut self) {
        let Some((found, left)) = self.breakers() else { return };
        // Requests made meanwhile are checked by themselves.
        let alone = (1..=self.observed.attempts).all(|it| self.reply(it).during.is_empty());
        let count = self.observed.healths.iter().fold(found, |count, health| match health {
            Some(Health::Success) => 0,
            Some(Health::Failure) => count + 1,
            _ => count,
        });
        self.hold(!alone || left.failure_count == count, "failures were counted otherwise");
        let told = (1..=self.observed.attempts).all(|attempt| {
            let failed = self.reply(attempt).error.is_some_and(|it| !it.is_permanent());
            !failed || self.expects_some() || self.health(attempt) == Some(Health::Failure)
        });
        self.hold(told, "a failure was not counted");
    }

    fn h14_one_probe_at_a_time(&mut self) {
        let probes = self.observed.found.as_ref().map_or(0, |it| it.probes_out);
        self.hold(probes <= 1, "more than one probe was under way");
        self.hold(probes == 0 || self.was_rejected(), "was let through beside a probe");
        let half_open = self.breakers().is_some_and(|(_, left)| left.state == State::HalfOpen);
        self.hold(half_open == (probes > 0), "a probe is over only for itself");
    }

    fn h15_every_answer_counts(&mut self) {
        self.h13_h19_every_failure_counts();
        for attempt in 1..=self.observed.attempts {
            let Some(status) = self.reply(attempt).status else { continue };
            let health = self.health(attempt);
            let well = !matches!(status, 408 | 429 | 500..);
            self.hold(health.is_some() || self.expects_some(), "an answer did not count");
            let judged = self.scenario.config.retry_if.is_some() || !self.is_settled(attempt);
            self.hold(!well || judged || health == Some(Health::Success), "a healthy answer");
            self.hold(well || health != Some(Health::Success), "an answer that is not healthy");
        }
        self.h14_one_probe_at_a_time();
    }

    /// The breaker is compared with its model after every request, generations included.
    fn h16_what_comes_too_late_does_not_matter(&mut self) {
        let Some((_, left)) = self.breakers() else { return };
        let forgot = left.state == State::Open && left.failure_count == 0;
        self.hold(!forgot, "is open without failures");
        let rejected = self.observed.failed().and_then(|it| it.rejected.clone());
        let forgot = rejected.is_some_and(|it| it.contains("failed 0 times"));
        self.hold(!forgot, "rejects without failures");
    }

    fn h20_the_missing_failure_is_told(&mut self) {
        let Some(missing) = missing_failure(self.scenario, self.request) else { return };
        let told = self.observed.trace.last().map(|it| format!("{it:?}"));
        self.hold(told == Some(format!("{missing:?}")), "the failure was not told");
    }

    fn h21_what_a_callback_raises_does_not_matter(&mut self) {
        match (&self.scenario.config.retry_if, &self.observed.got) {
            (Some(pred), Got::Panicked(message)) if pred.raises.is_some() => {
                self.hold(message == "raised by retry_if", "raised something else");
                self.hold(self.observed.attempts == 1, "went on after the predicate raised");
            }
            _ => self.is_the_same_without(Without { raising: true, ..Without::default() }),
        }
    }

    fn h22_a_success_to_be_retried_is_handed_back(&mut self) {
        self.ends_like(self.observed.attempts);
        let asked = self.observed.trace.iter().rev().find_map(|it| match it {
            Event::RetryIf { returns, .. } => *returns,
            _ => None,
        });
        let Some(failed) = self.observed.failed() else {
            return self.hold(asked == Some(false), "was taken for a success");
        };
        let own_words = failed.message.contains("is still to be retried with status");
        self.hold(own_words == failed.status.is_some_and(|it| it < 400), "is no failed status");
    }

    fn h23_what_is_permanent_is_not_retried(&mut self) {
        // A predicate decides in place of what is known about errors.
        let known = self.scenario.config.retry_if.is_none();
        for attempt in (1..=self.observed.attempts).filter(|_| known) {
            if self.reply(attempt).error.is_some_and(|it| it.is_permanent()) {
                self.hold(attempt == self.observed.attempts, "was retried in vain");
                self.stopped_for(StopReason::Final);
                self.ends_like(attempt);
            }
        }
    }

    fn h24_a_body_that_is_gone_is_not_sent_again(&mut self) {
        let Some(body) = self.request.body.as_ref().filter(|it| it.kind == BodyKind::Stream) else {
            return self.wrong("no body that can be sent only once");
        };
        let sent = &self.observed.bodies_sent;
        self.hold(*sent == [body.data.as_str()], "was not sent exactly once");
        self.stopped_for(StopReason::NotReplayable);
        self.ends_like(1);
    }

    fn h25_listed_statuses_are_honoured(&mut self) {
        let retries = self.scenario.config.max_retries.map_or(3, |it| it.0 as usize);
        let settled = (1..=retries).find(|it| self.is_settled(*it)).unwrap_or(retries + 1);
        self.hold(self.observed.attempts == settled, "was not retried as listed");
    }

    fn h28_a_backoff_does_not_overflow(&mut self) {
        self.hold(self.observed.sleeps().all(|it| it <= self.cap() + 1e-3), "slept too long");
    }

    fn h29_no_secret_is_shown(&mut self) {
        let Some(failed) = self.observed.failed() else {
            return self.wrong("no message to look at");
        };
        let Ended::HttpRequestError { message, .. } = &self.request.expected().result else {
            return self.wrong("the reference had no message");
        };
        let mut shown = reqwest::Url::parse(&self.request.url).expect("a url");
        let query = shown.query().unwrap_or_default().to_owned();
        shown.set_query(None);
        shown.set_username("").and_then(|()| shown.set_password(None)).expect("a host");
        let redacted = message.replace(&self.request.url, shown.as_str());
        self.hold(failed.message == redacted, "the message is another one");
        let told = format!("{:?}", self.observed.trace);
        for secret in query.split('&').chain(["hunter2"]) {
            let hidden = |text: &str| secret.is_empty() || !text.contains(secret);
            self.hold(hidden(&failed.message) && hidden(&failed.debug), "shows a secret");
            self.hold(hidden(&told), "tells a secret");
        }
        let kept = failed.url.as_ref().and_then(|it| it.query());
        self.hold(kept.unwrap_or_default() == query, "the whole url is lost");
    }
}

impl Case<'_> {
    fn wrong(&mut self, what: &str) {
        let Observed { got, trace, .. } = self.observed;
        self.wrong.push(format!("{}: {what}: {got:?}, {trace:?}", self.hazard));
    }

    fn was_rejected(&self) -> bool {
        self.observed.failed().is_some_and(|it| it.rejected.is_some())
    }

    fn a_rejection_sends_nothing(&mut self) {
        let sent = self.observed.trace.iter().any(|it| matches!(it, Event::Send { .. }));
        self.hold(sent == (self.observed.attempts > 0), "a rejection was sent");
        self.stopped_for(StopReason::CircuitOpen);
    }

    /// The state of the circuit breaker that the request found.
    fn found(&mut self) -> Option<State> {
        let found = self.observed.found.as_ref().map(|it| breaker::name(it.state));
        self.hold(found.is_some(), "no breaker");
        found
    }

    /// Returns the failures in a row before the request, and the state of the breaker after it.
    fn breakers(&mut self) -> Option<(u32, BreakerState)> {
        self.found()?;
        let found = self.observed.found.as_ref()?.consecutive_failures;
        Some((found, self.observed.breaker.clone()?))
    }

    fn recovery(&self) -> f64 {
        let written = self.scenario.config.circuit_breaker.as_ref();
        written.and_then(|it| it.recovery_timeout).map_or(60.0, |it| it.0)
    }

    /// Returns whether the circuit breaker expects some failures, and statuses are not among them.
    fn expects_some(&self) -> bool {
        let written = self.scenario.config.circuit_breaker.as_ref();
        let expected = written.and_then(|it| it.expected.as_ref());
        expected.is_some_and(|it| !it.contains(&Expected::HttpStatus))
    }

    fn health(&self, attempt: usize) -> Option<Health> {
        self.observed.healths.get(attempt - 1).copied().flatten()
    }

    fn hold(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.wrong(otherwise);
        }
    }

    fn reply(&self, attempt: usize) -> &Reply {
        replay::reply(self.request, attempt).expect("a scripted reply")
    }

    /// Returns whether the listed statuses do not retry this attempt's outcome.
    fn is_settled(&self, attempt: usize) -> bool {
        let list = self.scenario.config.status_forcelist.as_deref();
        let listed = |it| list.unwrap_or(&FORCELIST).contains(&i64::from(it));
        let reply = self.reply(attempt);
        reply.status.is_some_and(|it| !listed(it))
            || reply.error.is_some_and(|it| it.is_permanent())
    }

    /// Returns whether the last attempt was cut, so that its scripted reply never came.
    fn was_cut(&self) -> bool {
        let failed = self.observed.failed();
        failed.is_some_and(|it| it.status.is_none() && it.cause.is_none())
    }

    fn stopped_for(&mut self, reason: StopReason) {
        let stop = self.observed.failed().map(|it| it.stop);
        self.hold(stop == Some(reason), reason.as_str());
    }

    /// Checks that the result is the outcome of this attempt, and of no other.
    fn ends_like(&mut self, attempt: usize) {
        if self.was_cut() {
            return;
        }
        let reply = self.reply(attempt);
        let same = match &self.observed.got {
            Got::Response { status, body } => Some(*status) == reply.status && *body == reply.body,
            Got::Failed(it) => {
                let body = reply.status.is_some().then_some(&reply.body);
                (it.status, it.cause, it.body.as_ref()) == (reply.status, reply.error, body)
            }
            Got::Panicked(_) => false,
        };
        self.hold(same, "ends with another outcome");
    }

    fn waits_are_due(&mut self) {
        for (i, slept) in self.observed.sleeps().enumerate() {
            let due = self.due(i + 1);
            self.hold(near(due, slept, tick(due)), &format!("{due} s were due, not {slept} s"));
        }
    }

    fn longest_wait(&self) -> f64 {
        self.scenario.config.max_wait_time.map_or(LONGEST_WAIT, |it| it.0)
    }

    /// The longest backoff.
    fn cap(&self) -> f64 {
        let max_delay = match &self.scenario.config.backoff {
            Some(Backoff::Exponential(it) | Backoff::Fibonacci(it) | Backoff::Linear(it)) => {
                it.max_delay
            }
            _ => None,
        };
        self.longest_wait().min(max_delay.map_or(f64::INFINITY, |it| it.0))
    }

    /// The wait after this attempt, by its own outcome: the hint or the backoff, jittered, capped.
    fn due(&self, attempt: usize) -> f64 {
        let Scenario { config, rng, .. } = self.scenario;
        let share = config.jitter_factor.map_or(0.0, |it| it.0);
        let unit = rng[(attempt - 1) % rng.len()];
        let (delay, cap) = match self.hint(attempt) {
            // A hint is spread upward only, beyond the longest one by so much at most.
            Some(hint) => {
                let room = self.longest_wait() - hint + (hint / 4.0).clamp(0.25, 5.0);
                return hint + unit * (share * hint).min(room);
            }
            None => {
                let default = Backoff::Exponential(Growing::default());
                let backoff = settings::backoff(config.backoff.as_ref().unwrap_or(&default));
                let backoff = backoff.expect("a backoff").delay(attempt as u32 - 1);
                (backoff.as_secs_f64(), self.cap())
            }
        };
        let low = delay.min(cap / (1.0 + share));
        low + unit * ((delay * (1.0 + share)).min(cap) - low)
    }

    /// The Retry-After of this attempt: digits, or one of the three forms of an HTTP-date.
    fn hint(&self, attempt: usize) -> Option<f64> {
        let [value] = self.reply(attempt).header("retry-after")[..] else { return None };
        let (_, wall_clock) = *self.observed.ended.get(attempt - 1)?;
        hint(value, wall_clock)
    }

    /// Checks that the whole scenario goes the same way without what should not matter.
    fn is_the_same_without(&mut self, without: Without) {
        let plays =
            replay::replay(self.scenario, without).expect("settings that were built before");
        let at = |it: &replay::Play| std::ptr::eq(&*it.0, self.request);
        let other = &plays.iter().find(|it| at(it)).expect("the same request").1;
        let seen = |it: &Observed| format!("{:?} {:?} {}", it.trace, it.got, it.elapsed);
        self.hold(seen(other) == seen(self.observed), "it mattered");
    }
}

/// Seconds, or what is left until a date: written for the tests, to check the crate's own reader.
pub(crate) fn hint(value: &str, now: SystemTime) -> Option<f64> {
    let value = value.trim_ascii();
    let digits = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    if digits(whole) && digits(fraction) {
        return value.parse().ok();
    }
    let date = date(value, now)?;
    Some(date.duration_since(now).map_or(0.0, |it| it.as_secs_f64()))
}

fn date(value: &str, now: SystemTime) -> Option<SystemTime> {
    const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const FIFTY_YEARS: Duration = Duration::from_secs(50 * 31_556_952);
    let Some((_, date)) = value.split_once(", ") else {
        return httpdate::parse_http_date(value).ok();
    };
    let read = |date: &str| {
        let with = |weekday: &str| httpdate::parse_http_date(&format!("{weekday}, {date}")).ok();
        WEEKDAYS.into_iter().find_map(with)
    };
    let (dashed, time) = date.split_once(' ')?;
    let [day, month, year] = dashed.split('-').collect::<Vec<_>>()[..] else {
        return read(date);
    };
    // RFC 850 writes two digits of the year; a date more than 50 years ahead is of the last
    // century. `httpdate` knows nothing before 1970, which is past all the same.
    let in_century = |it: u32| read(&format!("{day} {month} {it}{year} {time}"));
    match in_century(20)? {
        date if date <= now + FIFTY_YEARS => Some(date),
        _ => in_century(19).or(Some(UNIX_EPOCH)),
    }
}

/// Returns whether a status is valid.
pub(crate) fn is_status(code: i64) -> bool {
    u16::try_from(code).is_ok_and(|it| StatusCode::from_u16(it).is_ok())
}
