//! Redis, or valkey, as the store of a [fleet](reqwest_resilient::fleet): many processes share what
//! they know of a host.
//!
//! When a service is down, every process finds out by itself, at the cost of its own failures. In a
//! fleet they find out together: [`RedisFleet`] counts the attempts of all nodes, decides when the
//! breaker of the fleet opens and closes, and passes on the rate limits that one of them heard of.
//!
//! No request waits for redis. One background task in the client exchanges counts for advice about
//! once a second; where redis is slow, full or gone, each client's own breaker and gate go on as if
//! there were no fleet.
//!
//! Decisions are made by one script on the server, by the server's clock: clocks of nodes are never
//! compared. See [`RedisFleet`] for keys, costs and limits.

mod news;
mod report;
#[cfg(test)]
#[path = "../tests/it/support/server.rs"]
#[allow(dead_code, reason = "of the tests of whole fleets, too")]
mod server;
mod store;
#[cfg(test)]
mod tests;

/// The program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use redis;
pub use store::RedisFleet;
