//! Limits of the requests that are under way at a time: their rules, and the permits of a host.

mod aimd;
mod limited;
mod limiter;
mod queue;

use std::{sync::Arc, time::Duration};

use reqwest::Request;

pub(crate) use self::aimd::Load;
pub use self::limited::Limited;
pub(crate) use self::limited::LimitedBy;
pub(crate) use self::limiter::{LimitPermit, LimitWaiter, Limiter, Occupied};
use crate::common::fault::ConfigFault;
use crate::common::scope::{Scope, next_version};

/// The most permits of one limit.
const MOST_PERMITS: u32 = 1_000_000;

/// The number of requests that a [`ConcurrencyLimit`] lets be under way at a time.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ConcurrencyLimit, Limit};
///
/// let polite = ConcurrencyLimit::per_host(Limit::fixed(6));
/// let busy = ConcurrencyLimit::per_host(Limit::adaptive().max(200));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limit {
    pub(crate) kind: Kind,
    /// The bounds that were set on a fixed limit, which has none: start, min and max.
    unused: [Option<u32>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fixed(u32),
    Adaptive(Adaptive),
}

/// The bounds of an adaptive limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adaptive {
    pub(crate) start: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Adaptive {
    pub(crate) const DEFAULT: Self = Self { start: 20, min: 1, max: 1_000 };
}

impl Limit {
    /// Builds a limit of `requests`, from 1 to 1,000,000. No number suits all: start at 10 to 20 for
    /// an API, and at 6 for a crawler, as browsers do.
    pub const fn fixed(requests: u32) -> Self {
        Self { kind: Kind::Fixed(requests), unused: [None; 3] }
    }

    /// Builds a limit that finds its number: it starts at 20, grows by one for each round of
    /// successes, and falls to half when the host is overloaded. Near the limit at which that was
    /// the case last it grows a fifth as fast, as CUBIC does (RFC 9438).
    ///
    /// Signs of overload are timeouts, broken connections, `ENHANCE_YOUR_CALM` of HTTP/2, and 408,
    /// 429, 503, 504, 529 and a 403 that is a rate limit; one overload costs one cut, however many
    /// attempts show it. A 500 and a refused connection are none. The limit does not grow while
    /// less than three quarters of it are in use.
    ///
    /// It keeps a client out of an overload that has no failures yet. Where a host is down, the
    /// circuit breaker does more.
    pub const fn adaptive() -> Self {
        Self { kind: Kind::Adaptive(Adaptive::DEFAULT), unused: [None; 3] }
    }

    /// Returns whether it is an adaptive one.
    #[cfg(feature = "serde")]
    pub(crate) const fn is_adaptive(self) -> bool {
        matches!(self.kind, Kind::Adaptive(_))
    }

    /// Sets the number that an adaptive limit starts from; invalid for a fixed one. Default: 20.
    pub const fn start(mut self, requests: u32) -> Self {
        match &mut self.kind {
            Kind::Adaptive(it) => it.start = requests,
            Kind::Fixed(_) => self.unused[0] = Some(requests),
        }
        self
    }

    /// Sets the least number of an adaptive limit; invalid for a fixed one. Default: 1.
    pub const fn min(mut self, requests: u32) -> Self {
        match &mut self.kind {
            Kind::Adaptive(it) => it.min = requests,
            Kind::Fixed(_) => self.unused[1] = Some(requests),
        }
        self
    }

    /// Sets the greatest number of an adaptive limit; invalid for a fixed one. Default: 1,000.
    pub const fn max(mut self, requests: u32) -> Self {
        match &mut self.kind {
            Kind::Adaptive(it) => it.max = requests,
            Kind::Fixed(_) => self.unused[2] = Some(requests),
        }
        self
    }
}

