//! Settings of one value each, and readers of values.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::breaker::Percent;
use crate::config::file::shape::{Table, Value};
use crate::config::headers::DeadlineHeader;
use crate::config::overrides::RetryOverride;
use crate::config::policy::RetryAfter;
use crate::outcome::classify::RetryMethods;
use crate::outcome::hint::{HintFormat, HintHeaders};
use crate::outcome::idempotency::{IdempotencyKey, KeyFormat};
use crate::retry::backoff::Jitter;

pub(super) fn set(settings: RetryOverride, name: &str, value: &Value) -> RetryOverride {
    match (name, value) {
        ("max_retries", Value::Whole(it)) => settings.max_retries(count(*it)),
        ("jitter", Value::Word("full")) => settings.jitter(Jitter::Full),
        ("jitter", Value::Word("equal")) => settings.jitter(Jitter::Equal),
        ("jitter", Value::Word("decorrelated")) => settings.jitter(Jitter::Decorrelated),
        ("jitter", Value::Word(_)) => settings.jitter(Jitter::None),
        ("jitter", Value::Number(share)) => settings.jitter(Jitter::Proportional(*share)),
        ("refused_statuses", Value::List(list)) => settings.refused_statuses(statuses(list)),
        ("retry_statuses", Value::List(list)) => settings.retry_statuses(statuses(list)),
        ("retry_methods", Value::Word("all")) => settings.retry_methods(RetryMethods::All),
        ("retry_methods", Value::Word(_)) => settings.retry_methods(RetryMethods::Idempotent),
        ("retry_methods", Value::List(list)) => {
            let methods = list.iter().filter_map(|it| match it {
                Value::Method(method) => Some(method.clone()),
                _ => None,
            });
            settings.retry_methods(RetryMethods::Only(methods.collect()))
        }
        ("attempt_timeout", Value::Time(it)) => settings.attempt_timeout(*it),
        ("attempt_timeout", Value::Off) => settings.without_attempt_timeout(),
        ("max_total_time", Value::Time(it)) => settings.max_total_time(*it),
        ("max_total_time", Value::Off) => settings.without_max_total_time(),
        ("max_wait_time", Value::Time(it)) => settings.max_wait_time(*it),
        ("max_open_wait", Value::Time(it)) => settings.max_open_wait(*it),
        ("max_open_wait", Value::Off) => settings.max_open_wait(Duration::ZERO),
        ("retry_after", Value::Word("replaces")) => settings.retry_after(RetryAfter::Replaces),
        ("retry_after", Value::Word("ignored")) => settings.retry_after(RetryAfter::Ignored),
        ("retry_after", Value::Table(table)) => {
            settings.retry_after(RetryAfter::Capped(get_time(table, "capped")))
        }
        ("retry_after", Value::Word(_)) => settings.retry_after(RetryAfter::Floor),
        ("hint_headers", Value::Off) => settings.hint_headers(HintHeaders::none()),
        ("hint_headers", Value::Table(table)) => settings.hint_headers(hints(table)),
        ("read_body", Value::Whole(it)) => {
            settings.read_body(usize::try_from(*it).unwrap_or(usize::MAX))
        }
        ("read_body", Value::Off) => settings.without_read_body(),
        ("idempotency_key", Value::Off) => settings.without_idempotency_key(),
        ("idempotency_key", Value::On) => settings.idempotency_key(IdempotencyKey::random()),
        ("idempotency_key", Value::Table(table)) => settings.idempotency_key(table.iter().fold(
            IdempotencyKey::random(),
            |key, it| match it {
                (_, Value::Header(header)) => key.header(header.clone()),
                (_, Value::Word("raw")) => key.format(KeyFormat::Raw),
                _ => key,
            },
        )),
        ("deadline_header", Value::Off) => settings.without_deadline_header(),
        ("deadline_header", Value::Header(name)) if name == "grpc-timeout" => {
            settings.deadline_header(DeadlineHeader::grpc_timeout())
        }
        ("deadline_header", Value::Header(name)) => {
            settings.deadline_header(DeadlineHeader::millis(name.clone()))
        }
        ("attempt_header", Value::Off) => settings.without_attempt_header(),
        ("attempt_header", Value::Header(name)) => settings.attempt_header(name.clone()),
        ("gate", Value::On) => settings.gate(),
        ("gate", Value::Off) => settings.without_gate(),
        // `preset`, `hosts` and `max_hosts` are no settings of a request.
        _ => settings,
    }
}

fn statuses(list: &[Value]) -> impl Iterator<Item = StatusCode> {
    list.iter().filter_map(|it| match it {
        Value::Status(status) => Some(*status),
        _ => None,
    })
}

fn hints(table: &Table) -> HintHeaders {
    use HintFormat::*;

    table.iter().fold(HintHeaders::default(), |hints, (name, value)| {
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
            _ => return hints.without(&header),
        };
        hints.with_format(header, format)
    })
}

pub(super) fn get<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    table.iter().find(|(it, _)| it == name).map(|(_, it)| it)
}

pub(super) fn get_table<'t>(table: &'t Table, name: &str) -> &'t Table {
    const EMPTY: &Table = &Table::new();
    match get(table, name) {
        Some(Value::Table(table)) => table,
        _ => EMPTY,
    }
}

// A required value is missing only where a fault says so already; anything will do there.

pub(super) fn get_time(table: &Table, name: &str) -> Duration {
    match get(table, name) {
        Some(Value::Time(time)) => *time,
        _ => Duration::MAX,
    }
}

pub(super) fn get_count(table: &Table, name: &str) -> NonZeroU32 {
    match get(table, name) {
        Some(Value::Whole(whole)) => positive(*whole),
        _ => NonZeroU32::MIN,
    }
}

pub(super) fn get_number(table: &Table, name: &str) -> f64 {
    match get(table, name) {
        Some(Value::Number(number)) => *number,
        _ => 1.0,
    }
}

pub(super) fn get_percent(table: &Table) -> Percent {
    match get(table, "percent") {
        Some(Value::Whole(whole)) => percent(*whole),
        _ => Percent::HALF,
    }
}

// Shapes bound what gets here, so none of these is ever cut.

pub(super) fn count(whole: u64) -> u32 {
    u32::try_from(whole).unwrap_or(u32::MAX)
}

pub(super) fn positive(whole: u64) -> NonZeroU32 {
    NonZeroU32::new(count(whole)).unwrap_or(NonZeroU32::MIN)
}

pub(super) fn percent(whole: u64) -> Percent {
    u8::try_from(whole).ok().and_then(Percent::new).unwrap_or(Percent::HALF)
}
