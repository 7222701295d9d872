//! Limits of the requests per time: their rules, and the slots of a host.

mod buckets;
#[cfg(feature = "serde")]
mod from_file;
mod gcra;
mod lanes;
mod learned;
mod learner;
mod one;
mod pacer;
mod route;

use std::{fmt, iter, mem, sync::Arc, time::Duration};

use http::HeaderName;
use reqwest::{Method, Request};

pub(crate) use self::buckets::Route;
pub use self::learned::LearnedQuota;
pub(crate) use self::learned::Pacing;
pub(crate) use self::learner::{Learner, Ticket};
pub use self::one::Rate;
pub(crate) use self::pacer::{Paced, Pacer, reserve};
use crate::common::fault::ConfigFault;
use crate::common::scope::{Scope, next_version};
use crate::host::rate::gcra::Pace;
use crate::host::rate::route::RouteOf;
use crate::outcome::Outcome;

/// The most rates of one scope.
const MOST_RATES: usize = 4;

/// A limit of the requests per time: per host, per key, or for all requests.
///
/// Each attempt takes a slot, retries included; a hedge is sent only if it has one at once. A request
/// that has to wait reserves its slot when it arrives and sleeps until then: slots go in order of
/// arrival, with one timer for each request. A request that is dropped before its slot gives it back if
/// none was taken after it; otherwise the slot is lost, at most one for each such request. One that was
/// not sent, because its breaker was open or no connection could be made, gives its slot back in the
/// same way.
///
/// A wait longer than [`max_wait`](Self::max_wait), or than the time that is left, ends the request
/// at once, with an error whose [`is_limited`](crate::HttpRequestError::is_limited) is `true` and
/// whose [`retry_in`](crate::HttpRequestError::retry_in) is the time until the slot. Nothing is
/// reserved then, and neither circuit breaker nor budget count it. The number of requests that wait
/// has no bound of its own, except at a [learned](Self::learned) limit, where it is 10,000.
///
/// The slots of a host are kept in the client's [`HostStates`](crate::HostStates), the rules are
/// those of the request that last used it. After a reload, or for a request with
/// a rate limit of its own, a rate keeps the slots of the earlier rate with the same period and unit
/// (requests or costs). A rate that is left out keeps its slots until it is set again. A rate with a new
/// period starts with the slots of the fullest rate, cut to one period after the latest request that is
/// sent or waits.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Rate, RateLimit, ResilientConfig};
///
/// let limit = RateLimit::per_host(Rate::per_minute(60)).max_wait(Duration::from_secs(30));
/// let config = ResilientConfig::builder().rate_limit(limit).build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct RateLimit {
    pub(crate) scope: Scope,
    rates: Vec<Rate>,
    /// Set if the rates are those of a whole fleet.
    pub(crate) is_of_fleet: bool,
    /// Set if it keeps to the quotas that responses name.
    pub(crate) learns: bool,
    /// The header that names the bucket of a request, where quotas are those of buckets.
    pub(crate) bucket: Option<HeaderName>,
    route_of: Option<RouteOf>,
    /// `None` for `max_wait_time`.
    pub(crate) max_wait: Option<Duration>,
    /// Limits of other scopes that have to be kept as well; none of them has further ones.
    others: Vec<Self>,
    /// Identifies these rules, so that a host notices new ones by one comparison.
    version: u64,
}

impl RateLimit {
    /// Builds a limit for each scheme, host and port.
    pub fn per_host(rate: Rate) -> Self {
        Self::new(Scope::Host, rate)
    }

    /// Builds one limit for all requests of a client.
    pub fn shared(rate: Rate) -> Self {
        Self::new(Scope::Shared, rate)
    }

    /// Builds a limit for each key that `key_of` finds in the requests, such as a tenant. A panic
    /// in `key_of` is the caller's.
    pub fn per_key(
        rate: Rate,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(Scope::Key(Arc::new(key_of)), rate)
    }

    fn new(scope: Scope, rate: Rate) -> Self {
        Self::of(scope, vec![rate], false)
    }

    fn of(scope: Scope, rates: Vec<Rate>, learns: bool) -> Self {
        let (is_of_fleet, bucket, route_of, max_wait, others) = (false, None, None, None, vec![]);
        let version = next_version();
        Self { scope, rates, is_of_fleet, learns, bucket, route_of, max_wait, others, version }
    }

