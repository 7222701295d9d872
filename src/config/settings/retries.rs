//! Setters: what is retried, and after which wait.

use std::{sync::Arc, time::Duration};

use crate::config::ResilientConfigBuilder;
use crate::config::overrides::RetryOverride;
use crate::config::policy::{RetryAfter, Setting};
use crate::outcome::Outcome;
use crate::outcome::classify::RetryMethods;
use crate::outcome::hint::HintHeaders;
use crate::outcome::statuses::Statuses;
use crate::outcome::verdict::RetryVerdict;
use crate::retry::backoff::{Backoff, Jitter};

setters! {
    /// Sets the most retries after the first attempt: `attempts <= retries + 1`. Default: 3,
    /// so four attempts in all. In a [`RetryOverride`](crate::RetryOverride) of a request or a
    /// scope it also lets retries take the balance of the [budget](crate::BudgetConfig) down to
    /// `-retries`; in the settings of a [host](crate::ResilientConfigBuilder::host) it does not.
    fn max_retries(retries: u32) => set(Setting::MaxRetries(retries));

    /// Sets the delay before each retry. Default: exponential from 300 ms, at most 20 s; from 1 s
    /// after a 429 or a 403 that is a rate limit, where no [gate](Self::gate) is closed by
    /// it. A backoff that is set serves rate limits, too.
    fn backoff(backoff: impl Backoff) => set(Setting::Backoff(Arc::new(backoff)));

    /// Finds by a function the delay after an outcome, before jitter; the number is that of the
    /// retry, counted from 0. `None` leaves it to the [backoff](Self::backoff). Default: no function.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reqwest_resilient::ResilientConfig;
    ///
    /// // A refused connection is tried again sooner than anything else.
    /// let config = ResilientConfig::builder()
    ///     .backoff_from(|outcome, _| outcome.is_connect().then_some(Duration::from_millis(50)))
    ///     .build()?;
    /// # Ok::<(), reqwest_resilient::ConfigError>(())
    /// ```
    fn backoff_from(
        find: impl Fn(&Outcome<'_>, u32) -> Option<Duration> + Send + Sync + 'static
    ) => set(Setting::BackoffFrom(Some(Arc::new(find))));

    /// Leaves delays to the backoff again.
    fn without_backoff_from() => set(Setting::BackoffFrom(None));

    /// Sets how delays are spread. Default: [`Jitter::Full`].
    fn jitter(jitter: Jitter) => set(Setting::Jitter(jitter));

    /// Sets the statuses that are retried, in place of the default 408, 425, 429, 500, 502,
    /// 503 and 504 (and 403 where it tells of an exhausted rate limit, as GitHub's does,
    /// and 413, 529 and 530 where the response says when to retry).
    /// Statuses below 400 are honoured too.
    ///
    /// [`Statuses`] are numbers, ranges, and lists and tuples of them.
    fn retry_statuses(
        statuses: impl Into<Statuses>
    ) => set(Setting::RetryStatuses(statuses.into()));

    /// Sets the statuses by which a server says that it did not process the request, in
    /// place of the default 425 and 429 (and 403 where it tells of an exhausted rate
    /// limit). A POST is sent again after these alone, and only if they are retried.
    ///
    /// A convention, which no RFC demands: add 503, 529 or 401 for a server that keeps to
    /// it. A proxy may respond with 503 although the server behind it did the work.
    fn refused_statuses(
        statuses: impl Into<Statuses>
    ) => set(Setting::RefusedStatuses(statuses.into()));

    /// Decides by a function what is retried, in place of the statuses and of what is known about
    /// errors, for responses below 400 too. Asked once per attempt. It returns a `bool` or a
    /// [`RetryVerdict`], such as the [default one](crate::Outcome::default_verdict).
    ///
    /// Requests that are not safe to repeat are still not repeated, unless it says that they were
    /// not processed; see [`retry_methods`](Self::retry_methods). A panic in it is the caller's.
    fn retry_if<V: Into<RetryVerdict>>(
        judge: impl Fn(&Outcome<'_>) -> V + Send + Sync + 'static
    ) => set(Setting::RetryIf(Some(Arc::new(move |it: &Outcome<'_>| judge(it).into()))));

    /// Decides by the statuses again.
    fn without_retry_if() => set(Setting::RetryIf(None));

    /// Sets the methods that may be sent again after they may have been processed. Default:
    /// the idempotent ones, because a second POST may charge a card twice.
    fn retry_methods(methods: RetryMethods) => set(Setting::RetryMethods(methods));

    /// Sets what becomes of a wait that the server asked for. Default: [`RetryAfter::Floor`].
    fn retry_after(retry_after: RetryAfter) => set(Setting::RetryAfter(retry_after));

    /// Sets the headers by which a server may ask to wait. Default: all that are known, in any
    /// form that servers write.
    fn hint_headers(headers: HintHeaders) => set(Setting::HintHeaders(Arc::new(headers)));

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
    fn hint_from(
        find: impl Fn(&Outcome<'_>) -> Option<Duration> + Send + Sync + 'static
    ) => set(Setting::HintFrom(Some(Arc::new(find))));

    /// Leaves it to the headers again.
    fn without_hint_from() => set(Setting::HintFrom(None));
}
