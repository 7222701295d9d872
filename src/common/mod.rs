//! Common parts of all folders: clock and randomness, host patterns, faults of settings, locks,
//! queues, responses with another body, the function that redacts paths, the seal of extension
//! traits, the scope of rules, amounts, names, `Debug` of types with functions.

pub(crate) mod amount;
pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod host_pattern;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod opaque;
pub(crate) mod path_redactor;
pub(crate) mod queue;
pub(crate) mod response;
pub(crate) mod scope;
pub(crate) mod sealed;
pub(crate) mod stable_hash;
