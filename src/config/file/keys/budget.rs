//! The rules of the retry budget.

use super::{COUNT, SCOPES, key};
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::{Setter, Value};
use crate::retry::budget::BudgetConfig;

const RATE: Kind = Kind::Number { min: 0.0, max: u32::MAX as f64 };

const fn budget(
    name: &'static str,
    kind: Kind,
    about: &'static str,
    set: fn(BudgetConfig, &Value) -> BudgetConfig,
) -> Key {
    Key { set: Setter::Budget(set), ..key(name, kind, about) }
}

pub(super) const BUDGET_SCOPE: &[Key] =
    &[key("scope", SCOPES, "One for each host, or one for all requests. Default: per_host.")];

pub(in crate::config::file) const BUDGET: &[Key] = &[
    budget("size", COUNT, "The most retries that can be saved up. Default: 10.", |it, value| {
        it.size(value.count())
    }),
    budget(
        "deposit",
        RATE,
        "The retries that a success at the first attempt pays for. Default: 0.01.",
        |it, value| it.deposit(value.number()),
    ),
    budget(
        "retry_deposit",
        RATE,
        "The retries that a successful retry pays for. Default: 3.",
        |it, value| it.retry_deposit(value.number()),
    ),
    budget(
        "trickle",
        RATE,
        "The retries that are added each second. Default: 0.005.",
        |it, value| it.trickle(value.number()),
    ),
];
