//! Plays a scenario through the public API under virtual time, and writes down what happens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::{error::Error, future, io, time::Duration, time::SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Extensions;
use http_body::{Body as _, Frame};
use reqwest::{Body, Method, Response, ResponseBuilderExt as _, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient as ours;
use reqwest_resilient::{BreakerSnapshot, Delivery, Health, HttpRequestError, Outcome};
use reqwest_resilient::{RequestBuilderExt as _, Resilient};
use tokio::time::Instant;

use super::breaker::{self, Ticket, Watched};
use super::errors::{self, Scripted};
use super::schema::{
    BodyKind, BreakerState, Callback, Config, ErrorPattern, Event, Expected, FORCELIST, Kind, Num,
    Op, Pred, Reply, Request, Scenario,
};
use super::settings::{self, Refused};
use crate::support::{idle_client, in_virtual_time};

/// The result of one request.
pub(crate) struct Observed {
    pub(crate) attempts: usize,
    pub(crate) elapsed: f64,
    pub(crate) trace: Vec<Event>,
    pub(crate) bodies_sent: Vec<String>,
    /// The progress of each attempt.
    pub(crate) deliveries: Vec<Delivery>,
    /// The report of each attempt to the circuit breaker.
    pub(crate) healths: Vec<Option<Health>>,
    /// When each attempt ended: since the request started, and by the wall clock.
    pub(crate) ended: Vec<(f64, SystemTime)>,
    pub(crate) got: Got,
    /// The circuit breaker as the request found it, and as it left it.
    pub(crate) found: Option<BreakerSnapshot>,
    pub(crate) breaker: Option<BreakerState>,
    /// The number of reports of its success or failure.
    pub(crate) ends: usize,
    /// Wrong facts that callbacks got about the request.
    pub(crate) lies: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Got {
    Response { status: u16, body: String },
    Failed(Box<Failed>),
    Panicked(String),
}

#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) debug: String,
    pub(crate) attempts: usize,
    pub(crate) stop: ours::StopReason,
    pub(crate) url: Option<Url>,
    pub(crate) status: Option<u16>,
    pub(crate) body: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) cause: Option<Kind>,
    /// The error of another middleware, as it was raised.
    pub(crate) foreign: Option<String>,
    /// The message of the circuit breaker.
    pub(crate) rejected: Option<String>,
}

impl Observed {
    pub(crate) fn sleeps(&self) -> impl Iterator<Item = f64> {
        self.trace.iter().filter_map(|it| match it {
            Event::Sleep { s, .. } => Some(s.0),
            _ => None,
        })
    }

    pub(crate) fn failed(&self) -> Option<&Failed> {
        match &self.got {
            Got::Failed(it) => Some(it),
            _ => None,
        }
    }
}

/// The parts of a scenario that a replay leaves out, to check whether they matter.
#[derive(Clone, Copy, Default)]
pub(crate) struct Without {
    pub(crate) wall_jumps: bool,
    pub(crate) raising: bool,
}

pub(crate) type Play = (Arc<Request>, Observed);

/// Plays a scenario in a runtime of its own; every request with what became of it, those made
/// during an attempt before the one they were made during.
pub(crate) fn replay(scenario: &Scenario, without: Without) -> Result<Vec<Play>, Refused> {
    in_virtual_time(async {
        let stage = Stage::set(scenario, without)?;
        for request in &scenario.requests {
            Arc::clone(&stage).play(Arc::clone(request)).await;
        }
        Ok(std::mem::take(&mut *stage.played.lock().unwrap()))
    })
}

/// Wed, 21 Oct 2015 07:28:00 GMT, when every scenario begins.
const WALL_START: Duration = Duration::from_secs(1_445_412_480);

/// The state that the requests of one scenario share.
struct Stage {
    without: Without,
    start: Instant,
    config: Config,
    /// The failures that the circuit breaker counts; `None` for its own rules.
    expected: Option<Vec<Expected>>,
    breaker: Mutex<Option<Watched>>,
    callbacks: Vec<Callback>,
    /// By how many seconds the wall clock was set forward.
    wall_ahead: Mutex<f64>,
    rng: Mutex<Box<dyn Iterator<Item = f64> + Send>>,
    /// The number of times that each callback still raises.
    raises: Mutex<BTreeMap<Callback, usize>>,
    /// The requests under way; each was made during the one before it.
    acts: Mutex<Vec<Act>>,
    played: Mutex<Vec<Play>>,
    client: OnceLock<ClientWithMiddleware>,
}

