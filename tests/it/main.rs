//! Drives the public API as a user would.

mod arrows;
mod breaker;
#[cfg(feature = "serde")]
mod config;
mod reload;
mod retry;
mod support;
mod support_selftest;
mod tidy;
