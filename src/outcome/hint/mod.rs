//! What servers say about coming back: when, and whether at all.

mod date;
mod headers;
mod number;
mod quota;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, StatusCode, header};

pub use self::headers::{HintFormat, HintHeaders};
use self::{
    date::http_date,
    headers::{HintRule, mark},
};

/// Everything a response head says about coming back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// When to come back, if the server said so.
    pub(crate) hint: Option<Hint>,
    /// Whether to come back at all.
    pub(crate) directive: RetryDirective,
}

/// How long to wait, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// The time to wait, from the arrival of the response head on; may be as long as
    /// [`Duration::MAX`].
    pub(crate) after: Duration,
    /// The header it was read from.
    pub(crate) header: HeaderName,
}

/// Whether the server wants the request again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RetryDirective {
    /// It asks for a retry, whatever the status says.
    Retry,
    /// It does not say.
    #[default]
    Unspecified,
    /// It asks the client to stay away, by this header.
    DoNotRetry(HeaderName),
}

/// Reads what a response head says about coming back; see [`HintHeaders`] for the rules.
///
/// `now` is the client's wall clock, for dates in responses without a `Date` of their own.
pub(crate) fn read(headers: &HeaderMap, listened_to: &HintHeaders, now: SystemTime) -> Advice {
    let present = headers.keys().fold(0, |marks, it| marks | mark(it));
    let mut advice = Advice::default();
    let mut settled = false;
    for spelling in &listened_to.spellings {
        settled |= !spelling.joins && advice.hint.is_some();
        if present & spelling.mark == 0 {
            continue;
        }
        match said(spelling, headers, now) {
            Some(Said::Wait(after)) => {
                if !settled && advice.hint.as_ref().is_none_or(|it| it.after < after) {
                    advice.hint = Some(Hint { after, header: spelling.header.clone() });
                }
            }
            Some(Said::Retry) if advice.directive == RetryDirective::Unspecified => {
                advice.directive = RetryDirective::Retry
            }
            Some(Said::StayAway) => {
                advice.directive = RetryDirective::DoNotRetry(spelling.header.clone())
            }
            Some(Said::Retry) | None => {}
        }
    }
    advice
}

/// Whether a 403 is not about permissions but about having asked too often, as GitHub uses it.
pub(crate) fn is_rate_limit_403(status: StatusCode, headers: &HeaderMap) -> bool {
    const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
    status == StatusCode::FORBIDDEN
        && (headers.contains_key(header::RETRY_AFTER) || is_zero(headers, &REMAINING))
}

/// What a single header says.
enum Said {
    Retry,
    StayAway,
    Wait(Duration),
}

fn said(spelling: &HintRule, headers: &HeaderMap, now: SystemTime) -> Option<Said> {
    let HintRule { header, format, remaining, .. } = spelling;
    if !headers.contains_key(header) || remaining.as_ref().is_some_and(|it| !is_zero(headers, it)) {
        return None;
    }
    let text = only_value(headers, header);
    let is = |word| text.is_some_and(|it| it.eq_ignore_ascii_case(word));
    let after = match format {
        HintFormat::Pushback => match text.and_then(number::pushback) {
            Some(after) => after,
            None => return Some(Said::StayAway),
        },
        HintFormat::RateLimit => quota::rate_limit(headers.get_all(header).iter())?,
        HintFormat::ShouldRetry if is("true") => return Some(Said::Retry),
        HintFormat::ShouldRetry if is("false") => return Some(Said::StayAway),
        HintFormat::Veto if !is("false") => return Some(Said::StayAway),
        HintFormat::ShouldRetry | HintFormat::Veto => return None,

        HintFormat::EpochOrDelta => match number::seconds(text?) {
            Some(number) => delta_or_epoch(number, server_time(headers, now)),
            None => left(date::rfc3339(text?).or_else(|| http_date(text?, now))?, headers, now),
        },
        HintFormat::GoDuration => number::go_duration(text?)?,
        HintFormat::Millis => number::seconds(text?)? / 1000,
        HintFormat::RetryAfter => match number::seconds(text?) {
            Some(after) => after,
            None => left(http_date(text?, now)?, headers, now),
        },
        HintFormat::Rfc3339 => left(date::rfc3339(text?)?, headers, now),
        HintFormat::Seconds => number::seconds(text?)?,
    };
    Some(Said::Wait(after))
}

