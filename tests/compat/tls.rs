//! Over real TLS, by both of reqwest's backends: see `scripts/compat`.
#![cfg(test)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder};
use reqwest_resilient::{
    Constant, ErrorKind, FailureKind, Resilient, ResilientClient, ResilientConfig, ResponseExt,
    StopReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What the server does with a connection; the last repeats.
#[derive(Clone, Copy)]
enum Step {
    Answer(u16),
    CutHandshake,
    CutAnswer,
}
use Step::{Answer, CutAnswer, CutHandshake};

struct Server {
    addr: SocketAddr,
    certificate: Certificate,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(script: &'static [Step]) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            addr: listener.local_addr().unwrap(),
            certificate: Certificate::from_der(made.cert.der()).unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, SeqCst);
                let step = script[number.min(script.len() - 1)];
                tokio::spawn(serve(socket, acceptor.clone(), step, requests.clone()));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("https://{}/", self.addr)
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(SeqCst), self.requests.load(SeqCst))
    }
}

async fn serve(
    mut socket: TcpStream,
    acceptor: TlsAcceptor,
    step: Step,
    requests: Arc<AtomicUsize>,
) -> io::Result<()> {
    let status = match step {
        CutHandshake => {
            // With the hello unread the close would be a RST.
            socket.read(&mut [0; 16 * 1024]).await?;
            return Ok(());
        }
        Answer(status) => Some(status),
        CutAnswer => None,
    };
    let mut tls = acceptor.accept(socket).await?;
    let mut request = Vec::new();
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        if tls.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    requests.fetch_add(1, SeqCst);
    let Some(status) = status else { return Ok(()) };
    let answer =
        format!("HTTP/1.1 {status} x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere");
    tls.write_all(answer.as_bytes()).await?;
    tls.shutdown().await
}

type Backend = fn(ClientBuilder) -> ClientBuilder;

const BACKENDS: [(&str, Backend); 2] = [
    ("rustls", ClientBuilder::tls_backend_rustls),
    ("native-tls", ClientBuilder::tls_backend_native),
];

fn client(backend: Backend, trusted: Option<&Certificate>) -> ResilientClient {
    let inner = backend(Resilient::reqwest_builder().no_proxy());
    let inner = trusted.into_iter().fold(inner, |it, root| it.tls_certs_only([root.clone()]));
    let config = ResilientConfig::builder()
        .max_retries(2)
        .backoff(Constant::new(Duration::from_millis(1)))
        .without_circuit_breaker();
    ResilientClient::builder()
        .config(config.build().unwrap())
        .reqwest_client(inner.build().unwrap())
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_failed_answer_is_followed_by_another_attempt() {
    for (name, backend) in BACKENDS {
        let server = Server::start(&[Answer(503), Answer(200)]).await;
        let client = client(backend, Some(&server.certificate));
        let response = client.get(server.url()).send_resilient().await.unwrap();
        assert_eq!((response.attempts(), server.counts()), (2, (2, 2)), "{name}");
        assert_eq!(response.text().await.unwrap(), "here", "{name}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_cut_is_tried_again_even_for_a_post() {
    for (name, backend) in BACKENDS {
        let server = Server::start(&[CutHandshake, Answer(200)]).await;
        let client = client(backend, Some(&server.certificate));
        let response = client.post(server.url()).body("once").send_resilient().await.unwrap();
        assert_eq!((response.attempts(), server.counts()), (2, (2, 1)), "{name}");
        let first = &response.history().unwrap().attempts()[0];
        assert_eq!(first.result, Err(FailureKind::Connect), "{name}");
    }
}

#[tokio::test]
async fn a_post_whose_answer_is_cut_is_not_sent_again() {
    for (name, backend) in BACKENDS {
        let server = Server::start(&[CutAnswer, Answer(200)]).await;
        let client = client(backend, Some(&server.certificate));
        let error = client.post(server.url()).body("once").send_resilient().await.unwrap_err();
        assert_eq!(error.stop_reason(), StopReason::UnsafeToRepeat, "{name}");
        assert_eq!(error.kind(), ErrorKind::Failure(FailureKind::Disconnect), "{name}: {error:?}");
        assert_eq!(server.counts(), (1, 1), "{name}");
    }
}

#[tokio::test]
async fn rustls_tells_a_refused_certificate_which_no_retry_helps() {
    let server = Server::start(&[Answer(200)]).await;
    let client = client(ClientBuilder::tls_backend_rustls, None);
    let error = client.get(server.url()).send_resilient().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failure(FailureKind::Certificate), "{error:?}");
    assert_eq!(server.counts(), (1, 0));
}

/// OpenSSL's error is of a type that the crate does not know: to it no connection could be made.
#[tokio::test]
async fn with_native_tls_a_refused_certificate_is_no_connection() {
    let server = Server::start(&[Answer(200)]).await;
    let client = client(ClientBuilder::tls_backend_native, None);
    let error = client.get(server.url()).send_resilient().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failure(FailureKind::Connect), "{error:?}");
    assert_eq!(server.counts(), (3, 0));
}
