//! The circuit breaker: when a service is down, stop sending to it, let it recover, and come
//! back by probing.

mod circuit;
mod circuit_breaker;
mod config;
mod facts;
mod handle;
mod lane;
mod open_time;
mod percent;
mod permit;
mod probing;
mod rule_set;
mod rules;
mod scope;
mod state;
mod sync;
mod window;

pub(crate) use self::{
    circuit::Observers, handle::BreakerHandle, rule_set::RuleSet, scope::BreakerScope,
};
pub use self::{
    circuit_breaker::CircuitBreaker,
    config::{BreakerConfig, Window},
    facts::{BreakerSnapshot, BreakerState, ChangeReason, CircuitOpen, StateChange},
    percent::Percent,
    permit::{Health, Permit},
    scope::CircuitBreakers,
    window::WindowCounts,
};
