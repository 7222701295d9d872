//! The quotas that a response names, exhausted or not.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};

use super::headers::{Quota, Role};
use super::value::{self, Unit};
use super::{HintHeaders, Reader, number, quota};

/// The use of one quota, as a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaUse {
    /// The name that it has in the headers.
    pub(crate) name: Box<str>,
    pub(crate) remaining: u64,
    pub(crate) limit: Option<u64>,
    /// The time until it is refilled.
    pub(crate) reset: Duration,
    /// The time in which it may be used up.
    pub(crate) window: Option<Duration>,
}

impl QuotaUse {
    /// Returns whether it counts something else than requests, of which a request takes several.
    pub(crate) fn counts_more_than_requests(&self) -> bool {
        ["token", "unit", "cost", "point", "byte"].iter().any(|it| self.name.contains(it))
    }
}

/// Reads all quotas of a response: `RateLimit` in all its drafts, and pairs of headers of what
/// remains and when it is refilled. `now` is the client's wall clock.
pub(crate) fn quotas(
    headers: &HeaderMap,
    listened_to: &HintHeaders,
    now: SystemTime,
) -> Vec<QuotaUse> {
    let reader = Reader::new(headers, listened_to, now, false);
    let mut found = vec![];
    for header in headers.keys() {
        match listened_to.role(header) {
            Some((Role::Quotas, _)) => found.extend(reader.fields(header)),
            Some((Role::Reset(unit, remaining), _)) => {
                found.extend(reader.pair(header, unit, remaining));
            }
            _ => {}
        }
    }
    found
}

