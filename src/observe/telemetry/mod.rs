//! Observers for the ecosystem's telemetry, each behind the feature of its name. They use nothing
//! but the events that every observer gets.
//!
//! They are active once given to [`observer`](crate::ResilientConfigBuilder::observer):
//!
#![cfg_attr(all(feature = "tracing", feature = "metrics"), doc = "```")]
#![cfg_attr(not(all(feature = "tracing", feature = "metrics")), doc = "```ignore")]
//! use reqwest_resilient::ResilientConfig;
//! use reqwest_resilient::telemetry::{MetricsObserver, TracingObserver};
//!
//! let config = ResilientConfig::builder()
//!     .observer(TracingObserver::new())
//!     .observer(MetricsObserver::new())
//!     .build()?;
//! # Ok::<(), reqwest_resilient::ConfigError>(())
//! ```

#[cfg(feature = "metrics")]
mod labels;
mod method;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
#[cfg(feature = "tracing")]
pub use self::tracing::{AttemptSpan, TracingObserver};
