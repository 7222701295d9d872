//! The clients that race, each as its users write it.

use std::{error::Error, future::IntoFuture, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use http::{Extensions, Method, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    ConcurrencyLimit, Limit, RateLimit, Resilient, ResilientClient, ResilientConfig,
    ResilientConfigBuilder,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tower::util::MapErrLayer;

use crate::{figures::Ledger, scripted::Scripted};

/// For those that take a number.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A client, and how it is held to the bars.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// One of this crate's.
    pub(crate) ours: bool,
    /// Retries within reqwest, which a scripted end does not reach.
    pub(crate) needs_sockets: bool,
    /// Runs only where a preset matters.
    pub(crate) is_preset: bool,
    /// Runs only where limits of the client matter.
    pub(crate) is_limited: bool,
    pub(crate) build: fn(&Setup) -> Client,
}

/// The one that ours are compared with.
pub(crate) const PEER: &str = "reqwest-retry";

/// The preset with bars of its own.
pub(crate) const BATCH: &str = "batch()";

pub(crate) const CONTESTANTS: &[Contestant] = &[
    peer("no retry", |it| it.chain(|client| client)),
    peer(PEER, |it| it.chain(|client| client.with(reqwest_retry()))),
    Contestant { needs_sockets: true, ..peer("reqwest's retries", reqwest_budget) },
    peer("backon", |it| Client::Backon(it.client(reqwest::Client::builder()))),
    ours("Resilient", |it| it.as_written()),
    ours("ResilientClient", |it| it.resilient_client(ResilientConfig::default())),
    preset(ours(BATCH, |it| it.resilient_client(ResilientConfig::batch()))),
    limited(ours("learned()", |it| it.limited(|config| config.rate_limit(patient_learner())))),
    limited(ours("limit of 10", |it| it.limited(|config| config.concurrency_limit(patient_ten())))),
    preset(peer("service(10 s)", |it| {
        it.resilient_client(ResilientConfig::service(ATTEMPT_TIMEOUT))
    })),
    preset(peer("plain()", |it| it.resilient_client(ResilientConfig::plain()))),
    preset(peer("aresilient()", |it| it.resilient_client(ResilientConfig::aresilient()))),
];

const fn peer(name: &'static str, build: fn(&Setup) -> Client) -> Contestant {
    Contestant {
        name,
        ours: false,
        needs_sockets: false,
        is_preset: false,
        is_limited: false,
        build,
    }
}

const fn ours(name: &'static str, build: fn(&Setup) -> Client) -> Contestant {
    Contestant { ours: true, ..peer(name, build) }
}

const fn preset(it: Contestant) -> Contestant {
    Contestant { is_preset: true, ..it }
}

const fn limited(it: Contestant) -> Contestant {
    Contestant { is_limited: true, ..it }
}

/// The longest wait for a limit: these scenarios take minutes.
const LONGEST_QUEUE: Duration = Duration::from_secs(600);

fn patient_learner() -> RateLimit {
    RateLimit::learned().max_wait(LONGEST_QUEUE)
}

fn patient_ten() -> ConcurrencyLimit {
    ConcurrencyLimit::per_host(Limit::fixed(10)).max_queue_time(LONGEST_QUEUE)
}

/// What clients are built with.
pub(crate) struct Setup {
    /// The scenario's own attempt timeout.
    pub(crate) limit: Option<Duration>,
    pub(crate) end: End,
}

impl Setup {
    /// Builds a client with the timeout as users of reqwest set it, which a middleware's every
    /// attempt meets.
    fn client(&self, builder: reqwest::ClientBuilder) -> ClientWithMiddleware {
        self.chain_on(builder, |it| it)
    }

    fn chain(&self, with: fn(ClientBuilder) -> ClientBuilder) -> Client {
        Client::Chain(self.chain_on(reqwest::Client::builder(), with))
    }

    fn chain_on(
        &self,
        builder: reqwest::ClientBuilder,
        with: fn(ClientBuilder) -> ClientBuilder,
    ) -> ClientWithMiddleware {
        let client = builder.timeout(self.limit.unwrap_or(ATTEMPT_TIMEOUT)).build();
        with(ClientBuilder::new(client.expect("a client"))).with(self.end.clone()).build()
    }

    /// Builds the client of our front page.
    fn as_written(&self) -> Client {
        let limit = self.limit.unwrap_or(ATTEMPT_TIMEOUT);
        let config = ResilientConfig::builder().attempt_timeout(limit).build();
        let inner = Resilient::reqwest_builder().build().expect("a client");
        let client = ClientBuilder::new(inner).with(Resilient::new(config.expect("a config")));
        Client::Chain(client.with(self.end.clone()).build())
    }

    /// Builds the client of our front page with a limit.
    fn limited(&self, with: fn(ResilientConfigBuilder) -> ResilientConfigBuilder) -> Client {
        let config = with(ResilientConfig::builder()).build();
        self.resilient_client(config.expect("a config"))
    }

    fn resilient_client(&self, config: ResilientConfig) -> Client {
        let config = match self.limit {
            Some(limit) => config.to_builder().attempt_timeout(limit).build(),
            None => Ok(config),
        };
        let client = ResilientClient::builder().config(config.expect("a config"));
        Client::Resilient(client.with(self.end.clone()).build().expect("a client"))
    }
}

fn reqwest_retry() -> impl Middleware {
    let bounds = ExponentialBackoff::builder().retry_bounds(FIRST_WAIT, LONGEST_WAIT);
    RetryTransientMiddleware::new_with_policy(bounds.build_with_max_retries(RETRIES))
}

/// Builds reqwest with its own retries, without waits and with a budget of 20 %, for every host.
fn reqwest_budget(setup: &Setup) -> Client {
    struct EveryHost;
    impl PartialEq<&str> for EveryHost {
        fn eq(&self, _: &&str) -> bool {
            true
        }
    }
    let retries = reqwest::retry::for_host(EveryHost).max_retries_per_request(RETRIES);
    let retries = retries.classify_fn(|it| match it.status() {
        Some(status) if !is_transient(status) => it.success(),
        _ => it.retryable(),
    });
    let mut builder = reqwest::Client::builder().retry(retries);
    if let End::Sockets(ledger) = &setup.end {
        // Its retries are made below all middleware, so refused connections are counted here.
        let ledger = Arc::clone(ledger);
        builder = builder.connector_layer(MapErrLayer::new(
            move |error: Box<dyn Error + Send + Sync>| {
                ledger.record_send();
                error
            },
        ));
    }
    let client = builder.timeout(setup.limit.unwrap_or(ATTEMPT_TIMEOUT)).build();
    Client::Chain(ClientBuilder::new(client.expect("a client")).build())
}

fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
}

