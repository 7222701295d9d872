//! The errors of the reference as reqwest and its neighbours would raise them.

use std::io::{Read as _, Write as _};
use std::{error::Error, fmt, io, net::TcpListener, thread};

use super::schema::Kind;

/// An error with a name, inside whatever a transport wraps around it.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) kind: Kind,
    message: String,
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Scripted {}

/// The error of this name. The permanent ones are reqwest's own, because they are told by type.
pub(crate) async fn raise(kind: Kind, message: &str) -> reqwest_middleware::Error {
    let scripted = Scripted { kind, message: message.to_owned() };
    let by_io = |io| reqwest_middleware::Error::middleware(io::Error::new(io, scripted));
    match kind {
        Kind::ForeignError => {
            let message = message.to_owned();
            reqwest_middleware::Error::middleware(Scripted { kind, message })
        }
        it if it.is_timeout() => by_io(io::ErrorKind::TimedOut),
        Kind::ConnectError | Kind::ProxyError => by_io(io::ErrorKind::ConnectionRefused),
        Kind::CloseError => by_io(io::ErrorKind::NotConnected),
        Kind::WriteError => by_io(io::ErrorKind::BrokenPipe),
        Kind::RemoteProtocolError => by_io(io::ErrorKind::UnexpectedEof),
        Kind::LocalProtocolError => {
            let client = reqwest::Client::new();
            let request = client.get("http://localhost").header("x", "no\nheader").build();
            request.unwrap_err().into()
        }
        Kind::UnsupportedProtocol => {
            reqwest::Client::new().get("nonsense://localhost").send().await.unwrap_err().into()
        }
        Kind::DecodingError => {
            let response = reqwest::Response::from(http::Response::new("garbage"));
            response.json::<u32>().await.unwrap_err().into()
        }
        Kind::TooManyRedirects => redirected_for_ever().into(),
        _ => by_io(io::ErrorKind::ConnectionReset),
    }
}

/// The name that an error was raised by; `scripted` is what was raised last, for the errors that
/// carry no name.
pub(crate) fn name(error: &(dyn Error + 'static), scripted: Option<Kind>) -> Option<Kind> {
    if let Some(scripted) = find::<Scripted>(error) {
        return Some(scripted.kind);
    }
    let error = find::<reqwest::Error>(error)?;
    scripted.filter(|kind| match kind {
        Kind::LocalProtocolError | Kind::UnsupportedProtocol => error.is_builder(),
        Kind::DecodingError => error.is_decode(),
        Kind::TooManyRedirects => error.is_redirect(),
        _ => false,
    })
}

/// The error of type `E` in a chain of sources, through io errors too.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let next = wrapped.map(|it| it as &(dyn Error + 'static)).or_else(|| error.source());
    error.downcast_ref().or_else(|| next.and_then(find))
}

/// A server that redirects to itself, asked once: in a thread of its own, where time is real.
fn redirected_for_ever() -> reqwest::Error {
    let asked = thread::spawn(|| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = format!(
            "HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let policy = reqwest::redirect::Policy::limited(1);
        let client = reqwest::Client::builder().no_proxy().redirect(policy).build().unwrap();
        runtime.block_on(client.get(url).send()).unwrap_err()
    });
    asked.join().unwrap()
}
