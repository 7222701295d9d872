//! The state of each host: breaker, budget and gate, and the admission of attempts.

pub(crate) mod admission;
pub(crate) mod gate;
pub(crate) mod hedge;
pub(crate) mod map;
pub(crate) mod mirrors;
pub(crate) mod parts;
pub(crate) mod state;
pub(crate) mod states;
mod table;
