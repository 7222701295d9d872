//! Any settings, any request, and any replies of a server.

use std::io::ErrorKind;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    Backoff, BreakerConfig, BreakerSnapshot, BudgetConfig, Constant, Exponential, Fibonacci,
    History, HostStates, Jitter, Linear, Percent, ResilientConfig, ResilientConfigBuilder,
    ResponseExt, RetryAfter, RetryMethods, RetryOverride, Window,
};
use tokio::time::Instant;

use super::story::{Story, Told};
use crate::support::{URL, in_virtual_time, scripted, scripted_on};

/// A request, its settings, and the server's replies.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) settings: Settings,
    overridden: Option<Overridden>,
    method: Method,
    keyed: bool,
    replies: Vec<Replied>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    max_retries: u32,
    backoff: Delays,
    jitter: Jitter,
    max_wait: Duration,
    max_total: Option<Duration>,
    attempt_timeout: Option<Duration>,
    pub(super) retry_after: RetryAfter,
    methods: RetryMethods,
    retry_if: Option<bool>,
    read_body: bool,
    random: f64,
}

type Answer = Result<(StatusCode, Option<History>), String>;

/// The results of several requests, and the state that they left.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    answers: Vec<(Answer, Duration)>,
    sent: Vec<Duration>,
    breaker: BreakerSnapshot,
    last_failure: Option<Duration>,
    tokens: Option<f64>,
}

