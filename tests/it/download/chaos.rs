//! `testing::Chaos` through the public API.

use std::io;
use std::time::Duration;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::testing::{Chaos, Fault, Injected, Reply, Script};
use reqwest_resilient::{DownloadExt, Resilient};
use tokio::time::{Instant, timeout};

use super::origin::config;
use crate::support::idle_client;

fn client(chaos: Chaos) -> (ClientWithMiddleware, Script) {
    let script = Script::new([Reply::status(200).body("0123456789")]);
    let client = ClientBuilder::new(idle_client()).with(chaos).with(script.clone()).build();
    (client, script)
}

#[tokio::test(start_paused = true)]
async fn chaos_is_off_until_it_is_switched_on() {
    let chaos = Chaos::seeded(1).all(1.0, Fault::status(503));
    let (switch, (client, script)) = (chaos.switch(), client(chaos));
    let get = async || client.get("https://a.example/").send().await.unwrap().status();
    assert_eq!(get().await, 200);
    switch.turn_on();
    assert_eq!(get().await, 503);
    switch.turn_off();
    assert_eq!(get().await, 200);
    assert_eq!((switch.injected(), script.sent().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_response() {
    let second = Duration::from_secs(1);
    let get = async |fault: Fault| {
        let (client, script) = client(Chaos::seeded(1).all(1.0, fault).enabled());
        let start = Instant::now();
        let result = client.get("https://a.example/").send().await;
        (result, start.elapsed(), script.sent().len())
    };
    let (slow, took, sent) = get(Fault::latency(2 * second)).await;
    assert_eq!((slow.unwrap().status().as_u16(), took, sent), (200, 2 * second, 1));
    let header = (http::header::RETRY_AFTER, "7".parse().unwrap());
    let (late, took, sent) = get(Fault::status(503).header(header.0, header.1).after(second)).await;
    let late = late.unwrap();
    assert_eq!((late.status().as_u16(), took, sent), (503, second, 0));
    assert_eq!(
        (&late.headers()["retry-after"], &late.headers()["x-chaos"]),
        (&"7".parse().unwrap(), &"status".parse().unwrap())
    );
    assert_eq!(late.extensions().get().map(|it: &Injected| it.name()), Some("status"));
    let (refused, _, sent) = get(Fault::io_error(io::ErrorKind::ConnectionRefused)).await;
    assert!(refused.is_err() && sent == 0);
    let hangs = timeout(3_600 * second, get(Fault::hang())).await;
    assert!(hangs.is_err());
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_body() {
    let get = async |fault: Fault| {
        let (client, _) = client(Chaos::seeded(1).all(1.0, fault).enabled());
        client.get("https://a.example/").send().await.unwrap()
    };
    assert_eq!(get(Fault::corrupt_body(3)).await.bytes().await.unwrap()[..], *b"012\xcc456789");
    assert_eq!(get(Fault::corrupt_body(30)).await.bytes().await.unwrap()[..], *b"0123456789");
    let mut cut = get(Fault::cut_body(4)).await;
    assert_eq!(cut.content_length(), Some(10), "the head stays true");
    assert_eq!(cut.chunk().await.unwrap().unwrap()[..], *b"0123");
    assert!(cut.chunk().await.is_err());
    assert_eq!(get(Fault::cut_body(10)).await.bytes().await.unwrap().len(), 10);
    let mut stalled = get(Fault::stall_body(4)).await;
    assert_eq!(stalled.chunk().await.unwrap().unwrap().len(), 4);
    assert!(timeout(Duration::from_secs(60), stalled.chunk()).await.is_err());
    let start = Instant::now();
    assert_eq!(get(Fault::slow_body(5)).await.bytes().await.unwrap().len(), 10);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn chaos_inside_is_survived() {
    let chaos = Chaos::seeded(9)
        .host("*.example", 0.1, Fault::status(503))
        .host("*.example", 0.1, Fault::io_error(io::ErrorKind::ConnectionReset))
        .enabled();
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(config().max_retries(5).build().unwrap()))
        .with(chaos.clone())
        .with(Script::new([Reply::status(200).body("0123456789")]))
        .build();
    for page in 0..500 {
        let download = client.get(format!("https://a.example/{page}")).download();
        assert_eq!(download.bytes().await.unwrap()[..], *b"0123456789");
    }
    assert!((80..200).contains(&chaos.switch().injected()), "{:?}", chaos.switch());
}

/// Hands the request on.
struct Nothing;

#[async_trait::async_trait]
impl Middleware for Nothing {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        next.run(request, extensions).await
    }
}

/// `cargo test --release chaos_off -- --ignored --nocapture`; one load of an atomic, beside a
/// middleware that does nothing at all.
#[tokio::test]
#[ignore = "measures"]
async fn chaos_off_costs_nothing() {
    let time = async |client: ClientWithMiddleware| {
        let start = std::time::Instant::now();
        for _ in 0..300_000 {
            let _ = client.get("https://a.example/").send().await.unwrap();
        }
        start.elapsed().as_secs_f64() * 1e9 / 300_000.0
    };
    let script = || Script::new([]);
    for _ in 0..3 {
        let bare = time(ClientBuilder::new(idle_client()).with(script()).build()).await;
        let chaos = Chaos::seeded(1).all(1.0, Fault::hang());
        let off = ClientBuilder::new(idle_client()).with(chaos).with(script()).build();
        let nothing = ClientBuilder::new(idle_client()).with(Nothing).with(script()).build();
        let (off, nothing) = (time(off).await - bare, time(nothing).await - bare);
        println!("off {off:.1} ns, a middleware that does nothing {nothing:.1} ns");
    }
}
