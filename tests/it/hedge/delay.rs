//! The delay of hedges: where it counts from, and what is learnt.

use http::{HeaderValue, header};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{Hedge, ResilientConfigBuilder};
use tokio::time::sleep;

use super::{after, client, hedge, hedged, ms, status, times};
use crate::support::URL;

#[tokio::test(start_paused = true)]
async fn rule_4_it_counts_from_the_send_and_each_further_hedge_is_one_later() {
    let closing = Reply::status(429).header(header::RETRY_AFTER, HeaderValue::from_static("3"));
    let config = hedged(hedge().max_hedges(2)).gate();
    let (client, script) = client(config, [closing, after(10_000, 200)]);
    // Waits at the gate first, which then opens for one request: no hedges.
    assert_eq!(status(&client).await, 200);
    assert_eq!(script.sent().len(), 2);
    sleep(ms(60_000)).await;
    let before = script.sent().len();
    assert_eq!(status(&client).await, 200);
    let times = &times(&script)[before..];
    let from: Vec<_> = times.iter().map(|it| it - times[0]).collect();
    assert_eq!(from, [0, 100, 200]);
}

/// Sends so many requests that each take `millis`, one after the other.
async fn teach(config: ResilientConfigBuilder, millis: u64, count: usize) -> Vec<u128> {
    let replies = (0..count).map(|_| after(millis, 200)).chain([after(30_000, 200)]);
    let (client, script) = client(config, replies);
    for _ in 0..count {
        assert_eq!(status(&client).await, 200);
    }
    let before = script.sent().len();
    assert_eq!((before, status(&client).await), (count, 200));
    let times = &times(&script)[before..];
    times.iter().map(|it| it - times[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_5_it_is_learnt_from_a_hundred_requests_and_never_zero() {
    let learned = || Hedge::learned(0.95);
    assert_eq!(teach(hedged(learned()), 50, 99).await, [0], "too few");
    let hedged_at = teach(hedged(learned()), 50, 100).await;
    assert!(matches!(hedged_at[..], [0, 47..=53]), "{hedged_at:?}");
    assert_eq!(teach(hedged(Hedge::learned(0.99)), 50, 499).await, [0], "too few for 0.99");
    let before = hedged(learned().or_after(ms(70)));
    assert_eq!(teach(before, 20, 99).await, [0, 70]);
    // Rule 8: the floor, and a service that is too slow.
    assert_eq!(teach(hedged(learned()), 0, 100).await, [0, 2]);
    assert_eq!(teach(hedged(learned()), 6_000, 100).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn rule_5_each_method_or_key_has_its_own() {
    let replies = (0..100).flat_map(|_| [after(20, 200), after(400, 200)]);
    let (by_method, script) =
        client(hedged(Hedge::learned(0.95)), replies.clone().chain([after(30_000, 200)]));
    for _ in 0..100 {
        by_method.get(URL).send().await.unwrap();
        by_method.head(URL).send().await.unwrap();
    }
    let delay = |from: usize| {
        let sent = script.sent();
        assert_eq!(sent.len(), from + 2);
        (sent[from + 1].at - sent[from].at).as_millis()
    };
    let before = script.sent().len();
    by_method.get(URL).send().await.unwrap();
    assert!((18..=22).contains(&delay(before)), "{}", delay(before));
    let before = script.sent().len();
    by_method.head(URL).send().await.unwrap();
    assert!((370..=430).contains(&delay(before)), "{}", delay(before));

    let by_route = hedged(Hedge::learned(0.95).key(|it| it.url().path().to_owned()));
    let (client, script) = client(by_route, replies.chain([after(30_000, 200)]));
    for _ in 0..100 {
        client.get("https://api.example.com/quick").send().await.unwrap();
        client.get("https://api.example.com/slow").send().await.unwrap();
    }
    let before = script.sent().len();
    client.get("https://api.example.com/quick").send().await.unwrap();
    let delay = times(&script)[before + 1] - times(&script)[before];
    assert!((18..=22).contains(&delay), "{delay}");
}

#[tokio::test(start_paused = true)]
async fn rule_7_quick_failures_teach_nothing_and_timeouts_their_age() {
    let config = || hedged(Hedge::learned(0.95)).max_retries(0);
    let replies = (0..100).flat_map(|_| [after(1, 503), after(50, 200), after(1, 429)]);
    let (client_1, script) = client(config(), replies.chain([after(30_000, 200)]));
    for _ in 0..300 {
        client_1.get(URL).send().await.unwrap();
    }
    let before = script.sent().len();
    client_1.get(URL).send().await.unwrap();
    let delay = times(&script)[before + 1] - times(&script)[before];
    assert!((47..=53).contains(&delay), "{delay}");

    // Half of the requests run into the timeout: the quantile is there, and no hedge has the time.
    let replies = (0..100).flat_map(|_| [after(60_000, 200), after(10, 200)]);
    let slow = config().attempt_timeout(ms(1_000));
    let (client_2, script) = client(slow, replies.chain([after(900, 200)]));
    for _ in 0..200 {
        let _ = client_2.get(URL).send().await;
    }
    let before = script.sent().len();
    client_2.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn rule_8_a_hedge_needs_the_time_for_it() {
    for (config, sends) in [
        (hedged(hedge()).attempt_timeout(ms(201)), 2),
        (hedged(hedge()).attempt_timeout(ms(200)), 1),
        (hedged(hedge()).max_total_time(ms(201)), 2),
        (hedged(hedge()).max_total_time(ms(200)), 1),
    ] {
        let (client, script) = client(config, [after(150, 200)]);
        assert_eq!((status(&client).await, script.sent().len()), (200, sends));
    }
    let (client, script) = client(hedged(hedge()), [after(150, 200)]);
    client.get(URL).timeout(ms(200)).send().await.unwrap();
    assert_eq!(script.sent().len(), 1, "the request's own timeout");
}
