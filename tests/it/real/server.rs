//! nginx, haproxy and nghttpx with a folder of their own, and what they log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::folder::Folder;
use crate::support::pem::pem;
use crate::support::program::{Program, find};

/// A line of a server's log: a request that it responded to, or was cut off from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) connection: String,
    /// 0 for none.
    pub(super) status: u16,
    pub(super) method: String,
    pub(super) path: String,
    /// The request's `x-request-id`, the same for all of its attempts.
    pub(super) id: String,
}

impl Entry {
    /// Reads a line; `None` for what the server says besides, and for a line that is half written.
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split('|').collect();
        let [connection, status, method, path, id, "end"] = fields[..] else { return None };
        let [connection, method, path, id] = [connection, method, path, id].map(str::to_owned);
        Some(Self { connection, status: status.parse().unwrap_or(0), method, path, id })
    }
}

/// Which of the servers.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nginx,
    Haproxy,
    Nghttpx,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Nghttpx => "nghttpx",
        }
    }

    /// The signal after which new connections meet a new process and old ones end gracefully.
    fn reload(self) -> &'static str {
        match self {
            Self::Nginx | Self::Nghttpx => "HUP",
            Self::Haproxy => "USR2",
        }
    }

    /// Returns the whole configuration around the part of a test.
    fn configuration(self, root: &str, part: &str) -> String {
        match self {
            // A worker of root's nginx would be another user, who may not enter temporary folders.
            Self::Nginx => format!(
                "daemon off; user root; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{}}\n\
                 http {{\n\
                 client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;\n\
                 fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
                 log_format fields '$connection|$status|$request_method|$request_uri|$http_x_request_id|end';\n\
                 access_log {root}/access.log fields;\n\
                 {part}\n}}\n"
            ),
            Self::Haproxy => format!(
                "global\n log stdout format raw daemon\n nbthread 1\n tune.bufsize 65536\n\
                 \x20stats socket {root}/socket level admin expose-fd listeners\n\
                 defaults\n mode http\n log global\n retries 0\n timeout connect 1s\n\
                 \x20timeout client 10s\n timeout server 10s\n\
                 \x20log-format \"%ci:%cp|%ST|%HM|%HP|%[capture.req.hdr(0)]|end\"\n\
                 {part}\n"
            ),
            Self::Nghttpx => format!(
                "accesslog-file={root}/access.log\nerrorlog-file={root}/error.log\n\
                 accesslog-format=$remote_addr:$remote_port|$status|$method|$path|$http_x_request_id|end\n\
                 workers=1\nno-ocsp=yes\n{part}\n"
            ),
        }
    }
}

/// A real server under way.
pub(super) struct Real {
    kind: Kind,
    program: Program,
    folder: Folder,
    place: PathBuf,
    address: SocketAddr,
}

/// Starts nginx with this part of `http { … }`, or says that the test does not run.
pub(super) fn nginx(address: SocketAddr, part: &str) -> Option<Real> {
    Real::start(Kind::Nginx, address, Folder::new(), part)
}

/// The same in a folder with files.
pub(super) fn nginx_in(folder: Folder, address: SocketAddr, part: &str) -> Option<Real> {
    Real::start(Kind::Nginx, address, folder, part)
}

/// Starts haproxy with these sections.
pub(super) fn haproxy(address: SocketAddr, part: &str) -> Option<Real> {
    Real::start(Kind::Haproxy, address, Folder::new(), part)
}

/// The same in a folder with files.
pub(super) fn haproxy_in(folder: Folder, address: SocketAddr, part: &str) -> Option<Real> {
    Real::start(Kind::Haproxy, address, folder, part)
}

/// Starts nghttpx with these lines.
pub(super) fn nghttpx(address: SocketAddr, part: &str) -> Option<Real> {
    Real::start(Kind::Nghttpx, address, Folder::new(), part)
}

/// Returns the beginning of a frontend of haproxy, which logs identities.
pub(super) fn frontend(name: &str, address: SocketAddr, bind: &str) -> String {
    format!(
        "frontend {name}\n bind {address} {bind}\n declare capture request len 64\n\
         \x20http-request capture req.hdr(x-request-id) id 0\n"
    )
}

impl Real {
    fn start(kind: Kind, address: SocketAddr, folder: Folder, part: &str) -> Option<Self> {
        let place = find(kind.name())?;
        let root = folder.0.display().to_string();
        fs::write(folder.file("conf"), kind.configuration(&root, part)).unwrap();
        let program = run(kind, &place, &folder);
        let mut real = Self { kind, program, folder, place, address };
        real.program.wait_for(address);
        Some(real)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn https(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Has the server read its configuration again: new connections meet a new process, old ones
    /// are ended gracefully.
    pub(super) fn reload(&self) {
        self.program.signal(self.kind.reload());
    }

    /// Ends the server at once and starts it again.
    pub(super) fn restart(&mut self) {
        self.program.end();
        self.program = run(self.kind, &self.place, &self.folder);
        self.program.wait_for(self.address);
    }

    /// Returns what the server has logged of requests with an identity, once it logs no more.
    pub(super) fn log(&self) -> Vec<Entry> {
        let read = || {
            let logs = self.folder.names().into_iter().filter(|it| it.starts_with("access"));
            logs.map(|it| fs::read_to_string(self.folder.file(&it)).unwrap()).collect::<String>()
        };
        let begin = Instant::now();
        let mut text = read();
        loop {
            sleep(Duration::from_millis(100));
            let later = read();
            if later == text || begin.elapsed() > Duration::from_secs(2) {
                let entries = later.lines().filter_map(Entry::read);
                return entries.filter(|it| !["", "-"].contains(&it.id.as_str())).collect();
            }
            text = later;
        }
    }
}

fn run(kind: Kind, place: &Path, folder: &Folder) -> Program {
    let conf = folder.file("conf");
    let append = |name| File::options().create(true).append(true).open(folder.file(name)).unwrap();
    // A file for each start: haproxy does not append to its output.
    let log = format!("access{}.log", folder.names().len());
    Program::start(place, |command| {
        match kind {
            Kind::Nginx => command.arg("-c").arg(conf).arg("-e").arg(folder.file("error.log")),
            Kind::Haproxy => command.arg("-W").arg("-f").arg(conf).stdout(append(&log)),
            Kind::Nghttpx => command.arg(format!("--conf={}", conf.display())),
        };
        if kind != Kind::Haproxy {
            command.stdout(append("out"));
        }
        command.stderr(append("err"));
    })
}

/// Writes a certificate for 127.0.0.1 and its key into a folder: as `certificate.pem` and `key.pem`,
/// and both as `both.pem`. Returns the certificate for clients.
pub(super) fn certify(folder: &Folder) -> reqwest::Certificate {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = pem("CERTIFICATE", made.cert.der());
    let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
    fs::write(folder.file("both.pem"), format!("{certificate}{key}")).unwrap();
    fs::write(folder.file("certificate.pem"), certificate).unwrap();
    fs::write(folder.file("key.pem"), key).unwrap();
    reqwest::Certificate::from_der(made.cert.der()).unwrap()
}

/// Returns how many of these identities were there before.
pub(super) fn twice(ids: impl IntoIterator<Item = String>) -> usize {
    let mut known = HashSet::new();
    ids.into_iter().filter(|it| !known.insert(it.clone())).count()
}
