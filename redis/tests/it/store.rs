//! The script and its store, by themselves: one exchange after another.

use std::time::Duration;

use redis::{aio::MultiplexedConnection, cmd};
use reqwest_resilient::fleet::{
    FleetGate, FleetNews, FleetState, FleetStore, HostAdvice, HostReport, NodeId,
};
use reqwest_resilient_redis::RedisFleet;
use tokio::time::{sleep, timeout};

use crate::support::{
    proxy::{Passing, Proxy},
    server::Server,
};

const HOST: &str = "http://api.example.com:80";

async fn store(server: &Server) -> RedisFleet<MultiplexedConnection> {
    let connection = server.client().get_multiplexed_async_connection().await.unwrap();
    RedisFleet::new(connection, "test")
}

fn counted(ok: u32, failed: u32) -> HostReport {
    let mut it = HostReport::new(HOST);
    (it.ok, it.failed, it.votes_failing) = (ok, failed, failed > ok);
    it
}

/// The same, heard by a node that knows of `advice`.
fn after(advice: &HostAdvice, mut report: HostReport) -> HostReport {
    (report.run, report.epoch) = (advice.breaker.run, advice.breaker.epoch);
    report
}

async fn exchange<S: FleetStore>(store: &S, node: u64, report: HostReport) -> HostAdvice {
    store.exchange(NodeId::new(node), &[report]).await.unwrap().remove(0)
}

async fn open<S: FleetStore>(store: &S) -> HostAdvice {
    exchange(store, 1, counted(0, 15)).await;
    let advice = exchange(store, 2, counted(0, 15)).await;
    assert!(advice.breaker.state.is_open(), "{advice:?}");
    advice
}

/// Lets the open time of the host be over.
fn skip_open_time(server: &Server) {
    let key = format!("{{rr:test:{HOST}}}:st");
    server.ask::<()>(cmd("HSET").arg(key).arg("until").arg(1));
}

#[tokio::test]
async fn two_failing_nodes_open_and_one_does_not() {
    let server = Server::start();
    let store = store(&server).await;
    let advice = exchange(&store, 1, counted(0, 1_000)).await;
    assert_eq!((advice.breaker.state, advice.breaker.epoch), (FleetState::Closed, 0));
    assert_ne!(advice.breaker.run, 0);
    assert_eq!(advice.nodes, 1);

    let advice = exchange(&store, 2, after(&advice, counted(2, 20))).await;
    let FleetState::Open { remaining } = advice.breaker.state else { panic!("{advice:?}") };
    assert!((5_000..=6_000).contains(&remaining.as_millis()), "{remaining:?}");
    assert_eq!((advice.breaker.epoch, advice.nodes), (1, 2));
    assert!((advice.breaker.attempts_per_second - 102.2).abs() < 1e-9, "{advice:?}");
}

#[tokio::test]
async fn a_poisoned_node_with_a_hundred_times_the_traffic_opens_nothing() {
    let server = Server::start();
    let store = store(&server).await;
    for round in 0..3 {
        for node in 2..10 {
            exchange(&store, node, counted(10, 0)).await;
        }
        let advice = exchange(&store, 1, counted(0, 10_000)).await;
        assert_eq!(advice.breaker.state, FleetState::Closed, "round {round}");
    }
}

#[tokio::test]
async fn few_failures_open_nothing_and_many_successes_neither() {
    let server = Server::start();
    let store = store(&server).await;
    exchange(&store, 1, counted(0, 9)).await;
    let advice = exchange(&store, 2, counted(0, 10)).await;
    assert_eq!(advice.breaker.state, FleetState::Closed, "19 attempts");
    exchange(&store, 3, counted(60, 0)).await;
    let advice = exchange(&store, 1, counted(0, 40)).await;
    assert_eq!(advice.breaker.state, FleetState::Closed, "59 of 119");
    let advice = exchange(&store, 1, counted(0, 1)).await;
    assert!(advice.breaker.state.is_open(), "60 of 120, two of three nodes");
}

#[tokio::test]
async fn an_outage_opens_within_seconds_whatever_was_good_before() {
    let server = Server::start();
    let store = store(&server).await;
    exchange(&store, 1, counted(5_000, 0)).await;
    exchange(&store, 2, counted(5_000, 0)).await;
    let advice = exchange(&store, 1, counted(0, 200)).await;
    assert_eq!(advice.breaker.state, FleetState::Closed);
    sleep(Duration::from_millis(3_000)).await;
    exchange(&store, 1, counted(0, 30)).await;
    let advice = exchange(&store, 2, counted(0, 30)).await;
    assert!(advice.breaker.state.is_open(), "{advice:?}");
}

