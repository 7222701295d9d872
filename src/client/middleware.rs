//! `Resilient`, the middleware.

use std::{sync::Arc, time::Duration};

use http::Extensions;
use reqwest::{Request, Response};

use crate::client::fleet::Fleet;
use crate::common::clock::Instant;
use crate::common::fault::ConfigError;
use crate::config::ResilientConfig;
use crate::config::policy::Policy;
use crate::config::reload::ResilientHandle;
use crate::execution::ClientParts;
use crate::execution::attempt::Chain;
use crate::execution::body::BoxFuture;
use crate::execution::fast_path;
use crate::execution::original::Original;
use crate::execution::redirect;
use crate::execution::route::Endpoints;
use crate::execution::run::Execution;
use crate::host::admission::Admission;
use crate::host::parts::Parts;
use crate::host::states::HostStates;
use crate::observe::misuse::Misuse;
use crate::observe::misuses::Misuses;

/// The time for all addresses of a name; half the attempt timeout of `ResilientClient`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which an unused connection is kept.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Both together are less than the attempt timeout of `ResilientClient`.
#[cfg(feature = "http2")]
const HTTP2_PING_AFTER: Duration = Duration::from_secs(5);
#[cfg(feature = "http2")]
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(4);

/// The middleware that makes the requests of a client resilient: retries, breaker, budget, gate, and
/// what else its settings say.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_resilient::{Resilient, ResilientConfig};
///
/// let config = ResilientConfig::builder().attempt_timeout(Duration::from_secs(10)).build()?;
/// let inner = Resilient::reqwest_builder().build()?;
/// let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();
/// let response = client.get("https://example.com").send().await?;
/// # Ok(()) }
/// ```
///
/// # Placement
///
/// Middleware added before it sees one request; middleware added after it sees every attempt.
/// Signing, authentication and tracing belong after it.
///
/// One `Resilient` is enough. Of two in one client the inner one decides: what it gave up, the outer
/// one does not retry, so that attempts do not multiply; and it reports [`Misuse::Stacked`]. A
/// breaker and a budget that both share count the outcome of every request once more.
///
/// # Time limits
///
/// `Resilient` limits no attempt unless [`attempt_timeout`] is set, and a client of reqwest has no
/// timeout by default: together they wait for ever for a server that hangs, and never retry. A
/// middleware cannot see whether the client inside has a timeout. A limit by default would cut the
/// requests of all whose client has a longer one, such as a report that takes a minute, and a POST
/// that was cut is not sent again. So there is none, and the first request without a known limit
/// reports [`Misuse::NoAttemptTimeout`]. [`ResilientClient`](crate::ResilientClient), which knows its
/// client, limits attempts to 10 s.
///
/// [`attempt_timeout`]: crate::ResilientConfigBuilder::attempt_timeout
/// [`Misuse::NoAttemptTimeout`]: crate::Misuse::NoAttemptTimeout
/// [`Misuse::Stacked`]: crate::Misuse::Stacked
///
/// # Results
///
/// The result is that of reqwest: `Ok` with the last response, whatever its status, or the last error
/// of the transport, untouched. What is decided here (a limit that cut an attempt) comes as an
/// [`HttpRequestError`](crate::HttpRequestError) inside `reqwest_middleware::Error::Middleware`.
/// Every attempt runs on a copy of the request's extensions; those of the last attempt are kept.
///
/// # reqwest's own retries
///
/// A `reqwest::Client` re-sends requests that an HTTP/2 server refused (REFUSED_STREAM, GOAWAY)
/// up to twice and at once, unseen by any middleware, so that each attempt here may be three on
/// the wire: three attempts at a server that refuses are nine streams. An attempt here follows
/// only after the backoff. [`reqwest_builder`](Self::reqwest_builder) switches the others off.
///
/// # Redirects
///
/// reqwest follows them within the attempt, and another attempt starts at the first URL again.
/// So a POST that was redirected is not sent again, whatever became of it then.
///
/// [`ResilientClient`](crate::ResilientClient) sees every redirect. In a client of your own, a
/// response counts as redirected if its origin or path is not the one asked for, or if a redirect
/// was noticed while the client was polled. It is not noticed if a middleware sends by a client of
/// its own in another task: a POST that is redirected to a host that refuses connections is then
/// sent again. `redirect::Policy::none()` on that client removes it.
///
/// # Middleware inside
///
/// Breaker, gate and budget of the host that was asked record the outcome, whatever a middleware makes
/// of URL and response. An error that a middleware made or wrapped proves nothing, says nothing of
/// the host, and has a POST sent once; see [`NotSent`](crate::NotSent). An error of
/// `error_for_status` is judged by its status.
#[derive(Clone, Debug)]
#[must_use]
pub struct Resilient {
    current: ResilientHandle,
    /// The client's own, for requests without a limit.
    client_timeout: Option<Duration>,
    /// Set if the end of the chain is our own, which records what is sent.
    records: bool,
    misuses: Misuses,
    fleet: Option<Fleet>,
}

