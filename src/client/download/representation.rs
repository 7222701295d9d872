//! The first response: what is downloaded, how long it is, and whether a part of it can be had later.

use std::fmt;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use reqwest::Response;

use crate::client::download::content_range::ContentRange;
use crate::client::download::validator::Validator;
use crate::common::response::{has_type, is_open_ended};

/// The head of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    /// The exact length of its body, if that is known.
    pub(crate) length: Option<u64>,
}

impl<'a> Head<'a> {
    /// Returns the head of a response. The length that it announces counts: that of the body, where
    /// both are known, may be the shorter one of a body that was cut.
    pub(crate) fn of(response: &'a Response) -> Self {
        let headers = response.headers();
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let length = announced.or_else(|| response.content_length());
        Self { status: response.status(), version: response.version(), headers, length }
    }
}

/// The reason why a download that broke off cannot go on from there.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::{DownloadErrorKind, NotResumable};
///
/// if let Err(error) = client.get("https://example.com/a.zip").download().bytes().await {
///     if error.kind() == DownloadErrorKind::NotResumable(NotResumable::NoValidator) {
///         eprintln!("say `immutable` if the URL names a digest");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotResumable {
    /// The request is no GET.
    Method,
    /// The request has a body that can be sent only once.
    Body,
    /// The request has a `Range` of its own that is no single range of bytes.
    Range,
    /// The body is encoded: ranges would count encoded bytes.
    Encoded,
    /// The body has several parts, or is an open-ended stream of events.
    Stream,
    /// The server says that it sends no ranges.
    NoRanges,
    /// The body ends where the connection does, so that a break cannot be told from the end.
    UnknownLength,
    /// The response has no strong validator: a weak or no `ETag`, and no `Last-Modified` at least a
    /// second before its `Date`. See [`immutable`](crate::DownloadBuilder::immutable).
    NoValidator,
    /// The server's response to a range is invalid or does not prove what it belongs to.
    InvalidRange,
}

impl fmt::Display for NotResumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the request is no GET",
            Self::Body => "the request has a body that can be sent only once",
            Self::Range => "the request has a range of its own that is no single range of bytes",
            Self::Encoded => "the body is encoded",
            Self::Stream => "the body is multipart or a stream of events",
            Self::NoRanges => "the server sends no ranges",
            Self::UnknownLength => "the body has no length",
            Self::NoValidator => "the response has no strong validator",
            Self::InvalidRange => "the server's response to a range is invalid",
        })
    }
}

/// The range that the caller's own request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    Whole,
    From { first: u64, last: Option<u64> },
    Suffix,
    Other,
}

impl Requested {
    /// Reads the `Range` of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::RANGE).iter();
        let Some(value) = values.next() else { return Self::Whole };
        let value = if values.next().is_none() { value.to_str().ok() } else { None };
        value.and_then(Self::parse).unwrap_or(Self::Other)
    }

    fn parse(value: &str) -> Option<Self> {
        let number = |it: &str| it.bytes().all(|b| b.is_ascii_digit()).then(|| it.parse().ok())?;
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", last) => number(last).map(|_: u64| Self::Suffix),
            (first, "") => Some(Self::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }
}

/// The caller's part in what is downloaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) is_get: bool,
    pub(crate) range: Requested,
    /// `true` if the caller says that the resource never changes.
    pub(crate) immutable: bool,
    /// The length that the caller expects.
    pub(crate) length: Option<u64>,
}

impl Asked {
    /// Reads the caller's request.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let range = Requested::of(headers);
        Self { is_get: method == Method::GET, range, immutable: false, length: None }
    }

    /// Returns whether what an earlier process left can be gone on with.
    pub(crate) fn accepts(&self, left: &Representation) -> bool {
        let is_proved = self.immutable || left.validator != Ok(Validator::Immutable);
        self.is_get && is_proved && self.length.is_none_or(|it| left.length == Some(it))
    }
}

/// A first response that is no download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unexpected {
    Status(StatusCode),
    Length { expected: u64, announced: u64 },
}

/// The thing that is downloaded, as the first response describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Representation {
    /// The offset of the first byte that was asked for, in the whole.
    pub(crate) start: u64,
    /// The number of bytes that were asked for, if it is known.
    pub(crate) length: Option<u64>,
    /// The length of the whole, if it is known.
    pub(crate) complete: Option<u64>,
    /// `true` if the caller asked for a range with an end.
    pub(crate) is_bounded: bool,
    pub(crate) validator: Result<Validator, NotResumable>,
}

