//! The headers that carry hints, and the meaning of each.

use std::fmt;

use http::HeaderName;

use super::value::Unit;

/// The headers in which servers say when to retry, and whether to retry at all.
///
/// The name of a header determines its meaning:
///
/// | header | meaning | sent by |
/// |---|---|---|
/// | `retry-after`, any name with `retry-after` or `retry-in` in it, such as `x-retry-after` | when to retry | RFC 9110 §10.2.3, Docker, Traefik, many others |
/// | the same with milliseconds, such as `retry-after-ms` and `x-ms-retry-after-ms`; `x-amz-retry-after` | when to retry | OpenAI, Azure, AWS |
/// | `grpc-retry-pushback-ms` | when to retry; any value but a count of milliseconds: not at all | gRPC proposal A6 |
/// | a limit's `reset`, `next` or `after`, such as `x-ratelimit-reset`, `x-ratelimit-reset-tokens`, `anthropic-ratelimit-requests-reset` | when a quota is refilled | GitHub, OpenAI, Anthropic, Kong, many others |
/// | a limit's `remaining`, such as `x-ratelimit-remaining` | what is left of that quota | the same |
/// | `ratelimit`, and other limits written like it | quotas as a structured field | draft-ietf-httpapi-ratelimit-headers, Zendesk |
/// | `x-should-retry`, `stripe-should-retry` | whether to retry | OpenAI, Anthropic, Stripe |
/// | `x-envoy-ratelimited` | not to retry, unless another header says when | Envoy |
///
/// # Values
///
/// A time may have any of these forms: seconds, seconds with a fraction, seconds or milliseconds
/// since 1970 (numbers from 10⁹ and 10¹² on), a length of time with units (`6m0s`, `250ms`, `1.5
/// hours`, `PT30S`), an HTTP date in all its variants, RFC 3339 with or without seconds, a date as
/// JavaScript prints it. Bare numbers are milliseconds where the header's name says so. Of two
/// values or lines the longer wait counts. Dates are compared with the response's own `Date`, and
/// its `Age` is deducted. A value that cannot be read counts as absent.
///
/// # Precedence
///
/// 1. Headers that were added here.
/// 2. Waits in milliseconds.
/// 3. Other waits.
/// 4. The reset of a quota of which nothing remains: 0, or less.
/// 5. On a 429, any reset.
///
/// Among headers of the same rank the longest wait counts. A quota that still has room is no reason
/// to wait, except on a 429, which says that some limit was exceeded.
///
/// # Default
///
/// All of the above.
///
/// # Examples
///
/// ```
/// use reqwest::header::HeaderName;
/// use reqwest_resilient::{HintFormat, HintHeaders};
///
/// let hints = HintHeaders::default()
///     .with(HeaderName::from_static("x-backoff"))
///     .with_format(HeaderName::from_static("x-go-away"), HintFormat::Veto)
///     .without(HeaderName::from_static("x-envoy-ratelimited"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct HintHeaders {
    /// `true` if headers are recognised by their names.
    known: bool,
    own: Vec<Own>,
    ignored: Vec<HeaderName>,
}

/// The meaning of a hint header.
///
/// Times may have any form, except where a variant restricts it: see [`HintHeaders`].
///
/// # Examples
///
/// ```
/// use http::HeaderName;
/// use reqwest_resilient::{HintFormat, HintHeaders};
///
/// let header = HeaderName::from_static("x-backoff");
/// let hints = HintHeaders::default().with_format(header, HintFormat::Millis);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HintFormat {
    /// The time until a retry; a bare number counts milliseconds.
    Millis,
    /// The time until a retry, in milliseconds; any other value, such as a negative number, forbids
    /// retries.
    Pushback,
    /// `true` asks for a retry, whatever the status; `false` asks for none.
    ShouldRetry,
    /// The time until a retry by RFC 9110 §10.2.3: seconds or an HTTP date, on one line.
    Standard,
    /// Forbids retries if the header is present, unless its value is `false`.
    Veto,
    /// The time until a retry; a bare number counts seconds.
    Wait,
}

