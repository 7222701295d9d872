//! Errors that only their text identifies, because the type is private to its crate.

use std::error::Error;

use super::chain;

/// The remedy where the client was built without TLS.
pub(super) const WITHOUT_TLS: &str = "the client of reqwest was built without TLS: switch on a \
                                      feature of reqwest for it, `rustls` or `native-tls`";

/// Returns whether hyper-util refused to connect because the scheme is not http.
pub(super) fn is_without_tls(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|it| says(it, "invalid URL, scheme is not http"))
}

/// Returns whether hyper lost the task that drives the connection: its runtime is gone.
pub(super) fn is_dispatch_gone(error: &hyper::Error) -> bool {
    error.is_user() && says(error, "dispatch task is gone")
}

/// Returns whether a proxy responded to CONNECT with 407.
pub(super) fn is_proxy_auth(link: &(dyn Error + 'static)) -> bool {
    says(link, "tunnel error: proxy authorization required")
}

/// Returns whether an error writes exactly this text.
fn says(error: &(dyn Error + 'static), text: &str) -> bool {
    /// Compares what is written, without keeping it.
    struct Rest<'a>(&'a str);
    impl std::fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    std::fmt::write(&mut rest, format_args!("{error}")).is_ok() && rest.0.is_empty()
}
