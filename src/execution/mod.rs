//! One request under way: the loop, each attempt within its limits, bodies.

mod admit;
pub(crate) mod attempt;
#[cfg(feature = "test-util")]
pub mod bench;
pub(crate) mod body;
#[cfg_attr(not(feature = "test-util"), allow(unreachable_pub))]
pub(crate) mod boxed;
pub(crate) mod call;
pub(crate) mod decide;
pub(crate) mod redirect;
