//! The values of labels, of which there is a bounded number.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use ::metrics::SharedString;
use http::Method;

use crate::observe::telemetry::method::standard_name;
use crate::outcome::Outcome;
use crate::retry::decision::WaitSource;

pub(super) fn known(text: &'static str) -> SharedString {
    SharedString::const_str(text)
}

pub(super) fn result(outcome: &Outcome<'_>) -> SharedString {
    match outcome.status() {
        Some(status) => SharedString::from_owned(status.as_str().to_owned()),
        None => SharedString::const_str(outcome.failure().map_or(OTHER, |it| it.as_str())),
    }
}

pub(super) fn source(source: &WaitSource) -> &'static str {
    match source {
        WaitSource::Backoff => "backoff",
        WaitSource::Budget => "budget",
        WaitSource::CircuitBreaker => "circuit_breaker",
        WaitSource::Fleet => "fleet",
        WaitSource::FleetGate => "fleet_gate",
        WaitSource::Failover => "failover",
        WaitSource::Gate => "gate",
        WaitSource::Hint(_) | WaitSource::HintFrom => "hint",
        WaitSource::Immediate => "immediate",
        WaitSource::Limit => "limit",
        WaitSource::Rate => "rate",
    }
}

pub(super) fn name(method: &Method) -> &'static str {
    standard_name(method).unwrap_or(OTHER)
}

/// The label of everything that gets no label of its own.
pub(super) const OTHER: &str = "other";

/// The most names that become labels.
const MOST_NAMES: usize = 64;

/// The first names, kept for ever.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<RwLock<HashSet<Arc<str>>>>);

impl Names {
    pub(super) fn of(&self, name: &str) -> SharedString {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return SharedString::from_shared(Arc::clone(known));
        }
        if known.len() >= MOST_NAMES {
            return SharedString::const_str(OTHER);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have inserted one between the two locks.
        if known.len() >= MOST_NAMES && !known.contains(name) {
            return SharedString::const_str(OTHER);
        }
        let name: Arc<str> = name.into();
        known.insert(Arc::clone(&name));
        SharedString::from_shared(name)
    }
}
