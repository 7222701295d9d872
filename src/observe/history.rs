//! The history of a request, attempt by attempt.

use std::{fmt, time::Duration};

use http::StatusCode;
use reqwest::Url;

use crate::common::sealed::Sealed;
use crate::host::mirrors::GivenBy;
use crate::outcome::{AttemptKind, Delivery, FailureKind, Heard, Outcome};
use crate::retry::decision::{StopReason, WaitSource};

/// The most attempts a history keeps; of a longer request it keeps the last ones.
const LONGEST: usize = 64;

/// One attempt of a request.
///
/// # Examples
///
/// ```
/// # fn example(error: reqwest_resilient::HttpRequestError) {
/// for attempt in error.history().attempts() {
///     // #2 +0.412s 1.003s timeout (maybe processed), then 0.600s by backoff
///     println!("{attempt}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, counted from 1; hedges count too.
    pub number: u32,
    /// The reason why it was sent.
    pub kind: AttemptKind,
    /// The time of its start, from the start of the request.
    pub started: Duration,
    /// The duration, up to the response head or the failure.
    pub duration: Duration,
    /// The result: a status, or the kind of failure.
    pub result: Result<StatusCode, FailureKind>,
    /// The progress of the request.
    pub delivery: Delivery,
    /// The host of the endpoint that was asked, if it is not that of the request's own URL; only with
    /// [`Mirrors`](crate::Mirrors).
    pub host: Option<String>,
    /// The host that responded, if it is not the one that was asked (after a redirect); with its
    /// port unless that is the scheme's own.
    pub responded_by: Option<String>,
    /// The wait that followed, and the source of its length; `None` after the last attempt.
    pub wait: Option<(Duration, WaitSource)>,
}

impl Attempt {
    pub(crate) fn new(outcome: &Outcome<'_>, ended: Duration) -> Self {
        Self {
            number: outcome.attempt,
            kind: outcome.kind,
            started: ended.saturating_sub(outcome.elapsed),
            duration: outcome.elapsed,
            result: match (outcome.status(), outcome.failure()) {
                (Some(status), _) => Ok(status),
                (None, failure) => Err(failure.unwrap_or(FailureKind::Other)),
            },
            delivery: outcome.delivery(),
            host: None,
            responded_by: outcome.cross_host_url().and_then(server_of),
            wait: None,
        }
    }

    /// Builds the record of a first attempt that succeeded; `by` is another host that responded.
    pub(crate) fn succeeded(status: StatusCode, duration: Duration, by: Option<String>) -> Self {
        Self {
            number: 1,
            kind: AttemptKind::First,
            started: Duration::ZERO,
            duration,
            result: Ok(status),
            delivery: Delivery::Responded,
            host: None,
            responded_by: by,
            wait: None,
        }
    }
}

/// Returns the host of a URL, with its port unless that is the scheme's own.
pub(crate) fn server_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// `#2 +0.412s 1.003s timeout (maybe processed), then 0.600s by backoff`
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (started, duration) = (self.started.as_secs_f64(), self.duration.as_secs_f64());
        write!(f, "#{} +{started:.3}s {duration:.3}s ", self.number)?;
        match self.result {
            Ok(status) => write!(f, "status {}", status.as_u16())?,
            Err(kind) => write!(f, "{kind} ({})", self.delivery)?,
        }
        if let Some(host) = &self.host {
            write!(f, " at {host}")?;
        }
        if let Some(host) = &self.responded_by {
            write!(f, " from {host}")?;
        }
        if self.kind == AttemptKind::Hedge {
            f.write_str(", hedge")?;
        }
        then(f, self.wait.as_ref())
    }
}

