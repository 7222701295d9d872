//! What a policy keeps for the host of a request, and for the first hosts at hand.

use std::sync::{Arc, OnceLock};

use reqwest::Url;

use crate::breaker::BreakerHandle;
use crate::common::clock::Instant;
use crate::host::gate::HostGate;
use crate::host::registry::STAYING;
use crate::retry::budget::Account;

/// What is kept for one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) breaker: Option<Arc<BreakerHandle>>,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) gate: Option<Arc<HostGate>>,
}

/// What is kept where nothing is.
pub(crate) static NOTHING: Kept = Kept { breaker: None, account: None, gate: None };

impl Kept {
    /// Whether the host's gate is closed.
    #[inline]
    pub(crate) fn is_held_back(&self, now: Instant) -> bool {
        self.gate.as_ref().is_some_and(|it| it.is_closed(now))
    }
}

/// What is kept for the first hosts: most clients talk to a few, and to find what is kept for
/// those takes neither a lock nor a count. Aligned so that who reads it need not wait for those who
/// count themselves in and out beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Firsts([OnceLock<(Box<str>, Kept)>; STAYING]);

impl Firsts {
    #[inline]
    pub(crate) fn of(&self, url: &Url) -> Option<&Kept> {
        let mut all = self.0.iter().map_while(OnceLock::get);
        all.find(|(host, _)| is_of(url, host)).map(|(_, kept)| kept)
    }

    /// Keeps this for `host` as well, if there is room. Nothing of it must ever be forgotten by
    /// others, who would begin afresh with it.
    pub(crate) fn keep(&self, host: &str, kept: &Kept) {
        // `is_of` would take `a:` for the host of `a://b`.
        if host.contains("://") {
            for room in &self.0 {
                if &*room.get_or_init(|| (host.into(), kept.clone())).0 == host {
                    return;
                }
            }
        }
    }
}

/// Whether `host`, a [`host_key`](crate::host::registry::host_key), is that of `url`.
///
/// Quicker than to make the key of `url`: what comes before `host` ends must be the same, and an
/// authority ends with it too. Where there is userinfo, it is found the long way.
#[inline]
fn is_of(url: &Url, host: &str) -> bool {
    let rest = url.as_str().strip_prefix(host);
    rest.is_some_and(|it| matches!(it.as_bytes().first(), None | Some(b'/' | b'?' | b'#')))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::host::registry::host_key;

    #[test]
    fn what_is_kept_first_is_found_by_any_url_of_its_host() {
        let (firsts, kept) = (Firsts::default(), Kept::default());
        for host in ["https://a.example", "http://a.example:81", "data:", "a://"] {
            firsts.keep(host, &kept);
        }
        for (url, found) in [
            ("https://a.example", true),
            ("https://a.example:443/b", true),
            ("https://a.example?b", true),
            ("https://a.example#b", true),
            ("http://a.example:81/b@c", true),
            ("a:///b", true),
            ("https://a.example:444", false),
            ("https://a.example.com", false),
            ("https://b@a.example", false),
            ("http://a.example:8", false),
            ("http://a.example", false),
            ("data:/b", false),
            ("a://b", false),
        ] {
            assert_eq!(firsts.of(&url.parse().unwrap()).is_some(), found, "{url}");
        }
    }

    #[test]
    fn a_closed_gate_holds_back() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let gate = Arc::new(HostGate::default());
        let kept = Kept { gate: Some(Arc::clone(&gate)), ..Kept::default() };
        assert!(!kept.is_held_back(now));
        gate.close(now, second, second);
        assert!(kept.is_held_back(now) && !kept.is_held_back(now + second));
        assert!(!NOTHING.is_held_back(now));
    }

    #[test]
    fn only_the_first_are_kept() {
        let (firsts, kept) = (Firsts::default(), Kept::default());
        for _ in 0..2 {
            (0..2 * STAYING).for_each(|it| firsts.keep(&format!("http://{it}.a"), &kept));
        }
        let found = |it: usize| firsts.of(&format!("http://{it}.a").parse().unwrap()).is_some();
        assert_eq!((0..2 * STAYING).filter(|it| found(*it)).count(), STAYING);
        assert!(found(STAYING - 1));
    }

    proptest! {
        #[test]
        fn whoever_is_found_has_that_key(
            [url, other] in [(); 2].map(|()| {
                "(http|https|a)://(b@)?(a|b|a[.]b|)(:8|:80|:81)?(/|/a|[?]b|#c|@|:)?|a:(/|b)"
            }),
        ) {
            if let (Ok(url), Ok(other)) = (url.parse::<Url>(), other.parse::<Url>()) {
                let (key, host) = (host_key(&url), host_key(&other));
                let firsts = Firsts::default();
                firsts.keep(&host, &Kept::default());
                let found = firsts.of(&url).is_some();
                let is_plain = url.username().is_empty() && url.password().is_none();
                prop_assert_eq!(found, key == host && is_plain && host.contains("://"));
            }
        }
    }
}