#[tokio::test]
async fn probes_close_it_and_those_of_another_epoch_do_not() {
    let server = Server::start();
    let store = store(&server).await;
    let opened = open(&store).await;
    let mut probed = HostReport::new(HOST);
    probed.probes_ok = 3;
    let early = exchange(&store, 1, after(&opened, probed.clone())).await;
    assert!(early.breaker.state.is_open(), "not before its time is over");

    skip_open_time(&server);
    let foreign = exchange(&store, 1, probed.clone()).await;
    assert!(matches!(foreign.breaker.state, FleetState::HalfOpen { .. }), "{foreign:?}");

    let mut failed = HostReport::new(HOST);
    failed.probes_failed = 1;
    let reopened = exchange(&store, 2, after(&opened, failed)).await;
    let FleetState::Open { remaining } = reopened.breaker.state else { panic!("{reopened:?}") };
    assert!((4_900..=6_000).contains(&remaining.as_millis()), "{remaining:?}");
    assert_eq!(reopened.breaker.epoch, opened.breaker.epoch + 1);
    assert!(reopened.breaker.attempts_per_second >= opened.breaker.attempts_per_second);

    skip_open_time(&server);
    let stale = exchange(&store, 1, after(&opened, probed.clone())).await;
    assert!(matches!(stale.breaker.state, FleetState::HalfOpen { .. }), "{stale:?}");
    probed.probes_ok = 2;
    let two = exchange(&store, 1, after(&reopened, probed.clone())).await;
    assert!(matches!(two.breaker.state, FleetState::HalfOpen { .. }), "{two:?}");
    probed.probes_ok = 1;
    let closed = exchange(&store, 2, after(&reopened, probed)).await;
    assert_eq!(closed.breaker.state, FleetState::Closed);
    assert_eq!(closed.breaker.epoch, reopened.breaker.epoch + 1);

    // Neither the old counts nor late ones of the time before count.
    let late = exchange(&store, 1, after(&reopened, counted(0, 100))).await;
    let late = exchange(&store, 2, after(&late, counted(0, 1))).await;
    assert_eq!(late.breaker.state, FleetState::Closed);
}

#[tokio::test]
async fn a_store_that_went_back_in_time_begins_a_new_run() {
    let server = Server::start();
    let store = store(&server).await;
    let opened = open(&store).await;
    let mut ahead = HostReport::new(HOST);
    (ahead.run, ahead.epoch) = (opened.breaker.run, opened.breaker.epoch + 5);
    let advice = exchange(&store, 1, ahead).await;
    assert_ne!(advice.breaker.run, opened.breaker.run);
    assert!(advice.breaker.state.is_open(), "its state is kept");
}

#[tokio::test]
async fn gates_are_kept_passed_on_and_bounded() {
    let server = Server::start();
    let store = store(&server).await;
    let gate = |key, seconds| FleetGate::new(key, Duration::from_secs(seconds));
    let mut report = HostReport::new(HOST);
    report.gates = vec![gate(0, 30), gate(u64::MAX, 100_000)];
    exchange(&store, 1, report.clone()).await;
    report.gates = vec![gate(0, 10)];
    exchange(&store, 2, report.clone()).await;
    let advice = exchange(&store, 3, HostReport::new(HOST)).await;
    let mut left: Vec<_> = advice.gates.iter().map(|it| (it.key, it.remaining)).collect();
    left.sort_unstable();
    assert_eq!(left.len(), 2);
    assert!(left[0].0 == 0 && left[0].1 > Duration::from_secs(29), "the longer one: {left:?}");
    assert!(left[1].0 == u64::MAX && left[1].1 <= Duration::from_secs(3_600), "{left:?}");
    for key in 1..200 {
        report.gates = vec![gate(key, 30)];
        exchange(&store, 1, report.clone()).await;
    }
    let advice = exchange(&store, 3, HostReport::new(HOST)).await;
    assert_eq!(advice.gates.len(), 64);

    let mut short = HostReport::new("http://b:80");
    short.gates = vec![FleetGate::new(5, Duration::from_millis(50))];
    exchange(&store, 1, short).await;
    sleep(Duration::from_millis(100)).await;
    let advice = exchange(&store, 1, HostReport::new("http://b:80")).await;
    assert_eq!(advice.gates, []);
}

