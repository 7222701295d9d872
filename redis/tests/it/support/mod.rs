//! What the tests run: redis, and what stands between it and its nodes.

pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod upstream;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A folder of its own, removed at the end.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: the path of a unix socket has 108 bytes at most.
        let path = std::env::temp_dir().join(format!("rr-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_if_busy = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `done`, and returns how long it took.
///
/// # Panics
///
/// If that takes longer than `most`.
#[track_caller]
pub(crate) fn until(what: &str, most: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < most, "not within {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}
