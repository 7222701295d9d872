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
    let node = node_of(&Fleet::new(store.clone()), logged(&log).build().unwrap(), &service);
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