/// A header that was added to the known ones.
#[derive(Clone, Debug)]
struct Own {
    header: HeaderName,
    format: HintFormat,
    /// The header that has to say 0 for this one to count.
    remaining: Option<HeaderName>,
}

impl HintHeaders {
    /// Ignores all headers.
    pub const fn none() -> Self {
        Self { known: false, own: Vec::new(), ignored: Vec::new() }
    }

    /// Reads the time until a retry in `header` as well.
    ///
    /// A bare number counts seconds, or milliseconds if the name ends so, as `x-backoff-ms` does.
    pub fn with(self, header: HeaderName) -> Self {
        let format = match unit(header.as_str()) {
            Unit::Seconds => HintFormat::Wait,
            Unit::Millis => HintFormat::Millis,
        };
        self.with_format(header, format)
    }

    /// Reads `header` as well, with the meaning `format`.
    pub fn with_format(self, header: HeaderName, format: HintFormat) -> Self {
        self.put_first(Own { header, format, remaining: None })
    }

    /// Like [`with`](Self::with), but the header counts only while `remaining` says that nothing is
    /// left, or on a 429.
    pub fn with_reset(self, header: HeaderName, remaining: HeaderName) -> Self {
        let mut hints = self.with(header);
        if let Some(reset) = hints.own.first_mut() {
            reset.remaining = Some(remaining);
        }
        hints
    }

    /// Recognises headers by their names as well, but for those that are ignored.
    #[cfg(feature = "serde")]
    pub(crate) fn with_known(self) -> Self {
        Self { known: true, ..self }
    }

    /// Ignores `header`.
    pub fn without(mut self, header: HeaderName) -> Self {
        self.own.retain(|it| it.header != header);
        if !self.ignored.contains(&header) {
            self.ignored.push(header);
        }
        self
    }

    fn put_first(mut self, own: Own) -> Self {
        self.own.retain(|it| it.header != own.header);
        self.ignored.retain(|it| *it != own.header);
        self.own.insert(0, own);
        self
    }

    /// Returns the role of `header`, and whether it was added to the known ones.
    pub(super) fn role<'a>(&'a self, header: &HeaderName) -> Option<(Role<'a>, bool)> {
        if let Some(own) = self.own.iter().find(|it| it.header == *header) {
            return Some((own.role(), true));
        }
        if !self.known || self.ignored.contains(header) {
            return None;
        }
        Some((known(header.as_str())?, false))
    }
}

impl Default for HintHeaders {
    fn default() -> Self {
        Self { known: true, ..Self::none() }
    }
}

impl fmt::Debug for HintHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: Vec<_> = self.own.iter().map(|it| (&it.header, it.format)).collect();
        f.debug_struct("HintHeaders")
            .field("known", &self.known)
            .field("own", &own)
            .field("ignored", &self.ignored)
            .finish()
    }
}

/// The meaning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// The time until a retry.
    Wait(Unit),
    /// The same; accepts only seconds and HTTP dates.
    Standard,
    /// The same; an invalid value forbids retries.
    Pushback,
    /// The time until a quota is refilled; counts while nothing is left of it. The named header has
    /// the rest, or else the one of the same [`Quota`].
    Reset(Unit, Option<&'a HeaderName>),
    /// The rest of a quota.
    Remaining,
    /// Quotas as a structured field.
    Quotas,
    ShouldRetry,
    Veto,
    /// A veto that yields to a hint: its sender addresses proxies, which retry at once.
    SoftVeto,
}

impl Own {
    fn role(&self) -> Role<'_> {
        let unit = match self.format {
            HintFormat::Wait => Unit::Seconds,
            HintFormat::Millis => Unit::Millis,
            HintFormat::Standard => return Role::Standard,
            HintFormat::Pushback => return Role::Pushback,
            HintFormat::ShouldRetry => return Role::ShouldRetry,
            HintFormat::Veto => return Role::Veto,
        };
        match &self.remaining {
            Some(remaining) => Role::Reset(unit, Some(remaining)),
            None => Role::Wait(unit),
        }
    }
}

