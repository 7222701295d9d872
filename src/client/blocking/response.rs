//! A response whose body is read by blocking.

use std::future::poll_fn;
use std::io::Write;
use std::pin::pin;
use std::task::Poll;
use std::{mem, ops::Deref};

use bytes::Bytes;
use reqwest::ResponseBuilderExt;
use reqwest_middleware::{Error, Result};
use tokio::sync::mpsc;

use super::drive::{Driver, wait};
use crate::error::HttpRequestError;
use crate::observe::redact::RedactedUrl;

/// A response: derefs to reqwest's for status, headers, url and the like, and reads the body
/// without `await`.
///
/// Use it on any thread; the readers fail with a
/// [`DriveError`](super::DriveError) within async code.
pub struct Response {
    inner: reqwest::Response,
    driver: Driver,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("url", &RedactedUrl::new(self.inner.url(), self.inner.extensions().get()))
            .field("status", &self.inner.status())
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(super) fn new(inner: reqwest::Response, driver: Driver) -> Self {
        Self { inner, driver }
    }

    /// The body as text, in the charset that `Content-Type` names where reqwest's feature
    /// `charset` is on, else as UTF-8.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, or the call cannot be made here.
    pub fn text(self) -> Result<String> {
        self.read(reqwest::Response::text)
    }

    /// The body.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, or the call cannot be made here.
    pub fn bytes(self) -> Result<Bytes> {
        self.read(reqwest::Response::bytes)
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    ///
    /// It is no JSON or not of this type, the connection broke, time ran out, or the call cannot
    /// be made here.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned + Send + 'static>(self) -> Result<T> {
        self.read(reqwest::Response::json)
    }

    /// Writes the body as it comes, and returns how many bytes it has.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, or the writer failed: its `io::Error` is the source, and the
    /// call returns at once. What no writer was given can still be read. In async code the call is
    /// refused, with the body untouched.
    pub fn copy_to(&mut self, writer: &mut (impl Write + ?Sized)) -> Result<u64> {
        self.driver.check().map_err(Error::middleware)?;
        let head = self.head()?;
        let mut response = mem::replace(&mut self.inner, head);
        let (chunks, mut received) = mpsc::channel(1);
        let task = self.driver.start(async move {
            let read = loop {
                match next(&mut response, &chunks).await {
                    Some(Ok(Some(chunk))) => {
                        // Not taken if the writer has failed.
                        if chunks.send(chunk).await.is_err() {
                            break Ok(());
                        }
                    }
                    Some(end) => break end.map(drop),
                    None => break Ok(()),
                }
            };
            (response, read)
        });
        let task = task.map_err(Error::middleware)?;
        let mut count = 0;
        let mut written = Ok(());
        while written.is_ok() {
            let Some(chunk) = wait(received.recv()) else { break };
            written = writer.write_all(&chunk);
            count += chunk.len() as u64;
        }
        drop(received);
        let (response, read) = self.driver.finish(task).map_err(Error::middleware)?;
        self.inner = response;
        read?;
        written.map_err(Error::middleware)?;
        Ok(count)
    }

    /// An error of reqwest where the status is one, else the response.
    ///
    /// # Errors
    ///
    /// The status is 400 or above.
    pub fn error_for_status(self) -> Result<Self> {
        let Self { inner, driver } = self;
        Ok(Self { inner: inner.error_for_status()?, driver })
    }

    /// The response of reqwest inside, for async code.
    pub fn into_inner(self) -> reqwest::Response {
        self.inner
    }

    fn read<F, T>(self, with: impl FnOnce(reqwest::Response) -> F) -> Result<T>
    where
        F: Future<Output = reqwest::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let Self { inner, driver } = self;
        Ok(driver.run(with(inner)).map_err(Error::middleware)??)
    }

    /// The same response without its body: stands here while that is away, being read.
    fn head(&self) -> Result<reqwest::Response> {
        let head = http::Response::builder().status(self.status()).version(self.version());
        let mut head = head.url(self.url().clone()).body("").map_err(Error::middleware)?;
        head.headers_mut().clone_from(self.headers());
        Ok(head.into())
    }
}

/// Waits for the next chunk; `None` if the receiver went first.
async fn next(
    response: &mut reqwest::Response,
    chunks: &mpsc::Sender<Bytes>,
) -> Option<reqwest::Result<Option<Bytes>>> {
    let (mut chunk, mut closed) = (pin!(response.chunk()), pin!(chunks.closed()));
    poll_fn(|cx| match closed.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => chunk.as_mut().poll(cx).map(Some),
    })
    .await
}

impl Deref for Response {
    type Target = reqwest::Response;

    fn deref(&self) -> &reqwest::Response {
        &self.inner
    }
}

impl HttpRequestError {
    pub(super) fn driven_by(mut self, driver: &Driver) -> Self {
        if let Some(response) = self.response_mut() {
            response.extensions_mut().insert(driver.clone());
        }
        self
    }

    /// Takes the last answer out of an error of the [blocking client](super::ResilientClient), to
    /// read its body. `None` where there is no answer, or where the error is not that client's.
    pub fn into_blocking_response(self) -> Option<Response> {
        let mut inner = self.into_response()?;
        let driver = inner.extensions_mut().remove::<Driver>()?;
        Some(Response { inner, driver })
    }
}
