//! Settings that are made of several values: backoff, circuit breaker, retry budget, limits and hedges.

use std::{slice, sync::Arc, time::Duration};

use crate::breaker::CircuitBreakers;
use crate::common::fault::ConfigFault;
use crate::common::scope::Scope;
use crate::config::file::keys::{
    set_breaker, set_budget, set_concurrency, set_hedge, set_key, set_limit, set_rate, set_request,
    sets, with_hints,
};
use crate::config::file::value::{Table, Value, get};
use crate::config::overrides::RetryOverride;
use crate::config::policy::{Patch, Policy, Setting};
use crate::host::hedge::Hedge;
use crate::host::limit::{ConcurrencyLimit, Limit};
use crate::host::mirrors::MirrorSets;
use crate::host::rate::{Rate, RateLimit};
use crate::outcome::hint::HintHeaders;
use crate::outcome::idempotency::IdempotencyKey;
use crate::retry::backoff::{BackoffShape, Constant, Exponential, Fibonacci, Linear};
use crate::retry::budget::RetryBudget;

/// Settings that are made of several values, some of which a host may change.
#[derive(Clone)]
pub(super) struct Parts {
    backoff: BackoffShape,
    /// The longest single wait.
    longest_wait: Duration,
    breaker: Option<CircuitBreakers>,
    budget: Option<RetryBudget>,
    concurrency: Option<ConcurrencyLimit>,
    rate: Option<RateLimit>,
    hedge: Option<Hedge>,
    hints: Arc<HintHeaders>,
    key: Option<IdempotencyKey>,
    mirrors: Option<MirrorSets>,
}

