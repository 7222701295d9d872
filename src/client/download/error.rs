//! The error of a download.

use std::{error::Error, fmt};

use http::{HeaderValue, StatusCode};
use reqwest::Url;

use crate::client::download::representation::{NotResumable, Unexpected};
use crate::common::path_redactor::PathRedactor;
use crate::error::{BoxError, HttpRequestError};
use crate::observe::history::History;
use crate::observe::redact::{self, RedactedUrl};
use crate::observe::redacted_source::RedactedSource;
use crate::outcome::transport_error;

/// A download that did not finish: why, at which byte, and the histories of its requests.
///
/// `Display` has the status of a request that failed; the alternate form `{:#}` has the cause as well.
/// No message shows userinfo or query of a URL.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::DownloadErrorKind;
///
/// match client.get("https://example.com/big.iso").download().to_file("big.iso").await {
///     Ok(downloaded) => println!("{} bytes", downloaded.bytes()),
///     Err(error) if error.kind() == DownloadErrorKind::Exhausted => {
///         println!("try again later, it goes on at byte {}", error.offset());
///     }
///     // With the cause, such as: a request failed with status 404
///     Err(error) => eprintln!("{error:#}"),
/// }
/// # }
/// ```
pub struct DownloadError(Box<Inner>);

pub(crate) struct Inner {
    pub(crate) kind: DownloadErrorKind,
    pub(crate) url: Option<Url>,
    pub(crate) redact_path: Option<PathRedactor>,
    pub(crate) offset: u64,
    pub(crate) validator: Option<HeaderValue>,
    /// `true` if another request can go on at `offset`.
    pub(crate) is_resumable: bool,
    /// Why each break began the download anew, if one did.
    pub(crate) restarted: Option<NotResumable>,
    pub(crate) resumes: u32,
    pub(crate) histories: Vec<History>,
    pub(crate) cause: Cause,
}

/// The error that led to the end.
pub(crate) enum Cause {
    None,
    Request(HttpRequestError),
    Other(BoxError),
}

/// The kind of a [`DownloadError`].
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: reqwest_resilient::ResilientClient) {
/// use reqwest_resilient::DownloadErrorKind;
///
/// if let Err(error) = client.get("https://example.com/a.zip").download().to_file("a.zip").await {
///     match error.kind() {
///         DownloadErrorKind::Changed => eprintln!("there is a newer one"),
///         kind => eprintln!("{error} ({kind})"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownloadErrorKind {
    /// A request failed for good; see [`DownloadError::request_error`].
    Request,
    /// The response has neither the resource nor the range that was asked for.
    UnexpectedStatus(StatusCode),
    /// The resource changed while it was downloaded.
    Changed,
    /// The body broke off, and the download cannot go on from there.
    NotResumable(NotResumable),
    /// No bytes came, or too few, for the time that the settings allow.
    Stalled,
    /// The tries that brought no progress, the restarts, or the retry budget are used up.
    Exhausted,
    /// The server does not accept the URL any more; see
    /// [`refresh`](crate::DownloadBuilder::refresh).
    NeedsNewUrl(StatusCode),
    /// `max_total_time` is over.
    Deadline,
    /// The length is not the expected one.
    #[non_exhaustive]
    Length {
        /// The length that the caller or the server named.
        expected: u64,
        /// The length of what came.
        received: u64,
    },
    /// The resource has more bytes than [`max_length`](crate::DownloadBuilder::max_length) allows.
    #[non_exhaustive]
    TooLong {
        /// The most bytes allowed.
        most: u64,
    },
    /// The body arrived and could not be read: its coding is broken, say.
    Body,
    /// The file or the writer failed.
    Write,
    /// The [`Verifier`](crate::Verifier) rejected the bytes.
    Verification,
}

impl From<Unexpected> for DownloadErrorKind {
    fn from(unexpected: Unexpected) -> Self {
        match unexpected {
            Unexpected::Status(status) => Self::UnexpectedStatus(status),
            Unexpected::Length { expected, announced } => {
                Self::Length { expected, received: announced }
            }
        }
    }
}

impl fmt::Display for DownloadErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("a request failed"),
            Self::UnexpectedStatus(status) => write!(f, "unexpected status {}", status.as_u16()),
            Self::Changed => f.write_str("the resource changed meanwhile"),
            Self::NotResumable(why) => write!(f, "it broke off and cannot go on: {why}"),
            Self::Stalled => f.write_str("it stalled"),
            Self::Exhausted => f.write_str("it broke off, and retries are exhausted"),
            Self::NeedsNewUrl(status) => {
                write!(f, "the URL is no longer accepted (status {})", status.as_u16())
            }
            Self::Deadline => f.write_str("max_total_time is over"),
            Self::Length { expected, received } => {
                write!(f, "it has {received} bytes instead of {expected}")
            }
            Self::TooLong { most } => write!(f, "it has more than {most} bytes"),
            Self::Body => f.write_str("the body cannot be read"),
            Self::Write => f.write_str("it cannot be written"),
            Self::Verification => f.write_str("verification failed"),
        }
    }
}

