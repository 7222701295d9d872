//! A proxy for https: it opens tunnels to itself, ends TLS with a certificate of its own, and hands
//! on to a server without TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs, process};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::host::Host;
use crate::support::pem::pem;

pub(super) struct HttpsProxy {
    host: Host,
    certificate: PathBuf,
}

impl HttpsProxy {
    /// Creates a proxy that says it is `name`, and hands on to `server`.
    pub(super) fn of(name: &str, server: SocketAddr) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let host = Host::run(move |_, socket| tunnel(socket, acceptor.clone(), server));
        let file = format!("resilient-{}-{}.pem", process::id(), host.addr().port());
        let file = env::temp_dir().join(file);
        fs::write(&file, pem("CERTIFICATE", &certificate)).unwrap();
        Self { host, certificate: file }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.host.addr())
    }

    /// Returns the file with the certificate, for `SSL_CERT_FILE`.
    pub(super) fn certificate(&self) -> &PathBuf {
        &self.certificate
    }
}

impl Drop for HttpsProxy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.certificate);
    }
}

async fn tunnel(mut client: TcpStream, acceptor: TlsAcceptor, server: SocketAddr) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    assert!(head.starts_with(b"CONNECT "), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let mut server = TcpStream::connect(server).await.unwrap();
    // One side closes, as servers and clients do.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