/// A moment at which the circuit breaker, the gate of the host, the retry budget or a limit of the
/// client held a request back or ended it.
///
/// # Examples
///
/// ```
/// # fn example(error: reqwest_resilient::HttpRequestError) {
/// // -- +0.412s circuit_open, then 0.600s by circuit breaker
/// for hold in error.history().holds() {
///     println!("{hold}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// The number of attempts before.
    pub attempts: u32,
    /// The time, from the start of the request.
    pub at: Duration,
    /// The stop reason, if the request does not wait or waits in vain: [`StopReason::CircuitOpen`],
    /// [`StopReason::RateLimited`], [`StopReason::Limited`] or [`StopReason::Budget`].
    pub by: StopReason,
    /// `true` if the [fleet](crate::fleet) did, by what other processes found, and not this client.
    pub by_fleet: bool,
    /// The wait that followed; `None` if the request ended here.
    pub wait: Option<(Duration, WaitSource)>,
}

/// `-- +0.412s circuit_open, then 0.600s by circuit breaker`
impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-- +{:.3}s {}", self.at.as_secs_f64(), self.by)?;
        if self.by_fleet {
            f.write_str(" by the fleet")?;
        }
        then(f, self.wait.as_ref())
    }
}

/// What holds a request back or ends it, and whether it does so on the word of the fleet.
pub(crate) type Holder = (StopReason, bool);

fn then(f: &mut fmt::Formatter<'_>, wait: Option<&(Duration, WaitSource)>) -> fmt::Result {
    match wait {
        Some((wait, source)) => write!(f, ", then {:.3}s by {source}", wait.as_secs_f64()),
        None => Ok(()),
    }
}

/// All attempts and holds of one request. Keeps the last 64 of each.
///
/// `Display` is a timeline:
///
/// ```text
/// -- +0.000s rate_limited, then 1.250s by gate
/// #1 +1.250s 0.080s status 503, then 2.000s by retry-after
/// #2 +3.330s 0.500s timeout (maybe processed), then 0.412s by backoff
/// -- +4.242s circuit_open, then 1.100s by circuit breaker
/// #3 +5.342s 0.071s status 200
/// ended: success
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    attempts: Vec<Attempt>,
    holds: Vec<Hold>,
    total: u32,
    stop: Option<StopReason>,
    maybe_applied: bool,
    /// Set if the last result is a hedge's.
    hedge_won: bool,
    last: Heard,
}

impl History {
    /// Returns the attempts that are kept, oldest first.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Returns the holds that are kept, oldest first.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// Returns the number of attempts, those not kept and hedges included.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Returns whether the server may have applied an attempt that failed and was retried. Only for
    /// methods that change something.
    pub fn may_have_been_applied(&self) -> bool {
        self.maybe_applied
    }

    /// Returns why the request ended; `None` while it runs.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Returns whether a [hedge](crate::Hedge) won: the result is its own, and came before that of the
    /// attempt beside it.
    pub fn hedge_won(&self) -> bool {
        self.hedge_won
    }

    /// Returns the retry hint of the last response, counted from its arrival, as
    /// [`HintHeaders`](crate::HintHeaders) or
    /// [`hint_from`](crate::ResilientConfigBuilder::hint_from) found it.
    ///
    /// Includes a hint that was too long for this request, or ignored.
    pub fn retry_in(&self) -> Option<Duration> {
        self.last.retry_in
    }

    /// Returns whether the last response reports too many requests: a 429, or a 403 with a rate
    /// limit.
    pub fn is_rate_limited(&self) -> bool {
        self.last.rate_limited
    }

    /// Builds the history of a request whose first attempt succeeded.
    pub(crate) fn of_success(attempt: Attempt, heard: Heard) -> Self {
        let mut history = Self::default();
        history.push(attempt, heard);
        history.end(StopReason::Success);
        history
    }

    pub(crate) fn push(&mut self, attempt: Attempt, heard: Heard) {
        self.last = heard;
        self.hedge_won = attempt.kind == AttemptKind::Hedge;
        self.push_superseded(attempt);
    }

