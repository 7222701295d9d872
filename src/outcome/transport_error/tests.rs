//! Errors as middleware and transports return them.

use super::*;

fn url() -> Url {
    "http://a.example/".parse().expect("a URL")
}

/// Returns the failure of an error that a middleware returned.
fn of_middleware(error: &(dyn Error + 'static)) -> Failure {
    AttemptError { error, transport: None, sent: &url(), after_head: false }.read()
}

#[test]
fn an_io_error_proves_nothing_and_says_nothing_of_the_host() {
    let check = |io, kind| {
        let error = io::Error::new(io, "it happened");
        assert_eq!(of_middleware(&error), Failure::local(kind, MaybeProcessed));
        assert_eq!(root_text(&error), "it happened");
    };
    check(io::ErrorKind::ConnectionRefused, FailureKind::Connect);
    check(io::ErrorKind::HostUnreachable, FailureKind::Disconnect);
    check(io::ErrorKind::ConnectionReset, FailureKind::Disconnect);
    check(io::ErrorKind::BrokenPipe, FailureKind::Disconnect);
    check(io::ErrorKind::TimedOut, FailureKind::Timeout);
    check(io::ErrorKind::InvalidInput, FailureKind::Other);
}

#[test]
fn a_request_that_cannot_be_built_is_permanent() {
    let error = reqwest::Client::new().get("nonsense").build().unwrap_err();
    assert_eq!(kind_of(&error), FailureKind::Builder);
    let failure = of_middleware(&error);
    assert_eq!((failure.kind, failure.delivery), (FailureKind::Builder, MaybeProcessed));
}

#[test]
fn an_endless_chain_ends() {
    #[derive(Debug)]
    struct Ring;
    impl fmt::Display for Ring {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ring")
        }
    }
    impl Error for Ring {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Self)
        }
    }
    assert_eq!(of_middleware(&Ring).kind, FailureKind::Other);
}

#[test]
fn errors_of_our_own_have_their_words() {
    let error = BodyFactoryError("no file".into());
    assert_eq!(error.to_string(), "the body of the request could not be made");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no file"));
    #[cfg(feature = "test-util")]
    {
        let error = ScriptedError(io::ErrorKind::ConnectionReset.into());
        assert_eq!(error.to_string(), error.0.to_string());
    }
}

#[test]
fn a_response_that_a_middleware_made_an_error_has_its_status() {
    use reqwest::ResponseBuilderExt;
    let response = http::Response::builder().status(503).url(url()).body("").unwrap();
    let error = reqwest::Response::from(response).error_for_status().unwrap_err();
    let failure = of_middleware(&error);
    assert_eq!((failure.kind, failure.delivery), (FailureKind::Status, MaybeProcessed));
    assert_eq!(failure.status, Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn only_a_connection_that_broke_before_a_response_may_be_stale() {
    // The server closes the connection once a request came.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let url: Url = format!("http://127.0.0.1:{port}/").parse().expect("a URL");
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        io::Read::read(&mut connection, &mut [0; 1024]).expect("a request");
    });
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let error = client.get(url.clone()).send().await.unwrap_err();
    server.join().expect("a server that did not panic");
    for (transport, after_head, may_be_stale) in
        [(Some(&error), false, true), (Some(&error), true, false), (None, false, false)]
    {
        let failure = AttemptError { error: &error, transport, sent: &url, after_head }.read();
        assert_eq!((failure.kind, failure.concerns_host), (FailureKind::Disconnect, true));
        assert_eq!(failure.may_be_stale, may_be_stale, "after a head: {after_head}");
    }
}

