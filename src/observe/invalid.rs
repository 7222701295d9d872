//! The part of a request that kept it from being built, in words without secrets.

use std::{error::Error, fmt};

use http::HeaderName;

use crate::observe::redact::RedactedUrl;

/// The longest text that a message shows of an invalid part, in bytes.
const LONGEST: usize = 80;

/// The longest URL that is kept as it is, in bytes.
const KEPT: usize = 160;

/// An invalid part of a request. Its source is the error that the part caused.
#[derive(Debug)]
pub(crate) struct InvalidPart {
    part: Part,
    source: Box<dyn Error + Send + Sync>,
}

#[derive(Debug)]
enum Part {
    Url(String),
    HeaderName(String),
    HeaderValue(HeaderName),
}

impl InvalidPart {
    /// Names an invalid URL: the one of the error, or the text that is none, if that may be shown.
    pub(crate) fn url(given: Option<GivenUrl>, error: reqwest::Error) -> Self {
        let shown = match (error.url(), given) {
            (Some(url), _) => RedactedUrl::new(url, None).to_string(),
            (None, Some(given)) => given.to_string(),
            (None, None) => "…".to_owned(),
        };
        Self { part: Part::Url(shown), source: error.without_url().into() }
    }

    /// Names a text that is no name of a header.
    pub(crate) fn header_name(given: &[u8], error: impl Into<http::Error>) -> Self {
        let given = &given[..given.len().min(LONGEST)];
        let part = Part::HeaderName(given.escape_ascii().to_string());
        Self { part, source: error.into().into() }
    }

    /// Names a header whose value is invalid. The value may be a secret, and is not shown.
    pub(crate) fn header_value(name: HeaderName, error: impl Into<http::Error>) -> Self {
        Self { part: Part::HeaderValue(name), source: error.into().into() }
    }
}

impl fmt::Display for InvalidPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Url(given) => write!(f, "invalid URL `{given}`"),
            Part::HeaderName(given) => write!(f, "invalid header name `{given}`"),
            Part::HeaderValue(name) => write!(f, "invalid value of header `{name}`"),
        }
    }
}

impl Error for InvalidPart {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// The text given for a URL, kept on the stack, as every request has one and few need it. Of a text
/// that is longer than [`KEPT`] only what may be shown, so that the others need not be read.
pub(crate) struct GivenUrl {
    bytes: [u8; KEPT],
    len: usize,
    /// `true` if `bytes` have all of it.
    is_whole: bool,
}

impl GivenUrl {
    #[inline]
    pub(crate) fn new(text: &str) -> Self {
        let kept = if text.len() <= KEPT { text } else { shown(text) }.as_bytes();
        let len = kept.len().min(KEPT);
        let mut bytes = [0; KEPT];
        bytes[..len].copy_from_slice(&kept[..len]);
        Self { bytes, len, is_whole: len == text.len() }
    }
}

/// Returns the part of a text that is neither userinfo nor query nor fragment, however wrong the
/// text is as a URL: nothing before an `@`.
fn shown(text: &str) -> &str {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    match text.rfind('@') {
        // A password may have a `?` in it.
        Some(at) if at >= end => "",
        Some(at) => &text[at + 1..end],
        None => &text[..end],
    }
}

/// Without userinfo, query and fragment; at most [`LONGEST`] bytes.
impl fmt::Display for GivenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = String::from_utf8_lossy(&self.bytes[..self.len]);
        let shown = shown(&kept).as_bytes();
        let shown = &shown[..shown.len().min(LONGEST)];
        let is_whole = self.is_whole && shown.len() == self.len;
        // A character may be cut.
        let text = String::from_utf8_lossy(shown);
        let text = text.trim_end_matches('\u{fffd}').escape_debug();
        write!(f, "{text}{}", if is_whole { "" } else { "…" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_invalid_url_is_shown_without_its_secrets() {
        let long = format!("/{}é", "a".repeat(LONGEST - 2));
        let longer = "a".repeat(KEPT);
        for (given, expected) in [
            ("nonsense", "nonsense"),
            ("", ""),
            ("/orders?token=hunter2", "/orders…"),
            ("/orders#hunter2", "/orders…"),
            ("https://u:hunter2@[bad/x", "[bad/x…"),
            ("https://u:hun/ter2@host/x?q", "host/x…"),
            ("https://u:hun?ter2@host/x", "…"),
            ("/a?mail=hunter2@b.example", "…"),
            ("line\nbreak", "line\\nbreak"),
            (&long, &format!("/{}…", "a".repeat(LONGEST - 2))),
            (&format!("{longer}@[bad"), "[bad…"),
            (&format!("/{longer}"), &format!("/{}…", "a".repeat(LONGEST - 1))),
        ] {
            assert_eq!(GivenUrl::new(given).to_string(), expected, "{given:?}");
        }
    }

    #[test]
    fn a_value_is_never_shown() {
        let name = HeaderName::from_static("authorization");
        let error = http::HeaderValue::from_str("hunter2\n").unwrap_err();
        let invalid = InvalidPart::header_value(name, error);
        assert_eq!(invalid.to_string(), "invalid value of header `authorization`");
        assert!(!format!("{invalid:?}").contains("hunter2"));
        let error = HeaderName::from_bytes(b"x y").unwrap_err();
        let invalid = InvalidPart::header_name(b"x y", error);
        assert_eq!(invalid.to_string(), "invalid header name `x y`");
        assert_eq!(invalid.source().unwrap().to_string(), "invalid HTTP header name");
    }

    proptest! {
        #[test]
        fn no_password_and_no_query_is_shown(before in ".{0,9}", after in ".{0,190}") {
            for text in [format!("{before}?S3CRET{after}"), format!("https://u:S3CRET{before}@{after}")] {
                prop_assert!(!GivenUrl::new(&text).to_string().contains("S3CRET"));
            }
        }
    }
}
