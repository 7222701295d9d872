//! Retries, circuit breaker, budgets and telemetry for `reqwest` in one middleware.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod adapter;
mod backoff;
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
pub use client::RequestBuilderExt;
pub use config::{ResilientConfig, ResilientConfigBuilder};
pub use decision::{StopReason, WaitSource};
pub use error::{ErrorKind, HttpRequestError};
pub use event::{Event, FailureInfo, HeldInfo, Observer, RequestInfo, ResponseInfo, RetryInfo};
pub use fault::{ConfigError, Fault};
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
