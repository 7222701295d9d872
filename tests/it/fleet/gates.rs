//! Gates that one node closes for all.

use http::{HeaderValue, header};
use reqwest_resilient::fleet::FleetGate;

use super::*;

fn config() -> ResilientConfig {
    lenient().max_retries(0).max_wait_time(secs(60)).gate().build().unwrap()
}

fn limited(secs: u64) -> http::response::Builder {
    http::Response::builder().status(429).header(header::RETRY_AFTER, secs)
}

fn fleet_of(count: usize, store: &(impl FleetStore + Clone), service: &Service) -> Vec<Node> {
    (0..count).map(|_| node_of(&Fleet::new(store.clone()), config(), service)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_is_told_all_obey() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = fleet_of(5, &store, &service);
    all_send(&nodes, 12, millis(90)).await;
    service.next(limited(20));
    assert_eq!(nodes[0].get().await, Some(429));
    let closed = Instant::now();
    all_send(&nodes[1..], 1, secs(1)).await;
    let before = service.arrived();
    futures_util::future::join_all(nodes.iter().map(Node::get)).await;
    // The first may have been under way before their first exchange.
    assert!(closed.elapsed() >= secs(20), "{:?}", closed.elapsed());
    assert!(closed.elapsed() <= secs(30), "{:?}", closed.elapsed());
    assert_eq!(service.arrived(), before + 5);
}

#[tokio::test(start_paused = true)]
async fn gates_are_those_of_a_credential() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = fleet_of(2, &store, &service);
    let get = |node: &Node, token: &'static str| node.client.get(URL).bearer_auth(token).send();
    assert_eq!(get(&nodes[1], "one").await.unwrap().status(), 200);
    service.next(limited(30));
    assert_eq!(get(&nodes[0], "one").await.unwrap().status(), 429);
    assert_eq!(get(&nodes[1], "two").await.unwrap().status(), 200);
    sleep(secs(2)).await;
    let began = Instant::now();
    assert_eq!(get(&nodes[1], "two").await.unwrap().status(), 200);
    assert_eq!(began.elapsed(), millis(10));
    assert_eq!(get(&nodes[1], "one").await.unwrap().status(), 200);
    assert!(began.elapsed() >= secs(27), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_closed_for_no_longer_than_requests_may_wait() {
    let store = Wrapped::new();
    let service = Service::default();
    let nodes = fleet_of(2, &store, &service);
    assert_eq!(nodes[1].get().await, Some(200));
    service.next(limited(3_000));
    assert_eq!(nodes[0].get().await, Some(429));
    sleep(secs(2)).await;
    let gates: Vec<_> =
        store.calls().into_iter().flat_map(|it| it.2).flat_map(|it| it.gates).collect();
    assert_eq!(gates.len(), 1, "handed on once");
    assert_eq!((gates[0].key, gates[0].remaining), (0, secs(60)));
    // Its own gate is as the server said.
    assert_eq!(nodes[0].get().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_gate_never_opens_sooner_on_anothers_word() {
    let (store, service) = (Wrapped::new(), Service::default());
    let nodes = fleet_of(2, &store, &service);
    assert_eq!(nodes[1].get().await, Some(200));
    service.next(limited(40));
    assert_eq!(nodes[1].get().await, Some(429));
    let closed = Instant::now();
    let gate = FleetGate::new(0, secs(5));
    store.publish(FleetNews::GateClosed { host: HOST.into(), gate }).await;
    assert_eq!(nodes[1].get().await, Some(200));
    assert!(closed.elapsed() >= secs(40));
}

#[tokio::test(start_paused = true)]
async fn messages_close_gates_at_once_and_only_those_of_known_hosts() {
    let (store, service) = (Wrapped::new(), Service::default());
    let nodes = fleet_of(1, &store, &service);
    assert_eq!(nodes[0].get().await, Some(200));
    let gate = FleetGate::new(0, secs(30));
    for host in ["https://other.example.com", HOST] {
        store.publish(FleetNews::GateClosed { host: host.into(), gate }).await;
    }
    sleep(millis(1)).await;
    let began = Instant::now();
    assert_eq!(nodes[0].get().await, Some(200));
    assert!(began.elapsed() >= secs(30) - millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn gates_can_be_kept_to_oneself() {
    let (store, service) = (Wrapped::new(), Service::default());
    let fleet = Fleet::builder(store.clone()).without_gate().build().unwrap();
    let node = node_of(&fleet, config(), &service);
    service.next(limited(30));
    assert_eq!(node.get().await, Some(429));
    sleep(secs(3)).await;
    assert!(store.calls().iter().flat_map(|it| &it.2).all(|it| it.gates.is_empty()));
    sleep(secs(60)).await;
    assert_eq!(node.get().await, Some(200));
    let gate = FleetGate::new(0, secs(30));
    store.publish(FleetNews::GateClosed { host: HOST.into(), gate }).await;
    sleep(millis(1)).await;
    let began = Instant::now();
    assert_eq!(node.get().await, Some(200));
    assert_eq!(began.elapsed(), millis(10));
}

#[tokio::test(start_paused = true)]
async fn secrets_stay_out_of_reports() {
    let (store, service) = (Wrapped::new(), Service::default());
    let nodes = fleet_of(1, &store, &service);
    service.next(limited(30));
    let url = "https://user:secret@api.example.com/data?token=secret";
    let mut value = HeaderValue::from_static("Bearer secret");
    value.set_sensitive(true);
    drop(nodes[0].client.get(url).header(header::AUTHORIZATION, value).send().await);
    sleep(secs(2)).await;
    let calls = store.calls();
    let text = format!("{calls:?}");
    assert!(text.contains(HOST) && !text.contains("secret") && !text.contains("user"), "{text}");
    assert_ne!(calls[0].2[0].gates[0].key, 0);
}
