//! Files of nginx behind a proxy that cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reqwest_resilient::{DownloadExt, Downloaded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::download::origin::{bytes, client, config};
use crate::real::server::nginx_in;
use crate::support::folder::Folder;
use crate::support::program::free_address;

/// A proxy that cuts each connection after 1 to 8 MB, and counts the bytes.
async fn cutting_proxy(target: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, passed) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&passed);
    tokio::spawn(async move {
        let mut dice = 0x2545_f491_4f6c_dd1d_u64;
        while let Ok((near, _)) = listener.accept().await {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let most = 1_000_000 + dice % 7_000_000;
            tokio::spawn(pass(near, target, most, Arc::clone(&count)));
        }
    });
    (address, passed)
}

async fn pass(near: TcpStream, target: SocketAddr, mut most: u64, count: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
    let mut buffer = vec![0; 64 * 1024];
    while most > 0 {
        let room = buffer.len().min(most as usize);
        let Ok(read) = far_read.read(&mut buffer[..room]).await else { break };
        if read == 0 || near_write.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        count.fetch_add(read as u64, Relaxed);
        most -= read as u64;
    }
    up.abort();
}

/// Downloads a file of nginx. Returns what became of it, and the bytes on the wire.
async fn fetched(settings: &str, body: &[u8]) -> Option<(Downloaded, u64)> {
    let (folder, address) = (Folder::new(), free_address());
    std::fs::create_dir(folder.file("www")).unwrap();
    std::fs::write(folder.file("www/big"), body).unwrap();
    let root = folder.0.display();
    let part = format!("server {{ listen {address}; root {root}/www; {settings} }}");
    let server = nginx_in(folder, address, &part)?;
    let (proxy, passed) = cutting_proxy(address).await;
    let request = client(false, config()).get(format!("http://{proxy}/big"));
    let path = server.folder().file("fetched");
    let request = request.header("x-request-id", "download");
    let downloaded = request.download().to_file(&path).await.unwrap();
    assert!(std::fs::read(path).unwrap() == body, "a mixture");
    assert_eq!((downloaded.restarts(), downloaded.repeated()), (0, 0));
    let (log, passed) = (server.log(), passed.load(Relaxed));
    println!(
        "real nginx download: {} requests, {} resumes, {passed} bytes on the wire",
        log.len(),
        downloaded.resumes()
    );
    assert_eq!(log.iter().filter(|it| it.status == 206).count() as u32, downloaded.resumes());
    Some((downloaded, passed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_through_a_cutting_proxy() {
    let body = bytes(11, 100_000_000);
    let Some((downloaded, passed)) = fetched("", &body).await else { return };
    assert!(downloaded.resumes() >= 12, "{}", downloaded.resumes());
    assert!(passed as f64 <= body.len() as f64 * 1.01, "{passed} bytes on the wire");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_compresses_is_asked_not_to() {
    // Compressed it would have a weak validator, and ranges of other bytes.
    let gzip = "gzip on; gzip_types *; gzip_min_length 1;";
    let body = b"as compressible as a log, ".repeat(800_000);
    let Some((downloaded, _)) = fetched(gzip, &body).await else { return };
    assert!(downloaded.resumes() >= 2, "{}", downloaded.resumes());
}
