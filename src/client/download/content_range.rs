//! The field `Content-Range` (RFC 9110 §14.4), read strictly.

use http::{HeaderMap, header};

/// The part of a representation that a response has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentRange {
    /// `bytes 0-99/1000`, or `bytes 0-99/*` without a total.
    Part { first: u64, last: u64, total: Option<u64> },
    /// `bytes */1000`, of a 416.
    Unsatisfied { total: u64 },
}

impl ContentRange {
    /// Reads the field; `None` if it is absent, invalid, or there more than once.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_RANGE).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.as_bytes())
    }

    /// Reads the value of the field; `None` if it is invalid or not in bytes.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, rest) = value.split_once(' ')?;
        let (range, total) = rest.trim_start_matches(' ').split_once('/')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if range == "*" {
            return Some(Self::Unsatisfied { total: number(total)? });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        // `last` is below the greatest number, so that the length is a number, too.
        let is_valid = first <= last && last < u64::MAX && total.is_none_or(|it| last < it);
        is_valid.then_some(Self::Part { first, last, total })
    }
}

/// Reads a number of digits alone: no sign, no space.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Reads any value, for fuzzing: what is read can be written and read again.
#[cfg(any(fuzzing, test))]
#[cfg_attr(not(fuzzing), expect(unreachable_pub))]
pub fn fuzz_content_range(value: &[u8]) {
    let Some(read) = ContentRange::parse(value) else { return };
    let written = match read {
        ContentRange::Part { first, last, total } => {
            let length = last.checked_sub(first).and_then(|it| it.checked_add(1));
            assert!(length.is_some());
            assert!(total.is_none_or(|it| last < it));
            format!(
                "bytes {first}-{last}/{}",
                total.map_or_else(|| "*".to_owned(), |it| it.to_string())
            )
        }
        ContentRange::Unsatisfied { total } => format!("bytes */{total}"),
    };
    assert_eq!(ContentRange::parse(written.as_bytes()), Some(read));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_ranges_are_read() {
        let part = |first, last, total| Some(ContentRange::Part { first, last, total });
        for (text, expected) in [
            ("bytes 0-99/100", part(0, 99, Some(100))),
            ("bytes 5-5/6", part(5, 5, Some(6))),
            ("BYTES 0-99/*", part(0, 99, None)),
            ("  bytes  1-2/3 ", part(1, 2, Some(3))),
            ("bytes */0", Some(ContentRange::Unsatisfied { total: 0 })),
            ("bytes */100", Some(ContentRange::Unsatisfied { total: 100 })),
            (
                "bytes 0-18446744073709551614/18446744073709551615",
                part(0, u64::MAX - 1, Some(u64::MAX)),
            ),
        ] {
            assert_eq!(ContentRange::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn invalid_ranges_are_none() {
        for text in [
            "",
            "bytes",
            "bytes ",
            "bytes=0-99/100",
            "bytes 0-99",
            "bytes 99-0/100",
            "bytes 0-100/100",
            "bytes 0-/100",
            "bytes -99/100",
            "bytes +0-99/100",
            "bytes 0-99/-100",
            "bytes 0 - 99/100",
            "bytes 0-99/100, bytes 0-1/100",
            "bytes */*",
            "bytes */",
            "items 0-99/100",
            "bytes 0-18446744073709551615/*",
            "bytes 0-18446744073709551616/*",
            "bytes 0x0-0x9/100",
            "bytes ٣-٤/100",
        ] {
            assert_eq!(ContentRange::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_can_be_written(text in "(bytes|Bytes|items)? ?[0-9*]{0,21}-?[0-9]{0,21}/?[0-9*]{0,21}") {
            fuzz_content_range(text.as_bytes());
        }
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_RANGE, "bytes 0-9/10".parse().unwrap());
        assert!(ContentRange::of(&headers).is_some());
        headers.append(header::CONTENT_RANGE, "bytes 0-9/10".parse().unwrap());
        assert_eq!(ContentRange::of(&headers), None);
    }
}
