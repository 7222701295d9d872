//! Events, messages and history of a fleet.

use reqwest_resilient::{AttemptLog, Event, fleet::BreakerAdvice};

use super::*;

fn logged(log: &Arc<Mutex<Vec<String>>>) -> ResilientConfigBuilder {
    let log = Arc::clone(log);
    lenient().on_event(move |event| {
        if let Event::FleetChanged(_) = event {
            log.lock().unwrap().push(event.to_string());
        }
    })
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_once_by_the_first_request_that_sees_them() {
    let (store, service) = (Wrapped::new(), Service::default());
    let log = Arc::default();
    // The store itself, which knows of no breaker, is asked after a second.
    let fleet = Fleet::builder(store.clone()).random(|| 0.99).build().unwrap();
    let node = node_of(&fleet, logged(&log).build().unwrap(), &service);
    let tell = async |epoch, state| {
        let breaker = BreakerAdvice::new(7, epoch, state);
        store.publish(FleetNews::Breaker { host: HOST.into(), breaker }).await;
        sleep(millis(1)).await;
    };
    assert_eq!(node.get().await, Some(200));
    tell(1, FleetState::Open { remaining: secs(5) }).await;
    assert_eq!((node.get().await, node.get().await), (None, None));
    tell(1, FleetState::Open { remaining: secs(5) }).await;
    tell(0, FleetState::Closed).await;
    assert_eq!(node.get().await, None, "that was an old message");
    tell(2, FleetState::Closed).await;
    assert_eq!((node.get().await, node.get().await), (Some(200), Some(200)));
    sleep(secs(2)).await;
    assert_eq!(store.calls().len(), 1);
    assert_eq!(
        node.get().await,
        Some(200),
        "and closed by the store's own word, which is no change"
    );
    let told = std::mem::take(&mut *log.lock().unwrap());
    let line = |change| format!("fleet breaker of {HOST}: {change}");
    assert_eq!(told, [line("unknown to open"), line("open to closed")]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_store_is_told_once() {
    let (store, service) = (Wrapped::new(), Service::default());
    let log = Arc::default();
    let node = node_of(&Fleet::new(store.clone()), logged(&log).build().unwrap(), &service);
    node.send(20, millis(90)).await;
    store.set_hanging(true);
    node.send(100, millis(90)).await;
    store.set_hanging(false);
    node.send(60, millis(90)).await;
    let told = std::mem::take(&mut *log.lock().unwrap());
    let line = |change| format!("fleet breaker of {HOST}: {change}");
    let expected = ["unknown to closed", "closed to unknown", "unknown to closed"];
    assert_eq!(told, expected.map(line));
}

#[tokio::test(start_paused = true)]
async fn history_and_waits_name_the_fleet() {
    let (nodes, store, service) = opened(4).await;
    let (log, waits) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let held = Arc::clone(&waits);
    let config = logged(&log).max_open_wait(secs(20)).on_event(move |event| {
        if let Event::HeldBack(it) = event {
            held.lock().unwrap().push(it.source.to_string());
        }
    });
    let node = node_of(&Fleet::new(store), config.build().unwrap(), &service);
    assert_eq!(node.get().await, Some(503));
    sleep(millis(1)).await;
    service.set_down(false);
    let kept = AttemptLog::new();
    let waiting = node.client.get(URL).with_extension(kept.clone()).send();
    let (response, ()) =
        futures_util::future::join(waiting, all_send(&nodes, 80, millis(100))).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(waits.lock().unwrap().first().map(String::as_str), Some("fleet"));
    let history = kept.history().to_string();
    assert!(history.contains("by fleet"), "{history}");
}

#[tokio::test(start_paused = true)]
async fn rejections_by_the_fleet_say_so_in_message_and_history() {
    let (nodes, _, _) = opened(4).await;
    let rejected = async |node: &Node| {
        let kept = AttemptLog::new();
        let error = node.client.get(URL).with_extension(kept.clone()).send().await.unwrap_err();
        let holds = kept.history().holds().to_vec();
        (error.to_string(), holds)
    };
    let (message, holds) = rejected(&nodes[0]).await;
    assert!(message.contains("opened by the fleet"), "{message}");
    assert!(holds[0].by_fleet && holds[0].to_string().ends_with("circuit_open by the fleet"));

    let (store, service) = (Wrapped::new(), Service::default());
    let config = || lenient().max_wait_time(secs(5)).gate().build().unwrap();
    let node = node_of(&Fleet::new(store.clone()), config(), &service);
    let gate = |remaining| {
        let gate = reqwest_resilient::fleet::FleetGate::new(0, remaining);
        store.publish(FleetNews::GateClosed { host: HOST.into(), gate })
    };
    assert_eq!(node.get().await, Some(200));
    gate(secs(2)).await;
    sleep(millis(1)).await;
    let kept = AttemptLog::new();
    let response = node.client.get(URL).with_extension(kept.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let history = kept.history().to_string();
    assert!(history.contains("rate_limited by the fleet, then 2."), "{history}");
    assert!(history.contains("by gate of the fleet"), "{history}");
    gate(secs(60)).await;
    sleep(millis(1)).await;
    let (message, holds) = rejected(&node).await;
    let expected = "host is rate limited, as the fleet heard: asked for 60 s";
    assert!(message.contains(expected), "{message}");
    assert!(holds[0].by_fleet && holds[0].to_string().ends_with("rate_limited by the fleet"));

    // What a response said here is no word of the fleet.
    let alone = node_of(&Fleet::new(Wrapped::new()), config(), &service);
    service.next(http::Response::builder().status(429).header(http::header::RETRY_AFTER, 60));
    assert_eq!(alone.get().await, Some(429));
    let (message, holds) = rejected(&alone).await;
    assert!(message.contains("host is rate limited: asked for 60 s"), "{message}");
    assert!(!holds[0].by_fleet, "{holds:?}");
}
