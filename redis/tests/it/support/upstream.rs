//! The service that nodes ask: good or bad, and different for each of them if need be.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::sleep,
};

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// A response of this status after 2 ms.
    Status(u16),
    /// A 200 after so long.
    Slow(Duration),
    /// A 429 with so many seconds in `retry-after`.
    Limited(u32),
    /// No response.
    Hang,
}

/// A request as the service saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) node: String,
}

#[derive(Debug)]
struct State {
    usual: Behaviour,
    of_node: HashMap<String, Behaviour>,
    arrivals: Vec<Arrival>,
}

/// A service on a port of its own, with a thread of its own.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let usual = Behaviour::Status(200);
        let state =
            Arc::new(Mutex::new(State { usual, of_node: HashMap::new(), arrivals: vec![] }));
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, runtime: Some(runtime) }
    }

    /// The same host for all nodes, whatever address they resolve it to.
    pub(crate) fn url(&self) -> String {
        format!("http://service.test:{}/", self.address.port())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set(&self, usual: Behaviour) {
        self.state().usual = usual;
    }

    pub(crate) fn set_for(&self, node: &str, behaviour: Behaviour) {
        self.state().of_node.insert(node.to_owned(), behaviour);
    }

    pub(crate) fn arrivals_since(&self, since: Instant) -> Vec<Arrival> {
        self.state().arrivals.iter().filter(|it| it.at >= since).cloned().collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(it) = self.runtime.take() {
            it.shutdown_background();
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await.unwrap_or_default() == 0 {
                return;
            }
        }
        let head = String::from_utf8_lossy(&buffer).into_owned();
        buffer.clear();
        let node = head.lines().find_map(|it| it.strip_prefix("x-node: ")).unwrap_or_default();
        let behaviour = {
            let mut state = state.lock().unwrap();
            state.arrivals.push(Arrival { at: Instant::now(), node: node.to_owned() });
            state.of_node.get(node).copied().unwrap_or(state.usual)
        };
        let (status, wait) = match behaviour {
            Behaviour::Status(it) => (it, Duration::from_millis(2)),
            Behaviour::Slow(it) => (200, it),
            Behaviour::Limited(_) => (429, Duration::from_millis(2)),
            Behaviour::Hang => std::future::pending().await,
        };
        sleep(wait).await;
        let hint = match behaviour {
            Behaviour::Limited(seconds) => format!("retry-after: {seconds}\r\n"),
            _ => String::new(),
        };
        let response = format!("HTTP/1.1 {status} Status\r\n{hint}content-length: 0\r\n\r\n");
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}
