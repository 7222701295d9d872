//! A server on this machine that never sends more than a part of a file at a time.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

const FILES: usize = 5;
/// Each connection is cut after at most this many bytes, and each seventh request fails.
const MOST: usize = 700_000;

/// Starts it; returns the URLs of its files, and their SHA-256.
pub(crate) fn start() -> io::Result<Vec<(String, String)>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let files: Arc<Vec<Vec<u8>>> = Arc::new((0..FILES).map(content).collect());
    let names = (0..FILES).map(|it| {
        let digest = format!("{:x}", Sha256::digest(&files[it]));
        (format!("http://{address}/package-{it}.whl"), digest)
    });
    let names = names.collect();
    let count = Arc::new(AtomicUsize::new(1));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (files, count) = (Arc::clone(&files), Arc::clone(&count));
            thread::spawn(move || serve(stream, &files, count.fetch_add(1, Ordering::Relaxed)));
        }
    });
    Ok(names)
}

fn content(number: usize) -> Vec<u8> {
    let mut state = number as u32 + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(1_500_000 + number * 400_000).collect()
}

fn serve(mut stream: TcpStream, files: &[Vec<u8>], number: usize) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut file, mut first) = (0, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("get /package-") {
            file = rest.split('.').next().and_then(|it| it.parse().ok()).unwrap_or_default();
        }
        if let Some(rest) = line.strip_prefix("range: bytes=") {
            first = rest.trim_end_matches('-').parse().unwrap_or_default();
        }
    }
    if number % 7 == 0 {
        return stream
            .write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let whole = &files[file];
    let (status, rest) = (if first == 0 { "200 OK" } else { "206 Partial" }, &whole[first..]);
    let mut head =
        format!("HTTP/1.1 {status}\r\netag: \"v1\"\r\ncontent-length: {}\r\n", rest.len());
    if first > 0 {
        let (last, total) = (whole.len() - 1, whole.len());
        head.push_str(&format!("content-range: bytes {first}-{last}/{total}\r\n"));
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"connection: close\r\n\r\n")?;
    stream.write_all(&rest[..rest.len().min(MOST - number % 100_000)])
}
