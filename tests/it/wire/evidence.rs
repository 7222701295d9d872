//! Proofs that a request was not sent: only the transport's own error, a refusal of the protocol,
//! or the marker of a middleware.

use std::io;
use std::time::Duration;

use reqwest::Body;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use reqwest_resilient::testing::Reply as Mock;
use reqwest_resilient::{
    AttemptLog, BodyFactory, BreakerConfig, BreakerState, Delivery, FailureKind, HostStates,
    NotSent, Resilient, ResilientClient, ResilientConfigBuilder, RetryMethods, StopReason,
};

use super::{ms, plain, quick};
use crate::support::inside::{Inside, does};
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;
use crate::support::{URL, fault, scripted};

/// A client with a middleware inside: one of the user's own, or ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Foreign,
    Ours,
}

impl Whose {
    fn client(
        self,
        hosts: &HostStates,
        config: ResilientConfigBuilder,
        inside: Inside,
    ) -> ClientWithMiddleware {
        let config = config.build().unwrap();
        match self {
            Self::Foreign => {
                let resilient = Resilient::new(config).with_hosts(hosts.clone());
                ClientBuilder::new(plain()).with(resilient).with(inside).build()
            }
            Self::Ours => ResilientClient::builder()
                .config(config)
                .hosts(hosts.clone())
                .with(inside)
                .build()
                .unwrap()
                .inner()
                .clone(),
        }
    }
}

const BOTH: [Whose; 2] = [Whose::Foreign, Whose::Ours];

/// Returns the log of a POST through a client with this middleware.
async fn post(whose: Whose, inside: Inside, url: String) -> AttemptLog {
    let log = AttemptLog::new();
    let client = whose.client(&HostStates::new(), quick(), inside);
    let _ = client.post(url).body("once").with_extension(log.clone()).send().await;
    log
}

/// A URL that refuses connections.
fn closed_port() -> reqwest::Url {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", closed.local_addr().unwrap()).parse().unwrap()
}

/// Returns the error of another request, to an unreachable server.
fn refused() -> reqwest::Error {
    fault::refused()
}

/// Errors of a middleware's own.
fn own_errors() -> Vec<(&'static str, Inside)> {
    let io = |kind| Inside::fails_after(move || Error::middleware(io::Error::from(kind)));
    vec![
        ("refused", io(io::ErrorKind::ConnectionRefused)),
        ("unreachable", io(io::ErrorKind::HostUnreachable)),
        ("no network", io(io::ErrorKind::NetworkUnreachable)),
        ("no address", io(io::ErrorKind::AddrNotAvailable)),
        ("reqwest", Inside::fails_after(|| Error::Reqwest(refused().without_url()))),
        (
            "reqwest, other url",
            Inside::fails_after(|| {
                Error::Reqwest(refused().with_url("http://audit.example/log".parse().unwrap()))
            }),
        ),
        (
            "anyhow",
            Inside::fails_after(|| anyhow::Error::new(refused()).context("audit log").into()),
        ),
        (
            "anyhow, io",
            Inside::fails_after(|| {
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                anyhow::Error::new(error).context("audit log").into()
            }),
        ),
        ("boxed", Inside::fails_after(|| Error::middleware(io::Error::other(refused())))),
    ]
}

#[tokio::test]
async fn a_middleware_that_fails_after_the_response_proves_nothing() {
    for whose in BOTH {
        for (name, inside) in own_errors() {
            let server = Server::h1([Reply::status(201).into()]);
            let log = post(whose, inside, server.url("/")).await;
            assert_eq!((server.requests(), log.attempts()), (1, 1), "{name} {whose:?}");
            let attempt = log.history().attempts()[0].clone();
            assert_eq!(attempt.delivery, Delivery::MaybeProcessed, "{name} {whose:?}");
        }
    }
}

#[tokio::test]
async fn nor_does_it_open_the_breaker() {
    for whose in BOTH {
        for (name, inside) in own_errors() {
            let server = Server::h1([Reply::status(201).into()]);
            let hosts = HostStates::new();
            let config = quick().circuit_breaker(BreakerConfig::consecutive(3));
            let client = whose.client(&hosts, config, inside);
            for _ in 0..6 {
                let _ = client.get(server.url("/")).send().await;
            }
            let state = hosts.breaker(&format!("http://{}", server.addr())).state();
            assert_eq!(state, BreakerState::Closed, "{name} {whose:?}");
        }
    }
}

