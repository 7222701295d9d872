//! One of three endpoints is ill, the preferred one: the client by itself, a list in a loop as it is
//! written by hand, and mirrors.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{Mirrors, Resilient, ResilientConfig};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    figures::Ledger,
    scenario::{Host, Rule},
    server::Server,
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUESTS: usize = 600;
const EVERY: Duration = Duration::from_millis(10);

/// What is wrong with the first endpoint.
#[derive(Clone, Copy)]
enum Ill {
    /// Refuses connections.
    Dead,
    /// No handshake is answered.
    BlackHoled,
    Status503,
}

const ILLS: [(Ill, &str); 3] = [
    (Ill::Dead, "one of three refuses connections"),
    (Ill::BlackHoled, "one of three is black-holed"),
    (Ill::Status503, "one of three says 503"),
];

type Sent = Pin<Box<dyn Future<Output = bool> + Send>>;
type Build = fn([String; 3]) -> Box<dyn Fn(usize) -> Sent + Send>;

const CONTESTANTS: [(&str, Build); 3] = [
    ("reqwest-retry", |urls| {
        let policy = ExponentialBackoff::builder().build_with_max_retries(3);
        let retry = RetryTransientMiddleware::new_with_policy(policy);
        let client = ClientBuilder::new(inner()).with(retry).build();
        Box::new(move |id| {
            let sent = client.get(format!("{}{id}", urls[0])).send();
            Box::pin(async move { sent.await.is_ok_and(|it| it.status().is_success()) })
        })
    }),
    ("a list in a loop", |urls| {
        let (client, urls) = (inner(), Arc::new(urls));
        Box::new(move |id| {
            let (client, urls) = (client.clone(), Arc::clone(&urls));
            Box::pin(async move {
                for url in urls.iter() {
                    let sent = client.get(format!("{url}{id}")).send().await;
                    if sent.is_ok_and(|it| it.status().is_success()) {
                        return true;
                    }
                }
                false
            })
        })
    }),
    (OURS, |urls| {
        let mirrors = Mirrors::new(&urls[0]).also(&urls[1]).also(&urls[2]);
        let config = ResilientConfig::builder().mirrors(mirrors).build().expect("a config");
        let client = ClientBuilder::new(inner()).with(Resilient::new(config)).build();
        Box::new(move |id| {
            let sent = client.get(format!("{}{id}", urls[0])).send();
            Box::pin(async move { sent.await.is_ok_and(|it| it.status().is_success()) })
        })
    }),
];

const OURS: &str = "Mirrors";

fn inner() -> reqwest::Client {
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
    client.timeout(ATTEMPT_TIMEOUT).retry(reqwest::retry::never()).build().expect("a client")
}

/// A listener whose backlog is full, so that the kernel drops further handshakes.
async fn black_hole() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(0).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut held = vec![];
    while let Ok(socket) = timeout(Duration::from_millis(20), TcpStream::connect(address)).await {
        held.push(socket);
    }
    (address, (listener, held))
}

/// Sends 100 requests a second for six seconds with each client, and prints what became of them.
pub(crate) async fn print() {
    println!(
        "\nMirrors over sockets, {REQUESTS} requests, connect timeout {} ms:\n",
        CONNECT_TIMEOUT.as_millis()
    );
    println!(
        "| endpoint | client | succeeded | p50 | p99 | longer than 100 ms |\n|---|---|---|---|---|---|"
    );
    for (ill, about) in ILLS {
        for (name, build) in CONTESTANTS {
            let took = run(ill, build).await;
            let late = took.iter().filter(|it| **it > 100.0).count();
            let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied();
            let [p50, p99] = [0.5, 0.99].map(|it| at(it).unwrap_or(f64::NAN));
            println!("| {about} | {name} | {} | {p50:.1} | {p99:.1} | {late} |", took.len());
            if name == OURS {
                let is_met = |it: bool| if it { "met" } else { "missed" };
                let all = is_met(took.len() == REQUESTS);
                eprintln!("bar mirrors, {about}: succeeded {} of {REQUESTS}: {all}", took.len());
            }
        }
    }
}

/// Returns the times of the requests that succeeded, in milliseconds, sorted.
async fn run(ill: Ill, build: Build) -> Vec<f64> {
    let ledger = Arc::new(Ledger::new(None));
    ledger.start();
    let first = match ill {
        Ill::Status503 => Host::new(Rule::Fails { status: 503, share: 1.1 }),
        Ill::Dead | Ill::BlackHoled => Host::dead(),
    };
    let mut servers = vec![];
    for (number, host) in [first, Host::new(Rule::Good), Host::new(Rule::Good)].iter().enumerate() {
        servers.push(Server::start(number, host, 1, &ledger).await);
    }
    let (hole, _held) = black_hole().await;
    let mut addresses = [servers[0].address, servers[1].address, servers[2].address];
    if let Ill::BlackHoled = ill {
        addresses[0] = hole;
    }
    let send = build(addresses.map(|it| format!("http://{it}/a/")));
    let (mut tasks, mut tick) = (JoinSet::new(), interval(EVERY));
    for id in 0..REQUESTS {
        tick.tick().await;
        let sent = send(id);
        tasks.spawn(async move {
            let start = Instant::now();
            sent.await.then(|| start.elapsed().as_secs_f64() * 1_000.0)
        });
    }
    let mut took: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort_by(f64::total_cmp);
    took
}