impl Representation {
    /// Reads the first response.
    pub(crate) fn read(asked: &Asked, head: &Head<'_>) -> Result<Self, Unexpected> {
        let (start, mut length, complete) = match (head.status, asked.range) {
            (StatusCode::OK, _) => (0, head.length, head.length),
            (StatusCode::PARTIAL_CONTENT, Requested::Other) => (0, head.length, None),
            (StatusCode::PARTIAL_CONTENT, range @ (Requested::From { .. } | Requested::Suffix)) => {
                part(range, head).ok_or(Unexpected::Status(head.status))?
            }
            (status, _) => return Err(Unexpected::Status(status)),
        };
        match (length, asked.length) {
            (Some(announced), Some(expected)) if announced != expected => {
                return Err(Unexpected::Length { expected, announced });
            }
            (None, expected) => length = expected,
            _ => {}
        }
        let is_bounded = matches!(asked.range, Requested::From { last: Some(_), .. })
            && head.status == StatusCode::PARTIAL_CONTENT;
        let validator = match obstacle(asked, head, length) {
            Some(obstacle) => Err(obstacle),
            None if asked.immutable => Ok(Validator::Immutable),
            None => Validator::of(head.headers).ok_or(NotResumable::NoValidator),
        };
        Ok(Self { start, length, complete, is_bounded, validator })
    }

    /// Returns a representation of which nothing is known yet.
    pub(crate) fn unknown() -> Self {
        let validator = Err(NotResumable::NoValidator);
        Self { start: 0, length: None, complete: None, is_bounded: false, validator }
    }

    /// Returns the `Range` that asks for all from the byte `received` on.
    pub(crate) fn range_from(&self, received: u64) -> String {
        let first = self.start.saturating_add(received);
        match self.length.filter(|_| self.is_bounded) {
            Some(length) => {
                format!("bytes={first}-{}", self.start.saturating_add(length).saturating_sub(1))
            }
            None => format!("bytes={first}-"),
        }
    }
}

/// Reads a 206 to the caller's own range: its start, its length, and that of the whole.
fn part(range: Requested, head: &Head<'_>) -> Option<(u64, Option<u64>, Option<u64>)> {
    let ContentRange::Part { first, last, total } = ContentRange::of(head.headers)? else {
        return None;
    };
    let length = last - first + 1;
    let is_asked = match range {
        Requested::From { first: asked, last: end } => {
            asked == first && end.is_none_or(|end| last <= end)
        }
        _ => true,
    };
    let is_whole = head.length.is_none_or(|it| it == length);
    (is_asked && is_whole).then_some((first, Some(length), total))
}

/// Returns the reason why the response cannot be resumed whatever its validator.
fn obstacle(asked: &Asked, head: &Head<'_>, length: Option<u64>) -> Option<NotResumable> {
    if !asked.is_get {
        return Some(NotResumable::Method);
    }
    if asked.range == Requested::Other {
        return Some(NotResumable::Range);
    }
    if is_encoded(head.headers) {
        return Some(NotResumable::Encoded);
    }
    if is_stream(head.headers) {
        return Some(NotResumable::Stream);
    }
    let refuses = head.headers.get(header::ACCEPT_RANGES);
    if refuses.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"none")) {
        return Some(NotResumable::NoRanges);
    }
    let is_framed =
        head.version >= Version::HTTP_2 || head.headers.contains_key(header::TRANSFER_ENCODING);
    (length.is_none() && !is_framed).then_some(NotResumable::UnknownLength)
}

/// Returns whether the body has a coding.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let is_identity = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"identity");
    !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity)
}