/// The settings that one request has for itself.
#[derive(Clone, Debug)]
pub(super) struct Overridden {
    max_retries: Option<u32>,
    backoff: Option<Delays>,
    max_wait: Option<Duration>,
    max_total: Option<Option<Duration>>,
    idempotent: Option<bool>,
    by_scope: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Delays {
    grows: Grows,
    base: Duration,
    max_delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Grows {
    Not,
    Linearly,
    Exponentially,
    LikeRabbits,
}

#[derive(Clone, Debug)]
struct Replied {
    gives: Gives,
    latency: Duration,
}

#[derive(Clone, Debug)]
enum Gives {
    Answer { status: u16, retry_after: Option<Said>, closes: bool },
    Error(ErrorKind),
}

#[derive(Clone, Debug)]
enum Said {
    Seconds(u64),
    Date(u64),
    Nonsense(&'static str),
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let methods = [Method::GET, Method::PUT, Method::DELETE, Method::POST, Method::PATCH];
    (
        settings(),
        of(overridden()),
        select(methods.to_vec()),
        proptest::bool::weighted(0.2),
        proptest::collection::vec(replied(), 1..8),
    )
        .prop_map(|(settings, overridden, method, keyed, replies)| Case {
            settings,
            overridden,
            method,
            keyed,
            replies,
        })
}

fn settings() -> impl Strategy<Value = Settings> {
    let jitters = prop_oneof![
        select(vec![Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::None]),
        (0.0..3.0f64).prop_map(Jitter::Proportional),
    ];
    let methods = select(vec![
        RetryMethods::Idempotent,
        RetryMethods::All,
        RetryMethods::Only(vec![Method::POST, Method::GET]),
    ]);
    let retry_after = vec![
        RetryAfter::Floor,
        RetryAfter::Replaces,
        RetryAfter::Capped(Duration::from_secs(2)),
        RetryAfter::Ignored,
    ];
    let limits = (millis(1..120_000), of(millis(1..90_000)), of(millis(1..9_000)));
    (
        0..6u32,
        delays(),
        jitters,
        limits,
        select(retry_after),
        methods,
        weighted(0.3, any::<bool>()),
        any::<bool>(),
        0.0..1.0f64,
    )
        .prop_map(
            |(
                max_retries,
                backoff,
                jitter,
                limits,
                retry_after,
                methods,
                retry_if,
                read_body,
                random,
            )| {
                let (max_wait, max_total, timeout) = limits;
                let attempt_timeout = timeout.map(|it| max_total.map_or(it, |total| it.min(total)));
                Settings {
                    max_retries,
                    backoff,
                    jitter,
                    max_wait,
                    max_total,
                    attempt_timeout,
                    retry_after,
                    methods,
                    retry_if,
                    read_body,
                    random,
                }
            },
        )
}

fn overridden() -> impl Strategy<Value = Overridden> {
    let total = of(of(millis(1..90_000)));
    (of(0..6u32), of(delays()), of(millis(1..120_000)), total, of(any::<bool>()), any::<bool>())
        .prop_map(|(max_retries, backoff, max_wait, max_total, idempotent, by_scope)| Overridden {
            max_retries,
            backoff,
            max_wait,
            max_total,
            idempotent,
            by_scope,
        })
}

fn delays() -> impl Strategy<Value = Delays> {
    let grows = select(vec![Grows::Not, Grows::Linearly, Grows::Exponentially, Grows::LikeRabbits]);
    (grows, millis(0..20_000), of(millis(1..30_000))).prop_map(|(grows, base, max_delay)| Delays {
        grows,
        base,
        max_delay,
    })
}

fn replied() -> impl Strategy<Value = Replied> {
    let statuses = vec![200, 302, 400, 404, 408, 425, 429, 500, 501, 502, 503, 504];
    let said = prop_oneof![
        prop_oneof![8 => 0..150u64, 1 => Just(u64::MAX)].prop_map(Said::Seconds),
        (0..150u64).prop_map(Said::Date),
        select(vec!["", "-1", "soon", "1e9"]).prop_map(Said::Nonsense),
    ];
    let answer = (select(statuses), of(said), any::<bool>())
        .prop_map(|(status, retry_after, closes)| Gives::Answer { status, retry_after, closes });
    let errors = vec![
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::TimedOut,
        ErrorKind::UnexpectedEof,
        ErrorKind::InvalidData,
    ];
    let gives = prop_oneof![2 => answer, 1 => select(errors).prop_map(Gives::Error)];
    (gives, millis(0..5_000)).prop_map(|(gives, latency)| Replied { gives, latency })
}

impl Delays {
    fn build(&self) -> Box<dyn Backoff> {
        /// The builders are alike, and have no trait in common to say so.
        macro_rules! capped {
            ($backoff:expr) => {
                match self.max_delay {
                    Some(it) => Box::new($backoff.max_delay(it)),
                    None => Box::new($backoff),
                }
            };
        }
        match self.grows {
            Grows::Not => Box::new(Constant::new(self.base)),
            Grows::Linearly => capped!(Linear::new(self.base)),
            Grows::Exponentially => capped!(Exponential::new(self.base)),
            Grows::LikeRabbits => capped!(Fibonacci::new(self.base)),
        }
    }
}

impl Backoff for Delays {
    fn delay(&self, retry: u32) -> Duration {
        self.build().delay(retry)
    }

    fn max_delay(&self) -> Option<Duration> {
        self.build().max_delay()
    }
}

impl Said {
    fn header(&self) -> HeaderValue {
        let text = match self {
            Self::Seconds(it) => it.to_string(),
            Self::Date(it) => httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(NOW + it)),
            Self::Nonsense(it) => (*it).to_owned(),
        };
        text.try_into().unwrap()
    }
}

/// The constant time of the wall clock.
const NOW: u64 = 1_445_412_480;

impl Case {
    fn own<T>(&self, setting: impl FnOnce(&Overridden) -> Option<T>) -> Option<T> {
        self.overridden.as_ref().and_then(setting)
    }

    pub(super) fn retries(&self) -> u32 {
        self.own(|it| it.max_retries).unwrap_or(self.settings.max_retries)
    }

    pub(super) fn total(&self) -> Option<Duration> {
        self.own(|it| it.max_total).unwrap_or(self.settings.max_total)
    }

    pub(super) fn max_wait(&self) -> Duration {
        self.own(|it| it.max_wait).unwrap_or(self.settings.max_wait)
    }

    pub(super) fn backoff(&self) -> Delays {
        self.own(|it| it.backoff.clone()).unwrap_or_else(|| self.settings.backoff.clone())
    }

    /// Returns whether the request may take effect twice.
    pub(super) fn may_be_repeated(&self) -> bool {
        let by_method = match &self.settings.methods {
            RetryMethods::Only(methods) => methods.contains(&self.method),
            RetryMethods::All => true,
            _ => ![Method::POST, Method::PATCH].contains(&self.method),
        };
        self.own(|it| it.idempotent).unwrap_or(by_method || self.keyed)
    }

    /// Returns the same case, in which the request may not take effect twice.
    pub(super) fn guarded(mut self) -> Self {
        if self.may_be_repeated() {
            self.keyed = false;
            self.method = Method::PATCH;
            if let RetryMethods::All = self.settings.methods {
                self.settings.methods = RetryMethods::Idempotent;
            }
            if let Some(own) = &mut self.overridden {
                own.idempotent = own.idempotent.map(|_| false);
            }
        }
        assert!(!self.may_be_repeated());
        self
    }

    fn config(&self) -> ResilientConfigBuilder {
        let Settings { retry_if, random, .. } = self.settings;
        let settings = self.settings.clone();
        let mut builder = ResilientConfig::builder()
            .max_retries(settings.max_retries)
            .backoff(settings.backoff)
            .jitter(settings.jitter)
            .retry_after(settings.retry_after)
            .retry_methods(settings.methods)
            .random(move || random)
            .wall_clock(|| UNIX_EPOCH + Duration::from_secs(NOW));
        // Set afterwards it cuts a longer cap.
        builder = builder.build().unwrap().to_builder().max_wait_time(settings.max_wait);
        if let Some(total) = settings.max_total {
            builder = builder.max_total_time(total);
        }
        if let Some(timeout) = settings.attempt_timeout {
            builder = builder.attempt_timeout(timeout);
        }
        if let Some(retry) = retry_if {
            builder = builder.retry_if(move |_| retry);
        }
        if settings.read_body { builder.read_body(64) } else { builder }
    }

    fn patch(&self) -> RetryOverride {
        let mut patch = RetryOverride::new();
        let Some(own) = self.overridden.clone() else { return patch };
        if let Some(it) = own.max_retries {
            patch = patch.max_retries(it);
        }
        if let Some(it) = own.backoff {
            // A cap above the longest wait is refused where both are set together.
            let max_delay = it.max_delay.map(|it| it.min(self.max_wait()));
            patch = patch.backoff(Delays { max_delay, ..it });
        }
        if let Some(it) = own.max_wait {
            patch = patch.max_wait_time(it);
        }
        if let Some(it) = own.idempotent {
            patch = patch.idempotent(it);
        }
        match own.max_total {
            Some(Some(it)) => patch.max_total_time(it),
            Some(None) => patch.without_max_total_time(),
            None => patch,
        }
    }

    fn replies(&self) -> impl Iterator<Item = Reply> {
        self.replies.iter().map(|it| {
            let reply = match &it.gives {
                Gives::Error(kind) => Reply::io_error(*kind),
                Gives::Answer { status, retry_after, closes } => {
                    let mut reply = Reply::status(*status).body("something");
                    if let Some(said) = retry_after {
                        reply = reply.header(RETRY_AFTER, said.header());
                    }
                    match closes {
                        true => reply.header(CONNECTION, HeaderValue::from_static("close")),
                        false => reply,
                    }
                }
            };
            reply.after(it.latency)
        })
    }

    /// The hint in the reply to this attempt, counted from 1.
    pub(super) fn hint(&self, attempt: u32) -> Option<Duration> {
        let last = self.replies.last().unwrap();
        match &self.replies.get(attempt as usize - 1).unwrap_or(last).gives {
            Gives::Answer { retry_after: Some(Said::Seconds(it) | Said::Date(it)), .. } => {
                Some(Duration::from_secs(*it))
            }
            _ => None,
        }
    }

    fn request(&self, client: &ClientWithMiddleware) -> RequestBuilder {
        let request = client.request(self.method.clone(), URL);
        if self.keyed { request.header("idempotency-key", "a key") } else { request }
    }

    /// Returns the same case without predicates on responses and listeners.
    pub(super) fn unasked(mut self) -> Self {
        let settings = self.settings;
        let (max_total, attempt_timeout) = (None, None);
        let (retry_if, read_body) = (None, false);
        self.settings = Settings { max_total, attempt_timeout, retry_if, read_body, ..settings };
        self.overridden = None;
        self
    }

    /// Makes as many such requests as there are replies, one after the other, by one client whose
    /// breaker and budget, if it has one, have little patience.
    pub(super) fn repeated(&self, watched: bool) -> Row {
        in_virtual_time(async {
            let start = Instant::now();
            let (slow, window) = (Duration::from_secs(3), Window::Time(Duration::from_secs(10)));
            let breaker = BreakerConfig::slow_call_rate(slow, Percent::HALF, window)
                .or_consecutive(3)
                .min_samples(2)
                .open_for(Duration::from_secs(5))
                .open_jitter(Percent::new(20).unwrap())
                .without_open_growth();
            let mut config = self.config().circuit_breaker(breaker);
            config = match self.keyed {
                true => config.without_retry_budget(),
                false => config.retry_budget(BudgetConfig::default().size(2)),
            };
            if watched {
                config = config.on_event(|_| ());
            }
            let hosts = HostStates::new();
            let (client, script) = scripted_on(&hosts, config.build().unwrap(), self.replies());
            let mut answers = vec![];
            for _ in &self.replies {
                let answer = self.request(&client).send().await;
                let answer = answer.map(|it| (it.status(), it.history().cloned()));
                answers.push((answer.map_err(|it| it.to_string()), start.elapsed()));
            }
            let (host, now) = ("https://api.example.com", Instant::now());
            let sent = script.sent().iter().map(|it| it.at - start).collect();
            let mut breaker = hosts.breaker(host).snapshot(now);
            let last_failure = breaker.last_failure.take().map(|it| it - start.into_std());
            Row { answers, sent, breaker, last_failure, tokens: hosts.budget_left(host, now) }
        })
    }

    /// Makes the request under virtual time.
    pub(super) fn play(&self) -> Story {
        in_virtual_time(async {
            let told = Told::new(self.clone());
            let config = told.listen(self.config()).build().unwrap();
            let (client, script) = scripted(config, self.replies());
            let request = self.request(&client);
            let _ = match self.own(|it| Some(it.by_scope)) {
                None => request.send().await,
                Some(true) => self.patch().scope(request.send()).await,
                Some(false) => request.with_extension(self.patch()).send().await,
            };
            told.story(script.sent().len())
        })
    }
}
