//! Mirrors: several endpoints for the requests under one base URL.

#[cfg(feature = "download")]
mod downloads;
mod files;
mod rules;
mod secrets;
mod servers;
mod stories;
