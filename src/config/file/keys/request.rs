//! The settings of a request.

use std::time::Duration;

use http::HeaderName;

use super::mirrors::MIRRORS;
use super::{COUNT, FACTOR, HEDGE, TIME, TIME_OR_OFF, TIME_OR_ZERO, key, needed, request};
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::{Table, Value, get_count, get_time};
use crate::config::headers::DeadlineHeader;
use crate::config::policy::RetryAfter;
use crate::outcome::classify::RetryMethods;
use crate::outcome::hint::{HintFormat, HintHeaders};
use crate::outcome::idempotency::{IdempotencyKey, KeyFormat};
use crate::outcome::statuses::Statuses;
use crate::retry::backoff::Jitter;

pub(super) const ON_OFF: Kind = Kind::Any(&[Kind::On, Kind::Off]);
// Off comes first: it could be a header's name.
const HEADER_OR_OFF: Kind = Kind::Any(&[Kind::Off, Kind::Header]);

pub(super) const SETTINGS: &[Key] = &[
    request(
        "max_retries",
        Kind::Whole { min: 0, max: u32::MAX as u64 },
        "The most retries after the first attempt. Default: 3.",
        |it, value| it.max_retries(value.count()),
    ),
    key(
        "backoff",
        Kind::Table(&[BACKOFF]),
        "The delay before each retry. Default: from 300ms, doubling to 20s; from 1s after a rate \
         limit that closes no gate. A table serves rate limits, too.",
    ),
    key(
        "hedge",
        Kind::Any(&[Kind::Table(&[HEDGE]), Kind::On, Kind::Off]),
        "Sends another attempt beside one that is slow. Default: off.",
    ),
    request(
        "jitter",
        Kind::Any(&[
            Kind::Word(&["full", "equal", "decorrelated", "none"]),
            Kind::Number { min: 0.0, max: f64::MAX },
        ]),
        "How delays are spread; a number adds up to this share of the delay. Default: full.",
        |it, value| {
            it.jitter(match value {
                Value::Word("full") => Jitter::Full,
                Value::Word("equal") => Jitter::Equal,
                Value::Word("decorrelated") => Jitter::Decorrelated,
                Value::Number(share) => Jitter::Proportional(*share),
                _ => Jitter::None,
            })
        },
    ),
    request(
        "retry_statuses",
        Kind::List(&Kind::Status),
        "The statuses that are retried. Default: 408, 425, 429, 500, 502, 503, 504, a 403 \
         that is a rate limit, and 413, 529, 530 that say when to retry.",
        |it, value| it.retry_statuses(statuses(value)),
    ),
    request(
        "refused_statuses",
        Kind::List(&Kind::Status),
        "The statuses that say that a request was not processed, so that a POST may be sent again. \
         Default: 425, 429, and a 403 that is a rate limit.",
        |it, value| it.refused_statuses(statuses(value)),
    ),
    request(
        "retry_methods",
        Kind::Any(&[Kind::Word(&["idempotent", "all"]), Kind::List(&Kind::Method)]),
        "The methods that may be sent again after they may have been processed. Default: idempotent.",
        |it, value| {
            it.retry_methods(match value {
                Value::Word("all") => RetryMethods::All,
                Value::List(list) => {
                    RetryMethods::Only(list.iter().filter_map(Value::method).collect())
                }
                _ => RetryMethods::Idempotent,
            })
        },
    ),
    request(
        "attempt_timeout",
        TIME_OR_OFF,
        "The longest an attempt may take. Default: off; the client's own timeouts apply.",
        |it, value| match value.time() {
            Some(timeout) => it.attempt_timeout(timeout),
            None => it.without_attempt_timeout(),
        },
    ),
    request(
        "max_total_time",
        TIME_OR_OFF,
        "The longest everything may take: attempts, waits and the body. Default: off.",
        |it, value| match value.time() {
            Some(limit) => it.max_total_time(limit),
            None => it.without_max_total_time(),
        },
    ),
    request("max_wait_time", TIME, "The longest single wait. Default: 60s.", |it, value| {
        it.max_wait_time(value.time().unwrap_or(Duration::MAX))
    }),
    request(
        "max_open_wait",
        TIME_OR_OFF,
        "The longest wait at an open circuit breaker or for a token of the budget. Default: 2s, or \
         half the attempt timeout if that is less.",
        |it, value| it.max_open_wait(value.time().unwrap_or_default()),
    ),
    request(
        "retry_after",
        Kind::Any(&[Kind::Word(&["floor", "replaces", "ignored"]), Kind::Table(&[RETRY_AFTER])]),
        "What becomes of a wait that the server asked for. Default: floor, the least to wait.",
        |it, value| {
            it.retry_after(match value {
                Value::Word("replaces") => RetryAfter::Replaces,
                Value::Word("ignored") => RetryAfter::Ignored,
                Value::Table(table) => RetryAfter::Capped(get_time(table, "capped")),
                _ => RetryAfter::Floor,
            })
        },
    ),
    key(
        "hint_headers",
        Kind::Any(&[
            Kind::Headers(&Kind::Any(&[
                Kind::Word(FORMATS),
                Kind::Table(&[RESET]),
                Kind::On,
                Kind::Off,
            ])),
            Kind::Off,
        ]),
        "Headers by which a server may ask to wait, added to those that are known; off for none.",
    ),
    key(
        "mirrors",
        MIRRORS,
        "Endpoints for the requests under a base URL, in place of it. Default: off.",
    ),
    request(
        "read_body",
        Kind::Any(&[Kind::Whole { min: 1, max: u32::MAX as u64 }, Kind::Off]),
        "Reads bodies of up to this many bytes within the attempt. Default: off.",
        |it, value| match value.whole() {
            Some(limit) => it.read_body(usize::try_from(limit).unwrap_or(usize::MAX)),
            None => it.without_read_body(),
        },
    ),
    request(
        "stall_timeout",
        TIME_OR_OFF,
        "The longest wait for a byte of a body while it is read. Default: 30s.",
        |it, value| match value.time() {
            Some(timeout) => it.stall_timeout(timeout),
            None => it.without_stall_timeout(),
        },
    ),
    request(
        "min_speed",
        Kind::Any(&[Kind::Table(&[MIN_SPEED]), Kind::Off]),
        "The least speed of a download; a slower one goes on by another request. Default: off.",
        |it, value| match value.table() {
            Some(table) => {
                let speed = get_count(table, "bytes_per_second");
                it.min_speed(speed.into(), get_time(table, "period"))
            }
            None => it.without_min_speed(),
        },
    ),
    key(
        "idempotency_key",
        Kind::Any(&[Kind::Table(&[IDEMPOTENCY_KEY]), Kind::On, Kind::Off]),
        "Adds a random key to requests that are not idempotent. Default: off.",
    ),
    request(
        "deadline_header",
        HEADER_OR_OFF,
        "Tells the server in this header how long the client waits for its response: grpc-timeout as \
         gRPC writes it, any other in milliseconds. Default: off.",
        |it, value| match value {
            Value::Header(name) if name == "grpc-timeout" => {
                it.deadline_header(DeadlineHeader::grpc_timeout())
            }
            Value::Header(name) => it.deadline_header(DeadlineHeader::millis(name.clone())),
            _ => it.without_deadline_header(),
        },
    ),
    request(
        "attempt_header",
        HEADER_OR_OFF,
        "Tells the server in this header which attempt it sees. Default: off.",
        |it, value| match value {
            Value::Header(name) => it.attempt_header(name.clone()),
            _ => it.without_attempt_header(),
        },
    ),
    request(
        "gate",
        ON_OFF,
        "After a rate limit or a 503 with a retry hint, delays all requests to that host. \
         Default: on.",
        |it, value| if *value == Value::Off { it.without_gate() } else { it.gate() },
    ),
];

