//! A middleware that retries failed `reqwest` requests, where that is safe and within limits.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One request, without a client.
//! let page = reqwest_resilient::get("https://example.com/").send_resilient().await?;
//!
//! // A client with settings of its own.
//! use reqwest_resilient::{ResilientClient, ResilientConfig};
//!
//! let client = ResilientClient::new(ResilientConfig::builder().max_retries(5).build()?)?;
//! let page = client.get("https://example.com/").send_resilient().await?;
//!
//! // A middleware, in a client of your own.
//! use std::time::Duration;
//! use reqwest_middleware::ClientBuilder;
//! use reqwest_resilient::{Resilient, ResponseExt};
//!
//! let config = ResilientConfig::builder().attempt_timeout(Duration::from_secs(10)).build()?;
//! let inner = Resilient::reqwest_builder().build()?;
//! let client = ClientBuilder::new(inner).with(Resilient::new(config)).build();
//! let response = client.get("https://example.com/").send().await?;
//! println!("{} after {} attempts", response.status(), response.attempts());
//! # Ok(()) }
//! ```
//!
//! `send_resilient` returns a success or an [`HttpRequestError`] with all details; `send` returns
//! what reqwest would. For code without async there is `blocking`, with the same names.
//!
//! # Where to look
//!
//! | question | see |
//! |---|---|
//! | How do I start? | [`get()`], [`ResilientClient`], [`Resilient`]; guides for those who come [from aresilient](guide::coming_from_aresilient) and [from reqwest-retry](guide::coming_from_reqwest_retry) |
//! | What can be set, and what is the default? | [`ResilientConfig`], [`ResilientConfigBuilder`], [and why](guide::choosing_settings) |
//! | What differs for this request, or for this task? | [`RetryOverride`] |
//! | How long are the waits? | [`Backoff`], [`Jitter`], [`RetryAfter`], [`HintHeaders`] |
//! | Is a POST sent twice? | [`RetryMethods`], [`RetryOverride::idempotent`], [`Delivery`] |
//! | What is happening? | [`ResilientConfigBuilder::on_retry`] and its like, [`Observer`], [`Event`] |
//! | What happened? | [`ResponseExt::history`], [`AttemptLog`], [`Attempt`] |
//! | Why did it end? | [`StopReason`], [`HttpRequestError`], [`RequestBuilderExt::send_resilient`] |
//! | Why are a few requests slow? | [`Hedge`]; [guide](guide::hedging) |
//! | What differs for a host? | [`ResilientConfigBuilder::host`] |
//! | How many requests at a time, or per minute? | [`ConcurrencyLimit`], [`RateLimit`]; [guide](guide::limits) |
//! | What if there is more than one host to ask? | [`Mirrors`]; [guide](guide::mirrors) |
//! | Can many processes share what they learn of a host? | [`fleet`]; [guide](guide::fleet) |
//! | How do settings change at runtime? | [`ResilientClient::reload_handle`], [`Resilient::reload_handle`] |
//! | How do I decide by myself? | [`ResilientConfigBuilder::retry_if`], [`Outcome`] |
//! | How does each part work? | guides: [retries](guide::retries), [waits](guide::waits), [gate](guide::gate), [budget](guide::budget), [breaker](guide::breaker), [limits](guide::limits), [hedging](guide::hedging), [mirrors](guide::mirrors), [presets](guide::presets), [what a client cannot know](guide::unknowns) |
#![cfg_attr(
    feature = "test-util",
    doc = "| How do I test my settings? | [`testing::Script`], without a network and in virtual time; [guide](guide::testing) |"
)]
#![cfg_attr(
    all(feature = "download", feature = "test-util"),
    doc = "| How do I download large files? | [`RequestBuilder::download`], [`DownloadBuilder`]; [guide](guide::downloads) |"
)]
#![cfg_attr(
    feature = "blocking",
    doc = "| And without async? | [`blocking`], with the same names and results; [guide](guide::blocking) |"
)]
#![cfg_attr(
    any(feature = "metrics", feature = "tracing"),
    doc = "| How do I watch it in production? | [`telemetry`]: spans, logs and metrics |"
)]
#![cfg_attr(
    feature = "serde",
    doc = "| How do settings come from a file? | [`mod@file`], [`ResilientConfig::from_env`]; [guide](guide::files) |"
)]
//!
//! # Words
//!
//! An *attempt* is one send, counted from 1. A *retry* is an attempt after one that failed; a *hedge*
//! is an attempt beside one that is slow. A *retry hint* is the time that a server wants to pass until
//! a retry. A *wait* is the time before an attempt: a backoff, or at gate, breaker, budget or limit. A
//! *token* is what a retry takes from the budget.
//!
//! # Features
//!
//! - `http2` (default): HTTP/2; distinguishes its refusals from possibly processed requests.
//! - `default-tls` (default): https, by reqwest's default TLS; switches on `rustls-errors`. Without it
//!   https needs a TLS feature of `reqwest`, such as `native-tls`.
//! - `rustls-errors`: distinguishes refused certificates from transient failures, where TLS is rustls.
//! - `astral`: all of it for clients of `astral-reqwest-middleware`, a fork, except
//!   [`ResilientClient`] and its builder of requests, which stay with the original.
//! - `download` (default): `download()` on request builders, which goes on after a break.
//! - `blocking`: the module `blocking`, and a small runtime.
//! - `json`, `form`, `query`, `multipart`: bodies and URLs by serde, and forms of several parts.
//! - `tracing`: a span for each attempt; log lines for waits, failures and breakers.
//! - `metrics`: counts and durations for the `metrics` facade.
//! - `serde`: the module `file`, settings from TOML, JSON, YAML and the environment.
//! - `schemars`: the JSON Schema of such files.
//! - `test-util`: the module `testing`, and randomness and wall clock as settings.
//!
//! [`reqwest`], [`reqwest_middleware`] and [`http`], whose types settings and requests take, are
//! re-exported.

