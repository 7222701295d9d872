//! Whatever a server does, under whatever settings, the loop keeps its promises.
//!
//! An input is a [`Case`], field by field in little-endian; each reply is preceded by a 1. The
//! seeds are scenarios of `tests/conformance/aresilient.json`.
#![no_main]

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use arbitrary::Arbitrary;
use http::{HeaderValue, Method, header};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    Attempt, AttemptLog, BreakerConfig, BudgetConfig, CircuitBreakers, ConfigError, Constant,
    Delivery, Exponential, Fibonacci, Jitter, Linear, Resilient, ResilientConfig,
    ResilientConfigBuilder, RetryAfter, RetryBudget, RetryMethods, RetryOverride,
};
use tokio::time::Instant;

#[derive(Arbitrary, Debug)]
struct Case {
    max_retries: u8,
    backoff: u8,
    jitter: u8,
    /// Lengths of time are in hundredths of a second; 0 is none.
    base: u16,
    max_wait: u16,
    max_total: u16,
    timeout: u16,
    retry_after: u8,
    methods: u8,
    random: u8,
    /// Breaker, budget, gate, `read_body`, key, override and what it says.
    switches: u8,
    method: u8,
    requests: u8,
    /// The pause between two requests.
    pause: u16,
    replies: Vec<Replied>,
}

#[derive(Arbitrary, Debug)]
struct Replied {
    gives: u8,
    /// Whether it says when to come back, and in how many seconds.
    says: u8,
    seconds: u16,
    latency: u16,
}

const STATUSES: [u16; 16] =
    [200, 204, 302, 400, 403, 404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 599];
const ERRORS: [ErrorKind; 6] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::TimedOut,
    ErrorKind::UnexpectedEof,
    ErrorKind::BrokenPipe,
    ErrorKind::InvalidData,
];
const URL: &str = "https://api.example.com/data";
const TICK: Duration = Duration::from_millis(1);
static IDLE: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

libfuzzer_sys::fuzz_target!(|case: Case| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(case.play());
});

fn hundredths(count: u16) -> Duration {
    Duration::from_millis(u64::from(count) * 10)
}

fn some(count: u16) -> Option<Duration> {
    (count > 0).then(|| hundredths(count))
}

impl Case {
    fn has(&self, bit: u8) -> bool {
        self.switches & 1 << bit != 0
    }

    fn retries(&self) -> u32 {
        u32::from(self.max_retries % 16)
    }

