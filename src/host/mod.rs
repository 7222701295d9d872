//! The state of each host: breaker, budget, gate and limits, and the admission of attempts.

pub(crate) mod admission;
pub(crate) mod fleet;
pub(crate) mod gate;
pub(crate) mod hedge;
pub(crate) mod hedging;
pub(crate) mod in_fleet;
pub(crate) mod limit;
mod limits;
pub(crate) mod map;
pub(crate) mod mirrors;
pub(crate) mod parts;
pub(crate) mod rate;
pub(crate) mod state;
pub(crate) mod states;
mod table;
mod throttled;
pub(crate) mod within;
