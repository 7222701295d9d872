//! Values that were read, and what they set.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use crate::breaker::{BreakerConfig, Percent};
use crate::config::overrides::RetryOverride;
use crate::host::hedge::Hedge;
use crate::host::limit::ConcurrencyLimit;
use crate::host::rate::RateLimit;
use crate::retry::budget::BudgetConfig;

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    On,
    Off,
    Whole(u64),
    Number(f64),
    Time(Duration),
    Word(&'static str),
    Status(StatusCode),
    Method(Method),
    Header(HeaderName),
    Text,
    /// A base URL.
    Url(String),
    List(Vec<Self>),
    Table(Table),
}

/// The values of a table that could be understood.
pub(super) type Table = Vec<(String, Value)>;

/// The setter of a key. Its value is of the key's kind.
pub(super) enum Setter {
    /// Of a request's settings.
    Request(fn(RetryOverride, &Value) -> RetryOverride),
    Breaker(fn(BreakerConfig, &Value) -> BreakerConfig),
    Budget(fn(BudgetConfig, &Value) -> BudgetConfig),
    Concurrency(fn(ConcurrencyLimit, &Value) -> ConcurrencyLimit),
    Rate(fn(RateLimit, &Value) -> RateLimit),
    Hedge(fn(Hedge, &Value) -> Hedge),
    /// None of its own: a part of another value, or of the whole configuration.
    Part,
}

// Kinds bound what gets here: no number is ever cut, and a value of another kind, or a required one
// that lacks, is a fault already; anything will do there.

impl Value {
    /// Returns the length of time; `None` if it is switched off.
    pub(super) fn time(&self) -> Option<Duration> {
        match self {
            Self::Time(it) => Some(*it),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Number(it) => *it,
            _ => 1.0,
        }
    }

    /// Returns the whole number; `None` if it is switched off.
    pub(super) fn whole(&self) -> Option<u32> {
        match self {
            Self::Whole(it) => Some(u32::try_from(*it).unwrap_or(u32::MAX)),
            _ => None,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.whole().unwrap_or(1)
    }

    /// Returns the share; `None` if it is switched off.
    pub(super) fn percent(&self) -> Option<Percent> {
        match self {
            // It fits: the kind of the key has bounds.
            Self::Number(it) => Percent::hundredths((it * 100.0).round() as u16),
            _ => None,
        }
    }

    pub(super) fn method(&self) -> Option<Method> {
        match self {
            Self::Method(it) => Some(it.clone()),
            _ => None,
        }
    }

    /// Returns the table; `None` if it is switched off.
    pub(super) fn table(&self) -> Option<&Table> {
        match self {
            Self::Table(it) => Some(it),
            _ => None,
        }
    }

    /// Returns the items of a list.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(it) => it,
            _ => &[],
        }
    }
}

pub(super) fn get<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    table.iter().find(|(it, _)| it == name).map(|(_, it)| it)
}

pub(super) fn get_table<'t>(table: &'t Table, name: &str) -> &'t Table {
    const EMPTY: &Table = &Table::new();
    get(table, name).and_then(Value::table).unwrap_or(EMPTY)
}

pub(super) fn get_time(table: &Table, name: &str) -> Duration {
    get(table, name).and_then(Value::time).unwrap_or(Duration::MAX)
}

pub(super) fn get_count(table: &Table, name: &str) -> u32 {
    get(table, name).map_or(1, Value::count)
}

pub(super) fn get_percent(table: &Table) -> Percent {
    get(table, "percent").and_then(Value::percent).unwrap_or(Percent::HALF)
}
