//! Sending with the outcome as one type: success, or everything there is to know.

use std::mem;

use reqwest::Response;
use reqwest_middleware::RequestBuilder;

use crate::decision::StopReason;
use crate::error::{Cause, HttpRequestError, Inner};
use crate::failure;
use crate::history::AttemptLog;

/// Adds [`send_resilient`](Self::send_resilient) to reqwest-middleware's request builder.
pub trait RequestBuilderExt {
    /// Sends the request; a status below 400 is `Ok`, everything else an [`HttpRequestError`].
    ///
    /// The error tells method, url, status, attempts, time, history and the reason why no further
    /// attempt was made; it gives back the last response if there is one.
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_middleware::ClientWithMiddleware) {
    /// use reqwest_resilient::RequestBuilderExt;
    ///
    /// match client.get("https://example.com").send_resilient().await {
    ///     Ok(response) => println!("{}", response.status()),
    ///     // GET request to https://example.com/ failed with status 503 after 4 attempts
    ///     Err(error) => eprintln!("{error}\n{}", error.history()),
    /// }
    /// # }
    /// ```
    fn send_resilient(self) -> impl Future<Output = Result<Response, HttpRequestError>> + Send;
}

impl RequestBuilderExt for RequestBuilder {
    async fn send_resilient(mut self) -> Result<Response, HttpRequestError> {
        // `build_split` drops the extensions.
        let mut extensions = mem::take(self.extensions());
        let log = extensions.get_or_insert_default::<AttemptLog>().clone();
        let (client, request) = self.build_split();
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                let cause = Cause::Failure(failure::read(&error).kind, error.into());
                let url = None;
                let method = None;
                return Err(HttpRequestError::new(Inner::logged(method, url, cause, &log)));
            }
        };
        let (method, url) = (request.method().clone(), request.url().clone());
        let cause = match client.execute_with_extensions(request, &mut extensions).await {
            Ok(response) if response.status().as_u16() < 400 && !still_failing(&log) => {
                return Ok(response);
            }
            Ok(response) => Cause::Answer(response),
            Err(reqwest_middleware::Error::Reqwest(error)) => {
                Cause::Failure(failure::read(&error).kind, error.into())
            }
            Err(reqwest_middleware::Error::Middleware(error)) => match error.downcast() {
                Ok(ours) => return Err(ours),
                // Its plain conversion would hide the type from whoever asks the source for it.
                Err(error) => Cause::Failure(
                    failure::read(error.as_ref()).kind,
                    error.reallocate_into_boxed_dyn_error_without_backtrace(),
                ),
            },
        };
        Err(HttpRequestError::new(Inner::logged(Some(method), Some(url), cause, &log)))
    }
}

/// Whether the last answer was one that the settings call a failure, such as a 202 in the list.
fn still_failing(log: &AttemptLog) -> bool {
    !matches!(log.history().stop_reason(), None | Some(StopReason::Success))
}
