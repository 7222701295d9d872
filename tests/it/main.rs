//! Drives the public API as a user would.

mod arrows;
mod breaker;
#[cfg(feature = "blocking")]
mod lifecycle;
#[cfg(feature = "blocking")]
mod parity;
mod retry;
mod support;
mod support_selftest;
mod tidy;
