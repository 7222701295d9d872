//! The preparations of an inner middleware before it sends.

use http::Extensions;

use crate::outcome::not_sent::{self, NotSent};

impl NotSent {
    /// Awaits what comes before the sending. If it fails, or if the attempt ends meanwhile, this
    /// attempt counts as not sent.
    ///
    /// # Errors
    ///
    /// The error of `preparation`, unchanged.
    pub async fn during<T, E>(
        extensions: &mut Extensions,
        preparation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        not_sent::mark(extensions);
        let result = preparation.await;
        if result.is_ok() {
            not_sent::forget(extensions);
        }
        result
    }
}
