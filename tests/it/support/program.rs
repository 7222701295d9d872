//! Programs that others wrote: tests find them, start them and end them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdout, Command};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, iter};

/// The longest wait for a program to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(5);

/// Returns the place of a program. If it is missing, the test has to say so and end: `.ci/run`
/// installs all of them, so that where `CI` is set a missing one fails the test.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let found = look_for(name);
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "{name} is not installed; .ci/run does that");
        println!("not run: {name} is not installed");
    }
    found
}

fn look_for(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian's servers are where only root's shell looks.
    let folders = env::split_paths(&path).chain(iter::once("/usr/sbin".into()));
    folders.map(|it| it.join(name)).find(|it| it.is_file())
}

/// Returns an address on which nothing listens, with a port that no outgoing connection gets.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = process::id() as usize * 61;
    loop {
        let port = 16_000 + (first + NEXT.fetch_add(1, Relaxed)) % 16_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port as u16)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// A program under way. It ends when dropped, and when the thread of the test ends, even killed.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts `path` with what `prepare` adds to the command.
    pub(crate) fn start(path: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = match look_for("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        prepare(&mut command);
        Self { child: command.spawn().unwrap() }
    }

    /// Returns its output, once, if that was piped.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Waits until connections to `address` are accepted.
    ///
    /// # Panics
    ///
    /// If the program has ended.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) {
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the program has ended: {ended:?}");
            assert!(begin.elapsed() < PATIENCE, "nothing listens on {address}");
            sleep(MOMENT);
        }
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Ends the program and its own children, and waits for that.
    pub(crate) fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            sleep(MOMENT);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}
