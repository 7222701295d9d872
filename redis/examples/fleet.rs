//! Eight processes, one redis, one flaky service: who knows what, and when.
//!
//! Starts a redis-server if one is installed, a service, and eight processes of itself. Stops the
//! service, and starts it again; then pauses redis, and stops the service once more. Prints a live
//! table of the nodes, and a line per change.
//!
//! `cargo run -p reqwest-resilient-redis --example fleet`; `-- --check` prints lines only, and fails
//! if a node knew too late, or a request waited for redis.

#[path = "fleet/node.rs"]
mod node;
#[path = "fleet/service.rs"]
mod service;
#[path = "fleet/table.rs"]
mod table;

use std::{
    error::Error,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use service::Service;
use table::Table;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The nodes.
const NODES: usize = 8;

/// All of a fleet know within a report, which is sent every second; here with some slack.
const KNOWN_WITHIN: Duration = Duration::from_millis(1_500);

/// The longest wait for anything here.
const MOST: Duration = Duration::from_secs(20);

/// A redis of our own, on a unix socket, killed at the end.
struct Redis {
    child: Child,
    folder: PathBuf,
}

impl Redis {
    fn start() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("fleet-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(folder.join("socket"))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("needs redis-server ({error}): apt-get install redis-server, or valkey by that name")
            })?;
        let it = Self { child, folder };
        for _ in 0..200 {
            if redis::Client::open(it.url())?.get_connection().is_ok() {
                return Ok(it);
            }
            sleep(Duration::from_millis(25));
        }
        Err("redis-server does not start".into())
    }

    fn url(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    fn signal(&self, name: &str) -> Result<()> {
        Command::new("kill").args([name, &self.child.id().to_string()]).status()?;
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--node", redis, url] => node::run(redis, url),
        ["--check"] => run(true),
        [] => run(false),
        _ => Err("usage: fleet [--check]".into()),
    }
}

fn run(check: bool) -> Result<()> {
    let redis = Redis::start()?;
    let service = Service::start()?;
    let mut table = Table::start(NODES, &redis.url(), &service.url(), check)?;

    table.say("all is well");
    table.show(Duration::from_secs(3))?;

    table.say("the service is down");
    let down = Instant::now();
    service.set_up(false);
    let (first, last) = table.wait(down, "open", MOST)?;
    table.print();
    let spread = last - first;
    table
        .say(&format!("the first one knew after {:?}, all {NODES} {spread:?} later", first - down));
    if spread > KNOWN_WITHIN {
        return Err(format!("the last node knew {spread:?} after the first").into());
    }

    table.say("the service is back");
    let back = Instant::now();
    service.set_up(true);
    let (_, last) = table.wait(back, "closed", MOST)?;
    table.print();
    table.say(&format!("all {NODES} send again, {:?} after it was back", last - back));

    table.say("redis is paused");
    let paused = Instant::now();
    let before = table.failures();
    redis.signal("-STOP")?;
    let (_, last) = table.wait(paused, "unknown", MOST)?;
    table.print();
    table.say(&format!("after {:?}, each node decides alone", last - paused));
    let failed = table.failures() - before;
    table.say(&format!("{failed} requests failed for it"));
    if failed > 0 {
        return Err("requests noticed that redis was paused".into());
    }

    table.say("redis goes on");
    let resumed = Instant::now();
    redis.signal("-CONT")?;
    let (_, last) = table.wait(resumed, "closed", MOST)?;
    table.say(&format!("all {NODES} are a fleet again, after {:?}", last - resumed));
    table.draw()
}
