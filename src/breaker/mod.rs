//! The circuit breaker: stops requests to a service that is down, and probes it until it recovers.

mod circuit;
mod circuit_breaker;
mod config;
mod handle;
mod lane;
mod observers;
mod open_time;
mod outage;
mod percent;
mod permit;
mod probing;
mod report;
mod rule_set;
mod rules;
mod scope;
mod settings;
mod state;
mod status;
mod sync;
mod waiting;
mod window;

pub use self::{
    circuit_breaker::CircuitBreaker,
    config::BreakerConfig,
    percent::Percent,
    permit::Permit,
    report::Health,
    scope::CircuitBreakers,
    status::{BreakerSnapshot, BreakerState, ChangeReason, CircuitOpen, OpenCause, StateChange},
    window::{Window, WindowCounts},
};
pub(crate) use self::{
    handle::BreakerHandle,
    observers::Observers,
    report::Report,
    rule_set::RuleSet,
    scope::BreakerScope,
    waiting::{Waiter, Waiting},
};