#[tokio::test]
async fn what_was_offered_counts_most_when_it_is_a_second_old() {
    let server = Server::start();
    let store = store(&server).await;
    let mut report = HostReport::new(HOST);
    report.offered = 100;
    exchange(&store, 1, report.clone()).await;
    exchange(&store, 2, report).await;
    let mut most = 0.0_f64;
    for _ in 0..12 {
        sleep(Duration::from_millis(125)).await;
        let advice = exchange(&store, 1, HostReport::new(HOST)).await;
        most = most.max(advice.offered_per_second.unwrap());
    }
    assert!((150.0..=200.0).contains(&most), "{most}");
    sleep(Duration::from_millis(1_000)).await;
    let advice = exchange(&store, 1, HostReport::new(HOST)).await;
    assert_eq!(advice.offered_per_second, Some(0.0));
}

#[tokio::test]
async fn every_key_expires_and_a_host_has_at_most_five() {
    let server = Server::start();
    let store = store(&server).await;
    for node in 1..4 {
        let mut report = counted(1, 40);
        report.offered = 9;
        report.gates = vec![FleetGate::new(1, Duration::from_secs(20))];
        exchange(&store, node, report).await;
    }
    let keys: Vec<String> = server.ask(cmd("KEYS").arg("*"));
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in &keys {
        let left: i64 = server.ask(cmd("PTTL").arg(key));
        assert!((1..=60_000).contains(&left), "{key}: {left} ms");
        assert!(key.starts_with(&format!("{{rr:test:{HOST}}}:")), "{key}");
    }
}

#[tokio::test]
async fn an_exchange_is_one_command_a_host_in_one_pipeline() {
    let server = Server::start();
    let store = store(&server).await;
    let hosts = |it: u32| HostReport::new(format!("http://host-{it}:80"));
    let reports: Vec<_> = (0..50).map(hosts).collect();
    // The first one brings the script: 50 that fail, one text, 49 once more.
    let advice = store.exchange(NodeId::new(1), &reports).await.unwrap();
    assert_eq!(advice.len(), 50);
    assert_eq!(server.calls(&["eval"]), 1);
    let before = server.calls(&["evalsha", "eval", "ping"]);
    let advice = store.exchange(NodeId::new(1), &reports).await.unwrap();
    assert_eq!(server.calls(&["evalsha", "eval", "ping"]) - before, 50);
    for (report, advice) in reports.iter().zip(&advice) {
        assert_eq!(report.host, advice.host);
    }
}

#[tokio::test]
async fn a_flushed_script_is_sent_again_and_a_flushed_store_begins_a_new_run() {
    let server = Server::start();
    let store = store(&server).await;
    let opened = open(&store).await;
    server.ask::<()>(cmd("SCRIPT").arg("FLUSH"));
    let advice = exchange(&store, 1, HostReport::new(HOST)).await;
    assert_eq!(advice.breaker.run, opened.breaker.run);
    server.ask::<()>(&cmd("FLUSHALL"));
    let advice = exchange(&store, 1, after(&opened, HostReport::new(HOST))).await;
    assert_eq!((advice.breaker.state, advice.breaker.epoch), (FleetState::Closed, 0));
    assert_ne!(advice.breaker.run, opened.breaker.run);
    assert!(open(&store).await.breaker.state.is_open());
}

#[tokio::test]
async fn without_memory_exchanges_fail_and_go_on_afterwards() {
    let server = Server::start();
    let store = store(&server).await;
    exchange(&store, 1, counted(1, 0)).await;
    server.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1));
    let error = store.exchange(NodeId::new(1), &[counted(1, 0)]).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    server.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0));
    exchange(&store, 1, counted(1, 0)).await;
}

#[tokio::test]
async fn a_key_of_another_type_takes_the_advice_of_one_host() {
    let server = Server::start();
    let store = store(&server).await;
    server.ask::<()>(cmd("SET").arg("{rr:test:http://b:80}:st").arg("foreign"));
    let reports = [counted(1, 0), HostReport::new("http://b:80")];
    let advice = store.exchange(NodeId::new(1), &reports).await.unwrap();
    assert_eq!(advice.len(), 1);
    assert_eq!(&*advice[0].host, HOST);
}

