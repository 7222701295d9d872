//! Hedging: a second attempt beside one that is slow.

mod bucket;
pub(crate) mod decide;
mod in_flight;
pub(crate) mod lanes;
mod sketch;

use std::{fmt, hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::fast::FixedState;
use http::{Method, header};
use reqwest::Request;
use reqwest_middleware::ClientWithMiddleware;

use crate::common::fault::ConfigFault;
use crate::common::scope::KeyOf;
pub use crate::host::hedge::decide::HedgeRefusal;

/// Hedging: while an attempt is slow, another one is sent beside it, and the first good response
/// wins.
///
/// Most requests to a service are quick and a few are slow for a reason of their own: a stalled
/// connection, a busy worker, a pause. A hedge meets another worker. With a delay at the 95th
/// percentile, 5 % more requests cut p99.9 to a quarter or less while the server is well; the
/// [guide](crate::guide::hedging) has the figures.
///
/// # Requests
///
/// GET, HEAD, OPTIONS and QUERY, unless [`methods`](Self::methods) says otherwise; only requests that
/// may be [sent again](crate::RetryMethods) whatever came of them, with a body that can be sent
/// twice, without `Upgrade` and `Expect`. A download is not hedged once its body has begun.
///
/// # The race
///
/// A hedge belongs to its attempt: whatever the race gives is judged and retried as one result. The
/// first response that is not retried wins, be it a 404. A failure while another racer is under way
/// is passed over; if all fail, a response with a retry hint counts, else a response, else the first
/// failure. If the deadline ends the race, a response that was passed over is returned. An attempt
/// that fails before the delay starts no hedge: that is the backoff's business.
///
/// A response is there with its head; see [`until_first_byte`](Self::until_first_byte).
///
/// Losers are dropped at once. They say nothing to circuit breaker and retry budget. Over HTTP/1 this
/// closes a connection, so that each hedge costs a handshake; over HTTP/2 it resets a stream.
///
/// # No storm
///
/// Hedges are extra load just when a host is slow. So there is none
///
/// - beyond a [share](Self::share) of the requests, from a bucket of their own;
/// - while more than 2.7 times the usual number of requests (and three more) is in flight to the host:
///   then it is slow for all of them. A slow request that as many later ones have overtaken is not
///   counted: it is slow by itself;
/// - while its circuit breaker is not closed, its gate not open, or less than half of the retry budget
///   is left;
/// - if the delay is half of the time that the attempt timeout or the deadline leaves, or more.
///
/// Each hedge that was due and refused is an [`Event::HedgeRefused`](crate::Event::HedgeRefused).
///
/// # Bounded
///
/// The latencies of a host and method, or [key](Self::key), take about 1 kB, and a host has at most
/// 64 of them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reqwest_resilient::{Hedge, ResilientConfig};
///
/// // After the 95th percentile of the latency, once that is known; until then after 200 ms.
/// let hedge = Hedge::learned(0.95).or_after(Duration::from_millis(200));
/// let config = ResilientConfig::builder().hedge(hedge).build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Hedge {
    delay: Delay,
    /// The delay until latencies are known that was set beside a fixed one, which needs none.
    unused: Option<Duration>,
    max_hedges: u32,
    share: Option<f64>,
    methods: Option<Arc<[Method]>>,
    key: Option<KeyOf>,
    through: Option<ClientWithMiddleware>,
    /// Set if a response is there with the first byte of its body.
    until_first_byte: bool,
}

/// The time after which a hedge is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Delay {
    Fixed(Duration),
    /// A quantile of the latencies; `before` there are enough of them, this delay.
    Learned {
        quantile: f64,
        before: Option<Duration>,
    },
}

/// The settings that the state of a host needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HedgeRules {
    pub(crate) delay: Delay,
    /// The share of a hedge that a request pays, in millionths.
    pub(crate) share: u64,
}

/// The most hedges of one attempt. The tail gains little by more than one, the load grows.
const MOST_HEDGES: u32 = 4;

/// The share for the default quantile.
const DEFAULT_SHARE: f64 = 0.06;

