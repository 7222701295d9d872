//! The part file of a download: written beside its place, and renamed when it is whole.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf, is_separator};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::client::download::representation::Representation;
use crate::client::download::sidecar;
use crate::common::clock::Instant;
use crate::common::lock::lock;

/// Bytes are written in pieces of this size, or once a second.
const PIECE: usize = 256 * 1024;
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A part file that is open for writing.
pub(crate) struct PartFile {
    /// `None` while a piece is being written.
    open: Option<Box<Open>>,
    writing: Option<JoinHandle<io::Result<Box<Open>>>>,
    buffer: Vec<u8>,
    flushed: Instant,
    /// Ends with the download, though a piece may still be being written.
    _download: Arc<()>,
}

/// The file and its lock. Both move into the task that writes, so that no other download of this
/// process opens a file that is still written.
struct Open {
    file: File,
    key: u64,
    paths: Paths,
    _lock: PathLock,
}

/// The paths of a download: `file`, `file.part` and `file.part.resume`.
#[derive(Clone)]
struct Paths {
    target: PathBuf,
    part: PathBuf,
    sidecar: PathBuf,
}

/// The part of an earlier process.
pub(crate) struct Existing {
    pub(crate) representation: Representation,
    pub(crate) length: u64,
}

impl PartFile {
    /// Opens the part file for `target`. Returns what an earlier process left of the resource with
    /// this key.
    pub(crate) async fn open(target: &Path, key: u64) -> io::Result<(Self, Option<Existing>)> {
        let (paths, download) = (Paths::of(target)?, Arc::new(()));
        let of = Arc::downgrade(&download);
        let (open, existing) = blocking(move || Open::new(paths, key, of)).await?;
        let (open, writing, buffer) = (Some(open), None, Vec::new());
        let flushed = Instant::now();
        Ok((Self { open, writing, buffer, flushed, _download: download }, existing))
    }

    /// Empties the file, and notes what it is to become.
    pub(crate) async fn restart(&mut self, representation: &Representation) -> io::Result<()> {
        self.buffer.clear();
        let representation = representation.clone();
        self.with(move |open| open.restart(&representation)).await
    }

    /// Reads the next bytes of the file, from `offset` on; at most 256 KiB, none at the end.
    pub(crate) async fn read(&mut self, offset: u64) -> io::Result<Vec<u8>> {
        self.with(move |open| {
            let mut piece = Vec::new();
            open.file.seek(SeekFrom::Start(offset))?;
            (&open.file).take(PIECE as u64).read_to_end(&mut piece)?;
            open.file.seek(SeekFrom::End(0))?;
            Ok(piece)
        })
        .await
    }

    /// Appends bytes. A piece is written while the next one comes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE || self.flushed.elapsed() >= LONGEST_DELAY {
            self.flush().await?;
        }
        Ok(())
    }

    /// Begins to write what is buffered.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let mut open = self.ready().await?;
        let buffer = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.flushed = Instant::now();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            open.file.write_all(&buffer)?;
            Ok(open)
        }));
        Ok(())
    }

    /// Writes the rest, and renames the file, which must have `length` bytes.
    pub(crate) async fn finish(mut self, length: u64) -> io::Result<()> {
        self.flush().await?;
        self.with(move |open| open.finish(length)).await
    }

    /// Writes the rest, and keeps the file for another try if it is of use.
    pub(crate) async fn give_up(mut self, keep: bool) {
        if self.flush().await.is_ok() {
            // The error that ended the download matters more than one of this file.
            let _ = self.with(move |open| if keep { Ok(()) } else { open.paths.remove() }).await;
        }
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Open) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut open = self.ready().await?;
        let (open, result) = blocking(move || {
            let result = work(&mut open);
            Ok((open, result))
        })
        .await?;
        self.open = Some(open);
        result
    }

    /// Waits until no piece is being written.
    async fn ready(&mut self) -> io::Result<Box<Open>> {
        if let Some(writing) = self.writing.take() {
            self.open = Some(writing.await.map_err(io::Error::other)??);
        }
        self.open.take().ok_or_else(|| io::Error::other("an earlier write failed"))
    }
}

