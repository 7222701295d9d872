//! From what was understood to the settings themselves.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::breaker::{BreakerConfig, CircuitBreaker, Percent, Window};
use crate::common::fault::ConfigFault;
use crate::config::file::shape::{Table, Value};
use crate::config::headers::DeadlineHeader;
use crate::config::overrides::RetryOverride;
use crate::config::policy::RetryAfter;
use crate::config::{ResilientConfig, ResilientConfigBuilder};
use crate::outcome::classify::RetryMethods;
use crate::outcome::hint::{HintFormat, HintHeaders};
use crate::outcome::idempotency::{IdempotencyKey, KeyFormat};
use crate::retry::backoff::{Constant, Exponential, Fibonacci, Jitter, Linear};
use crate::retry::budget::{BudgetConfig, RetryBudget};

/// The builder that `table` makes, with what only shows where values meet added to `faults`.
pub(super) fn builder(table: &Table, faults: &mut Vec<ConfigFault>) -> ResilientConfigBuilder {
    let preset = preset(table, faults);
    let mut general = Parts::of(&preset);
    let settings = general.apply(RetryOverride::new(), table, "", faults);

    let hosts = get_table(table, "hosts");
    let mut special = vec![];
    for (name, settings) in hosts {
        let Value::Table(settings) = settings else { continue };
        let mut parts = general.clone();
        let path = format!("hosts.{name:?}.");
        let settings = parts.apply(RetryOverride::new(), settings, &path, faults);
        special.push((name.as_str(), parts, settings));
    }

    let breaker = get_table(table, "circuit_breaker");
    let budget = get_table(table, "retry_budget");
    for (field, scope, differs) in [
        ("circuit_breaker", breaker, differing(&special, &general, |it| &it.breaker)),
        ("retry_budget", budget, differing(&special, &general, |it| &it.budget)),
    ] {
        if let (true, Some(host)) = (is_shared(scope), differs) {
            let field = format!("hosts.{host:?}.{field}");
            let rule = "can only differ where there is one per host";
            faults.push(ConfigFault::new(field, rule, "shared"));
        }
    }
    let dress = |settings: RetryOverride, parts: &Parts| {
        let settings = match &parts.breaker {
            Some(config) if is_shared(breaker) => {
                settings.circuit_breaker(CircuitBreaker::shared(config.clone()))
            }
            Some(config) => settings.circuit_breaker(config.clone()),
            None => settings.without_circuit_breaker(),
        };
        match parts.budget {
            Some(config) if is_shared(budget) => settings.retry_budget(RetryBudget::shared(config)),
            Some(config) => settings.retry_budget(config),
            None => settings.without_retry_budget(),
        }
    };
    let mut builder = preset.to_builder().settings(dress(settings, &general));
    if let Some(Value::Whole(hosts)) = get(table, "max_hosts") {
        let hosts = usize::try_from(*hosts).ok().and_then(NonZeroUsize::new);
        builder = builder.max_hosts(hosts.unwrap_or(NonZeroUsize::MAX));
    }
    special.into_iter().fold(builder, |builder, (name, parts, settings)| {
        builder.host(name, dress(settings, &parts))
    })
}

/// Returns the settings to start from. A service has no deadline of its own: `max_total_time` is it.
fn preset(table: &Table, faults: &mut Vec<ConfigFault>) -> ResilientConfig {
    match (get(table, "preset"), get(table, "max_total_time")) {
        (Some(Value::Word("aresilient")), _) => ResilientConfig::aresilient(),
        (Some(Value::Word("batch")), _) => ResilientConfig::batch(),
        (Some(Value::Word("plain")), _) => ResilientConfig::plain(),
        (Some(Value::Word("service")), Some(Value::Time(it))) => ResilientConfig::service(*it),
        (Some(Value::Word("service")), _) => {
            faults.push(ConfigFault::new(
                "preset",
                "needs max_total_time, its deadline",
                "service",
            ));
            ResilientConfig::default()
        }
        _ => ResilientConfig::default(),
    }
}

/// Settings that are made of several values, some of which a host may change.
#[derive(Clone)]
struct Parts {
    backoff: &'static str,
    delay: Duration,
    factor: f64,
    max_delay: Option<Duration>,
    breaker: Option<BreakerConfig>,
    budget: Option<BudgetConfig>,
}

