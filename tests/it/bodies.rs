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
use reqwest_resilient::testing::{Chaos, Fault, Reply as Scripted, Script};
use reqwest_resilient::{
    Hedge, Resilient, ResilientClient, ResilientConfigBuilder, ResponseExt, RetryOverride,
    TimeLimit,
};

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
async fn a_body_whose_first_byte_was_waited_for_is_whole() {
    // A `.` is an empty frame, a `d` one of data, a `t` one of trailers.
    for parts in ["", ".", "t", ".t", "d", "ddd", ".d", "..d.d", "dt", "dddt", ".dt"] {
        let config = steady().hedge(Hedge::after(SECOND).until_first_byte());
        let client = responding(config, move || {
            let frame = |it| match it {
                'd' => Frame::data(Bytes::from_static(b"data")),
                't' => Frame::trailers(trailers()),
                _ => Frame::data(Bytes::new()),
            };
            http::Response::new(Body::wrap(Frames(parts.chars().map(frame).collect())))
        });
        let response = client.get(URL).send().await.unwrap();
        let data = "data".repeat(parts.matches('d').count()).into_bytes();
        let expected = (data, parts.contains('t').then(trailers));
        assert_eq!(frames(response).await, expected, "{parts:?}");
    }
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
    use std::io::{self, Read as _, Write};

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

    #[test]
    fn a_body_is_read_in_pieces_of_any_size() {
        let text = "one two three four five";
        for size in [1, 3, 64] {
            let (_server, mut response) = get(Reply::status(200).body(text).drip(4, SECOND / 100));
            let (mut all, mut piece) = (vec![], vec![0; size]);
            assert_eq!(response.read(&mut []).unwrap(), 0, "asks for nothing");
            loop {
                let read = response.read(&mut piece).unwrap();
                if read == 0 {
                    break;
                }
                all.extend_from_slice(&piece[..read]);
            }
            assert_eq!(String::from_utf8(all).unwrap(), text, "{size}");
            assert_eq!(response.status(), 200, "the head is still there");
        }
    }

    #[test]
    fn the_other_readers_go_on_where_a_read_ended() {
        let begun = || {
            let reply = Reply::status(200).body("one two three").drip(5, SECOND / 100);
            let server = Server::h1([reply.into()]);
            // Its runtime drives the connection.
            let client = ResilientClient::new(steady().build().unwrap()).unwrap();
            let mut response = client.get(server.url("/")).send().unwrap();
            let mut start = [0; 3];
            response.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"one");
            ((server, client), response)
        };
        let (_kept, response) = begun();
        assert_eq!(response.text().unwrap(), " two three");
        let (_kept, response) = begun();
        assert_eq!(response.bytes().unwrap(), " two three");
        let (_kept, mut response) = begun();
        let mut copy = vec![];
        assert_eq!(response.copy_to(&mut copy).unwrap(), 10);
        assert_eq!(copy, b" two three");
        let (_kept, response) = begun();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert_eq!(runtime.block_on(response.into_inner().text()).unwrap(), " two three");
    }

    #[test]
    fn a_read_that_is_refused_in_async_code_loses_nothing() {
        let (_server, mut response) = get(Reply::status(200).body("all of it"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let refused = runtime.block_on(async { response.read(&mut [0; 4]) });
        assert!(refused.unwrap_err().to_string().contains("spawn_blocking"));
        assert_eq!(io::read_to_string(response).unwrap(), "all of it");
    }

    #[test]
    fn the_body_of_an_error_is_read_again_and_again() {
        let server = Server::h1([Reply::status(404).body("[1, 2]").into()]);
        let client = ResilientClient::new(steady().build().unwrap()).unwrap();
        let mut error = client.get(server.url("/")).send_resilient().unwrap_err();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert!(runtime.block_on(async { error.blocking_text() }).is_err(), "refused");
        assert_eq!(error.blocking_text().unwrap(), "[1, 2]");
        #[cfg(feature = "json")]
        assert_eq!(error.blocking_json::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!((error.status().unwrap().as_u16(), error.attempts()), (404, 1));
        assert_eq!(error.blocking_bytes().unwrap(), "[1, 2]");
        assert_eq!(error.into_blocking_response().unwrap().text().unwrap(), "[1, 2]");
    }

    #[test]
    fn the_error_of_an_async_client_is_none_to_read_by_blocking() {
        let client = responding(steady(), || {
            http::Response::builder().status(404).body("gone".into()).unwrap()
        });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let sent = reqwest_resilient::RequestBuilderExt::send_resilient(client.get(URL));
        let mut error = runtime.block_on(sent).unwrap_err();
        assert!(error.blocking_text().unwrap_err().to_string().contains("async methods"));
        assert_eq!(runtime.block_on(error.text()).unwrap(), "gone");
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

/// Returns the time after which reading the stalled body of a `ResilientClient` fails, within an hour.
async fn stalls_after(
    config: ResilientConfigBuilder,
    over: RetryOverride,
    reply: Scripted,
) -> Option<Duration> {
    let chaos = Chaos::seeded(1).all(1.0, Fault::stall_body(4)).enabled();
    let client = ResilientClient::builder()
        .config(config.build().unwrap())
        .with(chaos)
        .with(Script::new([reply]))
        .build()
        .unwrap();
    let mut response = client.get(URL).with_extension(over).send_resilient().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 4);
    for _ in 0..10 {
        // A reader that looks for a moment, and pauses for a minute.
        assert!(tokio::time::timeout(SECOND / 10, response.chunk()).await.is_err());
        tokio::time::sleep(60 * SECOND).await;
    }
    let start = tokio::time::Instant::now();
    let error = tokio::time::timeout(3_600 * SECOND, response.chunk()).await.ok()?.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    Some(start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_resilient_client_may_not_be_silent_while_it_is_read() {
    let (none, text) = (RetryOverride::new(), Scripted::status(200).body("0123456789"));
    let near = |after: Option<Duration>, most| {
        let after = after.expect("it stalls");
        assert!((most - 2 * SECOND..=most + SECOND).contains(&after), "{after:?}");
    };
    near(stalls_after(steady(), none.clone(), text.clone()).await, 30 * SECOND);
    let five = none.clone().stall_timeout(5 * SECOND);
    near(stalls_after(steady(), five, text.clone()).await, 5 * SECOND);
    let nine = steady().stall_timeout(9 * SECOND);
    near(stalls_after(nine, none.clone(), text.clone()).await, 9 * SECOND);

    let without = none.clone().without_stall_timeout();
    assert_eq!(stalls_after(steady(), without, text.clone()).await, None);
    let kind = HeaderValue::from_static("text/event-stream;charset=utf-8");
    let events = text.header(http::header::CONTENT_TYPE, kind);
    assert_eq!(stalls_after(steady(), none, events).await, None, "its silence means nothing");
}

/// A client whose bodies are read within the attempt, without any limit but that of a stall.
fn reading(config: ResilientConfigBuilder, script: &Script) -> ResilientClient {
    let config = config.without_attempt_timeout().stall_timeout(5 * SECOND);
    let builder = ResilientClient::builder().config(config.build().unwrap());
    builder.with(script.clone()).build().unwrap()
}

/// The settings by which an attempt ends within the body.
fn readers() -> [ResilientConfigBuilder; 2] {
    [steady().read_body(1 << 20), steady().hedge(Hedge::after(60 * SECOND).until_first_byte())]
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_while_it_is_read_within_the_attempt_is_a_failed_attempt() {
    let stalls = |after| Scripted::status(200).body("half a page").body_stalls_after(after);
    let [whole, begun] = readers();
    for (config, after) in [(whole.clone(), 2), (whole, 0), (begun, 0)] {
        let script = Script::new([stalls(after), Scripted::status(200).body("a page")]);
        let start = tokio::time::Instant::now();
        let sending = reading(config, &script).get(URL).send_resilient();
        let response = tokio::time::timeout(60 * SECOND, sending).await.expect("a limit").unwrap();
        let took = start.elapsed();
        assert!((6 * SECOND..=7 * SECOND).contains(&took), "its limit and a backoff: {took:?}");
        assert_eq!(response.attempts(), 2);
        assert_eq!(response.text().await.unwrap(), "a page");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ended_by_a_stall_names_the_limit() {
    for config in readers() {
        let script = Script::new([Scripted::status(200).body("page").body_stalls_after(0)]);
        let sending = reading(config.max_retries(0), &script).get(URL).send_resilient();
        let ended = tokio::time::timeout(60 * SECOND, sending).await.expect("a limit");
        let error = ended.unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.time_limit(), Some((TimeLimit::StallTimeout, 5 * SECOND)));
        let text = "GET request to https://api.example.com/data timed out after 5 s \
                    (stall_timeout), 1 attempt";
        assert_eq!(error.to_string(), text);
    }
}

/// A body of parts that come every four seconds.
fn slow(parts: u32) -> Body {
    let part = move |at| async move {
        (at < parts).then_some(())?;
        tokio::time::sleep(4 * SECOND).await;
        Some((Ok::<_, Infallible>("part "), at + 1))
    };
    Body::wrap_stream(stream::unfold(0, part))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_slow_and_a_stream_of_events_are_no_stall_within_the_attempt() {
    for (media_type, parts, limit) in
        [("text/plain", 10, 5 * SECOND), ("text/event-stream", 1, SECOND)]
    {
        for config in readers() {
            let head = move || http::Response::builder().header("content-type", media_type);
            let server = Responds(Box::new(move || head().body(slow(parts)).unwrap()));
            let config = config.without_attempt_timeout().stall_timeout(limit).max_retries(0);
            let builder = ResilientClient::builder().config(config.build().unwrap());
            let client = builder.with(server).build().unwrap();
            let response = client.get(URL).send_resilient().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "part ".repeat(parts as usize));
        }
    }
}
