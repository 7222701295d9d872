//! Downloads: what servers do to them, and what becomes of them.

#[cfg(feature = "blocking")]
mod blocking;
mod chaos;
mod cuts;
mod files;
mod limits;
mod matrix;
pub(crate) mod origin;
