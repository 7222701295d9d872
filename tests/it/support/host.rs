//! A listener on a thread of its own, and the script its connections share.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

const MAX_CONNECTIONS: usize = 1_000;

/// Accepts connections on 127.0.0.1 until dropped; the drop fails the test if a handler panicked.
pub(crate) struct Host {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    /// Runs `serve(number, socket)` for every connection, numbered from 1.
    pub(crate) fn run<F, S>(serve: F) -> Self
    where
        F: Fn(usize, TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let test = thread::current().name().unwrap_or("test").to_owned();
        let thread = thread::Builder::new()
            .name(format!("server of {test}"))
            .spawn(move || {
                // A runtime of its own: a test that pauses its clock leaves this one running.
                real_time().block_on(accept(listener, serve, stopped));
            })
            .unwrap();
        Self { addr, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join) {
            if !thread::panicking() {
                resume_unwind(panic);
            }
        }
    }
}

/// A current-thread runtime whose clock runs.
pub(crate) fn real_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn accept<F, S>(listener: std::net::TcpListener, serve: F, mut stopped: oneshot::Receiver<()>)
where
    F: Fn(usize, TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    let mut accepted = 0;
    loop {
        tokio::select! {
            biased;
            Some(ended) = connections.join_next() => pass_on_panic(ended),
            _ = &mut stopped => break,
            socket = listener.accept() => {
                accepted += 1;
                assert!(accepted <= MAX_CONNECTIONS, "too many connections");
                connections.spawn(serve(accepted, socket.unwrap().0));
            }
        }
    }
    while let Some(ended) = connections.try_join_next() {
        pass_on_panic(ended);
    }
}

/// Returns the result of a task, or resumes its panic.
pub(crate) fn pass_on_panic<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The steps still to come; the last one repeats for ever.
pub(crate) struct Script<T>(Mutex<VecDeque<T>>);

impl<T: Clone> Script<T> {
    pub(crate) fn new(steps: impl IntoIterator<Item = T>) -> Self {
        let steps = VecDeque::from_iter(steps);
        assert!(!steps.is_empty(), "a script needs a step");
        Self(Mutex::new(steps))
    }

    pub(crate) fn next(&self) -> T {
        self.next_if(|_| true).unwrap()
    }

    /// Takes the next step if it passes the test.
    pub(crate) fn next_if(&self, passes: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut steps = self.0.lock().unwrap();
        let step = steps.front().filter(|step| passes(step)).cloned();
        if step.is_some() && steps.len() > 1 {
            steps.pop_front();
        }
        step
    }
}