const BACKOFF: &[Key] = &[
    key(
        "kind",
        Kind::Word(&["exponential", "linear", "fibonacci", "constant"]),
        "How delays grow. Default: exponential.",
    ),
    key("delay", TIME_OR_ZERO, "The first delay. Default: 300ms."),
    key(
        "factor",
        FACTOR,
        "How many times as long each next delay is; exponential only. Default: 2.",
    ),
    key(
        "max_delay",
        TIME_OR_OFF,
        "The longest delay, jitter included. Default: 20s, no less than delay, no more than \
         max_wait_time.",
    ),
];

const MIN_SPEED: &[Key] = &[
    needed("bytes_per_second", COUNT, "The least bytes a second."),
    needed("period", TIME, "The time of waiting over which the speed is averaged."),
];

const RETRY_AFTER: &[Key] = &[needed(
    "capped",
    TIME,
    "The least to wait, cut to this length instead of ending the request.",
)];

/// The names of the variants of `HintFormat`.
const FORMATS: &[&str] = &["millis", "pushback", "should_retry", "standard", "veto", "wait"];

const RESET: &[Key] =
    &[needed("remaining", Kind::Header, "The header that says 0 where this one counts.")];

const IDEMPOTENCY_KEY: &[Key] = &[
    key("header", Kind::Header, "The header that carries it. Default: idempotency-key."),
    key("format", Kind::Word(&["quoted", "raw"]), "The notation of the key. Default: quoted."),
];

fn statuses(list: &Value) -> Statuses {
    let status = |it: &Value| match it {
        Value::Status(status) => Some(*status),
        _ => None,
    };
    list.items().iter().filter_map(status).collect()
}

/// Sets a part of the idempotency key.
pub(in crate::config::file) fn set_key(key: IdempotencyKey, value: &Value) -> IdempotencyKey {
    match value {
        Value::Header(header) => key.header(header.clone()),
        Value::Word("raw") => key.format(KeyFormat::Raw),
        Value::Word("quoted") => key.format(KeyFormat::Quoted),
        _ => key,
    }
}

/// Adds the hint headers of `table` to `before` and to those that are known.
pub(in crate::config::file) fn with_hints(before: &HintHeaders, table: &Table) -> HintHeaders {
    use HintFormat::*;

    table.iter().fold(before.clone().with_known(), |hints, (name, value)| {
        let Ok(header) = HeaderName::try_from(name) else { return hints };
        let format = match value {
            Value::Word("millis") => Millis,
            Value::Word("pushback") => Pushback,
            Value::Word("should_retry") => ShouldRetry,
            Value::Word("standard") => Standard,
            Value::Word("veto") => Veto,
            Value::Word("wait") => Wait,
            Value::On => return hints.with(header),
            Value::Table(table) => {
                return match table.first() {
                    Some((_, Value::Header(remaining))) => {
                        hints.with_reset(header, remaining.clone())
                    }
                    _ => hints,
                };
            }
            _ => return hints.without(header),
        };
        hints.with_format(header, format)
    })
}
