//! Response bodies: cut at the deadline, read within the attempt, copied by blocking.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Extensions, HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{Resilient, ResilientConfigBuilder};

use crate::support::{URL, steady};

const SECOND: Duration = Duration::from_secs(1);

/// The end of a chain: responds 200 with a body of this making.
struct Responds(Box<dyn Fn() -> http::Response<Body> + Send + Sync>);

#[async_trait::async_trait]
impl Middleware for Responds {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        Ok((self.0)().into())
    }
}

fn responding(
    config: ResilientConfigBuilder,
    respond: impl Fn() -> http::Response<Body> + Send + Sync + 'static,
) -> ClientWithMiddleware {
    ClientBuilder::new(crate::support::idle_client())
        .with(Resilient::new(config.build().unwrap()))
        .with(Responds(Box::new(respond)))
        .build()
}

/// A body whose frames are all there.
struct Frames(Vec<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        Poll::Ready(next.map(Ok))
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-checksum".parse().unwrap(), HeaderValue::from_static("7"))])
}

/// Data in parts of four bytes, then trailers.
fn with_trailers(parts: usize) -> http::Response<Body> {
    let data = (0..parts).map(|_| Frame::data(Bytes::from_static(b"data")));
    let frames = data.chain([Frame::trailers(trailers())]).collect();
    http::Response::new(Body::wrap(Frames(frames)))
}

/// Reads a response to its end: data and trailers.
async fn frames(response: Response) -> (Vec<u8>, Option<HeaderMap>) {
    let mut body = http::Response::<Body>::from(response).into_body();
    let (mut data, mut trailers) = (vec![], None);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    (data, trailers)
}

#[tokio::test]
async fn the_deadline_cuts_a_body_whose_next_chunk_is_always_ready() {
    // As a fast server is: no chunk is waited for.
    let chunk = || Ok::<_, Infallible>(Bytes::from_static(&[0; 64]));
    let endless = move || {
        let chunks = stream::iter(std::iter::repeat_with(chunk));
        http::Response::new(Body::wrap_stream(chunks))
    };
    let start = Instant::now();
    let client = responding(steady().max_total_time(SECOND / 10), endless);
    let mut response = client.get(URL).send().await.unwrap();
    let error = loop {
        match response.chunk().await {
            Ok(chunk) => assert!(chunk.is_some() && start.elapsed() < 5 * SECOND, "never cut"),
            Err(error) => break error,
        }
    };
    assert!(error.is_timeout(), "{error:?}");
    assert!(start.elapsed() >= SECOND / 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_memory_is_not_cut() {
    let config = steady().max_total_time(SECOND).read_body(1024);
    let client = responding(config, || with_trailers(2));
    let response = client.get(URL).send().await.unwrap();
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(response.text().await.unwrap(), "datadata");
    // The end of a body is no news, however late it is seen.
    let client = responding(steady().max_total_time(SECOND), || with_trailers(1));
    let mut response = client.get(URL).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    tokio::time::advance(2 * SECOND).await;
    assert!(response.chunk().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn trailers_survive_being_read_within_the_attempt() {
    for (parts, limit) in [(0, 1024), (3, 1024), (3, 12), (3, 7), (3, 1)] {
        for config in [steady(), steady().max_total_time(SECOND)] {
            let client = responding(config.read_body(limit), move || with_trailers(parts));
            let response = client.get(URL).send().await.unwrap();
            let expected = ("data".repeat(parts).into_bytes(), Some(trailers()));
            assert_eq!(frames(response).await, expected, "{parts} {limit}");
        }
    }
    let config = steady().read_body(1024).retry_if(|it| it.body().is_some_and(|it| it.len() < 9));
    let client = responding(config, || with_trailers(3));
    assert_eq!(frames(client.get(URL).send().await.unwrap()).await.1, Some(trailers()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_is_not_held_up() {
    for media_type in [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "Text/Event-Stream ;x",
        "multipart/x-mixed-replace; boundary=b",
    ] {
        let client = responding(steady().read_body(1024), move || {
            // The first event at once, the next in an hour.
            let event = stream::once(async { Ok::<_, Infallible>("data: 1\n\n") });
            let later = stream::once(async {
                tokio::time::sleep(3600 * SECOND).await;
                Ok("data: 2\n\n")
            });
            let body = Body::wrap_stream(event.chain(later));
            http::Response::builder().header("content-type", media_type).body(body).unwrap()
        });
        let start = tokio::time::Instant::now();
        let mut response = client.get(URL).send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n");
        assert_eq!(start.elapsed(), Duration::ZERO, "{media_type}");
    }
}

#[cfg(feature = "blocking")]
mod blocking {
    use std::io::{self, Write};

    use reqwest_resilient::blocking::ResilientClient;

    use super::*;
    use crate::support::reply::Reply;
    use crate::support::server::Server;

    fn get(reply: Reply) -> (Server, reqwest_resilient::blocking::Response) {
        let server = Server::h1([reply.into()]);
        let client = ResilientClient::new(steady().build().unwrap()).unwrap();
        let response = client.get(server.url("/")).send().unwrap();
        (server, response)
    }

    #[test]
    fn a_copy_that_is_refused_in_async_code_loses_nothing() {
        let (_server, mut response) = get(Reply::status(200).body("all of it"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let refused = runtime.block_on(async { response.copy_to(&mut io::sink()) });
        assert!(refused.unwrap_err().to_string().contains("spawn_blocking"));
        let mut copy = vec![];
        assert_eq!(response.copy_to(&mut copy).unwrap(), 9);
        assert_eq!(copy, b"all of it");
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_copy_ends_at_once_when_its_writer_fails() {
        // Four bytes every two seconds: the first part fails, the second is not waited for.
        let drip = Reply::status(200).body("one two three four").drip(4, 2 * SECOND);
        let (_server, mut response) = get(drip);
        let start = Instant::now();
        let error = response.copy_to(&mut Full).unwrap_err();
        assert!(matches!(error, reqwest_middleware::Error::Middleware(_)), "{error:?}");
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        // The rest of the body can still be read.
        let mut rest = vec![];
        response.copy_to(&mut rest).unwrap();
        assert_eq!(rest, b"two three four");
    }
}
