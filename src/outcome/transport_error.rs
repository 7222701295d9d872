//! Classification of errors: their kind, how far the request got, and their origin.
//!
//! By type: reqwest, hyper-util, hyper, h2, rustls and io errors each know one part. Where only a
//! text identifies an error, a function of [`texts`] compares it; its tests fail when it changes.

mod texts;
mod tls;

use std::{error::Error, fmt, io};

use http::StatusCode;
use hyper_util::client::legacy;
use reqwest::Url;

use crate::outcome::Delivery::{MaybeProcessed, NotProcessed, NotSent, Responded};
use crate::outcome::not_sent;
use crate::outcome::{Delivery, Failure, FailureKind};

/// The longest chain that is walked: errors are foreign data.
const LONGEST_CHAIN: usize = 16;

/// A body that its factory failed to make: the caller's own error, whatever its sources are.
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

/// The error of a scripted connection, which counts as the transport's own.
#[cfg(feature = "test-util")]
#[derive(Debug)]
pub(crate) struct ScriptedError(pub(crate) io::Error);

#[cfg(feature = "test-util")]
impl fmt::Display for ScriptedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "test-util")]
impl Error for ScriptedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// The error that an attempt ended with, and what is known of its origin.
#[derive(Clone, Copy)]
pub(crate) struct AttemptError<'a> {
    pub(crate) error: &'a (dyn Error + 'static),
    /// The same error, if it is the transport's own: neither made nor wrapped by a middleware.
    pub(crate) transport: Option<&'a reqwest::Error>,
    /// The URL that was sent, as far as known.
    pub(crate) sent: &'a Url,
    /// `true` if a response head had arrived.
    pub(crate) after_head: bool,
}

impl AttemptError<'_> {
    /// Classifies the error.
    pub(crate) fn read(self) -> Failure {
        if self.error.is::<BodyFactoryError>() {
            return Failure::local(FailureKind::Other, NotSent);
        }
        if not_sent::is_said_by(self.error) {
            return Failure::local(FailureKind::Unsent, NotSent);
        }
        if let Some(status) = self.status() {
            let is_own = self.transport.is_some_and(|it| names(it, self.sent));
            let delivery = if is_own { Responded } else { MaybeProcessed };
            return Failure { status: Some(status), ..Failure::new(FailureKind::Status, delivery) };
        }
        #[cfg(feature = "test-util")]
        if let Some(ScriptedError(error)) = self.error.downcast_ref() {
            return of_scripted(error);
        }
        let kind = kind(self.error);
        let delivery = self.proof().unwrap_or(MaybeProcessed);
        // The error of a body names no URL.
        let is_of_host = self.after_head || self.is_about_this_request();
        let concerns_host = is_of_host && !is_local(self.error);
        // Only a connection of hyper's pool can have been idle. A reset stream had a connection in
        // use, and so had a response with a complete head.
        let may_be_stale = kind == FailureKind::Disconnect
            && self.transport.is_some()
            && !self.after_head
            && chain(self.error).any(<dyn Error>::is::<hyper::Error>)
            && !chain(self.error).any(is_h2);
        Failure { kind, delivery, may_be_stale, status: None, concerns_host }
    }

    /// Returns the proof that the server did not act on the request, if there is one.
    fn proof(self) -> Option<Delivery> {
        let error = self.transport.filter(|it| !self.after_head && names(it, self.sent))?;
        if error.is_builder() {
            // A server responded with the location that could not be followed.
            let followed = error.source().is_some_and(<dyn Error>::is::<url::ParseError>);
            return (!followed).then_some(NotSent);
        }
        let client: &legacy::Error = error.source()?.downcast_ref()?;
        if client.is_connect() {
            return Some(NotSent);
        }
        let connection: &hyper::Error = client.source()?.downcast_ref()?;
        if connection.is_canceled() {
            return Some(NotSent);
        }
        is_refusal(connection.source()?).then_some(NotProcessed)
    }

    /// Returns the status of the response that an inner middleware turned into this error.
    fn status(self) -> Option<StatusCode> {
        client_error(self.error)?.status().filter(|_| self.is_about_this_request())
    }

    /// Returns whether the error concerns this request, not another one of a middleware: reqwest's
    /// own error, for the same host or, if it was not wrapped, for the same path, since a
    /// middleware may pick the host.
    fn is_about_this_request(self) -> bool {
        let Some(url) = client_error(self.error).and_then(reqwest::Error::url) else {
            return false;
        };
        let has_path =
            url.path() == self.sent.path() || is_below(url, self.sent) || is_below(self.sent, url);
        is_same_host(url, self.sent) || self.transport.is_some() && has_path
    }
}

