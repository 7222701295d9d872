//! The error of a request that found no endpoint available.

use std::{error::Error, fmt};

use crate::breaker::CircuitOpen;

/// No endpoint of a set of mirrors is available; the breaker named is that of the first to be.
#[derive(Debug)]
pub(crate) struct EndpointsUnavailable {
    pub(crate) hosts: Vec<String>,
    pub(crate) open: CircuitOpen,
}

/// `no endpoint of 2 is available (a.example, b.example): circuit breaker is open: …`
impl fmt::Display for EndpointsUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, open } = self;
        write!(f, "no endpoint of {} is available ({}): {open}", hosts.len(), hosts.join(", "))
    }
}

impl Error for EndpointsUnavailable {}
