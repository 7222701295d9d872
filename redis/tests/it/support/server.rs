//! A redis of the test's own.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use redis::{Client, Cmd, FromRedisValue, cmd};

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

/// Signals a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(done.success(), "kill -{name} {pid}");
}

/// A redis-server on a unix socket, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    arguments: Vec<String>,
    folder: Folder,
}

impl Server {
    /// Starts one without disk and port.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments.
    ///
    /// # Panics
    ///
    /// If there is no redis-server.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        let child = spawn(&folder, &arguments);
        let it = Self { child, arguments, folder };
        it.wait();
        it
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.0.join("socket")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.url()).unwrap()
    }

    /// Asks it without async.
    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    /// Returns how often clients called commands of these names.
    pub(crate) fn calls(&self, names: &[&str]) -> u64 {
        let info: String = self.ask(cmd("INFO").arg("commandstats"));
        let calls = |name: &str| {
            let row = info.split(&format!("cmdstat_{name}:calls=")).nth(1);
            row.and_then(|it| it.split(',').next()).map_or(0, |it| it.parse::<u64>().unwrap())
        };
        names.iter().map(|&it| calls(it)).sum()
    }

    /// Returns how many successes and failures of a host it counted.
    pub(crate) fn counted(&self, host: &str) -> (u32, u32) {
        let slots: Vec<String> = self.ask(cmd("HVALS").arg(format!("{{rr:test:{host}}}:ct")));
        let numbers = slots.iter().map(|it| {
            let parts: Vec<u32> = it.split(':').map(|it| it.parse().unwrap()).collect();
            (parts[1], parts[2])
        });
        numbers.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub(crate) fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    pub(crate) fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty.
    pub(crate) fn restart(&mut self) {
        let _gone = std::fs::remove_file(self.socket());
        self.child = spawn(&self.folder, &self.arguments);
        self.wait();
    }

    fn wait(&self) {
        let client = self.client();
        until("redis-server is up", Duration::from_secs(10), || {
            client.get_connection().is_ok_and(|mut it| cmd("PING").exec(&mut it).is_ok())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn spawn(folder: &Folder, arguments: &[String]) -> Child {
    let log = File::create(folder.0.join("log")).unwrap();
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .arg("--dir")
        .arg(&folder.0)
        .arg("--unixsocket")
        .arg(folder.0.join("socket"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("redis-server, Debian's package of that name, has to be installed")
}
