//! The names of methods, of which there is a bounded number.

use http::Method;

/// Returns the name of a method that HTTP defines; others are data of the caller's, of which there
/// may be any number.
pub(super) fn standard_name(method: &Method) -> Option<&'static str> {
    const NAMES: [&str; 9] =
        ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    NAMES.into_iter().find(|it| *it == method.as_str())
}