    /// Builds a limit for each scheme, host and port that all nodes of a
    /// [fleet](crate::fleet::Fleet) keep together.
    ///
    /// No attempt waits for the store: each node reports how many it was asked for, and hears of the
    /// demand of all about once a second. While that is above the rate, each attempt goes with the
    /// ratio of the two, and one that does not waits about a second and asks again, up to
    /// [`max_wait`](Self::max_wait); in no particular order. So the fleet sends the rate on average,
    /// whatever the shares of its nodes, and more for some seconds after a step of the demand: for an
    /// exact quota it is no means.
    ///
    /// Without a fleet it is as [`per_host`](Self::per_host), the whole rate for this client alone. A
    /// node that loses its store keeps to the last ratio for 10 s, and then to an even share of the
    /// rate. Bursts count there only; costs are those of each rate, and are not settled while the
    /// fleet decides.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Rate, RateLimit, ResilientConfig};
    ///
    /// let limit = RateLimit::fleet(Rate::per_second(1_000));
    /// let config = ResilientConfig::builder().rate_limit(limit).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn fleet(rate: Rate) -> Self {
        Self { is_of_fleet: true, ..Self::new(Scope::Host, rate) }
    }

    /// Builds a limit for each scheme, host and port that is learned from the responses of the host,
    /// before it says 429.
    ///
    /// Every response is read for what remains of a quota and when it is refilled: `RateLimit` in
    /// all its drafts, `X-RateLimit-Remaining` and `-Reset`, `x-ratelimit-remaining-tokens` and
    /// their like; see [`HintHeaders`](crate::HintHeaders). A quota that suffices delays nothing.
    /// One that would run out before it is refilled, at the present rate or by the requests that
    /// wait, is spread evenly over that time, and an empty one is waited for. Requests under way
    /// count as sent. The first request to a host goes alone, for one second at most, since
    /// nothing is known before its response.
    ///
    /// At most eight quotas a host are kept. A quota is ignored that is refilled in the past or in
    /// more than a day, or of which more remains than there is; and no pace is slower than one
    /// request per [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::{RateLimit, ResilientConfig};
    ///
    /// let limit = RateLimit::learned().max_wait(Duration::from_secs(600));
    /// let config = ResilientConfig::builder().rate_limit(limit).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn learned() -> Self {
        Self::of(Scope::Host, vec![], true)
    }

    /// Learns quotas for each bucket that responses name in this header, such as `x-ratelimit-bucket`,
    /// where a host counts its routes apart.
    ///
    /// The bucket of a route is known with its first response, until which its requests go one a
    /// second, and follows what responses say. Routes that share a bucket share its quotas. A route
    /// is the method and path, unless [`route`](Self::route) finds another one. The latest 1,024
    /// routes and as many buckets of a host are known, at most. Invalid for a limit that is not
    /// [`learned`](Self::learned).
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use reqwest_resilient::RateLimit;
    ///
    /// let limit = RateLimit::learned()
    ///     .bucket_header(HeaderName::from_static("x-ratelimit-bucket"))
    ///     // The channel is a part of the route, and what is done in it.
    ///     .route(|it| it.url().path().split('/').take(5).collect());
    /// ```
    pub fn bucket_header(self, name: HeaderName) -> Self {
        Self { bucket: Some(name), ..self }
    }

    /// Sets how the route of a request is found; invalid without a
    /// [`bucket_header`](Self::bucket_header). The method is a part of it in any case. A panic in
    /// `route_of` is the caller's.
    pub fn route(self, route_of: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        Self { route_of: Some(RouteOf::Own(Arc::new(route_of))), ..self }
    }

    /// Adds a rate that has to be kept as well, in the same scope: a request goes when all of them
    /// allow it. At most four. For a limit of another scope, see [`also`](Self::also).
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Rate, RateLimit};
    ///
    /// // Both are rates of all requests together.
    /// let limit = RateLimit::shared(Rate::per_second(10)).and(Rate::per_hour(1_000));
    /// ```
    pub fn and(mut self, rate: Rate) -> Self {
        self.rates.push(rate);
        self.version = next_version();
        self
    }

    /// Adds a limit that has to be kept as well, of another scope: ten a second for each host, and
    /// 50,000 a day for all of them. A request goes when both allow it, and takes slots of both or of
    /// none. It waits no longer than either allows.
    ///
    /// Limits of one scope become one; of those per key there can be one. A host's rate is that of
    /// a [fleet](Self::fleet) or of this client: a limit with both is invalid, and so is one of a
    /// fleet that is [learned](Self::learned) as well. A [`Rate`] alone has no scope:
    /// [`and`](Self::and) adds it in the scope of this limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::{Rate, RateLimit};
    ///
    /// let day = Duration::from_secs(24 * 3_600);
    /// let limit = RateLimit::per_host(Rate::per_second(10))
    ///     .also(RateLimit::shared(Rate::per(50_000, day).burst(1_000)));
    /// ```
    pub fn also(mut self, mut other: Self) -> Self {
        let further = mem::take(&mut other.others);
        if self.has_scope_of(&other) {
            self.join(other);
        } else {
            match self.others.iter_mut().find(|it| it.has_scope_of(&other)) {
                Some(same) => same.join(other),
                None => self.others.push(other),
            }
        }
        further.into_iter().fold(self, Self::also)
    }

    /// Returns whether both are per host, or of a fleet, or for all requests.
    fn has_scope_of(&self, other: &Self) -> bool {
        let same = matches!(
            (&self.scope, &other.scope),
            (Scope::Host, Scope::Host) | (Scope::Shared, Scope::Shared)
        );
        same && self.is_of_fleet == other.is_of_fleet
    }

    fn join(&mut self, other: Self) {
        self.rates.extend(other.rates);
        self.learns |= other.learns;
        self.bucket = self.bucket.take().or(other.bucket);
        self.route_of = self.route_of.take().or(other.route_of);
        self.max_wait = self.max_wait.into_iter().chain(other.max_wait).min();
        self.version = next_version();
    }

    /// Returns the limits of all scopes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Self> {
        iter::once(self).chain(&self.others)
    }

    /// Returns the route of a request; `None` if there are no buckets.
    pub(crate) fn route_of(&self, request: &Request) -> Option<(Method, String)> {
        self.bucket.as_ref()?;
        let own = self.route_of.as_ref().map(|it| it.find(request));
        let route = own.unwrap_or_else(|| request.url().path().to_owned());
        Some((request.method().clone(), route))
    }

    /// Sets the longest wait for a slot; zero rejects at once. Default:
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time).
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = Some(limit);
        self
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = vec![];
        let mut refuse =
            |broken: bool, field: &'static str, rule: &'static str, value: &dyn fmt::Debug| {
                if broken {
                    faults.push(ConfigFault::new(field, rule, value));
                }
            };
        for rate in self.all().flat_map(|it| &it.rates) {
            refuse(rate.count == 0, "rate_limit.requests", "must be > 0", &rate.count);
            refuse(rate.per.is_zero(), "rate_limit.per", "must be > 0", &rate.per);
            refuse(rate.burst == 0, "rate_limit.burst", "must be > 0", &rate.burst);
        }
        let count = self.all().map(|it| it.rates.len()).max().unwrap_or_default();
        refuse(count > MOST_RATES, "rate_limit", "must have 4 rates of a scope at most", &count);
        let keys = self.all().filter(|it| matches!(it.scope, Scope::Key(_))).count();
        refuse(keys > 1, "rate_limit", "must have one limit per key at most", &keys);
        let of_host = self.all().filter(|it| matches!(it.scope, Scope::Host));
        let (fleet, own): (Vec<_>, Vec<_>) = of_host.partition(|it| it.is_of_fleet);
        let is_mixed = !fleet.is_empty() && !own.is_empty() || fleet.iter().any(|it| it.learns);
        let both = fleet.len() + own.len();
        refuse(is_mixed, "rate_limit", "must be per host, or of a fleet and not learned", &both);
        for it in self.all() {
            if let Some(bucket) = &it.bucket {
                refuse(!it.learns, "rate_limit.bucket_header", "needs a learned limit", bucket);
            }
            if let Some(route) = &it.route_of {
                refuse(it.bucket.is_none(), "rate_limit.route", "needs a bucket_header", route);
            }
        }
        faults
    }

    /// Returns the rate that binds the fleet most, as attempts a second at their cost, and that cost.
    pub(crate) fn of_fleet(&self, request: &Request) -> Option<(f64, u32)> {
        let per_second = |it: &Rate| f64::from(it.count) / it.per.as_secs_f64().max(1e-9);
        let rates = self.rates.iter().filter(|_| self.is_of_fleet);
        let tightest = rates.min_by(|a, b| per_second(a).total_cmp(&per_second(b)))?;
        Some((per_second(tightest), tightest.cost_of(request)))
    }

    fn paces(&self) -> impl Iterator<Item = Pace> {
        self.rates.iter().map(Rate::pace)
    }

    /// Returns the costs of a request, one a rate; of a fleet's rate as one of so many nodes that share
    /// it evenly.
    fn costs(&self, request: &Request, nodes: u32) -> [u32; MOST_RATES] {
        let mut costs = [1; MOST_RATES];
        for (rate, cost) in self.rates.iter().zip(&mut costs) {
            *cost = self.in_share(rate.cost_of(request), nodes);
        }
        costs
    }

    /// Returns the costs of an attempt by its outcome, one a rate; `None` where they are as before.
    fn settled(&self, outcome: &Outcome<'_>, nodes: u32) -> Vec<Option<u32>> {
        let settled = |rate: &Rate| Some(self.in_share(rate.settle.as_ref()?(outcome)?, nodes));
        self.rates.iter().map(settled).collect()
    }

    /// Returns a cost in the even share of one of so many nodes, if the rates are those of a fleet.
    fn in_share(&self, cost: u32, nodes: u32) -> u32 {
        if self.is_of_fleet { cost.saturating_mul(nodes) } else { cost }
    }

    fn settles(&self) -> bool {
        self.rates.iter().any(|it| it.settle.is_some())
    }
}

impl From<Rate> for RateLimit {
    fn from(rate: Rate) -> Self {
        Self::per_host(rate)
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, rates, learns, bucket, route_of, max_wait, others, .. } = self;
        f.debug_struct("RateLimit")
            .field("scope", scope)
            .field("rates", rates)
            .field("learns", learns)
            .field("bucket", bucket)
            .field("route", route_of)
            .field("max_wait", max_wait)
            .field("others", others)
            .finish()
    }
}