impl Reader<'_> {
    /// Reads the quotas of a structured field, with what its policy says of each.
    fn fields(&self, header: &HeaderName) -> Vec<QuotaUse> {
        if header.as_str().ends_with("-policy") {
            return vec![];
        }
        let policy = format!("{header}-policy");
        let policies = quota::fields(self.headers.get_all(policy.as_str()).iter());
        let fields = quota::fields(self.headers.get_all(header).iter()).unwrap_or_default();
        let quota = |field: quota::Field| {
            let policy = policies.iter().flatten().find(|it| it.name == field.name);
            let after = value::of_number(field.reset?, Unit::Seconds);
            Some(QuotaUse {
                remaining: field.remaining?,
                limit: field.limit.or_else(|| policy?.limit),
                reset: self.wait(after),
                window: field.window.or_else(|| policy?.window),
                name: field.name.into(),
            })
        };
        fields.into_iter().filter_map(quota).collect()
    }

    /// Reads the quota that a reset belongs to.
    fn pair(
        &self,
        reset: &HeaderName,
        unit: Unit,
        remaining: Option<&HeaderName>,
    ) -> Option<QuotaUse> {
        let quota = Quota::of_reset(reset.as_str())?;
        let is_its = |it: &&HeaderName| match remaining {
            Some(named) => *it == named,
            None => Quota::of_remaining(it.as_str()).is_some_and(|it| quota.is_of(&it)),
        };
        let remaining = self.headers.keys().find(is_its)?;
        Some(QuotaUse {
            name: remaining.as_str().into(),
            remaining: self.count(remaining)?,
            limit: self.limit_of(remaining),
            reset: self.longest(reset, unit)?,
            window: None,
        })
    }

    /// Returns the limit of the quota of which a header says what remains.
    fn limit_of(&self, remaining: &HeaderName) -> Option<u64> {
        let name = remaining.as_str();
        let limit = ["remaining", "remain"].iter().find_map(|it| {
            let (before, after) = name.split_once(it)?;
            Some(format!("{before}limit{after}"))
        })?;
        let limit = HeaderName::try_from(limit).ok()?;
        self.count(&limit)
    }

    /// Returns the smallest count that a header says.
    fn count(&self, header: &HeaderName) -> Option<u64> {
        let lines = self.headers.get_all(header).iter().filter_map(|it| it.to_str().ok());
        lines.filter_map(number::count).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;

    use super::*;

    fn read(lines: &[(&'static str, &str)]) -> Vec<QuotaUse> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        quotas(&headers, &HintHeaders::default(), now)
    }

    fn quota(name: &str, remaining: u64, limit: impl Into<Option<u64>>, seconds: u64) -> QuotaUse {
        QuotaUse {
            name: name.into(),
            remaining,
            limit: limit.into(),
            reset: Duration::from_secs(seconds),
            window: None,
        }
    }

    #[test]
    fn a_reset_belongs_to_the_header_that_was_named_with_it() {
        let name = HeaderName::from_static;
        let lines = [("x-ratelimit-remaining", "5"), ("x-left", "7"), ("x-ratelimit-reset", "9")];
        let headers = lines.map(|(it, value)| (name(it), HeaderValue::from_static(value)));
        let (headers, now) = (HeaderMap::from_iter(headers), UNIX_EPOCH);
        let named = HintHeaders::none().with_reset(name("x-ratelimit-reset"), name("x-left"));
        assert_eq!(quotas(&headers, &named, now), [quota("x-left", 7, None, 9)]);
    }

    #[test]
    fn every_dialect_is_read() {
        for (lines, expected) in [
            (&[("ratelimit", "\"default\";r=50;t=30")][..], vec![quota("default", 50, None, 30)]),
            (&[("ratelimit", "limit=100, remaining=50, reset=30")], vec![quota("", 50, 100, 30)]),
            (
                &[
                    ("ratelimit-limit", "100"),
                    ("ratelimit-remaining", "50"),
                    ("ratelimit-reset", "30"),
                ],
                vec![quota("ratelimit-remaining", 50, 100, 30)],
            ),
            (
                &[
                    ("x-ratelimit-limit", "5000"),
                    ("x-ratelimit-remaining", "4999"),
                    ("x-ratelimit-reset", "1445416080"),
                ],
                vec![quota("x-ratelimit-remaining", 4_999, 5_000, 3_600)],
            ),
            (
                &[
                    ("x-ratelimit-limit-requests", "60"),
                    ("x-ratelimit-remaining-requests", "59"),
                    ("x-ratelimit-reset-requests", "1s"),
                    ("x-ratelimit-limit-tokens", "90000"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                vec![
                    quota("x-ratelimit-remaining-requests", 59, 60, 1),
                    quota("x-ratelimit-remaining-tokens", 0, 90_000, 360),
                ],
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-limit", "50"),
                    ("anthropic-ratelimit-requests-remaining", "49"),
                    ("anthropic-ratelimit-requests-reset", "2015-10-21T07:29:00Z"),
                ],
                vec![quota("anthropic-ratelimit-requests-remaining", 49, 50, 60)],
            ),
            (&[("x-ratelimit-remaining", "50")], vec![]),
            (&[("x-ratelimit-reset", "50")], vec![]),
            (&[("retry-after", "50"), ("content-length", "3")], vec![]),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_policy_gives_limit_and_window() {
        let lines = [
            ("ratelimit-policy", "\"burst\";q=100;w=60, \"daily\";q=1000;w=86400"),
            ("ratelimit", "\"burst\";r=99;t=60, \"daily\";r=0;t=7200"),
        ];
        let burst =
            QuotaUse { window: Some(Duration::from_secs(60)), ..quota("burst", 99, 100, 60) };
        let daily = QuotaUse {
            window: Some(Duration::from_secs(86_400)),
            ..quota("daily", 0, 1_000, 7_200)
        };
        assert_eq!(read(&lines), [burst, daily]);
    }

    #[test]
    fn tokens_are_told_from_requests() {
        assert!(quota("x-ratelimit-remaining-tokens", 1, 1, 1).counts_more_than_requests());
        assert!(!quota("x-ratelimit-remaining", 1, 1, 1).counts_more_than_requests());
    }
}
