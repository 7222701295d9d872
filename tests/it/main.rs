//! Drives the public API as a user would.

mod support;
mod support_selftest;
