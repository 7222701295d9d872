//! URLs safe to log: without userinfo, query and fragment; and redaction of texts with URLs.

use std::{borrow::Cow, fmt};

use reqwest::Url;

use crate::common::fault::BoxError;
use crate::common::path_redactor::PathRedactor;

/// A URL safe to log: `Display` and `Debug` show neither userinfo nor query nor fragment, and of
/// the path only what [`redact_path`](crate::ResilientConfigBuilder::redact_path) leaves.
///
/// [`full`](Self::full) gives the whole [`Url`], secrets included.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::ResilientConfig;
///
/// let config = ResilientConfig::builder()
///     .on_retry(|it| eprintln!("{}, at {:?}", it.url, it.url.full().host_str()))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RedactedUrl<'a> {
    url: &'a Url,
    path: Option<&'a PathRedactor>,
}

impl<'a> RedactedUrl<'a> {
    pub(crate) fn new(url: &'a Url, path: Option<&'a PathRedactor>) -> Self {
        Self { url, path }
    }

    /// Returns the whole URL, secrets included: do not log it.
    pub fn full(&self) -> &'a Url {
        self.url
    }

    /// Returns a text about a request for this URL without the secrets of any URL in it.
    pub(crate) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = redact(text, self.path);
        // Secrets may occur without the rest of the URL.
        let mut hide = |secret: &str, shown: &str| {
            if secret.len() >= SHORTEST_SECRET && text.contains(secret) {
                text = Cow::Owned(text.replace(secret, shown));
            }
        };
        if let Some(query) = self.url.query() {
            hide(&format!("?{query}"), "");
            hide(query, "…");
        }
        hide(self.url.password().unwrap_or_default(), "…");
        hide(self.url.username(), "…");
        if let Some(path) = self.path {
            let shown = path.redact(self.url.path());
            if shown != self.url.path() {
                hide(self.url.path(), &shown);
            }
        }
        text
    }
}

/// A shorter text, such as the query `a`, occurs anywhere, and is no secret.
const SHORTEST_SECRET: usize = 4;

/// Returns an error of reqwest without the secrets of its URL, and without a URL that is the one of
/// the request, which the error around it shows; any other error as it is.
pub(crate) fn url_of(
    error: BoxError,
    request: Option<&Url>,
    path: Option<&PathRedactor>,
) -> BoxError {
    let mut error = match error.downcast::<reqwest::Error>() {
        Ok(error) => error,
        Err(other) => return other,
    };
    let Some(url) = error.url_mut() else { return error };
    if request.is_some_and(|it| it == url) {
        return error.without_url().into();
    }
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    if let Some(path) = path {
        let shown = path.redact(url.path());
        if shown != url.path() {
            url.set_path(&shown);
        }
    }
    error
}

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url;
        match url.host_str() {
            Some(host) => write!(f, "{}://{host}", url.scheme())?,
            // Without a host any part may be a secret.
            None => return write!(f, "{}:…", url.scheme()),
        }
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        match self.path {
            Some(path) => f.write_str(&path.redact(url.path())),
            None => f.write_str(url.path()),
        }
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns a text, such as an error of another crate, without the secrets of the URLs in it.
pub(crate) fn redact<'t>(text: &'t str, path: Option<&PathRedactor>) -> Cow<'t, str> {
    let is_end = |it: char| it.is_whitespace() || matches!(it, '"' | '<' | '>');
    let mut redacted = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let is_scheme = |it: char| it.is_ascii_alphanumeric() || matches!(it, '+' | '-' | '.');
        let start = rest[..at]
            .rfind(|it| !is_scheme(it))
            .map_or(0, |it| it + rest[it..].chars().next().map_or(0, char::len_utf8));
        let end = rest[at..].find(is_end).map_or(rest.len(), |it| at + it);
        // A bracket, a stop or a quote at the end belongs to the sentence: in a query it would be
        // hidden anyway.
        let word = &rest[start..end];
        let url = word.trim_end_matches([')', ']', ',', '.', ';', ':', '\'', '`']);
        redacted.push_str(&rest[..start]);
        match Url::parse(url) {
            Ok(parsed) if path.is_none() && is_plain(&parsed) => redacted.push_str(word),
            Ok(parsed) => {
                redacted.push_str(&RedactedUrl::new(&parsed, path).to_string());
                redacted.push_str(&word[url.len()..]);
            }
            Err(_) => redacted.push('…'),
        }
        rest = &rest[end..];
    }
    if redacted.is_empty() {
        return Cow::Borrowed(text);
    }
    redacted.push_str(rest);
    Cow::Owned(redacted)
}

