//! TLS handshakes that fail, and a client that attempts them.
//!
//! The client does the handshake in a connector layer and hands on its error as reqwest's own TLS
//! does, an `io::Error` around the `io::Error` around the `rustls::Error`. With reqwest's own,
//! every client of every test would need a crypto provider and load the machine's certificates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::Client;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower::util::MapFutureLayer;

use super::host::Host;
use super::log::Log;

pub(crate) static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
pub(crate) static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

/// A listener whose handshakes all fail.
pub(crate) struct TlsServer {
    host: Host,
    log: Arc<Log>,
    /// The certificate that its clients trust.
    trusted: Option<CertificateDer<'static>>,
    versions: &'static [&'static SupportedProtocolVersion],
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

    /// Creates a server with a self-signed certificate.
    pub(crate) fn self_signed() -> Self {
        let (_, config) = server_config(ALL_VERSIONS, false);
        Self::accepting(config)
    }

    /// Refuses clients without a certificate of their own, by an alert. With TLS 1.3 it comes after
    /// the handshake.
    pub(crate) fn wants_certificate(
        versions: &'static [&'static SupportedProtocolVersion],
    ) -> Self {
        let (certificate, config) = server_config(versions, true);
        Self { trusted: Some(certificate), versions, ..Self::accepting(config) }
    }

    /// Speaks TLS 1.3 only, to clients that speak TLS 1.2 only.
    pub(crate) fn of_another_version() -> Self {
        let (certificate, config) = server_config(ONLY_TLS13, false);
        Self { trusted: Some(certificate), versions: ONLY_TLS12, ..Self::accepting(config) }
    }

    fn accepting(config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::run(move |socket| {
            let handshake = acceptor.accept(socket);
            async move {
                handshake.await.map(drop).expect_err("one side refuses the other");
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
        Self { host, log, trusted: None, versions: ALL_VERSIONS }
    }

    /// Handshakes attempted.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host.addr())
    }

    /// A client without a certificate of its own; every connection it makes goes to this server.
    pub(crate) fn client(&self) -> Client {
        let addr = self.host.addr();
        let (trusted, versions) = (self.trusted.clone(), self.versions);
        // The connection reqwest would make is dropped unpolled: it knows no TLS.
        let layer = MapFutureLayer::new(move |_| {
            let trusted = trusted.clone();
            async move { Err(refusal(addr, trusted, versions).await.into()) }
        });
        super::client_builder()
            .connector_layer(tower::ServiceBuilder::new().layer(layer).into_inner())
            .build()
            .unwrap()
    }
}

fn server_config(
    versions: &[&'static SupportedProtocolVersion],
    asks: bool,
) -> (CertificateDer<'static>, ServerConfig) {
    let name = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(name).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let certificate = made.cert.der().clone();
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let config = if asks {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        config.with_client_cert_verifier(verifier.unwrap())
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![certificate.clone()], key).unwrap();
    (certificate, config)
}

async fn refusal(
    addr: SocketAddr,
    trusted: Option<CertificateDer<'static>>,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Error {
    let mut roots = RootCertStore::empty();
    trusted.into_iter().for_each(|it| roots.add(it).unwrap());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await.unwrap();
    let handshake =
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(addr.ip()), socket);
    match handshake.await {
        Err(error) => io::Error::other(error),
        // The server speaks of the client's certificate when it is first read from.
        Ok(mut stream) => stream.read_u8().await.expect_err("no handshake here succeeds"),
    }
}
