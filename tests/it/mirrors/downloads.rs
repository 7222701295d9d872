//! Downloads over several endpoints: bytes of two servers are joined only if a digest proves them.

use bytes::Bytes;
use http::{HeaderValue, header};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{DownloadExt, Mirrors, Resilient, Verifier};

use crate::support::{idle_client, steady};

const OWN: &str = "https://a.example/base/file";

/// Expects these bytes.
struct Expects(&'static [u8], Vec<u8>);

impl Verifier for Expects {
    fn restart(&mut self) {
        self.1.clear();
    }

    fn update(&mut self, bytes: &[u8]) {
        self.1.extend_from_slice(bytes);
    }

    fn finish(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.1 == self.0 { Ok(()) } else { Err("other bytes".into()) }
    }
}

fn whole(body: &'static str, etag: &'static str) -> Reply {
    Reply::status(200)
        .header(header::ETAG, HeaderValue::from_static(etag))
        .header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))
        .body(body)
}

fn rest(from: usize, body: &'static str, etag: &'static str) -> Reply {
    let last = body.len() - 1;
    let range = HeaderValue::try_from(format!("bytes {from}-{last}/{}", body.len())).unwrap();
    Reply::status(206)
        .header(header::ETAG, HeaderValue::from_static(etag))
        .header(header::CONTENT_RANGE, range)
        .header(header::CONTENT_LENGTH, HeaderValue::from(body.len() - from))
        .body(Bytes::from_static(&body.as_bytes()[from..]))
}

/// Downloads into a file from two endpoints, the first of which breaks after four bytes and is gone
/// then. Returns the bytes, and each request's host and range.
async fn download(second: [Reply; 2], digest: Option<&'static [u8]>) -> (String, Vec<String>) {
    let script = Script::new([])
        .for_host(
            "a.example",
            [whole("0123456789", "\"v1\"").body_breaks_after(4), Reply::status(503)],
        )
        .for_host("b.example", second);
    let mirrors = Mirrors::new("https://a.example/base").also("https://b.example/");
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(steady().mirrors(mirrors).build().unwrap()))
        .with(script.clone())
        .build();
    let folder = tempdir();
    let file = folder.join("file");
    let mut download = client.get(OWN).download();
    if let Some(digest) = digest {
        download = download.verify(Expects(digest, vec![]));
    }
    download.to_file(&file).await.unwrap();
    let read = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let sent = script.sent().into_iter().map(|it| {
        let range = it.headers.get(header::RANGE).map_or("", |it| it.to_str().unwrap());
        format!("{} {range}", it.url.host_str().unwrap())
    });
    let sent = sent.collect();
    (read, sent)
}

fn tempdir() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("mirrors-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn without_a_digest_a_download_starts_over_at_another_endpoint() {
    // An equal tag of another server proves nothing: the bytes differ.
    let other = || whole("abcdefghij", "\"v1\"");
    let (read, sent) = download([other(), other()], None).await;
    assert_eq!(read, "abcdefghij");
    assert_eq!(sent, ["a.example ", "a.example bytes=4-", "b.example "]);
}

#[tokio::test]
async fn with_a_digest_and_an_equal_strong_tag_it_goes_on_there() {
    let second = || rest(4, "0123456789", "\"v1\"");
    let (read, sent) = download([second(), second()], Some(b"0123456789")).await;
    assert_eq!(read, "0123456789");
    assert_eq!(sent, ["a.example ", "a.example bytes=4-", "b.example bytes=4-"]);
}

#[tokio::test]
async fn with_a_digest_and_another_tag_it_starts_over() {
    let second = || whole("abcdefghij", "\"v2\"");
    let (read, sent) = download([second(), second()], Some(b"abcdefghij")).await;
    assert_eq!(read, "abcdefghij");
    assert_eq!(sent, ["a.example ", "a.example bytes=4-", "b.example bytes=4-"]);
}

#[tokio::test]
async fn a_part_from_an_endpoint_that_was_asked_for_the_whole_is_refused() {
    // A server that sends a range unasked: nothing is joined, it starts over.
    let (part, full) = (rest(4, "abcdefghij", "\"v1\""), whole("abcdefghij", "\"v1\""));
    let (read, _) = download([part, full], None).await;
    assert_eq!(read, "abcdefghij");
}

/// Returns the result of a download from two endpoints that respond with these bytes; `good` is
/// expected.
async fn verified(bodies: [&'static str; 2]) -> (Result<String, String>, usize) {
    let [first, second] = bodies.map(|it| [whole(it, "\"v\"")]);
    let script = Script::new([]).for_host("a.example", first).for_host("b.example", second);
    let mirrors = Mirrors::new("https://a.example/base").also("https://b.example/");
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(steady().mirrors(mirrors).build().unwrap()))
        .with(script.clone())
        .build();
    let result = client.get(OWN).download().verify(Expects(b"good", vec![])).bytes().await;
    let result = result.map(|it| String::from_utf8(it.to_vec()).unwrap());
    (result.map_err(|it| it.to_string()), script.sent().len())
}

#[tokio::test]
async fn bytes_that_are_wrong_are_fetched_from_another_endpoint() {
    assert_eq!(verified(["good", "bad!"]).await, (Ok("good".to_owned()), 1));
    assert_eq!(verified(["bad!", "good"]).await, (Ok("good".to_owned()), 2));
    let (result, sent) = verified(["bad!", "evil"]).await;
    assert!(result.is_err());
    assert_eq!(
        sent, 3,
        "each endpoint is tried once, and one of them to see that there is no other"
    );
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_whose_rest_was_wrong_is_the_one_that_is_left() {
    let right = whole("0123456789", "\"v1\"");
    let script = Script::new([])
        .for_host("a.example", [right.clone().body_breaks_after(4), Reply::status(503), right])
        .for_host("b.example", [rest(4, "0123WRONG!", "\"v1\"")]);
    let mirrors = Mirrors::new("https://a.example/base").also("https://b.example/");
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(steady().mirrors(mirrors).build().unwrap()))
        .with(script.clone())
        .build();
    let download = client.get(OWN).download().verify(Expects(b"0123456789", vec![]));
    assert_eq!(download.bytes().await.unwrap(), "0123456789");
    let hosts: Vec<_> =
        script.sent().iter().map(|it| it.url.host_str().unwrap().to_owned()).collect();
    assert_eq!(hosts, ["a.example", "a.example", "b.example", "a.example"]);
}