/// One request under way.
struct Act {
    request: Arc<Request>,
    method: Method,
    url: Url,
    started: Instant,
    found: Option<BreakerSnapshot>,
    /// Of the attempt under way.
    ticket: Option<Ticket>,
    waits_since: Option<Instant>,
    attempts: usize,
    trace: Vec<Event>,
    bodies_sent: Vec<String>,
    deliveries: Vec<Delivery>,
    healths: Vec<Option<Health>>,
    ended: Vec<(f64, SystemTime)>,
    /// The last error raised.
    raised: Option<Kind>,
    ends: usize,
    lies: Vec<String>,
}

impl Stage {
    fn set(scenario: &Scenario, without: Without) -> Result<Arc<Self>, Refused> {
        let Scenario { config, callbacks, rng, .. } = scenario;
        let breaker = config.circuit_breaker.as_ref();
        let raises = config.callback_raises.iter().map(|(it, raises)| (*it, raises.times));
        let stage = Arc::new(Self {
            without,
            start: Instant::now(),
            config: config.clone(),
            expected: breaker.and_then(|it| it.expected.clone()).or_else(|| {
                // Throttling is a failure like any other to the reference.
                let all = || vec![Expected::HttpStatus];
                scenario.requests.iter().any(|it| it.is_throttled()).then(all)
            }),
            breaker: Mutex::default(),
            callbacks: callbacks.clone(),
            wall_ahead: Mutex::default(),
            rng: Mutex::new(Box::new(rng.clone().into_iter().cycle())),
            raises: Mutex::new(raises.filter(|_| !without.raising).collect()),
            acts: Mutex::default(),
            played: Mutex::default(),
            client: OnceLock::new(),
        });
        let config = stage.listening()?;
        let client = ClientBuilder::new(idle_client())
            .with(Resilient::new(config))
            .with(Terminal(Arc::clone(&stage)))
            .build();
        assert!(stage.client.set(client).is_ok());
        Ok(stage)
    }

    /// The config with everything wired to this stage.
    fn listening(self: &Arc<Self>) -> Result<ours::ResilientConfig, Refused> {
        let config = &self.config;
        let on_stage = || Arc::clone(self);
        let (random, wall_clock) = (on_stage(), on_stage());
        let mut builder = settings::builder(config)?
            .random(move || random.rng.lock().unwrap().next().expect("an endless rng"))
            .wall_clock(move || wall_clock.wall_clock());
        if let Some(pred) = config.retry_if.clone() {
            if pred.body_contains.is_some() || pred.body_empty.is_some() {
                builder = builder.read_body(1 << 20);
            }
            let stage = on_stage();
            builder = builder.retry_if(move |outcome| stage.ask(&pred, outcome));
        }
        if let Some(written) = &config.circuit_breaker {
            let stage = on_stage();
            let watched = Watched::new(written, self.start, move |change| {
                let (from, to) = (breaker::name(change.from), breaker::name(change.to));
                stage.act(|it| it.trace.push(Event::Breaker { from, to }));
            })?;
            builder = builder.circuit_breaker(watched.breaker().clone());
            *self.breaker.lock().unwrap() = Some(watched);
            if self.expected.is_some() {
                let stage = on_stage();
                builder = builder.breaker_health(move |it| stage.health(it));
            }
        }
        for callback in &self.callbacks {
            let stage = on_stage();
            builder = match callback {
                Callback::Request => builder.on_request(move |it| {
                    stage.hear(it.method, it.url.full(), it.max_retries);
                    let attempt = it.attempt as usize;
                    stage.tell(Callback::Request, |_| Event::OnRequest { attempt });
                }),
                Callback::Retry => builder.on_retry(move |it| {
                    stage.hear(it.method, it.url.full(), it.max_retries);
                    stage.tell(Callback::Retry, |act| Event::OnRetry {
                        attempt: it.attempt as usize,
                        wait_time: Num(it.wait.as_secs_f64()),
                        status: status(it.outcome),
                        error: act.name(it.outcome),
                    });
                }),
                Callback::Success => builder.on_success(move |it| {
                    stage.hear(it.method, it.url.full(), it.max_retries);
                    stage.tell(Callback::Success, |_| Event::OnSuccess {
                        attempt: it.attempts as usize,
                        status: status(it.outcome).expect("a success has a status"),
                        total_time: Num(it.elapsed.as_secs_f64()),
                    });
                }),
                Callback::Failure => builder.on_failure(move |it| {
                    stage.hear(it.method, it.url.full(), it.max_retries);
                    stage.tell(Callback::Failure, |act| Event::OnFailure {
                        attempt: it.attempts as usize,
                        status: status(it.outcome),
                        error: breaker::in_words(it.to_string(), it.outcome),
                        cause: act.name(it.outcome),
                        total_time: Num(it.elapsed.as_secs_f64()),
                    });
                }),
            };
        }
        let stage = on_stage();
        settings::build(builder.on_event(move |event| match event {
            ours::Event::AttemptStarted(_) => {
                let ticket = stage.watch(|it| it.entered(Instant::now())).flatten();
                stage.act(|it| it.ticket = ticket);
            }
            ours::Event::AttemptEnded(outcome) => stage.attempt_ended(outcome),
            ours::Event::Waiting(_) => stage.act(Act::waits),
            ours::Event::Succeeded(_) | ours::Event::GaveUp(_) => stage.act(|it| it.ends += 1),
            _ => {}
        }))
    }

