//! The number of earlier sends of a request, for middleware further in and for spans.

/// The number of earlier sends of a request, in the extensions of every attempt but the first: what
/// OpenTelemetry calls `http.request.resend_count`.
///
/// For middleware further in, which sees one attempt only; absent means 0. Re-sends of a
/// [`Resilient`](crate::Resilient) further out count too. Redirects, which the client follows by
/// itself, do not.
///
/// ```
/// use http::Extensions;
/// use reqwest_resilient::ResendCount;
///
/// fn on_request_start(extensions: &Extensions) {
///     // A field of the span; tracing-opentelemetry makes numbers of signed ones only.
///     let resend_count = extensions.get::<ResendCount>().map(|it| i64::from(it.get()));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResendCount(u32);

impl ResendCount {
    /// Returns the number: 1 or more.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Builds the number after this many sends.
    pub(crate) fn of(sends: u32) -> Self {
        Self(sends)
    }
}
