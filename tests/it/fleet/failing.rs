//! Stores that fail, hang and come back; nodes that end.

use super::*;

/// Opens a fleet of `count` nodes over a store that can fail.
async fn opened_over(store: &Wrapped, count: usize) -> (Vec<Node>, Service) {
    let service = Service::default();
    let nodes = nodes(count, store, &service);
    open(&nodes, &service).await;
    (nodes, service)
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_a_store_that_hangs_or_fails() {
    let (hanging, failing) = (Wrapped::new(), Wrapped::new());
    hanging.set_hanging(true);
    failing.set_failing(true);
    for store in [hanging, failing] {
        let service = Service::default();
        let nodes = nodes(2, &store, &service);
        for _ in 0..300 {
            let began = Instant::now();
            assert_eq!(nodes[0].get().await, Some(200));
            assert_eq!(began.elapsed(), millis(10), "the latency of the service");
            sleep(millis(90)).await;
        }
        let stats = nodes[0].fleet.stats();
        assert!(stats.exchanges == stats.failures && stats.failures > 10, "{stats:?}");
        // Half a minute of pauses.
        assert!(stats.failures < 26, "{stats:?}");
        assert_eq!((stats.last_contact, nodes[0].state()), (None, FleetState::Unknown));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_loses_its_store_goes_on_alone_and_heals() {
    let store = Wrapped::new();
    let (nodes, service) = opened_over(&store, 4).await;
    let before = service.arrived();
    store.set_hanging(true);
    sleep(secs(2)).await;
    all_send(&nodes, 1, millis(10)).await;
    assert_eq!(service.arrived(), before, "the last word counts for a while");
    sleep(secs(4)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Unknown));
    all_send(&nodes, 20, millis(90)).await;
    assert_eq!(service.arrived(), before + 80);
    sleep(secs(1)).await;
    store.set_hanging(false);
    service.set_down(false);
    sleep(secs(2)).await;
    assert!(nodes.iter().all(|it| it.state() != FleetState::Unknown), "healed within 2 s");
    all_send(&nodes, 60, millis(90)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
}

#[tokio::test(start_paused = true)]
async fn counts_are_merged_while_the_store_fails_and_not_once_they_are_old() {
    let store = Wrapped::new();
    let service = Service::default();
    let nodes = nodes(1, &store, &service);
    let node = &nodes[0];
    store.set_failing(true);
    node.send(20, millis(90)).await;
    store.set_failing(false);
    sleep(secs(2)).await;
    let counted = |calls: &[(Instant, NodeId, Vec<HostReport>)]| {
        calls.last().map_or(0, |(_, _, reports)| reports.iter().map(|it| it.ok).sum())
    };
    assert_eq!(counted(&store.calls()), 20);
    store.set_failing(true);
    for _ in 0..20 {
        node.send(1, millis(990)).await;
    }
    store.set_failing(false);
    sleep(secs(5)).await;
    assert_eq!(counted(&store.calls()), 0, "twenty seconds old");
    let before = store.calls().len();
    node.send(3, millis(90)).await;
    sleep(secs(2)).await;
    let new = &store.calls()[before..];
    assert_eq!(new.iter().flat_map(|it| &it.2).map(|it| it.ok).sum::<u32>(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_reports_once_a_second_at_most_and_nothing_while_it_is_quiet() {
    let store = Wrapped::new();
    let service = Service::default();
    let nodes = nodes(1, &store, &service);
    nodes[0].send(600, millis(90)).await;
    sleep(secs(2)).await;
    let calls = store.calls();
    assert!((55..=62).contains(&calls.len()), "{} in a minute", calls.len());
    for pair in calls.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= secs(1), "{:?}", pair[1].0 - pair[0].0);
    }
    let ok: u32 = calls.iter().flat_map(|it| &it.2).map(|it| it.ok).sum();
    assert_eq!(ok, 600);
    sleep(secs(600)).await;
    assert_eq!(store.calls().len(), calls.len());
    // The first failure after a quiet second is reported at once.
    service.set_down(true);
    assert_eq!(nodes[0].get().await, Some(503));
    let failed_at = Instant::now();
    sleep(millis(5)).await;
    let calls = store.calls();
    let (at, _, reports) = calls.last().unwrap();
    assert!(*at - failed_at < millis(5) && reports[0].votes_failing, "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle() {
    let store = InProcessFleet::new();
    let service = Service::default();
    let fleet = Fleet::new(store.clone());
    assert!(!fleet.stats().is_running, "nothing was asked yet");
    let mut nodes = vec![node_of(&fleet, lenient().build().unwrap(), &service)];
    assert_eq!(nodes[0].get().await, Some(200));
    assert!(fleet.stats().is_running);
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1);
    drop(fleet);
    sleep(secs(3)).await;
    assert_eq!(metrics.num_alive_tasks(), 1, "a client is a handle");
    nodes.clear();
    sleep(millis(1)).await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[test]
fn the_task_starts_again_in_another_runtime() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let fleet = Fleet::new(store);
    let node = node_of(&fleet, lenient().build().unwrap(), &service);
    for _ in 0..2 {
        crate::support::in_virtual_time(async {
            assert_eq!(node.get().await, Some(200));
            assert!(fleet.stats().is_running);
        });
        assert!(!fleet.stats().is_running);
    }
}

#[tokio::test(start_paused = true)]
async fn permits_are_exact_after_requests_are_dropped_at_any_time() {
    let (nodes, _, service) = opened(3).await;
    let (mut sent, mut step) = (0, 7);
    for round in 0..600 {
        // Down, up, down: open, half-open, closed.
        service.set_down(round / 150 % 2 == 0);
        for node in &nodes {
            step = (step * 31 + 11) % 29;
            let request = node.client.get(URL).send();
            drop(tokio::time::timeout(millis(step), request).await);
            sent += 1;
        }
        sleep(millis(50)).await;
    }
    assert!(sent == 1_800 && service.arrived() > 100);
    for node in &nodes {
        let snapshot = node.hosts.breaker(HOST).snapshot(std::time::Instant::now());
        assert_eq!((snapshot.permits_out, snapshot.probes_out), (0, 0));
    }
    service.set_down(false);
    all_send(&nodes, 150, millis(100)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_begins_anew_is_believed() {
    let (first, second) = (InProcessFleet::new(), InProcessFleet::new());
    /// A store that is replaced, as a redis that restarts empty.
    #[derive(Clone)]
    struct Replaced(Arc<Mutex<InProcessFleet>>);
    impl FleetStore for Replaced {
        fn exchange<'a>(
            &'a self,
            node: NodeId,
            reports: &'a [HostReport],
        ) -> BoxFuture<'a, Result<Vec<HostAdvice>, BoxError>> {
            let store = self.0.lock().unwrap().clone();
            Box::pin(async move { store.exchange(node, reports).await })
        }
    }
    let store = Replaced(Arc::new(Mutex::new(first)));
    let service = Service::default();
    let nodes = nodes(4, &store, &service);
    service.set_down(true);
    all_send(&nodes, 30, millis(90)).await;
    assert!(nodes.iter().all(Node::is_open));
    *store.0.lock().unwrap() = second;
    sleep(secs(2)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
    all_send(&nodes, 30, millis(90)).await;
    assert!(nodes.iter().all(Node::is_open), "found out anew");
}
