//! Response bodies: read within the attempt, drained after it, cut by the deadline or a stall.

use std::{io, time::Duration};

use crate::error::BoxError;
use crate::observe::message::{Elapsed, TimeLimit};

mod deadline;
mod drain;
mod factory;
mod permit;
mod read;
pub(crate) mod stall;

pub(crate) use deadline::until;
pub(crate) use drain::drain;
pub use factory::BodyFactory;
pub(crate) use factory::BoxFuture;
pub(crate) use permit::holding;
pub(crate) use read::{Prefixed, begin, read, size_with};

/// Returns the error of a body that a limit cut: an io error, so that `reqwest::Error::is_timeout`
/// sees it.
fn cut_by(limit: TimeLimit, after: Duration) -> BoxError {
    io::Error::new(io::ErrorKind::TimedOut, Elapsed { limit, after }).into()
}
