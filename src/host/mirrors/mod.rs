//! Mirrors: several endpoints for the requests under one base URL.

mod choose;
mod favourites;
mod load;
mod rewrite;
mod sets;
mod unavailable;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use reqwest::Url;

pub(crate) use self::choose::{Order, Places, choose};
pub(crate) use self::favourites::Favourites;
pub(crate) use self::load::{Load, UnderWay};
pub(crate) use self::rewrite::INVALID_BASE;
#[cfg(feature = "serde")]
pub(crate) use self::rewrite::canonical_base;
use self::rewrite::{Base, withhold_host, withhold_secrets};
pub(crate) use self::rewrite::{Withheld, restore, withhold_range};
pub use self::sets::MirrorSets;
pub(crate) use self::unavailable::EndpointsUnavailable;
use crate::common::fault::ConfigFault;
use crate::common::host_pattern::without_secrets;

/// The most endpoints of one set.
pub(crate) const MOST_ENDPOINTS: usize = 16;

/// The most sets of one configuration.
pub(crate) const MOST_SETS: usize = 64;

/// Several endpoints that serve the same: package mirrors, replicas, a fallback host.
///
/// Requests under the base URL go to one of the endpoints: what follows the base in the URL is
/// appended to that of the endpoint, to the byte; nothing is decoded, the query stays. Of several
/// sets that fit, the one with the longest base counts. A slash at the end of a base means nothing.
///
/// The endpoint is chosen for each attempt, before gate and circuit breaker, which are those of its
/// host, as is the retry budget. Middleware further in sees the final URL, so that it signs the right
/// one. Settings of a [host](crate::ResilientConfigBuilder::host) follow the endpoint, but for those
/// of the whole request: its retries, total time, method rules, idempotency key and observers.
///
/// # Failover
///
/// An attempt that failed is followed at once, without a wait, by one at an endpoint that was not
/// asked yet; backoff begins after a full round. Each counts as a retry, so that `max_retries` bounds
/// the sends as ever: the default of 3 is enough for four endpoints. A rate limit or a 503 with a
/// retry hint closes the gate of that host alone. A 404 or 410 to a request that changes nothing is
/// followed by the next endpoint, too, as the mirror may lag behind; if all respond so, the caller
/// gets the response of the endpoint that is listed first. An endpoint that failed before the 404 is
/// retried as usual. A request that may have been processed, and
/// is not idempotent, stays with its endpoint.
///
/// The health of an endpoint is that of its host: an open breaker or a closed gate takes it out,
/// without checks of its own, and the breaker's probe, one request at a time, brings it back. That
/// holds for requests, too, that wait for a permit or a slot of its limits. If no endpoint is
/// available, a request waits for the one that may be first, within the usual limits, or fails with an
/// error that names all hosts.
///
/// # Secrets
///
/// `Authorization`, `Cookie`, `Proxy-Authorization`, headers named by
/// [`secret_header`](Self::secret_header) and values marked as
/// [sensitive](http::HeaderValue::set_sensitive) are sent to the origin of the request's own URL
/// alone, unless the set is [`trusted`](Self::trusted). A `Host` header is sent there only, too.
///
/// # Bounded
///
/// A set has at most 16 endpoints, a configuration at most 64 sets. An invalid set is a fault when the
/// configuration is built.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Mirrors, ResilientConfig};
///
/// let crates = Mirrors::new("https://index.crates.io/").also("https://mirror.example/crates/");
/// let replicas = Mirrors::instead_of("https://api.example.com/")
///     .also("https://eu.api.example.com/")
///     .also("https://us.api.example.com/")
///     .spread()
///     .trusted();
/// let config = ResilientConfig::builder()
///     .mirrors([crates, replicas])
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
///
/// A body that is not what it should be is followed by the next endpoint, too, if the body is read
/// and judged: here a page of a captive portal in place of an archive, or one cut short.
///
/// ```
/// use reqwest_resilient::{Mirrors, ResilientConfig};
///
/// let config = ResilientConfig::builder()
///     .mirrors(Mirrors::new("https://files.example.com/").also("https://mirror.example/files/"))
///     .read_body(64 << 20)
///     .retry_if(|it| match (it.status(), it.body()) {
///         (Some(status), Some(body)) if status.is_success() => !body.starts_with(b"PK"),
///         _ => it.default_verdict().is_retry(),
///     })
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Mirrors {
    /// The base of the requests that go to the endpoints; `None` if it is invalid.
    prefix: Option<Base>,
    endpoints: Vec<Arc<Endpoint>>,
    /// Base URLs that are invalid, without secrets.
    invalid: Vec<String>,
    order: Order,
    sticky: Option<Duration>,
    is_trusted: bool,
    is_strict: bool,
    shares_idempotency: bool,
    secret_headers: Vec<HeaderName>,
}

/// One of several places to send a request to.
pub(crate) type Endpoint = Base;

impl Mirrors {
    /// Creates a set of endpoints for the requests under `base`, which is the first endpoint itself.
    pub fn new(base: &str) -> Self {
        Self::instead_of(base).also(base)
    }