/// What is left until `then`; nothing once it has passed.
fn left(then: SystemTime, headers: &HeaderMap, now: SystemTime) -> Duration {
    then.duration_since(server_time(headers, now)).unwrap_or_default()
}

/// The time by the clock that the server's dates are written by.
///
/// A client whose own clock is wrong thus waits as long as it was told to.
fn server_time(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    only_value(headers, &header::DATE).and_then(|it| http_date(it, now)).unwrap_or(now)
}

/// Tells by its size whether a number counts from now or from 1970, in seconds or milliseconds.
///
/// The smallest epoch, 10⁹ s, is in 2001, while 10⁹ s from now is 31 years away.
fn delta_or_epoch(number: Duration, now: SystemTime) -> Duration {
    if number.as_secs() < 1_000_000_000 {
        return number;
    }
    let epoch = if number.as_secs() < 1_000_000_000_000 { number } else { number / 1000 };
    epoch.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The value of a header that is there once; repeating the very same line changes nothing.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.any(|it| it != first) {
        return None;
    }
    first.to_str().ok().map(str::trim_ascii)
}

fn is_zero(headers: &HeaderMap, name: &HeaderName) -> bool {
    only_value(headers, name).and_then(number::seconds).is_some_and(|it| it.is_zero())
}

/// Reads header lines as a server may send them; the door of the fuzz target.
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
    let now = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
    let advice = read(&headers, &HintHeaders::default(), now);
    assert!(advice.hint.is_none_or(|it| headers.contains_key(it.header)));
}

#[cfg(test)]
mod tests {
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

    fn default_advice(text: &str) -> Advice {
        read(&headers(text), &HintHeaders::default(), now())
    }

    fn hint(header: &'static str, seconds: f64) -> Option<Hint> {
        let after = Duration::from_secs_f64(seconds);
        Some(Hint { after, header: HeaderName::from_static(header) })
    }

    /// One header alone, and the seconds to wait; none if it is not to be understood.
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
        assert_eq!(
            advice,
            Advice { hint: expected, directive: RetryDirective::Unspecified },
            "{header}: {value}"
        );
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
            for bad in ["", "-1", "soon", "1e3", "٥", "Wed, 21 Oct 2015 07:28:05 GMT"] {
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
        for bad in ["", " ", "-5", "+5", "5.", "1_0", "nan", "5, 10", "2015-10-21T07:28:05Z", "٥"]
        {
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
            ("Wed, 21 Oct 2015 09:00:00 GMT", 0.0),
            ("yesterday", 5.0),
        ] {
            let others = format!("date: {date}\nx-ratelimit-remaining: 0");
            check_with(&others, "retry-after", in_five, seconds);
            check_with(&others, "x-ratelimit-reset", "1445412485", seconds);
        }
    }

    #[test]
    fn repeated_lines_must_agree() {
        check_with("retry-after: 5", "retry-after", "5", 5.0);
        check_with("retry-after: 5", "retry-after", "10", None);
    }

