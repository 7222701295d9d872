//! Attribution of outcomes: to the host that was asked, regardless of other middleware.

use std::io;
use std::time::Duration;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use reqwest_resilient::testing::Reply as Mock;
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BreakerState, FailureKind, HostStates, HttpRequestError,
    RequestBuilderExt, Resilient, ResilientClient, ResilientConfigBuilder, RetryOverride,
    StopReason,
};
use tower::util::MapFutureLayer;

use super::{ms, plain, quick, resilient_on, settings};
use crate::support::inside::{Inside, does};
use crate::support::reply::{End, Reply};
use crate::support::server::Server;
use crate::support::{URL, fault, scripted, scripted_on, steady};

fn inside(
    hosts: &HostStates,
    config: ResilientConfigBuilder,
    inside: Inside,
) -> ClientWithMiddleware {
    let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
    ClientBuilder::new(plain()).with(resilient).with(inside).build()
}

/// The same in a client of ours.
fn inside_ours(
    hosts: &HostStates,
    config: ResilientConfigBuilder,
    inside: Inside,
) -> ClientWithMiddleware {
    let config = config.build().unwrap();
    let client = ResilientClient::builder().config(config).hosts(hosts.clone()).with(inside);
    client.build().unwrap().inner().clone()
}

fn one_failure() -> BreakerConfig {
    BreakerConfig::consecutive(1)
}

fn state(hosts: &HostStates, url: &str) -> BreakerState {
    let url: reqwest::Url = url.parse().unwrap();
    hosts.breaker(&url.origin().ascii_serialization()).state()
}

/// A URL that refuses connections.
fn closed_port() -> reqwest::Url {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", closed.local_addr().unwrap()).parse().unwrap()
}

#[tokio::test]
async fn a_body_that_stalls_while_its_attempt_reads_it_is_a_failure_of_the_host() {
    let hosts = HostStates::new();
    let server = Server::h1([Reply::status(200).body("hello").cut_body(2, End::Stall).into()]);
    let config = quick().max_retries(0).circuit_breaker(one_failure()).read_body(1024);
    let config = config.without_attempt_timeout().stall_timeout(ms(100));
    let client = inside_ours(&hosts, config, Inside::Nothing);
    let sending = client.get(server.url("/")).send_resilient();
    let ended = tokio::time::timeout(Duration::from_secs(10), sending).await;
    assert!(ended.expect("a limit").unwrap_err().is_timeout());
    assert_eq!(state(&hosts, &server.url("/")), BreakerState::Open);
}

#[tokio::test]
async fn a_post_with_429_is_sent_again_whatever_touches_url_or_response() {
    for (name, make) in [
        ("nothing", (|_| Inside::Nothing) as fn(&Server) -> Inside),
        ("signs", |_| Inside::Signs),
        ("rebuilds", |_| Inside::Rebuilds),
        ("picks", |it| Inside::Picks(it.url("/").parse().unwrap())),
        ("checks", |_| Inside::ChecksStatus),
    ] {
        let server = Server::h1([Reply::status(429).into(), Reply::status(200).into()]);
        let url = if name == "picks" { URL.to_owned() } else { server.url("/pay") };
        let client = inside_ours(&HostStates::new(), quick(), make(&server));
        client.post(&url).body("x").send().await.unwrap();
        assert_eq!(server.requests(), 2, "{name}, ours");
        if name == "picks" {
            // In a foreign client another origin may be a redirect that was not seen.
            continue;
        }
        let server = Server::h1([Reply::status(429).into(), Reply::status(200).into()]);
        let client = inside(&HostStates::new(), quick(), make(&server));
        client.post(server.url("/pay")).body("x").send().await.unwrap();
        assert_eq!(server.requests(), 2, "{name}, foreign");
    }
}

#[tokio::test]
async fn the_breaker_opens_whatever_touches_url_or_response() {
    type Build = fn(&HostStates, ResilientConfigBuilder, Inside) -> ClientWithMiddleware;
    for build in [inside as Build, inside_ours] {
        let server = Server::h1([Reply::status(500).into()]);
        let dead = closed_port();
        let picked = || Inside::Picks(server.url("/").parse().unwrap());
        for (name, middleware, url) in [
            ("signs", Inside::Signs, server.url("/a")),
            ("signs, dead", Inside::Signs, dead.to_string()),
            ("rebuilds", Inside::Rebuilds, server.url("/a")),
            ("picks", picked(), "http://service.internal/a".to_owned()),
            ("picks, dead", Inside::Picks(dead.clone()), "http://service.internal/a".to_owned()),
            ("checks", Inside::ChecksStatus, server.url("/a")),
        ] {
            let hosts = HostStates::new();
            let config = quick().max_retries(0).circuit_breaker(one_failure());
            let client = build(&hosts, config, middleware);
            let _ = client.get(&url).send().await;
            assert_eq!(state(&hosts, &url), BreakerState::Open, "{name}");
        }
    }
}

