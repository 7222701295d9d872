//! The clients that meet real servers, their load, and the line that tells how it went.

use std::collections::HashSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use http::{HeaderName, Method};
use reqwest::{Client as Inner, ClientBuilder as InnerBuilder, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::{
    Constant, Resilient, ResilientClient, ResilientConfig, ResilientConfigBuilder,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tokio::time::sleep;

use super::ms;
use super::server::{Entry, twice};
use crate::support::server::Server;

/// The names of the clients.
pub(super) const OURS: &str = "ResilientClient";
pub(super) const CHAIN: &str = "Resilient";
pub(super) const PEER: &str = "reqwest-retry";

/// What clients are built with.
#[derive(Clone)]
pub(super) struct Setup {
    config: ResilientConfigBuilder,
    customize: Arc<dyn Fn(InnerBuilder) -> InnerBuilder + Send + Sync>,
}

impl Setup {
    /// The default settings.
    pub(super) fn new() -> Self {
        Self::with(ResilientConfig::builder())
    }

    pub(super) fn with(config: ResilientConfigBuilder) -> Self {
        Self { config, customize: Arc::new(|it| it.no_proxy()) }
    }

    /// Short waits, and the number of each attempt in the header `x-attempt`.
    pub(super) fn quick() -> Self {
        let config = ResilientConfig::builder().backoff(Constant::new(ms(5)));
        Self::with(config.attempt_header(HeaderName::from_static("x-attempt")))
    }

    pub(super) fn attempt_timeout(self, limit: Duration) -> Self {
        Self { config: self.config.attempt_timeout(limit), ..self }
    }

    /// Changes the client of reqwest inside, of all clients.
    pub(super) fn inner(
        self,
        customize: impl Fn(InnerBuilder) -> InnerBuilder + Send + Sync + 'static,
    ) -> Self {
        Self { customize: Arc::new(move |it| customize(it.no_proxy())), ..self }
    }

    pub(super) fn ours(&self) -> Client {
        let (customize, config) = (Arc::clone(&self.customize), self.config.clone());
        let client = ResilientClient::builder().config(config.build().unwrap());
        Client::Ours(client.with_reqwest(move |it| customize(it)).build().unwrap())
    }

    /// `ClientBuilder::new(reqwest::Client::new()).with(Resilient::default())`
    pub(super) fn chain(&self) -> Client {
        let resilient = Resilient::new(self.config.clone().build().unwrap());
        let inner = (self.customize)(Inner::builder()).build().unwrap();
        Client::Chain(ClientBuilder::new(inner).with(resilient).build())
    }

    pub(super) fn reqwest_retry(&self) -> Client {
        let inner = (self.customize)(Inner::builder());
        let inner = inner.timeout(Duration::from_secs(10)).build().unwrap();
        let waits = ExponentialBackoff::builder()
            .retry_bounds(Duration::from_millis(300), Duration::from_secs(30));
        let retries = RetryTransientMiddleware::new_with_policy(waits.build_with_max_retries(3));
        Client::Chain(ClientBuilder::new(inner).with(retries).build())
    }

    /// Returns both of ours and the peer.
    pub(super) fn contestants(&self) -> Vec<(&'static str, Client)> {
        vec![(OURS, self.ours()), (CHAIN, self.chain()), (PEER, self.reqwest_retry())]
    }
}

pub(super) enum Client {
    Ours(ResilientClient),
    Chain(ClientWithMiddleware),
}

impl Client {
    /// Sends a request and reads its response to the end.
    pub(super) async fn send(&self, kind: Kind, url: &str, id: &str) -> Result<(), String> {
        let method = if kind == Kind::Get { Method::GET } else { Method::POST };
        // reqwest-middleware and ours have builders of the same methods.
        macro_rules! request {
            ($client:expr) => {{
                let request = $client.request(method, url).header("x-request-id", id);
                match kind {
                    Kind::Get => request,
                    Kind::Keyed => request.header("idempotency-key", id).body(id.to_owned()),
                    Kind::Post => request.body(id.to_owned()),
                }
            }};
        }
        match self {
            Self::Ours(client) => end(request!(client).send_resilient()).await,
            Self::Chain(client) => end(request!(client).send()).await,
        }
    }
}

impl Client {
    /// Uploads a body by a PUT.
    pub(super) async fn put(&self, url: &str, id: &str, body: Vec<u8>) -> Result<(), String> {
        match self {
            Self::Ours(client) => {
                end(client.put(url).header("x-request-id", id).body(body).send_resilient()).await
            }
            Self::Chain(client) => {
                end(client.put(url).header("x-request-id", id).body(body).send()).await
            }
        }
    }
}

async fn end<E: std::fmt::Debug>(
    sending: impl IntoFuture<Output = Result<Response, E>>,
) -> Result<(), String> {
    let response = sending.await.map_err(|error| format!("{error:?}"))?;
    if !response.status().is_success() {
        return Err(response.status().to_string());
    }
    response.bytes().await.map(drop).map_err(|error| format!("{error:?}"))
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Get,
    /// A POST with an `Idempotency-Key`.
    Keyed,
    Post,
}

/// In turns.
pub(super) const MIXED: &[Kind] = &[Kind::Get, Kind::Keyed, Kind::Post];

/// In turns with a bad and a good back end that are asked in turns, too: half of the POSTs meet the
/// bad one.
pub(super) const TURNS: &[Kind] = &[Kind::Get, Kind::Post, Kind::Post, Kind::Keyed];

/// So many requests, so many at a time, with a pause before each.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) requests: usize,
    pub(super) at_once: usize,
    pub(super) kinds: &'static [Kind],
    pub(super) pause: fn(usize) -> Duration,
}

impl Load {
    pub(super) fn new(requests: usize, at_once: usize, kinds: &'static [Kind]) -> Self {
        Self { requests, at_once, kinds, pause: |_| Duration::ZERO }
    }

    /// Returns 300 requests, 8 at a time, in about a second and a half.
    pub(super) fn steady() -> Self {
        Self { pause: |number| ms(number as u64 % 53), ..Self::new(300, 8, MIXED) }
    }

    /// Sends all of it under identities that begin with `who`.
    pub(super) async fn by(self, who: &'static str, client: &Client, url: &str) -> Tally {
        let send = async |number: usize| {
            let pause = (self.pause)(number);
            if pause > Duration::ZERO {
                sleep(pause).await;
            }
            let kind = self.kinds[number % self.kinds.len()];
            let sent = client.send(kind, url, &format!("{who} {kind:?} {number}")).await;
            sent.err().map(|it| (kind, it))
        };
        let sent = iter(0..self.requests).map(send).buffer_unordered(self.at_once);
        let failures = sent.filter_map(async |it| it).collect().await;
        Tally { who, asked: self.requests, failures }
    }

    /// Sends it by several clients side by side, each to a path of its own.
    pub(super) async fn by_each(
        self,
        clients: &[(&'static str, Client)],
        url: impl Fn(&str) -> String + Send + Sync,
    ) -> Vec<Tally> {
        let url = &url;
        join_all(clients.iter().map(|(who, client)| async move {
            self.by(who, client, &url(&who.to_lowercase())).await
        }))
        .await
    }
}

/// How a load ended at the client.
pub(super) struct Tally {
    pub(super) who: &'static str,
    pub(super) asked: usize,
    pub(super) failures: Vec<(Kind, String)>,
}

impl Tally {
    pub(super) fn good(&self) -> usize {
        self.asked - self.failures.len()
    }
}

/// What the servers saw of a client.
pub(super) struct Seen {
    pub(super) who: &'static str,
    pub(super) good: usize,
    pub(super) requests: usize,
    pub(super) twice: usize,
    pub(super) connections: usize,
}

/// Prints one line for a test, a part for each client, and returns the parts.
///
/// `log` is the server's, `posts` are the identities of those that were processed.
pub(super) fn report(
    test: &str,
    tallies: &[Tally],
    log: &[Entry],
    posts: impl IntoIterator<Item = String>,
) -> Vec<Seen> {
    let posts: Vec<_> = posts.into_iter().collect();
    let (mut parts, mut all) = (vec![], vec![]);
    for tally in tallies {
        let is_own = |id: &str| id.split(' ').next() == Some(tally.who);
        let own: Vec<_> = log.iter().filter(|it| is_own(&it.id)).collect();
        let connections: HashSet<_> = own.iter().map(|it| &it.connection).collect();
        let seen = Seen {
            who: tally.who,
            good: tally.good(),
            requests: own.len(),
            twice: twice(posts.iter().filter(|it| is_own(it)).cloned()),
            connections: connections.len(),
        };
        parts.push(format!(
            "{}: {} of {}, {} requests, {} POSTs twice, {} connections",
            tally.who, seen.good, tally.asked, seen.requests, seen.twice, seen.connections
        ));
        all.push(seen);
    }
    println!("real {test}: {}", parts.join("; "));
    for tally in tallies {
        if let Some((kind, failure)) = tally.failures.first() {
            println!("  {}, {kind:?}: {failure}", tally.who);
        }
    }
    all
}

/// Returns the identities of the POSTs that a log says were processed.
pub(super) fn processed(log: &[Entry]) -> impl Iterator<Item = String> {
    let posts = log.iter().filter(|it| it.method == "POST" && it.status < 300);
    posts.map(|it| it.id.clone())
}

/// Returns the identities of the POSTs without a key that a proxy was asked for. Where it refuses none,
/// each may be sent once.
pub(super) fn asked(log: &[Entry]) -> impl Iterator<Item = String> {
    log.iter().map(|it| it.id.clone()).filter(|it| it.contains("Post"))
}

/// Returns the identities of the POSTs without a key that reached applications.
pub(super) fn reached<'a>(
    applications: impl IntoIterator<Item = &'a Server>,
) -> impl Iterator<Item = String> {
    let seen = applications.into_iter().flat_map(Server::seen);
    let posts = seen.filter(|it| it.method == "POST" && it.header("idempotency-key").is_none());
    posts.map(|it| it.header("x-request-id").unwrap().to_owned())
}

/// Checks that ours lost nothing.
pub(super) fn all_succeed(tallies: &[Tally]) {
    all_but_posts(tallies, 0);
}

/// Checks that ours lost nothing but so many POSTs without a key, of which no proof says that they
/// were not processed.
pub(super) fn all_but_posts(tallies: &[Tally], most: usize) {
    for tally in tallies.iter().filter(|it| it.who != PEER) {
        let is_post = |it: &&(Kind, String)| it.0 == Kind::Post;
        let posts = tally.failures.iter().filter(is_post).count();
        let fine = posts <= most && posts == tally.failures.len();
        assert!(fine, "{}: {:#?}", tally.who, tally.failures);
    }
}

/// Checks that no POST of ours was processed twice.
pub(super) fn none_twice(seen: &[Seen]) {
    for seen in seen.iter().filter(|it| it.who != PEER) {
        assert_eq!(seen.twice, 0, "{}", seen.who);
    }
}

/// Checks that ours do not succeed less often than the peer.
pub(super) fn no_worse_than_the_peer(seen: &[Seen]) {
    let peer = seen.iter().find(|it| it.who == PEER).expect("the peer took part").good;
    for seen in seen.iter().filter(|it| it.who != PEER) {
        assert!(seen.good >= peer, "{}: {}, {PEER}: {peer}", seen.who, seen.good);
    }
}
