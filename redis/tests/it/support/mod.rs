//! What the tests run: redis, and what stands between it and its nodes.

pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod upstream;

pub(crate) use server::{Folder, until};
