//! Compares what happened with what the reference did, field by field.

use std::fmt::Debug;

use super::breaker;
use super::replay::{Got, Observed};
use super::schema::{Callback, Ended, Event, Expect, Field, Num, Request, Scenario};

pub(crate) struct Compared {
    pub(crate) differences: Vec<String>,
    /// The expectation beyond the reference's trace.
    pub(crate) amendment: Option<String>,
}

pub(crate) fn compare(scenario: &Scenario, request: &Request, observed: &Observed) -> Compared {
    let expected = request.expected();
    let normative = |field| {
        let flagged = &scenario.hazard_fields;
        !flagged.contains(&Field::All) && !flagged.contains(&field)
    };
    let mut differences = observed.lies.clone();
    // One end is reported, whatever the reference does, unless the caller's own predicate panics.
    let ends = usize::from(!matches!(observed.got, Got::Panicked(_)));
    if observed.ends != ends {
        differences.push(format!("{} ends were told, not {ends}", observed.ends));
    }
    let mut check = |field, same: bool, expected: &dyn Debug, observed: &dyn Debug| {
        if normative(field) && !same {
            differences.push(format!("{field:?}: expected {expected:?}, observed {observed:?}"));
        }
    };
    let slack = slack(expected);

    let attempts = (expected.attempts, observed.attempts);
    check(Field::Attempts, attempts.0 == attempts.1, &attempts.0, &attempts.1);

    let sleeps: Vec<_> = observed.sleeps().collect();
    let same = sleeps.len() == expected.sleeps.len()
        && expected.sleeps.iter().zip(&sleeps).all(|(Num(a), b)| near(*a, *b, tick(*a)));
    check(Field::Sleeps, same, &expected.sleeps, &sleeps);

    let elapsed = (expected.elapsed_s.0, observed.elapsed);
    check(Field::ElapsedS, near(elapsed.0, elapsed.1, slack), &elapsed.0, &elapsed.1);

    check(
        Field::Result,
        same_end(&expected.result, &observed.got),
        &expected.result,
        &observed.got,
    );

    let breakers = (&expected.breaker, &observed.breaker);
    let late = scenario.requests.iter().map(|it| self::slack(it.expected())).sum();
    let same = match breakers {
        (Some(expected), Some(observed)) => breaker::same(expected, observed, late),
        (expected, observed) => expected.is_none() && observed.is_none(),
    };
    check(Field::Breaker, same, breakers.0, breakers.1);

    if let Some(bodies) = &expected.bodies_sent {
        let sent = &observed.bodies_sent;
        check(Field::BodiesSent, bodies == sent, bodies, sent);
    }

    let mut trace = expected.trace.clone();
    let amendment = missing_failure(scenario, request).filter(|_| normative(Field::Trace));
    trace.extend(amendment.clone());
    let same = trace.len() == observed.trace.len()
        && trace.iter().zip(&observed.trace).all(|(a, b)| same_event(a, b, slack));
    check(Field::Trace, same, &trace, &observed.trace);
    Compared { differences, amendment: amendment.map(|it| format!("{it:?} was added")) }
}

/// The `on_failure` that the reference owes: every request ends in exactly one terminal callback,
/// unless the caller's own predicate ends it.
pub(crate) fn missing_failure(scenario: &Scenario, request: &Request) -> Option<Event> {
    let Expect { attempts, elapsed_s, result, trace, .. } = request.expected();
    if !scenario.callbacks.contains(&Callback::Failure) {
        return None;
    }
    if let Some(
        Event::OnSuccess { .. } | Event::OnFailure { .. } | Event::RetryIf { returns: None, .. },
    ) = trace.last()
    {
        return None;
    }
    let (status, error, cause) = match result {
        Ended::HttpRequestError { message, status_code, cause, .. } => {
            (*status_code, message.clone(), *cause)
        }
        Ended::Escaped { message, .. } => {
            let Request { method, url, .. } = request;
            let message =
                format!("{method} request to {url} failed after {attempts} attempts: {message}");
            (None, message, super::replay::reply(request, *attempts).and_then(|it| it.error))
        }
        Ended::CircuitOpen { message } => {
            let Request { method, url, .. } = request;
            let rejected = format!("was rejected after {attempts} attempts: {message}");
            (None, format!("{method} request to {url} {rejected}"), None)
        }
        Ended::Response { .. } | Ended::Hang {} => return None,
    };
    Some(Event::OnFailure { attempt: *attempts, status, error, cause, total_time: *elapsed_s })
}

/// Returns the tolerance of tokio's timer, which ticks in milliseconds.
pub(crate) fn tick(seconds: f64) -> f64 {
    let millis = seconds * 1e3;
    if (millis - millis.round()).abs() < 1e-6 { 0.0 } else { 1e-3 }
}

/// Returns the tolerance of a request's end: every wait may be a tick longer.
fn slack(expected: &Expect) -> f64 {
    expected.sleeps.iter().map(|it| tick(it.0)).sum()
}

pub(crate) fn near(expected: f64, observed: f64, late: f64) -> bool {
    (-1e-6..=late + 1e-6).contains(&(observed - expected))
}

fn same_end(expected: &Ended, got: &Got) -> bool {
    match (expected, got) {
        (
            Ended::Response { status, body },
            Got::Response { status: got_status, body: got_body },
        ) => status == got_status && body == got_body,
        (Ended::HttpRequestError { message, status_code, body, cause }, Got::Failed(got)) => {
            (message, status_code, body, cause)
                == (&got.message, &got.status, &got.body, &got.cause)
        }
        (Ended::CircuitOpen { message }, Got::Failed(got)) => {
            got.rejected.as_ref() == Some(message)
        }
        (Ended::Escaped { message, .. }, Got::Panicked(got)) => message == got,
        // Another middleware's error is returned unchanged.
        (Ended::Escaped { message, .. }, Got::Failed(got)) => got.foreign.as_ref() == Some(message),
        _ => false,
    }
}

fn same_event(expected: &Event, observed: &Event, slack: f64) -> bool {
    use Event::{Breaker, OnFailure, OnRequest, OnRetry, OnSuccess, RetryIf, Send, Sleep};

    match (expected, observed) {
        (OnRequest { attempt: a }, OnRequest { attempt: b })
        | (Send { attempt: a }, Send { attempt: b }) => a == b,
        (RetryIf { status: s, error: e, returns: r }, RetryIf { status, error, returns }) => {
            (s, e, r) == (status, error, returns)
        }
        (
            OnRetry { attempt: a, wait_time: w, status: s, error: e },
            OnRetry { attempt, wait_time, status, error },
        ) => (a, s, e) == (attempt, status, error) && near(w.0, wait_time.0, 1e-6),
        (Sleep { s: a, raised: None }, Sleep { s: b, .. }) => near(a.0, b.0, tick(a.0)),
        (
            OnSuccess { attempt: a, status: s, total_time: t },
            OnSuccess { attempt, status, total_time },
        ) => (a, s) == (attempt, status) && near(t.0, total_time.0, slack),
        (
            OnFailure { attempt: a, status: s, error: e, cause: c, total_time: t },
            OnFailure { attempt, status, error, cause, total_time },
        ) => (a, s, e, c) == (attempt, status, error, cause) && near(t.0, total_time.0, slack),
        (Breaker { from: a, to: b }, Breaker { from, to }) => (a, b) == (from, to),
        _ => false,
    }
}
