//! nginx: connections that it ends, its limits, its errors, and its files.

mod connections;
mod downloads;
mod errors;
mod limits;
