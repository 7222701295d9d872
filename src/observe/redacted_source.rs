//! A redacted chain of error sources, for errors that show secrets.

use std::{borrow::Cow, error::Error, fmt};

use reqwest::Url;

use crate::common::path_redactor::PathRedactor;
use crate::observe::redact::{self, RedactedUrl};
use crate::outcome::transport_error;

/// The text of one error of a chain, without secrets. Its `Debug` is the same text.
pub(crate) struct RedactedSource {
    text: String,
    source: Option<Box<Self>>,
}

impl RedactedSource {
    /// Returns the redacted chain of `error`; `None` if no text in it, `Display` or `Debug`, has a
    /// secret of a URL, so that the chain itself is safe to show.
    ///
    /// At most 16 errors are looked at; a longer chain counts as one with secrets and ends there.
    pub(crate) fn new(
        error: &(dyn Error + 'static),
        url: Option<&Url>,
        path: Option<&PathRedactor>,
    ) -> Option<Self> {
        let chain: Vec<_> = transport_error::sources(error).collect();
        let is_cut = chain.last().is_some_and(|it| it.source().is_some());
        let url = url.map(|it| RedactedUrl::new(it, path));
        let is_secret = |text: &str| redacted(text, url, path) != text;
        let any_secret = || {
            chain.iter().any(|it| {
                let debug = format!("{it:?}");
                is_secret(&it.to_string()) || is_secret(&debug) || shows_parts(&debug, path)
            })
        };
        if !is_cut && !any_secret() {
            return None;
        }
        let link = |source: Option<Self>, error: &&(dyn Error + 'static)| {
            let text = redacted(&error.to_string(), url, path).into_owned();
            // A transparent error and its source have the same text.
            match source {
                Some(it) if it.text == text => Some(it),
                source => Some(Self { text, source: source.map(Box::new) }),
            }
        };
        chain.iter().rev().fold(None, link)
    }
}

/// Returns whether a text of `Debug` has a URL's own, which shows its parts one by one, and one
/// that may be secret.
fn shows_parts(debug: &str, path: Option<&PathRedactor>) -> bool {
    const SECRET: [&str; 3] = ["password: Some(", "query: Some(", "fragment: Some("];
    debug.split("cannot_be_a_base: ").skip(1).any(|url| {
        let is_plain = url.contains("username: \"\"") && !SECRET.iter().any(|it| url.contains(it));
        !is_plain || path.is_some()
    })
}

fn redacted<'t>(
    text: &'t str,
    url: Option<RedactedUrl<'_>>,
    path: Option<&PathRedactor>,
) -> Cow<'t, str> {
    url.map_or_else(|| redact::redact(text, path), |it| it.redact(text))
}

impl fmt::Display for RedactedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RedactedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for RedactedSource {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|it| it as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Self>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|it| it as _)
        }
    }

    fn chain(texts: &[&'static str]) -> Link {
        let links = texts.iter().rev();
        links.fold(None, |inner, it| Some(Link(it, inner.map(Box::new)))).unwrap()
    }

    fn shown(texts: &[&'static str]) -> Option<Vec<String>> {
        let url = Url::parse("https://u:hunter22@a.example/x?token=hunter2").unwrap();
        let redacted = RedactedSource::new(&chain(texts), Some(&url), None)?;
        Some(transport_error::sources(&redacted).map(ToString::to_string).collect())
    }

    #[test]
    fn a_url_that_debug_takes_apart_has_secrets_as_well() {
        #[derive(Debug)]
        struct Auth(#[expect(dead_code)] Vec<Url>);
        impl fmt::Display for Auth {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no token")
            }
        }
        impl Error for Auth {}
        let hide = PathRedactor::new(str::to_owned);
        for (url, path, is_secret) in [
            ("https://a.example/x", None, false),
            ("https://a.example/x", Some(&hide), true),
            ("https://id@a.example/x", None, true),
            ("https://:hunter2@a.example/x", None, true),
            ("https://a.example/x?token=hunter2", None, true),
            ("https://a.example/x#hunter2", None, true),
        ] {
            let urls = ["https://b.example/", url].map(|it| it.parse().unwrap());
            let redacted = RedactedSource::new(&Auth(urls.into()), None, path);
            assert_eq!(redacted.map(|it| format!("{it:?}")), is_secret.then(|| "no token".into()));
        }
    }

    #[test]
    fn only_a_chain_with_secrets_is_replaced() {
        assert_eq!(shown(&["failed", "see https://docs.example/x", "connection refused"]), None);
        for secret in
            ["at https://b.example/?k=v", "at /x?token=hunter2", "hunter22 is no password"]
        {
            let all = shown(&["failed", secret, "connection refused"]).unwrap();
            assert_eq!((&*all[0], &*all[2]), ("failed", "connection refused"));
            assert!(!all[1].contains("hunter2") && !all[1].contains("k=v"), "{all:?}");
        }
        // Transparent errors count as one.
        let twice = shown(&["at /x?token=hunter2", "at /x?token=hunter2", "refused"]).unwrap();
        assert_eq!(twice, ["at /x", "refused"]);
        let long = shown(&["x"; 40]).unwrap();
        assert_eq!(long.len(), 1);
    }
}
