//! Urls as they may be shown: without userinfo, query and fragment.

use std::{fmt, ops::Deref};

use reqwest::Url;

/// A url whose `Display` and `Debug` show neither userinfo nor query nor fragment.
///
/// Derefs to the whole [`Url`], secrets included: mind where that goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RedactedUrl<'a>(&'a Url);

impl<'a> RedactedUrl<'a> {
    pub(crate) fn new(url: &'a Url) -> Self {
        Self(url)
    }
}

impl Deref for RedactedUrl<'_> {
    type Target = Url;

    fn deref(&self) -> &Url {
        self.0
    }
}

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0;
        match url.host_str() {
            Some(host) => write!(f, "{}://{host}", url.scheme())?,
            // Without a host there is no notifying where a secret may stand.
            None => return write!(f, "{}:…", url.scheme()),
        }
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let check = |url: &str, expected: &str| {
            let url = Url::parse(url).unwrap();
            assert_eq!(RedactedUrl::new(&url).to_string(), expected);
            assert_eq!(format!("{:?}", RedactedUrl::new(&url)), expected);
        };
        check("https://u:hunter2@h.example/a?token=S#f", "https://h.example/a");
        check("http://[::1]:8080/a/b", "http://[::1]:8080/a/b");
        check("data:text/plain,hunter2", "data:…");
    }
}
