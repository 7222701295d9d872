//! Lengths of time as servers write them.

use std::{iter, time::Duration};

/// Reads seconds: ASCII digits, and a decimal fraction if there is one.
///
/// Signs, exponents, `5.` and `.5` are refused. A number too large for a `Duration` is a very long
/// time rather than nonsense, and gives [`Duration::MAX`].
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

/// Reads a duration as Go prints it: `6m0s`, `1.5h`, `20ms`, `0`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let (amount, after) = rest.split_at(rest.find(|it: char| it.is_alphabetic())?);
        let next = |it: char| it.is_ascii_digit() || it == '.';
        let (unit, after) = after.split_at(after.find(next).unwrap_or(after.len()));
        let amount = seconds(amount)?;
        total = total.saturating_add(match unit {
            "h" => amount.saturating_mul(3600),
            "m" => amount.saturating_mul(60),
            "s" => amount,
            "ms" => amount / 1000,
            "us" | "µs" | "μs" => amount / 1_000_000,
            "ns" => amount / 1_000_000_000,
            _ => return None,
        });
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

/// Reads the digits after a decimal point; what is finer than a nanosecond is dropped.
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
    fn durations_of_go() {
        for (text, millis) in [
            ("0", 0),
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
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(go_duration(&format!("{}h", "9".repeat(30))), Some(Duration::MAX));
        for text in ["", "1", "s", "1d", "-1s", "1s ", "1 s", "1s2", "1.s", "1S", "1sm"] {
            assert_eq!(go_duration(text), None, "{text:?}");
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
            let _ = (seconds(&text), pushback(&text), go_duration(&text));
        }

        #[test]
        fn near_misses_are_read_or_refused(text in "[0-9.]{0,24}([hmsun]{1,2}[0-9.]{0,4}){0,3}") {
            let _ = (seconds(&text), pushback(&text), go_duration(&text));
        }

        #[test]
        fn numbers_are_read_exactly(secs: u64, nanos in 0..1_000_000_000_u32) {
            let read = seconds(&format!("{secs}.{nanos:09}"));
            prop_assert_eq!(read, Some(Duration::new(secs, nanos)));
        }
    }
}