/// The order in which requests get the permits of a [`ConcurrencyLimit`].
///
/// # Examples
///
/// ```
/// use reqwest_resilient::{ConcurrencyLimit, Limit, QueueOrder};
///
/// let limit = ConcurrencyLimit::per_host(Limit::fixed(10)).order(QueueOrder::Fair);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueOrder {
    /// Oldest first, as long as the queue has been empty within the last 100 ms. In a queue that
    /// stands longer the newest goes first, and the oldest ones give up: half of the requests in
    /// good time, instead of all of them late. The default.
    ///
    /// Only where requests have a [`max_total_time`](crate::ResilientConfigBuilder::max_total_time):
    /// a job that has all the time there is keeps its order.
    #[default]
    Adaptive,
    /// Oldest first, always.
    Fair,
}

/// A limit of the requests that are under way at a time: per host, per key, or for all requests.
///
/// Each attempt takes a permit and holds it until the body of its response has ended, failed or been
/// dropped, because until then the host is at work and a connection in use; see
/// [`until_head`](Self::until_head). No permit is held during a wait between attempts. Retries and
/// first attempts stand in one queue. A probe of an open circuit breaker takes a permit without a
/// queue: the host has nothing else to do.
///
/// # Waits
///
/// A request that finds no permit waits as long as [`max_queue_time`](Self::max_queue_time), and not
/// so long that no time would be left for its attempt. Then it ends with an error whose
/// [`is_limited`](crate::HttpRequestError::is_limited) is `true`: nothing was sent, and neither
/// circuit breaker nor budget count it. At most 10,000 requests wait at a limit. A request whose
/// breaker opens while it waits is judged by the breaker at once.
///
/// # Deadlock
///
/// A program that keeps the responses of ten requests unread and asks for an eleventh under a limit
/// of ten waits for itself. The wait is bounded, and the error says that responses hold all permits:
/// read or drop them, or let permits end at the head. An
/// [`HttpRequestError`](crate::HttpRequestError) keeps its response, too: where many errors are
/// collected, read the [`text`](crate::HttpRequestError::text) of each first, or keep its message
/// alone.
///
/// # Reload
///
/// The limit of a host is that of the request that last used it. A lower one takes effect as permits
/// come back; no request is cancelled. An adaptive limit keeps what it has
/// learned while a fixed limit replaces it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{ConcurrencyLimit, Limit, ResilientConfig};
///
/// let limit = ConcurrencyLimit::per_host(Limit::fixed(10));
/// let config = ResilientConfig::builder()
///     .concurrency_limit(limit.max_queue_time(Duration::from_secs(5)))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyLimit {
    pub(crate) scope: Scope,
    pub(crate) rules: LimitRules,
    /// Identifies these rules, so that a host notices new ones by one comparison.
    pub(crate) version: u64,
}

/// The rules of a concurrency limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitRules {
    pub(crate) limit: Limit,
    pub(crate) order: QueueOrder,
    /// `None` for `max_wait_time`.
    pub(crate) max_queue_time: Option<Duration>,
    /// Set if a permit ends with the response head.
    pub(crate) until_head: bool,
}

impl ConcurrencyLimit {
    /// Builds a limit for each scheme, host and port.
    pub fn per_host(limit: Limit) -> Self {
        Self::new(limit, Scope::Host)
    }

    /// Builds one limit for all requests of a client.
    pub fn shared(limit: Limit) -> Self {
        Self::new(limit, Scope::Shared)
    }

    /// Builds a limit for each key that `key_of` finds in the requests, such as a route. A panic in
    /// `key_of` is the caller's.
    pub fn per_key(
        limit: Limit,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(limit, Scope::Key(Arc::new(key_of)))
    }

    fn new(limit: Limit, scope: Scope) -> Self {
        let rules = LimitRules {
            limit,
            order: QueueOrder::default(),
            max_queue_time: None,
            until_head: false,
        };
        Self { scope, rules, version: next_version() }
    }

    /// Returns these with other rules.
    pub(crate) fn with_rules(self, rules: LimitRules) -> Self {
        if self.rules == rules { self } else { Self { rules, version: next_version(), ..self } }
    }

    /// Sets the longest wait for a permit; zero rejects at once. Default:
    /// [`max_wait_time`](crate::ResilientConfigBuilder::max_wait_time).
    pub fn max_queue_time(self, limit: Duration) -> Self {
        let rules = LimitRules { max_queue_time: Some(limit), ..self.rules };
        self.with_rules(rules)
    }

