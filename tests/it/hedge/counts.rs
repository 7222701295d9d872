//! Futures that are dropped at any moment leave all counts exact.

use std::time::Duration;

use futures_util::FutureExt;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{BreakerConfig, BudgetConfig, Hedge, HostStates, Resilient};
use tokio::time::{Instant, sleep, timeout};

use super::{Lines, after, hedged, ms, status};
use crate::support::inside::does;
use crate::support::{URL, idle_client, scripted_on};

/// Unoptimized a request takes ten times as long; the counts behind it are tested a million times
/// beside them.
const DROPPED: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

#[tokio::test(start_paused = true)]
async fn dropped_futures_leave_tokens_permits_and_samples_exact() {
    let hosts = HostStates::new();
    let config = || {
        hedged(Hedge::learned(0.95))
            .circuit_breaker(BreakerConfig::default())
            .retry_budget(BudgetConfig::default())
    };
    let resilient = || Resilient::new(config().build().unwrap()).with_hosts(hosts.clone());
    let silent = does(|_, _, _| Box::pin(std::future::pending()));
    let client = ClientBuilder::new(idle_client()).with(resilient()).with(silent).build();
    let request = client.get(URL).build().unwrap();
    for _ in 0..DROPPED {
        // Sent, and dropped while it is under way.
        let sending = client.execute(request.try_clone().unwrap());
        assert!(sending.now_or_never().is_none());
    }
    let now = Instant::now().into_std();
    let snapshot = hosts.breaker(URL).snapshot(now);
    assert_eq!((snapshot.permits_out, snapshot.window.total), (0, 0));
    assert_eq!(hosts.budget_left(URL, now), Some(10.0));
    // No sample: a hundred requests are needed before one is hedged.
    let (client, _) = scripted_on(&hosts, config().build().unwrap(), [after(100, 200)]);
    for _ in 0..100 {
        assert_eq!(status(&client).await, 200);
    }
    // None is in flight, so that the host is not crowded, and the bucket has its tokens.
    let (lines, config) = Lines::of(config());
    let (slow, script) = scripted_on(&hosts, config.build().unwrap(), [after(3_000, 200)]);
    assert_eq!((status(&slow).await, script.sent().len()), (200, 2));
    assert_eq!((lines.count("hedged by"), lines.count("no hedge")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn requests_dropped_during_the_race_leave_no_one_in_flight() {
    let hosts = HostStates::new();
    let breaker = BreakerConfig::default();
    let (lines, config) =
        Lines::of(hedged(Hedge::after(ms(10)).share(1.0)).circuit_breaker(breaker));
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [after(1_000, 200)]);
    for it in 0..2_000_u64 {
        let limit = ms(it % 20);
        assert!(timeout(limit, status(&client)).await.is_err());
    }
    let now = Instant::now().into_std();
    assert_eq!(hosts.breaker(URL).snapshot(now).permits_out, 0);
    let hedges = lines.count("hedged by");
    // Those whose delay was over: none was crowded, as each was alone in flight.
    assert_eq!(
        (lines.count("crowded"), script.sent().len().min(4_096)),
        (0, (2_000 + hedges).min(4_096))
    );
    assert!(hedges >= 900, "{hedges}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&client).await, 200);
}
