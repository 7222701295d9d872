//! The connections of a `ResilientClient`: none that is dead takes two attempts of a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::header::USER_AGENT;
use reqwest::ClientBuilder;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::{
    AttemptLog, Delivery, FailureKind, HostStates, Resilient, ResilientClient,
    ResilientClientBuilder, ResilientConfigBuilder, ResponseExt,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{ms, quick, resilient};
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

fn client(config: ResilientConfigBuilder) -> ResilientClientBuilder {
    let client = ResilientClient::builder().config(config.build().unwrap());
    client.hosts(HostStates::new()).with_reqwest(|it| it.no_proxy())
}

/// An address that drops SYNs: a listener with its backlog full.
struct Silent {
    listener: TcpListener,
    _full: Vec<TcpStream>,
}

impl Silent {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut full = Vec::new();
        while let Ok(stream) =
            timeout(ms(200), TcpStream::connect(listener.local_addr().unwrap())).await
        {
            full.push(stream.unwrap());
            assert!(full.len() < 100, "the backlog does not fill");
        }
        Self { listener, _full: full }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_whose_first_address_is_silent_is_reached_by_the_second() {
    let (silent, server) = (Silent::new().await, Server::h1([Reply::status(200).into()]));
    let addresses = [silent.addr(), server.addr()];
    let client = client(quick())
        .with_reqwest(move |it| it.resolve_to_addrs("two.example", &addresses))
        .build()
        .unwrap();
    let start = Instant::now();
    let response = client.get("http://two.example/").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (200, 1));
    assert!((ms(2_400)..ms(4_000)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_post_to_an_address_that_drops_syns_is_known_as_not_sent() {
    let silent = Silent::new().await;
    let client = client(quick().max_retries(0)).build().unwrap();
    let log = AttemptLog::new();
    let (url, start) = (format!("http://{}/", silent.addr()), Instant::now());
    let post = client.post(url).body("once").with_extension(log.clone());
    post.send().await.unwrap_err();
    assert!((ms(4_900)..ms(6_500)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(log.history().attempts()[0].delivery, Delivery::NotSent);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_post_that_could_not_connect_in_time_is_sent_again() {
    let (silent, server) = (Silent::new().await, Server::h1([Reply::status(200).into()]));
    let addresses = [silent.addr(), silent.addr()];
    let client = client(quick())
        .with_reqwest(move |it| {
            it.resolve_to_addrs("silent.example", &addresses).connect_timeout(ms(200))
        })
        .build()
        .unwrap();
    let log = AttemptLog::new();
    let post = client.post("http://silent.example/").body("once").with_extension(log.clone());
    post.send().await.unwrap_err();
    assert_eq!((log.attempts(), server.requests()), (3, 0));
}

/// A client with six idle connections to a server, which then goes on with `steps`.
async fn with_six_connections(
    config: ResilientConfigBuilder,
    steps: impl IntoIterator<Item = Step>,
) -> (Server, ResilientClient) {
    let first = (0..6).map(|_| Reply::status(200).late(ms(200)).into());
    let server = Server::h1(first.chain(steps));
    let client = client(config).build().unwrap();
    let ask = || client.get(server.url("/")).send();
    for response in join_all((0..6).map(|_| ask())).await {
        response.unwrap().bytes().await.unwrap();
    }
    assert_eq!(server.connections(), 6);
    (server, client)
}

#[tokio::test]
async fn a_retry_after_a_stale_or_silent_connection_gets_a_connection_of_its_own() {
    let dead: [(Step, _); 4] = [
        (Fault::After(0, End::Close).into(), FailureKind::Disconnect),
        (Fault::After(0, End::Reset).into(), FailureKind::Disconnect),
        (Fault::Unanswered(End::Stall).into(), FailureKind::Timeout),
        (Reply::status(200).cut_head(End::Stall).into(), FailureKind::Timeout),
    ];
    for (dead, kind) in dead {
        let config = quick().attempt_timeout(ms(500));
        let (server, client) =
            with_six_connections(config, [dead, Reply::status(200).into()]).await;
        let response = client.get(server.url("/last")).send().await.unwrap();
        let history = response.history().unwrap();
        assert_eq!(history.attempts()[0].result, Err(kind));
        assert_eq!((response.attempts(), server.connections()), (2, 7));
        assert_eq!(server.seen().last().unwrap().connection, 7);
    }
}

#[tokio::test]
async fn a_retry_after_a_response_goes_by_the_pool() {
    let steps = [Reply::status(503).into(), Reply::status(200).into()];
    let (server, client) = with_six_connections(quick(), steps).await;
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.attempts(), server.connections()), (2, 6));
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn a_silent_http2_connection_takes_one_attempt() {
    use crate::support::h2::Stream;

    let stall = Stream::Unanswered(End::Stall);
    let server = Server::h2([Reply::status(200).into(), stall, Reply::status(200).into()]);
    let config = quick().attempt_timeout(Duration::from_secs(2));
    let client = client(config).with_reqwest(|it| it.http2_prior_knowledge()).build().unwrap();
    client.get(server.url("/")).send().await.unwrap();
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.attempts(), server.connections()), (2, 2));
}

/// A client of the user's own, as the front page has it.
fn own(
    config: ResilientConfigBuilder,
    customize: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> ClientWithMiddleware {
    let inner = customize(Resilient::reqwest_builder().no_proxy()).build().unwrap();
    resilient(config, inner)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_of_ones_own_reaches_the_second_address_and_knows_a_post_as_not_sent() {
    let (silent, server) = (Silent::new().await, Server::h1([Reply::status(200).into()]));
    let addresses = [silent.addr(), server.addr()];
    let client = own(quick(), |it| it.resolve_to_addrs("two.example", &addresses));
    let response = client.post("http://two.example/").body("once").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.attempts()), (200, 1));

    let addresses = [silent.addr()];
    let client =
        own(quick(), |it| it.resolve_to_addrs("one.example", &addresses).connect_timeout(ms(200)));
    let log = AttemptLog::new();
    let post = client.post("http://one.example/").body("once").with_extension(log.clone());
    post.send().await.unwrap_err();
    let deliveries = log.history().attempts().iter().map(|it| it.delivery).collect::<Vec<_>>();
    assert_eq!(deliveries, [Delivery::NotSent; 3]);
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn a_client_of_ones_own_leaves_a_silent_http2_connection_within_an_attempt_of_ten_seconds() {
    use crate::support::h2::Stream;

    let stall = Stream::Unanswered(End::Stall);
    let server = Server::h2([Reply::status(200).into(), stall, Reply::status(200).into()]);
    let config = quick().attempt_timeout(Duration::from_secs(10));
    let client = own(config, |it| it.http2_prior_knowledge());
    client.get(server.url("/")).send().await.unwrap();
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!((response.attempts(), server.connections()), (2, 2));
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn a_client_of_ones_own_makes_one_send_of_each_attempt() {
    use crate::support::h2::Stream;

    let server = Server::h2([Stream::Refuse]);
    let client = own(quick(), |it| it.http2_prior_knowledge());
    client.post(server.url("/")).body("x").send().await.unwrap_err();
    assert_eq!(server.begun(), 3);
}

#[tokio::test]
async fn a_client_that_is_customized_keeps_the_rest() {
    let server = Server::h1([
        Fault::Unanswered(End::Stall).into(),
        Reply::status(200).into(),
        Reply::status(421).into(),
        Reply::status(200).into(),
    ]);
    let client = client(quick()).with_reqwest(|it| it.user_agent("mine/1.0")).build().unwrap();
    let start = Instant::now();
    let response = client.get(server.url("/")).send().await.unwrap();
    assert_eq!(response.attempts(), 2);
    assert!((ms(9_900)..ms(12_000)).contains(&start.elapsed()), "{:?}", start.elapsed());
    client.post(server.url("/")).send().await.unwrap();
    let agents: Vec<_> = server.seen().iter().map(|it| it.headers[USER_AGENT].clone()).collect();
    assert_eq!(agents, ["mine/1.0"; 4]);
}

#[tokio::test]
async fn a_redirect_policy_of_the_users_own_is_noticed() {
    // A POST that was redirected and then failed is not sent again.
    let server = Server::h1([
        Reply::status(307).header("location", "/elsewhere").into(),
        Reply::status(429).into(),
        Reply::status(200).into(),
    ]);
    let client = client(quick())
        .with_reqwest(|it| it.redirect(reqwest::redirect::Policy::limited(3)))
        .build()
        .unwrap();
    let response = client.post(server.url("/")).body("once").send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests()), (429, 2));
}
