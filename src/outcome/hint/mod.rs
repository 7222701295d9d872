//! Retry hints of servers: when to retry, and whether at all.

mod date;
mod headers;
mod number;
mod quota;
mod quotas;
mod value;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};

pub use self::headers::{HintFormat, HintHeaders};
pub(crate) use self::quotas::{QuotaUse, quotas};
use self::{
    date::http_date,
    headers::{Quota, Role},
    value::{Unit, When},
};

/// Everything a response head says about retries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// The time until a retry, if the server named one.
    pub(crate) hint: Option<Hint>,
    /// The server's wish for or against a retry.
    pub(crate) directive: RetryDirective,
    /// `true` if there were too many requests: a 429, or a 403 with a limit as GitHub sends it.
    pub(crate) rate_limited: bool,
    /// `true` if the caller's own verdict says that the request was not processed.
    pub(crate) not_processed: bool,
}

/// A time to wait, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// The time to wait, from the arrival of the response head on; may be as long as
    /// [`Duration::MAX`].
    pub(crate) after: Duration,
    /// The header it was read from; `None` if the caller's own function found it.
    pub(crate) header: Option<HeaderName>,
    /// `true` if it asks for this request again; `false` if it only announces a quota's refill.
    pub(crate) asks: bool,
}

/// The server's directive for or against a retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RetryDirective {
    /// It asks for a retry, whatever the status says.
    Retry,
    /// It does not say.
    #[default]
    Unspecified,
    /// It asks for no retry, by this header.
    DoNotRetry(HeaderName),
}

impl Advice {
    /// Replaces the hint of the headers by `after`, which the caller's own function found.
    pub(crate) fn with_found(mut self, status: Option<StatusCode>, after: Duration) -> Self {
        self.hint = Some(Hint { after, header: None, asks: true });
        self.rate_limited |= status == Some(StatusCode::FORBIDDEN);
        self
    }
}

/// Reads what a response head says about retries; see [`HintHeaders`] for the rules.
///
/// `now` reads the client's wall clock, for dates in responses without a `Date` of their own.
pub(crate) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    listened_to: &HintHeaders,
    now: impl FnOnce() -> SystemTime,
) -> Advice {
    let throttled = status == StatusCode::TOO_MANY_REQUESTS;
    let mut roles = headers.keys().filter_map(|it| Some((it, listened_to.role(it)?))).peekable();
    if roles.peek().is_none() {
        return Advice { rate_limited: throttled, ..Advice::default() };
    }
    let mut reader = Reader::new(headers, listened_to, now(), throttled);
    roles.for_each(|(header, (role, own))| reader.hear(header, role, own));
    let hint = reader.best.into_iter().flatten().next();
    let directive = match (reader.directive, reader.soft_veto) {
        (RetryDirective::Retry | RetryDirective::Unspecified, Some(header)) if hint.is_none() => {
            RetryDirective::DoNotRetry(header)
        }
        (directive, _) => directive,
    };
    let limited_403 = status == StatusCode::FORBIDDEN && (hint.is_some() || reader.exhausted);
    let rate_limited = reader.throttled || limited_403;
    Advice { hint, directive, rate_limited, not_processed: false }
}

/// Ranks of hints, by precedence: the first present one counts.
const OWN: usize = 0;
const MILLIS: usize = 1;
const WAIT: usize = 2;
const EXHAUSTED: usize = 3;
const ANY_RESET: usize = 4;
const RANKS: usize = 5;

struct Reader<'a> {
    headers: &'a HeaderMap,
    listened_to: &'a HintHeaders,
    now: SystemTime,
    /// `true` if the status alone means that some limit was exceeded.
    throttled: bool,
    /// The longest hint of each rank.
    best: [Option<Hint>; RANKS],
    directive: RetryDirective,
    soft_veto: Option<HeaderName>,
    /// `true` if nothing remains of some quota.
    exhausted: bool,
}

impl<'a> Reader<'a> {
    fn new(
        headers: &'a HeaderMap,
        listened_to: &'a HintHeaders,
        now: SystemTime,
        throttled: bool,
    ) -> Self {
        Self {
            headers,
            listened_to,
            now,
            throttled,
            best: [const { None }; RANKS],
            directive: RetryDirective::Unspecified,
            soft_veto: None,
            exhausted: false,
        }
    }
}

