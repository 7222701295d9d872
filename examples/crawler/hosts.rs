//! Forty hosts on this machine: good ones, flaky ones, limited ones and dead ones.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Good,
    /// Every fifth response is a 503.
    Flaky,
    /// 40 requests a second; 429 beyond.
    Limited,
    /// Nothing listens.
    Dead,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "",
            Self::Flaky => "flaky",
            Self::Limited => "limited",
            Self::Dead => "dead",
        })
    }
}

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
}

/// Starts all hosts.
pub(crate) async fn start() -> io::Result<Vec<Host>> {
    let mut hosts = vec![];
    for number in 0..40 {
        let kind = match number {
            0..25 => Kind::Good,
            25..31 => Kind::Flaky,
            31..36 => Kind::Limited,
            _ => Kind::Dead,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        hosts.push(Host { address: listener.local_addr()?, kind });
        if kind != Kind::Dead {
            tokio::spawn(accept(listener, kind));
        }
    }
    Ok(hosts)
}

async fn accept(listener: TcpListener, kind: Kind) {
    let requests = Arc::new(Counters { all: AtomicU64::new(0), start: Instant::now() });
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, kind, Arc::clone(&requests)));
    }
}

struct Counters {
    all: AtomicU64,
    start: Instant,
}

impl Counters {
    /// Returns the status of the next response.
    fn status(&self, kind: Kind) -> u16 {
        let number = self.all.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Flaky if number % 5 == 4 => 503,
            Kind::Limited => {
                // A bucket of a second's requests.
                let allowed = 40.0 * (1.0 + self.start.elapsed().as_secs_f64());
                if number as f64 > allowed { 429 } else { 200 }
            }
            _ => 200,
        }
    }
}

async fn serve(mut socket: TcpStream, kind: Kind, requests: Arc<Counters>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer).await? > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = requests.status(kind);
        let page = "x".repeat(2_000);
        let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n", page.len());
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(page.as_bytes()).await?;
    }
    Ok(())
}