#[tokio::test]
async fn a_pause_piles_up_nothing_and_counts_nothing_twice() {
    let server = Server::start();
    let store = store(&server).await;
    let node = NodeId::new(1);
    exchange(&store, 1, counted(1, 0)).await;
    let before = server.calls(&["evalsha", "eval"]);
    server.pause();
    let mut unsent = 0;
    for _ in 0..10 {
        unsent += 100;
        let report = [counted(unsent, 0)];
        let call = store.exchange(node, &report);
        assert!(timeout(Duration::from_millis(150), call).await.is_err());
    }
    server.resume();
    exchange(&store, 1, counted(unsent, 0)).await;
    // Of eleven exchanges, one was sent and refused, nine were a PING, and one was applied.
    assert_eq!(server.calls(&["evalsha", "eval"]) - before, 2);
    assert!(server.calls(&["ping"]) <= 12);
    assert_eq!(server.counted(HOST), (1 + unsent, 0));
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_error_and_a_new_one_is_found() {
    let mut server = Server::start();
    let connection = server.client().get_connection_manager().await.unwrap();
    let store = RedisFleet::new(connection, "test");
    let first = exchange(&store, 1, counted(1, 0)).await;
    server.kill();
    assert!(store.exchange(NodeId::new(1), &[counted(1, 0)]).await.is_err());
    server.restart();
    for tries in 0.. {
        assert!(tries < 100);
        let report = [after(&first, counted(1, 0))];
        if let Ok(Ok(advice)) =
            timeout(Duration::from_millis(200), store.exchange(NodeId::new(1), &report)).await
        {
            assert_ne!(advice[0].breaker.run, first.breaker.run);
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn news_arrive_before_the_next_exchange_and_after_another_connection() {
    let server = Server::start();
    let listening = store(&server).await.with_news(server.client());
    let other = store(&server).await;
    assert!(timeout(Duration::from_millis(300), listening.next_news()).await.is_err());
    let opened = open(&other).await;
    let news = timeout(Duration::from_millis(100), listening.next_news()).await.unwrap();
    let FleetNews::Breaker { host, breaker } = news else { panic!("{news:?}") };
    assert_eq!(&*host, HOST);
    assert_eq!((breaker.run, breaker.epoch), (opened.breaker.run, opened.breaker.epoch));
    assert!(breaker.state.is_open());
    assert_eq!(breaker.attempts_per_second, opened.breaker.attempts_per_second);

    server.ask::<()>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"));
    sleep(Duration::from_millis(1_300)).await;
    let mut report = HostReport::new(HOST);
    report.gates = vec![FleetGate::new(3, Duration::from_secs(9))];
    exchange(&other, 1, report).await;
    let news = timeout(Duration::from_millis(100), listening.next_news()).await.unwrap();
    let gate = FleetGate::new(3, Duration::from_secs(9));
    assert_eq!(news, FleetNews::GateClosed { host: HOST.into(), gate });

    drop(listening);
    sleep(Duration::from_millis(50)).await;
    let clients: String = server.ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"));
    assert_eq!(clients, "", "the subscription ends with its store");
}

#[tokio::test]
async fn a_subscription_whose_socket_is_half_dead_is_replaced() {
    let server = Server::start();
    let proxy = Proxy::start(server.socket());
    let client = redis::Client::open(proxy.url()).unwrap();
    let listening = store(&server).await.with_news(client);
    let subscribers = || {
        let list: String = server.ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"));
        let ids = list.lines().map(|it| it.split(' ').next().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert!(timeout(Duration::from_millis(300), listening.next_news()).await.is_err());
    let first = subscribers();
    assert_eq!(first.len(), 1);
    // A heartbeat is due after 5 s, and has 2 s.
    proxy.set(Passing::Held);
    sleep(Duration::from_millis(7_500)).await;
    proxy.set(Passing::After(Duration::ZERO));
    for tries in 0.. {
        assert!(tries < 100, "{:?}", subscribers());
        let now = subscribers();
        if now.len() == 1 && now != first {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    open(&store(&server).await).await;
    let news = timeout(Duration::from_millis(500), listening.next_news()).await.unwrap();
    assert!(matches!(news, FleetNews::Breaker { .. }), "{news:?}");
}
