//! Whatever stands in `Content-Range`, it is read within bounds or not at all.
//!
//! Inputs are values of the field.
#![no_main]

libfuzzer_sys::fuzz_target!(|value: &[u8]| reqwest_resilient::fuzz_content_range(value));
