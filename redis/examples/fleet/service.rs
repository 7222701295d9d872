//! A service that is up or down.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use crate::Result;

pub(crate) struct Service {
    address: SocketAddr,
    is_up: Arc<AtomicBool>,
}

impl Service {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let is_up = Arc::new(AtomicBool::new(true));
        let shared = Arc::clone(&is_up);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let is_up = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &is_up));
            }
        });
        Ok(Self { address, is_up })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Relaxed);
    }
}

fn serve(mut stream: TcpStream, is_up: &AtomicBool) {
    let mut request = vec![0; 8 * 1024];
    while stream.read(&mut request).is_ok_and(|it| it > 0) {
        let status = if is_up.load(Relaxed) { "200 OK" } else { "503 Service Unavailable" };
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}