/// Returns the role of a header by its name.
fn known(name: &str) -> Option<Role<'static>> {
    // Rules out most headers by their letters.
    if !name.bytes().any(|it| matches!(it, b'y' | b'm' | b'q' | b'h')) {
        return None;
    }
    let has = |word: &str| contains(name, word);
    match name {
        "x-amz-retry-after" => return Some(Role::Wait(Unit::Millis)),
        "grpc-retry-pushback-ms" => return Some(Role::Pushback),
        "x-envoy-ratelimited" => return Some(Role::SoftVeto),
        // KuCoin counts milliseconds there.
        "gw-ratelimit-reset" => return Some(Role::Reset(Unit::Millis, None)),
        _ if has("should-retry") => return Some(Role::ShouldRetry),
        _ if has("retry-after") || has("retryafter") || has("retry-in") => {
            return Some(Role::Wait(unit(name)));
        }
        _ if !(has("limit") || has("throttl") || has("quota")) => return None,
        _ => {}
    }
    if has("remain") {
        return Some(Role::Remaining);
    }
    match Quota::of_reset(name) {
        Some(_) => Some(Role::Reset(unit(name), None)),
        None => (has("ratelimit") || has("rate-limit")).then_some(Role::Quotas),
    }
}

fn contains(name: &str, word: &str) -> bool {
    name.as_bytes().windows(word.len()).any(|it| it == word.as_bytes())
}

/// Returns the unit of a header's bare numbers, by its name.
fn unit(name: &str) -> Unit {
    let ends = ["-ms", "_ms", "-millis", "-msec", "milliseconds"];
    if ends.iter().any(|it| name.ends_with(it)) { Unit::Millis } else { Unit::Seconds }
}

/// The quota that a header's name identifies: the parts of the name before and after the word for
/// the kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota<'a> {
    before: &'a str,
    after: &'a str,
}

impl<'a> Quota<'a> {
    pub(super) fn of_reset(name: &'a str) -> Option<Self> {
        let words = ["reset", "-next", "-after"];
        let (before, after) = words.iter().find_map(|it| name.split_once(it))?;
        Some(Self { before: before.trim_end_matches('-'), after })
    }

    pub(super) fn of_remaining(name: &'a str) -> Option<Self> {
        let (before, after) = name.split_once("remain")?;
        let after = after.strip_prefix("ing").unwrap_or(after);
        Some(Self { before: before.trim_end_matches('-'), after })
    }

