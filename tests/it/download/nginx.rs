//! A real nginx behind a proxy that cuts connections.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use reqwest_resilient::DownloadExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::origin::{Folder, bytes, client, config};

const LENGTH: usize = 100_000_000;

/// An nginx for the files of a folder.
struct Nginx(Child);

impl Nginx {
    fn start(folder: &Folder, port: u16) -> Option<Self> {
        let root = folder.0.display();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;\n\
             fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             server {{ listen 127.0.0.1:{port}; root {root}/www; }} }}\n"
        );
        std::fs::create_dir_all(folder.file("www")).unwrap();
        std::fs::write(folder.file("nginx.conf"), configuration).unwrap();
        let found = Command::new("nginx").arg("-v").output().is_ok();
        found.then(|| {
            // A worker of root's nginx is another user, who may not enter temporary folders.
            let mut command = Command::new("nginx");
            command.args(["-c", &format!("{root}/nginx.conf"), "-e", &format!("{root}/error.log")]);
            command.args(["-g", "user root;"]);
            Self(command.spawn().unwrap())
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its worker along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A proxy that cuts each connection after 1 to 8 MB, and counts the bytes.
async fn cutting_proxy(target: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_of_nginx_through_a_cutting_proxy() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(_nginx) = Nginx::start(&folder, port) else {
        println!("not run: nginx is not installed");
        return;
    };
    let body = bytes(11, LENGTH);
    std::fs::write(folder.file("www/big.bin"), &body).unwrap();
    let target: SocketAddr = ([127, 0, 0, 1], port).into();
    for _ in 0..500 {
        if TcpStream::connect(target).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (proxy, passed) = cutting_proxy(target).await;
    let url = format!("http://{proxy}/big.bin");
    let download = client(false, config()).get(url).download();
    let downloaded = download.to_file(folder.file("big.bin")).await.unwrap();
    assert!(std::fs::read(folder.file("big.bin")).unwrap() == body, "a mixture");
    assert!(downloaded.resumes() >= 12, "{}", downloaded.resumes());
    assert_eq!((downloaded.restarts(), downloaded.repeated()), (0, 0));
    let passed = passed.load(Relaxed);
    println!("{} resumes, {passed} bytes on the wire", downloaded.resumes());
    assert!(passed as f64 <= LENGTH as f64 * 1.01, "{passed} bytes on the wire");
}
