//! Drives the public API as a user would.

mod architecture;
#[cfg(all(
    feature = "blocking",
    feature = "download",
    feature = "metrics",
    feature = "serde",
    feature = "tracing"
))]
mod auto_traits;
mod block_on;
mod bodies;
mod breaker;
mod compat;
mod composing;
#[cfg(feature = "serde")]
mod config;
mod conformance;
#[cfg(feature = "download")]
mod download;
mod errors;
mod fleet;
mod hedge;
mod hints;
mod hosts;
#[cfg(feature = "blocking")]
mod lifecycle;
mod limits;
mod mirrors;
mod misuse;
mod overload;
#[cfg(feature = "blocking")]
mod parity;
mod presets;
mod properties;
#[cfg(all(feature = "default-tls", feature = "download", feature = "http2"))]
mod real;
mod reload;
mod reqwest_retry;
mod retry;
mod scope;
mod script;
mod soak;
mod style;
mod support;
mod support_selftest;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod telemetry;
mod truth;
mod waits;
mod well_behaved;
mod wire;
