//! Ways in: `Resilient` as a middleware, the clients and request builders around it.

pub(crate) mod adapter;
#[cfg(feature = "blocking")]
pub mod blocking;
pub(crate) mod end_of_chain;
pub(crate) mod middleware;
mod misuses;
pub(crate) mod request;
pub(crate) mod resilient_client;