impl Reader<'_> {
    fn hear(&mut self, header: &HeaderName, role: Role<'_>, own: bool) {
        let text = only_value(self.headers, header);
        let is = |word| text.is_some_and(|it| it.eq_ignore_ascii_case(word));
        let rank = |rank| if own { OWN } else { rank };
        match role {
            Role::Wait(unit) => {
                let by_name = if unit == Unit::Millis { MILLIS } else { WAIT };
                let heard = self.longest(header, unit);
                self.offer(rank(by_name), header, heard, true);
                if own && heard.is_none() {
                    self.hear_quotas(header, OWN);
                }
            }
            Role::Standard => {
                let number = text.and_then(number::seconds).map(When::After);
                let when = number.or_else(|| Some(When::At(http_date(text?, self.now)?)));
                self.offer(rank(WAIT), header, when.map(|it| self.wait(it)), true);
            }
            Role::Pushback => match text.and_then(number::pushback) {
                Some(after) => self.offer(rank(WAIT), header, Some(after), true),
                None => self.directive = RetryDirective::DoNotRetry(header.clone()),
            },
            Role::Reset(unit, remaining) => {
                let spent = match remaining {
                    Some(remaining) => is_spent(self.headers, remaining),
                    None => self.is_exhausted(header),
                };
                self.exhausted |= spent;
                if spent || self.throttled {
                    let rank = if spent { rank(EXHAUSTED) } else { ANY_RESET };
                    self.offer(rank, header, self.longest(header, unit), false);
                }
            }
            Role::Remaining => self.exhausted |= is_spent(self.headers, header),
            Role::Quotas => self.hear_quotas(header, EXHAUSTED),
            Role::ShouldRetry if is("true") && self.directive == RetryDirective::Unspecified => {
                self.directive = RetryDirective::Retry
            }
            Role::ShouldRetry if is("false") => {
                self.directive = RetryDirective::DoNotRetry(header.clone())
            }
            Role::Veto if !is("false") => {
                self.directive = RetryDirective::DoNotRetry(header.clone())
            }
            Role::SoftVeto if !is("false") => self.soft_veto = Some(header.clone()),
            Role::ShouldRetry | Role::Veto | Role::SoftVeto => {}
        }
    }

    fn hear_quotas(&mut self, header: &HeaderName, rank: usize) {
        let refills = quota::rate_limit(self.headers.get_all(header).iter()).unwrap_or_default();
        let wait = |it| self.wait(value::of_number(it, Unit::Seconds));
        let (exhausted, any) = (refills.exhausted.map(wait), refills.any.map(wait));
        self.offer(rank, header, exhausted, false);
        if self.throttled {
            self.offer(ANY_RESET, header, any, false);
        }
    }

    fn offer(&mut self, rank: usize, header: &HeaderName, after: Option<Duration>, asks: bool) {
        let (Some(after), Some(best)) = (after, self.best.get_mut(rank)) else { return };
        if best.as_ref().is_none_or(|it| it.after < after) {
            *best = Some(Hint { after, header: Some(header.clone()), asks });
        }
    }

    /// Returns the longest wait that a header names.
    fn longest(&self, header: &HeaderName, unit: Unit) -> Option<Duration> {
        let mut longest = None;
        for line in self.headers.get_all(header) {
            value::read_all(line, unit, self.now, &mut |when| {
                longest = longest.max(Some(self.wait(when)));
            });
        }
        longest
    }

    /// Returns the rest of a wait.
    ///
    /// Reads the server's clock and the time spent in caches from the response, so that a client
    /// with a wrong clock waits for the right time.
    fn wait(&self, when: When) -> Duration {
        let age = only_value(self.headers, &header::AGE).and_then(number::seconds);
        let age = age.unwrap_or_default();
        let date = only_value(self.headers, &header::DATE);
        match when {
            When::After(after) => after.saturating_sub(age),
            When::At(then) => {
                let made = date.and_then(|it| http_date(it, self.now));
                let server_time = made.map_or(Some(self.now), |it| it.checked_add(age));
                let left = server_time.and_then(|it| then.duration_since(it).ok());
                left.unwrap_or_default()
            }
        }
    }

    /// Returns whether nothing remains of the quota that `reset` belongs to.
    fn is_exhausted(&self, reset: &HeaderName) -> bool {
        let Some(quota) = Quota::of_reset(reset.as_str()) else { return false };
        let mut others = self
            .headers
            .keys()
            .filter(|it| Quota::of_remaining(it.as_str()).is_some_and(|it| quota.is_of(&it)));
        others.any(|it| self.listened_to.role(it).is_some() && is_spent(self.headers, it))
    }
}

