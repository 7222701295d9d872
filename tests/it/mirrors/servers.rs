//! Real servers: one that is down, one that no connection reaches, one that responds 503; and the
//! spread over quick and slow ones.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{
    BreakerState, Event, Mirrors, Resilient, ResilientConfig, ResilientConfigBuilder, ResponseExt,
};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client_builder;
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(150);

fn client(config: ResilientConfigBuilder) -> ClientWithMiddleware {
    let inner = client_builder()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .unwrap();
    let config = config.attempt_timeout(Duration::from_secs(5)).build().unwrap();
    ClientBuilder::new(inner).with(Resilient::new(config)).build()
}

fn good() -> Server {
    Server::h1([Reply::status(200).into()])
}

/// A listener whose backlog is full, so that the kernel drops further handshakes.
async fn black_hole() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let moment = Duration::from_millis(20);
    while let Ok(socket) = tokio::time::timeout(moment, TcpStream::connect(addr)).await {
        held.push(socket.unwrap());
    }
    (addr, (listener, held))
}

/// Sends one request after another for six seconds while the preferred endpoint is ill. All succeed;
/// once its breaker has opened, only its probes pay for it.
async fn survives(ill: String) {
    let (second, third) = (good(), good());
    let (slow, opened) = (Arc::new(Mutex::new(0_u32)), Arc::new(Mutex::new((0_u32, false))));
    let (told, url) = (Arc::clone(&opened), ill.clone());
    let mirrors = Mirrors::new(&ill).also(&second.url("")).also(&third.url("/x/"));
    let config = ResilientConfig::builder().mirrors(mirrors).on_event(move |event| {
        if let Event::BreakerChanged(change) = event {
            assert_eq!(*change.key, *url.trim_end_matches('/'));
            let mut told = told.lock().unwrap();
            told.1 = true;
            told.0 += u32::from(change.to == BreakerState::HalfOpen);
        }
    });
    let client = client(config);
    let (begun, mut sent) = (Instant::now(), 0);
    let mut late = vec![];
    while begun.elapsed() < Duration::from_secs(6) {
        let was_open = opened.lock().unwrap().1;
        let start = Instant::now();
        let response = client.get(format!("{ill}file")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.endpoint().unwrap().as_str(), second.url("/"));
        sent += 1;
        if was_open && response.attempts() > 1 {
            *slow.lock().unwrap() += 1;
            late.push(start.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (probes, was_open) = *opened.lock().unwrap();
    assert!(was_open, "of {sent} requests");
    assert_eq!(*slow.lock().unwrap(), probes, "{late:?} of {sent} requests");
    assert!((1..=4).contains(&probes), "{probes} probes");
    // The median: a busy machine stops for a second now and then.
    late.sort();
    let usual = late.get(late.len() / 2).copied().unwrap_or_default();
    assert!(usual < CONNECT_TIMEOUT * 4, "{late:?}");
    assert_eq!(third.requests(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_costs_one_request_an_open_period() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    survives(format!("http://{closed}/")).await;
}

#[tokio::test]
async fn a_server_that_no_connection_reaches_costs_one_request_an_open_period() {
    let (addr, _full) = black_hole().await;
    survives(format!("http://{addr}/")).await;
}

#[tokio::test]
async fn a_server_that_responds_503_costs_one_request_an_open_period() {
    let ill = Server::h1([Reply::status(503).into()]);
    survives(ill.url("/")).await;
}

/// A stale connection is replaced at the same server, for which its budget pays: once that is empty,
/// the next one is asked.
#[tokio::test]
async fn a_server_that_closes_connections_costs_one_request_an_open_period() {
    let ill = Server::h1([Fault::Unanswered(End::Close).into()]);
    survives(ill.url("/")).await;
}

/// The share of the first of two servers, in per cent.
async fn share_of_first(latencies: [u64; 2], requests: usize, at_once: usize) -> usize {
    let slow = |ms| Server::h1([Reply::status(200).late(Duration::from_millis(ms)).into()]);
    let [one, other] = latencies.map(slow);
    let mirrors = Mirrors::new(&one.url("/")).also(&other.url("/")).spread();
    let client = client(ResilientConfig::builder().mirrors(mirrors));
    let url = one.url("/file");
    let all = stream::iter(0..requests).map(|_| client.get(&url).send());
    let all: Vec<_> = all.buffer_unordered(at_once).collect().await;
    assert!(all.into_iter().all(|it| it.unwrap().status() == 200));
    one.requests() * 100 / requests
}

#[tokio::test]
async fn most_requests_go_to_the_quicker_of_two_servers() {
    for at_once in [1, 8] {
        let share = share_of_first([10, 100], 600, at_once).await;
        assert!(share >= 80, "{share} % with {at_once} at once");
        println!("10/100 ms, {at_once} at once: {share} %");
    }
}

#[tokio::test]
async fn equal_servers_get_equal_shares() {
    for at_once in [8, 32] {
        let share = share_of_first([50, 50], 800, at_once).await;
        assert!((45..=55).contains(&share), "{share} % with {at_once} at once");
        println!("50/50 ms, {at_once} at once: {share} %");
    }
}

/// A server that was ill gets its share again within 15 s of traffic.
#[tokio::test]
async fn a_healed_server_gets_its_share_again() {
    let healed_at = Instant::now() + Duration::from_secs(3);
    let first = Server::h1([crate::support::reply::Step::ask(move |_| {
        let is_ill = Instant::now() < healed_at;
        Reply::status(200).late(Duration::from_millis(if is_ill { 500 } else { 10 }))
    })]);
    let second = Server::h1([Reply::status(200).late(Duration::from_millis(10)).into()]);
    let mirrors = Mirrors::new(&first.url("/")).also(&second.url("/")).spread();
    let client = client(ResilientConfig::builder().mirrors(mirrors));
    let mut returned = None;
    while returned.is_none() && healed_at + Duration::from_secs(15) > Instant::now() {
        let before = first.requests();
        let all = stream::iter(0..40).map(|_| client.get(first.url("/file")).send());
        let all: Vec<_> = all.buffer_unordered(4).collect().await;
        assert!(all.into_iter().all(|it| it.unwrap().status() == 200));
        if Instant::now() > healed_at && first.requests() - before >= 14 {
            returned = Some(healed_at.elapsed());
        }
    }
    println!("a third of the requests again after {returned:?}");
    assert!(returned.is_some());
}