#![cfg_attr(docsrs, feature(doc_cfg))]
// Tests may; the library has no panics.
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::panic, clippy::unwrap_used))]

mod breaker;
mod client;
mod common;
mod config;
mod error;
mod execution;
mod host;
mod observe;
mod outcome;
mod retry;
#[cfg(feature = "test-util")]
pub mod testing;

/// Guides: one for each feature, for choosing settings, for testing, and for those who come from
/// other libraries.
pub mod guide {
    // Its programs need the feature.
    #[cfg(feature = "blocking")]
    #[doc = include_str!("../docs/blocking.md")]
    pub mod blocking {}

    #[doc = include_str!("../docs/breaker.md")]
    pub mod breaker {}

    #[doc = include_str!("../docs/budget.md")]
    pub mod budget {}

    #[doc = include_str!("../docs/choosing_settings.md")]
    pub mod choosing_settings {}

    // Its programs need the feature.
    #[cfg_attr(
        any(not(doctest), feature = "blocking"),
        doc = include_str!("../docs/coming_from_aresilient.md")
    )]
    pub mod coming_from_aresilient {}

    #[doc = include_str!("../docs/coming_from_reqwest_retry.md")]
    pub mod coming_from_reqwest_retry {}

    #[cfg(all(feature = "download", feature = "test-util"))]
    #[doc = include_str!("../docs/downloads.md")]
    pub mod downloads {}

    #[doc = include_str!("../docs/hedging.md")]
    pub mod hedging {}

    #[cfg(feature = "serde")]
    #[doc = include_str!("../docs/files.md")]
    pub mod files {}

    #[doc = include_str!("../docs/fleet.md")]
    pub mod fleet {}

    #[doc = include_str!("../docs/gate.md")]
    pub mod gate {}

    #[doc = include_str!("../docs/limits.md")]
    pub mod limits {}

    #[cfg_attr(any(not(doctest), feature = "download"), doc = include_str!("../docs/mirrors.md"))]
    pub mod mirrors {}

    #[doc = include_str!("../docs/presets.md")]
    pub mod presets {}

    #[doc = include_str!("../docs/retries.md")]
    pub mod retries {}

    #[cfg(all(feature = "metrics", feature = "tracing"))]
    #[doc = include_str!("../docs/telemetry.md")]
    pub mod telemetry {}

    #[cfg(feature = "test-util")]
    #[cfg_attr(any(not(doctest), feature = "blocking"), doc = include_str!("../docs/testing.md"))]
    // Whole tests, as readers write them; `tests/it/truth.rs` runs them.
    #[allow(clippy::test_attr_in_doctest)]
    pub mod testing {}

    #[doc = include_str!("../docs/unknowns.md")]
    pub mod unknowns {}

    #[doc = include_str!("../docs/waits.md")]
    pub mod waits {}
}

