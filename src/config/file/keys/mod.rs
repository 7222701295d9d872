//! Every setting that a configuration may hold, one row each: its name, its valid values, the line
//! that describes it, and its setter.

mod breaker;
mod budget;
mod hedge;
mod limits;
mod mirrors;
mod request;

pub(super) use self::limits::set_limit;
pub(super) use self::mirrors::sets;
pub(super) use self::request::{set_key, with_hints};
use self::{
    breaker::BREAKER,
    budget::BUDGET,
    hedge::HEDGE,
    limits::{ALSO, CONCURRENCY, HOST_ALSO, LEARNED, PERMITS_OR_ADAPTIVE, RATE},
    request::SETTINGS,
};
use crate::breaker::BreakerConfig;
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::{Setter, Value};
use crate::config::overrides::RetryOverride;
use crate::host::hedge::Hedge;
use crate::host::limit::ConcurrencyLimit;
use crate::host::rate::RateLimit;
use crate::retry::budget::BudgetConfig;

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: false, set: Setter::Part, about }
}

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: true, set: Setter::Part, about }
}

/// Makes two functions for each kind of setter: one that makes a row, and one that sets a value by
/// the row of its name. A row without a setter, such as `scope`, changes nothing.
macro_rules! rows {
    ($($Kind:ident: $row:ident, $set:ident by $ROWS:ident for $Type:ty;)*) => { $(
        const fn $row(
            name: &'static str,
            kind: Kind,
            about: &'static str,
            set: fn($Type, &Value) -> $Type,
        ) -> Key {
            Key { set: Setter::$Kind(set), ..key(name, kind, about) }
        }

        pub(super) fn $set(settings: $Type, name: &str, value: &Value) -> $Type {
            match $ROWS.iter().find(|it| it.name == name).map(|it| &it.set) {
                Some(Setter::$Kind(set)) => set(settings, value),
                _ => settings,
            }
        }
    )* };
}

rows! {
    Request: request, set_request by SETTINGS for RetryOverride;
    Breaker: breaker, set_breaker by BREAKER for BreakerConfig;
    Budget: budget, set_budget by BUDGET for BudgetConfig;
    Concurrency: concurrency, set_concurrency by CONCURRENCY for ConcurrencyLimit;
    Rate: rate, set_rate by RATE for RateLimit;
    Hedge: hedge, set_hedge by HEDGE for Hedge;
}

const COUNT: Kind = Kind::Whole { min: 1, max: u32::MAX as u64 };
const PERCENT: Kind = Kind::Number { min: 0.01, max: 100.0 };
const TIME: Kind = Kind::Time { zero: false };
const TIME_OR_ZERO: Kind = Kind::Time { zero: true };
const FACTOR: Kind = Kind::Number { min: 1.0, max: f64::MAX };
const TIME_OR_OFF: Kind = Kind::Any(&[TIME, Kind::Off]);

const SCOPE: &[Key] = &[key(
    "scope",
    Kind::Word(&["per_host", "shared"]),
    "One for each host, or one for all requests. Default: per_host.",
)];

/// A whole configuration.
pub(super) const ROOT: Kind = Kind::Table(&[TOP, SETTINGS]);

const TOP: &[Key] = &[
    key(
        "$schema",
        Kind::Text,
        "Where editors find the schema of this file. It means nothing else.",
    ),
    key(
        "preset",
        Kind::Word(&["default", "batch", "service", "plain", "aresilient"]),
        "The settings to start from: the defaults, those of batch jobs, of services (whose deadline is \
         max_total_time), of plain retries, or of the Python library aresilient.",
    ),
    key(
        "circuit_breaker",
        Kind::Any(&[Kind::Table(&[SCOPE, BREAKER]), Kind::On, Kind::Off]),
        "Stops sending to a host that is down. Default: on, one for each host.",
    ),
    key(
        "retry_budget",
        Kind::Any(&[Kind::Table(&[SCOPE, BUDGET]), Kind::On, Kind::Off]),
        "How many retries successes pay for. Default: on, one for each host.",
    ),
    key(
        "concurrency_limit",
        Kind::Any(&[PERMITS_OR_ADAPTIVE, Kind::Table(&[SCOPE, CONCURRENCY]), Kind::Off]),
        "How many requests may be under way at a time, each to the end of its body. Default: off.",
    ),
    key(
        "rate_limit",
        Kind::Any(&[LEARNED, Kind::Table(&[SCOPE, RATE, ALSO]), Kind::Off]),
        "How many requests may be sent per time; learned from what responses say of their quotas, or set. \
         Default: off.",
    ),
    key("max_hosts", COUNT, "How many hosts are kept; not changed by a reload. Default: 1024."),
    key(
        "hosts",
        Kind::Hosts(&[HOST, SETTINGS]),
        "Settings that differ for a host, or for all hosts below a domain (*.example.com).",
    ),
];

const HOST: &[Key] = &[
    key(
        "circuit_breaker",
        Kind::Any(&[Kind::Table(&[BREAKER]), Kind::On, Kind::Off]),
        "What differs for this host's circuit breaker.",
    ),
    key(
        "retry_budget",
        Kind::Any(&[Kind::Table(&[BUDGET]), Kind::On, Kind::Off]),
        "What differs for this host's retry budget.",
    ),
    key(
        "concurrency_limit",
        Kind::Any(&[PERMITS_OR_ADAPTIVE, Kind::Table(&[CONCURRENCY]), Kind::Off]),
        "What differs for this host's concurrency limit.",
    ),
    key(
        "rate_limit",
        Kind::Any(&[LEARNED, Kind::Table(&[RATE, HOST_ALSO]), Kind::Off]),
        "What differs for this host's rate limit.",
    ),
];