/// Returns whether a URL has none of the parts that are never shown.
fn is_plain(url: &Url) -> bool {
    let has_userinfo = !url.username().is_empty() || url.password().is_some();
    url.has_host() && !has_userinfo && url.query().is_none() && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let check = |url: &str, expected: &str| {
            let url = Url::parse(url).unwrap();
            assert_eq!(RedactedUrl::new(&url, None).to_string(), expected);
            assert_eq!(format!("{:?}", RedactedUrl::new(&url, None)), expected);
        };
        check("https://u:hunter2@h.example/a?token=S#f", "https://h.example/a");
        check("http://[::1]:8080/a/b", "http://[::1]:8080/a/b");
        check("data:text/plain,hunter2", "data:…");
    }

    #[test]
    fn a_function_hides_what_is_secret_in_a_path() {
        let hide = PathRedactor::new(|path| path.replace("hunter2", "…"));
        let url = Url::parse("https://h.example/bot/hunter2/send?q=1").unwrap();
        assert_eq!(RedactedUrl::new(&url, Some(&hide)).to_string(), "https://h.example/bot/…/send");
        let text = redact("see https://h.example/hunter2", Some(&hide));
        assert_eq!(text, "see https://h.example/…");
        let redacted = RedactedUrl::new(&url, Some(&hide));
        assert_eq!(redacted.redact("no route to /bot/hunter2/send"), "no route to /bot/…/send");
        assert_eq!(hide, hide.clone());
        assert_ne!(hide, PathRedactor::new(str::to_owned));
    }

    #[test]
    fn an_error_of_reqwest_shows_its_url_without_secrets_unless_it_is_the_requests() {
        let url = Url::parse("https://u:hunter2@a.example/hunter2/x?t=hunter2#hunter2").unwrap();
        let other = Url::parse("https://b.example/").unwrap();
        let hide = PathRedactor::new(|path| path.replace("hunter2", "…"));
        let shown = |request, path| {
            use reqwest::ResponseBuilderExt;
            let response = http::Response::builder().status(500).url(url.clone()).body("").unwrap();
            let error = reqwest::Response::from(response).error_for_status().unwrap_err();
            let shown = url_of(error.into(), Some(request), path);
            shown.downcast_ref::<reqwest::Error>()?.url().map(Url::to_string)
        };
        assert_eq!(shown(&url, None), None);
        assert_eq!(shown(&other, None).as_deref(), Some("https://a.example/hunter2/x"));
        let hidden = shown(&other, Some(&hide));
        assert_eq!(hidden.as_deref(), Some("https://a.example/%E2%80%A6/x"));
    }

    #[test]
    fn urls_in_a_text_are_redacted() {
        for (text, expected) in [
            ("connection refused", "connection refused"),
            ("for url (https://a.example/x?t=hunter2)", "for url (https://a.example/x)"),
            ("for url (https://a.example/x?t=hun)ter2)", "for url (https://a.example/x)"),
            ("GET https://u:hunter2@a.example/, then", "GET https://a.example/, then"),
            (
                "\"http://a.example?hunter2\" and ftp://b.example/?hunter2",
                "\"http://a.example/\" and ftp://b.example/",
            ),
            ("url=https://a.example/#hunter2", "url=https://a.example/"),
            ("https://u:hunter2@[bad/ is none", "… is none"),
            ("://hunter2 alone", "… alone"),
            ("é://é", "é…"),
            (
                "`https://a.example/x?t=hun`ter2`, `https://b.example/`:",
                "`https://a.example/x`, `https://b.example/`:",
            ),
            // Userinfo may be a name alone or a password alone.
            ("to https://hunter2@a.example/", "to https://a.example/"),
            ("to https://:hunter2@a.example/", "to https://a.example/"),
            // Without a secret a URL stays as it is written.
            ("to HTTPS://A.example:443, then", "to HTTPS://A.example:443, then"),
        ] {
            assert_eq!(redact(text, None), expected);
        }
        let url = Url::parse("https://a.example/x?token=hunter2").unwrap();
        let redacted = RedactedUrl::new(&url, None);
        assert_eq!(redacted.redact("no route to /x?token=hunter2"), "no route to /x");
        assert_eq!(redacted.redact("https://b.example/?token=hunter2"), "https://b.example/");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_query_is_left_in_any_text(before in "[^:]{0,9}", query in "[a-zA-Z0-9)(.,;&=%`']{1,20}", after in "[ \"][^:]{0,9}") {
            let text = format!("{before} https://a.example/x?S3CRET{query}S3CRET{after}");
            prop_assert!(!redact(&text, None).contains("S3CRET"));
        }

        #[test]
        fn any_text_can_be_redacted(text in ".*(://)?.*") {
            let _ = redact(&text, None);
        }
    }
}
