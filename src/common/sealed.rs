//! A trait that keeps extension traits from other implementations, so that they can grow.

/// Implemented by the types that extension traits of this crate extend.
#[doc(hidden)]
#[expect(unnameable_types, reason = "that is the seal")]
pub trait Sealed {}

impl Sealed for reqwest::Response {}
impl Sealed for reqwest_middleware::RequestBuilder {}
#[cfg(feature = "astral")]
impl Sealed for astral_reqwest_middleware::RequestBuilder {}