impl DownloadError {
    pub(crate) fn new(mut inner: Inner) -> Self {
        if let Cause::Other(error) = inner.cause {
            let (url, path) = (inner.url.as_ref(), inner.redact_path.as_ref());
            let error = redact::url_of(error, url, path);
            inner.cause = Cause::Other(match RedactedSource::new(error.as_ref(), url, path) {
                Some(redacted) => Box::new(redacted),
                None => error,
            });
        }
        Self(Box::new(inner))
    }

    /// Builds the error of a download that has no request.
    pub(crate) fn unplaced(kind: DownloadErrorKind, cause: Cause) -> Self {
        Self::new(Inner {
            kind,
            url: None,
            redact_path: None,
            offset: 0,
            validator: None,
            is_resumable: false,
            restarted: None,
            resumes: 0,
            histories: vec![],
            cause,
        })
    }

    /// Builds the error of a download whose request cannot be built.
    #[cfg(feature = "blocking")]
    pub(crate) fn unsent(error: HttpRequestError) -> Self {
        Self::unplaced(DownloadErrorKind::Request, Cause::Request(error))
    }

    /// Builds the error of a blocking call that cannot be made.
    #[cfg(feature = "blocking")]
    pub(crate) fn undriven(error: BoxError) -> Self {
        Self::unplaced(DownloadErrorKind::Request, Cause::Other(error))
    }

    /// Builds the error of a download whose file cannot be opened. Without the URL: no request has
    /// shown yet what of it is secret.
    pub(crate) fn unopened(error: std::io::Error) -> Self {
        Self::unplaced(DownloadErrorKind::Write, Cause::Other(error.into()))
    }

    /// Returns the kind.
    pub fn kind(&self) -> DownloadErrorKind {
        self.0.kind
    }

    /// Returns the number of bytes received.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Returns the `ETag` or the `Last-Modified` of what was received, if it is a strong validator.
    pub fn validator(&self) -> Option<&HeaderValue> {
        self.0.validator.as_ref()
    }

    /// Returns how often the download went on after a break.
    pub fn resumes(&self) -> u32 {
        self.0.resumes
    }

    /// Returns the histories of the requests, oldest first; of more than 64 the last ones.
    pub fn histories(&self) -> &[History] {
        &self.0.histories
    }

    /// Returns the error of the request that ended the download, if one did.
    pub fn request_error(&self) -> Option<&HttpRequestError> {
        match &self.0.cause {
            Cause::Request(error) => Some(error),
            _ => None,
        }
    }

    /// Takes the error of the request out, to read the response in it.
    ///
    /// # Errors
    ///
    /// This error itself, if something else than a request ended the download.
    pub fn into_request_error(self) -> Result<HttpRequestError, Self> {
        match self.0.cause {
            Cause::Request(error) => Ok(error),
            _ => Err(self),
        }
    }

    /// Returns whether a request can ask for the rest: the resource had a strong validator.
    pub fn is_resumable(&self) -> bool {
        self.0.is_resumable
    }

    /// Returns whether another call may go on: what was received stays valid, and the host may
    /// recover.
    pub fn is_transient(&self) -> bool {
        use DownloadErrorKind::{Deadline, Exhausted, NeedsNewUrl, Stalled};
        matches!(self.0.kind, Deadline | Exhausted | NeedsNewUrl(_) | Stalled)
    }
}

/// `download of https://example.com/big.iso failed at byte 1048576: it stalled`
impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, url, redact_path, offset, restarted, cause, .. } = &*self.0;
        f.write_str("download")?;
        if let Some(url) = url {
            write!(f, " of {}", RedactedUrl::new(url, redact_path.as_ref()))?;
        }
        write!(f, " failed at byte {offset}: ")?;
        match (kind, restarted, cause) {
            (DownloadErrorKind::Request, _, Cause::Request(error)) => {
                if f.alternate() {
                    return write!(f, "{error:#}");
                }
                write!(f, "{kind}")?;
                if let Some(status) = error.status() {
                    write!(f, " with status {}", status.as_u16())?;
                }
            }
            (DownloadErrorKind::Exhausted, Some(why), _) => {
                write!(f, "{kind}; each break began it anew, as {why}")?;
            }
            _ => write!(f, "{kind}")?,
        }
        match cause {
            Cause::Request(error) if f.alternate() => write!(f, ": {error:#}"),
            Cause::Other(error) if f.alternate() => {
                write!(f, ": {}", transport_error::root_text(error.as_ref()))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, offset, resumes, .. } = &*self.0;
        f.debug_struct("DownloadError")
            .field("kind", kind)
            .field("offset", offset)
            .field("resumes", resumes)
            .field("source", &self.source())
            .finish_non_exhaustive()
    }
}

impl Error for DownloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Cause::None => None,
            Cause::Request(error) => Some(error),
            Cause::Other(error) => Some(error.as_ref()),
        }
    }
}