    fn wall_clock(&self) -> SystemTime {
        let since_start = self.start.elapsed().as_secs_f64() + *self.wall_ahead.lock().unwrap();
        let since_epoch = WALL_START.as_secs_f64() + since_start;
        // Microseconds are as far as the sum is exact.
        SystemTime::UNIX_EPOCH + Duration::from_micros((since_epoch * 1e6).round() as u64)
    }

    fn wall_jump(&self, seconds: f64) {
        if !self.without.wall_jumps {
            *self.wall_ahead.lock().unwrap() += seconds;
        }
    }

    /// The innermost request under way.
    fn act<T>(&self, with: impl FnOnce(&mut Act) -> T) -> T {
        with(self.acts.lock().unwrap().last_mut().expect("a request under way"))
    }

    fn ask(&self, pred: &Pred, outcome: &Outcome<'_>) -> bool {
        let returns = self.act(|act| {
            let (status, error) = (status(outcome), act.name(outcome));
            let returns = pred.raises.is_none().then(|| holds(pred, outcome, error));
            act.trace.push(Event::RetryIf { status, error, returns });
            returns
        });
        returns.unwrap_or_else(|| raise("raised by retry_if"))
    }

    /// Checks the facts that every callback gets about its request.
    fn hear(&self, method: &Method, url: &Url, max_retries: u32) {
        let own = self.config.max_retries.map_or(3, |it| it.0 as u32);
        self.act(|act| {
            if *method != act.method || *url != act.url || max_retries != own {
                act.lies.push(format!("a callback heard of {method} {url} ({max_retries})"));
            }
        });
    }

    fn tell(&self, callback: Callback, event: impl FnOnce(&Act) -> Event) {
        self.act(|act| act.trace.push(event(act)));
        let raises = self.raises.lock().unwrap().get_mut(&callback).is_some_and(|left| {
            let raises = *left > 0;
            *left = left.saturating_sub(1);
            raises
        });
        if raises {
            raise("raised by a callback");
        }
    }

    /// Applies `with` to the circuit breaker, if there is one.
    fn watch<T>(&self, with: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        self.breaker.lock().unwrap().as_mut().map(with)
    }

    fn health(&self, outcome: &Outcome<'_>) -> Option<Health> {
        let (status, error) = (status(outcome), self.act(|it| it.name(outcome)));
        let listed = self.config.status_forcelist.as_deref().unwrap_or(&FORCELIST);
        let transient = match &self.config.retry_if {
            Some(pred) => pred.raises.is_none() && holds(pred, outcome, error),
            None => status.is_some_and(|it| listed.contains(&i64::from(it))),
        };
        breaker::health(self.expected.as_deref(), status, error, transient)
    }

    fn attempt_ended(&self, outcome: &Outcome<'_>) {
        let (wall_clock, health) = (self.wall_clock(), self.health(outcome));
        self.leave(health);
        self.act(|act| {
            act.healths.push(health);
            act.deliveries.push(outcome.delivery());
            act.ended.push((act.started.elapsed().as_secs_f64(), wall_clock));
        });
    }

    /// The attempt under way is over, if there is one.
    fn leave(&self, health: Option<Health>) {
        if let Some(ticket) = self.act(|it| it.ticket.take()) {
            self.watch(|it| it.left(ticket, health, Instant::now()));
        }
    }