/// Returns whether a header says that nothing remains.
fn is_spent(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|it| it.to_str().ok());
    lines.filter_map(number::is_spent).any(|it| it)
}

/// Returns the value of a header that is present once; identical lines count as one.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.any(|it| it != first) {
        return None;
    }
    first.to_str().ok().map(str::trim_ascii)
}

/// Reads header lines as a server may send them; the entry of the fuzz target.
#[cfg(fuzzing)]
pub fn fuzz_hints(lines: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in lines.split(|it| *it == b'\n') {
        let colon = line.iter().position(|it| *it == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name.try_into(), http::HeaderValue::from_bytes(value)) {
            headers.append::<HeaderName>(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480);
    let own = HeaderName::from_static("x-backoff");
    let added = HintHeaders::default().with_reset(own.clone(), HeaderName::from_static("x-left"));
    for hints in [HintHeaders::default(), added, HintHeaders::none().with(own)] {
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::FORBIDDEN] {
            let advice = read(status, &headers, &hints, || now);
            let named = |it: Hint| it.header.is_some_and(|it| headers.contains_key(it));
            assert!(advice.hint.is_none_or(named));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Wed, 21 Oct 2015 07:28:00 GMT.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_445_412_480)
    }

    /// Header lines as on the wire.
    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.lines().filter(|it| !it.trim().is_empty()) {
            let (name, value) = line.trim_start().split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn advice_of(status: u16, text: &str) -> Advice {
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &headers(text), &HintHeaders::default(), now)
    }

    /// Reads headers of a response with a status that is no rate limit.
    fn default_advice(text: &str) -> Advice {
        advice_of(500, text)
    }

    fn hint(header: &'static str, seconds: f64) -> Option<Hint> {
        let after = Duration::from_secs_f64(seconds);
        let header = HeaderName::from_static(header);
        let asks = header.as_str().contains("retry");
        Some(Hint { after, header: Some(header), asks })
    }

    /// One header alone, and the seconds to wait; none if it is invalid.
    #[track_caller]
    fn check(header: &'static str, value: &str, seconds: impl Into<Option<f64>>) {
        check_with("", header, value, seconds);
    }

    #[track_caller]
    fn check_with(
        others: &str,
        header: &'static str,
        value: &str,
        seconds: impl Into<Option<f64>>,
    ) {
        let advice = default_advice(&format!("{others}\n{header}: {value}"));
        let expected = seconds.into().and_then(|it| hint(header, it));
        assert_eq!(advice, Advice { hint: expected, ..Advice::default() }, "{header}: {value}");
    }

    #[test]
    fn silence() {
        assert_eq!(default_advice(""), Advice::default());
        assert_eq!(default_advice("date: Wed, 21 Oct 2015 07:28:00 GMT"), Advice::default());
    }

    #[test]
    fn milliseconds() {
        for header in ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"] {
            check(header, "1500", 1.5);
            check(header, "0", 0.0);
            check(header, "12.5", 0.0125);
            check(header, "250ms", 0.25);
            check(header, "Wed, 21 Oct 2015 07:28:05 GMT", 5.0);
            for bad in ["", "-1", "soon", "1e3", "٥"] {
                check(header, bad, None);
            }
        }
    }

    #[test]
    fn retry_after() {
        check("retry-after", "120", 120.0);
        check("retry-after", "  1.5\t", 1.5);
        check("retry-after", "007", 7.0);
        check("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT", 5.0);
        check("retry-after", "Wednesday, 21-Oct-15 07:28:05 GMT", 5.0);
        check("retry-after", "Wed Oct 21 07:28:05 2015", 5.0);
        check("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", 0.0);
        // Not 45 years.
        check("retry-after", "1445412485", 5.0);
        check("retry-after", "1445412485500", 5.5);
        check("retry-after", "5, 10", 10.0);
        check("retry-after", "1m0s", 60.0);
        check("retry-after", "2015-10-21T07:28:05Z", 5.0);
        for bad in ["", " ", "-5", "+5", "5.", "1_0", "nan", "2015-10-21T07:28:05", "٥"] {
            check("retry-after", bad, None);
        }
        let huge = default_advice(&format!("retry-after: {}", "9".repeat(400)));
        assert_eq!(huge.hint.unwrap().after, Duration::MAX);
    }

    #[test]
    fn the_clock_of_the_server_counts() {
        let in_five = "Wed, 21 Oct 2015 07:28:05 GMT";
        for (date, seconds) in [
            ("Wed, 21 Oct 2015 07:27:55 GMT", 10.0),
            ("Wed, 21 Oct 2015 07:27:55 GMT\nage: 7", 3.0),
            ("Wed, 21 Oct 2015 09:00:00 GMT", 0.0),
            ("yesterday", 5.0),
        ] {
            let others = format!("date: {date}\nx-ratelimit-remaining: 0");
            check_with(&others, "retry-after", in_five, seconds);
            check_with(&others, "x-ratelimit-reset", "1445412485", seconds);
        }
    }

    #[test]
    fn time_spent_in_caches_is_deducted() {
        check_with("age: 20", "retry-after", "30", 10.0);
        check_with("age: 40", "retry-after", "30", 0.0);
        check_with("age: 20\nage: 25", "retry-after", "30", 30.0);
        check_with("age: soon", "retry-after", "30", 30.0);
        check_with(&format!("age: {}", "9".repeat(400)), "retry-after", "30", 0.0);
        // Without a date of the server's, the client's own clock counts, and the age is ignored.
        check_with("age: 20", "retry-after", "Wed, 21 Oct 2015 07:28:05 GMT", 5.0);
    }

    #[test]
    fn of_repeated_lines_the_longer_counts() {
        check_with("retry-after: 5", "retry-after", "5", 5.0);
        check_with("retry-after: 5", "retry-after", "10", 10.0);
        check_with("retry-after: 10", "retry-after", "5", 10.0);
        check_with("retry-after: soon", "retry-after", "5", 5.0);
    }

    #[test]
    fn quotas() {
        check("ratelimit", r#""burst";r=0;t=30"#, 30.0);
        check("ratelimit", r#""burst";r=1;t=30"#, None);
        check("x-retry-after", r#""burst";r=0;t=30"#, None);
        check_with(r#"ratelimit: "daily";r=0;t=60"#, "ratelimit", r#""burst";r=0;t=30"#, 60.0);
        check_with(r#"ratelimit: "daily";r=0;t=6é"#, "ratelimit", r#""burst";r=0;t=30"#, None);
    }

    #[test]
    fn resets_of_many_kinds() {
        for (header, remaining) in [
            ("ratelimit-reset", "ratelimit-remaining"),
            ("x-ratelimit-reset", "x-ratelimit-remaining"),
            ("x-rate-limit-reset", "x-rate-limit-remaining"),
        ] {
            let exhausted = &*format!("{remaining}: 0");
            check_with(exhausted, header, "30", 30.0);
            check_with(exhausted, header, "1445412490", 10.0);
            check_with(exhausted, header, "1445412490.5", 10.5);
            check_with(exhausted, header, "1445412490500", 10.5);
            check_with(exhausted, header, "1445412470", 0.0);
            check_with(exhausted, header, "999999999", 999_999_999.0);
            check_with(exhausted, header, "1000000000", 0.0);
            check_with(exhausted, header, "1000000000000", 0.0);
            check_with(exhausted, header, "2015-10-21T07:28:05Z", 5.0);
            check_with(exhausted, header, "Wed, 21 Oct 2015 07:28:05 GMT", 5.0);
            check_with(exhausted, header, "tomorrow", None);
            check_with(&format!("{remaining}: 1"), header, "30", None);
            check(header, "30", None);
        }
    }

    #[test]
    fn go_durations() {
        for of in ["requests", "tokens"] {
            let header: &'static str = format!("x-ratelimit-reset-{of}").leak();
            check_with(&format!("x-ratelimit-remaining-{of}: 0"), header, "6m0s", 360.0);
            check_with(&format!("x-ratelimit-remaining-{of}: 0"), header, "20ms", 0.02);
            check_with(&format!("x-ratelimit-remaining-{of}: 0"), header, "20", 20.0);
            check_with(&format!("x-ratelimit-remaining-{of}: 9"), header, "6m0s", None);
        }
    }

    #[test]
    fn internet_dates() {
        for of in ["requests", "tokens", "input-tokens", "output-tokens"] {
            let header: &'static str = format!("anthropic-ratelimit-{of}-reset").leak();
            let remaining = format!("anthropic-ratelimit-{of}-remaining");
            check_with(&format!("{remaining}: 0"), header, "2015-10-21T07:28:05Z", 5.0);
            check_with(&format!("{remaining}: 0"), header, "soon", None);
            check_with(&format!("{remaining}: 1"), header, "2015-10-21T07:28:05Z", None);
        }
    }

    #[test]
    fn the_later_reset_of_what_has_run_out() {
        let exhausted = "x-ratelimit-remaining-requests: 0
                         x-ratelimit-reset-requests: 1s
                         x-ratelimit-remaining-tokens: 0
                         x-ratelimit-reset-tokens: 6m0s";
        assert_eq!(default_advice(exhausted).hint, hint("x-ratelimit-reset-tokens", 360.0));
        // Of two equal hints, the first is named.
        let same = exhausted.replace("6m0s", "1s");
        assert_eq!(default_advice(&same).hint, hint("x-ratelimit-reset-requests", 1.0));
        // Not if a header of higher rank has decided.
        let advice = default_advice(&format!("{exhausted}\nretry-after: 2"));
        assert_eq!(advice.hint, hint("retry-after", 2.0));
    }

    #[test]
    fn the_first_rank_counts_and_in_it_the_longest() {
        let lines = [
            ("retry-after-ms", "1000"),
            ("x-ms-retry-after-ms", "2000"),
            ("retry-after", "3"),
            ("x-retry-after", "4"),
            ("ratelimit", "a;r=0;t=5"),
            ("x-ratelimit-reset", "6"),
        ];
        let remaining = "x-ratelimit-remaining: 0";
        let longest_of_rank = [2.0, 2.0, 4.0, 4.0, 6.0, 6.0];
        for (i, seconds) in longest_of_rank.into_iter().enumerate() {
            let lines = lines[i..].iter().rev().map(|(name, value)| format!("{name}: {value}\n"));
            let advice = default_advice(&format!("{}{remaining}", lines.collect::<String>()));
            assert_eq!(advice.hint.unwrap().after.as_secs_f64(), seconds, "from {i} on");
        }
        // After an unreadable one the next decides.
        let advice = default_advice("retry-after-ms: soon\nretry-after: 3");
        assert_eq!(advice.hint, hint("retry-after", 3.0));
    }

    #[test]
    fn a_429_says_that_some_limit_was_exceeded() {
        let after = |status, text| advice_of(status, text).hint.map(|it| it.after.as_secs());
        for (text, on_429, else_) in [
            ("x-ratelimit-reset: 30", Some(30), None),
            ("x-ratelimit-reset: 30\nx-ratelimit-remaining: 3", Some(30), None),
            ("x-ratelimit-reset: 30\nx-ratelimit-remaining: 0", Some(30), Some(30)),
            ("ratelimit: a;t=30", Some(30), None),
            ("ratelimit: a;r=3;t=30", Some(30), None),
            // The exceeded one is known.
            ("ratelimit: a;r=0;t=5, b;r=3;t=30", Some(5), Some(5)),
            (
                "x-ratelimit-reset-tokens: 5s\nx-ratelimit-remaining-tokens: 0
                 x-ratelimit-reset-requests: 9s\nx-ratelimit-remaining-requests: 9",
                Some(5),
                Some(5),
            ),
            // The exceeded one is unknown.
            ("x-ratelimit-reset-tokens: 5s\nx-ratelimit-reset-requests: 9s", Some(9), None),
            ("x-ratelimit-reset: 30\nretry-after: 2", Some(2), Some(2)),
            ("ratelimit-limit: 100;w=21600\nratelimit-remaining: 0;w=21600", None, None),
        ] {
            assert_eq!((after(429, text), after(503, text)), (on_429, else_), "{text}");
        }
    }

    #[test]
    fn wishes() {
        let directive = |text: &str| default_advice(text).directive;
        let stay_away = |by| RetryDirective::DoNotRetry(HeaderName::from_static(by));
        assert_eq!(directive("x-should-retry: true"), RetryDirective::Retry);
        assert_eq!(directive("x-should-retry: FALSE"), stay_away("x-should-retry"));
        assert_eq!(directive("x-should-retry: maybe"), RetryDirective::Unspecified);
        assert_eq!(directive("x-envoy-ratelimited: true"), stay_away("x-envoy-ratelimited"));
        assert_eq!(directive("x-envoy-ratelimited: false"), RetryDirective::Unspecified);
        for bad in ["-1", "", "soon", "2147483648", "1.5", "+1"] {
            let text = format!("grpc-retry-pushback-ms: {bad}");
            assert_eq!(directive(&text), stay_away("grpc-retry-pushback-ms"), "{bad:?}");
        }
        assert_eq!(directive("grpc-retry-pushback-ms: 2147483647"), RetryDirective::Unspecified);
        let both = "x-should-retry: true\nx-envoy-ratelimited: true";
        assert_eq!(directive(both), stay_away("x-envoy-ratelimited"));
        // Envoy forbids proxies to retry at once, and names the time beside it.
        for when in ["retry-after: 5", "x-ratelimit-remaining: 0\nx-ratelimit-reset: 5"] {
            assert_eq!(
                directive(&format!("x-envoy-ratelimited: true\n{when}")),
                RetryDirective::Unspecified
            );
            assert_eq!(directive(&format!("{both}\n{when}")), RetryDirective::Retry);
        }
        // Counts even if another header names a time.
        assert_eq!(
            directive("retry-after: 5\ngrpc-retry-pushback-ms: -1"),
            stay_away("grpc-retry-pushback-ms")
        );
    }

    #[test]
    fn other_headers_than_the_default() {
        let text = headers("retry-after: 5\nx-backoff: 7\nx-left: 0");
        let backoff = || HeaderName::from_static("x-backoff");
        let left = || HeaderName::from_static("x-left");
        let read = |text: &HeaderMap, listened_to: HintHeaders| {
            read(StatusCode::INTERNAL_SERVER_ERROR, text, &listened_to, now)
        };
        let after = |listened_to| {
            let hint = read(&text, listened_to).hint;
            hint.map(|it| (it.header.unwrap().as_str().to_owned(), it.after.as_secs_f64(), it.asks))
        };
        let expect = |header: &str, seconds, asks| Some((header.to_owned(), seconds, asks));
        assert_eq!(after(HintHeaders::none()), None);
        assert_eq!(after(HintHeaders::default().without(header::RETRY_AFTER)), None);
        let with = HintHeaders::default().with(backoff());
        assert_eq!(after(with.clone()), expect("x-backoff", 7.0, true));
        assert_eq!(after(with.without(backoff())), expect("retry-after", 5.0, true));
        let replaced = HintHeaders::none().with_format(header::RETRY_AFTER, HintFormat::Millis);
        assert_eq!(after(replaced), expect("retry-after", 0.005, true));
        let standard = HintHeaders::none().with_format(backoff(), HintFormat::Standard);
        assert_eq!(after(standard.clone()), expect("x-backoff", 7.0, true));
        for (value, seconds) in [
            ("7s", None),
            ("5, 7", None),
            ("2015-10-21T07:28:05Z", None),
            ("Wed, 21 Oct 2015 07:28:05 GMT", Some(5)),
            ("1445412485", Some(1_445_412_485)),
        ] {
            let hint = read(&headers(&format!("x-backoff: {value}")), standard.clone()).hint;
            assert_eq!(hint.map(|it| it.after.as_secs()), seconds, "{value}");
        }
        let reset = HintHeaders::none().with_reset(backoff(), left());
        assert_eq!(after(reset), expect("x-backoff", 7.0, false));
        let absent = HintHeaders::none().with_reset(backoff(), HeaderName::from_static("x-other"));
        assert_eq!(after(absent), None);
        let vetoes = HintHeaders::none()
            .with_format(backoff(), HintFormat::ShouldRetry)
            .with_format(left(), HintFormat::Veto);
        let text = headers("x-backoff: true\nx-left: 1");
        assert_eq!(read(&text, vetoes.clone()).directive, RetryDirective::DoNotRetry(left()));
        let text = headers("x-backoff: true\nx-left: FALSE");
        assert_eq!(read(&text, vetoes).directive, RetryDirective::Retry);
        let quotas = HintHeaders::none().with(backoff());
        let hint = read(&headers("x-backoff: \"a\";r=0;t=9"), quotas).hint.unwrap();
        assert_eq!((hint.after, hint.asks), (Duration::from_secs(9), false));
    }

    #[test]
    fn a_rate_limit_is_told_by_the_status_or_beside_a_403() {
        let limited = |status, text| advice_of(status, text).rate_limited;
        assert!(limited(429, ""));
        assert!(limited(403, "retry-after: 60"));
        assert!(limited(403, "x-ratelimit-remaining: 0"));
        assert!(limited(403, "x-ratelimit-remaining: -1"));
        assert!(limited(403, "ratelimit-remaining: 0;w=60"));
        assert!(limited(403, "ratelimit: a;r=0;t=9"));
        assert!(!limited(403, "x-ratelimit-remaining: 10\nx-ratelimit-reset: 9"));
        assert!(!limited(403, ""));
        assert!(!limited(404, "retry-after: 60"));
        assert!(!limited(503, "retry-after: 60"));
        let (backoff, left) = ("x-backoff".parse().unwrap(), "x-left".parse().unwrap());
        let named = HintHeaders::none().with_reset(backoff, left);
        let spent = |left| {
            let text = headers(&format!("x-backoff: soon\nx-left: {left}"));
            read(StatusCode::FORBIDDEN, &text, &named, now).rate_limited
        };
        assert!(spent(0) && !spent(1));
        let found = |status| {
            let status = StatusCode::from_u16(status).ok();
            Advice::default().with_found(status, Duration::ZERO).rate_limited
        };
        assert!(found(403) && !found(503));
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let date =
            "(Wed|Wednesday)?,? ?[0-9]{1,3}[ -]Oct[ -][0-9]{2,4} [0-9:]{5,9} ?(GMT|[+-][0-9]{4})?";
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[0-9]{1,24}(\\.[0-9]{0,3})?".prop_map(String::into_bytes),
            "([0-9.]{1,9}(h|m|s|ms)){1,3}".prop_map(String::into_bytes),
            date.prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_are_read_or_ignored(
            values in proptest::collection::vec((0_usize..40, any_value()), 0..6),
            seconds: u32,
        ) {
            const NAMES: [&str; 12] = [
                "date",
                "age",
                "retry-after",
                "retry-after-ms",
                "grpc-retry-pushback-ms",
                "ratelimit",
                "x-ratelimit-reset",
                "x-ratelimit-remaining",
                "x-ratelimit-reset-after",
                "anthropic-ratelimit-tokens-reset",
                "x-should-retry",
                "x-envoy-ratelimited",
            ];
            let mut headers = HeaderMap::new();
            for (i, value) in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(NAMES[i % NAMES.len()], value);
                }
            }
            let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
            for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY] {
                let advice = read(status, &headers, &HintHeaders::default(), || now);
                if let Some(hint) = advice.hint {
                    prop_assert!(headers.contains_key(hint.header.unwrap()));
                }
            }
        }
    }
}
