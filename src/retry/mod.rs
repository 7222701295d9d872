//! Retries: decision, backoff and budget.

pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod decision;
