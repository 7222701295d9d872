//! Guides: how to get here from elsewhere, how to test, what to set.

#[doc = include_str!("../docs/coming_from_aresilient.md")]
pub mod coming_from_aresilient {}

#[doc = include_str!("../docs/coming_from_reqwest_retry.md")]
pub mod coming_from_reqwest_retry {}

#[cfg(feature = "test-util")]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/choosing_settings.md")]
pub mod choosing_settings {}
