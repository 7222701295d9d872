//! Drives the public API as a user would.

mod arrows;
mod breaker;
mod citizen;
#[cfg(feature = "serde")]
mod config;
mod conformance;
mod properties;
mod reload;
mod retry;
mod support;
mod support_selftest;
mod tidy;
mod wire;