    /// Adds an attempt in the order of their numbers: alone, one whose result does not count, as it
    /// lost a race.
    pub(crate) fn push_superseded(&mut self, attempt: Attempt) {
        self.total = self.total.max(attempt.number);
        push(&mut self.attempts, attempt);
        let Some((new, before)) = self.attempts.split_last() else { return };
        let at = before.partition_point(|it| it.number <= new.number);
        self.attempts[at..].rotate_right(1);
    }

    pub(crate) fn hold(&mut self, hold: Hold) {
        push(&mut self.holds, hold);
    }

    /// Records the wait after the last attempt.
    pub(crate) fn waits(&mut self, wait: Duration, source: &WaitSource) {
        if let Some(last) = self.attempts.last_mut() {
            last.wait = Some((wait, source.clone()));
        }
    }

    /// Records that the attempt that is retried may have been applied.
    pub(crate) fn note_maybe_applied(&mut self) {
        self.maybe_applied = true;
    }

    pub(crate) fn end(&mut self, stop: StopReason) {
        self.stop = Some(stop);
    }
}

fn push<T>(kept: &mut Vec<T>, new: T) {
    if kept.len() == LONGEST {
        kept.remove(0);
    }
    if kept.is_empty() {
        // Most requests have one or two.
        kept.reserve_exact(1);
    }
    kept.push(new);
}

/// A timeline: one line per attempt, and one per hold.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut holds = self.holds.iter().peekable();
        for attempt in &self.attempts {
            while let Some(hold) = holds.next_if(|it| it.attempts < attempt.number) {
                writeln!(f, "{hold}")?;
            }
            writeln!(f, "{attempt}")?;
        }
        for hold in holds {
            writeln!(f, "{hold}")?;
        }
        match self.stop {
            Some(stop) => write!(f, "ended: {stop}"),
            None => f.write_str("under way"),
        }
    }
}

/// The data that [`Resilient`](crate::Resilient) attaches to a response.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), reqwest_middleware::Error> {
/// use reqwest_resilient::ResponseExt;
///
/// let response = client.get("https://example.com/").send().await?;
/// println!("{} after {} attempts", response.status(), response.attempts());
/// # Ok(()) }
/// ```
pub trait ResponseExt: Sealed {
    /// Returns the number of attempts, hedges included.
    fn attempts(&self) -> u32;

    /// Returns whether a [hedge](crate::Hedge) won: this is its response, and came before that of the
    /// attempt beside it.
    fn hedge_won(&self) -> bool;

    /// Returns the history of the request. `None` if the first attempt succeeded: such a request
    /// keeps none, to save its cost. An [`AttemptLog`](crate::AttemptLog) is always kept.
    fn history(&self) -> Option<&History>;

    /// Returns the time until another request, if this response named one.
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_middleware::Error> {
    /// use reqwest_resilient::ResponseExt;
    ///
    /// let response = client.get("https://example.com").send().await?;
    /// if let Some(wait) = response.retry_in() {
    ///     println!("retry in {wait:?}, limited: {}", response.is_rate_limited());
    /// }
    /// # Ok(()) }
    /// ```
    fn retry_in(&self) -> Option<Duration>;

    /// Returns whether this response reports too many requests: a 429, or a 403 with a rate limit.
    fn is_rate_limited(&self) -> bool;

    /// Returns the base URL of the endpoint that gave this response, of those that
    /// [`Mirrors`](crate::Mirrors) name; `None` without them.
    fn endpoint(&self) -> Option<&Url>;
}

impl ResponseExt for reqwest::Response {
    fn attempts(&self) -> u32 {
        self.history().map_or(1, History::total)
    }

    fn hedge_won(&self) -> bool {
        self.history().is_some_and(History::hedge_won)
    }

    fn history(&self) -> Option<&History> {
        self.extensions().get()
    }

    fn retry_in(&self) -> Option<Duration> {
        self.history()?.retry_in()
    }

    fn is_rate_limited(&self) -> bool {
        self.history().is_some_and(History::is_rate_limited)
    }

