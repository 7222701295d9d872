//! Every setting, written once: the methods that the config's builder and the override share.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};
use reqwest::Request;

use crate::breaker::{CircuitBreakers, Health};
use crate::common::path_redactor::PathRedactor;
use crate::config::ResilientConfigBuilder;
use crate::config::headers::DeadlineHeader;
use crate::config::overrides::RetryOverride;
use crate::config::policy::RetryAfter;
use crate::host::gate::GateKey;
use crate::observe::event::{FailureInfo, RequestInfo, ResponseInfo, RetryInfo};
use crate::observe::listeners::Observer;
use crate::outcome::Outcome;
use crate::outcome::classify::RetryMethods;
use crate::outcome::hint::HintHeaders;
use crate::outcome::idempotency::IdempotencyKey;
use crate::retry::backoff::{Backoff, Jitter};
use crate::retry::budget::RetryBudget;

macro_rules! settings {
    ($Type:ty) => {
        /// Settings; see [`ResilientConfig`](crate::ResilientConfig) for the defaults.
        impl $Type {
            /// Sets the most retries after the first attempt: `attempts <= retries + 1`. Default: 3,
            /// so four attempts in all. In a [`RetryOverride`](crate::RetryOverride) it also lets
            /// the request take the [budget](crate::BudgetConfig) so far below zero.
            pub fn max_retries(mut self, retries: u32) -> Self {
                self.patch().max_retries = Some(retries);
                self
            }

            /// The delay before each retry. Default: exponential from 300 ms, at most 20 s; from 1 s
            /// after a 429 or a 403 that is a rate limit, where no [gate](Self::gate) is closed by
            /// it. A backoff that is set here serves rate limits, too.
            pub fn backoff(mut self, backoff: impl Backoff) -> Self {
                self.patch().backoff = Some(Arc::new(backoff));
                self
            }

            /// Sets how delays are spread. Default: [`Jitter::Full`].
            pub fn jitter(mut self, jitter: Jitter) -> Self {
                self.patch().jitter = Some(jitter);
                self
            }

            /// The statuses that are retried, in place of the default 408, 425, 429, 500, 502,
            /// 503 and 504 (and 403 where it tells of an exhausted rate limit, as GitHub's does,
            /// and 413, 529 and 530 where the response says when to retry).
            /// Statuses below 400 are honoured too.
            pub fn retry_statuses(
                mut self,
                statuses: impl IntoIterator<Item = StatusCode>,
            ) -> Self {
                self.patch().statuses = Some(statuses.into_iter().collect());
                self
            }

            /// Sets the statuses by which a server says that it did not process the request, in
            /// place of the default 425 and 429 (and 403 where it tells of an exhausted rate
            /// limit). A POST is sent again after these alone, and only if they are retried.
            ///
            /// A convention, which no RFC demands: add 503, 529 or 401 for a server that keeps to
            /// it. A proxy may respond with 503 although the server behind it did the work.
            pub fn refused_statuses(
                mut self,
                statuses: impl IntoIterator<Item = StatusCode>,
            ) -> Self {
                self.patch().refused = Some(statuses.into_iter().collect());
                self
            }

            /// Decides by a predicate what is retried, in place of the statuses and of what is
            /// known about errors, for answers below 400 too. Asked once per attempt.
            ///
            /// Requests that are not safe to repeat are still not repeated; see
            /// [`retry_methods`](Self::retry_methods). A panic in the predicate is the caller's.
            pub fn retry_if(
                mut self,
                predicate: impl Fn(&Outcome<'_>) -> bool + Send + Sync + 'static,
            ) -> Self {
                self.patch().retry_if = Some(Some(Arc::new(predicate)));
                self
            }

            /// Decides by the statuses again.
            pub fn without_retry_if(mut self) -> Self {
                self.patch().retry_if = Some(None);
                self
            }

            /// The methods that may be sent again after they may have been processed. Default:
            /// the idempotent ones, because a second POST may charge a card twice.
            pub fn retry_methods(mut self, methods: RetryMethods) -> Self {
                self.patch().methods = Some(methods);
                self
            }

            /// The longest an attempt may take, up to the response head (up to the end of the
            /// body where [`read_body`](Self::read_body) is set). Default: none; the client's
            /// own timeouts apply, which this never loosens.
            pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
                self.patch().attempt_timeout = Some(Some(timeout));
                self
            }

            /// Does not limit attempts.
            pub fn without_attempt_timeout(mut self) -> Self {
                self.patch().attempt_timeout = Some(None);
                self
            }

            /// The longest everything may take: attempts, waits and the response's body. An
            /// attempt under way is cut, and no wait begins that would not end in time. Default:
            /// none.
            pub fn max_total_time(mut self, limit: Duration) -> Self {
                self.patch().max_total_time = Some(Some(limit));
                self
            }

            /// Does not limit the whole.
            pub fn without_max_total_time(mut self) -> Self {
                self.patch().max_total_time = Some(None);
                self
            }

            /// The longest single wait. A backoff is cut to it; a server that asks for more ends
            /// the request at once, with its response in hand, unless
            /// [`RetryAfter::Capped`] is set. The spread of a hint comes on top, so that clients
            /// that heard the same hint do not return together: a quarter of it, at least 250 ms
            /// and at most 5 s. Default: 60 s, because callers have given up by then.
            pub fn max_wait_time(mut self, limit: Duration) -> Self {
                self.patch().max_wait_time = Some(limit);
                self
            }

            /// Sets the longest wait at an open circuit breaker, and for a token of the retry budget,
            /// each time the request meets one. Zero rejects at once. Default: 2 s, or half the
            /// attempt timeout if that is less.
            ///
            /// A request that the breaker would reject for longer is rejected at once. If the probe
            /// that it waits for fails, that costs it a retry. A breaker that is forced open makes no
            /// request wait.
            ///
            /// Without a wait a host that is down for a second costs every request that comes in
            /// that time; with a long one the requests of a whole outage return at once.
            pub fn max_open_wait(mut self, limit: Duration) -> Self {
                self.patch().max_open_wait = Some(limit);
                self
            }

            /// Sets what becomes of a wait that the server asked for. Default: [`RetryAfter::Floor`].
            pub fn retry_after(mut self, retry_after: RetryAfter) -> Self {
                self.patch().retry_after = Some(retry_after);
                self
            }

            /// The headers by which a server may ask to wait. Default: all that are known, in any
            /// form that servers write.
            pub fn hint_headers(mut self, headers: HintHeaders) -> Self {
                self.patch().hints = Some(Arc::new(headers));
                self
            }

            /// Finds by a function when to retry, where no header says so: in the body, as a rule,
            /// which [`read_body`](Self::read_body) has to make available. `None` leaves it to the
            /// headers. Default: no function.
            ///
            /// Called once for each attempt that may be retried. A panic in it is the caller's.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// use reqwest_resilient::ResilientConfig;
            ///
            /// // As Telegram writes it: {"ok":false,"parameters":{"retry_after":35}}
            /// fn seconds(body: &[u8]) -> Option<u64> {
            ///     let (_, rest) = std::str::from_utf8(body).ok()?.split_once("\"retry_after\":")?;
            ///     rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
            /// }
            ///
            /// let config = ResilientConfig::builder()
            ///     .read_body(64 * 1024)
            ///     .hint_from(|outcome| seconds(outcome.body()?).map(Duration::from_secs))
            ///     .build()?;
            /// # Ok::<_, reqwest_resilient::ConfigError>(())
            /// ```
            pub fn hint_from(
                mut self,
                find: impl Fn(&Outcome<'_>) -> Option<Duration> + Send + Sync + 'static,
            ) -> Self {
                self.patch().hint_from = Some(Some(Arc::new(find)));
                self
            }

            /// Leaves it to the headers again.
            pub fn without_hint_from(mut self) -> Self {
                self.patch().hint_from = Some(None);
                self
            }

            /// Reads response bodies of up to `limit` bytes within the attempt: a body that
            /// breaks off is then retried like any failure, and
            /// [`Outcome::body`](crate::Outcome::body) shows it to [`retry_if`](Self::retry_if).
            /// Longer bodies are passed on unread. Default: off; bodies are streamed.
            pub fn read_body(mut self, limit: usize) -> Self {
                self.patch().read_body = Some(Some(limit));
                self
            }

            /// Streams response bodies.
            pub fn without_read_body(mut self) -> Self {
                self.patch().read_body = Some(None);
                self
            }

            /// Adds a key to requests whose method is not idempotent, by which their server
            /// recognises a repeat: see [`IdempotencyKey`]. Default: none is added.
            pub fn idempotency_key(mut self, key: IdempotencyKey) -> Self {
                self.patch().idempotency_key = Some(Some(key));
                self
            }

            /// Adds no key.
            pub fn without_idempotency_key(mut self) -> Self {
                self.patch().idempotency_key = Some(None);
                self
            }

            /// Tells the server how long its answer is waited for: see [`DeadlineHeader`].
            /// Default: it is not told.
            pub fn deadline_header(mut self, header: DeadlineHeader) -> Self {
                self.patch().deadline_header = Some(Some(header));
                self
            }

            /// Does not tell the server how long its answer is waited for.
            pub fn without_deadline_header(mut self) -> Self {
                self.patch().deadline_header = Some(None);
                self
            }

            /// Tells the server in this header which attempt it sees, counted from 1. Default: it
            /// is not told.
            pub fn attempt_header(mut self, name: HeaderName) -> Self {
                self.patch().attempt_header = Some(Some(name));
                self
            }

            /// Does not tell the server which attempt it sees.
            pub fn without_attempt_header(mut self) -> Self {
                self.patch().attempt_header = Some(None);
                self
            }

            /// Sets the rules of the circuit breakers that are asked before every attempt: a
            /// [`BreakerConfig`](crate::BreakerConfig) for one a host, other
            /// [`CircuitBreakers`](crate::CircuitBreakers), or a
            /// [`CircuitBreaker`](crate::CircuitBreaker) of the caller's own. Default: one per
            /// host, with the default rule of [`BreakerConfig`](crate::BreakerConfig).
            pub fn circuit_breaker(mut self, breaker: impl Into<CircuitBreakers>) -> Self {
                self.patch().breaker = Some(Some(breaker.into()));
                self
            }

            /// Asks no circuit breaker.
            pub fn without_circuit_breaker(mut self) -> Self {
                self.patch().breaker = Some(None);
                self
            }

            /// Decides what an outcome says to the circuit breaker, `None` for nothing. Default:
            /// what would be retried and every 5xx is a failure, 429 is throttling, any other
            /// answer a success, and errors that are not the service's say nothing.
            pub fn breaker_health(
                mut self,
                judge: impl Fn(&Outcome<'_>) -> Option<Health> + Send + Sync + 'static,
            ) -> Self {
                self.patch().breaker_health = Some(Some(Arc::new(judge)));
                self
            }

            /// Sets the rules of the budget that pays for retries: a
            /// [`BudgetConfig`](crate::BudgetConfig) for one bucket a host, or another
            /// [`RetryBudget`]. Default: one bucket a host, which begins with 20 retries; a retry
            /// that succeeds pays for three more, ten other successes for one.
            pub fn retry_budget(mut self, budget: impl Into<RetryBudget>) -> Self {
                self.patch().budget = Some(Some(budget.into()));
                self
            }

            /// Retries without a budget.
            pub fn without_retry_budget(mut self) -> Self {
                self.patch().budget = Some(None);
                self
            }

            /// Delays all requests to a host after a 429, a 403 that is a rate limit, or a 503 or
            /// 529 with a retry hint: those with the same `Authorization`. A 429 without a hint
            /// counts as one second, doubling to 30 s. Default: on.
            ///
            /// Requests that cannot wait that long end at once with an error that says when; the
            /// others go like slow start, oldest first. At most 10,000 wait at a gate.
            pub fn gate(mut self) -> Self {
                self.patch().gate = Some(Some(GateKey::default()));
                self
            }

            /// Switches the [gate](Self::gate) on and keeps one for each key that `key_of` finds in
            /// the requests to a host, such as a route, in place of one for each `Authorization`.
            /// At most 64 gates a host.
            ///
            /// The key is asked for while a gate of the host is closed, when a response may close one,
            /// and before an attempt that no retry can follow. A panic in `key_of` is the caller's.
            ///
            /// # Examples
            ///
            /// ```
            /// use http::header::AUTHORIZATION;
            /// use reqwest_resilient::ResilientConfig;
            ///
            /// // A limit on searches stops no other request, and no other tenant.
            /// let config = ResilientConfig::builder()
            ///     .gate_per_key(|request| {
            ///         let route = request.url().path_segments().and_then(|mut it| it.next());
            ///         format!("{route:?} {:?}", request.headers().get(AUTHORIZATION))
            ///     })
            ///     .build()?;
            /// # Ok::<(), reqwest_resilient::ConfigError>(())
            /// ```
            pub fn gate_per_key(
                mut self,
                key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
            ) -> Self {
                self.patch().gate = Some(Some(GateKey::Own(Arc::new(key_of))));
                self
            }

            /// Delays no request because of what another one was told.
            pub fn without_gate(mut self) -> Self {
                self.patch().gate = Some(None);
                self
            }

            /// Hides what is secret in the path of a URL wherever this crate shows one: errors,
            /// events, spans, logs. Userinfo, query and fragment are never shown. Default: paths
            /// are shown as they are.
            ///
            /// ```
            /// use reqwest_resilient::ResilientConfig;
            ///
            /// // Telegram's token is in the path: /bot123456:ABC/sendMessage
            /// let config = ResilientConfig::builder()
            ///     .redact_path(|path| match path.split_once("/bot") {
            ///         Some((_, rest)) => format!("/bot…/{}", rest.rsplit('/').next().unwrap_or("")),
            ///         None => path.to_owned(),
            ///     })
            ///     .build()?;
            /// # Ok::<_, reqwest_resilient::ConfigError>(())
            /// ```
            pub fn redact_path(
                mut self,
                redact: impl Fn(&str) -> String + Send + Sync + 'static,
            ) -> Self {
                self.patch().redact_path = Some(Some(PathRedactor::new(redact)));
                self
            }

            /// Shows paths as they are.
            pub fn without_redact_path(mut self) -> Self {
                self.patch().redact_path = Some(None);
                self
            }

            /// Called before each attempt. A panic in a callback is caught and changes nothing.
            pub fn on_request(
                mut self,
                callback: impl Fn(&RequestInfo<'_>) + Send + Sync + 'static,
            ) -> Self {
                self.patch().listeners.on_request = Some(Arc::new(callback));
                self
            }

            /// Called before each wait for another attempt.
            pub fn on_retry(
                mut self,
                callback: impl Fn(&RetryInfo<'_>) + Send + Sync + 'static,
            ) -> Self {
                self.patch().listeners.on_retry = Some(Arc::new(callback));
                self
            }

            /// Called once a request has succeeded.
            pub fn on_success(
                mut self,
                callback: impl Fn(&ResponseInfo<'_>) + Send + Sync + 'static,
            ) -> Self {
                self.patch().listeners.on_success = Some(Arc::new(callback));
                self
            }

            /// Called once a request has ended without success: every request ends in exactly one
            /// of `on_success` and `on_failure`, unless its future is dropped.
            pub fn on_failure(
                mut self,
                callback: impl Fn(&FailureInfo<'_>) + Send + Sync + 'static,
            ) -> Self {
                self.patch().listeners.on_failure = Some(Arc::new(callback));
                self
            }

            /// Adds an observer of every [`Event`](crate::Event), besides those there are.
            pub fn observer(mut self, observer: impl Observer) -> Self {
                self.patch().listeners.observers.push(Arc::new(observer));
                self
            }

            /// Where jitter draws from: samples of the unit interval. For tests and simulations.
            #[cfg(feature = "test-util")]
            pub fn random(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
                self.patch().sources.random = Some(Arc::new(random));
                self
            }

            /// The wall clock by which HTTP-dates are read. For tests and simulations.
            #[cfg(feature = "test-util")]
            pub fn wall_clock(
                mut self,
                clock: impl Fn() -> std::time::SystemTime + Send + Sync + 'static,
            ) -> Self {
                self.patch().sources.wall_clock = Some(Arc::new(clock));
                self
            }
        }
    };
}

settings!(ResilientConfigBuilder);
settings!(RetryOverride);