/// Several processes as one fleet: all heed what one of them learns of a host. No request waits for
/// the store.
pub mod fleet {
    pub use crate::client::fleet::in_process::InProcessFleet;
    pub use crate::client::fleet::{Fleet, FleetBuilder, FleetStats};
    pub use crate::host::fleet::advice::{BreakerAdvice, FleetNews, FleetState, HostAdvice};
    pub use crate::host::fleet::report::{FleetGate, HostReport, NodeId};
    pub use crate::host::fleet::store::{BoxError, BoxFuture, FleetStore};
}

pub use http;
pub use reqwest;
pub use reqwest_middleware;

pub use breaker::{
    BreakerConfig, BreakerSnapshot, BreakerState, ChangeReason, CircuitBreaker, CircuitBreakers,
    CircuitOpen, Health, OpenCause, Percent, Permit, StateChange, Window, WindowCounts,
};
#[cfg(feature = "blocking")]
pub use client::blocking;
#[cfg(all(fuzzing, feature = "download"))]
#[doc(hidden)]
pub use client::download::fuzz_content_range;
#[cfg(feature = "download")]
pub use client::download::{
    Download, DownloadBuilder, DownloadError, DownloadErrorKind, DownloadExt, Downloaded,
    NotResumable, Progress, ResumePoint, Verifier,
};
pub use client::middleware::Resilient;
pub use client::request::{RequestBuilder, RequestBuilderExt};
pub use client::resilient_client::functions::*;
pub use client::resilient_client::{ResilientClient, ResilientClientBuilder};
pub use common::fault::{BuildError, ConfigError, ConfigFault};
#[cfg(feature = "serde")]
pub use config::file;
pub use config::headers::DeadlineHeader;
pub use config::overrides::RetryOverride;
pub use config::policy::RetryAfter;
pub use config::reload::ResilientHandle;
pub use config::{ResilientConfig, ResilientConfigBuilder};
pub use error::{ErrorKind, HttpRequestError};
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub use execution::bench;
pub use execution::body::BodyFactory;
pub use host::gate::RateLimited;
pub use host::hedge::{Hedge, HedgeRefusal};
pub use host::limit::{ConcurrencyLimit, Limit, LimitUse, Limited, QueueOrder};
pub use host::mirrors::{MirrorSets, Mirrors};
pub use host::rate::{LearnedQuota, Rate, RateLimit};
pub use host::states::HostStates;
pub use observe::attempt_log::AttemptLog;
pub use observe::event::{Event, FailureInfo, RequestInfo, ResponseInfo, RetryInfo};
pub use observe::history::{Attempt, History, Hold, ResponseExt};
pub use observe::info::{
    BudgetInfo, FailoverInfo, FleetInfo, GateInfo, HedgeInfo, HedgeRefusedInfo, HeldInfo,
    LimitInfo, QueueInfo, ResumeInfo,
};
pub use observe::listeners::{AttemptScope, Observer};
pub use observe::message::TimeLimit;
pub use observe::misuse::Misuse;
pub use observe::redact::RedactedUrl;
pub use observe::resend_count::ResendCount;
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub use observe::telemetry;
pub use outcome::classify::RetryMethods;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use outcome::hint::fuzz_hints;
pub use outcome::hint::{HintFormat, HintHeaders};
pub use outcome::idempotency::{IdempotencyKey, KeyFormat};
pub use outcome::not_sent::NotSent;
pub use outcome::statuses::Statuses;
pub use outcome::verdict::RetryVerdict;
pub use outcome::{AttemptKind, Delivery, FailureKind, Outcome};
#[doc(hidden)]
pub use retry::backoff::BackoffShape;
pub use retry::backoff::{Backoff, Constant, Exponential, Fibonacci, Jitter, Linear};
pub use retry::budget::{BudgetConfig, RetryBudget};
pub use retry::decision::{StopReason, WaitSource};

// Its programs need the features.
#[cfg(all(doctest, feature = "blocking", feature = "metrics", feature = "tracing"))]
#[doc = include_str!("../README.md")]
struct Readme;
