//! Ways in: `Resilient` as a middleware, the clients and request builders around it.

pub(crate) mod adapter;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "download")]
pub(crate) mod download;
pub(crate) mod end_of_chain;
mod error_body;
pub(crate) mod fleet;
pub(crate) mod middleware;
pub(crate) mod request;
pub(crate) mod resilient_client;

// Shared state is behind locks that a panic leaves whole: none is held while code of the caller's
// runs.
impl std::panic::UnwindSafe for middleware::Resilient {}
impl std::panic::RefUnwindSafe for middleware::Resilient {}
impl std::panic::UnwindSafe for resilient_client::ResilientClient {}
impl std::panic::RefUnwindSafe for resilient_client::ResilientClient {}
