//! Downloads that finish: resumed after a break, guarded against stalls, never of two versions.

pub(crate) mod body;
mod broken;
mod content_range;
mod error;
mod failed;
mod file;
pub(crate) mod link;
mod patience;
mod progress;
mod refresh;
mod representation;
mod resumed;
mod sender;
mod session;
pub(crate) mod settings;
mod sidecar;
mod transfer;
mod validator;

use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;

pub use self::body::{Download, Downloaded};
#[cfg(fuzzing)]
pub use self::content_range::fuzz_content_range;
pub use self::error::{DownloadError, DownloadErrorKind};
pub use self::progress::Progress;
pub use self::refresh::ResumePoint;
pub use self::representation::NotResumable;
pub use self::transfer::Verifier;
use crate::client::download::body::HeadOf;
use crate::client::download::error::Cause;
use crate::client::download::file::{Existing, PartFile};
use crate::client::download::session::Session;
use crate::client::download::settings::{Prepared, Settings, downloading};
use crate::client::download::transfer::{Item, Transfer, Watchers};
use crate::client::request;
use crate::common::opaque::opaque;
use crate::common::sealed::Sealed;
use crate::error::HttpRequestError;

/// A download being put together; made by
/// [`RequestBuilder::download`](crate::RequestBuilder::download).
///
/// # Rules
///
/// A body that breaks off is continued by a request for the rest, which passes the whole chain of
/// middleware: it is signed, admitted by the breaker and retried like any other. Bytes of two
/// responses are put together only if a strong validator proves that they belong together: a strong
/// `ETag`, or a `Last-Modified` at least a second before the `Date`. What the server sends is
/// checked: status, `Content-Range`, total and validator.
///
/// Where the rest cannot be had, [`to_file`](Self::to_file) and [`bytes`](Self::bytes) start over;
/// [`send`](Self::send) and [`to_writer`](Self::to_writer) end with an error. Restarts, and tries
/// in a row without progress, are at most [`max_retries`](Self::max_retries); a restart costs a
/// token of the retry budget.
///
/// Only a GET is resumed. Other methods are sent as they are, and start over after a break only if they
/// may be [sent again](crate::RetryMethods): a POST is not. `Accept-Encoding: identity` is added
/// unless the request has the header. A limit of
/// [`max_total_time`](crate::ResilientConfigBuilder::max_total_time) holds for the whole download; a
/// request's own `timeout` holds for each of its attempts, after which the download goes on.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) -> Result<(), reqwest_resilient::DownloadError> {
/// let downloaded = client
///     .get("https://example.com/package.whl")
///     .download()
///     .on_progress(|it| println!("{} bytes", it.received))
///     .to_file("package.whl")
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a download does nothing until it is sent"]
pub struct DownloadBuilder {
    request: Result<reqwest_middleware::RequestBuilder, HttpRequestError>,
    settings: Settings,
}

// That of the request would show URL and headers, secrets included.
opaque!(DownloadBuilder {});

downloading!(DownloadBuilder);

impl request::RequestBuilder {
    /// Turns the request into a download, which goes on after a break.
    pub fn download(self) -> DownloadBuilder {
        DownloadBuilder::new(self.into_inner())
    }
}

/// Adds [`download`](Self::download) to the request builder of reqwest-middleware.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_resilient::DownloadError> {
/// use reqwest_resilient::DownloadExt;
///
/// let bytes = client.get("https://example.com/a.json").download().bytes().await?;
/// # Ok(()) }
/// ```
pub trait DownloadExt: Sealed {
    /// Turns the request into a download, which goes on after a break.
    ///
    /// ```no_run
    /// # async fn example(client: reqwest_middleware::ClientWithMiddleware) -> Result<(), reqwest_resilient::DownloadError> {
    /// use reqwest_resilient::DownloadExt;
    ///
    /// client.get("https://example.com/a.zip").download().to_file("a.zip").await?;
    /// # Ok(()) }
    /// ```
    fn download(self) -> DownloadBuilder;
}

impl DownloadExt for reqwest_middleware::RequestBuilder {
    fn download(self) -> DownloadBuilder {
        DownloadBuilder::new(Ok(self))
    }
}

impl DownloadBuilder {
    fn new(request: Result<reqwest_middleware::RequestBuilder, HttpRequestError>) -> Self {
        Self { request, settings: Settings::default() }
    }

    /// Sends the request, and returns the download once its head is there.
    ///
    /// # Errors
    ///
    /// The request failed, or its response is no download: any status but 200, or 206 to a range of
    /// the request's own.
    pub async fn send(self) -> Result<Download, DownloadError> {
        let Prepared { mut session, watchers, .. } = self.settings.prepare(self.request, false)?;
        let response = session.start().await?;
        let head = HeadOf::new(&response);
        Ok(Download::new(head, Transfer::new(session, response, watchers)?))
    }