/// Returns the kind of an error that no attempt ended with.
pub(crate) fn kind_of(error: &(dyn Error + 'static)) -> FailureKind {
    match client_error(error).and_then(reqwest::Error::status) {
        Some(_) => FailureKind::Status,
        None => kind(error),
    }
}

/// Returns the text of the innermost source, which says what happened; without a URL.
pub(crate) fn root_text(error: &(dyn Error + 'static)) -> String {
    if let Some(remedy) = remedy(error) {
        return remedy.to_owned();
    }
    let Some(root) = chain(error).last() else { return String::new() };
    match root.downcast_ref::<reqwest::Error>() {
        // Its own text has the whole URL.
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

/// Returns the remedy of an error, if one is known.
pub(crate) fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    texts::is_without_tls(error).then_some(texts::WITHOUT_TLS)
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

/// Returns the outermost error of reqwest: inner ones may be of other requests.
fn client_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a reqwest::Error> {
    chain(error).find_map(|it| it.downcast_ref())
}

/// Returns whether `error` names `url`, query and fragment aside: a middleware may have signed it.
fn names(error: &reqwest::Error, url: &Url) -> bool {
    error.url().is_some_and(|it| is_same_host(it, url) && it.path() == url.path())
}

fn is_same_host(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Returns whether the path of `deep` is that of `url` below another root, as mirrors have it.
fn is_below(deep: &Url, url: &Url) -> bool {
    url.path().len() > 1 && deep.path().ends_with(url.path())
}

fn kind(error: &(dyn Error + 'static)) -> FailureKind {
    let client = client_error(error);
    if let Some(kind) = client.and_then(of_client) {
        return kind;
    }
    // From the innermost out: the root is the most specific.
    let mut links: [Option<&(dyn Error + 'static)>; LONGEST_CHAIN] = [None; LONGEST_CHAIN];
    links.iter_mut().zip(chain(error)).for_each(|(slot, it)| *slot = Some(it));
    let known = links.into_iter().rev().flatten().find_map(of_link);
    match (known, client) {
        (Some(kind), _) => kind,
        (None, Some(client)) if client.is_request() => FailureKind::Disconnect,
        (None, _) => FailureKind::Other,
    }
}

/// Returns the kind that reqwest itself knows; `None` where only the sources know.
fn of_client(error: &reqwest::Error) -> Option<FailureKind> {
    let connect = error
        .source()
        .and_then(<dyn Error>::downcast_ref::<legacy::Error>)
        .is_some_and(legacy::Error::is_connect);
    Some(match () {
        () if error.is_builder() || texts::is_without_tls(error) => FailureKind::Builder,
        () if error.is_redirect() => FailureKind::Redirect,
        // The sources concern the caller's own body, which may come from another request.
        () if chain(error).any(is_body_of_caller) => FailureKind::Other,
        () if chain(error).any(tls::is_refused_certificate) => FailureKind::Certificate,
        () if chain(error).any(tls::is_final_alert) => FailureKind::Tls,
        () if chain(error).any(texts::is_proxy_auth) => FailureKind::ProxyAuth,
        () if error.is_timeout() => FailureKind::Timeout,
        () if connect => FailureKind::Connect,
        () if error.is_decode() && !chain(error).any(is_transport) => FailureKind::Decode,
        () => return None,
    })
}

fn of_link(link: &(dyn Error + 'static)) -> Option<FailureKind> {
    #[cfg(feature = "http2")]
    if let Some(error) = link.downcast_ref::<h2::Error>() {
        return of_h2(error);
    }
    if let Some(error) = link.downcast_ref::<hyper::Error>() {
        return Some(match () {
            () if error.is_canceled() => FailureKind::Disconnect,
            () if error.is_timeout() => FailureKind::Timeout,
            () if error.is_parse() => FailureKind::Protocol,
            () if error.is_incomplete_message() || error.is_closed() => FailureKind::Disconnect,
            () => return None,
        });
    }
    match link.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable => {
            Some(FailureKind::Connect)
        }
        io::ErrorKind::TimedOut => Some(FailureKind::Timeout),
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Some(FailureKind::Disconnect),
        _ => None,
    }
}

#[cfg(feature = "test-util")]
fn of_scripted(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => Failure::new(FailureKind::Connect, NotSent),
        _ => Failure::new(of_link(error).unwrap_or(FailureKind::Other), MaybeProcessed),
    }
}

/// Returns whether the caller's own body stream failed.
fn is_body_of_caller(link: &(dyn Error + 'static)) -> bool {
    let error = link.downcast_ref::<hyper::Error>();
    error.is_some_and(|it| it.is_user() && !texts::is_dispatch_gone(it))
}

/// Returns whether this machine failed: it has no file descriptor, port or memory left.
fn is_local(error: &(dyn Error + 'static)) -> bool {
    /// EMFILE, ENFILE, ENOMEM, ENOBUFS.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const EXHAUSTED: &[i32] = &[24, 23, 12, 105];
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    const EXHAUSTED: &[i32] = &[24, 23, 12, 55];
    /// WSAEMFILE, WSAENOBUFS.
    #[cfg(not(unix))]
    const EXHAUSTED: &[i32] = &[10024, 10055];

    chain(error).filter_map(|it| it.downcast_ref::<io::Error>()).any(|it| {
        matches!(it.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
            || it.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code))
    })
}

/// A remote GOAWAY is reported only on streams beyond the last one the server took on, whatever
/// its reason (RFC 9113 §6.8), so these were not processed.
#[cfg(feature = "http2")]
fn is_refusal(link: &(dyn Error + 'static)) -> bool {
    link.downcast_ref::<h2::Error>().is_some_and(|it| {
        it.is_remote() && (it.is_go_away() || it.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

#[cfg(not(feature = "http2"))]
fn is_refusal(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(feature = "http2")]
fn of_h2(error: &h2::Error) -> Option<FailureKind> {
    if error.is_io() {
        return Some(FailureKind::Disconnect);
    }
    Some(match error.reason()? {
        h2::Reason::ENHANCE_YOUR_CALM => FailureKind::Throttled,
        _ if is_refusal(error) => FailureKind::Refused,
        h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR => FailureKind::Protocol,
        _ => FailureKind::Disconnect,
    })
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

#[cfg(test)]
mod tests;
