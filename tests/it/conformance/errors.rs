//! The errors of the reference as reqwest and its neighbours would raise them.

use std::error::Error as StdError;
use std::{fmt, io};

use reqwest_middleware::Error;
use reqwest_resilient::testing::io_error;

use super::schema::Kind;
use crate::support::fault;

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

impl StdError for Scripted {}

/// Returns the error of this name: reqwest's own, if its type identifies the kind.
pub(crate) fn raise(kind: Kind, message: &str) -> Error {
    let scripted = || Scripted { kind, message: message.to_owned() };
    let by_io = |io| io_error(io::Error::new(io, scripted()));
    match kind {
        Kind::ConnectTimeout => fault::connect_timeout().into(),
        Kind::DecodingError => fault::decode().into(),
        Kind::LocalProtocolError => fault::bad_header().into(),
        Kind::TooManyRedirects => fault::redirect_loop().into(),
        Kind::UnsupportedProtocol => fault::bad_scheme().into(),

        Kind::Timeout | Kind::ReadTimeout | Kind::WriteTimeout | Kind::PoolTimeout => {
            by_io(io::ErrorKind::TimedOut)
        }
        Kind::ConnectError | Kind::ProxyError => by_io(io::ErrorKind::ConnectionRefused),
        Kind::CloseError => by_io(io::ErrorKind::NotConnected),
        Kind::WriteError => by_io(io::ErrorKind::BrokenPipe),
        Kind::RemoteProtocolError => by_io(io::ErrorKind::UnexpectedEof),
        Kind::NetworkError | Kind::ReadError | Kind::RequestError => {
            by_io(io::ErrorKind::ConnectionReset)
        }
        Kind::ForeignError => Error::middleware(scripted()),
    }
}

/// The name that an error was raised by; `scripted` is what was raised last, for the errors that
/// carry no name.
pub(crate) fn name(error: &(dyn StdError + 'static), scripted: Option<Kind>) -> Option<Kind> {
    if let Some(scripted) = find::<Scripted>(error) {
        return Some(scripted.kind);
    }
    let error = find::<reqwest::Error>(error)?;
    scripted.filter(|kind| match kind {
        Kind::ConnectTimeout => error.is_connect() && error.is_timeout(),
        Kind::LocalProtocolError | Kind::UnsupportedProtocol => error.is_builder(),
        Kind::DecodingError => error.is_decode(),
        Kind::TooManyRedirects => error.is_redirect(),
        _ => false,
    })
}

/// The error of type `E` in a chain of sources, through io errors too.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let next = wrapped.map(|it| it as &(dyn StdError + 'static)).or_else(|| error.source());
    error.downcast_ref().or_else(|| next.and_then(find))
}
