//! No secret comes out anywhere.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, header};
use reqwest_middleware::{ClientBuilder, Error};
use reqwest_resilient::telemetry::{MetricsObserver, TracingObserver};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, CircuitBreakers, Event, HttpRequestError, Mirrors, Outcome, RequestBuilderExt,
    Resilient, ResilientClient, ResponseExt, RetryBudget, blocking,
};

use super::witness::Witness;
use super::{SECOND, consecutive, retry_after, steady};

const SECRET_URL: &str =
    "https://hunter2:hunter2@api.example.com:8443/swordfish/data?token=hunter2&x=hunter2#hunter2";

/// An error of the transport, which knows the whole url.
fn transport_error() -> Error {
    let never = reqwest::Client::new().get(SECRET_URL).header("bad\n", "x").build();
    let error = never.unwrap_err();
    Error::Reqwest(error.with_url(SECRET_URL.parse().unwrap()))
}

/// Hides what a path has of secrets.
fn redact_path(path: &str) -> String {
    path.replace("swordfish", "…")
}

/// An error of a middleware that says what the error inside says, and nothing of its own.
#[derive(Debug)]
struct Transparent(reqwest::Error);

impl std::fmt::Display for Transparent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Transparent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// An error of a middleware: it shows the error of the transport in its own text.
fn transparent_error() -> Error {
    let Error::Reqwest(error) = transport_error() else { unreachable!() };
    Error::middleware(Transparent(error))
}

/// An error of a middleware, with that of the transport among its sources.
fn wrapping_error() -> Error {
    let Error::Reqwest(error) = transport_error() else { unreachable!() };
    Error::Middleware(anyhow::Error::from(error).context("signing failed").context("no token"))
}

/// An error that shows the parts of the URL one by one.
fn talkative_error() -> Error {
    let text = "no route to /swordfish/data?token=hunter2&x=hunter2";
    Error::Middleware(anyhow::anyhow!(text))
}

fn show(out: &Mutex<String>, what: &dyn std::fmt::Debug) {
    writeln!(out.lock().unwrap(), "{what:?}\n{what:#?}").unwrap();
}

fn say(out: &Mutex<String>, what: &dyn std::fmt::Display) {
    writeln!(out.lock().unwrap(), "{what}").unwrap();
}

fn take_down(out: &Mutex<String>, event: &Event<'_>) {
    say(out, event);
    show(out, event);
    let outcome = |it: &Outcome<'_>| {
        say(out, it);
        show(out, it);
    };
    match event {
        Event::AttemptStarted(it) => show(out, it),
        Event::HeldBack(it) => show(out, it),
        Event::AttemptEnded(it) | Event::Rejected(it) => outcome(it),
        Event::Waiting(it) => {
            show(out, it);
            outcome(it.outcome);
        }
        Event::Resuming(it) => show(out, it),
        Event::Succeeded(it) => show(out, it),
        Event::GaveUp(it) => {
            show(out, it);
            say(out, it);
        }
        _ => {}
    }
    if let Some((_, url)) = event.request() {
        say(out, &url);
        show(out, &url);
    }
}

fn take_down_error(out: &Mutex<String>, error: &HttpRequestError) {
    say(out, error);
    show(out, error);
    say(out, error.history());
    show(out, error.history());
    show(out, &error.kind());
    let mut link: Option<&dyn std::error::Error> = Some(error);
    while let Some(it) = link {
        say(out, &it);
        show(out, &it);
        link = it.source();
    }
    writeln!(out.lock().unwrap(), "{error:#}").unwrap();
}

