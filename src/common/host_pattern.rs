//! Values per host pattern.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use reqwest::Url;

/// A map from host patterns to values. A pattern is a single host such as `api.example.com`, or all
/// hosts below a domain, `*.example.com`. The most specific pattern wins.
#[derive(Clone)]
pub(crate) struct HostPatterns<T> {
    /// Hosts as in URLs; those below a domain as `.example.com`.
    by_name: HashMap<Box<str>, T>,
    /// Invalid patterns.
    invalid: Vec<Box<str>>,
}

impl<T> HostPatterns<T> {
    /// Sets the value of a pattern. An invalid pattern is kept apart, to be reported as a fault.
    pub(crate) fn insert(&mut self, name: &str, value: T) {
        match canonical(name) {
            Some(key) => drop(self.by_name.insert(key, value)),
            None => self.invalid.push(name.into()),
        }
    }

    /// Returns the value for `host`, which may end in the dot of the root.
    pub(crate) fn get(&self, host: &str) -> Option<&T> {
        if self.by_name.is_empty() {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let domains = host.match_indices('.').map(|(at, _)| &host[at..]);
        [host].into_iter().chain(domains).find_map(|it| self.by_name.get(it))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.invalid.is_empty()
    }

    /// Returns all patterns as they are written, and their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        let name =
            |key: &str| if key.starts_with('.') { format!("*{key}") } else { key.to_owned() };
        self.by_name.iter().map(move |(key, value)| (name(key), value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.by_name.values()
    }

    pub(crate) fn invalid(&self) -> impl Iterator<Item = &str> {
        self.invalid.iter().map(|it| &**it)
    }
}

/// In the order of the patterns.
impl<T: fmt::Debug> fmt::Debug for HostPatterns<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().collect::<BTreeMap<_, _>>()).finish()
    }
}

impl<N: AsRef<str>, T> FromIterator<(N, T)> for HostPatterns<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(entries: I) -> Self {
        let mut hosts = Self::default();
        entries.into_iter().for_each(|(name, value)| hosts.insert(name.as_ref(), value));
        hosts
    }
}

impl<T> Default for HostPatterns<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), invalid: Vec::new() }
    }
}

/// The rule that an invalid pattern breaks.
pub(crate) const INVALID_HOST: &str = "must be a host such as api.example.com or *.example.com";

/// Returns a host in the form of URLs: lower case, without Unicode and without the dot of the root;
/// `None` unless it is a host alone.
pub(crate) fn canonical(name: &str) -> Option<Box<str>> {
    let (domains, host) = match name.strip_prefix("*.") {
        Some(host) => (".", host),
        None => ("", name),
    };
    // Parts that a URL would drop silently: line ends and blanks, userinfo, the scheme's own port.
    let has_port = !host.starts_with('[') && host.contains(':');
    if has_port || host.contains(|it: char| it.is_whitespace() || matches!(it, '*' | '@')) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    let parsed = url.host_str()?;
    // A path, a query or a port after an address would make another URL.
    if url.as_str() != format!("http://{parsed}/") || host.contains("]:") {
        return None;
    }
    // An address has no hosts below it.
    if !domains.is_empty() && url.domain().is_none() {
        return None;
    }
    let parsed = parsed.strip_suffix('.').unwrap_or(parsed);
    let has_labels = !parsed.split('.').any(str::is_empty);
    has_labels.then(|| [domains, parsed].concat().into())
}

/// Returns a pattern without secrets: it may be a whole URL by mistake.
pub(crate) fn without_secrets(name: &str) -> String {
    let shown = name.split(['?', '#']).next().unwrap_or_default();
    let cut = if shown.len() < name.len() { "…" } else { "" };
    match shown.rsplit_once('@') {
        // A password may have a `?` in it.
        _ if name[shown.len()..].contains('@') => "…".to_owned(),
        Some((_, host)) => format!("…@{host}{cut}"),
        None => format!("{shown}{cut}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_wins() {
        let names = [("*.example.com", 1), ("API.example.com", 2), ("*.eu.example.com", 3)];
        let hosts: HostPatterns<u32> = names.into_iter().collect();
        let check = |host, expected: Option<u32>| assert_eq!(hosts.get(host).copied(), expected);
        check("api.example.com", Some(2));
        check("www.example.com", Some(1));
        check("a.b.eu.example.com", Some(3));
        check("example.com", None);
        check("badexample.com", None);
    }

    #[test]
    fn all_is_listed_under_the_names_that_were_given() {
        let none = HostPatterns::<u32>::default();
        assert!(none.is_empty());
        let odd: HostPatterns<u32> = [("c/d", 4)].into_iter().collect();
        assert!(!odd.is_empty() && odd.iter().next().is_none());
        assert_eq!(odd.invalid().collect::<Vec<_>>(), ["c/d"]);

        let hosts: HostPatterns<u32> =
            [("*.example.com", 1), ("a.example", 2)].into_iter().collect();
        assert!(!hosts.is_empty());
        let listed: BTreeMap<_, _> = hosts.iter().map(|(name, it)| (name, *it)).collect();
        let expected = [("*.example.com".to_owned(), 1), ("a.example".to_owned(), 2)];
        assert_eq!(listed, BTreeMap::from(expected));
        assert_eq!(hosts.values().sum::<u32>(), 3);
        assert_eq!(hosts.invalid().count(), 0);
        assert_eq!(format!("{hosts:?}"), r#"{"*.example.com": 1, "a.example": 2}"#);
    }

    #[test]
    fn only_a_host_is_a_host() {
        for (name, key) in [
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("", None),
            ("a b", None),
            ("http://a.example", None),
            ("a.example:8080", None),
            ("a.example/x", None),
            ("me@a.example", None),
            ("*", None),
            ("API.Example.com.", Some("api.example.com")),
            ("*.example.com.", Some(".example.com")),
            ("a.example:80", None),
            ("a.example:", None),
            ("*.a.example:80", None),
            ("[::1]:80", None),
            ("@a.example", None),
            (":@a.example", None),
            ("a.example\n", None),
            ("a.exa\r\nmple", None),
            ("\ta.example", None),
            (" a.example", None),
            ("a.example..", None),
            ("a..example", None),
            (".a.example", None),
            (".", None),
            ("*.", None),
            ("*.127.0.0.1", None),
            ("*.[::1]", None),
            ("a.example/", None),
            ("a.example?", None),
            ("a.example#x", None),
            ("a.example\\x", None),
            ("*.*.example", None),
        ] {
            assert_eq!(canonical(name).as_deref(), key, "{name:?}");
        }
    }

    #[test]
    fn secrets_in_a_name_are_not_shown() {
        for (name, shown) in [
            ("u:hunter2@a.example", "…@a.example"),
            ("https://hunter2@a.example/?token=hunter2", "…@a.example/…"),
            ("a.example#hunter2", "a.example…"),
            ("https://user:hunter2?x@a.example/", "…"),
            ("user#hunter2@a.example", "…"),
            ("a.example:80", "a.example:80"),
        ] {
            assert_eq!(without_secrets(name), shown);
        }
    }

    #[test]
    fn the_dot_of_the_root_makes_no_difference() {
        let hosts: HostPatterns<u32> =
            [("a.example.", 1), ("*.b.example", 2)].into_iter().collect();
        for (host, expected) in
            [("a.example", 1), ("a.example.", 1), ("x.b.example.", 2), ("x.b.example", 2)]
        {
            assert_eq!(hosts.get(host), Some(&expected), "{host}");
        }
    }
}