impl Default for Resilient {
    fn default() -> Self {
        Self::new(ResilientConfig::default())
    }
}

impl Resilient {
    /// Creates a middleware with these settings.
    pub fn new(config: ResilientConfig) -> Self {
        let hosts = HostStates::with_max_hosts(config.policy().max_hosts);
        let (current, misuses) = (ResilientHandle::new(config, hosts), Misuses::default());
        Self { current, client_timeout: None, records: false, misuses, fleet: None }
    }

    /// Returns a builder for a client of reqwest that suits this middleware, to go on from.
    ///
    /// | setting | value | why |
    /// |---|---|---|
    /// | connect timeout | 5 s, shared by the addresses of a name | without one an address that does not respond takes all the time there is, and the next is never tried. A request that ends by it was not sent, so that a POST is sent again |
    /// | idle connections | closed after 4 s | sooner than servers do (Node.js: 5 s): a request sent into a connection that is being closed fails |
    /// | HTTP/2 pings | after 5 s of silence while requests are under way, given up after 4 s more | a connection that died unnoticed is left before it takes a second attempt |
    /// | redirects | those of reqwest, and seen by the middleware | a POST that was redirected is not sent again |
    /// | reqwest's own retries | off | no middleware sees them: one attempt here would be up to three |
    ///
    /// A client of reqwest has no limit that ends at the response head: set
    /// [`attempt_timeout`](crate::ResilientConfigBuilder::attempt_timeout), as without one an attempt
    /// that hangs is never retried. [`ResilientClient`](crate::ResilientClient) has one, and gives a
    /// retry after a stale connection a connection of its own;
    /// [`with_reqwest`](crate::ResilientClientBuilder::with_reqwest) customizes its client.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_middleware::ClientBuilder;
    /// use reqwest_resilient::{Resilient, ResilientConfig};
    ///
    /// let config = ResilientConfig::builder().attempt_timeout(Duration::from_secs(10)).build()?;
    /// let inner = Resilient::reqwest_builder().user_agent("crawler/1.0").build()?;
    /// let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reqwest_builder() -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .redirect(redirect::policy());
        #[cfg(feature = "http2")]
        let builder = builder
            .http2_keep_alive_interval(HTTP2_PING_AFTER)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        builder
    }

    /// Returns it for a client of ours, which ends attempts after `timeout`, and whose chain ends with
    /// [`EndOfChain`](crate::client::end_of_chain::EndOfChain).
    pub(crate) fn in_own_client(self, timeout: Duration) -> Self {
        Self { client_timeout: Some(timeout), records: true, ..self }
    }

    /// Keeps what it learns of hosts in `hosts`, which other clients may share.
    pub fn with_hosts(mut self, hosts: HostStates) -> Self {
        self.current.set_hosts(hosts);
        self.join_fleet();
        self
    }

    /// Makes this client's hosts those of a fleet: what other processes learn of a host, requests here
    /// heed. Hosts that clients share are in one fleet, the first one.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Resilient, ResilientConfig};
    /// use reqwest_resilient::fleet::{Fleet, InProcessFleet};
    ///
    /// let fleet = Fleet::new(InProcessFleet::new());
    /// let resilient = Resilient::new(ResilientConfig::default()).with_fleet(&fleet);
    /// ```
    pub fn with_fleet(mut self, fleet: &Fleet) -> Self {
        self.fleet = Some(fleet.clone());
        self.join_fleet();
        self
    }

    fn join_fleet(&self) {
        if let Some(fleet) = &self.fleet {
            self.current.hosts().map().join(fleet.hub());
        }
    }

    /// Returns what it knows of hosts.
    pub fn hosts(&self) -> &HostStates {
        self.current.hosts()
    }

    /// Returns what a download uses besides its requests, of this request's settings and host.
    #[cfg(feature = "download")]
    pub(crate) fn context(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> Option<crate::client::download::link::Context> {
        let policy = self.current.resolve(request, extensions).ok()?;
        let (breaker, budget, member) = {
            let hosts = self.current.hosts().map();
            let parts = Parts::find(hosts, policy.host_rules(), request, Instant::now());
            (parts.breaker().cloned(), parts.budget().cloned(), parts.member().cloned())
        };
        let hosts = self.current.hosts().clone();
        Some(crate::client::download::link::Context::new(policy, breaker, budget, member, hosts))
    }

    /// Returns the handle that replaces its settings, and those of its clones, while it works.
    pub fn reload_handle(&self) -> ResilientHandle {
        self.current.clone()
    }

    /// Reports once that a request without a known time limit was sent.
    #[inline]
    fn look_for_limits(&self, policy: &Policy, request: &Request) {
        if self.client_timeout.is_none()
            && !self.misuses.is_reported(Misuse::NoAttemptTimeout)
            && policy.attempt_timeout.is_none()
            && policy.max_total_time.is_none()
            && request.timeout().is_none()
        {
            self.misuses.report(Misuse::NoAttemptTimeout, &policy.listeners);
        }
    }

    /// Finds the endpoints of a request, and its policy by the same settings.
    #[cold]
    fn mirrored(
        &self,
        request: &Request,
        extensions: &Extensions,
    ) -> (Arc<Policy>, Option<Box<Endpoints>>, Option<ConfigError>) {
        match self.current.resolve_mirrored(request, extensions) {
            Ok((policy, endpoints)) => {
                let endpoints = endpoints.map(|it| Endpoints::new(it, request.url().clone()));
                (policy, endpoints.map(Box::new), None)
            }
            Err(invalid) => (invalid.0, None, Some(invalid.1)),
        }
    }

    /// Runs one request: through the loop, unless the fast path applies.
    pub(crate) fn run<'a, C: Chain + 'a>(
        &'a self,
        chain: C,
        request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, C::Error>> {
        if let Some(fleet) = &self.fleet {
            fleet.ensure_running();
        }
        let client = ClientParts {
            hosts: self.current.hosts().map(),
            misuses: &self.misuses,
            timeout: self.client_timeout,
            records: self.records,
        };
        match self.current.resolve(&request, extensions) {
            Ok(policy) => {
                self.look_for_limits(&policy, &request);
                match fast_path::applies(&policy, &request, extensions) {
                    true => fast_path::run(client, policy, chain, request, extensions),
                    false => self.run_loop(client, (policy, None), chain, request, extensions),
                }
            }
            Err(invalid) => {
                let (policy, faults) = *invalid;
                self.run_loop(client, (policy, Some(faults)), chain, request, extensions)
            }
        }
    }

    /// Runs one request through the loop; `faults` are those of its own settings.
    fn run_loop<'a, C: Chain + 'a>(
        &'a self,
        client: ClientParts<'a>,
        (policy, faults): (Arc<Policy>, Option<ConfigError>),
        chain: C,
        mut request: Request,
        extensions: &'a mut Extensions,
    ) -> BoxFuture<'a, Result<Response, C::Error>> {
        let is_mirrored = faults.is_none() && policy.mirrors.is_some();
        let (policy, endpoints, faults) = match is_mirrored {
            false => (policy, None, faults),
            true => self.mirrored(&request, extensions),
        };
        Box::pin(async move {
            let now = Instant::now();
            let parts = Parts::find(client.hosts, policy.host_rules(), &request, now);
            let admission = Admission::new(parts, extensions);
            let original = &mut Original::new(&mut request, extensions);
            let execution = Execution::new(&policy, admission, original, client, now);
            let mut execution =
                execution.with_endpoints(endpoints.as_deref(), original.extensions());
            match faults {
                None => execution.run(&chain, original, None).await,
                Some(faults) => execution.refuse::<C>(original, faults),
            }
        })
    }
}