    async fn prepare(&self, request: &Request) {
        for op in &request.before {
            match op {
                Op::Advance { s } => tokio::time::advance(Duration::from_secs_f64(*s)).await,
                Op::WallJump { s } => self.wall_jump(*s),
                op => {
                    self.watch(|it| it.operate(op, Instant::now())).expect("a breaker");
                }
            }
        }
        let found = self.watch(|it| it.snapshot(Instant::now()));
        self.act(|it| (it.started, it.found) = (Instant::now(), found));
    }

    /// Makes one request.
    async fn play(self: Arc<Self>, request: Arc<Request>) {
        let method = Method::from_bytes(request.method.as_bytes()).expect("a method");
        let mut builder = self.client.get().unwrap().request(method.clone(), &request.url);
        for (name, lines) in &request.headers {
            builder = lines.iter().fold(builder, |builder, line| builder.header(name, line));
        }
        if let Some(body) = &request.body {
            let data = Bytes::from(body.data.clone());
            builder = builder.body(match body.kind {
                BodyKind::Bytes => data.into(),
                BodyKind::Stream => Body::wrap(OneShot(Some(data))),
            });
        }
        // reqwest turns userinfo into a header.
        let mut url = Url::parse(&request.url).expect("a url");
        url.set_username("").and_then(|()| url.set_password(None)).expect("a url with a host");
        self.acts.lock().unwrap().push(Act {
            request: Arc::clone(&request),
            method,
            url,
            started: Instant::now(),
            found: None,
            ticket: None,
            waits_since: None,
            attempts: 0,
            trace: vec![],
            bodies_sent: vec![],
            deliveries: vec![],
            healths: vec![],
            ended: vec![],
            raised: None,
            ends: 0,
            lies: vec![],
        });
        self.prepare(&request).await;
        let result = AssertUnwindSafe(builder.send_resilient()).catch_unwind().await;
        self.leave(None);
        self.act(Act::woke);
        let act = self.acts.lock().unwrap().pop().expect("the request that was begun");
        let elapsed = act.started.elapsed().as_secs_f64();
        let got = match result {
            Ok(Ok(response)) => {
                Got::Response { status: response.status().as_u16(), body: text(response).await }
            }
            Ok(Err(error)) => Got::Failed(Box::new(failed(error, act.raised).await)),
            Err(panic) => match panic.downcast::<String>() {
                Ok(message) => Got::Panicked(*message),
                Err(other) => resume_unwind(other),
            },
        };
        let mut lies = act.lies;
        let breaker = self.watch(|it| {
            let now = Instant::now();
            if matches!(&got, Got::Failed(it) if it.rejected.is_some()) {
                it.rejected(now);
            }
            let observed = it.observe(now);
            lies.append(&mut it.wrong);
            observed
        });
        let observed = Observed {
            attempts: act.attempts,
            elapsed,
            trace: act.trace,
            bodies_sent: act.bodies_sent,
            deliveries: act.deliveries,
            healths: act.healths,
            ended: act.ended,
            got,
            found: act.found,
            breaker,
            ends: act.ends,
            lies,
        };
        self.played.lock().unwrap().push((request, observed));
    }
}

impl Act {
    /// The scripted name of an outcome's error.
    fn name(&self, outcome: &Outcome<'_>) -> Option<Kind> {
        outcome.error().and_then(|it| errors::name(it, self.raised))
    }

    /// A wait begins; how long it is turns out at its end.
    fn waits(&mut self) {
        self.woke();
        self.waits_since = Some(Instant::now());
        self.trace.push(Event::Sleep { s: Num(f64::NAN), raised: None });
    }

    fn woke(&mut self) {
        let wait = self.trace.iter_mut().rev().find_map(|it| match it {
            Event::Sleep { s, .. } => Some(s),
            _ => None,
        });
        if let (Some(since), Some(wait)) = (self.waits_since.take(), wait) {
            wait.0 = since.elapsed().as_secs_f64();
        }
    }
}

/// Panics without the hook's report: this panic is part of the play.
fn raise(message: &str) -> ! {
    resume_unwind(Box::new(message.to_owned()))
}

fn status(outcome: &Outcome<'_>) -> Option<u16> {
    outcome.status().map(|it| it.as_u16())
}

async fn text(response: Response) -> String {
    String::from_utf8(response.bytes().await.expect("a body").into()).expect("text")
}

