//! Drives the public API as a user would.

mod arrows;
mod conformance;
mod properties;
mod retry;
mod support;