/// The token server responds on the same path of another host, and its error keeps its URL: only
/// our own client knows that the request itself had a response.
#[tokio::test]
async fn our_own_client_knows_what_was_sent() {
    let server = Server::h1([Reply::status(201).into()]);
    let url = closed_port();
    let inside = Inside::fails_after(move || Error::Reqwest(refused().with_url(url.clone())));
    let log = post(Whose::Ours, inside, server.url("/")).await;
    assert_eq!((server.requests(), log.attempts()), (1, 1));

    let hosts = HostStates::new();
    let config = quick().circuit_breaker(BreakerConfig::consecutive(3));
    let sent = server.url("/");
    let inside =
        Inside::fails_after(move || Error::Reqwest(refused().with_url(sent.parse().unwrap())));
    let client = Whose::Ours.client(&hosts, config, inside);
    for _ in 0..2 {
        let _ = client.post(server.url("/")).body("x").send().await;
    }
    assert_eq!(server.requests(), 3, "an error that names the URL sent");
    let state = hosts.breaker(&format!("http://{}", server.addr())).state();
    assert_eq!(state, BreakerState::Closed);
}

/// A middleware that retries by itself: the first send may have been processed.
#[tokio::test]
async fn our_own_client_knows_of_every_send() {
    let server = Server::h1([Fault::Unanswered(End::Reset).into()]);
    let dead = closed_port();
    let twice = does(move |request, extensions, next| {
        let dead = dead.clone();
        Box::pin(async move {
            let mut second = request.try_clone().unwrap();
            let _ = next.clone().run(request, extensions).await;
            *second.url_mut() = dead;
            next.run(second, extensions).await
        })
    });
    let client = ResilientClient::builder().config(quick().build().unwrap()).with(twice).build();
    let log = AttemptLog::new();
    let request = client.unwrap().post(server.url("/")).body("x").with_extension(log.clone());
    request.send().await.unwrap_err();
    assert_eq!((server.requests(), log.attempts()), (1, 1));
}

#[tokio::test]
async fn a_refused_post_is_sent_again_whatever_is_inside() {
    for whose in BOTH {
        for (name, inside) in [("nothing", Inside::Nothing), ("signs", Inside::Signs)] {
            let log = post(whose, inside, closed_port().into()).await;
            let attempt = log.history().attempts()[0].clone();
            assert_eq!(attempt.delivery, Delivery::NotSent, "{name} {whose:?}");
            assert_eq!(log.attempts(), 3, "{name} {whose:?}");
        }
    }
    // Only our own client sees what the middleware made of the URL.
    let log = post(Whose::Ours, Inside::Picks(closed_port()), URL.into()).await;
    assert_eq!(log.attempts(), 3);
    let log = post(Whose::Foreign, Inside::Picks(closed_port()), URL.into()).await;
    assert_eq!(log.attempts(), 1);
}

