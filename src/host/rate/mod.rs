//! Limits of the requests per time: their rules, and the slots of a host.

mod gcra;
mod learned;
mod learner;
mod pacer;

use std::{fmt, sync::Arc, time::Duration};

use reqwest::Request;

pub(crate) use self::learner::{Learner, Ticket};
pub(crate) use self::pacer::{Pacer, Slot};
use crate::common::fault::ConfigFault;
use crate::common::scope::{Scope, next_version};
use crate::host::rate::gcra::Pace;
use crate::outcome::Outcome;

/// The most rates of one limit.
const MOST_RATES: usize = 4;

/// A rate of requests, or of what requests cost.
///
/// Requests are spread evenly: 60 a minute are one each second, not 60 at once and then none for a
/// minute, which is what trips small quotas. [`burst`](Self::burst) allows some at once after a
/// pause.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{Rate, RateLimit};
///
/// // Two a second, five of them at once after a pause, and no more than 1,000 an hour.
/// let limit = RateLimit::per_host(Rate::per_second(2).burst(5)).and(Rate::per_hour(1_000));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rate {
    count: u32,
    per: Duration,
    burst: u32,
    cost: Option<CostOf>,
    settle: Option<Settle>,
}

/// Finds the cost of a request before it is sent.
pub(crate) type CostOf = Arc<dyn Fn(&Request) -> u32 + Send + Sync>;