#[test]
fn no_secret_comes_out_anywhere() {
    let out = Arc::new(Mutex::new(String::new()));
    let witness = Witness::default();
    let secret = HeaderValue::from_static("hunter2");
    let answer =
        |status| Reply::status(status).header(header::SET_COOKIE, secret.clone()).body("hunter2");
    let replies = [
        retry_after(429, "30").header(header::SET_COOKIE, secret.clone()),
        answer(503),
        Reply::error(transport_error),
        answer(200),
        answer(200).after(60 * SECOND),
        Reply::error(transparent_error),
        Reply::error(wrapping_error),
        Reply::error(talkative_error),
        answer(500),
    ];
    witness.run(|| {
        let told = Arc::clone(&out);
        let config = steady()
            // Errors of middlewares end their requests.
            .retry_if(|it| match it.error() {
                Some(error) => error.is::<reqwest::Error>(),
                None => it.status().is_none_or(|it| it.as_u16() >= 400),
            })
            .gate()
            .redact_path(redact_path)
            .circuit_breaker(CircuitBreakers::per_host(consecutive(6)))
            .retry_budget(RetryBudget::per_host(Default::default()))
            .attempt_timeout(2 * SECOND)
            .on_event(move |event| take_down(&told, event))
            .observer(TracingObserver::new().retries(tracing::Level::TRACE))
            .observer(MetricsObserver::new())
            .build()
            .unwrap();
        show(&out, &config);
        let script = Script::new(replies);
        let client = ClientBuilder::new(crate::support::idle_client())
            .with(Resilient::new(config))
            .with(script.clone())
            .build();
        let out = Arc::clone(&out);
        async move {
            let once = async |start| {
                tokio::time::sleep(start).await;
                let log = AttemptLog::new();
                let request = client
                    .get(SECRET_URL)
                    .header(header::AUTHORIZATION, "Bearer hunter2")
                    .header(header::COOKIE, "hunter2")
                    .header("x-api-key", "hunter2")
                    .body("hunter2")
                    .with_extension(log.clone());
                match request.send_resilient().await {
                    Ok(response) => show(&out, &response.history()),
                    Err(error) => {
                        take_down_error(&out, &error);
                        let error = anyhow::Error::from(error).context("outside");
                        writeln!(out.lock().unwrap(), "{error:#}\n{error:?}").unwrap();
                    }
                }
                say(&out, &log.history());
                show(&out, &log);
            };
            for _ in 0..8 {
                tokio::join!(once(Duration::ZERO), once(SECOND));
            }
            show(&out, &script);
            // It has no function for paths.
            let sent = format!("{:?}{:#?}", script.sent(), script.sent());
            show(&out, &redact_path(&sent));
        }
    });
    let mut out = std::mem::take(&mut *out.lock().unwrap());
    for line in witness.lines().into_iter().chain(witness.metrics()) {
        writeln!(out, "{line}").unwrap();
    }
    // All of it was there to be seen.
    let parts = [
        "api.example.com",
        "gate closed",
        "timeout",
        "circuit_open",
        "builder",
        "rate_limited",
        "signing failed",
        "no route to",
    ];
    for part in parts {
        assert!(out.contains(part), "no {part} in\n{out}");
    }
    let is_secret = |it: &&str| it.contains("hunter2") || it.contains("swordfish");
    let found: Vec<_> = out.lines().filter(is_secret).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// The path of an endpoint may have a token, as that of a request.
#[test]
fn the_path_of_an_endpoint_is_redacted_too() {
    let out = Arc::new(Mutex::new(String::new()));
    let witness = Witness::default();
    witness.run(|| {
        let told = Arc::clone(&out);
        let config = steady()
            .mirrors(
                Mirrors::new("https://a.example/swordfish/").also("https://b.example/swordfish"),
            )
            .redact_path(redact_path)
            .on_event(move |event| take_down(&told, event))
            .observer(TracingObserver::new())
            .observer(MetricsObserver::new())
            .build()
            .unwrap();
        let client = ClientBuilder::new(crate::support::idle_client())
            .with(Resilient::new(config))
            .with(Script::new([Reply::status(503)]))
            .build();
        let out = Arc::clone(&out);
        async move {
            let request = client.get("https://a.example/swordfish/x");
            take_down_error(&out, &request.send_resilient().await.unwrap_err());
        }
    });
    let mut out = std::mem::take(&mut *out.lock().unwrap());
    out.extend(witness.lines().into_iter().chain(witness.metrics()).map(|it| it + "\n"));
    assert!(out.contains("resilient.endpoint=https://b.example/…"), "{out}");
    let found: Vec<_> = out.lines().filter(|it| it.contains("swordfish")).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_client_shows_no_default_header() {
    fn customize(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let headers = [(header::AUTHORIZATION, "Bearer hunter2"), (header::COOKIE, "id=hunter2")];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let proxy = reqwest::Proxy::all("http://user:hunter2@proxy.example").unwrap();
        builder.default_headers(headers.into_iter().collect()).proxy(proxy)
    }
    let builder = ResilientClient::builder().with_reqwest(customize);
    let client = builder.clone().build().unwrap();
    let shown = format!("{builder:?}{client:?}{client:#?}{:?}", client.get(SECRET_URL));
    assert!(!shown.contains("hunter2"), "{shown}");
    let blocking = blocking::ResilientClient::builder().with_reqwest(customize).build().unwrap();
    assert!(!format!("{blocking:?}").contains("hunter2"), "{blocking:?}");
}
