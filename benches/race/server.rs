//! Hosts on loopback, HTTP/1.1.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, sleep_until, timeout_at},
};

use crate::{
    figures::Ledger,
    host::{HostState, QuotaLeft, Reply},
    scenario::{Ask, Hint, Host, Route},
};

/// A host of its own address, so that no client's outgoing connection takes its port while it is
/// down. Stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(number: usize, host: &Host, seed: u64, ledger: &Arc<Ledger>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0x7F01_0001);
        let own = Ipv4Addr::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let listener = match TcpListener::bind((own, 0)).await {
            Ok(listener) => listener,
            // Only Linux takes all of 127.0.0.0/8 for loopback.
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port"),
        };
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            number,
            host: host.clone(),
            state: Mutex::new(HostState::new(host.rule, seed)),
            ledger: Arc::clone(ledger),
        });
        Self { address, task: tokio::spawn(run(address, listener, shared)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    number: usize,
    host: Host,
    state: Mutex<HostState>,
    ledger: Arc<Ledger>,
}

async fn run(address: SocketAddr, listener: TcpListener, shared: Arc<Shared>) {
    let start = shared.ledger.start();
    let Some(down) = shared.host.down.clone() else { return accept(listener, shared).await };
    // Ends with all connections.
    let _ = timeout_at(start + down.start, accept(listener, Arc::clone(&shared))).await;
    let Some(until) = start.checked_add(down.end) else { return };
    sleep_until(until).await;
    accept(TcpListener::bind(address).await.expect("the same port"), shared).await;
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(serve(socket, Arc::clone(&shared)))),
                // Out of file descriptors.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Responds to one request after the other.
async fn serve(mut socket: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    let mut responses = 0;
    while let Some((method, ask)) = read(&mut socket, &mut buffer, shared.number).await? {
        shared.ledger.record_send();
        let now = shared.ledger.start().elapsed();
        let reply = shared.state.lock().expect("a host").reply(ask, now);
        let processed = match reply {
            Reply::Respond { status, .. } => status < 400,
            Reply::Cut { processed } => processed,
            Reply::Hang => false,
        };
        if processed && method == Method::POST {
            shared.ledger.record_processed(ask);
        }
        match reply {
            Reply::Respond { status, hint, quota, after } => {
                sleep(after).await;
                shared.state.lock().expect("a host").responded(status);
                shared.ledger.record_status(status);
                let hint = header(hint) + &quota_lines(quota);
                let head = format!("HTTP/1.1 {status} -\r\ncontent-length: 2\r\n{hint}\r\nok");
                socket.write_all(head.as_bytes()).await?;
            }
            // Dropped, the connection ends by FIN; without lingering by RST.
            Reply::Cut { processed: true } => return Ok(()),
            Reply::Cut { processed: false } => return socket.set_zero_linger(),
            Reply::Hang => return socket.read(&mut [0]).await.map(drop),
        }
        responses += 1;
        if shared.host.closes_after.is_some_and(|it| responses >= it) {
            return Ok(());
        }
    }
    Ok(())
}

fn header(hint: Hint) -> String {
    match hint {
        Hint::None => String::new(),
        Hint::Seconds => "retry-after: 1\r\n".to_owned(),
        // The next full second: a token is there by then.
        Hint::Date => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1));
            format!("retry-after: {date}\r\n")
        }
    }
}

fn quota_lines(quota: Option<QuotaLeft>) -> String {
    let Some(QuotaLeft { limit, remaining, reset }) = quota else { return String::new() };
    format!(
        "ratelimit-limit: {limit}\r\nratelimit-remaining: {remaining}\r\nratelimit-reset: {reset}\r\n"
    )
}

/// Reads one request, head and body; `None` if the connection ends instead.
async fn read(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    host: usize,
) -> io::Result<Option<(Method, Ask)>> {
    buffer.clear();
    loop {
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(['/', ' ']);
        let length = lines.filter_map(|it| it.strip_prefix("content-length: ")).next();
        if body.len() < length.map_or(0, |it| it.parse().expect("a length")) {
            continue;
        }
        // `GET /a/17 HTTP/1.1`
        let method = if words.next() == Some("POST") { Method::POST } else { Method::GET };
        let route = if words.nth(1) == Some("b") { Route::B } else { Route::A };
        let id = words.next().and_then(|it| it.parse().ok()).expect("a number");
        return Ok(Some((method, Ask { id, host, route })));
    }
}

/// Returns the path of a request.
pub(crate) fn path(ask: Ask) -> String {
    format!("/{}/{}", if ask.route == Route::B { 'b' } else { 'a' }, ask.id)
}