/// Finds what a request did cost; `None` if the response does not say.
pub(crate) type Settle = Arc<dyn Fn(&Outcome<'_>) -> Option<u32> + Send + Sync>;

impl Rate {
    /// Builds a rate of `count` each second.
    pub const fn per_second(count: u32) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// Builds a rate of `count` each minute.
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// Builds a rate of `count` each hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_secs(3_600))
    }

    /// Builds a rate of `count` in each `period`.
    pub const fn per(count: u32, period: Duration) -> Self {
        Self { count, per: period, burst: 1, cost: None, settle: None }
    }

    /// Sets how many may go at once after a pause. Default: 1, so that requests are spread evenly.
    pub fn burst(mut self, count: u32) -> Self {
        self.burst = count;
        self
    }

    /// Counts what requests cost, in place of requests: the tokens of a prompt, for example.
    ///
    /// Called before each attempt. A cost of zero counts as one; one above the burst waits until
    /// all earlier costs are paid. A panic in it is the caller's.
    pub fn cost(mut self, cost: impl Fn(&Request) -> u32 + Send + Sync + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Corrects the cost of a request by its outcome: the tokens that a response says it took, for
    /// example. `None` leaves it as it is.
    ///
    /// Called after each attempt that was sent. A panic in it is the caller's.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Rate, RateLimit};
    ///
    /// let tokens = Rate::per_minute(90_000)
    ///     .burst(4_000)
    ///     .cost(|request| request.body().and_then(|it| it.as_bytes()).map_or(0, |it| it.len() as u32 / 4))
    ///     .settle(|outcome| outcome.headers()?.get("x-tokens-used")?.to_str().ok()?.parse().ok());
    /// let limit = RateLimit::per_host(Rate::per_minute(60)).and(tokens);
    /// ```
    pub fn settle(
        mut self,
        settle: impl Fn(&Outcome<'_>) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.settle = Some(Arc::new(settle));
        self
    }

    /// Returns a rate of another number.
    #[cfg(feature = "serde")]
    pub(crate) fn count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// Returns a rate of another period.
    #[cfg(feature = "serde")]
    pub(crate) fn period(self, per: Duration) -> Self {
        Self { per, ..self }
    }

    fn pace(&self) -> Pace {
        Pace { interval: self.per / self.count.max(1), burst: self.burst }
    }

    fn cost_of(&self, request: &Request) -> u32 {
        self.cost.as_ref().map_or(1, |it| it(request).max(1))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per, burst, .. } = self;
        f.debug_struct("Rate")
            .field("count", count)
            .field("per", per)
            .field("burst", burst)
            .field("has_costs", &self.cost.is_some())
            .finish()
    }
}

/// A limit of the requests per time: per host, per key, or for all requests.
///
/// Each attempt takes a slot, retries included. A request that has to wait reserves its slot when it
/// arrives and sleeps until then: slots go in order of arrival, with one timer for each request. A
/// request that is dropped before its slot gives it back if none was taken after it; otherwise the
/// slot is lost, at most one for each such request. One that was not sent, because its breaker was
/// open or no connection could be made, gives its slot back in the same way.
///
/// A wait longer than [`max_wait`](Self::max_wait), or than the time that is left, ends the request
/// at once, with an error whose [`is_limited`](crate::HttpRequestError::is_limited) is `true` and
/// whose [`retry_in`](crate::HttpRequestError::retry_in) is the time until the slot. Nothing is
/// reserved then, and neither circuit breaker nor budget count it.
///
/// The slots of a host are kept in the client's [`HostStates`](crate::HostStates), the rules are
/// those of the request that last used it.
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
    /// `None` for `max_wait_time`.
    pub(crate) max_wait: Option<Duration>,
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
        let (rates, is_of_fleet, learns) = (vec![rate], false, false);
        Self { scope, rates, is_of_fleet, learns, max_wait: None, version: next_version() }
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
        let (scope, rates, is_of_fleet) = (Scope::Host, vec![], false);
        Self { scope, rates, is_of_fleet, learns: true, max_wait: None, version: next_version() }
    }

    /// Adds a rate that has to be kept as well: a request goes when all of them allow it. At most
    /// four.
    pub fn and(mut self, rate: Rate) -> Self {
        self.rates.push(rate);
        self.version = next_version();
        self
    }

    /// Sets the longest wait for a slot; zero rejects at once. Default:
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time).
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = Some(limit);
        self
    }

    /// Rejects requests instead of waiting for a slot.
    pub fn reject(self) -> Self {
        self.max_wait(Duration::ZERO)
    }

    /// Returns these rates with another scope.
    #[cfg(feature = "serde")]
    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Returns this with another first rate, one a second if there was none.
    #[cfg(feature = "serde")]
    pub(crate) fn map_first(mut self, change: impl FnOnce(Rate) -> Rate) -> Self {
        let first = self.rates.first().cloned().unwrap_or(Rate::per_second(1));
        let rest = self.rates.drain(..).skip(1);
        self.rates = [change(first)].into_iter().chain(rest).collect();
        self.version = next_version();
        self
    }

    /// Returns whether one limit serves all requests.
    #[cfg(feature = "serde")]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.scope, Scope::Shared)
    }

    /// Returns whether both have the same rates and waits.
    #[cfg(feature = "serde")]
    pub(crate) fn has_rules_of(&self, other: &Self) -> bool {
        self.max_wait == other.max_wait
            && self.learns == other.learns
            && self.is_of_fleet == other.is_of_fleet
            && self.paces().eq(other.paces())
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = vec![];
        let mut refuse =
            |broken: bool, field: &'static str, rule: &'static str, value: &dyn fmt::Debug| {
                if broken {
                    faults.push(ConfigFault::new(field, rule, value));
                }
            };
        for rate in &self.rates {
            refuse(rate.count == 0, "rate_limit.requests", "must be > 0", &rate.count);
            refuse(rate.per.is_zero(), "rate_limit.per", "must be > 0", &rate.per);
            refuse(rate.burst == 0, "rate_limit.burst", "must be > 0", &rate.burst);
        }
        let count = self.rates.len();
        refuse(count > MOST_RATES, "rate_limit", "must have 4 rates at most", &count);
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

    /// Returns the costs of a request, one a rate.
    fn costs(&self, request: &Request) -> [u32; MOST_RATES] {
        let mut costs = [1; MOST_RATES];
        for (rate, cost) in self.rates.iter().zip(&mut costs) {
            *cost = rate.cost_of(request);
        }
        costs
    }

    /// Returns what an attempt did cost by its outcome, one a rate; `None` where that is as before.
    fn settled(&self, outcome: &Outcome<'_>) -> Vec<Option<u32>> {
        self.rates.iter().map(|it| it.settle.as_ref()?(outcome)).collect()
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
        let Self { scope, rates, learns, max_wait, .. } = self;
        f.debug_struct("RateLimit")
            .field("scope", scope)
            .field("rates", rates)
            .field("learns", learns)
            .field("max_wait", max_wait)
            .finish()
    }
}
