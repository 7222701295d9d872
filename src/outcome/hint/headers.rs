//! Which headers carry hints, and how each of them is written.

use std::fmt;

use http::{HeaderName, header};

/// The headers in which servers say when to come back, and whether to come back at all.
///
/// The first header that can be read wins, in this order:
///
/// | header | written as | told by |
/// |---|---|---|
/// | `retry-after-ms`, `x-ms-retry-after-ms` | [`Millis`](HintFormat::Millis) | OpenAI, Azure |
/// | `x-amz-retry-after` | [`Millis`](HintFormat::Millis) | AWS |
/// | `retry-after` | [`RetryAfter`](HintFormat::RetryAfter) | RFC 9110 §10.2.3 |
/// | `ratelimit` | [`RateLimit`](HintFormat::RateLimit) | draft-ietf-httpapi-ratelimit-headers |
/// | `ratelimit-reset` | [`EpochOrDelta`](HintFormat::EpochOrDelta) | its drafts up to 06 |
/// | `x-ratelimit-reset`, `x-rate-limit-reset` | [`EpochOrDelta`](HintFormat::EpochOrDelta) | GitHub, X, many others |
/// | `x-ratelimit-reset-requests`, `-tokens` | [`GoDuration`](HintFormat::GoDuration) | OpenAI, Groq |
/// | `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-reset` | [`Rfc3339`](HintFormat::Rfc3339) | Anthropic |
/// | `grpc-retry-pushback-ms` | [`Pushback`](HintFormat::Pushback) | gRPC proposal A6 |
///
/// A reset header counts only while the header of what remains (`x-ratelimit-remaining` and so on)
/// says 0: servers send both with every answer, and the end of a window that still has room is no
/// reason to wait. Where requests and tokens have run out, the later reset counts.
///
/// Three headers settle whether a retry is welcome, whatever the others say: `x-should-retry`
/// ([`ShouldRetry`](HintFormat::ShouldRetry), Stripe, OpenAI, Anthropic), `x-envoy-ratelimited`
/// ([`Veto`](HintFormat::Veto)), and a negative `grpc-retry-pushback-ms`.
///
/// # Default
///
/// All of the above. None of them is sent by servers that mean something else by it.
///
/// # Examples
///
/// ```
/// use reqwest::header::HeaderName;
/// use reqwest_resilient::{HintFormat, HintHeaders};
///
/// let hints = HintHeaders::default()
///     .with(HeaderName::from_static("x-backoff"), HintFormat::Seconds)
///     .without(&HeaderName::from_static("x-envoy-ratelimited"));
/// ```
#[derive(Clone)]
pub struct HintHeaders {
    pub(super) spellings: Vec<HintRule>,
}

/// How the value of a hint header is written.
///
/// Lengths of time are ASCII digits, with a decimal fraction if they have one. A value that cannot
/// be read counts as absent, except where a variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HintFormat {
    /// Seconds, or an epoch, or a date.
    ///
    /// Numbers from 10⁹ on are seconds since 1970, from 10¹² on milliseconds since 1970, smaller
    /// ones seconds from now: the same header is sent with all three meanings. Dates may be
    /// RFC 3339 or HTTP dates. What has passed is now.
    EpochOrDelta,
    /// A duration as Go prints it: `6m0s`, `20ms`.
    GoDuration,
    /// Milliseconds.
    Millis,
    /// Milliseconds as a 32-bit integer; anything else, negative numbers above all, asks the
    /// client to stay away.
    Pushback,
    /// A list of quotas as structured field: `"burst";r=0;t=30`.
    ///
    /// The longest time of those with nothing remaining counts. The older form `limit=100,
    /// remaining=0, reset=30` is read too.
    RateLimit,
    /// Seconds or an HTTP date, as in `Retry-After`.
    RetryAfter,
    /// A date and time as in RFC 3339.
    Rfc3339,
    /// Seconds.
    Seconds,
    /// `true` asks for a retry, whatever the status; `false` asks the client to stay away.
    ShouldRetry,
    /// The client is to stay away if the header is there, unless it says `false`.
    Veto,
}

impl HintHeaders {
    /// No header at all: servers are not listened to.
    pub const fn none() -> Self {
        Self { spellings: Vec::new() }
    }

    /// Reads `header` too, before all others, in place of what it meant so far.
    pub fn with(self, header: HeaderName, format: HintFormat) -> Self {
        self.put_first(HintRule::new(header, format))
    }

    /// Like [`with`](Self::with), but the header counts only while `remaining` says 0.
    pub fn with_reset(self, header: HeaderName, format: HintFormat, remaining: HeaderName) -> Self {
        self.put_first(HintRule { remaining: Some(remaining), ..HintRule::new(header, format) })
    }

    /// Ignores `header`.
    pub fn without(mut self, header: &HeaderName) -> Self {
        if let Some(at) = self.spellings.iter().position(|it| it.header == *header) {
            // Whatever joined it now stands for itself only if nothing before it is left.
            let removed = self.spellings.remove(at);
            if let Some(next) = self.spellings.get_mut(at) {
                next.joins &= removed.joins;
            }
        }
        self
    }