#[test]
fn a_status_of_another_request_is_not_this_one_s() {
    use reqwest::ResponseBuilderExt;
    let ours = |by| Some((FailureKind::Status, by));
    let (answered, unknown, other) = (ours(Responded), ours(MaybeProcessed), None);
    // URLs as sent and as in the error, and what the error says as one of a middleware and as the
    // transport's own.
    for (sent, by, of_middleware, of_transport) in [
        ("http://a.example/x/y", "http://a.example/x/y?z", unknown, answered),
        ("http://a.example/x/y", "http://a.example/z", unknown, unknown),
        ("http://a.example/x/y", "http://b.example/x/y", other, unknown),
        ("http://a.example/x/y", "http://b.example/mirror/x/y", other, unknown),
        ("http://a.example/mirror/x/y", "http://b.example/x/y", other, unknown),
        ("http://a.example/x/y", "http://b.example/z", other, other),
        ("http://a.example/x/y", "http://a.example:81/z", other, other),
        ("http://a.example/x/y", "https://a.example:80/z", other, other),
        ("http://a.example/", "http://b.example/x/", other, other),
    ] {
        let (sent, by): (Url, Url) = (sent.parse().unwrap(), by.parse().unwrap());
        let response = http::Response::builder().status(503).url(by.clone()).body("").unwrap();
        let error = &reqwest::Response::from(response).error_for_status().unwrap_err();
        for (transport, expected) in [(None, of_middleware), (Some(error), of_transport)] {
            let failure = AttemptError { error, transport, sent: &sent, after_head: false }.read();
            let found = failure.status.map(|_| (failure.kind, failure.delivery));
            assert_eq!(found, expected, "{by} for {sent}, transport: {}", transport.is_some());
        }
    }
}

/// Returns the error of a request over a connection of hyper's own, whose ends `meanwhile` gets.
async fn of_hyper<F: Future<Output = ()>>(
    body: reqwest::Body,
    meanwhile: impl FnOnce(tokio::task::JoinHandle<()>, tokio::io::DuplexStream) -> F,
) -> hyper::Error {
    let (client, server) = tokio::io::duplex(1024);
    let io = hyper_util::rt::TokioIo::new(client);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.expect("a connection");
    let connection = tokio::spawn(async move { drop(connection.await) });
    let request =
        http::Request::post("/").header("host", "a.example").body(body).expect("a request");
    let (response, ()) = tokio::join!(sender.send_request(request), meanwhile(connection, server));
    response.unwrap_err()
}

#[tokio::test]
async fn errors_of_hyper_say_what_became_of_the_connection() {
    use tokio::io::AsyncReadExt;
    let canceled = of_hyper("".into(), async |connection, _server| connection.abort()).await;
    assert_eq!(of_middleware(&canceled).kind, FailureKind::Disconnect, "{canceled:?}");
    let incomplete = of_hyper("".into(), async |_, mut server| {
        server.read_u8().await.expect("a first byte");
    });
    let incomplete = incomplete.await;
    assert!(incomplete.is_incomplete_message());
    assert_eq!(of_middleware(&incomplete).kind, FailureKind::Disconnect);
}

#[tokio::test]
async fn a_body_of_the_caller_that_fails_is_no_lost_connection() {
    let failing = futures_util::stream::iter([Err::<String, _>(io::Error::other("no more"))]);
    let of_caller = of_hyper(reqwest::Body::wrap_stream(failing), async |connection, _server| {
        connection.await.expect("a task that did not panic");
    });
    let of_caller = of_caller.await;
    assert!(of_caller.is_user());
    assert_eq!(of_middleware(&of_caller).kind, FailureKind::Other);
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_that_stays_silent_timed_out() {
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    let (client, _server) = tokio::io::duplex(1024);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(std::time::Duration::from_secs(1));
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(client)).await.expect("a connection");
    tokio::spawn(connection);
    let request = http::Request::get("http://a.example/").body(String::new()).expect("a request");
    let error = sender.send_request(request).await.unwrap_err();
    assert_eq!(of_middleware(&error).kind, FailureKind::Timeout, "{error:?}");
}

#[tokio::test]
async fn a_request_that_failed_for_an_unknown_reason_counts_as_a_lost_connection() {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.get(url()).version(http::Version::HTTP_09);
    let error = request.send().await.unwrap_err();
    assert!(error.is_request() && !error.is_connect());
    assert_eq!(of_middleware(&error).kind, FailureKind::Disconnect);
}

#[cfg(feature = "http2")]
#[test]
fn an_error_of_http2_is_the_transport_s_whatever_is_around_it() {
    assert!(is_transport(&h2::Error::from(h2::Reason::CANCEL)));
    assert!(!is_transport(&io::Error::other("no more")));
}
