//! What every folder builds on: clock and randomness, host patterns, faults of settings.

pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod host_pattern;
