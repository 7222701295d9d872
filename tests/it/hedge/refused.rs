//! No storm: when a hedge is refused, and that nothing comes of it.

use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderValue, header};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{BreakerConfig, BudgetConfig, HostStates};
use tokio::time::sleep;

use super::{Lines, after, client, hedge, hedged, ms, status};
use crate::support::{URL, scripted_on};

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
    let breaker = BreakerConfig::default().or_consecutive(1.try_into().unwrap());
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
