//! Retry hints: how long each service asks to wait, and what becomes of it.

mod services;

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Method};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    AttemptLog, HintFormat, HintHeaders, Outcome, RequestBuilderExt, ResilientConfigBuilder,
    ResponseExt, RetryAfter, StopReason, WaitSource,
};
use tokio::time::Instant;

use crate::support::{URL, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

/// [`steady`], with the clock of the services' examples.
fn in_2015() -> ResilientConfigBuilder {
    steady().wall_clock(|| UNIX_EPOCH + Duration::from_secs(1_445_412_480))
}

fn name(text: &str) -> HeaderName {
    HeaderName::from_bytes(text.as_bytes()).unwrap()
}

/// A reply with header lines as on the wire.
fn reply(status: u16, lines: &str) -> Reply {
    lines.lines().fold(Reply::status(status), |reply, line| {
        let (header, value) = line.split_once(':').unwrap();
        reply.header(name(header), HeaderValue::from_bytes(value.trim().as_bytes()).unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn every_service_is_understood() {
    assert!(services::ROWS.len() > 130, "{}", services::ROWS.len());
    let mut wrong = vec![];
    for (service, status, lines, seconds) in services::ROWS {
        let config = in_2015().max_retries(0).build().unwrap();
        let (client, _) = scripted(config, [reply(*status, lines)]);
        let response = client.get(URL).send().await.unwrap();
        let heard = response.retry_in();
        if heard != seconds.map(Duration::from_secs_f64) {
            wrong.push(format!("{service}: {heard:?} instead of {seconds:?} s by\n{lines}"));
        }
        let limited = *status == 429 || *status == 403 && seconds.is_some();
        assert_eq!(response.is_rate_limited(), limited, "{service}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the number of requests sent, the duration, and the stop reason.
async fn sent(
    client: &ClientWithMiddleware,
    method: Method,
) -> (u32, Duration, Option<StopReason>) {
    let (log, start) = (AttemptLog::new(), Instant::now());
    let _ = client.request(method, URL).with_extension(log.clone()).send().await;
    (log.attempts(), start.elapsed(), log.history().stop_reason())
}

#[tokio::test(start_paused = true)]
async fn every_status_that_carries_a_hint_obeys_it() {
    for status in [403, 408, 413, 425, 429, 500, 502, 503, 504, 529, 530] {
        let replies = || [reply(status, "retry-after: 30"), Reply::status(200)];
        let (client, _) = scripted(in_2015().build().unwrap(), replies());
        let expected = (2, 30 * SECOND, Some(StopReason::Success));
        assert_eq!(sent(&client, Method::GET).await, expected, "{status}");
    }
    // Without one, these are final.
    for status in [403, 413, 529, 530] {
        let (client, _) = scripted(in_2015().build().unwrap(), [Reply::status(status)]);
        let expected = (1, Duration::ZERO, Some(StopReason::Final));
        assert_eq!(sent(&client, Method::GET).await, expected, "{status}");
    }
    // And one does not make every status a passing one.
    for status in [400, 401, 404, 501, 505] {
        let (client, _) = scripted(in_2015().build().unwrap(), [reply(status, "retry-after: 30")]);
        assert_eq!(sent(&client, Method::GET).await.0, 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_header_does_not_decide_whether_a_post_is_sent_again() {
    let mut seen = vec![];
    for header in ["x-backoff", "x-my-retry-after", "retry-after", "x-my-wait"] {
        let hints = HintHeaders::none().with(name(header));
        let replies = [reply(503, &format!("{header}: 7")), Reply::status(200)];
        let (client, _) = scripted(in_2015().hint_headers(hints).build().unwrap(), replies);
        seen.push(sent(&client, Method::POST).await);
    }
    assert!(seen.iter().all(|it| *it == seen[0]), "{seen:?}");

    // Nor do names of resets.
    let mut seen = vec![];
    for header in ["x-reset", "x-reset-retry-after"] {
        let hints = HintHeaders::none().with_reset(name(header), name("x-left"));
        let replies = [reply(503, &format!("{header}: 7\nx-left: 0")), Reply::status(200)];
        let (client, _) = scripted(in_2015().hint_headers(hints).build().unwrap(), replies);
        seen.push(sent(&client, Method::POST).await);
    }
    assert_eq!(seen, [(1, Duration::ZERO, Some(StopReason::UnsafeToRepeat)); 2]);
}

#[tokio::test(start_paused = true)]
async fn servers_say_whether_to_retry() {
    let retried = async |status, lines: &str| {
        let replies = [reply(status, lines), Reply::status(200)];
        let (client, _) = scripted(in_2015().build().unwrap(), replies);
        sent(&client, Method::GET).await.0 == 2
    };
    for header in ["x-should-retry", "stripe-should-retry"] {
        assert!(retried(409, &format!("{header}: true")).await, "{header}");
        assert!(!retried(503, &format!("{header}: false")).await, "{header}");
        assert!(!retried(429, &format!("{header}: false\nretry-after: 1")).await, "{header}");
    }
    assert!(!retried(429, "x-envoy-ratelimited: true").await);
    assert!(retried(429, "x-envoy-ratelimited: true\nretry-after: 1").await);
    assert!(!retried(503, "grpc-retry-pushback-ms: -1").await);
    let hints = HintHeaders::default().with_format(name("x-go-away"), HintFormat::Veto);
    let replies = [reply(503, "x-go-away: 1\nretry-after: 1"), Reply::status(200)];
    let (client, _) = scripted(in_2015().hint_headers(hints).build().unwrap(), replies);
    assert_eq!(sent(&client, Method::GET).await.2, Some(StopReason::Vetoed));
}

#[tokio::test(start_paused = true)]
async fn a_header_of_ones_own_can_be_a_pushback() {
    let hints = HintHeaders::none().with_format(name("x-pushback"), HintFormat::Pushback);
    let pushed = async |value: &str| {
        let replies = [reply(503, &format!("x-pushback: {value}")), Reply::status(200)];
        let config = in_2015().hint_headers(hints.clone()).build().unwrap();
        sent(&scripted(config, replies).0, Method::GET).await
    };
    assert_eq!(pushed("7000").await, (2, 7 * SECOND, Some(StopReason::Success)));
    for no in ["-1", "soon"] {
        assert_eq!(pushed(no).await, (1, Duration::ZERO, Some(StopReason::Vetoed)), "{no}");
    }
}

/// The number after `key` in a body.
fn number_after(outcome: &Outcome<'_>, key: &str) -> Option<Duration> {
    let (_, rest) = std::str::from_utf8(outcome.body()?).ok()?.split_once(key)?;
    let digits = rest.trim_start_matches([':', ' ', '"']);
    let end = digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().map(Duration::from_secs)
}

#[tokio::test(start_paused = true)]
async fn hints_are_found_in_bodies() {
    let gemini = r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}"#;
    let telegram = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}"#;
    let json_rpc = r#"{"jsonrpc":"2.0","error":{"code":-32005,"message":"limit exceeded","data":{"see":"x","backoff_seconds":30}},"id":1}"#;
    for (status, body, key, seconds) in [
        (429, gemini, "\"retryDelay\"", 34),
        (429, telegram, "\"retry_after\"", 35),
        (200, json_rpc, "\"backoff_seconds\"", 30),
    ] {
        let config = in_2015()
            .read_body(64 * 1024)
            .retry_if(|it| it.status().is_some_and(|it| it != 200) || it.body() != Some(b"fine"))
            .hint_from(move |outcome| number_after(outcome, key))
            .build()
            .unwrap();
        let replies = [Reply::status(status).body(body), Reply::status(200).body("fine")];
        let (client, _) = scripted(config, replies);
        let (log, start) = (AttemptLog::new(), Instant::now());
        let request = client.get(URL).with_extension(log.clone());
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "fine");
        assert_eq!(start.elapsed(), seconds * SECOND, "{body}");
        let wait = log.history().attempts()[0].wait.clone();
        assert_eq!(wait, Some((seconds * SECOND, WaitSource::HintFrom)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_goes_before_headers_and_leaves_the_rest_to_them() {
    let config = || {
        in_2015()
            .hint_from(|it| (it.headers()?.get("x-plan")? == "free").then_some(90 * SECOND / 2))
    };
    let after = async |config: ResilientConfigBuilder, lines: &str| {
        let (client, _) =
            scripted(config.build().unwrap(), [reply(503, lines), Reply::status(200)]);
        sent(&client, Method::GET).await.1
    };
    assert_eq!(after(config(), "x-plan: free\nretry-after: 5").await, 45 * SECOND);
    assert_eq!(after(config(), "x-plan: paid\nretry-after: 5").await, 5 * SECOND);
    assert_eq!(
        after(config().without_hint_from(), "x-plan: free\nretry-after: 5").await,
        5 * SECOND
    );
    let capped = config().retry_after(RetryAfter::Capped(9 * SECOND));
    assert_eq!(after(capped, "x-plan: free").await, 9 * SECOND);
    let ignored = config().retry_after(RetryAfter::Ignored);
    assert_eq!(after(ignored, "x-plan: free").await, SECOND);
    // By an override, for one request; and a 403 that the function knows is a rate limit.
    let (client, _) =
        scripted(in_2015().build().unwrap(), [Reply::status(403), Reply::status(200)]);
    let its = reqwest_resilient::RetryOverride::new()
        .hint_from(|it| (it.status()? == 403).then_some(9 * SECOND));
    let start = Instant::now();
    client.get(URL).with_extension(its).send_resilient().await.unwrap();
    assert_eq!(start.elapsed(), 9 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_hint_that_was_heard_is_on_response_and_error() {
    for (config, status, lines, stop, heard, limited) in [
        (in_2015(), 429, "retry-after: 3600", StopReason::HintTooLong, Some(3600), true),
        (in_2015(), 403, "retry-after: 3600", StopReason::HintTooLong, Some(3600), true),
        (in_2015(), 503, "retry-after: 3600", StopReason::HintTooLong, Some(3600), false),
        (in_2015().max_retries(0), 429, "retry-after: 7", StopReason::Exhausted, Some(7), true),
        (in_2015().max_retries(0), 429, "x-no: 1", StopReason::Exhausted, None, true),
        (
            in_2015().max_total_time(SECOND),
            429,
            "retry-after: 7",
            StopReason::Deadline,
            Some(7),
            true,
        ),
        (in_2015(), 404, "retry-after: 7", StopReason::Final, Some(7), false),
        (
            // The wait is cut; the recorded hint is not.
            in_2015().retry_after(RetryAfter::Capped(SECOND)).max_retries(0),
            429,
            "retry-after: 3600",
            StopReason::Exhausted,
            Some(3600),
            true,
        ),
        (in_2015().gate(), 429, "retry-after: 3600", StopReason::HintTooLong, Some(3600), true),
        (
            in_2015().retry_after(RetryAfter::Ignored).max_retries(0),
            429,
            "retry-after: 7",
            StopReason::Exhausted,
            Some(7),
            true,
        ),
    ] {
        let heard = heard.map(Duration::from_secs);
        let config = config.build().unwrap();
        let (client, _) = scripted(config.clone(), [reply(status, lines)]);
        let response = client.get(URL).send().await.unwrap();
        assert_eq!(response.history().unwrap().stop_reason(), Some(stop), "{status} {lines}");
        assert_eq!((response.retry_in(), response.is_rate_limited()), (heard, limited));
        let (client, _) = scripted(config, [reply(status, lines)]);
        let error = client.get(URL).send_resilient().await.unwrap_err();
        assert_eq!((error.stop_reason(), error.status().unwrap().as_u16()), (stop, status));
        assert_eq!((error.retry_in(), error.is_rate_limited()), (heard, limited), "{lines}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_the_last_response_said_is_reported() {
    let replies = [reply(429, "retry-after: 7"), Reply::status(200)];
    let (client, _) = scripted(in_2015().build().unwrap(), replies);
    let response = client.get(URL).send().await.unwrap();
    assert_eq!((response.attempts(), response.retry_in()), (2, None));
    assert!(!response.is_rate_limited());
    let replies = [reply(429, "retry-after: 7"), Reply::status(404)];
    let (client, _) = scripted(in_2015().build().unwrap(), replies);
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!((error.retry_in(), error.is_rate_limited()), (None, false));
}
