//! Drives the public API as a user would.

mod breaker;
