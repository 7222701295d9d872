//! Drives the public API as a user would.