/// Returns whether the body has several parts, or is open-ended.
pub(crate) fn is_stream(headers: &HeaderMap) -> bool {
    is_open_ended(headers) || has_type(headers, &["multipart/byteranges"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        range: Option<&'static str>,
        status: u16,
        lines: &[(&'static str, &'static str)],
        length: Option<u64>,
    ) -> Result<Representation, Unexpected> {
        let mut request = HeaderMap::new();
        range.map(|it| request.insert(header::RANGE, HeaderValue::from_static(it)));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let head = Head { status, version: Version::HTTP_11, headers: &headers, length };
        Representation::read(&Asked::of(&Method::GET, &request), &head)
    }

    const TAG: (&str, &str) = ("etag", "\"a\"");

    #[test]
    fn only_a_get_resumes_what_an_earlier_get_left() {
        let left = read(None, 200, &[TAG], Some(100)).unwrap();
        for (method, accepts) in [(Method::GET, true), (Method::POST, false)] {
            assert_eq!(Asked::of(&method, &HeaderMap::new()).accepts(&left), accepts, "{method}");
        }
    }

    #[test]
    fn a_whole_resource_is_resumed_from_any_byte() {
        let it = read(None, 200, &[TAG], Some(100)).unwrap();
        assert_eq!((it.start, it.length, it.complete), (0, Some(100), Some(100)));
        assert!(it.validator.is_ok());
        assert_eq!(it.range_from(40), "bytes=40-");
    }

    #[test]
    fn a_range_of_the_caller_is_resumed_within_it() {
        let lines = [TAG, ("content-range", "bytes 10-19/100")];
        let it = read(Some("bytes=10-19"), 206, &lines, Some(10)).unwrap();
        assert_eq!((it.start, it.length, it.complete), (10, Some(10), Some(100)));
        assert_eq!(it.range_from(4), "bytes=14-19");
        let it = read(Some("bytes=10-50"), 206, &lines, Some(10)).unwrap();
        assert_eq!(it.range_from(4), "bytes=14-19", "the server has less");
        let lines = [TAG, ("content-range", "bytes 90-99/100")];
        let it = read(Some("bytes=-10"), 206, &lines, Some(10)).unwrap();
        assert_eq!(it.range_from(4), "bytes=94-");
        let it = read(Some("bytes=10-19"), 200, &[TAG], Some(100)).unwrap();
        assert_eq!((it.start, it.length), (0, Some(100)), "the server ignores ranges");
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_no_download() {
        let unexpected = Err(Unexpected::Status(StatusCode::PARTIAL_CONTENT));
        let range = [TAG, ("content-range", "bytes 10-19/100")];
        assert_eq!(read(None, 206, &range, Some(10)), unexpected);
        assert_eq!(read(Some("bytes=11-19"), 206, &range, Some(10)), unexpected);
        assert_eq!(read(Some("bytes=10-15"), 206, &range, Some(10)), unexpected);
        assert_eq!(read(Some("bytes=10-19"), 206, &range, Some(9)), unexpected);
        assert_eq!(read(Some("bytes=10-19"), 206, &[TAG], Some(10)), unexpected);
        let no_content = Err(Unexpected::Status(StatusCode::NO_CONTENT));
        assert_eq!(read(None, 204, &[TAG], None), no_content);
    }

    #[test]
    fn obstacles_have_names() {
        let length = Some(100);
        for (lines, length, expected) in [
            (&[TAG, ("content-encoding", "gzip")][..], length, NotResumable::Encoded),
            (&[TAG, ("content-type", "text/event-stream")], length, NotResumable::Stream),
            (
                &[TAG, ("content-type", "Multipart/ByteRanges; boundary=x")],
                length,
                NotResumable::Stream,
            ),
            (&[TAG, ("accept-ranges", "None")], length, NotResumable::NoRanges),
            (&[TAG], None, NotResumable::UnknownLength),
            (&[("etag", "W/\"a\"")], length, NotResumable::NoValidator),
            (&[], length, NotResumable::NoValidator),
        ] {
            assert_eq!(read(None, 200, lines, length).unwrap().validator, Err(expected));
        }
        let chunked = [TAG, ("transfer-encoding", "chunked")];
        assert!(read(None, 200, &chunked, None).unwrap().validator.is_ok());
        let identity = [TAG, ("content-encoding", "identity")];
        assert!(read(None, 200, &identity, length).unwrap().validator.is_ok());
        let several = read(Some("bytes=0-1,4-5"), 206, &[TAG], length).unwrap();
        assert_eq!(several.validator, Err(NotResumable::Range));
    }

    #[test]
    fn ranges_of_requests_are_read() {
        for (text, expected) in [
            ("bytes=0-", Requested::From { first: 0, last: None }),
            ("bytes=5-9", Requested::From { first: 5, last: Some(9) }),
            ("bytes=-9", Requested::Suffix),
            ("bytes=9-5", Requested::Other),
            ("bytes=-", Requested::Other),
            ("bytes=0-1,3-4", Requested::Other),
            ("items=0-1", Requested::Other),
            ("bytes=0-18446744073709551616", Requested::Other),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(text));
            assert_eq!(Requested::of(&headers), expected, "{text}");
        }
    }
}