    fn method(&self) -> Method {
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH];
        methods[usize::from(self.method) % 4].clone()
    }

    /// `true` if the request may take effect twice.
    fn may_be_repeated(&self) -> bool {
        let method = self.method();
        let by_method = match self.methods % 3 {
            0 => method == Method::GET || method == Method::PUT,
            1 => true,
            _ => method == Method::GET || method == Method::POST,
        };
        if self.has(5) { self.has(6) } else { by_method || self.has(4) }
    }

    fn config(&self) -> ResilientConfigBuilder {
        let base = hundredths(self.base);
        let config = ResilientConfig::builder().max_retries(self.retries());
        let config = match self.backoff % 4 {
            0 => config.backoff(Constant::new(base)),
            1 => config.backoff(Linear::new(base)),
            2 => config.backoff(Exponential::new(base)),
            _ => config.backoff(Fibonacci::new(base)),
        };
        let config = config.jitter(match self.jitter % 4 {
            0 => Jitter::None,
            1 => Jitter::Full,
            2 => Jitter::Equal,
            _ => Jitter::Proportional(0.5),
        });
        let config = config.retry_after(match self.retry_after % 3 {
            0 => RetryAfter::Floor,
            1 => RetryAfter::Replaces,
            _ => RetryAfter::Ignored,
        });
        let config = config.retry_methods(match self.methods % 3 {
            0 => RetryMethods::Idempotent,
            1 => RetryMethods::All,
            _ => RetryMethods::Only(vec![Method::GET, Method::POST]),
        });
        let config = match some(self.max_total) {
            Some(limit) => config.max_total_time(limit),
            None => config,
        };
        let config = match some(self.timeout) {
            Some(limit) => config.attempt_timeout(limit),
            None => config,
        };
        let config = match some(self.max_wait) {
            Some(limit) => config.max_wait_time(limit),
            None => config,
        };
        let config = match self.has(0) {
            true => config.circuit_breaker(CircuitBreakers::per_host(BreakerConfig::default())),
            false => config.without_circuit_breaker(),
        };
        let config = match self.has(1) {
            true => config.retry_budget(RetryBudget::per_host(BudgetConfig::default())),
            false => config.without_retry_budget(),
        };
        let config = if self.has(2) { config.gate() } else { config.without_gate() };
        let config = if self.has(3) { config.read_body(64) } else { config };
        let random = f64::from(self.random) / 256.0;
        config.random(move || random).wall_clock(|| UNIX_EPOCH)
    }

    async fn play(&self) {
        let ends = Arc::new(AtomicUsize::new(0));
        let count = || {
            let ends = Arc::clone(&ends);
            move || drop(ends.fetch_add(1, Relaxed))
        };
        let (success, failure) = (count(), count());
        let config =
            self.config().on_success(move |_| success()).on_failure(move |_| failure()).build();
        let config = match config {
            Ok(config) => config,
            Err(error) => return refused(&error),
        };
        let script = Script::new(self.replies.iter().map(Replied::reply));
        let client = ClientBuilder::new(IDLE.clone())
            .with(Resilient::new(config))
            .with(script.clone())
            .build();
        for number in 1..=usize::from(self.requests % 4) + 1 {
            self.request(&client, &script).await;
            assert_eq!(ends.load(Relaxed), number, "exactly one end is told");
            tokio::time::sleep(hundredths(self.pause)).await;
        }
    }

    async fn request(&self, client: &ClientWithMiddleware, script: &Script) {
        let (log, sent_before, start) = (AttemptLog::new(), script.sent().len(), Instant::now());
        let mut request = client.request(self.method(), URL).with_extension(log.clone());
        if self.method() != Method::GET {
            request = request.body("something");
        }
        if self.has(4) {
            request = request.header("idempotency-key", "a key");
        }
        if self.has(5) {
            request = request.with_extension(RetryOverride::new().idempotent(self.has(6)));
        }
        let result = request.send().await;
        let (took, history) = (start.elapsed(), log.history());
        let sent = script.sent().split_off(sent_before);

        assert_eq!(sent.len(), history.total() as usize);
        assert!(sent.len() <= self.retries() as usize + 1, "{history}");
        assert!(sent.iter().all(|it| (&it.method, &it.body) == (&sent[0].method, &sent[0].body)));
        assert!(result.is_err() || !sent.is_empty());
        if let Some(total) = some(self.max_total) {
            assert!(took <= total + TICK, "{took:?}\n{history}");
            let waits = history.attempts().iter().filter_map(|it| {
                it.wait.as_ref().map(|(wait, _)| it.started + it.duration + *wait)
            });
            let holds = history.holds().iter();
            let holds = holds.filter_map(|it| it.wait.as_ref().map(|(wait, _)| it.at + *wait));
            assert!(waits.chain(holds).all(|end| end <= total), "{history}");
        }
        for (i, pair) in history.attempts().windows(2).enumerate() {
            let hint = self.hint(sent_before + i).filter(|_| pair[0].result.is_ok());
            assert!(self.may_be_repeated() || was_not_processed(&pair[0], hint), "{history}");
            let waited = pair[1].started - (pair[0].started + pair[0].duration);
            if self.retry_after % 3 != 2 {
                assert!(waited >= hint.unwrap_or_default(), "{history}");
            }
        }
    }

    /// What the reply to the request of this number said.
    fn hint(&self, number: usize) -> Option<Duration> {
        let reply = self.replies.get(number).or(self.replies.last())?;
        reply.says().then(|| Duration::from_secs(reply.seconds.into()))
    }
}

impl Replied {
    fn says(&self) -> bool {
        self.says % 2 == 1 && self.status().is_some()
    }

    fn status(&self) -> Option<u16> {
        STATUSES.get(usize::from(self.gives) % (STATUSES.len() + ERRORS.len())).copied()
    }

    fn reply(&self) -> Reply {
        let reply = match self.status() {
            Some(status) => Reply::status(status).body("an answer"),
            None => Reply::io_error(ERRORS[usize::from(self.gives) % ERRORS.len()]),
        };
        let reply = reply.after(hundredths(self.latency));
        match self.says() {
            true => reply.header(header::RETRY_AFTER, HeaderValue::from(self.seconds)),
            false => reply,
        }
    }
}

fn was_not_processed(attempt: &Attempt, hint: Option<Duration>) -> bool {
    match attempt.result.map(|it| it.as_u16()) {
        Ok(425 | 429) => true,
        // A 403 that says when is a rate limit.
        Ok(403 | 503) => hint.is_some(),
        Ok(_) => false,
        Err(_) => matches!(attempt.delivery, Delivery::NotSent | Delivery::NotProcessed),
    }
}

fn refused(error: &ConfigError) {
    assert!(!error.faults().is_empty());
}