    /// Returns whether the reset of this quota belongs to what remains of `other`.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        /// Endings of a reset's name that mean nothing but a time.
        const TIMES: [&str; 9] =
            ["-after", "-at", "-date", "-in", "-ms", "-seconds", "-time", "-timestamp", "time"];
        let same =
            self.after == other.after || other.after.is_empty() && TIMES.contains(&self.after);
        self.before == other.before && same
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn role(name: &'static str) -> Option<Role<'static>> {
        known(name)
    }

    #[test]
    fn names_say_what_a_header_is_about() {
        use Role::{Pushback, Quotas, Remaining, Reset, ShouldRetry, SoftVeto, Wait};
        use Unit::{Millis, Seconds};
        for (name, expected) in [
            ("retry-after", Wait(Seconds)),
            ("x-retry-after", Wait(Seconds)),
            ("retryafter", Wait(Seconds)),
            ("x-retry-in", Wait(Seconds)),
            ("x-rate-limit-retry-after-seconds", Wait(Seconds)),
            ("retry-after-ms", Wait(Millis)),
            ("x-ms-retry-after-ms", Wait(Millis)),
            ("x-amz-retry-after", Wait(Millis)),
            ("grpc-retry-pushback-ms", Pushback),
            ("ratelimit", Quotas),
            ("ratelimit-policy", Quotas),
            ("x-ratelimit-limit", Quotas),
            ("x-ratelimit-reset", Reset(Seconds, None)),
            ("x-rate-limit-reset", Reset(Seconds, None)),
            ("x-ratelimit-reset-tokens", Reset(Seconds, None)),
            ("x-ratelimit-reset-ms", Reset(Millis, None)),
            ("gw-ratelimit-reset", Reset(Millis, None)),
            ("x-ratelimit-userreset", Reset(Seconds, None)),
            ("akamai-ratelimit-next", Reset(Seconds, None)),
            ("x-ratelimit-after", Reset(Seconds, None)),
            ("x-ratelimit-remaining", Remaining),
            ("x-gate-ratelimit-requests-remain", Remaining),
            ("x-throttle-remaining", Remaining),
            ("x-quota-remaining", Remaining),
            ("x-should-retry", ShouldRetry),
            ("stripe-should-retry", ShouldRetry),
            ("x-envoy-ratelimited", SoftVeto),
        ] {
            assert_eq!(role(name), Some(expected), "{name}");
        }
        for name in [
            "age",
            "date",
            "content-type",
            "cache-control",
            "x-request-id",
            "x-backoff",
            "x-left",
            "x-password-reset",
            "content-length",
            "x-remaining",
            "x-after",
            "max-forwards",
        ] {
            assert_eq!(role(name), None, "{name}");
        }
    }

    #[test]
    fn resets_belong_to_what_remains() {
        let pair = |reset, remaining| {
            let quota = Quota::of_reset(reset).unwrap();
            Quota::of_remaining(remaining).is_some_and(|it| quota.is_of(&it))
        };
        for (reset, remaining) in [
            ("x-ratelimit-reset", "x-ratelimit-remaining"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
            ("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining"),
            ("ratelimit-resettime", "ratelimit-remaining"),
            ("x-ratelimit-reset-after", "x-ratelimit-remaining"),
            ("x-ratelimit-userreset", "x-ratelimit-userremaining"),
            ("x-ratelimit-next", "x-ratelimit-remaining"),
        ] {
            assert!(pair(reset, remaining), "{reset} {remaining}");
        }
        for (reset, remaining) in [
            ("x-ratelimit-reset", "x-rate-limit-remaining"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-requests"),
            ("x-ratelimit-reset", "x-ratelimit-remaining-tokens"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining"),
            ("x-ratelimit-reset-after", "x-ratelimit-remaining-tokens"),
            ("x-ratelimit-reset", "x-ratelimit-limit"),
        ] {
            assert!(!pair(reset, remaining), "{reset} {remaining}");
        }
    }

    #[test]
    fn headers_are_added_and_ignored() {
        let backoff = || HeaderName::from_static("x-backoff");
        fn listed(hints: &HintHeaders) -> Option<(Role<'_>, bool)> {
            hints.role(&HeaderName::from_static("x-backoff"))
        }
        let hints = HintHeaders::none();
        assert_eq!(listed(&hints), None);
        assert_eq!(hints.role(&header::RETRY_AFTER), None);
        let hints = hints.with(backoff());
        assert_eq!(listed(&hints), Some((Role::Wait(Unit::Seconds), true)));
        let hints = hints.with_format(backoff(), HintFormat::Millis);
        assert_eq!(listed(&hints), Some((Role::Wait(Unit::Millis), true)));
        let shown = r#"HintHeaders { known: false, own: [("x-backoff", Millis)], ignored: [] }"#;
        assert_eq!(format!("{hints:?}"), shown);
        let hints = hints.without(backoff());
        assert_eq!(listed(&hints), None);
        let hints = HintHeaders::default().without(header::RETRY_AFTER);
        assert_eq!(hints.role(&header::RETRY_AFTER), None);
        assert_eq!(hints.clone().with(backoff()).role(&header::RETRY_AFTER), None);
        assert!(hints.with(header::RETRY_AFTER).role(&header::RETRY_AFTER).is_some());
        let millis = HeaderName::from_static("x-backoff-ms");
        let hints = HintHeaders::none().with(millis.clone());
        assert_eq!(hints.role(&millis), Some((Role::Wait(Unit::Millis), true)));
    }
}
