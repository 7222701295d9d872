//! Defects that were found in reqwest-retry 0.9 and in the retries of reqwest 0.13, by their
//! numbers in our notes: none of them is here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Extensions, Method};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    AttemptLog, BudgetConfig, Constant, HostStates, HttpRequestError, Resilient, ResponseExt,
    RetryBudget, RetryOverride, StopReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::{ms, plain, quick, resilient, resilient_on};
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

#[tokio::test]
async fn reqwest_retry_01_a_post_is_not_replayed() {
    let server = Server::h1([Reply::status(500).into()]);
    let client = resilient(quick(), plain());
    client.post(server.url("/")).body("once").send().await.unwrap();
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn reqwest_retry_02_the_response_is_not_held_over_the_backoff() {
    // A body that is given up: its connection is closed while the client waits.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let config = quick().max_retries(1).backoff(Constant::new(Duration::from_secs(60)));
    let client = resilient(config, plain());
    let waiting = tokio::spawn(async move { client.get(url).send().await });
    let (mut socket, _) = listener.accept().await.unwrap();
    let _ = socket.read(&mut [0; 4096]).await.unwrap();
    socket.write_all(b"HTTP/1.1 503 x\r\ncontent-length: 9\r\n\r\nhel").await.unwrap();
    let end = timeout(Duration::from_secs(10), socket.read(&mut [0])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "the connection is still held");
    assert!(!waiting.is_finished());
    waiting.abort();

    // One that is read to its end: its connection serves others while the client waits.
    let server = Server::h1([Reply::status(503).body("busy").into(), Reply::status(200).into()]);
    let config = quick().max_retries(1).backoff(Constant::new(ms(500)));
    let client = resilient(config, plain());
    let other = async {
        while server.requests() == 0 {
            sleep(ms(5)).await;
        }
        sleep(ms(100)).await;
        client.get(server.url("/other")).send().await.unwrap();
    };
    let (first, ()) = tokio::join!(client.get(server.url("/")).send(), other);
    assert_eq!((first.unwrap().attempts(), server.requests(), server.connections()), (2, 3, 1));
}

#[tokio::test]
async fn reqwest_retry_03_a_failed_body_of_up_to_64_kib_costs_no_connection() {
    let server = Server::h1([Reply::status(503).body(vec![b'x'; 60 << 10]).into()]);
    resilient(quick().max_retries(9), plain()).get(server.url("/")).send().await.unwrap();
    assert_eq!(server.requests(), 10);
    assert!(server.connections() <= 3, "{} connections", server.connections());
}

#[tokio::test]
async fn reqwest_retry_04_an_error_comes_back_untouched() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/");
    // Even through two of them.
    let once = || Resilient::new(quick().max_retries(1).build().unwrap());
    let client = ClientBuilder::new(plain()).with(once()).with(once()).build();
    let log = AttemptLog::new();
    let error = client.get(&url).with_extension(log.clone()).send().await.unwrap_err();
    assert!(error.is_connect() && error.is_request());
    assert_eq!(error.url().unwrap().as_str(), url);
    // The inner one gave up after two attempts; the outer one does not retry.
    assert_eq!(log.attempts(), 1);
}

#[tokio::test]
async fn reqwest_retry_05_the_total_time_is_kept() {
    let server = Server::h1([Reply::status(503).late(ms(2_000)).into()]);
    let client = resilient(quick().max_total_time(ms(300)), plain());
    let start = Instant::now();
    let error = client.get(server.url("/")).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).unwrap().is_deadline());
    assert!(start.elapsed() < ms(1_500));

    // A wait that would end too late does not begin.
    let server = Server::h1([Reply::status(503).into()]);
    let config = quick().backoff(Constant::new(ms(2_000))).max_total_time(ms(300));
    let start = Instant::now();
    let response = resilient(config, plain()).get(server.url("/")).send().await.unwrap();
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Deadline));
    assert!(start.elapsed() < ms(300));
}

#[tokio::test]
async fn reqwest_retry_07_attempts_do_not_share_their_extensions() {
    /// A count of the passes of this map of extensions.
    #[derive(Clone, Default)]
    struct Passed(usize);

    struct Counter(Arc<Mutex<Vec<usize>>>);

    #[async_trait::async_trait]
    impl Middleware for Counter {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            let Passed(before) = extensions.get_or_insert_default();
            self.0.lock().unwrap().push(*before);
            *before += 1;
            next.run(request, extensions).await
        }
    }

    let server = Server::h1([Reply::status(503).into()]);
    let seen = Arc::default();
    let client = ClientBuilder::new(plain())
        .with(Resilient::new(quick().build().unwrap()))
        .with(Counter(Arc::clone(&seen)))
        .build();
    let mut extensions = Extensions::new();
    let request = client.get(server.url("/")).build().unwrap();
    client.execute_with_extensions(request, &mut extensions).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 0, 0]);
    // Those of the last attempt are kept.
    assert_eq!(extensions.get::<Passed>().unwrap().0, 1);
}

