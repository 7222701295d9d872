//! The response to a request for the rest: appended, skipped into, or refused.

use http::{StatusCode, header};

use crate::client::download::content_range::ContentRange;
use crate::client::download::representation::{self, Head, Representation};
use crate::client::download::validator::Sameness;

/// The most bytes that are read again because a server begins a range before the byte asked for.
const MOST_SKIPPED: u64 = 1024 * 1024;

/// The meaning of a response to a request for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The rest, after `skip` bytes that are known already.
    Rest {
        skip: u64,
        /// The number of bytes after those; `None` up to the end of the body.
        take: Option<u64>,
        /// The length of the whole, if it was not known before.
        complete: Option<u64>,
    },
    /// There is no rest: all was received.
    Complete,
    /// The resource is another one now.
    Changed,
    /// The whole resource, maybe another one than before.
    Whole,
    /// The range is invalid, or not proved to belong to the same resource.
    Invalid,
    /// The URL is not valid any more.
    NeedsNewUrl,
    /// Says nothing of the resource.
    Other,
}

impl Reply {
    /// Reads a response to a request for all bytes from `received` on.
    pub(crate) fn read(known: &Representation, received: u64, head: &Head<'_>) -> Self {
        match head.status {
            StatusCode::PARTIAL_CONTENT => Self::part(known, received, head),
            StatusCode::OK => Self::whole(known, received, head),
            StatusCode::RANGE_NOT_SATISFIABLE => Self::unsatisfied(known, received, head),
            StatusCode::PRECONDITION_FAILED => Self::Changed,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::NeedsNewUrl,
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => Self::Invalid,
            _ => Self::Other,
        }
    }

    fn part(known: &Representation, received: u64, head: &Head<'_>) -> Self {
        let Ok(validator) = &known.validator else { return Self::Invalid };
        let Some(ContentRange::Part { first, last, total }) = ContentRange::of(head.headers) else {
            return Self::Invalid;
        };
        if representation::is_encoded(head.headers) || representation::is_stream(head.headers) {
            return Self::Invalid;
        }
        let is_other = known.complete.is_some() && total.is_some() && known.complete != total;
        match validator.compare(head.headers) {
            Sameness::Different => return Self::Changed,
            _ if is_other => return Self::Changed,
            Sameness::Unknown if !validator.may_be_absent() => return Self::Invalid,
            _ => {}
        }
        // A body that was decoded on the way has no length. Where the first had none either, both
        // may have been decoded.
        let is_exact = match head.length {
            Some(length) => length == last - first + 1,
            None => known.length.is_some(),
        };
        let Some(offset) = known.start.checked_add(received) else { return Self::Invalid };
        let end = known.length.and_then(|it| known.start.checked_add(it));
        let is_beyond = end.is_some_and(|end| last >= end);
        if !is_exact || is_beyond || first > offset || last < offset {
            return Self::Invalid;
        }
        match offset - first {
            skip if skip > MOST_SKIPPED => Self::Invalid,
            skip => Self::Rest { skip, take: Some(last - offset + 1), complete: total },
        }
    }

    /// A 200: the server ignores ranges, or the resource changed.
    fn whole(known: &Representation, received: u64, head: &Head<'_>) -> Self {
        let is_same = known.validator.as_ref().is_ok_and(|validator| {
            let has_length = known.complete.is_some() && known.complete == head.length;
            let is_exact = has_length || known.complete.is_none() && head.length.is_none();
            let is_proved = validator.compare(head.headers) == Sameness::Same;
            is_proved && is_exact && (has_length || !validator.may_be_absent())
        });
        let skip = known.start.checked_add(received);
        match skip.filter(|_| is_same && !representation::is_encoded(head.headers)) {
            Some(skip) => {
                let take = known.length.map(|it| it.saturating_sub(received));
                Self::Rest { skip, take, complete: None }
            }
            None => Self::Whole,
        }
    }

    fn unsatisfied(known: &Representation, received: u64, head: &Head<'_>) -> Self {
        let total = match ContentRange::of(head.headers) {
            Some(ContentRange::Unsatisfied { total }) => Some(total),
            _ => None,
        };
        let is_other = head.headers.contains_key(header::ETAG)
            && known
                .validator
                .as_ref()
                .is_ok_and(|it| it.compare(head.headers) == Sameness::Different);
        let is_end = total.is_some()
            && total == known.start.checked_add(received)
            && known.length.is_none_or(|it| it == received)
            && known.complete.is_none_or(|it| Some(it) == total);
        if is_end && !is_other { Self::Complete } else { Self::Changed }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Version};

