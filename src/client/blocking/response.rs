//! A response whose body is read by blocking.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::task::Poll;
use std::{mem, ops::Deref};

use bytes::{Buf, Bytes};
use reqwest::{Body, ResponseBuilderExt};
use reqwest_middleware::{Error, Result};
use tokio::sync::mpsc;

use super::drive::{DriveError, Driver, wait};
use crate::client::error_body;
use crate::common::response::rebuild;
use crate::error::HttpRequestError;
use crate::execution::body::Prefixed;
use crate::observe::redact::RedactedUrl;

/// A response: derefs to reqwest's for status, headers, URL and the like, and reads the body
/// without `await`, also as a [`std::io::Read`].
///
/// Use it on any thread; the readers fail with a
/// [`DriveError`](super::DriveError) within async code.
///
/// # Examples
///
/// ```no_run
/// # fn example(client: reqwest_resilient::blocking::ResilientClient) -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::{BufRead, BufReader};
///
/// let response = client.get("https://example.com/lines.txt").send_resilient()?;
/// for line in BufReader::new(response).lines() {
///     println!("{}", line?);
/// }
/// # Ok(()) }
/// ```
pub struct Response {
    inner: reqwest::Response,
    driver: Driver,
    /// The rest of the chunk that was read last.
    unread: Bytes,
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
        Self { inner, driver, unread: Bytes::new() }
    }

    /// Reads the body as text, in the charset that `Content-Type` names where reqwest's feature
    /// `charset` is on, else as UTF-8.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, or the call cannot be made here.
    pub fn text(self) -> Result<String> {
        self.read(reqwest::Response::text)
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, or the call cannot be made here.
    pub fn bytes(self) -> Result<Bytes> {
        self.read(reqwest::Response::bytes)
    }

    /// Reads the body as JSON.
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
        let head = head_of(&self.inner)?;
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
        let unread = mem::take(&mut self.unread);
        let mut count = unread.len() as u64;
        let mut written = writer.write_all(&unread);
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

    /// Returns an error of reqwest where the status is one, else the response.
    ///
    /// # Errors
    ///
    /// The status is 400 or above.
    pub fn error_for_status(self) -> Result<Self> {
        let Self { inner, driver, unread } = self;
        Ok(Self { inner: inner.error_for_status()?, driver, unread })
    }

    /// Returns the response of reqwest inside, for async code.
    pub fn into_inner(self) -> reqwest::Response {
        self.whole().0
    }

    /// Returns the response with all that was not read, and its driver.
    fn whole(self) -> (reqwest::Response, Driver) {
        let Self { inner, driver, unread } = self;
        if unread.is_empty() {
            return (inner, driver);
        }
        (rebuild(inner, |rest| Body::wrap(Prefixed { start: Some(unread), rest })), driver)
    }

    /// Waits for the next chunk; `None` at the end.
    fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.driver.check().map_err(Error::middleware)?;
        let head = head_of(&self.inner)?;
        let mut response = mem::replace(&mut self.inner, head);
        let read = self.driver.run(async move {
            let chunk = response.chunk().await;
            (response, chunk)
        });
        let (response, chunk) = read.map_err(Error::middleware)?;
        self.inner = response;
        Ok(chunk?)
    }

    fn read<F, T>(self, with: impl FnOnce(reqwest::Response) -> F) -> Result<T>
    where
        F: Future<Output = reqwest::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (inner, driver) = self.whole();
        Ok(driver.run(with(inner)).map_err(Error::middleware)??)
    }
}

/// Returns the same response without its body: it stands there while that is away, being read.
fn head_of(response: &reqwest::Response) -> Result<reqwest::Response> {
    let head = http::Response::builder().status(response.status()).version(response.version());
    let mut head = head.url(response.url().clone()).body("").map_err(Error::middleware)?;
    head.headers_mut().clone_from(response.headers());
    head.extensions_mut().extend(response.extensions().clone());
    Ok(head.into())
}

impl Read for Response {
    /// Reads what has come of the body; waits only if that is nothing. A limit that ended the body is
    /// an error of the kind `TimedOut`.
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() && !target.is_empty() {
            let io_error = |it: Error| {
                let is_timeout = it.is_timeout();
                let kind = if is_timeout { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
                io::Error::new(kind, it)
            };
            match self.chunk().map_err(io_error)? {
                Some(chunk) => self.unread = chunk,
                None => return Ok(0),
            }
        }
        let read = target.len().min(self.unread.len());
        self.unread.copy_to_slice(&mut target[..read]);
        Ok(read)
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

    /// Takes the last response out of an error of the [blocking client](super::ResilientClient), to
    /// read its body.
    ///
    /// # Errors
    ///
    /// This error itself, if there is no response, or if the error is not that client's.
    pub fn into_blocking_response(mut self) -> std::result::Result<Response, Self> {
        let response = self.response_mut();
        let driver = response.and_then(|it| it.extensions_mut().remove::<Driver>());
        let Some(driver) = driver else { return Err(self) };
        Ok(Response::new(self.into_response()?, driver))
    }

    /// Reads the body of the last response like [`bytes`](Self::bytes), by blocking. The error keeps it.
    ///
    /// # Errors
    ///
    /// The connection broke, time ran out, the call cannot be made here, or the error is not one of the
    /// [blocking client](super::ResilientClient).
    pub fn blocking_bytes(&mut self) -> Result<Bytes> {
        let Some(response) = self.response_mut() else { return Ok(Bytes::new()) };
        let Some(driver) = response.extensions().get::<Driver>().cloned() else {
            return Err(Error::middleware(DriveError::NotBlocking));
        };
        driver.check().map_err(Error::middleware)?;
        let head = head_of(response)?;
        let mut taken = mem::replace(response, head);
        let read = driver.run(async move {
            let read = error_body::read(&mut taken).await;
            (taken, read)
        });
        let (taken, read) = read.map_err(Error::middleware)?;
        *response = taken;
        Ok(read?)
    }

    /// Reads the body of the last response as text like [`text`](Self::text), by blocking.
    ///
    /// # Errors
    ///
    /// Those of [`blocking_bytes`](Self::blocking_bytes).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(client: reqwest_resilient::blocking::ResilientClient) {
    /// if let Err(mut error) = client.get("https://api.example.com/").send_resilient() {
    ///     let said = error.blocking_text().unwrap_or_default();
    ///     eprintln!("{error:#}: {said}");
    /// }
    /// # }
    /// ```
    pub fn blocking_text(&mut self) -> Result<String> {
        let body = self.blocking_bytes()?;
        Ok(wait(self.copy_with(body).text())?)
    }

    /// Reads the body of the last response as JSON like [`json`](Self::json), by blocking.
    ///
    /// # Errors
    ///
    /// Those of [`blocking_bytes`](Self::blocking_bytes), or it is no JSON or not of this type.
    #[cfg(feature = "json")]
    pub fn blocking_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        let body = self.blocking_bytes()?;
        Ok(wait(self.copy_with(body).json())?)
    }
}