impl Parts {
    /// The parts of a preset, whose backoff is exponential.
    fn of(preset: &ResilientConfig) -> Self {
        let policy = preset.policy();
        Self {
            backoff: "exponential",
            delay: policy.backoff.delay(0),
            factor: 2.0,
            max_delay: policy.backoff.max_delay().filter(|it| *it < Duration::MAX),
            breaker: policy.breaker.as_ref().map(|it| it.config().clone()),
            budget: policy.budget.as_ref().map(|it| *it.config()),
        }
    }

    /// Takes over what `table` says. `path` is that of the table, with a dot.
    fn apply(
        &mut self,
        mut settings: RetryOverride,
        table: &Table,
        path: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> RetryOverride {
        for (name, value) in table {
            settings = match (name.as_str(), value) {
                ("backoff", Value::Table(table)) => {
                    clash(table, "kind", Some("constant"), "max_delay", path, faults);
                    for kind in ["constant", "linear", "fibonacci"] {
                        clash(table, "kind", Some(kind), "factor", path, faults);
                    }
                    self.apply_backoff(settings, table)
                }
                ("circuit_breaker", value) => {
                    if let Value::Table(table) = value {
                        let path = format!("{path}circuit_breaker.");
                        clash(table, "consecutive", None, "consecutive_while_few", &path, faults);
                        clash(table, "close_after", None, "close_unless", &path, faults);
                    }
                    self.breaker = switched(self.breaker.take(), value, breaker);
                    settings
                }
                ("retry_budget", value) => {
                    self.budget = switched(self.budget.take(), value, budget);
                    settings
                }
                (name, value) => set(settings, name, value),
            };
        }
        settings
    }

    fn apply_backoff(&mut self, settings: RetryOverride, table: &Table) -> RetryOverride {
        for (name, value) in table {
            match (name.as_str(), value) {
                ("kind", Value::Word(kind)) => self.backoff = kind,
                ("delay", Value::Time(delay)) => self.delay = *delay,
                ("factor", Value::Number(factor)) => self.factor = *factor,
                ("max_delay", Value::Time(cap)) => self.max_delay = Some(*cap),
                ("max_delay", _) => self.max_delay = None,
                _ => {}
            }
        }
        let cap = self.max_delay.unwrap_or(Duration::MAX);
        match (self.backoff, self.max_delay) {
            ("constant", _) => settings.backoff(Constant::new(self.delay)),
            ("linear", _) => settings.backoff(Linear::new(self.delay).max_delay(cap)),
            ("fibonacci", _) => settings.backoff(Fibonacci::new(self.delay).max_delay(cap)),
            _ => settings.backoff(Exponential::new(self.delay).factor(self.factor).max_delay(cap)),
        }
    }
}

fn set(settings: RetryOverride, name: &str, value: &Value) -> RetryOverride {
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

fn breaker(config: BreakerConfig, name: &str, value: &Value) -> BreakerConfig {
    match (name, value) {
        ("open_for", Value::Time(it)) => config.open_for(*it),
        ("open_growth", Value::Off) => config.without_open_growth(),
        ("open_growth", Value::Table(it)) => {
            config.open_growth(get_number(it, "factor"), get_time(it, "max"))
        }
        ("open_jitter", Value::Off) => config.without_open_jitter(),
        ("open_jitter", Value::Whole(it)) => config.open_jitter(percent(*it)),
        ("max_retry_after", Value::Time(it)) => config.max_retry_after(*it),
        ("window", Value::Time(it)) => config.window(Window::Time(*it)),
        ("window", Value::Whole(it)) => {
            let len = u16::try_from(*it).ok().and_then(NonZeroU16::new);
            config.window(Window::Count(len.unwrap_or(NonZeroU16::MAX)))
        }
        ("min_samples", Value::Whole(it)) => config.min_samples(positive(*it)),
        ("sustained", Value::Off) => config.without_sustained(),
        ("sustained", Value::Table(it)) => {
            config.or_sustained(get_time(it, "no_success_for"), get_count(it, "min_failures"))
        }
        ("failure_rate", Value::Off) => config.without_failure_rate(),
        ("failure_rate", Value::Whole(it)) => config.or_failure_rate(percent(*it)),
        ("consecutive" | "consecutive_while_few", Value::Off) => config.without_consecutive(),
        ("consecutive", Value::Whole(it)) => config.or_consecutive(positive(*it)),
        ("consecutive_while_few", Value::Whole(it)) => {
            config.or_consecutive_while_few(positive(*it))
        }
        ("slow_calls", Value::Off) => config.without_slow_calls(),
        ("slow_calls", Value::Table(it)) => {
            config.or_slow_calls(get_time(it, "slower_than"), get_percent(it))
        }
        ("max_probes", Value::Whole(it)) => config.max_probes(positive(*it)),
        ("close_after", Value::Whole(it)) => config.close_after(positive(*it)),
        ("close_unless", Value::Table(it)) => {
            config.close_unless(get_percent(it), get_count(it, "probes"))
        }
        ("half_open_max_wait", Value::Time(it)) => config.half_open_max_wait(*it),
        // `scope` is that of all.
        _ => config,
    }
}

fn budget(config: BudgetConfig, name: &str, value: &Value) -> BudgetConfig {
    match (name, value) {
        ("size", Value::Whole(it)) => config.size(count(*it)),
        ("deposit", Value::Number(it)) => config.deposit(*it),
        ("trickle", Value::Number(it)) => config.trickle(*it),
        ("retry_deposit", Value::Number(it)) => config.retry_deposit(*it),
        _ => config,
    }
}

/// What `value` makes of a part that can be switched off; a table switches it on.
fn switched<C: Default>(
    before: Option<C>,
    value: &Value,
    set: fn(C, &str, &Value) -> C,
) -> Option<C> {
    match value {
        Value::Off => None,
        Value::Table(table) => {
            let start = before.unwrap_or_default();
            Some(table.iter().fold(start, |config, (name, value)| set(config, name, value)))
        }
        _ => Some(before.unwrap_or_default()),
    }
}

/// A host whose rule is another than that of all.
fn differing<'h, C: PartialEq>(
    special: &[(&'h str, Parts, RetryOverride)],
    general: &Parts,
    part: fn(&Parts) -> &Option<C>,
) -> Option<&'h str> {
    let differs = |it: &Parts| part(it).is_some() && part(it) != part(general);
    special.iter().find(|(_, it, _)| differs(it)).map(|(host, ..)| *host)
}

/// Refuses two keys of a table that exclude each other: `other` and `name`, if that is `value`.
fn clash(
    table: &Table,
    name: &str,
    value: Option<&'static str>,
    other: &str,
    path: &str,
    faults: &mut Vec<ConfigFault>,
) {
    let found = get(table, name).filter(|it| value.is_none_or(|value| **it == Value::Word(value)));
    use Value::{Number, Table, Time, Whole};

    if let (Some(_), Some(Time(_) | Whole(_) | Number(_) | Table(_))) = (found, get(table, other)) {
        let path = if name == "kind" { format!("{path}backoff.") } else { path.to_owned() };
        let rule = format!("excludes {name}");
        faults.push(ConfigFault::new(format!("{path}{other}"), rule, value.unwrap_or("both")));
    }
}

fn get<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    table.iter().find(|(it, _)| it == name).map(|(_, it)| it)
}

fn get_table<'t>(table: &'t Table, name: &str) -> &'t Table {
    const EMPTY: &Table = &Table::new();
    match get(table, name) {
        Some(Value::Table(table)) => table,
        _ => EMPTY,
    }
}

