//! Drives the public API as a user would.

mod arrows;
mod breaker;
mod citizen;
mod compat;
#[cfg(feature = "serde")]
mod config;
mod conformance;
#[cfg(feature = "blocking")]
mod lifecycle;
#[cfg(feature = "blocking")]
mod parity;
mod properties;
mod reload;
mod retry;
mod soak;
mod support;
mod support_selftest;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod telemetry;
mod tidy;
mod wire;
