//! A function of the caller's that hides secrets in the paths of URLs.

use std::{fmt, ptr, sync::Arc};

/// A function that removes the secrets of a URL's path.
#[derive(Clone)]
pub(crate) struct PathRedactor(Arc<dyn Fn(&str) -> String + Send + Sync>);

impl PathRedactor {
    pub(crate) fn new(redact: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(redact))
    }

    pub(crate) fn redact(&self, path: &str) -> String {
        (self.0)(path)
    }
}

/// Equal if both are the same function.
impl PartialEq for PathRedactor {
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for PathRedactor {}

impl fmt::Debug for PathRedactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathRedactor")
    }
}