fn is_shared(table: &Table) -> bool {
    get(table, "scope") == Some(&Value::Word("shared"))
}

// A required value is missing only where a fault says so already; anything will do there.

fn get_time(table: &Table, name: &str) -> Duration {
    match get(table, name) {
        Some(Value::Time(time)) => *time,
        _ => Duration::MAX,
    }
}

fn get_count(table: &Table, name: &str) -> NonZeroU32 {
    match get(table, name) {
        Some(Value::Whole(whole)) => positive(*whole),
        _ => NonZeroU32::MIN,
    }
}

fn get_number(table: &Table, name: &str) -> f64 {
    match get(table, name) {
        Some(Value::Number(number)) => *number,
        _ => 1.0,
    }
}

fn get_percent(table: &Table) -> Percent {
    match get(table, "percent") {
        Some(Value::Whole(whole)) => percent(*whole),
        _ => Percent::HALF,
    }
}

// Shapes bound what gets here, so none of these is ever cut.

fn count(whole: u64) -> u32 {
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn positive(whole: u64) -> NonZeroU32 {
    NonZeroU32::new(count(whole)).unwrap_or(NonZeroU32::MIN)
}

fn percent(whole: u64) -> Percent {
    u8::try_from(whole).ok().and_then(Percent::new).unwrap_or(Percent::HALF)
}
