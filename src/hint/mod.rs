//! What servers say about when to come back.

mod date;
mod number;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

pub(crate) use self::date::http_date;

/// Reads `Retry-After`, seconds or an HTTP date, as the time still to wait.
///
/// A date that has passed means that it is time now. Dates are measured against the response's own
/// `Date`, so that a client whose clock is wrong waits as long as it was told to; without one,
/// against `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = only_value(headers, &header::RETRY_AFTER)?;
    number::seconds(text).or_else(|| {
        let then = http_date(text, now)?;
        let date = only_value(headers, &header::DATE).and_then(|it| http_date(it, now));
        Some(then.duration_since(date.unwrap_or(now)).unwrap_or_default())
    })
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// Wed, 21 Oct 2015 07:28:00 GMT.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_445_412_480)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (HeaderName::from_static(name), value.as_bytes().try_into().unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        for (text, expected) in [
            ("120", Some(120.0)),
            ("  1.5\t", Some(1.5)),
            ("Wed, 21 Oct 2015 07:28:05 GMT", Some(5.0)),
            ("Sun Nov  6 08:49:37 1994", Some(0.0)),
            ("", None),
            (" ", None),
            ("-5", None),
            ("5, 10", None),
            ("2015-10-21T07:28:05Z", None),
            ("٥", None),
        ] {
            let read = retry_after(&headers(&[("retry-after", text)]), now());
            assert_eq!(read.map(|it| it.as_secs_f64()), expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now()), None);
    }

    #[test]
    fn the_clock_of_the_server_counts() {
        let read = |date| {
            let at = ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT");
            retry_after(&headers(&[at, ("date", date)]), now())
        };
        assert_eq!(read("Wed, 21 Oct 2015 07:27:55 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Wed, 21 Oct 2015 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("yesterday"), Some(Duration::from_secs(5)));
    }

    #[test]
    fn repeated_lines_must_agree() {
        let twice = |second| headers(&[("retry-after", "5"), ("retry-after", second)]);
        assert_eq!(retry_after(&twice("5"), now()), Some(Duration::from_secs(5)));
        assert_eq!(retry_after(&twice("10"), now()), None);
    }
}