/// Waits until the server has read the beginning of so many requests, for 5 s at most.
async fn wait_until_begun(server: &Server, requests: usize) {
    for _ in 0..500 {
        if server.begun() >= requests {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
}

/// A stream that breaks after its first piece is on its way.
fn breaks<E>(error: impl Fn() -> E + Send + 'static) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    let later = async move {
        tokio::time::sleep(ms(30)).await;
        Err(error())
    };
    let first = futures_util::stream::iter([Ok("some")]);
    let rest = futures_util::stream::once(later);
    Body::wrap_stream(futures_util::StreamExt::chain(first, rest))
}

#[tokio::test]
async fn an_upload_fed_by_another_failed_request_proves_nothing() {
    for error in [fault::refused as fn() -> _, fault::reset, fault::request_timeout] {
        let server = Server::h1([Reply::status(200).into()]);
        for whose in BOTH {
            let begun = server.begun();
            let log = AttemptLog::new();
            let client = whose.client(&HostStates::new(), quick(), Inside::Nothing);
            let upload = BodyFactory::new(move || async move { Ok(breaks(error)) });
            let request = client.post(server.url("/")).with_extension(upload);
            request.with_extension(log.clone()).send().await.unwrap_err();
            wait_until_begun(&server, begun + 1).await;
            assert_eq!((server.begun() - begun, log.attempts()), (1, 1), "{whose:?}");
            let attempt = log.history().attempts()[0].clone();
            let told = (attempt.result, attempt.delivery);
            assert_eq!(told, (Err(FailureKind::Other), Delivery::MaybeProcessed));
        }
    }
}

#[tokio::test]
async fn an_upload_that_breaks_proves_nothing() {
    let kinds = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::TimedOut,
        io::ErrorKind::UnexpectedEof,
    ];
    for kind in kinds {
        let server = Server::h1([Reply::status(200).into()]);
        let hosts = HostStates::new();
        let config =
            quick().retry_methods(RetryMethods::All).circuit_breaker(BreakerConfig::consecutive(1));
        let client = Whose::Foreign.client(&hosts, config, Inside::Nothing);
        let upload =
            BodyFactory::new(move || async move { Ok(breaks(move || io::Error::from(kind))) });
        client.post(server.url("/")).with_extension(upload).send().await.unwrap_err();
        wait_until_begun(&server, 1).await;
        assert_eq!(server.begun(), 1, "{kind:?}");
        let state = hosts.breaker(&format!("http://{}", server.addr())).state();
        assert_eq!(state, BreakerState::Closed, "{kind:?}: the caller's own affair");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_proves_nothing() {
    let ok = || Reply::status(200).body("hello");
    for end in [End::Close, End::Reset] {
        let server = Server::h1([ok().cut_body(2, end).into()]);
        let client = super::resilient(quick().read_body(1024), plain());
        let log = AttemptLog::new();
        client
            .post(server.url("/"))
            .body("once")
            .with_extension(log.clone())
            .send()
            .await
            .unwrap_err();
        assert_eq!((server.requests(), log.attempts()), (1, 1), "{end:?}");
    }
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn nor_does_a_stream_that_is_refused_after_its_head() {
    use crate::support::h2::Stream;

    let server = Server::h2([Stream::RefuseBody(Reply::status(200).body("hello"))]);
    let client = super::resilient(quick().read_body(1024), super::plain_h2());
    let log = AttemptLog::new();
    let request = client.post(server.url("/")).body("once").with_extension(log.clone());
    request.send().await.unwrap_err();
    assert_eq!((server.requests(), log.attempts()), (1, 1));
    let attempt = log.history().attempts()[0].clone();
    assert_eq!(attempt.delivery, Delivery::MaybeProcessed);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_stalls_is_a_failure_of_the_host() {
    for (whose, end) in BOTH.into_iter().flat_map(|it| [(it, End::Close), (it, End::Stall)]) {
        let body = Reply::status(200).body("hello").cut_body(2, end);
        let server = Server::h1([body.into()]);
        let hosts = HostStates::new();
        // A busy machine may take longer for a head.
        let limit = if end == End::Stall { ms(100) } else { ms(10_000) };
        let config = quick().read_body(1024).attempt_timeout(limit);
        let config = config.circuit_breaker(BreakerConfig::consecutive(2));
        let client = whose.client(&hosts, config, Inside::Nothing);
        client.get(server.url("/")).send().await.unwrap_err();
        assert_eq!(
            hosts.breaker(&server.url("/")).state(),
            BreakerState::Open,
            "{whose:?} {end:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_to_a_closed_port_proves_nothing_even_in_another_task() {
    for status in [302, 303, 307] {
        let first = Server::h1([Reply::redirect(status, closed_port()).into()]);
        let inside = Inside::Spawns(plain());
        let log = post(Whose::Ours, inside, first.url("/")).await;
        assert_eq!((first.requests(), log.attempts()), (1, 1), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_says_not_sent_proves_it() {
    type Make = fn() -> Error;
    let errors: [(&str, Make); 3] = [
        ("plain", || Error::middleware(NotSent::new("no token"))),
        ("io", || Error::middleware(NotSent::new(io::Error::other("no token")))),
        ("reqwest", || Error::middleware(NotSent::new(fault::status()))),
    ];
    for (name, error) in errors {
        let hosts = HostStates::new();
        let config = quick().circuit_breaker(BreakerConfig::consecutive(2));
        let client = Whose::Foreign.client(&hosts, config, Inside::fails_before(error));
        let log = AttemptLog::new();
        let request = client.post(URL).body("x").with_extension(log.clone());
        let error = request.send().await.unwrap_err();
        assert!(matches!(error, Error::Middleware(it) if it.is::<NotSent>()), "{name}");
        assert_eq!(log.attempts(), 3, "{name}");
        let attempt = log.history().attempts()[0].clone();
        let told = (attempt.result, attempt.delivery);
        assert_eq!(told, (Err(FailureKind::Unsent), Delivery::NotSent), "{name}");
        let state = hosts.breaker("https://api.example.com").state();
        assert_eq!(state, BreakerState::Closed, "{name}: nobody was asked");
    }
    // The word of another request is not this one's.
    let nested = || {
        let error = Error::middleware(NotSent::new("no token"));
        Error::middleware(io::Error::other(error))
    };
    let log = post(Whose::Foreign, Inside::fails_before(nested), URL.into()).await;
    assert_eq!(log.attempts(), 1);
}

/// Waits in a queue, or for a token, before it sends.
fn queues(wait: Duration, result: Result<(), &'static str>) -> impl reqwest_middleware::Middleware {
    does(move |request, extensions, next| {
        Box::pin(async move {
            let queued = async {
                tokio::time::sleep(wait).await;
                result.map_err(io::Error::other)
            };
            NotSent::during(extensions, queued).await.map_err(Error::middleware)?;
            next.run(request, extensions).await
        })
    })
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_sending_is_known_as_not_sent() {
    for (wait, result, kind) in
        [(3_600_000, Ok(()), FailureKind::Timeout), (1, Err("no token"), FailureKind::Unsent)]
    {
        let hosts = HostStates::new();
        let config =
            quick().attempt_timeout(ms(100)).circuit_breaker(BreakerConfig::consecutive(2));
        let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
        let client =
            ClientBuilder::new(plain()).with(resilient).with(queues(ms(wait), result)).build();
        let log = AttemptLog::new();
        client.post(URL).body("x").with_extension(log.clone()).send().await.unwrap_err();
        assert_eq!(log.attempts(), 3, "{kind}");
        let attempt = log.history().attempts()[0].clone();
        assert_eq!((attempt.result, attempt.delivery), (Err(kind), Delivery::NotSent));
        let state = hosts.breaker("https://api.example.com").state();
        assert_eq!(state, BreakerState::Closed, "{kind}: nobody was asked");
    }
}

#[tokio::test]
async fn what_comes_after_it_is_not() {
    let server = Server::h1([Fault::Unanswered(End::Stall).into()]);
    for whose in BOTH {
        let config = quick().attempt_timeout(ms(100)).build().unwrap();
        let client = match whose {
            Whose::Foreign => ClientBuilder::new(plain())
                .with(Resilient::new(config))
                .with(queues(ms(1), Ok(())))
                .build(),
            Whose::Ours => ResilientClient::builder()
                .config(config)
                .with(queues(ms(1), Ok(())))
                .build()
                .unwrap()
                .inner()
                .clone(),
        };
        let before = server.requests();
        let log = AttemptLog::new();
        let request = client.post(server.url("/")).body("x").with_extension(log.clone());
        request.send().await.unwrap_err();
        assert_eq!((server.requests() - before, log.attempts()), (1, 1), "{whose:?}");
    }
}

/// Queues, sends, and queues again to send once more: something was sent.
#[tokio::test]
async fn a_second_queue_after_a_send_is_not_believed_by_our_own_client() {
    let server = Server::h1([Fault::Unanswered(End::Reset).into()]);
    let twice = does(|request, extensions, next| {
        Box::pin(async move {
            let copy = request.try_clone().unwrap();
            let _ = next.clone().run(copy, extensions).await;
            let token = async { Err::<(), _>(io::Error::other("no token")) };
            NotSent::during(extensions, token).await.map_err(Error::middleware)?;
            next.run(request, extensions).await
        })
    });
    let client = ResilientClient::builder().config(quick().build().unwrap()).with(twice).build();
    let log = AttemptLog::new();
    let request = client.unwrap().post(server.url("/")).body("x").with_extension(log.clone());
    request.send().await.unwrap_err();
    assert_eq!((server.requests(), log.attempts()), (1, 1));
}

#[tokio::test]
async fn only_these_methods_means_no_others() {
    let only = || quick().retry_methods(RetryMethods::Only(vec![http::Method::GET]));
    for reply in [Mock::status(429), Mock::io_error(io::ErrorKind::ConnectionRefused)] {
        let (client, script) = scripted(only().build().unwrap(), [reply.clone()]);
        let log = AttemptLog::new();
        let _ = client.post(URL).with_extension(log.clone()).send().await;
        assert_eq!(script.sent().len(), 1);
        assert_eq!(log.history().stop_reason(), Some(StopReason::UnsafeToRepeat));
        let _ = client.get(URL).send().await;
        assert_eq!(script.sent().len(), 4);
        // A key makes the repetition harmless, and so does the caller's own word.
        let request = client.post(URL).header("idempotency-key", "\"a\"");
        let _ = request.send().await;
        assert_eq!(script.sent().len(), 7);
    }
}
