//! A real redis and real processes.

mod cluster;
mod store;
mod support;
