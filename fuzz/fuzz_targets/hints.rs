//! Whatever a server sends, its hints are read or ignored.
//!
//! Inputs are header lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|lines: &[u8]| reqwest_resilient::fuzz_hints(lines));
