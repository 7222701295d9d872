//! An HTTP/1.1 server on 127.0.0.1 that keeps connections alive and fails by a plan.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::yield_now,
};

/// What it answers.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Every such request gets a 503 with 4 KiB; 0 for none.
    pub(crate) fails: usize,
    /// The body of a 503 is written after its head has gone, as from a server behind a proxy.
    pub(crate) late_body: bool,
}

/// Runs in a thread of its own until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn start(plan: Plan) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let connections = Arc::<AtomicUsize>::default();
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, plan, accepted) => {}
                }
            });
        });
        Self { address, connections, _stop: stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, plan: Plan, connections: Arc<AtomicUsize>) {
    let requests = Arc::<AtomicUsize>::default();
    while let Ok((socket, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(socket, plan, Arc::clone(&requests)));
    }
}

/// Answers requests without bodies, one after the other.
async fn serve(mut socket: TcpStream, plan: Plan, requests: Arc<AtomicUsize>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let good = format!("HTTP/1.1 200 OK\r\ncontent-length: 256\r\n\r\n{:256}", "");
    let bad =
        format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4096\r\n\r\n{:4096}", "");
    let (head, body) = bad.split_at(bad.len() - 4096);
    let mut read = Vec::with_capacity(1024);
    while socket.read_buf(&mut read).await? > 0 {
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        read.clear();
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        if plan.fails == 0 || number % plan.fails != 0 {
            socket.write_all(good.as_bytes()).await?;
        } else if plan.late_body {
            socket.write_all(head.as_bytes()).await?;
            yield_now().await;
            socket.write_all(body.as_bytes()).await?;
        } else {
            socket.write_all(bad.as_bytes()).await?;
        }
    }
    Ok(())
}
