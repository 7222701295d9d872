//! Downloads: what servers do to them, and what becomes of them.

#[cfg(feature = "blocking")]
mod blocking;
mod chaos;
mod cuts;
mod files;
mod limits;
mod matrix;
mod nginx;
mod origin;
