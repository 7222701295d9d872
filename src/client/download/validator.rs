//! Validators: proofs that two responses have parts of one representation (RFC 9110 §8.8).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// A proof that the bytes of another response belong to those received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Validator {
    /// A strong entity tag.
    ETag(HeaderValue),
    /// A date that is strong, and the weak entity tag beside it.
    Modified { at: HeaderValue, etag: Option<HeaderValue> },
    /// The caller's word that the resource never changes.
    Immutable,
}

/// The relation of another response to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    Same,
    Different,
    /// The response has no validator of this kind.
    Unknown,
}

impl Validator {
    /// Returns the validator of a response; `None` if it has no strong one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let etag = only(headers, &header::ETAG);
        if let Some(etag) = etag.filter(|it| is_strong(it)) {
            return Some(Self::ETag(etag.clone()));
        }
        let at = only(headers, &header::LAST_MODIFIED)?;
        let sent = date(only(headers, &header::DATE)?)?;
        // A resource may change twice within the second that the field can tell apart.
        let is_strong = sent.duration_since(date(at)?).ok()? >= Duration::from_secs(1);
        let weak = etag.filter(|it| it.as_bytes().starts_with(b"W/"));
        is_strong.then(|| Self::Modified { at: at.clone(), etag: weak.cloned() })
    }

    /// Returns the header that lets a server send a part only of the same representation.
    ///
    /// Beside a weak tag the date may not stand in `If-Range` (RFC 9110 §13.1.5): then the server is
    /// to refuse the request if the resource was modified.
    pub(crate) fn condition(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::ETag(etag) => Some((header::IF_RANGE, etag.clone())),
            Self::Modified { at, etag: None } => Some((header::IF_RANGE, at.clone())),
            Self::Modified { at, etag: Some(_) } => Some((header::IF_UNMODIFIED_SINCE, at.clone())),
            Self::Immutable => None,
        }
    }

    /// Compares the validators of another response.
    pub(crate) fn compare(&self, headers: &HeaderMap) -> Sameness {
        match self {
            Self::Immutable => Sameness::Same,
            Self::ETag(etag) => compare(etag, headers, &header::ETAG),
            Self::Modified { at, etag } => {
                let dates = compare(at, headers, &header::LAST_MODIFIED);
                let tags = etag.as_ref().map(|it| compare(it, headers, &header::ETAG));
                if tags == Some(Sameness::Different) { Sameness::Different } else { dates }
            }
        }
    }

    /// Returns whether a part without validators may be appended. With a tag it may not: a 206 has
    /// the tag of the 200, and one without comes from a server that did not compare. A date is not
    /// repeated by all (RFC 9110 §15.3.7).
    pub(crate) fn may_be_absent(&self) -> bool {
        !matches!(self, Self::ETag(_))
    }

    /// Returns the value by which the resource is known, if there is one.
    pub(crate) fn value(&self) -> Option<&HeaderValue> {
        match self {
            Self::ETag(it) | Self::Modified { at: it, .. } => Some(it),
            Self::Immutable => None,
        }
    }
}

fn compare(known: &HeaderValue, headers: &HeaderMap, name: &HeaderName) -> Sameness {
    match only(headers, name) {
        Some(other) if other == known => Sameness::Same,
        None if !headers.contains_key(name) => Sameness::Unknown,
        _ => Sameness::Different,
    }
}

/// Returns a field that occurs once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether an entity tag is strong: quoted, without `W/`.
fn is_strong(etag: &HeaderValue) -> bool {
    match etag.as_bytes() {
        [b'"', opaque @ .., b'"'] => {
            opaque.iter().all(|it| matches!(it, 0x21 | 0x23..=0x7e | 0x80..))
        }
        _ => false,
    }
}

fn date(value: &HeaderValue) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn only_strong_validators_count() {
        let etag = |it| Some(Validator::ETag(HeaderValue::from_static(it)));
        let modified = |at, etag: Option<&'static str>| {
            let etag = etag.map(HeaderValue::from_static);
            Some(Validator::Modified { at: HeaderValue::from_static(at), etag })
        };
        let dates = [("last-modified", EARLY), ("date", LATER)];
        for (lines, expected) in [
            (&[("etag", "\"a\"")][..], etag("\"a\"")),
            (&[("etag", "\"\"")], etag("\"\"")),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "\"a")], None),
            (&[("etag", "\"")], None),
            (&[("etag", "\"a b\"")], None),
            (&[("etag", "\"a\""), ("etag", "\"b\"")], None),
            (&[], None),
            (&dates, modified(EARLY, None)),
            (&[("last-modified", EARLY), ("date", EARLY)], None),
            (&[("last-modified", LATER), ("date", EARLY)], None),
            (&[("last-modified", EARLY)], None),
            (&[("last-modified", "yesterday"), ("date", LATER)], None),
            (&[("etag", "\"a\""), dates[0], dates[1]], etag("\"a\"")),
            (&[("etag", "W/\"a\""), dates[0], dates[1]], modified(EARLY, Some("W/\"a\""))),
            (&[("etag", "a"), dates[0], dates[1]], modified(EARLY, None)),
        ] {
            assert_eq!(Validator::of(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_weak_tag_is_never_sent() {
        let lines = [("etag", "W/\"a\""), ("last-modified", EARLY), ("date", LATER)];
        let (name, value) = Validator::of(&headers(&lines)).unwrap().condition().unwrap();
        assert_eq!((name, value.to_str().unwrap()), (header::IF_UNMODIFIED_SINCE, EARLY));
        let (name, value) = Validator::of(&headers(&lines[1..])).unwrap().condition().unwrap();
        assert_eq!((name, value.to_str().unwrap()), (header::IF_RANGE, EARLY));
        assert_eq!(Validator::Immutable.condition(), None);
    }

    #[test]
    fn validators_are_compared() {
        let tag = Validator::of(&headers(&[("etag", "\"a\"")])).unwrap();
        let compare = |lines| tag.compare(&headers(lines));
        assert_eq!(compare(&[("etag", "\"a\"")]), Sameness::Same);
        assert_eq!(compare(&[("etag", "W/\"a\"")]), Sameness::Different);
        assert_eq!(compare(&[("etag", "\"b\"")]), Sameness::Different);
        assert_eq!(compare(&[("etag", "\"a\""), ("etag", "\"a\"")]), Sameness::Different);
        assert_eq!(compare(&[]), Sameness::Unknown);
        let lines = [("etag", "W/\"a\""), ("last-modified", EARLY), ("date", LATER)];
        let date = Validator::of(&headers(&lines)).unwrap();
        assert_eq!(date.compare(&headers(&lines)), Sameness::Same);
        assert_eq!(date.compare(&headers(&lines[1..])), Sameness::Same);
        assert_eq!(date.compare(&headers(&[])), Sameness::Unknown);
        assert_eq!(date.compare(&headers(&[("etag", "W/\"b\""), lines[1]])), Sameness::Different);
        assert_eq!(date.compare(&headers(&[("last-modified", LATER)])), Sameness::Different);
    }
}
