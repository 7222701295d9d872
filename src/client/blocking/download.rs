//! Downloads for code without async.

use std::io::{self, Read, Write};
use std::path::Path;

use bytes::{Buf, Bytes};

use crate::client::blocking::drive::{DriveError, Driver};
use crate::client::download::body::{HeadOf, headed};
use crate::client::download::settings::{Settings, downloading};
use crate::client::download::{self, DownloadError, Downloaded};
use crate::common::opaque::opaque;
use crate::error::HttpRequestError;

/// The blocking counterpart of [`crate::DownloadBuilder`], with the same rules.
///
/// # Examples
///
/// ```no_run
/// # fn example(client: reqwest_resilient::blocking::ResilientClient) -> Result<(), reqwest_resilient::DownloadError> {
/// let downloaded = client.get("https://example.com/a.zip").download().to_file("a.zip")?;
/// println!("{} bytes", downloaded.bytes());
/// # Ok(()) }
/// ```
#[must_use = "a download does nothing until it is sent"]
pub struct DownloadBuilder(Result<(download::DownloadBuilder, Driver), HttpRequestError>);

opaque!(DownloadBuilder {});

downloading!(DownloadBuilder);

impl super::RequestBuilder {
    /// Turns the request into a download, which goes on after a break.
    pub fn download(self) -> DownloadBuilder {
        DownloadBuilder(self.0.map(|(request, driver)| (request.download(), driver)))
    }
}

impl DownloadBuilder {
    /// Sends the request, and returns the download once its head is there.
    ///
    /// # Errors
    ///
    /// Those of [`crate::DownloadBuilder::send`], or one whose source is a [`DriveError`].
    pub fn send(self) -> Result<Download, DownloadError> {
        let (builder, driver) = self.parts()?;
        let inner = driver.run(builder.send()).map_err(undriven)??;
        let (head, length) = (inner.head.clone(), inner.length());
        Ok(Download { inner: Some(inner), driver, head, length, unread: Bytes::new() })
    }

    /// Downloads into memory, which grows with the resource;
    /// [`max_length`](Self::max_length) limits it.
    ///
    /// # Errors
    ///
    /// The download did not finish, or the call cannot be made here.
    pub fn bytes(self) -> Result<Bytes, DownloadError> {
        let (builder, driver) = self.parts()?;
        driver.run(builder.bytes()).map_err(undriven)?
    }

    /// Downloads into a writer, and flushes it. It never starts over.
    ///
    /// # Errors
    ///
    /// The download did not finish, the writer failed, or the call cannot be made here.
    pub fn to_writer(
        self,
        writer: &mut (impl Write + ?Sized),
    ) -> Result<Downloaded, DownloadError> {
        self.send()?.copy_to(writer)
    }

    /// Downloads into a file; see [`crate::DownloadBuilder::to_file`].
    ///
    /// # Errors
    ///
    /// The download did not finish, the file system failed, or the call cannot be made here.
    pub fn to_file(self, path: impl AsRef<Path>) -> Result<Downloaded, DownloadError> {
        let (builder, driver) = self.parts()?;
        let path = path.as_ref().to_owned();
        driver.run(builder.to_file(path)).map_err(undriven)?
    }

    fn parts(self) -> Result<(download::DownloadBuilder, Driver), DownloadError> {
        self.0.map_err(DownloadError::unsent)
    }

    fn change(self, change: impl FnOnce(&mut Settings)) -> Self {
        Self(self.0.map(|(builder, driver)| (builder.change(change), driver)))
    }
}

/// The blocking counterpart of [`crate::Download`]: read it with [`chunk`](Self::chunk), or as a
/// `std::io::Read`.
///
/// # Examples
///
/// ```no_run
/// # fn example(client: reqwest_resilient::blocking::ResilientClient) -> Result<(), Box<dyn std::error::Error>> {
/// let mut download = client.get("https://example.com/a.txt").download().send()?;
/// let text = std::io::read_to_string(&mut download)?;
/// # Ok(()) }
/// ```
pub struct Download {
    /// `None` after the runtime was shut down under it.
    inner: Option<download::Download>,
    driver: Driver,
    head: HeadOf,
    length: Option<u64>,
    unread: Bytes,
}

opaque!(Download { inner });

headed!(Download);

impl Download {
    /// Returns the number of bytes in all, if it is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the counts so far, as of the last read; zeros after the runtime was shut down.
    pub fn summary(&self) -> Downloaded {
        self.inner.as_ref().map(|it| it.summary().clone()).unwrap_or_default()
    }

    /// Waits for the next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Download::chunk`], or the call cannot be made here.
    pub fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        if self.unread.has_remaining() {
            return Ok(Some(std::mem::take(&mut self.unread)));
        }
        self.driver.check().map_err(undriven)?;
        let Some(mut inner) = self.inner.take() else {
            return Err(undriven(DriveError::RuntimeStopped));
        };
        let read = self.driver.run(async move {
            let chunk = inner.chunk().await;
            (inner, chunk)
        });
        let (inner, chunk) = read.map_err(undriven)?;
        self.inner = Some(inner);
        chunk
    }

    /// Writes all bytes to `writer`, and flushes it.
    ///
    /// # Errors
    ///
    /// Those of [`chunk`](Self::chunk), or the writer failed.
    pub fn copy_to(
        &mut self,
        writer: &mut (impl Write + ?Sized),
    ) -> Result<Downloaded, DownloadError> {
        while let Some(chunk) = self.chunk()? {
            writer.write_all(&chunk).map_err(|it| self.write_failed(it))?;
        }
        writer.flush().map_err(|it| self.write_failed(it))?;
        Ok(self.summary())
    }

    fn write_failed(&self, error: io::Error) -> DownloadError {
        match &self.inner {
            Some(inner) => inner.write_failed(error),
            None => undriven(DriveError::RuntimeStopped),
        }
    }
}

impl Read for Download {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            self.unread = self.chunk().map_err(io::Error::other)?.unwrap_or_default();
        }
        let read = target.len().min(self.unread.len());
        self.unread.copy_to_slice(&mut target[..read]);
        Ok(read)
    }
}

fn undriven(error: DriveError) -> DownloadError {
    DownloadError::undriven(error.into())
}
