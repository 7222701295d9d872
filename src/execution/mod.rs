//! One request under way: the loop, each attempt within its limits, bodies.

mod admit;
pub(crate) mod attempt;
#[cfg(feature = "test-util")]
pub mod bench;
pub(crate) mod body;
pub(crate) mod decide;
pub(crate) mod fast_path;
mod judge;
mod not_sent;
pub(crate) mod original;
pub(crate) mod record;
mod recorder;
pub(crate) mod redirect;
pub(crate) mod run;
