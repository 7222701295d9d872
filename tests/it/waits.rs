//! The waits between attempts, in virtual time: clients that failed together do not come back
//! together, and each waits as long as its settings say.

use std::time::Duration;

use http::{HeaderValue, header};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    Constant, Exponential, Jitter, ResilientConfig, ResilientConfigBuilder, RetryOverride,
};

use crate::support::{URL, scripted, steady};

const SECOND: Duration = Duration::from_secs(1);

/// A response with this status and `Retry-After`.
fn come_back_in(status: u16, value: &'static str) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from_static(value))
}

/// A rate limit as GitHub tells it.
fn limited_403() -> Reply {
    let remaining = header::HeaderName::from_static("x-ratelimit-remaining");
    come_back_in(403, "0").header(remaining, HeaderValue::from_static("0"))
}

/// The default settings without what is kept of hosts; jitter draws `unit`.
fn lone(unit: f64) -> ResilientConfigBuilder {
    let config = ResilientConfig::builder().without_circuit_breaker().without_retry_budget();
    config.without_gate().random(move || unit)
}

/// The waits of one request whose attempts end in `replies`; the last one repeats.
async fn waits(
    config: ResilientConfigBuilder,
    replies: impl IntoIterator<Item = Reply>,
) -> Vec<Duration> {
    let (client, script) = scripted(config.build().unwrap(), replies);
    client.get(URL).send().await.unwrap();
    between(&script)
}

fn between(script: &Script) -> Vec<Duration> {
    script.sent().windows(2).map(|it| it[1].at - it[0].at).collect()
}

fn millis(waits: &[Duration]) -> Vec<u128> {
    waits.iter().map(Duration::as_millis).collect()
}

#[tokio::test(start_paused = true)]
async fn clients_at_a_cap_do_not_come_back_in_step() {
    let capped = Exponential::new(SECOND).max_delay(4 * SECOND);
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Proportional(0.5)] {
        let mut last = vec![];
        for unit in [0.0, 0.5, 1.0] {
            let config = lone(unit).backoff(capped).jitter(jitter).max_retries(5);
            last.extend(waits(config, [Reply::status(503)]).await.pop());
        }
        let apart = last.windows(2).all(|it| it[1] - it[0] >= SECOND / 2);
        assert!(apart && last[2] <= 4 * SECOND, "{jitter:?}: {last:?}");
    }
    // `max_wait_time` is a cap as well.
    let wait = async |unit| {
        let config = lone(unit).backoff(Constant::new(90 * SECOND)).max_wait_time(3 * SECOND);
        waits(config.jitter(Jitter::Proportional(0.5)).max_retries(1), [Reply::status(503)]).await
    };
    assert_eq!(millis(&wait(0.0).await), [2_000]);
    assert_eq!(millis(&wait(1.0).await), [3_000]);
}

#[tokio::test(start_paused = true)]
async fn clients_that_heard_the_same_hint_do_not_come_back_in_step() {
    for (hint, least, most) in [
        ("1", 1_000, 1_250),
        ("10", 10_000, 12_500),
        ("40", 40_000, 45_000),
        // The spread comes on top of the longest hint, too.
        ("60", 60_000, 65_000),
    ] {
        for jitter in [Jitter::Full, Jitter::Equal] {
            for (unit, expected) in [(0.0, least), (1.0, most)] {
                let config = lone(unit).jitter(jitter).max_retries(1);
                let waits = waits(config, [come_back_in(503, hint)]).await;
                assert_eq!(millis(&waits), [expected], "{hint} {jitter:?}");
            }
        }
    }
    assert!(waits(lone(0.0), [come_back_in(503, "61")]).await.is_empty());
    let exact = waits(lone(1.0).jitter(Jitter::None).max_retries(1), [come_back_in(503, "7")]);
    assert_eq!(millis(&exact.await), [7_000]);
}

#[tokio::test(start_paused = true)]
async fn without_a_gate_a_rate_limit_is_backed_off_from_a_second() {
    let limits = || [Reply::status(429), limited_403()];
    for limit in limits() {
        assert_eq!(millis(&waits(lone(1.0), [limit]).await), [1_000, 2_000, 4_000]);
    }
    // Other failures keep their backoff, and so does a request whose backoff was set.
    assert_eq!(millis(&waits(lone(1.0), [Reply::status(503)]).await), [300, 600, 1_200]);
    let same = || Exponential::new(Duration::from_millis(300)).max_delay(20 * SECOND);
    for limit in limits() {
        let waits = waits(lone(1.0).backoff(same()), [limit.clone()]).await;
        assert_eq!(millis(&waits)[1..], [600, 1_200]);
        let (client, script) = scripted(lone(1.0).build().unwrap(), [limit]);
        let own = RetryOverride::new().backoff(same());
        client.get(URL).with_extension(own).send().await.unwrap();
        assert_eq!(millis(&between(&script))[1..], [600, 1_200]);
    }
    // A longer hint is waited for, a shorter one is a floor.
    let hinted = waits(lone(1.0), [come_back_in(429, "3")]).await;
    assert_eq!(millis(&hinted), [3_750, 3_750, 4_000]);
    let ported = ResilientConfig::aresilient().to_builder();
    assert_eq!(millis(&waits(ported, [Reply::status(429)]).await), [300, 600, 1_200]);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_closes_the_gate_of_its_own_tenant() {
    // No retry can follow, so that no copy of the request is kept.
    let config = || steady().gate().max_retries(0).random(|| 0.0).build().unwrap();
    let body = || reqwest::Body::wrap(String::from("once"));
    for streams in [false, true] {
        let (client, script) =
            scripted(config(), [come_back_in(429, "5"), Reply::status(200)]);
        let send = async |tenant: Option<&str>| {
            let request = client.get(URL);
            let request = if streams { request.body(body()) } else { request };
            let request = match tenant {
                Some(tenant) => request.bearer_auth(tenant),
                None => request,
            };
            request.send().await.unwrap();
        };
        send(Some("a")).await;
        send(None).await;
        send(Some("b")).await;
        send(Some("a")).await;
        let waited: Vec<_> = between(&script).iter().map(Duration::as_secs).collect();
        assert_eq!(waited, [0, 0, 5], "streams: {streams}");
    }
}