    /// Sets the order in which waiting requests get permits. Default: [`QueueOrder::Adaptive`].
    pub fn order(self, order: QueueOrder) -> Self {
        let rules = LimitRules { order, ..self.rules };
        self.with_rules(rules)
    }

    /// Ends permits with the response head, for programs that keep responses. The bodies that are
    /// read at a time are then not limited, nor are the connections.
    pub fn until_head(self) -> Self {
        let rules = LimitRules { until_head: true, ..self.rules };
        self.with_rules(rules)
    }

    /// Returns this with another number.
    #[cfg(feature = "serde")]
    pub(crate) fn with_limit(self, limit: Limit) -> Self {
        let rules = LimitRules { limit, ..self.rules };
        self.with_rules(rules)
    }

    /// Returns this with a start within the bounds, if there are any.
    #[cfg(feature = "serde")]
    pub(crate) fn with_start_in_bounds(self) -> Self {
        match self.rules.limit.kind {
            Kind::Adaptive(Adaptive { start, min, max }) if min <= max => {
                let limit = self.rules.limit.start(start.clamp(min, max));
                self.with_limit(limit)
            }
            _ => self,
        }
    }

    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let rule = "must be from 1 to 1000000";
        let check = |field: String, value: u32| {
            let broken = !(1..=MOST_PERMITS).contains(&value);
            broken.then(|| ConfigFault::new(field, rule, value))
        };
        let bounds = ["start", "min", "max"].map(|it| format!("concurrency_limit.{it}"));
        let Limit { kind, unused } = self.rules.limit;
        match kind {
            Kind::Fixed(limit) => {
                let unused = bounds.into_iter().zip(unused).filter_map(|(field, value)| {
                    Some(ConfigFault::new(field, "needs an adaptive limit", value?))
                });
                check("concurrency_limit.limit".into(), limit).into_iter().chain(unused).collect()
            }
            Kind::Adaptive(Adaptive { start, min, max }) => {
                let all = bounds.into_iter().zip([start, min, max]);
                let mut faults: Vec<_> = all.filter_map(|(field, it)| check(field, it)).collect();
                if faults.is_empty() && !(min..=max).contains(&start) {
                    let rule = format!("must be from min ({min}) to max ({max})");
                    faults.push(ConfigFault::new("concurrency_limit.start", rule, start));
                }
                faults
            }
        }
    }
}

impl From<Limit> for ConcurrencyLimit {
    fn from(limit: Limit) -> Self {
        Self::per_host(limit)
    }
}

/// The use of a concurrency limit at one moment.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::HostStates;
///
/// let hosts = HostStates::new();
/// if let Some(it) = hosts.limit_use("https://api.example.com") {
///     println!("{} of {}, {} waiting", it.in_flight, it.limit, it.queued);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUse {
    /// The most requests that may be under way.
    pub limit: u32,
    /// The number of requests that are under way, those included whose body is being read.
    pub in_flight: u32,
    /// The number of requests that wait for a permit.
    pub queued: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_field_and_value() {
        let faults = |limit| {
            let faults = ConcurrencyLimit::per_host(limit).faults();
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(faults(Limit::fixed(1)).is_empty() && faults(Limit::adaptive()).is_empty());
        let field = "concurrency_limit";
        for (limit, expected) in [
            (Limit::fixed(0), format!("{field}.limit must be from 1 to 1000000, got 0")),
            (Limit::adaptive().min(0), format!("{field}.min must be from 1 to 1000000, got 0")),
            (
                Limit::adaptive().max(10),
                format!("{field}.start must be from min (1) to max (10), got 20"),
            ),
            (Limit::fixed(6).start(2), format!("{field}.start needs an adaptive limit, got 2")),
            (Limit::fixed(6).min(2), format!("{field}.min needs an adaptive limit, got 2")),
            (Limit::fixed(6).max(9), format!("{field}.max needs an adaptive limit, got 9")),
        ] {
            assert_eq!(faults(limit), [expected]);
        }
        assert_eq!(faults(Limit::fixed(0).start(2).min(2).max(9)).len(), 4, "all at once");
    }
}