/// The share of hedges over the share of slow requests: with exactly as many, the slowest
/// thousandth gets none when stalls come together.
const SPARE: f64 = 1.2;

impl Hedge {
    /// Sends a hedge once an attempt is slower than this quantile of the latest ones of its host and
    /// method: 0.95 means that 5 % are.
    ///
    /// Learnt from the time to the response head, or to the first byte of the body by
    /// [`until_first_byte`](Self::until_first_byte), or to its end where
    /// [`read_body`](crate::ResilientConfigBuilder::read_body) is set, of the latest 256 to 512
    /// (1,000 to 2,000 for 0.99) successes and other accepted responses; superseded attempts and
    /// timeouts count at the age they reached. Not before 100 of them (500 for 0.99), until which
    /// there is no hedge or that of [`or_after`](Self::or_after). At least 2 ms; from 5 s on there
    /// are no hedges, as a service that slow wants a timeout.
    pub fn learned(quantile: f64) -> Self {
        Self::new(Delay::Learned { quantile, before: None })
    }

    /// Sends a hedge after this time.
    ///
    /// A time that is right today is wrong when the service becomes faster or slower;
    /// [`learned`](Self::learned) follows it.
    pub fn after(delay: Duration) -> Self {
        Self::new(Delay::Fixed(delay))
    }

    fn new(delay: Delay) -> Self {
        let (unused, share, methods, key, through) = (None, None, None, None, None);
        let until_first_byte = false;
        Self { delay, unused, max_hedges: 1, share, methods, key, through, until_first_byte }
    }

    /// Sets the delay until enough latencies are known; invalid beside a fixed delay. Default:
    /// none, there are no hedges until then.
    pub fn or_after(mut self, delay: Duration) -> Self {
        match &mut self.delay {
            Delay::Learned { before, .. } => *before = Some(delay),
            Delay::Fixed(_) => self.unused = Some(delay),
        }
        self
    }

    /// Sets the most hedges of one attempt, each one delay after the one before. From 1 to 4.
    /// Default: 1.
    ///
    /// A request is sent at most `(1 + max_hedges) × (1 + max_retries)` times.
    pub fn max_hedges(mut self, hedges: u32) -> Self {
        self.max_hedges = hedges;
        self
    }

    /// Sets the hedges per request, on average: a request pays for this part of a hedge. Above 0, at
    /// most 1. Default: 1.2 times the share of requests above the quantile, 0.06 for 0.95 and for a
    /// fixed delay.
    ///
    /// The deposits of two seconds can be saved, at least 3 hedges, at most 100.
    pub fn share(mut self, hedges_per_request: f64) -> Self {
        self.share = Some(hedges_per_request);
        self
    }