#[tokio::test]
async fn the_gate_closes_whatever_touches_url_or_response() {
    let limit = || Reply::status(429).header("retry-after", "30");
    for name in ["signs", "rebuilds", "picks"] {
        let server = Server::h1([limit().into()]);
        let (middleware, url) = match name {
            "signs" => (Inside::Signs, server.url("/a")),
            "rebuilds" => (Inside::Rebuilds, server.url("/a")),
            _ => (Inside::Picks(server.url("/").parse().unwrap()), URL.to_owned()),
        };
        let hosts = HostStates::new();
        let config = quick().gate().max_wait_time(Duration::from_secs(1));
        let client = inside(&hosts, config, middleware);
        let _ = client.get(&url).send().await;
        let log = AttemptLog::new();
        client.get(&url).with_extension(log.clone()).send().await.unwrap_err();
        assert_eq!(server.requests(), 1, "{name}");
        assert_eq!(log.history().stop_reason(), Some(StopReason::RateLimited), "{name}");
    }
}

#[tokio::test]
async fn a_limit_after_a_redirect_closes_both_gates() {
    let second = Server::h1([Reply::status(429).header("retry-after", "30").into()]);
    let first = Server::h1([Reply::redirect(302, second.url("/")).into()]);
    let hosts = HostStates::new();
    let config = quick().gate().max_wait_time(Duration::from_secs(1));
    let client = resilient_on(&hosts, config, plain());
    assert_eq!(client.get(first.url("/")).send().await.unwrap().status(), 429);
    for server in [&first, &second] {
        let error = client.get(server.url("/again")).send_resilient().await.unwrap_err();
        assert!(error.is_rate_limited());
    }
    assert_eq!((first.requests(), second.requests()), (1, 1));
}

#[tokio::test]
async fn what_this_machine_lacks_is_neutral_to_hosts() {
    // EMFILE, ENFILE, ENOMEM, ENOBUFS, EADDRNOTAVAIL.
    for code in [24, 23, 12, 105, 99] {
        let layer = MapFutureLayer::new(move |connecting| async move {
            drop(connecting);
            Err::<_, Box<dyn std::error::Error + Send + Sync>>(
                io::Error::from_raw_os_error(code).into(),
            )
        });
        let client = settings()
            .connector_layer(tower::ServiceBuilder::new().layer(layer).into_inner())
            .build()
            .unwrap();
        let (hosts, log) = (HostStates::new(), AttemptLog::new());
        let client = resilient_on(&hosts, quick().circuit_breaker(one_failure()), client);
        let url = closed_port();
        let request = client.post(url.clone()).body("x").with_extension(log.clone());
        request.send().await.unwrap_err();
        assert_eq!(log.attempts(), 3, "{code}: nothing was sent");
        assert_eq!(state(&hosts, url.as_str()), BreakerState::Closed, "{code}");
    }
}

#[tokio::test]
async fn the_caller_s_short_deadline_is_neutral_to_hosts() {
    let server = Server::h1([Reply::status(200).late(ms(50)).into()]);
    let hosts = HostStates::new();
    let config = quick().circuit_breaker(BreakerConfig::consecutive(5));
    let client = resilient_on(&hosts, config, plain());
    for _ in 0..6 {
        let hurry = RetryOverride::new().max_total_time(ms(10));
        client.get(server.url("/")).with_extension(hurry).send().await.unwrap_err();
    }
    assert_eq!(state(&hosts, &server.url("/")), BreakerState::Closed);
    client.get(server.url("/")).send().await.unwrap();
}

