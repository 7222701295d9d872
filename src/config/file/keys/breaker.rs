//! The rules of the circuit breaker.

use super::{COUNT, FACTOR, PERCENT, TIME, TIME_OR_ZERO, breaker, needed};
use crate::breaker::Window;
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::{Value, get, get_count, get_percent, get_time};

const COUNT_OR_OFF: Kind = Kind::Any(&[COUNT, Kind::Off]);
const PERCENT_OR_OFF: Kind = Kind::Any(&[PERCENT, Kind::Off]);

pub(super) const BREAKER: &[Key] = &[
    breaker("open_for", TIME, "How long it stays open. Default: 1s.", |it, value| {
        it.open_for(value.time().unwrap_or_default())
    }),
    breaker(
        "open_growth",
        Kind::Any(&[Kind::Table(&[OPEN_GROWTH]), Kind::Off]),
        "Makes each further opening in a row last longer. Default: 1.5 times, up to twice open_for.",
        |it, value| match value.table() {
            Some(table) => it.open_growth(
                get(table, "factor").map_or(1.0, Value::number),
                get_time(table, "max"),
            ),
            None => it.without_open_growth(),
        },
    ),
    breaker(
        "open_jitter",
        PERCENT_OR_OFF,
        "Lengthens openings by up to this share. Default: 25.",
        |it, value| match value.percent() {
            Some(percent) => it.open_jitter(percent),
            None => it.without_open_jitter(),
        },
    ),
    breaker(
        "max_retry_after",
        TIME_OR_ZERO,
        "The longest a server's Retry-After may keep it open. Default: 60s.",
        |it, value| it.max_retry_after(value.time().unwrap_or_default()),
    ),
    breaker(
        "window",
        Kind::Any(&[TIME, Kind::Whole { min: 1, max: u16::MAX as u64 }]),
        "The results it looks at: those of this time, or the last so many. Default: 10s.",
        |it, value| {
            it.window(match value.time() {
                Some(span) => Window::Time(span),
                None => Window::Count(u16::try_from(value.count()).unwrap_or(u16::MAX)),
            })
        },
    ),
    breaker(
        "min_samples",
        COUNT,
        "The results that the window must hold before a rate can open it. Default: 20.",
        |it, value| it.min_samples(value.count()),
    ),
    breaker(
        "sustained",
        Kind::Any(&[Kind::Table(&[SUSTAINED]), Kind::Off]),
        "Opens after a time without success, with failures in it. Default: 2s and 5 failures.",
        |it, value| match value.table() {
            Some(table) => {
                it.or_sustained(get_time(table, "no_success_for"), get_count(table, "min_failures"))
            }
            None => it.without_sustained(),
        },
    ),
    breaker(
        "failure_rate",
        PERCENT_OR_OFF,
        "Opens when this share of first attempts fail. Default: off.",
        |it, value| match value.percent() {
            Some(percent) => it.or_failure_rate(percent),
            None => it.without_failure_rate(),
        },
    ),
    breaker(
        "consecutive",
        COUNT_OR_OFF,
        "Opens after so many failures in a row, whatever the window holds. Default: off.",
        |it, value| match value.whole() {
            Some(failures) => it.or_consecutive(failures),
            None => it.without_consecutive_of(false),
        },
    ),
    breaker(
        "consecutive_while_few",
        COUNT_OR_OFF,
        "The same, while there are too few results for a rate. Default: off.",
        |it, value| match value.whole() {
            Some(failures) => it.or_consecutive_while_few(failures),
            None => it.without_consecutive_of(true),
        },
    ),
    breaker(
        "slow_calls",
        Kind::Any(&[Kind::Table(&[SLOW_CALLS]), Kind::Off]),
        "Opens when too many calls are slow. Default: off.",
        |it, value| match value.table() {
            Some(table) => it.or_slow_calls(get_time(table, "slower_than"), get_percent(table)),
            None => it.without_slow_calls(),
        },
    ),
    breaker(
        "max_probes",
        COUNT,
        "How many probes may be under way at a time. Default: 1.",
        |it, value| it.max_probes(value.count()),
    ),
    breaker(
        "close_after",
        COUNT,
        "Closes after so many probes have succeeded. Default: 1.",
        |it, value| it.close_after(value.count()),
    ),
    breaker(
        "close_unless",
        Kind::Table(&[CLOSE_UNLESS]),
        "Closes unless too many of the probes fail, in place of close_after.",
        |it, value| match value.table() {
            Some(table) => it.close_unless(get_percent(table), get_count(table, "probes")),
            None => it,
        },
    ),
    breaker(
        "half_open_max_wait",
        TIME,
        "How long it waits for probes before it replaces them. Default: 30s.",
        |it, value| it.half_open_max_wait(value.time().unwrap_or_default()),
    ),
];

const OPEN_GROWTH: &[Key] = &[
    needed("factor", FACTOR, "How many times as long each further opening lasts."),
    needed("max", TIME, "The longest opening, jitter included."),
];

const SUSTAINED: &[Key] = &[
    needed("no_success_for", TIME, "The time without success, from the first failure on."),
    needed("min_failures", COUNT, "How many attempts must fail in that time."),
];

const SLOW_CALLS: &[Key] = &[
    needed("slower_than", TIME, "A call that takes this long or longer is slow."),
    needed("percent", PERCENT, "The share of slow calls that opens it."),
];

const CLOSE_UNLESS: &[Key] = &[
    needed("percent", PERCENT, "The share of failed probes that opens it again."),
    needed("probes", COUNT, "How many probes are judged."),
];
