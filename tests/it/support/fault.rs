//! Real `reqwest::Error`s, for tests whose clock is paused and whose server is a mock.
//!
//! Each is made on a thread of its own, where time is real, by a plain client without retries and
//! a server on 127.0.0.1, in a few milliseconds.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Error, RequestBuilder};
use tokio::net::{TcpSocket, TcpStream};
use tower::Service;
use tower::util::MapFutureLayer;

#[cfg(feature = "http2")]
use super::h2::Stream;
use super::host::real_time;
use super::reply::{End, Fault, Reply, Step};
use super::server::Server;
#[cfg(feature = "rustls-errors")]
use super::tls::{ONLY_TLS12, ONLY_TLS13, TlsServer};

/// Short enough for a test, long enough for a busy machine to get the request out.
const MOMENT: Duration = Duration::from_millis(20);

/// A port without a listener.
pub(crate) fn refused() -> Error {
    provoke(async || {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        failure(plain().get(format!("http://{closed}/"))).await
    })
}

/// No such host.
pub(crate) fn dns() -> Error {
    struct Nowhere;
    impl Resolve for Nowhere {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(async { Err(io::Error::other("no such host").into()) })
        }
    }
    provoke(async || {
        let client = settings().dns_resolver(Nowhere).build().unwrap();
        failure(client.get("http://nowhere.test/")).await
    })
}

/// A TCP handshake without a response.
pub(crate) fn connect_timeout() -> Error {
    provoke(async || {
        let (addr, _full) = full_backlog().await;
        let client = settings().connect_timeout(MOMENT).build().unwrap();
        failure(client.get(format!("http://{addr}/"))).await
    })
}

/// The request's own timeout runs out after it was read.
pub(crate) fn request_timeout() -> Error {
    h1(Fault::Unanswered(End::Stall), |request| request.timeout(MOMENT))
}

/// The request's own timeout runs out before there is a connection.
pub(crate) fn timeout_while_connecting() -> Error {
    provoke(async || {
        let (addr, _full) = full_backlog().await;
        failure(plain().get(format!("http://{addr}/")).timeout(MOMENT)).await
    })
}

/// RST instead of a response.
pub(crate) fn reset() -> Error {
    h1(Fault::Unanswered(End::Reset), |request| request)
}

/// FIN instead of a response.
pub(crate) fn early_eof() -> Error {
    h1(Fault::Unanswered(End::Close), |request| request)
}

/// The body to upload fails on our own side.
pub(crate) fn broken_upload() -> Error {
    h1(Reply::status(200), |request| {
        let pieces = [Ok("some"), Err(io::Error::other("no more"))];
        request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
    })
}

/// A response that is not HTTP.
pub(crate) fn garbage() -> Error {
    h1(Fault::Garbage, |request| request)
}

/// A redirect to itself.
pub(crate) fn redirect_loop() -> Error {
    h1(Reply::redirect(302, "/"), |request| request)
}

/// An unknown scheme.
pub(crate) fn bad_scheme() -> Error {
    provoke(async || failure(plain().get("gopher://127.0.0.1/")).await)
}

/// An invalid header name: the request fails to build.
pub(crate) fn bad_header() -> Error {
    provoke(async || failure(plain().get("http://127.0.0.1/").header("a b", "c")).await)
}

/// 500 made an error by `error_for_status`.
pub(crate) fn status() -> Error {
    responded(Reply::status(500), async |response| response.error_for_status().unwrap_err())
}

/// A body that ends before its `content-length`.
pub(crate) fn truncated() -> Error {
    body(Reply::status(200).body("whole").cut_body(2, End::Close))
}

/// A chunked body that ends before its last chunk.
pub(crate) fn truncated_chunk() -> Error {
    body(Reply::status(200).chunked("whole").cut_body(10, End::Close))
}

/// A whole body that is not the JSON it was taken for.
pub(crate) fn decode() -> Error {
    responded(Reply::status(200).body("whole"), async |response| {
        response.json::<u8>().await.unwrap_err()
    })
}

/// RST in the middle of the body.
pub(crate) fn body_reset() -> Error {
    body(Reply::status(200).body("whole").cut_body(2, End::Reset))
}

/// The request's own timeout runs out in the middle of the body.
pub(crate) fn body_timeout() -> Error {
    body(Reply::status(200).body("whole").cut_body(2, End::Stall))
}

/// RST_STREAM with REFUSED_STREAM.
#[cfg(feature = "http2")]
pub(crate) fn refused_stream() -> Error {
    h2(Stream::Refuse)
}

/// RST_STREAM with some other reason, after the request was read.
#[cfg(feature = "http2")]
pub(crate) fn stream_reset(reason: ::h2::Reason) -> Error {
    h2(Stream::Reset(reason))
}

/// GOAWAY whose last id is below the request's.
#[cfg(feature = "http2")]
pub(crate) fn go_away(reason: ::h2::Reason) -> Error {
    h2(Stream::GoAwayBefore(reason))
}

/// GOAWAY that covers the request, and then FIN.
#[cfg(feature = "http2")]
pub(crate) fn go_away_in_flight(reason: ::h2::Reason) -> Error {
    h2(Stream::GoAwayAfter(reason))
}

/// A self-signed certificate.
#[cfg(feature = "rustls-errors")]
pub(crate) fn certificate() -> Error {
    tls(TlsServer::self_signed)
}

