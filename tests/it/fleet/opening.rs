//! When a fleet opens, probes and closes.

use reqwest_resilient::{BreakerState, fleet::HostReport};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_some_find_all_heed() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = nodes(6, &store, &service);
    all_send(&nodes, 3, millis(100)).await;
    // Of six nodes three find out: too few requests for the breaker of any one.
    service.set_down(true);
    all_send(&nodes[..4], 10, millis(300)).await;
    assert!(nodes[..4].iter().all(Node::is_open));
    // Nodes that were quiet hear of it all the same.
    assert!(nodes[4..].iter().all(Node::is_open));
    let before = service.arrived();
    for node in &nodes {
        let error = node.client.get(URL).send().await.unwrap_err().to_string();
        assert!(error.contains("circuit breaker is open: opened by the fleet"), "{error}");
    }
    assert_eq!(service.arrived(), before);
    // The local breakers are closed.
    for node in &nodes {
        assert_eq!(node.hosts.breaker(HOST).state(), BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn without_messages_quiet_nodes_hear_by_their_first_report() {
    let (store, service) = (Wrapped::new(), Service::default());
    let nodes = nodes(6, &store, &service);
    all_send(&nodes, 3, millis(100)).await;
    service.set_down(true);
    all_send(&nodes[..4], 10, millis(300)).await;
    assert!(nodes[..4].iter().all(Node::is_open));
    assert_eq!(nodes[5].state(), FleetState::Closed);
    for node in &nodes[4..] {
        assert_eq!(node.get().await, Some(503));
    }
    sleep(millis(50)).await;
    assert!(nodes[4..].iter().all(Node::is_open));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_of_an_opening_by_a_message_alone_stays_in_contact() {
    let (store, service) = (InProcessFleet::new(), Service::default());
    let nodes = nodes(6, &store, &service);
    all_send(&nodes, 3, millis(100)).await;
    service.set_down(true);
    open(&nodes[..4], &service).await;
    assert!(nodes[5].is_open());
    let exchanges = nodes[5].fleet.stats().exchanges;
    let before = service.arrived();
    sleep(secs(5)).await;
    // What is older than 5 s is not believed any more.
    assert_ne!(nodes[5].state(), FleetState::Unknown);
    assert_eq!((nodes[5].get().await, service.arrived()), (None, before));
    assert!((4..=7).contains(&(nodes[5].fleet.stats().exchanges - exchanges)));
    // It hears as well that the fleet has closed.
    service.set_down(false);
    all_send(&nodes[..4], 60, millis(100)).await;
    assert_eq!(nodes[5].state(), FleetState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_closes_by_probes_and_restarts_local_breakers() {
    let (nodes, _, service) = opened(4).await;
    nodes[0].hosts.breaker(HOST).open_for(secs(600), std::time::Instant::now());
    let before = service.arrived();
    sleep(secs(3)).await;
    all_send(&nodes, 1, millis(10)).await;
    assert_eq!(service.arrived(), before, "open for five seconds in all");
    service.set_down(false);
    all_send(&nodes, 60, millis(100)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
    for node in &nodes {
        assert_eq!(node.get().await, Some(200));
        let breaker = node.hosts.breaker(HOST);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.snapshot(std::time::Instant::now()).window.failures, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_opens_again_when_a_probe_fails() {
    let (nodes, store, service) = opened(4).await;
    let before = service.arrived();
    all_send(&nodes, 120, millis(90)).await;
    // Twelve seconds, with probes at about five and eleven of them; each of four nodes may send one
    // before it hears of another's.
    let probes = service.arrived() - before;
    assert!((1..=12).contains(&probes), "{probes} probes");
    let advice = store.exchange(NodeId::new(1), &[HostReport::new(HOST)]).await.unwrap();
    assert!(advice[0].breaker.epoch >= 2, "{advice:?}");
}

#[tokio::test(start_paused = true)]
async fn one_poisoned_node_stops_no_other() {
    let (store, service, broken) = (InProcessFleet::new(), Service::default(), Service::default());
    let good = nodes(6, &store, &service);
    let bad = nodes(1, &store, &broken);
    broken.set_down(true);
    // A hundred times the traffic.
    let (good_sends, bad_sends) =
        (all_send(&good, 30, millis(490)), all_send(&bad, 800, millis(5)));
    futures_util::future::join(good_sends, bad_sends).await;
    assert!(broken.arrived() > 4 * good.len() * 30 / 2);
    assert_eq!(service.arrived(), good.len() * 30);
    assert!(good.iter().chain(&bad).all(|it| !it.is_open()));
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_hangs_or_dies_holds_up_no_other() {
    let (nodes, _, service) = opened(4).await;
    service.set_hanging(true);
    let ask = |node: &Node| {
        let client = node.client.clone();
        tokio::spawn(async move { client.get(URL).send().await.map(|it| it.status()) })
    };
    sleep(secs(6)).await;
    let before = service.arrived();
    let mut hung = vec![];
    while service.arrived() == before {
        hung.extend(nodes.iter().map(ask));
        sleep(millis(50)).await;
    }
    // Half of them are dropped, as if their process died, the others hang on.
    let probing: Vec<_> = hung.into_iter().filter(|it| !it.is_finished()).collect();
    assert!(!probing.is_empty());
    probing.iter().step_by(2).for_each(|it| it.abort());
    service.set_hanging(false);
    service.set_down(false);
    all_send(&nodes, 60, millis(100)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
}

#[tokio::test(start_paused = true)]
async fn the_fleets_breaker_is_waited_for_like_an_open_one() {
    let (nodes, store, service) = opened(4).await;
    let config = lenient().max_open_wait(secs(20)).build().unwrap();
    let patient = node_of(&Fleet::new(store), config, &service);
    assert_eq!(patient.get().await, Some(503), "it knows nothing yet");
    sleep(millis(1)).await;
    assert!(patient.is_open());
    let began = Instant::now();
    let waiting = tokio::spawn({
        let client = patient.client.clone();
        async move { client.get(URL).send().await.unwrap().status().as_u16() }
    });
    service.set_down(false);
    all_send(&nodes, 80, millis(100)).await;
    assert_eq!(waiting.await.unwrap(), 200);
    assert!(began.elapsed() >= secs(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_switch_works_by_itself() {
    let (nodes, store, service) = opened(4).await;
    let config = || lenient().build().unwrap();
    let fleet = Fleet::builder(store.clone()).without_breaker().build().unwrap();
    let alone = node_of(&fleet, config(), &service);
    let local = node_of(&Fleet::new(store), config(), &service);
    let off = reqwest_resilient::RetryOverride::new().without_circuit_breaker();
    assert_eq!(local.get().await, Some(503));
    sleep(secs(1)).await;
    assert!(local.is_open() && nodes[0].is_open());
    for _ in 0..3 {
        assert_eq!(alone.get().await, Some(503));
        let request = local.client.get(URL).with_extension(off.clone());
        assert_eq!(request.send().await.unwrap().status(), 503);
    }
    // A breaker that is switched off by hand admits all.
    local.hosts.breaker(HOST).disable();
    assert_eq!(local.get().await, Some(503));
}

#[tokio::test(start_paused = true)]
async fn rate_limits_and_rejections_are_no_votes() {
    let store = Wrapped::new();
    let service = Service::default();
    let nodes = nodes(3, &store, &service);
    for _ in 0..300 {
        service.next(http::Response::builder().status(429));
    }
    all_send(&nodes, 40, millis(100)).await;
    let failed = |(_, _, reports): &(Instant, NodeId, Vec<HostReport>)| {
        reports.iter().map(|it| it.failed).sum::<u32>()
    };
    assert_eq!(store.calls().iter().map(failed).sum::<u32>(), 0);
    assert!(nodes.iter().all(|it| !it.is_open()));
}

#[tokio::test(start_paused = true)]
async fn late_failures_of_an_outage_do_not_count_after_it() {
    let (nodes, store, service) = opened(4).await;
    service.set_down(false);
    sleep(secs(6)).await;
    all_send(&nodes, 60, millis(100)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
    let epoch_of = |advice: Vec<HostAdvice>| (advice[0].breaker.run, advice[0].breaker.epoch);
    let asked = store.exchange(NodeId::new(9), &[HostReport::new(HOST)]).await.unwrap();
    let (run, epoch) = epoch_of(asked);
    let mut late = HostReport::new(HOST);
    (late.run, late.epoch, late.failed, late.votes_failing) = (run, epoch - 1, 1_000, true);
    for node in 20..40 {
        store.exchange(NodeId::new(node), &[late.clone()]).await.unwrap();
    }
    all_send(&nodes, 1, millis(100)).await;
    assert!(nodes.iter().all(|it| it.state() == FleetState::Closed));
}