async fn failed(error: HttpRequestError, raised: Option<Kind>) -> Failed {
    let source = error.source();
    let scripted = source.and_then(|it| it.downcast_ref::<Scripted>());
    let rejected = error.circuit_open();
    let retry_after = error.response().and_then(|it| it.headers().get("retry-after"));
    Failed {
        // All in one line: the plain form leaves the cause to the sources.
        message: format!("{error:#}"),
        debug: format!("{error:?}"),
        attempts: error.attempts() as usize,
        stop: error.stop_reason(),
        url: error.url().cloned(),
        status: error.status().map(|it| it.as_u16()),
        retry_after: retry_after.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()),
        cause: source.and_then(|it| errors::name(it, raised)),
        foreign: scripted.map(ToString::to_string),
        rejected: rejected.map(breaker::words),
        body: match error.into_response() {
            Ok(response) => Some(text(response).await),
            Err(_) => None,
        },
    }
}

fn holds(pred: &Pred, outcome: &Outcome<'_>, error: Option<Kind>) -> bool {
    let status = status(outcome);
    let body = outcome.body().map(|it| String::from_utf8_lossy(it).into_owned());
    let is = |pattern: &ErrorPattern| match (pattern, error) {
        (_, None) => false,
        (ErrorPattern::Any, Some(_)) => true,
        (ErrorPattern::AnyTimeout, Some(kind)) => kind.is_timeout(),
        (ErrorPattern::Kind(pattern), Some(kind)) => *pattern == kind,
    };
    let has = |(name, value): (&String, &String)| {
        outcome.headers().and_then(|it| it.get(name)).is_some_and(|it| it == value)
    };
    let contains = |part: &String| body.as_ref().is_some_and(|it| it.contains(part));
    pred.always == Some(true)
        || status.is_some_and(|it| pred.statuses.contains(&it))
        || pred.status_min.is_some_and(|min| status.is_some_and(|it| it >= min))
        || pred.body_contains.as_ref().is_some_and(contains)
        || pred.body_empty.is_some_and(|empty| body.is_some_and(|it| it.trim().is_empty() == empty))
        || pred.header.iter().any(has)
        || pred.errors.iter().any(is)
}

/// The end of the chain: plays the scripted replies.
struct Terminal(Arc<Stage>);

#[async_trait::async_trait]
impl Middleware for Terminal {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let stage = &self.0;
        let body = drained(request.body_mut().take()).await;
        let (script, attempt) = stage.act(|act| {
            act.attempts += 1;
            act.woke();
            act.trace.push(Event::Send { attempt: act.attempts });
            if *request.method() != act.method || *request.url() != act.url {
                act.lies.push(format!("sent {} {}", request.method(), request.url()));
            }
            act.bodies_sent.push(body);
            (Arc::clone(&act.request), act.attempts)
        });
        let reply = reply(&script, attempt).ok_or_else(|| {
            reqwest_middleware::Error::middleware(io::Error::other("no reply was scripted"))
        })?;
        for during in &reply.during {
            Arc::clone(stage).play(Arc::clone(during)).await;
        }
        if reply.latency_ms > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(reply.latency_ms / 1e3)).await;
        }
        stage.wall_jump(reply.wall_jump_s);
        if let Some(kind) = reply.error {
            stage.act(|act| act.raised = Some(kind));
            return Err(errors::raise(kind, &reply.message));
        }
        let mut answer = http::Response::builder()
            .status(reply.status.expect("a status or an error"))
            .url(request.url().clone());
        for (name, lines) in &reply.headers {
            answer = lines.iter().fold(answer, |answer, line| {
                answer
                    .header(name, http::HeaderValue::from_bytes(line.as_bytes()).expect("a value"))
            });
        }
        Ok(answer.body(reply.body.clone()).expect("an answer").into())
    }
}

/// The scripted reply to this attempt, counted from 1.
pub(crate) fn reply(request: &Request, attempt: usize) -> Option<&Reply> {
    let last = request.outcomes.last().filter(|_| request.repeat_last);
    request.outcomes.get(attempt - 1).or(last)
}

/// A body that is there only once.
struct OneShot(Option<Bytes>);

impl http_body::Body for OneShot {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|it| Ok(Frame::data(it))))
    }
}

async fn drained(body: Option<Body>) -> String {
    let mut sent = vec![];
    let Some(mut body) = body else { return String::new() };
    while let Some(frame) = future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        sent.extend(frame.expect("a frame").into_data().expect("data"));
    }
    String::from_utf8(sent).expect("text")
}