    /// Sets the methods that are hedged, in place of GET, HEAD, OPTIONS and QUERY.
    ///
    /// Two PUT or DELETE requests that race may take effect in either order, beside those of others.
    /// A POST is hedged only if it may be sent again as well: if it carries an
    /// [`IdempotencyKey`](crate::IdempotencyKey), or by
    /// [`idempotent`](crate::RetryOverride::idempotent).
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = Some(methods.into_iter().collect());
        self
    }

    /// Keeps latencies and share for each key that `key_of` finds in the requests to a host, such as
    /// a route, in place of one for each method. At most 64 keys a host, the least recently used one
    /// is evicted. A panic in `key_of` is the caller's.
    pub fn key(mut self, key_of: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key_of));
        self
    }

    /// Sends hedges through another client: by its connections, its middleware and its settings.
    ///
    /// A hedge over HTTP/2 shares the connection of its attempt, so that it is of no use if that is
    /// stalled; a client of its own has others. It must have the TLS settings, credentials and
    /// middleware that requests need, and no [`Resilient`](crate::Resilient) of its own. Default: the
    /// client that sent the attempt.
    pub fn through(mut self, client: ClientWithMiddleware) -> Self {
        self.through = Some(client);
        self
    }

    /// Goes on with the race until the first byte of a body, or its end: for servers that send the
    /// head at once and compute then, as those of language models do. By the head alone they are
    /// always quick, and no hedge is of use.
    ///
    /// That time is learnt, too, and [`attempt_timeout`](crate::ResilientConfigBuilder::attempt_timeout)
    /// holds for it. A body that breaks off before is a failure of the attempt, and retried like any
    /// other; one that breaks off later is the caller's, as ever. Default: until the response head.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::{Hedge, ResilientConfig};
    ///
    /// let hedge = Hedge::learned(0.9).or_after(Duration::from_secs(2)).until_first_byte();
    /// let config = ResilientConfig::builder().hedge(hedge).build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    pub fn until_first_byte(mut self) -> Self {
        self.until_first_byte = true;
        self
    }

    /// Ends the race with the response head, or with the first byte of the body.
    #[cfg(feature = "serde")]
    pub(crate) fn with_first_byte(self, until_first_byte: bool) -> Self {
        Self { until_first_byte, ..self }
    }

    /// Sends hedges after this time, in place of a quantile.
    #[cfg(feature = "serde")]
    pub(crate) fn fixed_to(self, delay: Duration) -> Self {
        Self { delay: Delay::Fixed(delay), unused: None, ..self }
    }

    /// Sends hedges by this quantile, in place of a time.
    #[cfg(feature = "serde")]
    pub(crate) fn with_quantile(self, quantile: f64) -> Self {
        let before = match self.delay {
            Delay::Learned { before, .. } => before,
            Delay::Fixed(_) => self.unused,
        };
        Self { delay: Delay::Learned { quantile, before }, unused: None, ..self }
    }

    /// Returns the settings that the state of a host needs.
    pub(crate) fn rules(&self) -> HedgeRules {
        let share = self.share.unwrap_or(match self.delay {
            Delay::Fixed(_) => DEFAULT_SHARE,
            Delay::Learned { quantile, .. } => SPARE * (1.0 - quantile),
        });
        HedgeRules { delay: self.delay, share: (share * bucket::TOKEN as f64).round() as u64 }
    }

    pub(crate) fn most(&self) -> u32 {
        self.max_hedges
    }

    /// Returns whether the race goes on until the first byte of a body.
    pub(crate) fn waits_for_byte(&self) -> bool {
        self.until_first_byte
    }

    pub(crate) fn client(&self) -> Option<&ClientWithMiddleware> {
        self.through.as_ref()
    }

    /// Returns whether a request may be hedged by its method and headers.
    pub(crate) fn covers(&self, request: &Request) -> bool {
        let method = request.method();
        let is_covered = match &self.methods {
            Some(methods) => methods.contains(method),
            None => {
                matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
                    || method.as_str() == "QUERY"
            }
        };
        let headers = request.headers();
        is_covered
            && *method != Method::CONNECT
            && !headers.contains_key(header::UPGRADE)
            && !headers.contains_key(header::EXPECT)
    }

    /// Returns the key of a request's latencies and share.
    pub(crate) fn key_of(&self, request: &Request) -> u64 {
        let hash = |it: &str| FixedState::default().hash_one(it);
        match &self.key {
            Some(key_of) => hash(&key_of(request)),
            None => hash(request.method().as_str()),
        }
    }

    /// Validates all settings; returns every fault.
    pub(crate) fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = vec![];
        let mut refuse = |broken: bool, field, rule, value: &dyn fmt::Debug| {
            if broken {
                faults.push(ConfigFault::new(field, rule, value));
            }
        };
        match self.delay {
            Delay::Fixed(delay) => {
                refuse(delay.is_zero(), "hedge.after", "must be > 0", &delay);
                if let Some(before) = self.unused {
                    refuse(true, "hedge.or_after", "excludes after", &before);
                }
            }
            Delay::Learned { quantile, before } => {
                let is_one = (0.5..=0.999).contains(&quantile);
                refuse(!is_one, "hedge.quantile", "must be from 0.5 to 0.999", &quantile);
                let is_zero = before == Some(Duration::ZERO);
                refuse(is_zero, "hedge.or_after", "must be > 0", &Duration::ZERO);
            }
        }
        let is_number = (1..=MOST_HEDGES).contains(&self.max_hedges);
        refuse(!is_number, "hedge.max_hedges", "must be from 1 to 4", &self.max_hedges);
        if let Some(share) = self.share {
            let is_share = share > 0.0 && share <= 1.0;
            refuse(!is_share, "hedge.share", "must be above 0 and at most 1", &share);
        }
        faults
    }
}

