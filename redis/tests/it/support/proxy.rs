//! What stands between redis and some of its nodes: a network that is slow, or gives up.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::support::Folder;

/// How bytes go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    /// After so long, each way.
    After(Duration),
    /// Not at all; connections stay. Bytes that wait go through once it is over.
    Held,
}

/// A proxy on a unix socket, with a thread of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    folder: Folder,
    passing: watch::Sender<Passing>,
    runtime: Option<Runtime>,
}

impl Proxy {
    pub(crate) fn start(server: PathBuf) -> Self {
        let folder = Folder::new();
        let (passing, watched) = watch::channel(Passing::After(Duration::ZERO));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let socket = socket(&folder.0);
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&server).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_read, far_write, watched.clone()));
                tokio::spawn(pass(far_read, near_write, watched.clone()));
            }
        });
        Self { folder, passing, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", socket(&self.folder.0).display())
    }

    pub(crate) fn set(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(it) = self.runtime.take() {
            it.shutdown_background();
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("proxy")
}

async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut passing: watch::Receiver<Passing>,
) {
    let (sender, mut parts) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer).await {
                Ok(length) if length > 0 => {
                    if sender.send((Instant::now(), buffer[..length].to_vec())).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    });
    while let Some((read, bytes)) = parts.recv().await {
        let Ok(Passing::After(delay)) =
            passing.wait_for(|it| *it != Passing::Held).await.map(|it| *it)
        else {
            return;
        };
        sleep_until(read + delay).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