impl Open {
    fn new(paths: Paths, key: u64, of: Weak<()>) -> io::Result<(Box<Self>, Option<Existing>)> {
        paths.refuse_folder()?;
        let lock = PathLock::take(&paths.part, of)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&paths.part)?;
        let existing = existing(&file, &paths, key)?;
        let length = existing.as_ref().map_or(0, |it| it.length);
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Box::new(Self { file, key, paths, _lock: lock }), existing))
    }

    fn restart(&mut self, representation: &Representation) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        match sidecar::write(self.key, representation) {
            Some(text) => fs::write(&self.paths.sidecar, text),
            None => remove(&self.paths.sidecar),
        }
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        let written = self.file.metadata()?.len();
        if written != length {
            let text = format!("the part file has {written} bytes instead of {length}");
            return Err(io::Error::other(text));
        }
        fs::rename(&self.paths.part, &self.paths.target)?;
        remove(&self.paths.sidecar)
    }
}

/// Returns what an earlier process left, if the sidecar fits it.
fn existing(file: &File, paths: &Paths, key: u64) -> io::Result<Option<Existing>> {
    let mut length = file.metadata()?.len();
    let sidecar = match File::open(&paths.sidecar) {
        Ok(sidecar) => sidecar,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    sidecar.take(sidecar::MOST_BYTES).read_to_end(&mut text)?;
    let Some(representation) = sidecar::read(key, &text) else { return Ok(None) };
    match representation.length {
        Some(whole) if length > whole => return Ok(None),
        // One byte is fetched again: the response proves that the resource is still the same.
        Some(whole) if length == whole => length = length.saturating_sub(1),
        _ => {}
    }
    Ok((length > 0).then_some(Existing { representation, length }))
}

impl Paths {
    fn of(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let with = |suffix: &str| {
            let mut name = OsString::from(name);
            name.push(suffix);
            target.with_file_name(name)
        };
        Ok(Self { target: target.into(), part: with(".part"), sidecar: with(".part.resume") })
    }

    /// Fails where the file that is whole could not get its name.
    fn refuse_folder(&self) -> io::Result<()> {
        let target = &self.target;
        let is_named_so = target.to_string_lossy().ends_with(is_separator);
        match is_named_so || target.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        }
    }

    fn remove(&self) -> io::Result<()> {
        remove(&self.part)?;
        remove(&self.sidecar)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A part file that this process writes: at most one download has it.
struct PathLock(PathBuf);

/// The files and their downloads; as many as there are downloads to files.
static LOCKED: Mutex<Option<HashMap<PathBuf, Weak<()>>>> = Mutex::new(None);

/// Notified when a file is free.
static FREED: Condvar = Condvar::new();

impl PathLock {
    /// Locks a file for a download. That of a download which was dropped is waited for: its last piece is
    /// being written.
    fn take(path: &Path, download: Weak<()>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut locked = lock(&LOCKED);
        while let Some(other) = locked.get_or_insert_default().get(&path) {
            if other.strong_count() > 0 {
                let text = "another download of this process writes the same file";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            locked = FREED.wait(locked).unwrap_or_else(PoisonError::into_inner);
        }
        locked.get_or_insert_default().insert(path.clone(), download);
        Ok(Self(path))
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        lock(&LOCKED).as_mut().map(|it| it.remove(&self.0));
        FREED.notify_all();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_dropped_download_is_waited_for() {
        let path = std::env::temp_dir().join(format!("resilient-lock-{}", std::process::id()));
        let (dropped, next) = (Arc::new(()), Arc::new(()));
        let writing = PathLock::take(&path, Arc::downgrade(&dropped)).unwrap();
        assert!(PathLock::take(&path, Arc::downgrade(&next)).is_err(), "its download goes on");
        drop(dropped);
        let of = Arc::downgrade(&next);
        let waits = std::thread::spawn(move || PathLock::take(&path, of).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished(), "its last piece is being written");
        drop(writing);
        assert!(waits.join().unwrap());
    }
}