/// `Hedge::learned(0.95)`.
impl Default for Hedge {
    fn default() -> Self {
        Self::learned(0.95)
    }
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Hedge");
        match self.delay {
            Delay::Fixed(delay) => out.field("after", &delay),
            Delay::Learned { quantile, before } => {
                out.field("quantile", &quantile).field("or_after", &before)
            }
        };
        out.field("max_hedges", &self.max_hedges)
            .field("share", &(self.rules().share as f64 / bucket::TOKEN as f64))
            .field("methods", &self.methods)
            .field("until_first_byte", &self.until_first_byte)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str) -> Request {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Request::new(method, "https://api.example.com/a".parse().unwrap())
    }

    #[test]
    fn safe_methods_are_covered_and_no_others() {
        let hedge = Hedge::default();
        for (method, covered) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("QUERY", true),
            ("TRACE", false),
            ("PUT", false),
            ("DELETE", false),
            ("POST", false),
            ("PATCH", false),
            ("CONNECT", false),
        ] {
            assert_eq!(hedge.covers(&request(method)), covered, "{method}");
        }
        let own = Hedge::default().methods([Method::PUT, Method::CONNECT]);
        let covered = ["PUT", "GET", "CONNECT"].map(|it| own.covers(&request(it)));
        assert_eq!(covered, [true, false, false]);
        for name in [header::UPGRADE, header::EXPECT] {
            let mut request = request("GET");
            request.headers_mut().insert(name, header::HeaderValue::from_static("a"));
            assert!(!hedge.covers(&request));
        }
    }

    #[test]
    fn keys_tell_methods_apart_or_what_the_caller_says() {
        let hedge = Hedge::default();
        let key = |it: &str| hedge.key_of(&request(it));
        assert_eq!((key("GET"), key("GET") == key("HEAD")), (key("GET"), false));
        let own = Hedge::default().key(|it| it.url().path().to_owned());
        assert_eq!(own.key_of(&request("GET")), own.key_of(&request("HEAD")));
    }

    #[test]
    fn the_share_goes_by_the_quantile() {
        let second = Duration::from_secs(1);
        for (hedge, millionths) in [
            (Hedge::learned(0.95), 60_000),
            (Hedge::learned(0.99), 12_000),
            (Hedge::after(second), 60_000),
            (Hedge::learned(0.95).share(0.2), 200_000),
        ] {
            assert_eq!(hedge.rules().share, millionths, "{hedge:?}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let zero = Duration::ZERO;
        for (hedge, faults) in [
            (Hedge::default(), vec![]),
            (Hedge::after(zero), vec!["hedge.after must be > 0, got 0ns"]),
            (
                Hedge::after(Duration::from_secs(1)).or_after(Duration::from_secs(2)),
                vec!["hedge.or_after excludes after, got 2s"],
            ),
            (Hedge::learned(0.4), vec!["hedge.quantile must be from 0.5 to 0.999, got 0.4"]),
            (Hedge::learned(f64::NAN), vec!["hedge.quantile must be from 0.5 to 0.999, got NaN"]),
            (
                Hedge::default().or_after(zero).max_hedges(5).share(0.0),
                vec![
                    "hedge.or_after must be > 0, got 0ns",
                    "hedge.max_hedges must be from 1 to 4, got 5",
                    "hedge.share must be above 0 and at most 1, got 0.0",
                ],
            ),
            (
                Hedge::default().max_hedges(0).share(f64::NAN),
                vec![
                    "hedge.max_hedges must be from 1 to 4, got 0",
                    "hedge.share must be above 0 and at most 1, got NaN",
                ],
            ),
        ] {
            let found: Vec<_> = hedge.faults().iter().map(ToString::to_string).collect();
            assert_eq!(found, faults, "{hedge:?}");
        }
    }
}
