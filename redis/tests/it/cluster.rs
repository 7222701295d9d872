//! A cluster: hosts lie in several slots.