impl Parts {
    /// Returns those of `policy`. A backoff of the caller's own is no data: the default stands in.
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            backoff: policy.backoff.shape().unwrap_or_default(),
            longest_wait: policy.max_wait_time,
            breaker: policy.breaker.clone(),
            budget: policy.budget.clone(),
            concurrency: policy.concurrency.clone(),
            rate: policy.rate.clone(),
            hedge: policy.hedge.clone(),
            hints: Arc::clone(&policy.hints),
            key: policy.idempotency_key.clone(),
            mirrors: policy.mirrors.clone(),
        }
    }

    /// Returns these with those that `patch` sets.
    pub(super) fn patched(mut self, patch: &Patch) -> Self {
        for setting in patch.settings() {
            match setting {
                Setting::Backoff(it) => self.backoff = it.shape().unwrap_or_default(),
                Setting::MaxWaitTime(it) => self.longest_wait = *it,
                Setting::CircuitBreaker(it) => self.breaker.clone_from(it),
                Setting::RetryBudget(it) => self.budget.clone_from(it),
                Setting::ConcurrencyLimit(it) => self.concurrency.clone_from(it),
                Setting::RateLimit(it) => self.rate.clone_from(it),
                Setting::Hedge(it) => self.hedge.clone_from(it),
                Setting::HintHeaders(it) => self.hints.clone_from(it),
                Setting::IdempotencyKey(it) => self.key.clone_from(it),
                Setting::Mirrors(it) => self.mirrors.clone_from(it),
                _ => {}
            }
        }
        self
    }

    /// Adds what `table` sets, and returns it. `path` is that of the table, with a dot.
    pub(super) fn apply(
        &mut self,
        table: &Table,
        path: &str,
        faults: &mut Vec<ConfigFault>,
    ) -> RetryOverride {
        let longest_wait = get(table, "max_wait_time").and_then(Value::time);
        self.longest_wait = longest_wait.unwrap_or(self.longest_wait);
        let mut settings = RetryOverride::new();
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
                    self.apply_breaker(value, path, faults);
                    set(settings, Setting::CircuitBreaker(self.breaker.clone()))
                }
                ("retry_budget", value) => {
                    let before = self.budget.take();
                    let config =
                        switched(before.as_ref().map(|it| *it.config()), value, set_budget);
                    self.budget = config.map(|config| match (scope(value), before) {
                        (None, Some(before)) => before.with_config(config),
                        (scope, _) => RetryBudget::new(config, scope.unwrap_or(Scope::Host)),
                    });
                    set(settings, Setting::RetryBudget(self.budget.clone()))
                }
                ("concurrency_limit", value) => {
                    let path = format!("{path}concurrency_limit.");
                    self.concurrency = concurrency(self.concurrency.take(), value, &path, faults);
                    set(settings, Setting::ConcurrencyLimit(self.concurrency.clone()))
                }
                ("rate_limit", value) => {
                    let path = format!("{path}rate_limit.");
                    self.rate = rate(self.rate.take(), value, &path, faults);
                    set(settings, Setting::RateLimit(self.rate.clone()))
                }
                ("hedge", value) => {
                    if let Value::Table(table) = value {
                        let path = format!("{path}hedge.");
                        clash(table, "after", None, "quantile", &path, faults);
                        clash(table, "after", None, "or_after", &path, faults);
                    }
                    self.hedge = switched(self.hedge.take(), value, set_hedge);
                    set(settings, Setting::Hedge(self.hedge.clone()))
                }
                (name, value) => self.apply_one(settings, name, value),
            };
        }
        settings
    }

    /// Adds a setting that no other one of its table concerns.
    fn apply_one(&mut self, settings: RetryOverride, name: &str, value: &Value) -> RetryOverride {
        match name {
            "hint_headers" => {
                self.hints = Arc::new(match value {
                    Value::Table(table) => with_hints(&self.hints, table),
                    _ => HintHeaders::none(),
                });
                set(settings, Setting::HintHeaders(Arc::clone(&self.hints)))
            }
            "idempotency_key" => {
                let before = self.key.take().unwrap_or_else(IdempotencyKey::random);
                self.key = match value {
                    Value::Off => None,
                    Value::Table(table) => Some(table.iter().map(|it| &it.1).fold(before, set_key)),
                    _ => Some(before),
                };
                set(settings, Setting::IdempotencyKey(self.key.clone()))
            }
            "mirrors" => {
                let own = value.table().map(sets);
                self.mirrors = own.map(|own| match &self.mirrors {
                    Some(others) => own.over(others),
                    None => own,
                });
                set(settings, Setting::Mirrors(self.mirrors.clone()))
            }
            name => set_request(settings, name, value),
        }
    }

    fn apply_backoff(&mut self, settings: RetryOverride, table: &Table) -> RetryOverride {
        let shape = &mut self.backoff;
        for (name, value) in table {
            match (name.as_str(), value) {
                ("kind", Value::Word(kind)) => shape.kind = kind,
                ("delay", Value::Time(delay)) => shape.delay = *delay,
                ("factor", Value::Number(factor)) => shape.factor = *factor,
                ("max_delay", Value::Time(cap)) => shape.max_delay = Some(*cap),
                ("max_delay", _) => shape.max_delay = None,
                _ => {}
            }
        }
        let (delay, longest) = (shape.delay, self.longest_wait);
        let cap = match shape.max_delay {
            cap if get(table, "max_delay").is_some() => cap,
            // An inherited cap gives way to what is written; `max_wait_time` cuts a longer delay.
            Some(cap) if delay <= longest => Some(cap.min(longest).max(delay)),
            _ => None,
        };
        let cap = cap.unwrap_or(Duration::MAX);
        match shape.kind {
            "constant" => settings.backoff(Constant::new(delay)),
            "linear" => settings.backoff(Linear::new(delay).max_delay(cap)),
            "fibonacci" => settings.backoff(Fibonacci::new(delay).max_delay(cap)),
            _ => settings.backoff(Exponential::new(delay).factor(shape.factor).max_delay(cap)),
        }
    }

    fn apply_breaker(&mut self, value: &Value, path: &str, faults: &mut Vec<ConfigFault>) {
        if let Value::Table(table) = value {
            let path = format!("{path}circuit_breaker.");
            clash(table, "consecutive", None, "consecutive_while_few", &path, faults);
            clash(table, "close_after", None, "close_unless", &path, faults);
        }
        let before = self.breaker.take();
        let config = switched(before.as_ref().map(|it| it.config().clone()), value, set_breaker);
        self.breaker = config.map(|config| match (scope(value), before) {
            (Some(Scope::Shared), _) => CircuitBreakers::shared(config),
            (Some(_), _) | (None, None) => CircuitBreakers::per_host(config),
            (None, Some(before)) => before.with_config(config).unwrap_or_else(|own| {
                let field = format!("{path}circuit_breaker");
                let rule = "can only be switched off: the program has a breaker of its own";
                faults.push(ConfigFault::new(field, rule, format_args!("other rules")));
                own
            }),
        });
    }

    /// Refuses another rule for one host where breaker or budget is one for all.
    pub(super) fn check_shared(
        &self,
        general: &Self,
        table: &Table,
        path: &str,
        faults: &mut Vec<ConfigFault>,
    ) {
        fn both<T>(own: &Option<T>, general: &Option<T>, differ: fn(&T, &T) -> bool) -> bool {
            own.as_ref().zip(general.as_ref()).is_some_and(|(own, general)| differ(own, general))
        }
        let breaker = both(&self.breaker, &general.breaker, |own, general| {
            general.is_shared() && own.config() != general.config()
        });
        let budget = both(&self.budget, &general.budget, |own, general| {
            general.scope.is_shared() && own.config() != general.config()
        });
        let concurrency = both(&self.concurrency, &general.concurrency, |own, general| {
            general.scope.is_shared() && own.rules != general.rules
        });
        let rate = both(&self.rate, &general.rate, |own, general| {
            general.scope.is_shared() && !own.has_rules_of(general)
        });
        for (field, differs) in [
            ("circuit_breaker", breaker),
            ("retry_budget", budget),
            ("concurrency_limit", concurrency),
            ("rate_limit", rate),
        ] {
            if differs && get(table, field).is_some() {
                let rule = "can only differ where there is one per host";
                faults.push(ConfigFault::new(format!("{path}{field}"), rule, "shared"));
            }
        }
    }
}

