//! Limits of the client: the requests that are under way at a time, and those per time.

mod concurrency;
#[cfg(feature = "serde")]
mod file;
mod rate;
mod wire;
