//! Downloads of 1 GB over the loopback device, beside the plain loop over reqwest's `chunk`; and of
//! 100 MB from a server that cuts, beside object_store and curl: `cargo bench --bench download`.
//!
//! `core ms` is what a download takes of the client's thread; the server has a thread of its own.

#[path = "support/mod.rs"]
mod support;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use std::{fs, thread};

use futures_util::StreamExt;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStoreExt};
use reqwest_resilient::{Constant, ResilientClient, ResilientConfig};
use support::{bar, median};

const GIGABYTE: u64 = 1_000_000_000;
const MANY: u64 = 100_000_000;
const PAIRS: usize = 5;

/// A server of zeros. It cuts each connection after 1 to 8 MB if `cuts`.
struct Server {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn start(length: u64, cuts: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        thread::spawn(move || {
            let mut dice = 0x2545_f491_4f6c_dd1d_u64;
            for stream in listener.incoming().flatten() {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let most = if cuts { 1_000_000 + dice % 7_000_000 } else { u64::MAX };
                let count = Arc::clone(&count);
                thread::spawn(move || serve(stream, length, most, &count));
            }
        });
        Self { address, sent }
    }

    fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }
}

fn serve(mut stream: TcpStream, length: u64, most: u64, sent: &AtomicU64) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let zeros = vec![0; 256 * 1024];
    loop {
        let mut first = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                let from = range.split('-').next().unwrap_or_default();
                first = from.parse().unwrap_or_default();
            }
        }
        let rest = length - first;
        let mut head = match first {
            0 => "HTTP/1.1 200 OK\r\n".to_owned(),
            _ => format!(
                "HTTP/1.1 206 Part\r\ncontent-range: bytes {first}-{}/{length}\r\n",
                length - 1
            ),
        };
        head.push_str(&format!("etag: \"zeros\"\r\ncontent-length: {rest}\r\n\r\n"));
        stream.write_all(head.as_bytes())?;
        let mut left = rest.min(most);
        while left > 0 {
            let piece = left.min(zeros.len() as u64) as usize;
            stream.write_all(&zeros[..piece])?;
            sent.fetch_add(piece as u64, Relaxed);
            left -= piece as u64;
        }
        if rest > most {
            return Ok(());
        }
    }
}

/// Milliseconds that this thread has had a core.
fn worked() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|it| it.parse::<f64>().ok()).expect("a number") / 1e6
}

async fn plain(client: &reqwest::Client, url: &str) -> u64 {
    let mut response = client.get(url).send().await.expect("a response");
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        bytes += chunk.len() as u64;
    }
    bytes
}

async fn ours(client: &ResilientClient, url: &str) -> u64 {
    let mut download = client.get(url).download().send().await.expect("a response");
    let mut bytes = 0;
    while let Some(chunk) = download.chunk().await.expect("a chunk") {
        bytes += chunk.len() as u64;
    }
    bytes
}

/// Downloads by the HTTP store of object_store, as it is by default. Returns the bytes received, and
/// the error that ended it.
async fn object_store(server: &Server) -> (u64, Option<object_store::Error>) {
    let options = ClientOptions::new().with_allow_http(true);
    let url = format!("http://{}/", server.address);
    let store = HttpBuilder::new().with_url(url).with_client_options(options).build();
    let store = store.expect("a store");
    let mut body = match store.get(&"file".into()).await {
        Ok(response) => response.into_stream(),
        Err(error) => return (0, Some(error)),
    };
    let mut received = 0;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => received += chunk.len() as u64,
            Err(error) => return (received, Some(error)),
        }
    }
    (received, None)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let builder = ResilientClient::builder().with_reqwest(|it| it.no_proxy());
    let config =
        ResilientConfig::builder().backoff(Constant::new(std::time::Duration::from_millis(1)));
    let client = builder.config(config.build().expect("settings")).build().expect("a client");
    let reqwest = reqwest::Client::builder().no_proxy().build().expect("a client");

    let server = Server::start(GIGABYTE, false);
    let url = server.url();
    let measure = |which: bool| {
        let (before, start) = (worked(), Instant::now());
        let bytes = runtime.block_on(async {
            if which { ours(&client, &url).await } else { plain(&reqwest, &url).await }
        });
        assert_eq!(bytes, GIGABYTE);
        (worked() - before, start.elapsed().as_secs_f64())
    };
    let (_, _) = (measure(false), measure(true));
    let (mut mine_all, mut its_all) = (vec![], vec![]);
    for pair in 0..PAIRS {
        let first = pair % 2 == 0;
        let (one, other) = (measure(first), measure(!first));
        let (mine, its) = if first { (one, other) } else { (other, one) };
        println!(
            "1 GB: download {:.0} core ms in {:.2} s, chunk {:.0} core ms in {:.2} s",
            mine.0, mine.1, its.0, its.1
        );
        mine_all.push(mine.0);
        its_all.push(its.0);
    }
    bar("core ms of a download, beside reqwest's chunk", median(mine_all), median(its_all), 1.05);

    let folder = std::env::temp_dir();
    let path = folder.join(format!("download-bench-{}", std::process::id()));
    let server = Server::start(MANY, true);
    let start = Instant::now();
    let result = runtime.block_on(client.get(server.url()).download().to_file(&path));
    let result = result.expect("it finishes");
    println!(
        "100 MB, cut each 1 to 8 MB: {} bytes sent, {} resumes, {:.2} s",
        server.sent.load(Relaxed),
        result.resumes(),
        start.elapsed().as_secs_f64()
    );
    let sent = server.sent.load(Relaxed) as f64;
    let _ = fs::remove_file(&path);

    let cut = Server::start(MANY, true);
    let start = Instant::now();
    let (bytes, error) = runtime.block_on(object_store(&cut));
    println!(
        "object_store: {} bytes sent, {bytes} received, {}, {:.2} s",
        cut.sent.load(Relaxed),
        error.map_or_else(|| "complete".to_owned(), |it| it.to_string()),
        start.elapsed().as_secs_f64()
    );

    let cut = Server::start(MANY, true);
    let start = Instant::now();
    let curl = Command::new("curl")
        .args([
            "-s",
            "-S",
            "-C",
            "-",
            "--retry",
            "50",
            "--retry-all-errors",
            "--retry-delay",
            "1",
            "-o",
        ])
        .arg(&path)
        .arg(cut.url())
        .output();
    match curl {
        Ok(output) => {
            let length = fs::metadata(&path).map_or(0, |it| it.len());
            println!(
                "curl -C - --retry 50: {} bytes sent, {length} bytes in the file, success {}, {:.2} s",
                cut.sent.load(Relaxed),
                output.status.success(),
                start.elapsed().as_secs_f64()
            );
        }
        Err(_) => println!("curl: not installed"),
    }
    let _ = fs::remove_file(&path);
    bar("bytes on the wire, of 100 MB under cuts", sent, MANY as f64, 1.01);
}
