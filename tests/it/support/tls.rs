//! TLS handshakes that fail, and a client that attempts them.
//!
//! The client does the handshake in a connector layer and hands on its error as reqwest's own TLS
//! does, an `io::Error` around the `io::Error` around the `rustls::Error`. With reqwest's own, every
//! client of every test would need a crypto provider and load the machine's certificates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::Client;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower::util::MapFutureLayer;

use super::host::Host;
use super::log::Log;

/// A listener whose handshakes all fail.
pub(crate) struct TlsServer {
    host: Host,
    log: Arc<Log>,
}

impl TlsServer {
    /// Closes the connection after the client's hello.
    pub(crate) fn cut() -> Self {
        Self::run(|socket| async move {
            socket.readable().await.unwrap();
            let mut hello = [0; 16 * 1024];
            // All of it must be read for the close to be a FIN.
            let _ = socket.try_read(&mut hello);
        })
    }

    /// Shows a certificate that nobody signed.
    pub(crate) fn self_signed() -> Self {
        let name = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(name).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::run(move |socket| {
            let handshake = acceptor.accept(socket);
            async move {
                handshake.await.map(drop).expect_err("the client refuses the certificate");
            }
        })
    }

    fn run<S>(shake: impl Fn(TcpStream) -> S + Send + 'static) -> Self
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let host = Host::run(move |_, socket| {
            shared.connected();
            shake(socket)
        });
        Self { host, log }
    }

    /// Handshakes attempted.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host.addr())
    }

    /// A client that trusts nobody; every connection it makes goes to this server.
    pub(crate) fn client(&self) -> Client {
        let addr = self.host.addr();
        // The connection reqwest would make is dropped unpolled: it knows no TLS.
        let layer = MapFutureLayer::new(move |_| async move { Err(refusal(addr).await.into()) });
        Client::builder()
            .no_proxy()
            .connector_layer(tower::ServiceBuilder::new().layer(layer).into_inner())
            .build()
            .unwrap()
    }
}

async fn refusal(addr: SocketAddr) -> io::Error {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await.unwrap();
    let handshake =
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(addr.ip()), socket);
    io::Error::other(handshake.await.map(drop).expect_err("no handshake here succeeds"))
}