    #[test]
    fn quotas() {
        check("ratelimit", r#""burst";r=0;t=30"#, 30.0);
        check("ratelimit", r#""burst";r=1;t=30"#, None);
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
            check_with(&format!("x-ratelimit-remaining-{of}: 0"), header, "20", None);
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
        // Of two that say the same, the first is named.
        let same = exhausted.replace("6m0s", "1s");
        assert_eq!(default_advice(&same).hint, hint("x-ratelimit-reset-requests", 1.0));
        // Not where a header before them has settled it.
        let advice = default_advice(&format!("{exhausted}\nretry-after: 2"));
        assert_eq!(advice.hint, hint("retry-after", 2.0));
    }

    #[test]
    fn the_first_that_can_be_read_wins() {
        let mut lines = vec![
            ("retry-after-ms", "1000"),
            ("x-ms-retry-after-ms", "2000"),
            ("x-amz-retry-after", "3000"),
            ("retry-after", "4"),
            ("ratelimit", "a;r=0;t=5"),
            ("ratelimit-reset", "6"),
            ("x-ratelimit-reset", "7"),
            ("x-rate-limit-reset", "8"),
            ("x-ratelimit-reset-requests", "9s"),
            ("anthropic-ratelimit-tokens-reset", "2015-10-21T07:28:10Z"),
            ("grpc-retry-pushback-ms", "11000"),
        ];
        let remaining = "ratelimit-remaining: 0
                         x-ratelimit-remaining: 0
                         x-rate-limit-remaining: 0
                         x-ratelimit-remaining-requests: 0
                         anthropic-ratelimit-tokens-remaining: 0";
        let mut seconds = 1.0;
        while !lines.is_empty() {
            let all = lines.iter().rev().map(|(name, value)| format!("\n{name}: {value}"));
            let text = format!("{remaining}{}", all.collect::<String>());
            assert_eq!(default_advice(&text).hint, hint(lines[0].0, seconds));
            if lines.len() > 1 {
                lines[0].1 = "?";
                let all = lines.iter().map(|(name, value)| format!("\n{name}: {value}"));
                let text = format!("{remaining}{}", all.collect::<String>());
                assert_eq!(default_advice(&text).hint, hint(lines[1].0, seconds + 1.0));
            }
            lines.remove(0);
            seconds += 1.0;
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
        let both = "x-should-retry: true\nx-envoy-ratelimited: true\nretry-after: 5";
        let expected =
            Advice { hint: hint("retry-after", 5.0), directive: stay_away("x-envoy-ratelimited") };
        assert_eq!(default_advice(both), expected);
        // Heard even where another header has said when.
        assert_eq!(
            directive("retry-after: 5\ngrpc-retry-pushback-ms: -1"),
            stay_away("grpc-retry-pushback-ms")
        );
    }

    #[test]
    fn other_headers_than_the_default() {
        let text = headers("retry-after: 5\nx-backoff: 7\nx-left: 0");
        let backoff = || HeaderName::from_static("x-backoff");
        let hint_of = |listened_to| read(&text, &listened_to, now()).hint;
        assert_eq!(hint_of(HintHeaders::none()), None);
        assert_eq!(hint_of(HintHeaders::default().without(&header::RETRY_AFTER)), None);
        let with = HintHeaders::default().with(backoff(), HintFormat::Seconds);
        assert_eq!(hint_of(with.clone()), hint("x-backoff", 7.0));
        assert_eq!(hint_of(with.without(&backoff())), hint("retry-after", 5.0));
        let replaced = HintHeaders::default().with(header::RETRY_AFTER, HintFormat::Millis);
        assert_eq!(hint_of(replaced), hint("retry-after", 0.005));
        let left = HeaderName::from_static("x-left");
        let reset = HintHeaders::none().with_reset(backoff(), HintFormat::Seconds, left);
        assert_eq!(hint_of(reset), hint("x-backoff", 7.0));
        let first_vetoes = HintHeaders::none()
            .with(backoff(), HintFormat::ShouldRetry)
            .with(HeaderName::from_static("x-left"), HintFormat::Veto);
        let directive =
            read(&headers("x-backoff: true\nx-left: 1"), &first_vetoes, now()).directive;
        assert_eq!(directive, RetryDirective::DoNotRetry(HeaderName::from_static("x-left")));
        let absent = HeaderName::from_static("x-other");
        let reset = HintHeaders::none().with_reset(backoff(), HintFormat::Seconds, absent);
        assert_eq!(hint_of(reset), None);
    }

    #[test]
    fn a_403_may_be_a_rate_limit() {
        let limited = |status, text| is_rate_limit_403(status, &headers(text));
        assert!(limited(StatusCode::FORBIDDEN, "retry-after: 60"));
        assert!(limited(StatusCode::FORBIDDEN, "x-ratelimit-remaining: 0"));
        assert!(!limited(StatusCode::FORBIDDEN, "x-ratelimit-remaining: 10"));
        assert!(!limited(StatusCode::FORBIDDEN, ""));
        assert!(!limited(StatusCode::NOT_FOUND, "retry-after: 60"));
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
            let all = HintHeaders::default();
            let names: Vec<_> = all
                .spellings
                .iter()
                .flat_map(|it| [Some(&it.header), it.remaining.as_ref()])
                .flatten()
                .chain([&header::DATE])
                .collect();
            let mut headers = HeaderMap::new();
            for (i, value) in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(names[i % names.len()], value);
                }
            }
            let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
            let advice = read(&headers, &all, now);
            if let Some(hint) = advice.hint {
                prop_assert!(headers.contains_key(hint.header));
            }
        }
    }
}
