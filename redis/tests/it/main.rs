//! A real redis and real processes.

mod cluster;
mod fleet;
mod store;
mod support;
