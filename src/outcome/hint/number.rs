//! Lengths of time as servers write them.

use std::{iter, time::Duration};

/// Reads seconds: ASCII digits, and a decimal fraction if there is one.
///
/// Refuses signs, exponents, `5.` and `.5`. A number too large for a `Duration` gives
/// [`Duration::MAX`].
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let rest = fraction(rest)?;
    if !all_digits(whole) {
        return None;
    }
    Some(match whole.parse() {
        Ok(whole) => Duration::from_secs(whole).saturating_add(rest),
        Err(_) => Duration::MAX,
    })
}

/// Reads the milliseconds of a gRPC pushback, a 32-bit integer that is not negative.
pub(super) fn pushback(text: &str) -> Option<Duration> {
    let millis: i32 = text.parse().ok().filter(|_| all_digits(text))?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}

/// Reads a length of time with units: `6m0s` as Go prints it, `1.5 hours`, `30sec`, `PT1M30S`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim_ascii();
    let Some(iso) = text.strip_prefix(['P', 'p']) else { return units(text) };
    // ISO 8601: an `M` before the `T` would be months, which have no fixed length.
    let (days, time) = iso.split_once(['T', 't']).unwrap_or((iso, ""));
    let counts_days = |it: char| it.is_ascii_digit() || it == '.' || "dDwW".contains(it);
    if !days.chars().all(counts_days) {
        return None;
    }
    match (days, time) {
        ("", time) => units(time),
        (days, "") => units(days),
        (days, time) => Some(units(days)?.saturating_add(units(time)?)),
    }
}

/// Adds up amounts, each followed by its unit.
fn units(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let (amount, after) = rest.split_at(rest.find(|it: char| it.is_alphabetic())?);
        let (unit, after) =
            after.split_at(after.find(|it: char| !it.is_alphabetic()).unwrap_or(after.len()));
        total = total.saturating_add(of_unit(seconds(amount.trim_ascii())?, unit)?);
        rest = after.trim_ascii_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

fn of_unit(amount: Duration, unit: &str) -> Option<Duration> {
    const UNITS: [(&[&str], u32); 5] = [
        (&["s", "sec", "secs", "second", "seconds"], 1),
        (&["m", "min", "mins", "minute", "minutes"], 60),
        (&["h", "hr", "hrs", "hour", "hours"], 3600),
        (&["d", "day", "days"], 86_400),
        (&["w", "week", "weeks"], 604_800),
    ];
    const PARTS: [(&[&str], u32); 3] = [
        (&["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"], 1_000),
        (&["us", "µs", "μs", "microsecond", "microseconds"], 1_000_000),
        (&["ns", "nanosecond", "nanoseconds"], 1_000_000_000),
    ];
    let named = |names: &[&str]| names.iter().any(|it| it.eq_ignore_ascii_case(unit));
    let times = UNITS.iter().find(|it| named(it.0)).map(|it| amount.saturating_mul(it.1));
    times.or_else(|| PARTS.iter().find(|it| named(it.0)).map(|it| amount / it.1))
}

/// Reads a count: `50`, `50;w=60`, rounded down; less than zero is zero. Of several the smallest
/// counts.
pub(super) fn count(text: &str) -> Option<u64> {
    least(text).map(|it| it.as_secs())
}

/// Returns whether a remaining count is zero or less: `0`, `-1`, `0;w=60`.
///
/// Of several counts the smallest decides. `None` for text that is no count.
pub(super) fn is_spent(text: &str) -> Option<bool> {
    least(text).map(|it| it.is_zero())
}

/// Reads counts as if they were seconds, and returns the smallest; less than zero is zero.
fn least(text: &str) -> Option<Duration> {
    let count = |it: &str| {
        let it = it.split(';').next()?.trim_ascii().trim_matches('"');
        match it.strip_prefix('-') {
            Some(below) => seconds(below).map(|_| Duration::ZERO),
            None => seconds(it),
        }
    };
    text.split(',').filter_map(count).min()
}

/// Reads the digits after a decimal point, rounded down to nanoseconds.
pub(super) fn fraction(text: &str) -> Option<Duration> {
    if !all_digits(text) {
        return None;
    }
    let digits = text.bytes().chain(iter::repeat(b'0')).take(9);
    Some(Duration::from_nanos(digits.fold(0, |n, it| n * 10 + u64::from(it - b'0'))))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_with_or_without_a_fraction() {
        for (text, millis) in [("0", 0), ("1", 1000), ("007", 7000), ("0.25", 250), ("1.50", 1500)]
        {
            assert_eq!(seconds(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(seconds("0.1234567899"), Some(Duration::from_nanos(123_456_789)));
    }

    #[test]
    fn nothing_else() {
        for text in [
            "", ".", "5.", ".5", "1.2.3", "+5", "-5", "1e3", "1_0", "0x10", "nan", "inf", "5s",
            "5 ", "٥", "5.٥", "1,5",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_with_units() {
        for (text, millis) in [
            ("0s", 0),
            ("1s", 1000),
            ("20ms", 20),
            ("6m0s", 360_000),
            ("1m0.5s", 60_500),
            ("1h2m3s", 3_723_000),
            ("1.5h", 5_400_000),
            ("7000us", 7),
            ("7000µs", 7),
            ("7000000ns", 7),
            ("1s ", 1000),
            ("1 s", 1000),
            ("1S", 1000),
            ("30 seconds", 30_000),
            ("1 Minute 30 sec", 90_000),
            ("2d", 172_800_000),
            ("PT30S", 30_000),
            ("PT1M30.5S", 90_500),
            ("P1DT1H", 90_000_000),
            ("P1W", 604_800_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(duration(&format!("{}h", "9".repeat(30))), Some(Duration::MAX));
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1s2",
            "1.s",
            "1sm",
            "1 fortnight",
            "1s, 2s",
            "P",
            "PT",
            "P1M",
            "P1Y",
            "P1D2S",
            "PT1",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn counts_of_what_is_left() {
        for (text, spent) in [
            ("0", Some(true)),
            ("0.0", Some(true)),
            ("-1", Some(true)),
            (" -25 ", Some(true)),
            ("0;w=21600", Some(true)),
            ("\"0\"", Some(true)),
            ("99, 0;w=60", Some(true)),
            ("1", Some(false)),
            ("0.5", Some(false)),
            ("76;w=21600", Some(false)),
            ("unlimited", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(is_spent(text), spent, "{text:?}");
        }
    }

    #[test]
    fn huge_numbers_are_very_long() {
        assert_eq!(seconds("18446744073709551616"), Some(Duration::MAX));
        assert_eq!(seconds(&"9".repeat(400)), Some(Duration::MAX));
        assert_eq!(seconds(&format!("{}.5", "9".repeat(400))), Some(Duration::MAX));
        assert!(seconds("18446744073709551615.999").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = (seconds(&text), pushback(&text), duration(&text));
        }

        #[test]
        fn near_misses_are_read_or_refused(text in "[0-9.]{0,24}([hmsun]{1,2}[0-9.]{0,4}){0,3}") {
            let _ = (seconds(&text), pushback(&text), duration(&text));
        }

        #[test]
        fn numbers_are_read_exactly(secs: u64, nanos in 0..1_000_000_000_u32) {
            let read = seconds(&format!("{secs}.{nanos:09}"));
            prop_assert_eq!(read, Some(Duration::new(secs, nanos)));
        }
    }
}
