//! Base URLs, and the rewriting of a request's URL from one to another, to the byte.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use reqwest::Url;
use url::Position;

/// The rule that an invalid base URL breaks.
pub(crate) const INVALID_BASE: &str =
    "must be an http or https URL without userinfo, query and fragment";

/// Returns a base URL in its one spelling; `None` if it is invalid.
#[cfg(feature = "serde")]
pub(crate) fn canonical_base(text: &str) -> Option<Box<str>> {
    Base::parse(text).map(|it| it.text)
}

/// A base URL: what several endpoints have in place of each other.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    url: Url,
    /// Without the slash at the end, which means nothing here.
    text: Box<str>,
}

impl Base {
    /// Parses a base URL; `None` if it is invalid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_web = matches!(url.scheme(), "http" | "https");
        let has_more = url.query().is_some() || url.fragment().is_some();
        // No userinfo, and nothing that the parser drops in silence.
        let is_plain = !text.contains('@') && text.trim() == text;
        if !is_web || has_more || !is_plain {
            return None;
        }
        let text = url.as_str().trim_end_matches('/').into();
        Some(Self { url, text })
    }

    /// Returns it as a URL, as it was given.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns it as text, without a slash at the end.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part of `url` after this base: path, query and fragment; `None` if it is not
    /// under this base.
    pub(crate) fn rest_of<'u>(&self, url: &'u Url) -> Option<&'u str> {
        if url.scheme() != self.url.scheme() {
            return None;
        }
        let own = &self.text[self.url.scheme().len() + "://".len()..];
        let rest = url[Position::BeforeHost..].strip_prefix(own)?;
        let is_whole_segment = rest.is_empty() || rest.starts_with(['/', '?', '#']);
        is_whole_segment.then_some(rest)
    }

    /// Returns the URL with this `rest` under this base. Nothing is decoded: the rest stays as it is,
    /// to the byte.
    pub(crate) fn with(&self, rest: &str) -> Option<Url> {
        Url::parse(&[&self.text, rest].concat()).ok()
    }

    /// Returns whether scheme, host and port are those of `url`.
    pub(crate) fn is_origin_of(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }
}