    use super::*;
    use crate::client::download::representation::NotResumable;
    use crate::client::download::validator::Validator;

    const TAG: (&str, &str) = ("etag", "\"a\"");
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn tagged() -> Representation {
        Representation {
            start: 0,
            length: Some(100),
            complete: Some(100),
            is_bounded: false,
            validator: Ok(Validator::ETag(HeaderValue::from_static(TAG.1))),
        }
    }

    fn reply(
        known: &Representation,
        status: u16,
        lines: &[(&'static str, &'static str)],
        length: Option<u64>,
    ) -> Reply {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let head = Head { status, version: Version::HTTP_11, headers: &headers, length };
        Reply::read(known, 40, &head)
    }

    fn rest(skip: u64, take: u64) -> Reply {
        Reply::Rest { skip, take: Some(take), complete: Some(100) }
    }

    /// The table of 206 responses after 40 of 100 bytes.
    #[test]
    fn a_part_is_appended_only_if_it_is_proved_to_belong_there() {
        let range = |it| [TAG, ("content-range", it)];
        for (lines, length, expected) in [
            (&range("bytes 40-99/100")[..], Some(60), rest(0, 60)),
            (&range("bytes 40-99/100"), None, rest(0, 60)),
            (&range("bytes 40-79/100"), Some(40), rest(0, 40)),
            (&range("bytes 40-40/100"), Some(1), rest(0, 1)),
            (&range("bytes 30-99/100"), Some(70), rest(10, 60)),
            (&range("bytes 0-99/100"), Some(100), rest(40, 60)),
            (
                &range("bytes 40-99/*"),
                Some(60),
                Reply::Rest { skip: 0, take: Some(60), complete: None },
            ),
            (&range("bytes 40-99/100"), Some(59), Reply::Invalid),
            (&range("bytes 41-99/100"), Some(59), Reply::Invalid),
            (&range("bytes 0-39/100"), Some(40), Reply::Invalid),
            (&range("bytes 40-99/101"), Some(60), Reply::Changed),
            (&range("bytes 40-100/*"), Some(61), Reply::Invalid),
            (&range("bytes */100"), Some(60), Reply::Invalid),
            (&[TAG], Some(60), Reply::Invalid),
            (&[("content-range", "bytes 40-99/100")], Some(60), Reply::Invalid),
            (&[("etag", "\"b\""), ("content-range", "bytes 40-99/100")], Some(60), Reply::Changed),
            (
                &[("etag", "W/\"a\""), ("content-range", "bytes 40-99/100")],
                Some(60),
                Reply::Changed,
            ),
            (
                &[TAG, ("content-range", "bytes 40-99/100"), ("content-encoding", "gzip")],
                Some(60),
                Reply::Invalid,
            ),
            (
                &[TAG, ("content-type", "multipart/byteranges; boundary=x")],
                Some(60),
                Reply::Invalid,
            ),
        ] {
            assert_eq!(reply(&tagged(), 206, lines, length), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_part_far_before_the_byte_asked_for_is_invalid() {
        let known = Representation { complete: Some(1 << 40), length: Some(1 << 40), ..tagged() };
        let headers = HeaderMap::from_iter([
            (header::ETAG, HeaderValue::from_static(TAG.1)),
            (
                header::CONTENT_RANGE,
                HeaderValue::from_static("bytes 0-1099511627775/1099511627776"),
            ),
        ]);
        let status = StatusCode::PARTIAL_CONTENT;
        let head =
            Head { status, version: Version::HTTP_11, headers: &headers, length: Some(1 << 40) };
        assert!(matches!(Reply::read(&known, 1_048_576, &head), Reply::Rest { .. }));
        assert_eq!(Reply::read(&known, 1_048_577, &head), Reply::Invalid);
    }

    /// A part with the date alone: RFC 9110 §15.3.7 lets servers leave it away.
    #[test]
    fn a_dated_part_need_not_repeat_its_date() {
        let at = HeaderValue::from_static(DATE);
        let known =
            Representation { validator: Ok(Validator::Modified { at, etag: None }), ..tagged() };
        let range = ("content-range", "bytes 40-99/100");
        assert_eq!(reply(&known, 206, &[range], Some(60)), rest(0, 60));
        assert_eq!(reply(&known, 206, &[range, ("last-modified", DATE)], Some(60)), rest(0, 60));
        let later = ("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(reply(&known, 206, &[range, later], Some(60)), Reply::Changed);
        assert_eq!(reply(&known, 200, &[], Some(100)), Reply::Whole, "nothing is proved");
    }

    #[test]
    fn without_any_length_a_part_needs_one() {
        let known = Representation { length: None, complete: None, ..tagged() };
        let lines = [TAG, ("content-range", "bytes 40-99/100")];
        assert_eq!(reply(&known, 206, &lines, Some(60)), rest(0, 60));
        assert_eq!(reply(&known, 206, &lines, None), Reply::Invalid);
    }

    #[test]
    fn a_whole_resource_is_skipped_into_only_if_it_is_the_same() {
        let skipped = Reply::Rest { skip: 40, take: Some(60), complete: None };
        assert_eq!(reply(&tagged(), 200, &[TAG], Some(100)), skipped);
        assert_eq!(reply(&tagged(), 200, &[TAG], Some(99)), Reply::Whole);
        assert_eq!(reply(&tagged(), 200, &[TAG], None), Reply::Whole);
        assert_eq!(reply(&tagged(), 200, &[("etag", "\"b\"")], Some(100)), Reply::Whole);
        assert_eq!(reply(&tagged(), 200, &[], Some(100)), Reply::Whole);
        let encoded = [TAG, ("content-encoding", "br")];
        assert_eq!(reply(&tagged(), 200, &encoded, Some(100)), Reply::Whole);
        let immutable = Representation { validator: Ok(Validator::Immutable), ..tagged() };
        assert_eq!(reply(&immutable, 200, &[], Some(100)), skipped);
        assert_eq!(reply(&immutable, 200, &[], Some(99)), Reply::Whole);
        let ranged = Representation { start: 10, length: Some(50), ..tagged() };
        let expected = Reply::Rest { skip: 50, take: Some(10), complete: None };
        assert_eq!(reply(&ranged, 200, &[TAG], Some(100)), expected);
        // Without lengths a validator proves it only if every response has to repeat it.
        let open = Representation { length: None, complete: None, ..tagged() };
        let expected = Reply::Rest { skip: 40, take: None, complete: None };
        assert_eq!(reply(&open, 200, &[TAG], None), expected);
        let at = HeaderValue::from_static(DATE);
        let dated =
            Representation { validator: Ok(Validator::Modified { at, etag: None }), ..open };
        assert_eq!(reply(&dated, 200, &[("last-modified", DATE)], None), Reply::Whole);
    }

    #[test]
    fn statuses_have_their_meaning() {
        let end = Representation { length: Some(40), complete: Some(40), ..tagged() };
        let open = Representation { length: None, complete: None, ..tagged() };
        let total = [("content-range", "bytes */40")];
        assert_eq!(reply(&end, 416, &total, None), Reply::Complete);
        assert_eq!(reply(&open, 416, &total, None), Reply::Complete);
        assert_eq!(reply(&end, 416, &[total[0], TAG], None), Reply::Complete);
        assert_eq!(reply(&tagged(), 416, &total, None), Reply::Changed);
        assert_eq!(reply(&open, 416, &[], None), Reply::Changed);
        assert_eq!(reply(&end, 416, &[total[0], ("etag", "\"b\"")], None), Reply::Changed);
        for (status, expected) in [
            (412, Reply::Changed),
            (401, Reply::NeedsNewUrl),
            (403, Reply::NeedsNewUrl),
            (204, Reply::Invalid),
            (304, Reply::Invalid),
            (302, Reply::Other),
            (404, Reply::Other),
            (500, Reply::Other),
        ] {
            assert_eq!(reply(&tagged(), status, &[], None), expected, "{status}");
        }
    }

    #[test]
    fn without_a_validator_nothing_is_appended() {
        let known = Representation { validator: Err(NotResumable::NoValidator), ..tagged() };
        let lines = [TAG, ("content-range", "bytes 40-99/100")];
        assert_eq!(reply(&known, 206, &lines, Some(60)), Reply::Invalid);
        assert_eq!(reply(&known, 200, &[TAG], Some(100)), Reply::Whole);
    }
}
