//! The rules of the retry budget.

use super::{COUNT, budget};
use crate::config::file::shape::{Key, Kind};

const RATE: Kind = Kind::Number { min: 0.0, max: u32::MAX as f64 };

pub(super) const BUDGET: &[Key] = &[
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
