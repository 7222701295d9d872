//! Setters: the state of hosts, and how URLs are shown.

use std::sync::Arc;

use reqwest::Request;

use crate::breaker::{CircuitBreakers, Health};
use crate::common::path_redactor::PathRedactor;
use crate::config::ResilientConfigBuilder;
use crate::config::overrides::RetryOverride;
use crate::config::policy::Setting;
use crate::host::gate::GateKey;
use crate::host::hedge::Hedge;
use crate::host::limit::ConcurrencyLimit;
use crate::host::mirrors::MirrorSets;
use crate::host::rate::RateLimit;
use crate::outcome::Outcome;
use crate::retry::budget::RetryBudget;

setters! {
    /// Sets the rules of the circuit breakers that are asked before every attempt: a
    /// [`BreakerConfig`](crate::BreakerConfig) for one a host, other
    /// [`CircuitBreakers`](crate::CircuitBreakers), or a
    /// [`CircuitBreaker`](crate::CircuitBreaker) of the caller's own. Default: one per
    /// host, with the default rule of [`BreakerConfig`](crate::BreakerConfig).
    fn circuit_breaker(
        breaker: impl Into<CircuitBreakers>
    ) => set(Setting::CircuitBreaker(Some(breaker.into())));

    /// Asks no circuit breaker.
    fn without_circuit_breaker() => set(Setting::CircuitBreaker(None));

    /// Decides what an outcome says to the circuit breaker, `None` for nothing. Default:
    /// what would be retried without [`retry_if`](Self::retry_if), and every 408 and 5xx, is a
    /// failure, 429 and a 403 that is a rate limit are throttling, any other response a success,
    /// and errors that are not the service's say nothing.
    fn breaker_health(
        judge: impl Fn(&Outcome<'_>) -> Option<Health> + Send + Sync + 'static
    ) => set(Setting::BreakerHealth(Some(Arc::new(judge))));

    /// Sets the rules of the budget that pays for retries: a
    /// [`BudgetConfig`](crate::BudgetConfig) for one bucket a host, or another
    /// [`RetryBudget`]. Default: one bucket a host, which begins with 10 retries; a retry
    /// that succeeds pays for three more, any other success for 0.01; one after a timeout costs up
    /// to five.
    fn retry_budget(
        budget: impl Into<RetryBudget>
    ) => set(Setting::RetryBudget(Some(budget.into())));

    /// Retries without a budget.
    fn without_retry_budget() => set(Setting::RetryBudget(None));

    /// Delays all requests to a host after a 429, a 403 that is a rate limit, or a 503 or
    /// 529 with a retry hint: those with the same `Authorization`. A 429 without a hint
    /// counts as one second, doubling to 30 s. Default: on.
    ///
    /// Requests that cannot wait that long end at once with an error that says when; the
    /// others go like slow start, oldest first. At most 10,000 wait at a gate.
    fn gate() => set(Setting::Gate(Some(GateKey::default())));

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
    fn gate_per_key(
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static
    ) => set(Setting::Gate(Some(GateKey::Own(Arc::new(key_of)))));

    /// Switches the gate off.
    fn without_gate() => set(Setting::Gate(None));

    /// Limits the requests to a host that are under way at a time: a [`Limit`](crate::Limit) for one
    /// of each host, or another [`ConcurrencyLimit`](crate::ConcurrencyLimit). Default: none.
    ///
    /// Requests without a permit wait, at most
    /// [`max_queue_time`](crate::ConcurrencyLimit::max_queue_time). A permit is held to the end of
    /// the response's body.
    fn concurrency_limit(
        limit: impl Into<ConcurrencyLimit>
    ) => set(Setting::ConcurrencyLimit(Some(limit.into())));

    /// Lets any number of requests be under way.
    fn without_concurrency_limit() => set(Setting::ConcurrencyLimit(None));

    /// Limits the requests to a host per time: a [`Rate`](crate::Rate) for one of each host, or
    /// another [`RateLimit`](crate::RateLimit). Default: none.
    ///
    /// Each attempt takes a slot; requests wait for theirs in order of arrival, at most
    /// [`max_wait`](crate::RateLimit::max_wait).
    fn rate_limit(limit: impl Into<RateLimit>) => set(Setting::RateLimit(Some(limit.into())));

    /// Sends requests at any rate.
    fn without_rate_limit() => set(Setting::RateLimit(None));

    /// Sends another attempt beside one that is slow, and returns the first good response; see
    /// [`Hedge`]. Default: off.
    fn hedge(hedge: Hedge) => set(Setting::Hedge(Some(hedge)));

    /// Sends no hedges.
    fn without_hedge() => set(Setting::Hedge(None));

    /// Sends requests under a base URL to one of several endpoints: [`Mirrors`](crate::Mirrors), or
    /// several sets of them. Replaces all sets that were set before. Default: none.
    ///
    /// # Examples
    ///
    /// ```
    /// use reqwest_resilient::{Mirrors, ResilientConfig};
    ///
    /// let config = ResilientConfig::builder()
    ///     .mirrors(Mirrors::new("https://pypi.org/simple/").also("https://pypi.example.com/simple/"))
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    fn mirrors(mirrors: impl Into<MirrorSets>) => set(Setting::Mirrors(Some(mirrors.into())));

    /// Sends requests where their URL says.
    fn without_mirrors() => set(Setting::Mirrors(None));

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
    fn redact_path(
        redact: impl Fn(&str) -> String + Send + Sync + 'static
    ) => set(Setting::RedactPath(Some(PathRedactor::new(redact))));

    /// Shows paths as they are.
    fn without_redact_path() => set(Setting::RedactPath(None));
}
