//! The concurrency limit against a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{ConcurrencyLimit, Limit, QueueOrder, Resilient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{client_builder, steady};

/// The requests at a server now, and the most at a time.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Starts a server that takes 2 ms for the head of a response and 1 ms more for its body.
async fn server(crowd: Arc<Crowd>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let crowd = Arc::clone(&crowd);
            tokio::spawn(async move {
                socket.set_nodelay(true).unwrap();
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).await.is_ok_and(|it| it > 0) {
                    let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
                    crowd.most.fetch_max(now, Ordering::SeqCst);
                    sleep(Duration::from_millis(2)).await;
                    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
                    socket.write_all(head).await.unwrap();
                    sleep(Duration::from_millis(1)).await;
                    crowd.now.fetch_sub(1, Ordering::SeqCst);
                    socket.write_all(b"page").await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_eleven_at_once_on_a_limit_of_ten() {
    let crowd = Arc::new(Crowd::default());
    let url = server(Arc::clone(&crowd)).await;
    let limit = ConcurrencyLimit::per_host(Limit::fixed(10)).order(QueueOrder::Fair);
    let resilient = Resilient::new(steady().concurrency_limit(limit).build().unwrap());
    let hosts = resilient.hosts().clone();
    let client = ClientBuilder::new(client_builder().build().unwrap()).with(resilient).build();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let sent = client.get(&url).send();
        tasks.spawn(async move {
            assert_eq!(sent.await.unwrap().text().await.unwrap(), "page");
        });
    }
    tasks.join_all().await;
    assert!(crowd.most.load(Ordering::SeqCst) <= 10, "{:?}", crowd.most);
    let usage = hosts.limit_use(&url).unwrap();
    assert_eq!((usage.in_flight, usage.queued), (0, 0));
}

/// Starts a server of HTTP/2 whose responses have a length and no body, as those to HEAD do.
#[cfg(feature = "http2")]
async fn without_bodies() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = http::Response::builder().header("content-length", 5_000_000);
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        }
    });
    url
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn a_response_to_head_holds_no_permit() {
    let url = without_bodies().await;
    let resilient = Resilient::new(steady().concurrency_limit(Limit::fixed(1)).build().unwrap());
    let hosts = resilient.hosts().clone();
    let inner = client_builder().http2_prior_knowledge().build().unwrap();
    let client = ClientBuilder::new(inner).with(resilient).build();
    let response = client.head(&url).send().await.unwrap();
    assert_eq!(response.headers()["content-length"], "5000000");
    assert_eq!(hosts.limit_use(&url).unwrap().in_flight, 0);
}