    /// Creates a set of endpoints for the requests under `base`, which is not asked itself unless it
    /// is [listed](Self::also), too: no request falls back to it unseen.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Mirrors, ResilientConfig};
    ///
    /// // Nothing is fetched from the public index, only from the company's own.
    /// let index = Mirrors::instead_of("https://pypi.org/simple/")
    ///     .also("https://packages.example.com/pypi/")
    ///     .also("https://packages-2.example.com/pypi/");
    /// let config = ResilientConfig::builder().mirrors(index).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn instead_of(base: &str) -> Self {
        let mut mirrors = Self {
            prefix: None,
            endpoints: vec![],
            invalid: vec![],
            order: Order::Listed,
            sticky: None,
            is_trusted: false,
            is_strict: false,
            shares_idempotency: false,
            secret_headers: vec![],
        };
        mirrors.prefix = mirrors.parse(base);
        mirrors
    }

    /// Adds an endpoint at the end of the list.
    pub fn also(mut self, base: &str) -> Self {
        if let Some(base) = self.parse(base) {
            self.endpoints.push(Arc::new(base));
        }
        self
    }

    fn parse(&mut self, base: &str) -> Option<Base> {
        let parsed = Base::parse(base);
        let shown = || without_secrets(base);
        if parsed.is_none() && !self.invalid.contains(&shown()) {
            self.invalid.push(shown());
        }
        parsed
    }

    /// Spreads requests over all endpoints that are available: of two drawn at random the one is
    /// asked whose latency times requests under way is lower. For equals only, such as replicas.
    /// Default: the first endpoint of the list that is available is asked.
    ///
    /// Latency is that to the response head, as a mean that is mostly forgotten after 10 s.
    pub fn spread(mut self) -> Self {
        self.order = Order::Spread;
        self
    }

    /// Stays with the endpoint that last succeeded, for this long from its first success on: for caches
    /// and sessions that live there. A failure ends it. Default: not sticky.
    pub fn sticky(mut self, time: Duration) -> Self {
        self.sticky = Some(time);
        self
    }

    /// Sends credentials to all endpoints, whatever their origin. Default: they are removed.
    ///
    /// All of them get what the request's own URL would: also those with `http` in place of `https`.
    pub fn trusted(mut self) -> Self {
        self.is_trusted = true;
        self
    }

    /// Takes a 404 or 410 as the final response, from whichever endpoint it comes. Default: the next
    /// endpoint is asked.
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// Says that all endpoints know the idempotency keys of each other, so that a keyed POST that may
    /// have been processed can move. Default: it stays with its endpoint.
    pub fn shared_idempotency(mut self) -> Self {
        self.shares_idempotency = true;
        self
    }

    /// Names a header whose value is sent to the origin of the request's own URL alone, like
    /// `Authorization`.
    pub fn secret_header(mut self, name: HeaderName) -> Self {
        self.secret_headers.push(name);
        self
    }

    /// Returns the order in which its endpoints are asked.
    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// Returns how long it stays with an endpoint.
    pub(crate) fn sticky_time(&self) -> Option<Duration> {
        self.sticky
    }

    /// Returns whether a 404 is final.
    pub(crate) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Returns whether a keyed request that may have been processed may move.
    pub(crate) fn shares_idempotency(&self) -> bool {
        self.shares_idempotency
    }

    /// Returns its endpoints: at most 16, in the order of the list.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints[..self.endpoints.len().min(MOST_ENDPOINTS)]
    }

    /// Returns the base of its requests, as text: its name.
    pub(crate) fn name(&self) -> &str {
        self.prefix.as_ref().map_or("", Base::as_str)
    }

    /// Returns the part of `url` after its base; `None` for requests that are not under it.
    pub(crate) fn rest_of<'u>(&self, url: &'u Url) -> Option<&'u str> {
        self.prefix.as_ref()?.rest_of(url)
    }

    /// Removes the headers that `endpoint` must not see of a request for `url`, and returns them.
    pub(crate) fn withhold(
        &self,
        headers: &mut HeaderMap,
        url: &Url,
        endpoint: &Endpoint,
    ) -> Withheld {
        if endpoint.is_origin_of(url) {
            return vec![];
        }
        let mut withheld = withhold_host(headers);
        if !self.is_trusted {
            withheld.extend(withhold_secrets(headers, &self.secret_headers));
        }
        withheld
    }

    /// Returns whether `endpoint` gets the credentials of a request for `url`.
    pub(crate) fn trusts(&self, endpoint: &Endpoint, url: &Url) -> bool {
        self.is_trusted || endpoint.is_origin_of(url)
    }

    fn faults(&self) -> impl Iterator<Item = ConfigFault> {
        let field = || format!("mirrors.{:?}", self.name());
        let invalid = self.invalid.iter().map(|it| ConfigFault::new("mirrors", INVALID_BASE, it));
        let endpoints = &self.endpoints;
        let none = endpoints.is_empty() && self.invalid.is_empty();
        let none =
            none.then(|| ConfigFault::new(field(), "must have an endpoint", endpoints.len()));
        let many = endpoints.len() > MOST_ENDPOINTS;
        let many = many
            .then(|| ConfigFault::new(field(), "must have at most 16 endpoints", endpoints.len()));
        let twice = endpoints.iter().enumerate().find_map(|(at, it)| {
            let again = endpoints[..at].iter().any(|other| other == it);
            again.then(|| ConfigFault::new(field(), "must not have an endpoint twice", it.as_str()))
        });
        let sticky = self.sticky.filter(Duration::is_zero);
        let sticky = sticky.map(|it| ConfigFault::new("mirrors.sticky", "must be > 0", it));
        invalid.chain(none).chain(many).chain(twice).chain(sticky)
    }
}

/// The endpoint that gave a response, in its extensions.
#[derive(Clone)]
pub(crate) struct GivenBy(pub(crate) Arc<Endpoint>);

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(|it| it.as_str()).collect();
        f.debug_struct("Mirrors")
            .field("of", &self.name())
            .field("endpoints", &endpoints)
            .field("order", &self.order)
            .field("sticky", &self.sticky)
            .field("trusted", &self.is_trusted)
            .field("strict", &self.is_strict)
            .field("shared_idempotency", &self.shares_idempotency)
            .field("secret_headers", &self.secret_headers)
            .finish()
    }
}