/// Equal if they name the same place, with or without a slash at the end.
impl PartialEq for Base {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Headers that were taken out of a request.
pub(crate) type Withheld = Vec<(HeaderName, HeaderValue)>;

/// Removes the headers that only the origin of the request's own URL may see, and returns them:
/// credentials, headers named in `secret`, and values that are marked as sensitive.
pub(crate) fn withhold_secrets(headers: &mut HeaderMap, secret: &[HeaderName]) -> Withheld {
    const CREDENTIALS: [HeaderName; 3] =
        [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
    let is_secret = |name: &HeaderName, value: &HeaderValue| {
        value.is_sensitive() || CREDENTIALS.contains(name) || secret.contains(name)
    };
    take(headers, is_secret)
}

/// Removes the header `Host`, which names the host of the request's own URL.
pub(crate) fn withhold_host(headers: &mut HeaderMap) -> Withheld {
    take(headers, |name, _| name == header::HOST)
}

/// Removes the headers that ask for a part of what another server has.
pub(crate) fn withhold_range(headers: &mut HeaderMap) -> Withheld {
    const PART: [HeaderName; 3] = [header::RANGE, header::IF_RANGE, header::IF_UNMODIFIED_SINCE];
    take(headers, |name, _| PART.contains(name))
}

/// Removes every header of which one value is chosen.
fn take(headers: &mut HeaderMap, is_it: impl Fn(&HeaderName, &HeaderValue) -> bool) -> Withheld {
    let mut names: Vec<_> =
        headers.iter().filter(|(name, value)| is_it(name, value)).map(|it| it.0.clone()).collect();
    names.dedup();
    let mut taken = vec![];
    for name in names {
        taken.extend(headers.get_all(&name).iter().map(|it| (name.clone(), it.clone())));
        headers.remove(&name);
    }
    taken
}

/// Puts back the headers that were taken out.
pub(crate) fn restore(headers: &mut HeaderMap, withheld: Withheld) {
    for (name, value) in withheld {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(text: &str) -> Base {
        Base::parse(text).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn mirrors_bases_are_plain_web_urls() {
        for text in ["https://a.example", "http://a.example:8080/x/", "https://[::1]/a%2Fb"] {
            assert!(Base::parse(text).is_some(), "{text}");
        }
        for text in [
            "a.example",
            "ftp://a.example/",
            "https://user@a.example/",
            "https://:pw@a.example/",
            "https://@a.example/",
            "https://a.example/?q",
            "https://a.example/#f",
            " https://a.example/",
            "data:text/plain,x",
        ] {
            assert!(Base::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn mirrors_urls_under_a_base_are_known_by_whole_segments() {
        let simple = base("https://pypi.org/simple");
        for (of, rest) in [
            ("https://pypi.org/simple", Some("")),
            ("https://pypi.org/simple/", Some("/")),
            ("https://pypi.org:443/simple/a", Some("/a")),
            ("https://user:pw@pypi.org/simple/a?b#c", Some("/a?b#c")),
            ("https://pypi.org/simple?x", Some("?x")),
            ("https://pypi.org/simpler/a", None),
            ("https://pypi.org/Simple/a", None),
            ("http://pypi.org/simple/a", None),
            ("https://pypi.org.evil.example/simple/a", None),
            ("https://pypi.org:444/simple/a", None),
            ("https://evil.example/pypi.org/simple/a", None),
            // Dots lead out of it.
            ("https://pypi.org/simple/../a", None),
            ("https://pypi.org/simple/%2e%2e/a", None),
        ] {
            assert_eq!(simple.rest_of(&url(of)), rest, "{of}");
        }
        let root = base("https://a.example");
        assert_eq!(root.rest_of(&url("https://a.example//x")), Some("//x"));
        assert_eq!(root.rest_of(&url("https://a.example.org/")), None);
    }

    #[test]
    fn mirrors_rewrite_to_the_byte() {
        let to = base("http://mirror.example:8080/deep/");
        for rest in ["/a%2Fb/c%20d", "/a/?q=%2F&r=a+b#f", "//x", "", "?q", "/%C3%A9;v=1"] {
            let expected = format!("http://mirror.example:8080/deep{rest}");
            assert_eq!(to.with(rest).unwrap().as_str(), expected);
        }
        assert_eq!(base("https://m.example/").with("").unwrap().as_str(), "https://m.example/");
        assert_eq!(base("https://m.example/").with("?q").unwrap().as_str(), "https://m.example/?q");
    }

    #[test]
    fn mirrors_withhold_all_values_of_a_secret() {
        let mut headers = HeaderMap::new();
        let mut key = HeaderValue::from_static("k2");
        key.set_sensitive(true);
        headers.append("x-key", HeaderValue::from_static("k1"));
        headers.append("x-key", key);
        headers.append("accept", HeaderValue::from_static("*/*"));
        headers.append("cookie", HeaderValue::from_static("a=1"));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        headers.append("x-token", HeaderValue::from_static("t"));
        headers.append("host", HeaderValue::from_static("a.example"));
        let before = headers.clone();
        let mut withheld = withhold_secrets(&mut headers, &[HeaderName::from_static("x-token")]);
        withheld.extend(withhold_host(&mut headers));
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
        restore(&mut headers, withheld);
        let values = |of: &HeaderMap, name: &str| -> Vec<HeaderValue> {
            of.get_all(name).iter().cloned().collect()
        };
        for name in before.keys() {
            assert_eq!(values(&headers, name.as_str()), values(&before, name.as_str()));
        }
        assert_eq!(headers.len(), before.len());
    }

    proptest! {
        /// Whatever follows the base arrives as it was, and comes back from there.
        #[test]
        fn mirrors_rewriting_keeps_the_rest(
            path in "[ -~é]{0,24}",
            query in proptest::option::of("[ -~é]{0,16}"),
        ) {
            let mut from = url("https://a.example/base/x");
            from.set_path(&format!("/base/{path}"));
            from.set_query(query.as_deref());
            let (here, there) = (base("https://a.example/base"), base("http://b.example:81/c/d/"));
            if let Some(rest) = here.rest_of(&from) {
                let moved = there.with(rest).unwrap();
                prop_assert_eq!(moved.as_str(), format!("http://b.example:81/c/d{rest}"));
                let back = there.rest_of(&moved).unwrap();
                prop_assert_eq!(here.with(back).unwrap(), from);
            }
        }
    }
}
