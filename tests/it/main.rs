//! Drives the public API as a user would.

mod arrows;
mod breaker;
mod conformance;
#[cfg(feature = "blocking")]
mod lifecycle;
#[cfg(feature = "blocking")]
mod parity;
mod properties;
mod retry;
mod support;
mod support_selftest;
mod tidy;
mod wire;
