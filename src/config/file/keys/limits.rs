//! The limits of the client: requests under way at a time, and requests per time.

use std::time::Duration;

use super::{COUNT, SCOPE, TIME, TIME_OR_ZERO, concurrency, key, rate};
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::Value;
use crate::host::limit::{ConcurrencyLimit, Limit, LimitRules, QueueOrder};

const PERMITS: Kind = Kind::Whole { min: 1, max: 1_000_000 };

pub(super) const PERMITS_OR_ADAPTIVE: Kind = Kind::Any(&[PERMITS, Kind::Word(&["adaptive"])]);

pub(super) const LEARNED: Kind = Kind::Word(&["learned"]);

pub(super) const CONCURRENCY: &[Key] = &[
    concurrency(
        "limit",
        PERMITS_OR_ADAPTIVE,
        "How many requests may be under way at a time. Default: adaptive.",
        set_limit,
    ),
    concurrency(
        "start",
        PERMITS,
        "What an adaptive limit starts from. Default: 20, within min and max.",
        |it, value| {
            let limit = it.rules.limit.start(value.count());
            it.with_limit(limit)
        },
    ),
    concurrency("min", PERMITS, "The least of an adaptive limit. Default: 1.", |it, value| {
        let limit = it.rules.limit.min(value.count());
        it.with_limit(limit)
    }),
    concurrency("max", PERMITS, "The most of an adaptive limit. Default: 1000.", |it, value| {
        let limit = it.rules.limit.max(value.count());
        it.with_limit(limit)
    }),
    concurrency(
        "max_queue_time",
        TIME_OR_ZERO,
        "The longest wait for a permit. Default: max_wait_time.",
        |it, value| it.max_queue_time(value.time().unwrap_or_default()),
    ),
    concurrency(
        "order",
        Kind::Word(&["adaptive", "fair"]),
        "The order of waiting requests: the newest first once the queue stands and time is short, \
         or always the oldest first. Default: adaptive.",
        |it, value| {
            it.order(match value {
                Value::Word("fair") => QueueOrder::Fair,
                _ => QueueOrder::Adaptive,
            })
        },
    ),
    concurrency(
        "until",
        Kind::Word(&["body", "head"]),
        "How long a permit is held: to the end of the body, or of the head. Default: body.",
        |it, value| {
            let rules = LimitRules { until_head: *value == Value::Word("head"), ..it.rules };
            it.with_rules(rules)
        },
    ),
];

pub(super) const RATE: &[Key] = &[
    rate("requests", COUNT, "How many requests in each period.", |it, value| {
        it.map_first(|rate| rate.count(value.count()))
    }),
    rate("per", TIME, "The period. Default: 1s.", |it, value| {
        it.map_first(|rate| rate.period(value.time().unwrap_or(Duration::MAX)))
    }),
    rate("burst", COUNT, "How many may go at once after a pause. Default: 1.", |it, value| {
        it.map_first(|rate| rate.burst(value.count()))
    }),
    rate(
        "max_wait",
        TIME_OR_ZERO,
        "The longest wait for a slot; 0 rejects at once. Default: max_wait_time.",
        |it, value| it.max_wait(value.time().unwrap_or_default()),
    ),
    rate(
        "bucket_header",
        Kind::Header,
        "The header in which responses name the bucket of a request: quotas are learned for each. \
         Default: none.",
        |it, value| match value {
            Value::Header(name) => it.with_buckets(name.clone()),
            _ => it,
        },
    ),
    rate(
        "route",
        Kind::Whole { min: 0, max: 64 },
        "How many segments of the path make the route of a request, which belongs to a bucket. \
         Default: all.",
        |it, value| it.route_of_segments(value.whole().unwrap_or(u32::MAX)),
    ),
];

/// The limits that have to be kept as well; each begins anew.
pub(super) const ALSO: &[Key] = &[key(
    "also",
    Kind::Any(&[Kind::Table(&[SCOPE, RATE]), Kind::List(&Kind::Table(&[SCOPE, RATE]))]),
    "A limit that has to be kept as well, or several. Default: none.",
)];

/// The same for one host, whose limits are its own.
pub(super) const HOST_ALSO: &[Key] = &[key(
    "also",
    Kind::Any(&[Kind::Table(&[RATE]), Kind::List(&Kind::Table(&[RATE]))]),
    "A limit that has to be kept as well, or several. Default: none.",
)];

/// Sets the limit itself; bounds of an adaptive one stay.
pub(in crate::config::file) fn set_limit(it: ConcurrencyLimit, value: &Value) -> ConcurrencyLimit {
    let limit = match value {
        Value::Whole(_) => Limit::fixed(value.count()),
        _ if it.rules.limit.is_adaptive() => it.rules.limit,
        _ => Limit::adaptive(),
    };
    it.with_limit(limit)
}
