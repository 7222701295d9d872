//! Drives the public API as a user would.

mod arrows;
mod breaker;
mod citizen;
mod retry;
mod support;
mod support_selftest;
mod tidy;
