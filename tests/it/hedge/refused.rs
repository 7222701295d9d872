//! No storm: when a hedge is refused, and that nothing comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, header};
use reqwest::Response;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    BreakerConfig, BudgetConfig, Event, Hedge, HedgeRefusal, HostStates, Rate, RateLimit, Resilient,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Lines, after, client, hedge, hedged, ms, status, times};
use crate::support::inside::does;
use crate::support::{URL, idle_client, scripted_on};

#[tokio::test(start_paused = true)]
async fn rule_9_hedges_are_a_share_of_the_requests() {
    let (lines, config) = Lines::of(hedged(hedge()));
    let (client, script) = client(config, [after(150, 200)]);
    for _ in 0..1_000 {
        assert_eq!(status(&client).await, 200);
    }
    // Three that a new bucket holds, and 6 in 100 of the requests since it was full.
    assert_eq!(script.sent().len(), 1_062);
    assert_eq!((lines.count("hedged by"), lines.count("no hedge after 0.100s: share")), (62, 938));
}

#[tokio::test(start_paused = true)]
async fn rule_10_none_while_the_retry_budget_is_short() {
    // Ten tokens: five failures of requests that are not retried leave five, one more less.
    for (timeouts, refused) in [(0, 0), (5, 0), (6, 1)] {
        let (lines, config) = Lines::of(
            hedged(hedge()).retry_budget(BudgetConfig::default().trickle(0.0).deposit(0.0)),
        );
        let resets =
            (0..timeouts * 2).map(|_| Reply::io_error(std::io::ErrorKind::ConnectionReset));
        let config = config.max_retries(1);
        let (client, script) = client(config, resets.chain([after(150, 200)]));
        for _ in 0..timeouts {
            client.get(URL).send().await.unwrap_err();
        }
        let before = script.sent().len();
        assert_eq!(status(&client).await, 200);
        assert_eq!(lines.count("no hedge after 0.100s: retry_budget"), refused, "{timeouts}");
        assert_eq!(script.sent().len() - before, 2 - refused, "{timeouts}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_10_none_while_the_gate_is_closed() {
    let (lines, config) = Lines::of(hedged(hedge()).gate().max_retries(0));
    let limited = Reply::status(429).header(header::RETRY_AFTER, HeaderValue::from_static("30"));
    let (client, script) = client(config, [after(150, 200), limited.after(ms(20))]);
    // While the first is slow another one closes the gate.
    let other = async {
        sleep(ms(50)).await;
        status(&client).await
    };
    assert_eq!(futures_util::future::join(status(&client), other).await, (200, 429));
    assert_eq!((lines.count("no hedge after 0.100s: gate"), script.sent().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn rule_10_none_while_the_breaker_is_not_closed_and_a_probe_is_never_hedged() {
    let hosts = HostStates::new();
    let breaker = BreakerConfig::default().or_consecutive(1);
    let (lines, config) = Lines::of(hedged(hedge()).circuit_breaker(breaker).max_retries(0));
    let replies = [after(1, 503), after(500, 200), after(500, 200)];
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
    assert_eq!(status(&client).await, 503);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((status(&client).await, script.sent().len()), (200, 2), "the probe");
    assert_eq!(lines.count("no hedge after 0.100s: circuit_breaker"), 1);
    assert_eq!((status(&client).await, script.sent().len()), (200, 4), "closed again");

    let slow = async { status(&client).await };
    let opening = async {
        sleep(ms(50)).await;
        hosts.force_open();
    };
    let ((), answered) = futures_util::future::join(opening, slow).await;
    assert_eq!((answered, script.sent().len()), (200, 5), "what is in flight goes on");
    assert_eq!(lines.count("no hedge after 0.100s: circuit_breaker"), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_hedge_takes_a_slot_or_there_is_none() {
    let (lines, config) = Lines::of(hedged(hedge()).rate_limit(Rate::per_second(1).burst(2)));
    let (client, script) = client(config, [after(150, 200)]);
    for _ in 0..2 {
        assert_eq!(status(&client).await, 200);
    }
    // The hedge of the first one took what the second one had to wait for.
    assert_eq!(times(&script), [0, 100, 1_000]);
    assert_eq!(lines.count("no hedge after 0.100s: limited"), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_10_the_slot_of_a_loser_that_was_not_sent_goes_back() {
    let refused = Reply::io_error(std::io::ErrorKind::ConnectionRefused).after(ms(50));
    let replies = [after(200, 200), refused, after(1, 200)];
    let config = hedged(hedge()).rate_limit(Rate::per_second(1).burst(2));
    let (client, script) = client(config, replies);
    for _ in 0..2 {
        assert_eq!(status(&client).await, 200);
    }
    assert_eq!(times(&script), [0, 100, 200]);
}

/// Names a quota of which so many requests are left for a minute.
fn with_quota(reply: Reply, left: u64) -> Reply {
    let header = |it: &'static str| HeaderName::from_static(it);
    let reply = reply.header(header("x-ratelimit-remaining"), left.into());
    reply.header(header("x-ratelimit-reset"), HeaderValue::from_static("60"))
}

/// Returns what is left of the quota.
fn left(hosts: &HostStates) -> u64 {
    hosts.quotas(URL, Instant::now().into_std())[0].remaining
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_hedge_counts_against_a_learned_quota() {
    let (lines, config) = Lines::of(hedged(hedge()).rate_limit(RateLimit::learned()));
    let hosts = HostStates::new();
    let replies = [(1_000, 1), (999, 150), (999, 100), (1, 1), (0, 150)]
        .map(|(left, millis)| with_quota(after(millis, 200), left));
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
    assert_eq!((status(&client).await, left(&hosts)), (200, 1_000));
    let meanwhile = async {
        sleep(ms(120)).await;
        left(&hosts)
    };
    let both = futures_util::future::join(status(&client), meanwhile).await;
    assert_eq!(both, (200, 998), "the attempt and its hedge");
    for (sends, expected) in [(4, 1), (5, 0)] {
        assert_eq!((status(&client).await, script.sent().len()), (200, sends));
        assert_eq!(left(&hosts), expected);
    }
    assert_eq!(lines.count("no hedge after 0.100s: limited"), 1, "{:?}", lines.all());
}

#[tokio::test(start_paused = true)]
async fn rule_10_the_slot_of_an_attempt_that_was_not_sent_goes_back_if_its_hedge_wins() {
    let refused = Reply::io_error(std::io::ErrorKind::ConnectionRefused).after(ms(150));
    let replies = [with_quota(after(1, 200), 1_000), refused, after(100, 200)];
    let config = hedged(hedge()).rate_limit(RateLimit::learned());
    let hosts = HostStates::new();
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
    for sends in [1, 3] {
        assert_eq!((status(&client).await, script.sent().len()), (200, sends));
        assert_eq!(left(&hosts), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_none_while_the_host_is_slow_for_all() {
    let (lines, config) = Lines::of(hedged(hedge()));
    let (client, script) = client(config, [after(150, 200)]);
    let all = join_all((0..50).map(|_| status(&client))).await;
    assert!(all.iter().all(|it| *it == 200));
    assert_eq!((script.sent().len(), lines.count("no hedge after 0.100s: crowded")), (50, 50));
    // Later they are no more in flight.
    sleep(Duration::from_secs(60)).await;
    assert_eq!((status(&client).await, script.sent().len()), (200, 52));
}

/// A runtime that stood still is late with its timers.
#[tokio::test(start_paused = true)]
async fn hedges_that_are_late_do_not_go_all_at_once() {
    let (client, script) = client(hedged(hedge().max_hedges(3)), [after(1_000, 200)]);
    let standstill = async {
        tokio::task::yield_now().await;
        tokio::time::advance(ms(450)).await;
    };
    assert_eq!(futures_util::future::join(status(&client), standstill).await.0, 200);
    assert_eq!(times(&script), [0, 450, 550, 650]);
}

/// Sends requests at this rate to a host with a tail: 98 responses of 100 take 5 ms, two take two
/// seconds. It stands still from 6 s on, for so long. Returns the refusals because of a crowd from a
/// second after that on, and from three seconds after it, when the delay is learnt anew, the requests
/// that took longer than a second.
async fn after_a_stall(per_second: u32, stall: Duration, seed: u64) -> (usize, usize) {
    let (start, refused) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let stalls = start + Duration::from_secs(6);
    let settled = stalls + stall + Duration::from_secs(1);
    let learnt = settled + Duration::from_secs(2);
    let count = Arc::clone(&refused);
    let config = hedged(Hedge::learned(0.95)).on_event(move |event| match event {
        Event::HedgeRefused(it) if it.why == HedgeRefusal::Crowded && Instant::now() >= settled => {
            count.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    });
    let sends = AtomicU64::new(seed << 32);
    let server = does(move |_, _, _| {
        let draw = sends.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let draw = (draw ^ draw >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32;
        let took = if draw % 50 == 0 { ms(2_000) } else { ms(5) };
        let now = Instant::now();
        let begins = if (stalls..stalls + stall).contains(&now) { stalls + stall } else { now };
        Box::pin(async move {
            sleep_until(begins + took).await;
            Ok(Response::from(http::Response::new("")))
        })
    });
    let resilient = Resilient::new(config.build().unwrap());
    let client = ClientBuilder::new(idle_client()).with(resilient).with(server).build();
    let mut requests = JoinSet::new();
    for it in 0..per_second * 16 {
        sleep_until(start + Duration::from_secs(1) * it / per_second).await;
        let client = client.clone();
        requests.spawn(async move {
            let sent = Instant::now();
            assert_eq!(status(&client).await, 200);
            sent >= learnt && sent.elapsed() > ms(1_000)
        });
    }
    let late = requests.join_all().await.into_iter().filter(|it| *it).count();
    (refused.load(Ordering::Relaxed), late)
}

#[tokio::test(start_paused = true)]
async fn a_stall_of_the_host_does_not_end_hedges_for_what_comes_after_it() {
    for (per_second, stall, seed) in [(100, 500, 0), (200, 200, 0), (200, 200, 1), (400, 1_000, 0)]
    {
        let (refused, late) = after_a_stall(per_second, ms(stall), seed).await;
        // A hedge draws a slow response in two of a hundred races.
        let most = per_second as usize / 200 + 1;
        assert!(refused == 0 && late <= most, "{per_second}, {stall}: {refused}, {late} late");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_19_a_refusal_ends_nothing_and_the_attempt_goes_on() {
    let config = hedged(hedge().max_hedges(4)).max_retries(0);
    let (client, script) = client(config, [after(10_000, 200)]);
    for _ in 0..10 {
        assert_eq!(status(&client).await, 200);
    }
    // Three of the bucket; ten requests pay for less than one more.
    assert_eq!(script.sent().len(), 13);
}
