//! A download as a stream: the response head, then bytes that come as if nothing had broken.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use http_body::{Frame, SizeHint};
use reqwest::Url;
use tokio::io::AsyncWrite;

use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind};
use crate::client::download::session::{Counts, Session};
use crate::client::download::transfer::{Item, Transfer};
use crate::observe::history::History;
use crate::observe::redact::RedactedUrl;

/// A download under way: the head of its first response, and the bytes of its body.
///
/// Read it with [`chunk`](Self::chunk), as a `Stream`, or as an `http_body::Body`. A break is
/// repaired unseen, within the next read; a reader that pauses holds nothing but the connection. It
/// never starts over: where that were necessary, it ends with an error.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), reqwest_resilient::DownloadError> {
/// let mut download = client.get("https://example.com/log.txt").download().send().await?;
/// println!("{} bytes to come", download.length().unwrap_or_default());
/// while let Some(chunk) = download.chunk().await? {
///     print!("{}", String::from_utf8_lossy(&chunk));
/// }
/// # Ok(()) }
/// ```
pub struct Download {
    pub(crate) head: HeadOf,
    transfer: Transfer,
    /// As of the last read.
    summary: Downloaded,
}

/// The head of a first response.
#[derive(Clone)]
pub(crate) struct HeadOf {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
}

impl HeadOf {
    pub(crate) fn new(response: &reqwest::Response) -> Self {
        Self {
            status: response.status(),
            version: response.version(),
            headers: response.headers().clone(),
            url: response.url().clone(),
        }
    }
}

/// The summary of a download.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), reqwest_resilient::DownloadError> {
/// let downloaded = client.get("https://example.com/a.zip").download().to_file("a.zip").await?;
/// println!("{} bytes, resumed {} times", downloaded.bytes(), downloaded.resumes());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downloaded {
    bytes: u64,
    total: Option<u64>,
    counts: Counts,
    attempts: u32,
    histories: Vec<History>,
}

impl Downloaded {
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            bytes: session.received,
            total: session.representation.length,
            counts: session.counts,
            attempts: session.sender.attempts,
            histories: session.sender.histories.clone(),
        }
    }

    /// Returns the number of bytes received, each counted once; those of an earlier process
    /// included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how often it went on after a break.
    pub fn resumes(&self) -> u32 {
        self.counts.resumes
    }

    /// Returns how often it started over from zero.
    pub fn restarts(&self) -> u32 {
        self.counts.restarts
    }

    /// Returns the number of bytes that came more than once.
    pub fn repeated(&self) -> u64 {
        self.counts.repeated
    }

    /// Returns the number of attempts of all requests.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the histories of the requests that took more than one attempt, or failed, oldest first;
    /// of more than 64 the last ones.
    pub fn histories(&self) -> &[History] {
        &self.histories
    }
}

/// The head of the first response, of either kind of download.
macro_rules! headed {
    ($Download:ident) => {
        /// The head of the first response.
        impl $Download {
            /// Returns the status of the first response: 200, or 206 to a range of the request's
            /// own.
            pub fn status(&self) -> http::StatusCode {
                self.head.status
            }

            /// Returns the HTTP version of the first response.
            pub fn version(&self) -> http::Version {
                self.head.version
            }

            /// Returns the headers of the first response.
            pub fn headers(&self) -> &http::HeaderMap {
                &self.head.headers
            }

            /// Returns the whole URL of the first response, secrets included: do not log it.
            pub fn url(&self) -> &reqwest::Url {
                &self.head.url
            }
        }
    };
}
#[cfg(feature = "blocking")]
pub(crate) use headed;

headed!(Download);

impl Download {
    pub(crate) fn new(head: HeadOf, transfer: Transfer) -> Self {
        let summary = transfer.session().map(Downloaded::of).unwrap_or_default();
        Self { head, transfer, summary }
    }

    /// Returns the number of bytes in all, if it is known.
    pub fn length(&self) -> Option<u64> {
        self.summary.total
    }

    /// Returns the counts so far, as of the last read.
    pub fn summary(&self) -> &Downloaded {
        &self.summary
    }

    /// Waits for the next bytes; `None` at the end. Safe to drop before it is ready.
    ///
    /// # Errors
    ///
    /// The body broke off and cannot be resumed, the resource changed, or retries are exhausted. The
    /// download has ended then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    /// Reads all bytes.
    ///
    /// The memory grows with the resource, as with reqwest's `bytes`;
    /// [`max_length`](crate::DownloadBuilder::max_length) limits it.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk).
    pub async fn bytes(mut self) -> Result<Bytes, DownloadError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Writes all bytes to `writer`, and flushes it.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk), or the writer failed.
    pub async fn copy_to(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Result<Downloaded, DownloadError> {
        while let Some(chunk) = self.chunk().await? {
            write_all(writer, &chunk).await.map_err(|it| self.write_failed(it))?;
        }
        let flushed = std::future::poll_fn(|cx| Pin::new(&mut *writer).poll_flush(cx)).await;
        flushed.map_err(|it| self.write_failed(it))?;
        Ok(self.summary.clone())
    }

    pub(crate) fn write_failed(&self, error: io::Error) -> DownloadError {
        self.transfer.error_by(DownloadErrorKind::Write, Cause::Other(error.into()))
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, DownloadError>>> {
        loop {
            let item = ready!(self.transfer.poll_item(cx));
            match (item, self.transfer.session()) {
                (Some(Ok(Item::Bytes(bytes))), _) => {
                    self.summary.bytes += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                // It never starts over: its session may not.
                (Some(Ok(Item::Restarted)), _) => {}
                (item, session) => {
                    if let Some(session) = session {
                        self.summary = Downloaded::of(session);
                    }
                    let item = item.and_then(Result::err);
                    return Poll::Ready(item.map(Err));
                }
            }
        }
    }
}

async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written =
            std::future::poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

impl futures_core::Stream for Download {
    type Item = Result<Bytes, DownloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx)
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        Poll::Ready(ready!(self.poll_chunk(cx)).map(|it| it.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match self.summary.total {
            Some(total) => SizeHint::with_exact(total.saturating_sub(self.summary.bytes)),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Download");
        f.field("status", &self.head.status);
        // While it recovers, nothing says what of the URL is secret.
        if let Some(session) = self.transfer.session() {
            let redact_path = session.context().redact_path();
            f.field("url", &RedactedUrl::new(&self.head.url, redact_path.as_ref()));
        }
        f.field("received", &self.summary.bytes).finish_non_exhaustive()
    }
}
