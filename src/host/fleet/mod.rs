//! The fleet: processes that send to the same hosts share their evidence about them.

pub(crate) mod advice;
pub(crate) mod gates;
pub(crate) mod hub;
pub(crate) mod member;
pub(crate) mod report;
pub(crate) mod rule;
pub(crate) mod schedule;
pub(crate) mod share;
pub(crate) mod signals;
pub(crate) mod store;
pub(crate) mod view;
