//! The fleet: processes that send to the same hosts share their evidence about them.

pub(crate) mod advice;
pub(crate) mod report;
pub(crate) mod store;
