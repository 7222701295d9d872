//! A middleware that repeats failed `reqwest` requests, where that is safe and within limits.
//!
//! [`Resilient`] goes into a client of `reqwest-middleware`. It makes an attempt, looks at what
//! came of it, and either returns that or waits and tries again:
//!
//! ```no_run
//! use reqwest_middleware::ClientBuilder;
//! use reqwest_resilient::{Resilient, ResponseExt};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ClientBuilder::new(reqwest::Client::new()).with(Resilient::default()).build();
//! let response = client.get("https://example.com").send().await?;
//! println!("{} after {} attempts", response.status(), response.attempts());
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! | question | answer |
//! |---|---|
//! | What can be set, and what is the default? | [`ResilientConfig`], [`ResilientConfigBuilder`] |
//! | What differs for this request, or for this task? | [`RetryOverride`] |
//! | How long are the waits? | [`Backoff`], [`Jitter`], [`RetryAfter`], [`HintHeaders`] |
//! | Is a POST sent twice? | [`RetryMethods`], [`RetryOverride::idempotent`], [`Delivery`] |
//! | What is happening? | [`ResilientConfigBuilder::on_retry`] and its like, [`Observer`], [`Event`] |
//! | What happened? | [`ResponseExt::history`], [`AttemptLog`], [`Attempt`] |
//! | Why did it end? | [`StopReason`], [`HttpRequestError`], [`RequestBuilderExt::send_resilient`] |
//! | How do I decide by myself? | [`ResilientConfigBuilder::retry_if`], [`Outcome`] |
#![cfg_attr(
    feature = "test-util",
    doc = "| How do I test my settings? | [`testing::Script`], without a network and in virtual time |"
)]
//!
//! # Words
//!
//! An *attempt* is one send, counted from 1; retries are attempts less one. A *hint* is what a
//! server says about when to come back. A *wait* is the time between two attempts.
//!
//! # Features
//!
//! - `http2` (default): HTTP/2, and telling its refusals from failures that may have been processed.
//! - `rustls` (default): tells refused certificates from connections worth another try. It brings
//!   no TLS; choose that on `reqwest`.
//! - `test-util`: the module `testing`, and randomness and wall clock as settings.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod adapter;
mod backoff;
#[cfg(feature = "blocking")]
pub mod blocking;
mod body;
mod breaker;
mod budget;
mod call;
mod classify;
mod client;
mod config;
mod decision;
mod error;
mod event;
mod failure;
mod fault;
mod gate;
mod guard;
mod hint;
mod history;
mod idempotency;
mod middleware;
mod outcome;
mod overrides;
mod policy;
mod redact;
mod registry;
mod request;
mod retry;
mod send;
mod settings;
mod sources;
#[cfg(feature = "test-util")]
pub mod testing;
mod time;

pub use backoff::{Backoff, Constant, Exponential, Fibonacci, Jitter, Linear};
pub use body::BodyFactory;
pub use breaker::{
    BreakerConfig, BreakerSnapshot, BreakerState, ChangeReason, CircuitBreaker, CircuitBreakers,
    CircuitOpen, Health, Percent, Permit, StateChange, Window, WindowCounts,
};
pub use budget::{BudgetConfig, RetryBudget};
pub use classify::RetryMethods;
pub use client::functions::*;
pub use client::{ResilientClient, ResilientClientBuilder};
pub use config::{ResilientConfig, ResilientConfigBuilder};
pub use decision::{StopReason, WaitSource};
pub use error::{ErrorKind, HttpRequestError};
pub use event::{Event, FailureInfo, HeldInfo, Observer, RequestInfo, ResponseInfo, RetryInfo};
pub use fault::{BuildError, ConfigError, Fault};
pub use gate::RateLimited;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use hint::fuzz_hints;
pub use hint::{HintFormat, HintHeaders};
pub use history::{Attempt, AttemptLog, History, ResponseExt};
pub use idempotency::{IdempotencyKey, KeyFormat};
pub use middleware::Resilient;
pub use outcome::{Delivery, FailureKind, Outcome};
pub use overrides::RetryOverride;
pub use policy::RetryAfter;
pub use redact::RedactedUrl;
pub use request::{RequestBuilder, RequestBuilderExt};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
