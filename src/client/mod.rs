//! Ways in: `Resilient` as a middleware, the clients and request builders around it.

pub(crate) mod adapter;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "download")]
pub(crate) mod download;
pub(crate) mod end_of_chain;
pub(crate) mod middleware;
pub(crate) mod request;
pub(crate) mod resilient_client;