    /// Downloads into memory.
    ///
    /// The memory grows with the resource, as with reqwest's `bytes`;
    /// [`max_length`](Self::max_length) limits it.
    ///
    /// # Errors
    ///
    /// The download did not finish.
    pub async fn bytes(self) -> Result<Bytes, DownloadError> {
        let Prepared { mut session, watchers, .. } = self.settings.prepare(self.request, true)?;
        let response = session.start().await?;
        let mut transfer = Transfer::new(session, response, watchers)?;
        let mut all = BytesMut::new();
        while let Some(item) = transfer.next().await {
            match item? {
                Item::Bytes(bytes) => all.extend_from_slice(&bytes),
                Item::Restarted => all.clear(),
            }
        }
        Ok(all.freeze())
    }

    /// Downloads into a writer, and flushes it. It never starts over.
    ///
    /// # Errors
    ///
    /// The download did not finish, or the writer failed.
    pub async fn to_writer(
        self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Result<Downloaded, DownloadError> {
        self.send().await?.copy_to(writer).await
    }

    /// Downloads into a file, which appears under its name when it is whole.
    ///
    /// The bytes are written to `<path>.part`, and what the next process has to know to
    /// `<path>.part.resume`: no URL, only a hash of it. A download that was dropped, killed or ended
    /// with an error goes on from there, if the resource is still the same, else it starts over.
    /// A file of that name is replaced at the end. Bytes are handed to the system, not forced to the
    /// disk: after a power failure only [`verify`](Self::verify) tells whether they are right. It
    /// sees those of the earlier process, too.
    ///
    /// Within a process a file has one download at a time; a second one fails, unless the first was
    /// dropped. That no other process writes the same file is up to the caller.
    ///
    /// # Errors
    ///
    /// The download did not finish, or the file system failed.
    pub async fn to_file(self, path: impl AsRef<Path>) -> Result<Downloaded, DownloadError> {
        let Prepared { session, watchers, key } = self.settings.prepare(self.request, true)?;
        let opened = PartFile::open(path.as_ref(), key).await;
        let (mut part, existing) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(DownloadError::unopened(error)),
        };
        match fetch(session, watchers, &mut part, existing).await {
            Ok(transfer) => {
                let downloaded = transfer.session().map(Downloaded::of).unwrap_or_default();
                match part.finish(downloaded.bytes()).await {
                    Ok(()) => Ok(downloaded),
                    Err(error) => Err(not_written(&transfer, error)),
                }
            }
            Err(error) => {
                part.give_up(is_worth_keeping(&error)).await;
                Err(error)
            }
        }
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }
}

/// Downloads into the part file, from the end of what is there.
async fn fetch(
    mut session: Box<Session>,
    mut watchers: Watchers,
    part: &mut PartFile,
    existing: Option<Existing>,
) -> Result<Transfer, DownloadError> {
    let mut transfer = match existing.filter(|it| session.asked.accepts(&it.representation)) {
        Some(Existing { representation, length }) => {
            if let Some(verifier) = &mut watchers.verifier {
                let shown = show(part, verifier.as_mut()).await;
                shown.map_err(|it| write_failed(&session, it))?;
            }
            session.take_up(representation, length);
            Transfer::take_up(session, watchers)
        }
        None => {
            let response = session.start().await?;
            let restarted = part.restart(&session.representation).await;
            restarted.map_err(|it| write_failed(&session, it))?;
            Transfer::new(session, response, watchers)?
        }
    };
    while let Some(item) = transfer.next().await {
        let written = match (item?, transfer.session()) {
            (Item::Restarted, Some(session)) => part.restart(&session.representation).await,
            (Item::Bytes(bytes), _) => part.write(&bytes).await,
            (Item::Restarted, None) => Ok(()),
        };
        written.map_err(|it| not_written(&transfer, it))?;
    }
    Ok(transfer)
}

/// Shows a verifier the bytes of an earlier process.
async fn show(part: &mut PartFile, verifier: &mut dyn Verifier) -> std::io::Result<()> {
    let mut offset = 0;
    loop {
        let piece = part.read(offset).await?;
        if piece.is_empty() {
            return Ok(());
        }
        verifier.update(&piece);
        offset += piece.len() as u64;
    }
}

fn not_written(transfer: &Transfer, error: std::io::Error) -> DownloadError {
    transfer.error_by(DownloadErrorKind::Write, Cause::Other(error.into()))
}

fn write_failed(session: &Session, error: std::io::Error) -> DownloadError {
    session.error(DownloadErrorKind::Write, Cause::Other(error.into()))
}

/// Returns whether the bytes so far may be of use to another try.
fn is_worth_keeping(error: &DownloadError) -> bool {
    let is_resumable = error.offset() > 0 && error.is_resumable();
    let is_wrong = matches!(
        error.kind(),
        DownloadErrorKind::Body
            | DownloadErrorKind::Length { .. }
            | DownloadErrorKind::TooLong { .. }
            | DownloadErrorKind::Verification
    );
    is_resumable && !is_wrong
}
