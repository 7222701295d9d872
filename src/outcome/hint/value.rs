//! One value of a hint header, in any of the forms that servers write.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use super::{date, number};

/// The unit of a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
}

/// The time at which a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// This long after the response was made.
    After(Duration),
    /// At this time by the server's clock.
    At(SystemTime),
}

/// Reads every time in a header's value: several are separated by commas, as are parts of dates.
/// Skips unreadable parts.
pub(super) fn read_all(
    value: &HeaderValue,
    unit: Unit,
    now: SystemTime,
    found: &mut dyn FnMut(When),
) {
    /// The most parts of one date: `Wed, Oct 21, 2015, 07:28:05 GMT`.
    const MOST_PARTS: usize = 4;

    // Words after a date may be of any language.
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut rest = &*text;
    loop {
        let ends = rest.match_indices(',').map(|(at, _)| at).chain([rest.len()]).take(MOST_PARTS);
        let first = ends.filter_map(|end| Some((read(rest.get(..end)?, unit, now)?, end))).next();
        let end = match first {
            Some((when, end)) => {
                found(when);
                end
            }
            None => rest.find(',').unwrap_or(rest.len()),
        };
        match rest.get(end + 1..) {
            Some(after) => rest = after,
            None => return,
        }
    }
}

/// Reads one time: a number, a length of time with units, or a date.
fn read(text: &str, unit: Unit, now: SystemTime) -> Option<When> {
    // Parameters after the value, as in a structured field, do not change the time.
    let text = text.split(';').next()?.trim_ascii();
    let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text);
    let first = text.bytes().next()?;
    if first.is_ascii_digit() || first.eq_ignore_ascii_case(&b'P') {
        if let Some(number) = number::seconds(text) {
            return Some(of_number(number, unit));
        }
        if let Some(after) = number::duration(text) {
            return Some(When::After(after));
        }
        if let Some(then) = date::rfc3339(text) {
            return Some(When::At(then));
        }
    }
    date::http_date(text, now).map(When::At)
}

/// Determines by its size whether a number counts from the response or from 1970, and its unit.
///
/// The smallest epoch, 10⁹ s, is in 2001, while 10⁹ s from now is 31 years away; and 10¹² ms are
/// as long. From 10¹⁹ on it is no epoch in any unit, only a very long time.
pub(super) fn of_number(number: Duration, unit: Unit) -> When {
    let secs = number.as_secs();
    let is_below = |digits| secs < 10_u64.pow(digits);
    let epoch = match () {
        () if is_below(9) => None,
        () if is_below(12) => (unit == Unit::Seconds).then_some(number),
        () if is_below(15) => Some(number / 1_000),
        () if is_below(18) => Some(number / 1_000_000),
        () if is_below(19) => Some(number / 1_000_000_000),
        () => None,
    };
    match (epoch.and_then(|it| UNIX_EPOCH.checked_add(it)), unit) {
        (Some(then), _) => When::At(then),
        (None, Unit::Seconds) => When::After(number),
        (None, Unit::Millis) => When::After(number / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, unit: Unit) -> Vec<When> {
        let mut all = vec![];
        let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        read_all(&value, unit, now, &mut |it| all.push(it));
        all
    }

    fn after(millis: u64) -> When {
        When::After(Duration::from_millis(millis))
    }

    fn at(millis: u64) -> When {
        When::At(UNIX_EPOCH + Duration::from_millis(millis))
    }

    #[test]
    fn numbers_are_classified_by_size() {
        for (text, seconds, millis) in [
            ("30", after(30_000), after(30)),
            ("1.5", after(1_500), When::After(Duration::from_micros(1_500))),
            ("999999999", after(999_999_999_000), after(999_999_999)),
            ("1445412485", at(1_445_412_485_000), after(1_445_412_485)),
            ("1445412485500", at(1_445_412_485_500), at(1_445_412_485_500)),
            ("1445412485500000", at(1_445_412_485_500), at(1_445_412_485_500)),
            ("1445412485500000000", at(1_445_412_485_500), at(1_445_412_485_500)),
        ] {
            assert_eq!(all(text, Unit::Seconds), [seconds], "{text}");
            assert_eq!(all(text, Unit::Millis), [millis], "{text} ms");
        }
        let huge = "9".repeat(400);
        assert_eq!(all(&huge, Unit::Seconds), [When::After(Duration::MAX)]);
    }

    #[test]
    fn forms_do_not_depend_on_the_header() {
        for (text, when) in [
            ("1m0s", after(60_000)),
            ("250 ms", after(250)),
            ("2015-10-21T07:28Z", at(1_445_412_480_000)),
            ("2015-10-21 07:28:05 +0000 UTC", at(1_445_412_485_000)),
            ("Wed, 21 Oct 2015 07:28:05 GMT", at(1_445_412_485_000)),
            ("Wed Oct 21 2015 09:28:05 GMT+0200 (Osteuropäische Zeit)", at(1_445_412_485_000)),
        ] {
            assert_eq!(all(text, Unit::Seconds), [when], "{text}");
            assert_eq!(all(text, Unit::Millis), [when], "{text}");
        }
        assert_eq!(all("\"30\"", Unit::Seconds), [after(30_000)]);
        assert_eq!(all("30;w=60", Unit::Seconds), [after(30_000)]);
    }

    #[test]
    fn several_times_in_one_value() {
        let dates = [at(1_445_412_485_000), at(1_445_412_490_000)];
        for (text, expected) in [
            ("5, 10", vec![after(5_000), after(10_000)]),
            ("5,soon,,10,", vec![after(5_000), after(10_000)]),
            ("Wed, 21 Oct 2015 07:28:05 GMT, Wed, 21 Oct 2015 07:28:10 GMT", dates.to_vec()),
            ("Oct 21, 2015 07:28:05 GMT, 2015-10-21T07:28:10Z", dates.to_vec()),
            ("", vec![]),
            ("soon, later", vec![]),
        ] {
            assert_eq!(all(text, Unit::Seconds), expected, "{text}");
        }
    }
}
