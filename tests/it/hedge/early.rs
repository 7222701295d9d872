//! A result that failed before the end of its race, and counts because no other was better.

use http::{HeaderName, HeaderValue, header};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    AttemptLog, Hedge, HostStates, Mirrors, RateLimit, ResilientConfigBuilder, ResponseExt,
    RetryAfter, StopReason,
};
use tokio::time::Instant;

use super::{Lines, after, client, hedge, hedged, ms, times};
use crate::support::{URL, scripted_on};

/// An attempt that times out after two seconds; its hedge has failed after 150 ms.
fn timed_out(failed: Reply, last: Reply) -> [Reply; 3] {
    [after(60_000, 200), failed.after(ms(50)), last]
}

fn two_seconds() -> ResilientConfigBuilder {
    hedged(hedge()).attempt_timeout(ms(2_000))
}

fn hinted(seconds: u64) -> Reply {
    Reply::status(503).header(header::RETRY_AFTER, seconds.into())
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_counted_from_the_arrival_of_its_response() {
    let replaces = || two_seconds().retry_after(RetryAfter::Replaces);
    for (config, hint, sent_at) in [
        // A backoff of a second is longer than what is left of the hint.
        (two_seconds(), 2, 3_000),
        (two_seconds().max_total_time(ms(3_500)), 2, 3_000),
        (two_seconds(), 5, 5_150),
        (replaces().max_total_time(ms(3_000)), 1, 2_000),
        (replaces(), 2, 2_150),
    ] {
        let (client, script) = client(config, timed_out(hinted(hint), Reply::status(200)));
        let response = client.get(URL).send().await.unwrap();
        assert_eq!((response.status().as_u16(), times(&script)), (200, vec![0, 100, sent_at]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_is_reported_is_the_one_at_the_gate() {
    // The hint was too long when it came, and is not when the race ends.
    let config = two_seconds().gate().max_wait_time(ms(4_000));
    let (client, script) = client(config, timed_out(hinted(5), Reply::status(200)));
    let log = AttemptLog::new();
    client.get(URL).with_extension(log.clone()).send().await.unwrap();
    let (wait, _) = log.history().attempts()[1].wait.clone().unwrap();
    let sent_at = times(&script)[2] as u64;
    assert!(sent_at.abs_diff(2_000 + wait.as_millis() as u64) <= 1, "{sent_at}, {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn its_duration_ends_with_its_own_failure() {
    let (lines, config) = Lines::of(two_seconds());
    let (client, _) = client(config, timed_out(hinted(1), Reply::status(200)));
    let log = AttemptLog::new();
    client.get(URL).with_extension(log.clone()).send().await.unwrap();
    assert_eq!(
        log.history().to_string(),
        "#1 +0.000s 2.000s timeout (maybe processed)\n\
         #2 +0.100s 0.050s status 503, hedge, then 1.000s by backoff\n\
         #3 +3.000s 0.000s status 200\n\
         ended: success"
    );
    assert_eq!(lines.count("attempt 2 gave status 503 after 0.050s"), 1, "{:#?}", lines.all());
}

#[tokio::test(start_paused = true)]
async fn its_quotas_are_refilled_in_the_time_that_it_said() {
    let named = |reply: Reply, left: u64| {
        let header = |it: &'static str| HeaderName::from_static(it);
        let reply = reply.header(header("x-ratelimit-remaining"), left.into());
        reply.header(header("x-ratelimit-reset"), HeaderValue::from_static("9"))
    };
    let (hosts, config) = (HostStates::new(), two_seconds().rate_limit(RateLimit::learned()));
    let race = timed_out(named(Reply::status(503), 5), Reply::status(200));
    // No hedge is sent before a first response.
    let replies = [named(Reply::status(200), 1_000)].into_iter().chain(race);
    let (client, _) = scripted_on(&hosts, config.max_retries(0).build().unwrap(), replies);
    for _ in 0..2 {
        client.get(URL).send().await.unwrap();
    }
    let quota = &hosts.quotas(URL, Instant::now().into_std())[0];
    assert_eq!((quota.remaining, quota.resets_in), (5, ms(9_000 - 1_850)));
}

#[tokio::test(start_paused = true)]
async fn it_teaches_its_own_latency() {
    let hosts = HostStates::new();
    let learning = |delay| {
        let mirrors = Mirrors::new(URL).also("https://b.example/").also("https://c.example/");
        hedged(delay).mirrors(mirrors).attempt_timeout(ms(2_000)).build().unwrap()
    };
    // A 404 counts if no endpoint is better.
    let missing = (0..100).flat_map(|_| [after(120, 404), after(60_000, 200), after(1, 200)]);
    let config = learning(Hedge::learned(0.95).or_after(ms(100)).share(1.0));
    let (client, _) = scripted_on(&hosts, config, missing);
    for _ in 0..100 {
        assert_eq!(client.get(URL).send().await.unwrap().attempts(), 3);
    }
    let (client, script) = scripted_on(&hosts, learning(Hedge::learned(0.95)), [after(1_500, 200)]);
    client.get(URL).send().await.unwrap();
    assert!(matches!(times(&script)[..], [0, 110..=130]), "{:?}", times(&script));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_came_is_returned_where_the_deadline_ends_its_race() {
    let never = || after(60_000, 200);
    let reset = Reply::io_error(std::io::ErrorKind::ConnectionReset).after(ms(120));
    let limited = || hedged(hedge().max_hedges(2)).max_total_time(ms(300));
    for (config, replies, expected) in [
        (limited(), [after(120, 503), never(), never()], Some(503)),
        (limited(), [never(), after(20, 503), never()], Some(503)),
        (limited(), [hinted(7).after(ms(120)), never(), never()], Some(503)),
        (
            limited().retry_if(|it| it.status().is_some()),
            [after(120, 503), never(), never()],
            Some(503),
        ),
        (limited(), [reset, never(), never()], None),
        (limited(), [never(), never(), never()], None),
    ] {
        let (client, _) = client(config, replies);
        let (log, start) = (AttemptLog::new(), Instant::now());
        let response = client.get(URL).with_extension(log.clone()).send().await;
        assert_eq!(start.elapsed(), ms(300));
        let history = log.history();
        assert_eq!(history.stop_reason(), Some(StopReason::Deadline), "{history}");
        match expected {
            Some(status) => assert_eq!(response.unwrap().status(), status, "{history}"),
            None => assert!(response.unwrap_err().to_string().contains("max_total_time")),
        }
    }
}
