//! Together with others: middleware of other crates, a second `Resilient`, other protocols.

#[cfg(feature = "astral")]
mod astral;
mod cache;
#[cfg(feature = "http2")]
mod http2;
mod stacked;
