//! What an error says: its kind and how far the request got, read from its chain of sources.
//!
//! By type, never by text: reqwest, hyper, h2, rustls and io errors each know one part.

use std::{error::Error, fmt, io};

use crate::outcome::Delivery::{MaybeProcessed, NotSent};
use crate::outcome::{Failure, FailureKind};

/// The longest chain that is walked: errors are other people's data.
const LONGEST_CHAIN: usize = 16;

/// A body that its factory could not make: the caller's own affair, whatever its sources are.
#[derive(Debug)]
pub(crate) struct BodyFactoryError(pub(crate) Box<dyn Error + Send + Sync>);

impl fmt::Display for BodyFactoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the request could not be made")
    }
}

impl Error for BodyFactoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Reads what `error` says about itself.
pub(crate) fn read(error: &(dyn Error + 'static)) -> Failure {
    if error.is::<BodyFactoryError>() {
        return Failure::new(FailureKind::Other, NotSent);
    }
    let chain = || chain(error);
    if let Some(error) = chain().find_map(|it| it.downcast_ref::<reqwest::Error>()) {
        if let Some(failure) = of_reqwest(error) {
            return failure;
        }
    }
    // From the innermost out: the root knows best what happened.
    let mut links: [Option<&(dyn Error + 'static)>; LONGEST_CHAIN] = [None; LONGEST_CHAIN];
    links.iter_mut().zip(chain()).for_each(|(slot, it)| *slot = Some(it));
    let known = links.into_iter().rev().flatten().find_map(of_link);
    let failure = known.unwrap_or(Failure::new(FailureKind::Other, MaybeProcessed));
    // Only a connection of hyper's pool can have been idle; what an io error of another
    // middleware means is not known. A stream that was reset had a connection in use.
    let may_be_stale = failure.kind == FailureKind::Disconnect
        && chain().any(<dyn Error>::is::<hyper::Error>)
        && !chain().any(is_h2);
    Failure { may_be_stale, ..failure }
}

/// The text of the innermost source, which says what happened; without a url.
pub(crate) fn root_text(error: &(dyn Error + 'static)) -> String {
    let Some(root) = chain(error).last() else { return String::new() };
    match root.downcast_ref::<reqwest::Error>() {
        // Its own text has the whole url.
        Some(it) => it
            .status()
            .map_or_else(|| "the client failed".to_owned(), |it| format!("status {}", it.as_u16())),
        None => root.to_string(),
    }
}

/// Returns an error and its sources, as [`Error::source`] gives them; at most 16.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |it: &&'a (dyn Error + 'static)| (**it).source())
        .take(LONGEST_CHAIN)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // `io::Error::source` skips the error it wraps and gives that one's source.
    fn next<'a>(it: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        match it.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => it.source(),
        }
    }
    std::iter::successors(Some(error), |it| next(*it)).take(LONGEST_CHAIN)
}

/// What reqwest itself knows; `None` where only the sources tell.
fn of_reqwest(error: &reqwest::Error) -> Option<Failure> {
    let failure = |kind, delivery| Some(Failure::new(kind, delivery));
    if error.is_builder() {
        failure(FailureKind::Builder, NotSent)
    } else if error.is_redirect() {
        failure(FailureKind::Redirect, MaybeProcessed)
    } else if error.is_connect() {
        let kind = match () {
            () if error.is_timeout() => FailureKind::Timeout,
            () if chain(error).any(is_certificate) => FailureKind::Certificate,
            () => FailureKind::Connect,
        };
        failure(kind, NotSent)
    } else if error.is_timeout() {
        failure(FailureKind::Timeout, MaybeProcessed)
    } else if error.is_decode() && !chain(error).any(is_transport) {
        failure(FailureKind::Decode, MaybeProcessed)
    } else if error.is_request() && chain(error).all(|it| of_link(it).is_none()) {
        failure(FailureKind::Disconnect, MaybeProcessed)
    } else {
        None
    }
}

fn of_link(link: &(dyn Error + 'static)) -> Option<Failure> {
    let failure = |kind, delivery| Some(Failure::new(kind, delivery));
    #[cfg(feature = "http2")]
    if let Some(error) = link.downcast_ref::<h2::Error>() {
        return of_h2(error);
    }
    if let Some(error) = link.downcast_ref::<hyper::Error>() {
        return match () {
            () if error.is_canceled() => failure(FailureKind::Disconnect, NotSent),
            () if error.is_timeout() => failure(FailureKind::Timeout, MaybeProcessed),
            () if error.is_parse() => failure(FailureKind::Protocol, MaybeProcessed),
            () if error.is_incomplete_message() || error.is_closed() => {
                failure(FailureKind::Disconnect, MaybeProcessed)
            }
            // The caller's own body stream failed; the stream is spent.
            () if error.is_user() => failure(FailureKind::Other, MaybeProcessed),
            () => None,
        };
    }
    let error = link.downcast_ref::<io::Error>()?;
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => failure(FailureKind::Connect, NotSent),
        io::ErrorKind::TimedOut => failure(FailureKind::Timeout, MaybeProcessed),
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => failure(FailureKind::Disconnect, MaybeProcessed),
        _ => None,
    }
}

/// A remote GOAWAY is reported only on streams beyond the last one the server took on, whatever
/// its reason (RFC 9113 §6.8), so these were not processed.
#[cfg(feature = "http2")]
fn of_h2(error: &h2::Error) -> Option<Failure> {
    use crate::outcome::Delivery::NotProcessed;

    let delivery = match () {
        () if !error.is_remote() => MaybeProcessed,
        () if error.is_go_away() => NotProcessed,
        () if error.reason() == Some(h2::Reason::REFUSED_STREAM) => NotProcessed,
        () => MaybeProcessed,
    };
    if error.is_io() {
        return Some(Failure::new(FailureKind::Disconnect, MaybeProcessed));
    }
    let kind = match error.reason()? {
        h2::Reason::ENHANCE_YOUR_CALM => FailureKind::Throttled,
        _ if delivery == NotProcessed => FailureKind::Refused,
        h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR => FailureKind::Protocol,
        _ => FailureKind::Disconnect,
    };
    Some(Failure::new(kind, delivery))
}

#[cfg(feature = "http2")]
fn is_h2(link: &(dyn Error + 'static)) -> bool {
    link.is::<h2::Error>()
}

#[cfg(not(feature = "http2"))]
fn is_h2(_: &(dyn Error + 'static)) -> bool {
    false
}

fn is_transport(link: &(dyn Error + 'static)) -> bool {
    is_h2(link)
        || link.is::<hyper::Error>()
        || link.downcast_ref::<io::Error>().is_some_and(|it| of_link(it).is_some())
}

#[cfg(feature = "rustls")]
fn is_certificate(link: &(dyn Error + 'static)) -> bool {
    matches!(
        link.downcast_ref::<rustls::Error>(),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::UnsupportedNameType
                | rustls::Error::PeerIncompatible(_)
        )
    )
}

#[cfg(not(feature = "rustls"))]
fn is_certificate(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_tell_how_far_the_request_got() {
        let check = |io, kind, delivery| {
            let error = io::Error::new(io, "it happened");
            assert_eq!(read(&error), Failure::new(kind, delivery));
            assert_eq!(root_text(&error), "it happened");
        };
        check(io::ErrorKind::ConnectionRefused, FailureKind::Connect, NotSent);
        check(io::ErrorKind::ConnectionReset, FailureKind::Disconnect, MaybeProcessed);
        check(io::ErrorKind::BrokenPipe, FailureKind::Disconnect, MaybeProcessed);
        check(io::ErrorKind::TimedOut, FailureKind::Timeout, MaybeProcessed);
        check(io::ErrorKind::InvalidInput, FailureKind::Other, MaybeProcessed);
    }

    #[test]
    fn a_request_that_cannot_be_built_is_permanent() {
        let error = reqwest::Client::new().get("nonsense").build().unwrap_err();
        let Failure { kind, delivery, .. } = read(&error);
        assert_eq!((kind, delivery), (FailureKind::Builder, NotSent));
    }

    #[test]
    fn an_endless_chain_ends() {
        #[derive(Debug)]
        struct Ring;
        impl fmt::Display for Ring {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ring")
            }
        }
        impl Error for Ring {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Self)
            }
        }
        assert_eq!(read(&Ring).kind, FailureKind::Other);
    }
}
