//! Settings that build on the default: verdicts, health, backoff, statuses, listeners.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Extensions, Method, StatusCode};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BreakerState, Constant, Event, Health, HttpRequestError, RequestBuilderExt,
    RequestInfo, ResilientConfig, ResilientConfigBuilder, ResponseExt, RetryAfter, RetryOverride,
    RetryVerdict, StopReason, WaitSource,
};

use crate::support::{URL, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

fn statuses(statuses: &[u16]) -> Vec<Reply> {
    statuses.iter().map(|it| Reply::status(*it)).collect()
}

/// Sends one request; returns its end and how often it was sent.
async fn send(
    config: ResilientConfigBuilder,
    method: Method,
    replies: &[u16],
) -> (Result<StatusCode, HttpRequestError>, Script) {
    let (client, script) = scripted(config.build().unwrap(), statuses(replies));
    let result = client.request(method, URL).send_resilient().await;
    (result.map(|it| it.status()), script)
}

#[tokio::test(start_paused = true)]
async fn also_and_never_are_one_line() {
    let also = || {
        steady().retry_if(|it| {
            it.default_verdict().is_retry() || it.status() == Some(StatusCode::NOT_FOUND)
        })
    };
    assert_eq!(send(also(), Method::GET, &[404, 503, 200]).await.1.sent().len(), 3);
    assert_eq!(send(also(), Method::GET, &[410, 200]).await.1.sent().len(), 1);
    let never = || {
        steady().retry_if(|it| {
            it.default_verdict().is_retry() && it.status() != Some(StatusCode::BAD_GATEWAY)
        })
    };
    assert_eq!(send(never(), Method::GET, &[503, 200]).await.1.sent().len(), 2);
    assert_eq!(send(never(), Method::GET, &[502, 200]).await.1.sent().len(), 1);
    // By the request's own statuses.
    let own = steady().retry_statuses(404).retry_if(|it| it.default_verdict());
    assert_eq!(send(own, Method::GET, &[404, 503, 200]).await.1.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_may_prove_that_nothing_was_processed() {
    let by = |verdict: fn() -> RetryVerdict| steady().retry_if(move |_| verdict());
    let (_, script) = send(by(|| RetryVerdict::Retry), Method::POST, &[403, 200]).await;
    assert_eq!(script.sent().len(), 1, "it may have been processed");
    let config = steady().retry_if(|it| match it.status() {
        Some(StatusCode::FORBIDDEN) => RetryVerdict::NotProcessed,
        _ => it.default_verdict(),
    });
    let (result, script) = send(config, Method::POST, &[403, 200]).await;
    assert_eq!((result.unwrap(), script.sent().len()), (StatusCode::OK, 2));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_may_name_a_wait() {
    let wait = |wait: Duration| {
        steady().retry_if(move |it| match it.status() {
            Some(StatusCode::ACCEPTED) => RetryVerdict::RetryAfter(wait),
            _ => it.default_verdict(),
        })
    };
    let (client, script) = scripted(wait(7 * SECOND).build().unwrap(), statuses(&[202, 200]));
    let response = client.get(URL).send().await.unwrap();
    let sent = script.sent();
    let waited = sent[1].at - sent[0].at;
    assert!((7 * SECOND..9 * SECOND).contains(&waited), "{waited:?}");
    assert!(matches!(
        response.history().unwrap().attempts()[0].wait,
        Some((_, WaitSource::HintFrom))
    ));
    let (result, script) = send(wait(61 * SECOND), Method::GET, &[202, 200]).await;
    let end = result.unwrap_err().stop_reason();
    assert_eq!((end, script.sent().len()), (StopReason::HintTooLong, 1));
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_a_verdict_is_capped_like_a_hint() {
    let config = steady().retry_after(RetryAfter::Capped(9 * SECOND));
    let config = config.retry_if(|it| match it.status() {
        Some(StatusCode::ACCEPTED) => RetryVerdict::RetryAfter(3_600 * SECOND),
        _ => it.default_verdict(),
    });
    let (result, script) = send(config, Method::GET, &[202, 200]).await;
    assert_eq!(result.unwrap(), StatusCode::OK);
    let sent = script.sent();
    assert_eq!(sent[1].at - sent[0].at, 9 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_may_end_a_request_with_an_error_of_its_own() {
    let config = steady().retry_if(|it| match it.body() {
        Some(b"expired") => RetryVerdict::Fail("the token has expired".into()),
        _ => it.default_verdict(),
    });
    let replies = [Reply::status(503), Reply::status(200).body("expired")];
    let (client, _) = scripted(config.read_body(99).build().unwrap(), replies.clone());
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!((error.stop_reason(), error.attempts()), (StopReason::Final, 2));
    assert!(format!("{error:#}").ends_with("the token has expired"), "{error:#}");
    let (client, _) =
        scripted(steady().retry_if(|_| RetryVerdict::Fail("no".into())).build().unwrap(), replies);
    assert!(client.get(URL).send().await.is_err(), "for those who call `send`, too");
}

#[tokio::test(start_paused = true)]
async fn health_may_build_on_the_default() {
    let rule = || BreakerConfig::consecutive(1);
    let state = async |config: ResilientConfigBuilder, status: u16| {
        let config = config.max_retries(0).circuit_breaker(rule()).build().unwrap();
        let resilient = reqwest_resilient::Resilient::new(config);
        let hosts = resilient.hosts().clone();
        let script = Script::new(statuses(&[status]));
        let client = reqwest_middleware::ClientBuilder::new(crate::support::idle_client());
        client.with(resilient).with(script).build().get(URL).send().await.unwrap();
        hosts.breaker(URL).state()
    };
    let but_501 = || {
        steady().breaker_health(|it| match it.status() {
            Some(StatusCode::NOT_IMPLEMENTED) => Some(Health::Success),
            _ => it.default_health(),
        })
    };
    assert_eq!(state(steady(), 501).await, BreakerState::Open);
    assert_eq!(state(but_501(), 501).await, BreakerState::Closed);
    assert_eq!(state(but_501(), 503).await, BreakerState::Open);
    // The caller's own verdict does not change the default health.
    let awaited = || steady().retry_if(|it| it.status() == Some(StatusCode::NOT_FOUND));
    assert_eq!(state(awaited().breaker_health(|it| it.default_health()), 404).await, {
        BreakerState::Closed
    });
}

#[tokio::test(start_paused = true)]
async fn a_backoff_may_see_the_outcome_or_leave_it_as_configured() {
    let config = steady().backoff(Constant::new(SECOND)).backoff_from(|it, retry| {
        let is_bad_gateway = it.status() == Some(StatusCode::BAD_GATEWAY);
        is_bad_gateway.then_some((retry + 5) * SECOND)
    });
    let (_, script) = send(config, Method::GET, &[503, 502, 502, 200]).await;
    let sent = script.sent();
    let waits: Vec<_> = sent.windows(2).map(|it| (it[1].at - it[0].at).as_secs()).collect();
    assert_eq!(waits, [1, 6, 7]);
}

#[tokio::test(start_paused = true)]
async fn statuses_may_be_ranges_and_mixed_lists() {
    for (config, retried, not) in [
        (steady().retry_statuses(500..=599), vec![500, 501, 599], vec![429, 408]),
        (steady().retry_statuses((408, 500..503)), vec![408, 502], vec![503]),
        (steady().retry_statuses([StatusCode::CONFLICT]), vec![409], vec![503]),
        (steady().retry_statuses([409, 418]), vec![409, 418], vec![503]),
    ] {
        for (status, sends) in
            retried.into_iter().map(|it| (it, 2)).chain(not.into_iter().map(|it| (it, 1)))
        {
            let (_, script) = send(config.clone(), Method::GET, &[status, 200]).await;
            assert_eq!(script.sent().len(), sends, "{status}");
        }
    }
    let error = ResilientConfig::builder()
        .retry_statuses((503, 42))
        .refused_statuses(1000..=1001)
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "retry_statuses must be from 100 to 999, got 42; \
         refused_statuses must be from 100 to 999, got 1000"
    );
}

#[tokio::test(start_paused = true)]
async fn listeners_of_an_override_come_after_those_of_the_client() {
    let calls = Arc::new(Mutex::new(vec![]));
    let note = |name: &'static str| {
        let calls = Arc::clone(&calls);
        move || calls.lock().unwrap().push(name)
    };
    let on_request = |name| {
        let note = note(name);
        move |_: &RequestInfo<'_>| note()
    };
    let on_event = |name| {
        let note = note(name);
        move |event: &Event<'_>| {
            if matches!(event, Event::AttemptStarted(_)) {
                note();
            }
        }
    };
    let config = steady()
        .on_request(on_request("client"))
        .on_event(on_event("client's observer"))
        .on_request(on_request("client again"));
    let (client, _) = scripted(config.build().unwrap(), statuses(&[200]));
    let scope = RetryOverride::new().on_request(on_request("scope"));
    let own = RetryOverride::new().on_request(on_request("request"));
    let send = client.get(URL).with_extension(own).send();
    scope.scope(send).await.unwrap();
    assert_eq!(
        *calls.lock().unwrap(),
        ["client", "client's observer", "client again", "scope", "request"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_hears_every_event_needs_no_annotation() {
    let seen = Arc::new(Mutex::new(0));
    let its = Arc::clone(&seen);
    let config = steady().on_event(move |event| {
        *its.lock().unwrap() += usize::from(event.request().is_some());
    });
    send(config, Method::GET, &[200]).await.0.unwrap();
    assert!(*seen.lock().unwrap() >= 3, "started, ended, succeeded");
}

/// What a caller attaches to a request.
#[derive(Clone)]
struct Tenant(&'static str);

#[tokio::test(start_paused = true)]
async fn listeners_and_predicates_see_the_extensions_of_the_request() {
    let seen = Arc::new(Mutex::new(vec![]));
    let note = {
        let seen = Arc::clone(&seen);
        move |what: &'static str, extensions: Option<&Extensions>| {
            let tenant = extensions.and_then(|it| it.get::<Tenant>()).map_or("none", |it| it.0);
            seen.lock().unwrap().push((what, tenant));
        }
    };
    let (one, two, three, four, five) =
        (note.clone(), note.clone(), note.clone(), note.clone(), note);
    let config = steady()
        .max_retries(1)
        .on_request(move |it| one("request", Some(it.extensions)))
        .on_event(move |it| {
            if let Event::AttemptEnded(outcome) = it {
                two("ended", outcome.extensions());
            }
        })
        .on_retry(move |it| three("retry", it.outcome.extensions()))
        .on_failure(move |it| four("failure", it.outcome.extensions()))
        .retry_if(move |it| {
            five("verdict", it.extensions());
            it.default_verdict()
        });
    let (client, _) = scripted(config.build().unwrap(), statuses(&[503]));
    client.get(URL).with_extension(Tenant("blue")).send().await.unwrap();
    let expected =
        ["request", "verdict", "ended", "retry", "request", "verdict", "ended", "failure"];
    assert_eq!(*seen.lock().unwrap(), expected.map(|it| (it, "blue")));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_knows_what_the_response_says_about_retries() {
    let seen = Arc::new(Mutex::new(vec![]));
    let its = Arc::clone(&seen);
    let judged = Arc::new(Mutex::new(vec![]));
    let judgements = Arc::clone(&judged);
    let config = steady()
        .on_event(move |event| {
            let outcome = match event {
                Event::AttemptEnded(outcome) => *outcome,
                Event::GaveUp(it) => it.outcome,
                Event::Waiting(it) => it.outcome,
                _ => return,
            };
            its.lock().unwrap().push((outcome.retry_in(), outcome.is_rate_limited()));
        })
        .retry_if(move |it| {
            judgements.lock().unwrap().push((it.retry_in(), it.is_rate_limited()));
            it.default_verdict()
        });
    let says = |status, text: &'static str| {
        let value = http::HeaderValue::from_static(text);
        Reply::status(status).header(http::header::RETRY_AFTER, value)
    };
    let replies = [says(503, "7"), says(429, "5"), Reply::status(503), says(403, "900")];
    let (client, _) = scripted(config.build().unwrap(), replies);
    client.get(URL).send().await.unwrap();
    let heard = [(Some(7), false), (Some(5), true), (None, false), (Some(900), true)];
    let heard = heard.map(|(it, limited)| (it.map(|it| it * SECOND), limited));
    assert_eq!(*judged.lock().unwrap(), heard);
    let twice: Vec<_> = heard.iter().flat_map(|it| [*it, *it]).collect();
    assert_eq!(*seen.lock().unwrap(), twice, "ended, and waiting or gave up");
}