    fn endpoint(&self) -> Option<&Url> {
        self.extensions().get().map(|GivenBy(endpoint)| endpoint.url())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, header};

    use super::*;
    use crate::outcome::{Failure, OutcomeResult};

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(number: u32, result: OutcomeResult<'_>) -> Attempt {
        let url = &Url::parse("http://a.example/").unwrap();
        let (method, elapsed) = (&Method::GET, SECOND / 4);
        let outcome = Outcome { attempt: number, elapsed, ..Outcome::new(method, url, result) };
        Attempt::new(&outcome, number * SECOND)
    }

    fn responded(number: u32, status: StatusCode, by: &str) -> Attempt {
        let (url, headers) = (&Url::parse(by).unwrap(), &HeaderMap::new());
        attempt(
            number,
            OutcomeResult::Response { status, headers, url, body: None, redirected: false },
        )
    }

    fn timed_out(number: u32) -> Attempt {
        let failure = Failure::new(FailureKind::Timeout, Delivery::MaybeProcessed);
        attempt(number, OutcomeResult::Failure(failure, &fmt::Error))
    }

    fn held(attempts: u32, by: StopReason) -> Hold {
        Hold { attempts, at: attempts * SECOND, by, by_fleet: false, wait: None }
    }

    #[test]
    fn a_history_is_a_timeline() {
        let mut history = History::default();
        assert_eq!(history.to_string(), "under way");
        let wait = Some((SECOND / 2, WaitSource::Gate));
        history.hold(Hold { wait, ..held(0, StopReason::RateLimited) });
        history.push(
            responded(1, StatusCode::SERVICE_UNAVAILABLE, "http://b.example:81/"),
            Heard::default(),
        );
        history.waits(SECOND * 3 / 2, &WaitSource::Hint(header::RETRY_AFTER));
        history.hold(held(1, StopReason::CircuitOpen));
        history.push(responded(2, StatusCode::BAD_GATEWAY, "https://c.example/"), Heard::default());
        history.push(timed_out(3), Heard::default());
        history.hold(Hold { by_fleet: true, ..held(3, StopReason::CircuitOpen) });
        history.end(StopReason::CircuitOpen);
        let lines = [
            "-- +0.000s rate_limited, then 0.500s by gate",
            "#1 +0.750s 0.250s status 503 from b.example:81, then 1.500s by retry-after",
            "-- +1.000s circuit_open",
            "#2 +1.750s 0.250s status 502 from c.example",
            "#3 +2.750s 0.250s timeout (maybe processed)",
            "-- +3.000s circuit_open by the fleet",
            "ended: circuit_open",
        ];
        assert_eq!(history.to_string(), lines.join("\n"));
        assert_eq!(history.stop_reason(), Some(StopReason::CircuitOpen));
        assert_eq!(history.holds().len(), 3);
    }

    #[test]
    fn a_history_keeps_the_last_attempts_and_counts_all() {
        let mut history = History::default();
        for number in 1..=65 {
            history.push(timed_out(number), Heard::default());
        }
        let kept: Vec<_> = history.attempts().iter().map(|it| it.number).collect();
        assert_eq!(kept, (2..=65).collect::<Vec<_>>());
        assert_eq!(history.total(), 65);
    }

    #[test]
    fn a_response_without_a_history_took_one_attempt() {
        let mut response = reqwest::Response::from(http::Response::new(""));
        assert_eq!((response.attempts(), response.history()), (1, None));
        assert_eq!((response.retry_in(), response.is_rate_limited()), (None, false));
        let mut history = History::default();
        let heard = Heard { retry_in: Some(SECOND), rate_limited: true };
        history.push(timed_out(3), heard);
        response.extensions_mut().insert(history.clone());
        assert_eq!((response.attempts(), response.history()), (3, Some(&history)));
        assert_eq!((response.retry_in(), response.is_rate_limited()), (Some(SECOND), true));
    }
}