#[tokio::test]
async fn reqwest_retry_08_a_body_that_cannot_be_copied_is_sent_once() {
    let server = Server::h1([Reply::status(503).into()]);
    let client = resilient(quick(), plain());
    let stream = Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("one")]));
    let form = reqwest::multipart::Form::new().text("name", "value");
    for request in [
        plain().put(server.url("/stream")).body(stream),
        plain().put(server.url("/form")).multipart(form),
    ] {
        let response = client.execute(request.build().unwrap()).await.unwrap();
        let history = response.history().unwrap();
        assert_eq!((response.status().as_u16(), response.attempts()), (503, 1));
        assert_eq!(history.stop_reason(), Some(StopReason::NotReplayable));
    }
    assert_eq!(server.requests(), 2);
    assert!(server.seen().iter().all(|it| !it.body.is_empty()));
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn reqwest_retry_11_what_breaks_in_http2_is_retried() {
    use crate::support::h2::Stream;
    use h2::Reason;

    for broken in [
        Stream::GoAwayBefore(Reason::NO_ERROR),
        Stream::GoAwayAfter(Reason::NO_ERROR),
        Stream::Reset(Reason::INTERNAL_ERROR),
        Stream::Reset(Reason::CANCEL),
        Stream::Unanswered(End::Drop),
    ] {
        let server = Server::h2([broken, Reply::status(200).into()]);
        let client = resilient(quick(), super::plain_h2());
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.attempts()), (200, 2));
    }
}

#[tokio::test]
async fn reqwest_retry_12_a_lost_answer_is_no_proof_that_nothing_was_done() {
    let server = Server::h1([Fault::Unanswered(End::Close).into()]);
    let client = resilient(quick(), plain());
    let error = client.post(server.url("/")).body("once").send().await.unwrap_err();
    assert!(error.is_request());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn reqwest_retry_14_what_the_server_will_never_do_is_not_asked_twice() {
    for status in [501, 505, 511] {
        assert_eq!(requests(Method::GET, Reply::status(status)).await, 1, "{status}");
    }
}

#[tokio::test]
async fn reqwest_01_what_is_exempt_is_not_retried_even_once() {
    let server = Server::h1([Reply::status(503).into()]);
    let client = resilient(quick(), plain());
    let exempt = RetryOverride::new().max_retries(0);
    client.get(server.url("/")).with_extension(exempt).send().await.unwrap();
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn reqwest_02_a_server_that_asks_for_time_gets_it() {
    let asks = Reply::status(503).header("retry-after-ms", "200");
    let server = Server::h1([asks.into(), Reply::status(200).into()]);
    let start = Instant::now();
    resilient(quick(), plain()).get(server.url("/")).send().await.unwrap();
    assert!(start.elapsed() >= ms(200));
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn reqwest_03_own_statuses_do_not_switch_off_what_the_protocol_refuses() {
    use crate::support::h2::Stream;

    let server = Server::h2([Stream::Refuse, Reply::status(200).into()]);
    let config = quick().retry_statuses([http::StatusCode::BAD_GATEWAY]);
    let response = resilient(config, super::plain_h2()).get(server.url("/")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.begun()), (200, 2));
}

#[tokio::test]
async fn reqwest_04_every_success_pays_in_and_nothing_else_does() {
    let steps = [503, 200, 404, 500, 200];
    let server = Server::h1(steps.map(|status| Reply::status(status).into()));
    let one = BudgetConfig::default().size(10).deposit(0.25).retry_deposit(0.25).trickle(0.0);
    let hosts = HostStates::new();
    let client = resilient_on(&hosts, quick().retry_budget(RetryBudget::shared(one)), plain());
    let balance = || hosts.budget_left("", Instant::now()).unwrap();
    // The last attempt of several.
    client.get(server.url("/")).send().await.unwrap();
    assert_eq!(balance(), 9.25);
    for paid in [9.25, 9.25, 9.5] {
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>("streamed")]);
        client.post(server.url("/")).body(Body::wrap_stream(body)).send().await.unwrap();
        assert_eq!(balance(), paid);
    }
}

#[tokio::test]
async fn reqwest_05_what_is_discarded_is_drained() {
    let late = Reply::status(503).body("hello").body_late(ms(5));
    let server = Server::h1([late.into()]);
    resilient(quick().max_retries(9), plain()).get(server.url("/")).send().await.unwrap();
    assert_eq!(server.requests(), 10);
    assert!(server.connections() <= 3, "{} connections", server.connections());
}

/// Returns how many requests of a kind reach a server that always gives this reply.
async fn requests(method: Method, reply: Reply) -> usize {
    let server = Server::h1([reply.into()]);
    let client: ClientWithMiddleware = resilient(quick(), plain());
    client.request(method, server.url("/")).send().await.unwrap();
    server.requests()
}