    fn put_first(self, spelling: HintRule) -> Self {
        let mut all = self.without(&spelling.header);
        all.spellings.insert(0, spelling);
        all
    }
}

/// The headers and their formats, in order.
impl fmt::Debug for HintHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.spellings.iter().map(|it| (&it.header, it.format))).finish()
    }
}

impl Default for HintHeaders {
    fn default() -> Self {
        use HintFormat::*;

        let plain = |header, format| HintRule::new(HeaderName::from_static(header), format);
        let reset = |header, format, remaining| HintRule {
            remaining: Some(HeaderName::from_static(remaining)),
            ..plain(header, format)
        };
        let joined = |spelling| HintRule { joins: true, ..spelling };
        Self {
            spellings: vec![
                plain("x-should-retry", ShouldRetry),
                plain("x-envoy-ratelimited", Veto),
                plain("retry-after-ms", Millis),
                plain("x-ms-retry-after-ms", Millis),
                plain("x-amz-retry-after", Millis),
                HintRule::new(header::RETRY_AFTER, RetryAfter),
                plain("ratelimit", RateLimit),
                reset("ratelimit-reset", EpochOrDelta, "ratelimit-remaining"),
                reset("x-ratelimit-reset", EpochOrDelta, "x-ratelimit-remaining"),
                reset("x-rate-limit-reset", EpochOrDelta, "x-rate-limit-remaining"),
                reset("x-ratelimit-reset-requests", GoDuration, "x-ratelimit-remaining-requests"),
                joined(reset(
                    "x-ratelimit-reset-tokens",
                    GoDuration,
                    "x-ratelimit-remaining-tokens",
                )),
                reset(
                    "anthropic-ratelimit-requests-reset",
                    Rfc3339,
                    "anthropic-ratelimit-requests-remaining",
                ),
                joined(reset(
                    "anthropic-ratelimit-tokens-reset",
                    Rfc3339,
                    "anthropic-ratelimit-tokens-remaining",
                )),
                joined(reset(
                    "anthropic-ratelimit-input-tokens-reset",
                    Rfc3339,
                    "anthropic-ratelimit-input-tokens-remaining",
                )),
                joined(reset(
                    "anthropic-ratelimit-output-tokens-reset",
                    Rfc3339,
                    "anthropic-ratelimit-output-tokens-remaining",
                )),
                plain("grpc-retry-pushback-ms", Pushback),
            ],
        }
    }
}

/// One header that may carry a hint.
#[derive(Clone, Debug)]
pub(super) struct HintRule {
    pub(super) header: HeaderName,
    pub(super) format: HintFormat,
    /// The header that has to say 0 for this one to count.
    pub(super) remaining: Option<HeaderName>,
    /// Stands beside the one before it, so that the longer wait of both counts.
    pub(super) joins: bool,
    /// [`mark`] of the header.
    pub(super) mark: u64,
}

impl HintRule {
    fn new(header: HeaderName, format: HintFormat) -> Self {
        let mark = mark(&header);
        Self { header, format, remaining: None, joins: false, mark }
    }
}

/// One of 64 bits for a header name.
///
/// The marks of all headers of a response tell which spellings cannot be among them, at the cost
/// of a glance at each name instead of a look-up for each spelling.
pub(super) fn mark(header: &HeaderName) -> u64 {
    let name = header.as_str().as_bytes();
    let last = name.last().copied().unwrap_or_default();
    1 << ((name.len() + usize::from(last)) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_headers_and_their_formats() {
        let hints = HintHeaders::none()
            .with(header::RETRY_AFTER, HintFormat::RetryAfter)
            .with(HeaderName::from_static("x-backoff"), HintFormat::Seconds);
        assert_eq!(format!("{hints:?}"), r#"{"x-backoff": Seconds, "retry-after": RetryAfter}"#);
    }

    #[test]
    fn a_header_joins_another_only_while_one_of_its_own_kind_is_before_it() {
        let joins = |ignored: &'static str, header: &'static str| {
            let hints = HintHeaders::default().without(&HeaderName::from_static(ignored));
            hints.spellings.iter().find(|it| it.header == header).map(|it| it.joins)
        };
        let (requests, tokens) = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens");
        assert_eq!(joins(requests, tokens), Some(false));
        assert_eq!(joins(tokens, requests), Some(false));
        let (tokens, input) =
            ("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-input-tokens-reset");
        assert_eq!(joins(tokens, input), Some(true));
    }

    #[test]
    fn few_hints_are_looked_for_in_an_answer_without_any() {
        let present = [
            "access-control-allow-origin",
            "age",
            "cache-control",
            "connection",
            "content-encoding",
            "content-length",
            "content-type",
            "date",
            "etag",
            "last-modified",
            "server",
            "set-cookie",
            "strict-transport-security",
            "transfer-encoding",
            "vary",
            "via",
        ];
        let present = present.map(|it| mark(&HeaderName::from_static(it)));
        let spellings = HintHeaders::default().spellings;
        let looked_for = spellings.iter().filter(|it| present.contains(&it.mark)).count();
        assert!(looked_for * 4 <= spellings.len(), "{looked_for} of {}", spellings.len());
    }
}