/// Returns the concurrency limit, changed by `value`; a number or a table switches it on.
fn concurrency(
    before: Option<ConcurrencyLimit>,
    value: &Value,
    path: &str,
    faults: &mut Vec<ConfigFault>,
) -> Option<ConcurrencyLimit> {
    if *value == Value::Off {
        return None;
    }
    let mut start = before.unwrap_or_else(|| Limit::adaptive().into());
    let Value::Table(table) = value else { return Some(set_limit(start, value)) };
    start.scope = scope(value).unwrap_or(start.scope);
    // The kind of limit first, as the bounds are of an adaptive one; then the order does not
    // matter.
    let (kind, others): (Vec<_>, Vec<_>) = table.iter().partition(|(name, _)| name == "limit");
    let set = |limit, (name, value): &(String, Value)| set_concurrency(limit, name, value);
    let limit = kind.into_iter().fold(start, set);
    let is_adaptive = limit.rules.limit.is_adaptive();
    let is_in_vain = |name: &str| !is_adaptive && ["start", "min", "max"].contains(&name);
    let (in_vain, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(name, _)| is_in_vain(name));
    faults.extend(in_vain.into_iter().map(|(name, value)| {
        ConfigFault::new(format!("{path}{name}"), "needs an adaptive limit", value.count())
    }));
    let limit = others.into_iter().fold(limit, set);
    // A start that the table does not name follows the bounds that it does.
    Some(if get(table, "start").is_none() { limit.with_start_in_bounds() } else { limit })
}

/// Returns the rate limit, changed by `value`; a table or the word for a learned one switches it on.
fn rate(
    before: Option<RateLimit>,
    value: &Value,
    path: &str,
    faults: &mut Vec<ConfigFault>,
) -> Option<RateLimit> {
    let table = match value {
        Value::Table(table) => table,
        Value::Word(_) => return Some(RateLimit::learned()),
        _ => return None,
    };
    let is_learned = get(table, "bucket_header").is_some();
    if before.is_none() && !is_learned && get(table, "requests").is_none() {
        let field = format!("{path}requests");
        faults.push(ConfigFault::new(field, "is needed", format_args!("null")));
    }
    let mut start = before.unwrap_or_else(|| match is_learned {
        true => RateLimit::learned(),
        false => Rate::per_second(1).into(),
    });
    start.scope = scope(value).unwrap_or(start.scope);
    let limit = table.iter().fold(start, |limit, (name, value)| set_rate(limit, name, value));
    let others = match get(table, "also") {
        Some(Value::List(all)) => all.as_slice(),
        Some(one) => slice::from_ref(one),
        None => return Some(limit),
    };
    let add = |limit: RateLimit, (i, other)| {
        let path = format!("{path}also[{i}].");
        match rate(None, other, &path, faults) {
            Some(other) => limit.also(other),
            None => limit,
        }
    };
    Some(others.iter().enumerate().fold(limit.alone(), add))
}

fn set(mut settings: RetryOverride, setting: Setting) -> RetryOverride {
    settings.patch().set(setting);
    settings
}

/// Returns a part that can be switched off, changed by `value`; a table switches it on.
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

/// Refuses two keys of a table that exclude each other: `other` and `name`, if that is `value`.
/// One that is off excludes nothing.
fn clash(
    table: &Table,
    name: &str,
    value: Option<&'static str>,
    other: &str,
    path: &str,
    faults: &mut Vec<ConfigFault>,
) {
    let found = get(table, name).filter(|it| match value {
        Some(value) => **it == Value::Word(value),
        None => **it != Value::Off,
    });
    use Value::{Number, Table, Time, Whole};

    if let (Some(_), Some(Time(_) | Whole(_) | Number(_) | Table(_))) = (found, get(table, other)) {
        let path = if name == "kind" { format!("{path}backoff.") } else { path.to_owned() };
        let rule = format!("excludes {name}");
        faults.push(ConfigFault::new(format!("{path}{other}"), rule, value.unwrap_or("both")));
    }
}

/// Returns the scope that a breaker, a budget or a limit is given, if any.
fn scope(value: &Value) -> Option<Scope> {
    match get(value.table()?, "scope")? {
        Value::Word("shared") => Some(Scope::Shared),
        Value::Word(_) => Some(Scope::Host),
        _ => None,
    }
}