/// FIN in the middle of the TLS handshake.
#[cfg(feature = "rustls-errors")]
pub(crate) fn handshake_cut() -> Error {
    tls(TlsServer::cut)
}

/// The server asks for a certificate: by an alert of TLS 1.2, in the handshake.
#[cfg(feature = "rustls-errors")]
pub(crate) fn certificate_required_12() -> Error {
    tls(|| TlsServer::wants_certificate(ONLY_TLS12))
}

/// The same of TLS 1.3, after it.
#[cfg(feature = "rustls-errors")]
pub(crate) fn certificate_required_13() -> Error {
    tls(|| TlsServer::wants_certificate(ONLY_TLS13))
}

/// The server speaks no version that the client speaks.
#[cfg(feature = "rustls-errors")]
pub(crate) fn protocol_version() -> Error {
    tls(TlsServer::of_another_version)
}

/// https by a client without TLS.
pub(crate) fn without_tls() -> Error {
    provoke(async || failure(client_without_tls().get("https://127.0.0.1/")).await)
}

/// A client whose connector speaks http only, whatever TLS reqwest has.
pub(crate) fn client_without_tls() -> Client {
    // The connection reqwest would make is dropped unpolled.
    let layer = MapFutureLayer::new(|_| async {
        let refused = HttpConnector::new().call(Uri::from_static("https://127.0.0.1/")).await;
        Err(refused.expect_err("it speaks http only").into())
    });
    let layer = tower::ServiceBuilder::new().layer(layer).into_inner();
    settings().connector_layer(layer).build().unwrap()
}

/// The response of a proxy to CONNECT.
pub(crate) fn connect_by_proxy(status: u16) -> Error {
    use hyper_util::client::legacy::connect::HttpConnector;
    use hyper_util::client::legacy::connect::proxy::Tunnel;
    use tower::{Service, util::MapFutureLayer};

    provoke(async || {
        let proxy = Server::h1([Reply::status(status).into()]);
        let at: Uri = proxy.url("/").parse().unwrap();
        // reqwest tunnels https only, which this one does not speak.
        let layer = MapFutureLayer::new(move |connecting| {
            let mut tunnel = Tunnel::new(at.clone(), HttpConnector::new());
            drop(connecting);
            async move {
                let tunnel = tunnel.call("https://a.example".parse().unwrap()).await;
                Err::<_, Box<dyn std::error::Error + Send + Sync>>(tunnel.unwrap_err().into())
            }
        });
        let layer = tower::ServiceBuilder::new().layer(layer).into_inner();
        let client = settings().connector_layer(layer).build().unwrap();
        failure(client.get("http://a.example/")).await
    })
}

/// The runtime that drove the connection is gone.
pub(crate) fn dispatch_gone() -> Error {
    let gone = || {
        let server = Server::h1([Reply::status(200).into(), Fault::Unanswered(End::Stall).into()]);
        let client = plain();
        let first = real_time();
        let url = server.url("/");
        let sends = async move |client: Client, url: String| client.get(url).send().await;
        first.block_on(sends(client.clone(), url.clone())).unwrap();
        let second = thread::spawn(move || real_time().block_on(sends(client, url)));
        while server.requests() < 2 {
            // The connection is driven by the runtime that opened it.
            first.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
        drop(first);
        second.join().unwrap().unwrap_err()
    };
    thread::scope(|scope| scope.spawn(gone).join().expect("no panic in a fault"))
}

fn h1(
    step: impl Into<Step> + Send,
    prepare: impl FnOnce(RequestBuilder) -> RequestBuilder + Send,
) -> Error {
    provoke(async || {
        let server = Server::h1([step.into()]);
        failure(prepare(plain().post(server.url("/")))).await
    })
}

#[cfg(feature = "http2")]
fn h2(step: Stream) -> Error {
    provoke(async || {
        let server = Server::h2([step]);
        let client = settings().http2_prior_knowledge().build().unwrap();
        failure(client.get(server.url("/"))).await
    })
}

#[cfg(feature = "rustls-errors")]
fn tls(start: fn() -> TlsServer) -> Error {
    provoke(async || {
        let server = start();
        failure(server.client().get(server.url("/"))).await
    })
}

fn body(reply: Reply) -> Error {
    responded(reply, async |response| response.bytes().await.unwrap_err())
}

fn responded(reply: Reply, fail: impl AsyncFnOnce(reqwest::Response) -> Error + Send) -> Error {
    provoke(async || {
        let server = Server::h1([reply.into()]);
        // Long enough for a head to come on a busy machine, for that must not be what fails.
        let request = plain().get(server.url("/")).timeout(10 * MOMENT);
        fail(request.send().await.unwrap()).await
    })
}

/// A listener that takes no connection, held full by the sockets.
async fn full_backlog() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(socket) = tokio::time::timeout(MOMENT, TcpStream::connect(addr)).await {
        held.push(socket.unwrap());
    }
    (addr, (listener, held))
}

fn plain() -> Client {
    settings().build().unwrap()
}

fn settings() -> ClientBuilder {
    crate::support::client_builder().retry(reqwest::retry::never())
}

async fn failure(request: RequestBuilder) -> Error {
    request.send().await.expect_err("a fault")
}

fn provoke(fail: impl AsyncFnOnce() -> Error + Send) -> Error {
    thread::scope(|scope| {
        scope.spawn(|| real_time().block_on(fail())).join().expect("no panic in a fault")
    })
}
