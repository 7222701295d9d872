//! Every way in gives the same: `Resilient` by hand, `ResilientClient`, `blocking`, and the
//! functions without a client.
//!
//! A new scenario is one entry of [`scenarios`]; what it gives by hand is what it has to give
//! elsewhere. Blocking callers have no virtual time, so the waits are real, and short.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::{
    BreakerConfig, Constant, HttpRequestError, Jitter, RequestBuilderExt, Resilient,
    ResilientClient, ResilientConfig, ResilientConfigBuilder, RetryMethods, RetryOverride,
    blocking,
};

use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

const MS: Duration = Duration::from_millis(1);

/// A kind of request, and the expected result.
struct Scenario {
    name: &'static str,
    settings: Settings,
    steps: Vec<Step>,
    method: Method,
    headers: &'static [(&'static str, &'static str)],
    body: Payload,
    timeout: Option<Duration>,
    own: Option<RetryOverride>,
    /// The number of times that the request is made.
    times: usize,
    /// The number of requests that reach the server.
    sent: usize,
}

#[derive(Clone, Copy)]
enum Payload {
    None,
    Text(&'static str),
    Stream,
}

/// The same settings for a client and, where there is none to be set, for a request.
#[derive(Clone, Copy)]
struct Settings {
    config: fn(ResilientConfigBuilder) -> ResilientConfigBuilder,
    over: fn(RetryOverride) -> RetryOverride,
}

macro_rules! settings {
    ($it:ident => $body:expr) => {
        Settings { config: |$it| $body, over: |$it| $body }
    };
}

fn scenario(name: &'static str, sent: usize, steps: impl IntoIterator<Item = Step>) -> Scenario {
    Scenario {
        name,
        settings: settings!(it => it),
        steps: steps.into_iter().collect(),
        method: Method::GET,
        headers: &[],
        body: Payload::None,
        timeout: None,
        own: None,
        times: 1,
        sent,
    }
}

fn ok() -> Step {
    Reply::status(200).body("here it is").into()
}

fn busy() -> Step {
    Reply::status(503).body("busy").into()
}

fn slow() -> Step {
    Reply::status(200).late(400 * MS).into()
}

fn scenarios() -> Vec<Scenario> {
    let over = RetryOverride::new;
    vec![
        scenario("an answer", 1, [ok()]),
        scenario("an answer in pieces", 1, [Reply::status(200).chunked("piece").into()]),
        scenario("a passing failure", 2, [busy(), ok()]),
        scenario("a failure that stays", 3, [busy()]),
        scenario("what is not there", 1, [Reply::status(404).body("no").into()]),
        scenario("a hint", 2, [Reply::status(429).header("retry-after", "0").into(), ok()]),
        Scenario {
            settings: settings!(it => it.max_wait_time(Duration::from_secs(2))),
            ..scenario(
                "too long a hint",
                1,
                [Reply::status(503).header("retry-after", "60").into()],
            )
        },
        scenario("a veto", 1, [Reply::status(503).header("x-should-retry", "false").into()]),
        scenario("a broken connection", 2, [Fault::Unanswered(End::Reset).into(), ok()]),
        scenario("nonsense", 3, [Fault::Garbage.into()]),
        scenario("a redirect", 2, [Reply::redirect(302, "/there").into(), ok()]),
        Scenario {
            method: Method::POST,
            body: Payload::Text("order"),
            ..scenario("a POST that may not be repeated", 1, [busy()])
        },
        Scenario {
            method: Method::POST,
            headers: &[("idempotency-key", "7")],
            body: Payload::Text("order"),
            ..scenario("a POST with a key", 2, [busy(), ok()])
        },
        Scenario {
            method: Method::POST,
            own: Some(over().idempotent(true)),
            body: Payload::Text("order"),
            ..scenario("a POST that its override allows", 2, [busy(), ok()])
        },
        Scenario {
            settings: settings!(it => it.retry_methods(RetryMethods::All)),
            method: Method::PATCH,
            ..scenario("a PATCH that the settings allow", 2, [busy(), ok()])
        },
        Scenario {
            method: Method::PUT,
            body: Payload::Text("all of it"),
            ..scenario("a body sent twice", 2, [busy(), ok()])
        },
        Scenario {
            method: Method::PUT,
            body: Payload::Stream,
            ..scenario("a body that can be sent once", 1, [busy()])
        },
        Scenario {
            own: Some(over().max_retries(0)),
            ..scenario("an override without retries", 1, [busy()])
        },
        Scenario {
            own: Some(over().backoff(Constant::new(5 * MS)).max_retries(1)),
            ..scenario("an override with another wait", 2, [busy()])
        },
        Scenario {
            own: Some(over().max_wait_time(Duration::ZERO)),
            ..scenario("an override that cannot be", 0, [ok()])
        },
        Scenario {
            settings: settings!(it => it.attempt_timeout(60 * MS)),
            ..scenario("a slow answer", 2, [slow(), ok()])
        },
        Scenario { timeout: Some(40 * MS), ..scenario("the request's own timeout", 3, [slow()]) },
        Scenario {
            settings: settings!(it => it.max_total_time(100 * MS)),
            ..scenario("a deadline under way", 1, [slow()])
        },
        Scenario {
            settings: settings!(it => it
                .max_total_time(Duration::from_secs(2))
                .backoff(Constant::new(Duration::from_secs(5)))),
            ..scenario("a deadline before a wait", 1, [busy()])
        },
        Scenario {
            settings: settings!(it => it
                .read_body(64)
                .retry_if(|it| it.body().is_some_and(|body| body == b"pending"))),
            ..scenario(
                "a body that is judged",
                2,
                [Reply::status(200).body("pending").into(), ok()],
            )
        },
        Scenario {
            settings: settings!(it => it.read_body(64)),
            ..scenario(
                "a body that breaks off",
                2,
                [Reply::status(200).body("longer").cut_body(2, End::Reset).into(), ok()],
            )
        },
        Scenario {
            settings: settings!(it => it.retry_statuses([StatusCode::ACCEPTED])),
            ..scenario("a success that is none", 3, [Reply::status(202).into()])
        },
        Scenario {
            settings: settings!(it => {
                let config = BreakerConfig::consecutive(2)
                    .open_for(Duration::from_secs(300))
                    .without_open_jitter();
                it.circuit_breaker(config)
            }),
            times: 2,
            ..scenario("a circuit that opens", 2, [Reply::status(500).into()])
        },
        Scenario {
            settings: settings!(it => it
                .gate()
                .random(|| 0.0)
                .max_total_time(Duration::from_secs(2))),
            times: 2,
            ..scenario("a closed gate", 1, [Reply::status(429).header("retry-after", "5").into()])
        },
        Scenario {
            headers: &[("x-broken", "a\nb")],
            ..scenario("a header that cannot be", 0, [ok()])
        },
        Scenario {
            method: Method::HEAD,
            ..scenario("HEAD", 2, [busy(), Reply::status(200).into()])
        },
        Scenario { method: Method::DELETE, ..scenario("DELETE", 2, [busy(), ok()]) },
        Scenario { method: Method::OPTIONS, ..scenario("OPTIONS", 2, [busy(), ok()]) },
        Scenario {
            method: Method::from_bytes(b"PURGE").unwrap(),
            ..scenario("a method of one's own", 1, [busy()])
        },
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    ByHand,
    Client,
    Functions,
    Blocking,
    BlockingHandle,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Send,
    SendResilient,
}

/// The observations of a scenario: by the caller, by its callbacks, by the server.
#[derive(Debug, PartialEq)]
struct Seen {
    results: Vec<String>,
    told: Vec<String>,
    requests: Vec<String>,
}

/// The calls of the callbacks, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

/// The loop alone with short waits, the scenario's settings, and all callbacks recorded.
macro_rules! steady {
    ($builder:expr, $apply:expr, $told:expr) => {{
        let told = || $told.clone();
        let (request, retry, success, failure) = (told(), told(), told(), told());
        let steady = $builder
            .max_retries(2)
            .backoff(Constant::new(2 * MS))
            .jitter(Jitter::None)
            .without_circuit_breaker()
            .without_retry_budget()
            .without_gate()
            .on_request(move |it| {
                request.push(format!(
                    "request {} {} {}/{}",
                    it.method, it.url, it.attempt, it.max_retries
                ));
            })
            .on_retry(move |it| {
                retry.push(format!(
                    "retry {} after {:?} by {}: {}",
                    it.attempt, it.wait, it.source, it.outcome
                ));
            })
            .on_success(move |it| {
                success.push(format!("success after {}: {}", it.attempts, it.outcome));
            })
            .on_failure(move |it| failure.push(format!("failure {}: {it}", it.stop_reason)));
        $apply(steady)
    }};
}

/// Makes the requests of a scenario, whatever the type of the builder and the way of waiting.
macro_rules! ask {
    ($scenario:expr, $ending:expr, $builder:expr, $taken:ident, $($wait:tt)*) => {{
        let mut builder = $builder;
        for (name, value) in $scenario.headers {
            builder = builder.header(*name, *value);
        }
        builder = match $scenario.body {
            Payload::None => builder,
            Payload::Text(text) => builder.body(text),
            Payload::Stream => {
                let chunk = futures_util::stream::iter([Ok::<_, std::io::Error>("chunk")]);
                builder.body(reqwest::Body::wrap_stream(chunk))
            }
        };
        if let Some(timeout) = $scenario.timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(own) = &$scenario.own {
            builder = builder.with_extension(own.clone());
        }
        match $ending {
            Ending::Send => match builder.send()$($wait)* {
                Ok(it) => format!("{} {:?}", it.status(), it.text()$($wait)*.map_err(drop)),
                Err(error) => chain(&error),
            },
            Ending::SendResilient => match builder.send_resilient()$($wait)* {
                Ok(it) => format!("{} {:?}", it.status(), it.text()$($wait)*.map_err(drop)),
                Err(error) => {
                    let mut text = facts(&error);
                    if let Ok(it) = error.$taken() {
                        write!(text, " with {:?}", it.text()$($wait)*.map_err(drop)).unwrap();
                    }
                    text
                }
            },
        }
    }};
}

/// All that an error says of itself but for times.
fn facts(error: &HttpRequestError) -> String {
    let history = error.history();
    let attempts: Vec<_> = history
        .attempts()
        .iter()
        .map(|it| format!("{} {:?} {} {:?}", it.number, it.result, it.delivery, it.wait))
        .collect();
    format!(
        "{} | {error:?} | {:?} {} | {attempts:?}",
        chain(error),
        error.kind(),
        error.stop_reason()
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let links = std::iter::successors(Some(error), |it| it.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Blocking callers wait outside of a runtime, the others within one.
fn play(scenario: &Scenario, entry: Entry, ending: Ending) -> Seen {
    let server = Server::h1(scenario.steps.clone());
    let url = server.url("/");
    let told = Told::default();
    let config = || -> ResilientConfig {
        steady!(ResilientConfig::builder(), scenario.settings.config, told).build().unwrap()
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let method = || scenario.method.clone();
    let mut results = vec![];
    match entry {
        Entry::ByHand => {
            let inner = Resilient::reqwest_builder().build().unwrap();
            let client = ClientBuilder::new(inner).with(Resilient::new(config())).build();
            for _ in 0..scenario.times {
                let result = runtime.block_on(async {
                    ask!(scenario, ending, client.request(method(), &url), into_response, .await)
                });
                results.push(result);
            }
        }
        Entry::Client => {
            let client = ResilientClient::new(config()).unwrap();
            for _ in 0..scenario.times {
                let result = runtime.block_on(async {
                    ask!(scenario, ending, client.request(method(), &url), into_response, .await)
                });
                results.push(result);
            }
        }
        Entry::Functions => {
            let over = steady!(RetryOverride::new(), scenario.settings.over, told);
            for _ in 0..scenario.times {
                let result = runtime.block_on(over.clone().scope(async {
                    let builder = reqwest_resilient::request(method(), &url);
                    ask!(scenario, ending, builder, into_response, .await)
                }));
                results.push(result);
            }
        }
        Entry::Blocking | Entry::BlockingHandle => {
            let mut builder = blocking::ResilientClient::builder().config(config());
            if entry == Entry::BlockingHandle {
                builder = builder.runtime(runtime.handle().clone());
            }
            let client = builder.build().unwrap();
            for _ in 0..scenario.times {
                let builder = client.request(method(), &url);
                results.push(ask!(scenario, ending, builder, into_blocking_response,));
            }
        }
    }
    let told = std::mem::take(&mut *told.0.lock().unwrap());
    let requests = server.seen().into_iter().map(|it| {
        let mut headers: Vec<_> =
            it.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        headers.sort();
        format!("{} {} {headers:?} {:?}", it.method, it.path, it.body)
    });
    let host = server.addr().to_string();
    // A builder of this crate names the part that is invalid; that of reqwest-middleware cannot.
    let unnamed = |it: &str| {
        it.replace("request could not be built: builder error:", "builder error:")
            .replace("builder error:", "request could not be built:")
            .replace(" invalid value of header `x-broken`:", "")
    };
    let alike = |it: String| without_times(&unnamed(&it).replace(&host, "HOST"));
    Seen {
        results: results.into_iter().map(alike).collect(),
        told: told.into_iter().map(alike).collect(),
        requests: requests.map(alike).collect(),
    }
}

/// The text without the time that is left, which is never twice the same.
fn without_times(text: &str) -> String {
    let mut parts = text.split("Retry after ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        write!(out, "Retry after …{rest}").unwrap();
    }
    out
}

#[test]
fn every_way_in_gives_the_same() {
    let scenarios = scenarios();
    for ending in [Ending::Send, Ending::SendResilient] {
        for scenario in &scenarios {
            let expected = play(scenario, Entry::ByHand, ending);
            assert_eq!(expected.requests.len(), scenario.sent, "{}: {expected:#?}", scenario.name);
            assert_eq!(expected.results.len(), scenario.times);
            for entry in [Entry::Client, Entry::Functions, Entry::Blocking, Entry::BlockingHandle] {
                let seen = play(scenario, entry, ending);
                assert_eq!(seen, expected, "{}, {entry:?}, {ending:?}", scenario.name);
            }
        }
    }
    println!("\nscenarios, each by `send` and by `send_resilient`:");
    for (entry, name) in [
        (Entry::ByHand, "Resilient by hand"),
        (Entry::Client, "ResilientClient"),
        (Entry::Functions, "functions without a client"),
        (Entry::Blocking, "blocking, runtime of its own"),
        (Entry::BlockingHandle, "blocking, runtime given"),
    ] {
        println!("  {name:<30} {:>3}  ({entry:?})", scenarios.len());
    }
}

#[test]
fn every_verb_is_the_method_it_names() {
    macro_rules! check {
        ($($name:ident $METHOD:ident),*) => {
            $({
                let server = Server::h1([ok()]);
                let url = server.url("/");
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let client = ResilientClient::new(ResilientConfig::default()).unwrap();
                runtime.block_on(client.$name(&url).send()).unwrap();
                runtime.block_on(reqwest_resilient::$name(&url).send()).unwrap();
                let client = blocking::ResilientClient::new(ResilientConfig::default()).unwrap();
                client.$name(&url).send().unwrap();
                blocking::$name(&url).send().unwrap();
                let methods: Vec<_> = server.seen().into_iter().map(|it| it.method).collect();
                assert_eq!(methods, [const { Method::$METHOD }; 4]);
            })*
        };
    }
    check!(get GET, post POST, put PUT, patch PATCH, delete DELETE, head HEAD, options OPTIONS);
}

/// The verbs and the settings of requests come from one list each; this is for all the rest.
#[test]
fn what_is_added_to_one_client_is_added_to_the_other() {
    let methods = |files: &[&str]| -> BTreeSet<String> {
        let texts = files.iter().map(|file| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
            fs::read_to_string(path).unwrap()
        });
        let text: String = texts.collect();
        let mut in_macro = false;
        let lines = text.lines().filter(|line| {
            in_macro = (in_macro || line.starts_with("macro_rules!")) && *line != "}";
            !in_macro
        });
        lines
            .filter_map(|line| line.trim().strip_prefix("pub "))
            .filter_map(|it| it.strip_prefix("async ").unwrap_or(it).strip_prefix("fn "))
            .map(|it| it.split(['(', '<']).next().unwrap_or_default().to_owned())
            .collect()
    };
    let mut blocking = methods(&["client/blocking/mod.rs"]);
    let mut ours = methods(&["client/resilient_client.rs", "client/request.rs"]);
    assert!(blocking.remove("runtime"), "a runtime is a matter of blocking clients");
    assert!(ours.remove("into_inner"), "there is no blocking builder of reqwest-middleware");
    assert_eq!(blocking, ours);
    assert!(ours.contains("send_resilient") && ours.contains("build"), "{ours:?}");
}