#[tokio::test]
async fn a_request_that_cannot_be_built_is_neutral_to_hosts() {
    let hosts = HostStates::new();
    let client = resilient_on(&hosts, quick().circuit_breaker(one_failure()), plain());
    client.get("gopher://a.example/").send().await.unwrap_err();
    assert_eq!(state(&hosts, "gopher://a.example/"), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_caller_s_predicate_retries_is_a_success_to_the_breaker() {
    let hosts = HostStates::new();
    let config = steady()
        .max_retries(3)
        .retry_if(|it| it.status().is_none_or(|it| it != 200))
        .circuit_breaker(one_failure());
    let replies = [Mock::status(404), Mock::status(404), Mock::status(200)];
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    assert_eq!(script.sent().len(), 3);
    let seen = hosts.breaker("https://api.example.com").state();
    assert_eq!(seen, BreakerState::Closed);

    // A 503 is a failure, whether the caller retries it or not.
    let config = steady().retry_if(|_| false).circuit_breaker(one_failure());
    let hosts = HostStates::new();
    let (client, _) = scripted_on(&hosts, config.build().unwrap(), [Mock::status(503)]);
    client.get(URL).send().await.unwrap();
    assert_eq!(hosts.breaker("https://api.example.com").state(), BreakerState::Open);
}

/// Gives a response of its own in place of a failure, as a fallback or a stale cache does.
fn fallback() -> impl reqwest_middleware::Middleware {
    does(|request, extensions, next| {
        Box::pin(async move {
            match next.run(request, extensions).await {
                Ok(response) if response.status().is_success() => Ok(response),
                _ => Ok(http::Response::new("stale").into()),
            }
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_fallback_outside_the_retries_is_ok() {
    for reply in [Mock::status(503), Mock::io_error(io::ErrorKind::ConnectionReset)] {
        let script = reqwest_resilient::testing::Script::new([reply]);
        let client = ClientBuilder::new(crate::support::idle_client())
            .with(fallback())
            .with(Resilient::new(steady().build().unwrap()))
            .with(script.clone())
            .build();
        let response = client.get(URL).send_resilient().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "stale");
        assert_eq!(script.sent().len(), 4);
    }
    // A status that the settings count as a failure remains one.
    let accepted = http::StatusCode::ACCEPTED;
    let config = steady().retry_statuses([accepted]);
    let (client, _) = scripted(config.build().unwrap(), [Mock::status(202)]);
    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(accepted), 4));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_token_request_is_not_this_one_s() {
    const TOKEN: &str = "https://token.example/oauth";
    let (tokens, _) = scripted(steady().max_retries(1).build().unwrap(), [Mock::status(503)]);
    let fetch = move || {
        let tokens = tokens.clone();
        does(move |request, extensions, next| {
            let token = tokens.post(TOKEN).header("idempotency-key", "\"a\"").send_resilient();
            Box::pin(async move {
                token.await?;
                next.run(request, extensions).await
            })
        })
    };
    let script = reqwest_resilient::testing::Script::new([Mock::status(200)]);
    let retries = Resilient::new(steady().build().unwrap());
    let outside = ClientBuilder::new(crate::support::idle_client())
        .with(fetch())
        .with(retries.clone())
        .with(script.clone());
    let inside =
        ClientBuilder::new(crate::support::idle_client()).with(retries).with(fetch()).with(script);
    for client in [outside.build(), inside.build()] {
        let error = client.get(URL).send_resilient().await.unwrap_err();
        assert_eq!(error.url().map(reqwest::Url::as_str), Some(URL));
        assert_eq!(error.method(), Some(&http::Method::GET));
        let source = std::error::Error::source(&error).unwrap();
        let token = source.downcast_ref::<HttpRequestError>().unwrap();
        assert_eq!(token.url().map(reqwest::Url::as_str), Some(TOKEN));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_made_of_a_status_is_read_by_its_status() {
    let of = |status: u16| {
        let response = http::Response::builder().status(status).body("").unwrap();
        let error = reqwest::Response::from(response).error_for_status().unwrap_err();
        error.with_url(URL.parse().unwrap())
    };
    for (status, get, post, opens) in
        [(404, 1, 1, false), (429, 3, 3, false), (500, 3, 1, true), (503, 3, 1, true)]
    {
        for (method, attempts) in [(http::Method::GET, get), (http::Method::POST, post)] {
            let hosts = HostStates::new();
            let config = quick().circuit_breaker(BreakerConfig::consecutive(u32::max(attempts, 1)));
            let config = config.build().unwrap();
            let replies = [Mock::error(move || Error::Reqwest(of(status)))];
            let (client, script) = scripted_on(&hosts, config, replies);
            let log = AttemptLog::new();
            let request = client.request(method.clone(), URL).with_extension(log.clone());
            let error = request.send().await.unwrap_err();
            assert_eq!(error.status().map(|it| it.as_u16()), Some(status), "untouched");
            assert_eq!(script.sent().len() as u32, attempts, "{method} {status}");
            let result = log.history().attempts()[0].result;
            assert_eq!(result.map(|it| it.as_u16()), Ok(status));
            let open = hosts.breaker("https://api.example.com").state() == BreakerState::Open;
            assert_eq!(open, opens, "{method} {status}");
        }
    }
    // That of another request says nothing.
    let other = || Error::Reqwest(fault::status().with_url("https://b.example/x".parse().unwrap()));
    let (client, _) = scripted(quick().build().unwrap(), [Mock::error(other)]);
    let log = AttemptLog::new();
    client.get(URL).with_extension(log.clone()).send().await.unwrap_err();
    assert_eq!(log.history().attempts()[0].result, Err(FailureKind::Other));
}
