//! Drives the public API as a user would.

mod arrows;
mod breaker;
mod citizen;
mod conformance;
mod properties;
mod retry;
mod support;
mod support_selftest;
mod tidy;
mod wire;
