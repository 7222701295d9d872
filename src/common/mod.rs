//! Common parts of all folders: clock and randomness, host patterns, faults of settings, queues, responses with another body,
//! the function that redacts paths.

pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod host_pattern;
pub(crate) mod path_redactor;
pub(crate) mod queue;
pub(crate) mod response;
pub(crate) mod stable_hash;
