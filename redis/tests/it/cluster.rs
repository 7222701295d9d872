//! A cluster: hosts lie in several slots, the keys of one host in one.

use std::{net::TcpListener, time::Duration};

use redis::{Client, cluster::ClusterClient, cmd};
use reqwest_resilient::fleet::{FleetStore, HostReport, NodeId};
use reqwest_resilient_redis::RedisFleet;

use crate::support::{server::Server, until};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a cluster of two masters; returns them and their URLs.
fn start() -> (Vec<Server>, Vec<String>) {
    let start = |(slots, port, bus): ([u16; 2], u16, u16)| {
        let (port, bus) = (port.to_string(), bus.to_string());
        let more = ["--port", &port, "--bind", "127.0.0.1"];
        let more = [&more[..], &["--cluster-enabled", "yes", "--cluster-port", &bus]].concat();
        let server = Server::with(&more);
        server.ask::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(&slots));
        server
    };
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let servers =
        vec![start(([0, 8_191], ports[0], ports[1])), start(([8_192, 16_383], ports[2], ports[3]))];
    servers[0].ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(ports[2]).arg(ports[3]));
    until("the cluster is whole", Duration::from_secs(20), || {
        servers.iter().all(|it| it.ask::<String>(cmd("CLUSTER").arg("INFO")).contains("state:ok"))
    });
    (servers, [ports[0], ports[2]].map(|it| format!("redis://127.0.0.1:{it}/")).to_vec())
}

#[tokio::test]
async fn hosts_of_several_slots_are_exchanged_at_once() {
    let (servers, urls) = start();
    let connection =
        ClusterClient::new(urls.clone()).unwrap().get_async_connection().await.unwrap();
    let store = RedisFleet::new(connection, "test")
        .in_cluster()
        .with_news(Client::open(urls[0].as_str()).unwrap());
    let failed = |it: u32| {
        let mut report = HostReport::new(format!("http://host-{it}:80"));
        (report.failed, report.votes_failing) = (20, true);
        report
    };
    let reports: Vec<_> = (0..40).map(failed).collect();
    let first = store.exchange(NodeId::new(1), &reports).await.unwrap();
    assert_eq!(first.len(), 40);
    let second = store.exchange(NodeId::new(2), &reports).await.unwrap();
    assert!(second.iter().all(|it| it.breaker.state.is_open()), "{second:?}");
    for server in &servers {
        let keys: Vec<String> = server.ask(cmd("KEYS").arg("*"));
        assert!(keys.len() > 20, "{keys:?}");
        assert!(server.calls(&["eval"]) >= 1);
    }
}

#[tokio::test]
async fn a_part_that_hangs_takes_no_advice_from_the_others() {
    let (servers, urls) = start();
    let connection = ClusterClient::new(urls).unwrap().get_async_connection().await.unwrap();
    let store = RedisFleet::new(connection, "test").in_cluster();
    let reports: Vec<_> =
        (0..40).map(|it| HostReport::new(format!("http://host-{it}:80"))).collect();
    let exchange = async || {
        let call = store.exchange(NodeId::new(1), &reports);
        tokio::time::timeout(Duration::from_millis(400), call).await.unwrap().unwrap().len()
    };
    assert_eq!(exchange().await, 40);
    let before = servers[1].calls(&["evalsha", "eval"]);
    servers[1].pause();
    for _ in 0..5 {
        let heard = exchange().await;
        assert!((10..30).contains(&heard), "{heard} of 40");
    }
    servers[1].resume();
    // What it was sent while it hung, it reads now: one report a host, else only whether it is there.
    until("all get advice again", Duration::from_secs(5), || servers[1].calls(&["exists"]) >= 40);
    assert_eq!(exchange().await, 40);
    let reached = servers[1].calls(&["evalsha", "eval"]) - before;
    assert!(reached <= 60, "{reached}: two for each of its hosts");
}