/// Where a chain ends: what its innermost middleware does.
#[derive(Clone)]
pub(crate) enum End {
    /// Sends, and counts the refused connections that no server sees.
    Sockets(Arc<Ledger>),
    Scripted(Arc<Scripted>),
}

#[async_trait::async_trait]
impl Middleware for End {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        match self {
            Self::Sockets(ledger) => {
                let sent = next.run(request, extensions).await;
                if sent.as_ref().is_err_and(reqwest_middleware::Error::is_connect) {
                    ledger.record_send();
                }
                sent
            }
            Self::Scripted(end) => end.respond(&request).await,
        }
    }
}

/// A client under way.
pub(crate) enum Client {
    Chain(ClientWithMiddleware),
    Backon(ClientWithMiddleware),
    Resilient(ResilientClient),
}

impl Client {
    /// Makes a request and returns whether it succeeded, its body included.
    pub(crate) async fn request(&self, method: Method, url: &str) -> bool {
        // reqwest-middleware and ours have builders of the same methods.
        macro_rules! request {
            ($client:expr) => {{
                let request = $client.request(method.clone(), url);
                if method == Method::POST { request.body("{}") } else { request }
            }};
        }
        match self {
            Self::Chain(client) => is_good(request!(client).send()).await,
            Self::Backon(client) => {
                let waits = ExponentialBuilder::new()
                    .with_min_delay(FIRST_WAIT)
                    .with_max_delay(LONGEST_WAIT)
                    .with_max_times(RETRIES as usize)
                    .with_jitter();
                let attempt = || {
                    let sending = request!(client).send();
                    async { Ok(sending.await?.error_for_status()?) }
                };
                let transient =
                    |error: &reqwest_middleware::Error| error.status().is_none_or(is_transient);
                is_good(attempt.retry(waits).when(transient)).await
            }
            Self::Resilient(client) => is_good(request!(client).send_resilient()).await,
        }
    }
}

async fn is_good<E>(sending: impl IntoFuture<Output = Result<Response, E>>) -> bool {
    match sending.await {
        Ok(response) => response.status().is_success() && response.bytes().await.is_ok(),
        Err(_) => false,
    }
}
