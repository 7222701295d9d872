//! The corpus as types: whatever they do not name is refused, so that nothing is skipped unseen.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, de, de::IntoDeserializer as _};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corpus {
    #[serde(rename = "meta")]
    _meta: serde_json::Value,
    pub(crate) hazards: BTreeMap<String, Hazard>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) backoff_cases: Vec<BackoffCase>,
    pub(crate) retry_after_cases: Vec<RetryAfterCase>,
    pub(crate) validation_cases: Vec<ValidationCase>,
    pub(crate) breaker_cases: Vec<BreakerCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hazard {
    #[serde(rename = "title")]
    _title: String,
    #[serde(rename = "fields")]
    _fields: Vec<String>,
    #[serde(rename = "instead")]
    _instead: String,
}

/// A number of the corpus; those that are not finite are written as strings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Num(pub(crate) f64);

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Number(it) => Ok(Self(it)),
            Written::Text(it) => match it.as_str() {
                "NaN" => Ok(Self(f64::NAN)),
                "Infinity" => Ok(Self(f64::INFINITY)),
                "-Infinity" => Ok(Self(f64::NEG_INFINITY)),
                _ => Err(de::Error::custom(format!("{it:?} is no number"))),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    #[serde(rename = "group")]
    _group: String,
    #[serde(rename = "desc")]
    _desc: String,
    #[serde(rename = "note")]
    _note: Option<String>,
    #[serde(rename = "src")]
    _src: Option<Vec<String>>,
    pub(crate) hazard: bool,
    #[serde(default)]
    pub(crate) hazard_ids: Vec<String>,
    #[serde(rename = "hazard_note")]
    _hazard_note: Option<String>,
    #[serde(default)]
    pub(crate) hazard_fields: Vec<Field>,
    #[serde(default)]
    pub(crate) config: Config,
    #[serde(default = "middle")]
    pub(crate) rng: Vec<f64>,
    #[serde(default = "all_callbacks")]
    pub(crate) callbacks: Vec<Callback>,
    pub(crate) requests: Vec<Arc<Request>>,
}

fn middle() -> Vec<f64> {
    vec![0.5]
}

fn all_callbacks() -> Vec<Callback> {
    vec![Callback::Request, Callback::Retry, Callback::Success, Callback::Failure]
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    Attempts,
    BodiesSent,
    Breaker,
    ElapsedS,
    Result,
    Sleeps,
    Trace,
    #[serde(rename = "*")]
    All,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Callback {
    #[serde(rename = "on_failure")]
    Failure,
    #[serde(rename = "on_request")]
    Request,
    #[serde(rename = "on_retry")]
    Retry,
    #[serde(rename = "on_success")]
    Success,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) max_retries: Option<Num>,
    pub(crate) status_forcelist: Option<Vec<i64>>,
    pub(crate) jitter_factor: Option<Num>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) max_total_time: Option<Num>,
    pub(crate) max_wait_time: Option<Num>,
    pub(crate) retry_if: Option<Pred>,
    pub(crate) circuit_breaker: Option<Breaker>,
    pub(crate) callback_raises: BTreeMap<Callback, Raises>,
}

#[derive(Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Backoff {
    Constant { delay: Option<Num> },
    Exponential(Growing),
    Fibonacci(Growing),
    Linear(Growing),
    Table { delays: Vec<Num> },
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Growing {
    pub(crate) base_delay: Option<Num>,
    pub(crate) max_delay: Option<Num>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raises {
    /// Every kind of exception is a panic here.
    #[serde(rename = "error")]
    _error: String,
    #[serde(default = "once")]
    pub(crate) times: usize,
}

fn once() -> usize {
    1
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Breaker {
    pub(crate) failure_threshold: Option<Num>,
    pub(crate) recovery_timeout: Option<Num>,
    pub(crate) expected: Option<Vec<Expected>>,
}

/// A type of failure that a breaker counts.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expected {
    HttpStatus,
    Transport,
    Timeout,
    ConnectError,
}

/// True where any part of it holds.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pred {
    pub(crate) always: Option<bool>,
    pub(crate) raises: Option<String>,
    pub(crate) statuses: Vec<u16>,
    pub(crate) status_min: Option<u16>,
    pub(crate) body_contains: Option<String>,
    pub(crate) body_empty: Option<bool>,
    pub(crate) header: BTreeMap<String, String>,
    pub(crate) errors: Vec<ErrorPattern>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorPattern {
    Any,
    AnyTimeout,
    Kind(Kind),
}

impl<'de> Deserialize<'de> for ErrorPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "any" => Ok(Self::Any),
            "any_timeout" => Ok(Self::AnyTimeout),
            kind => Kind::deserialize(kind.into_deserializer()).map(Self::Kind),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Timeout,
    ConnectTimeout,
    ReadTimeout,
    WriteTimeout,
    PoolTimeout,
    RequestError,
    NetworkError,
    ConnectError,
    ReadError,
    WriteError,
    CloseError,
    ProxyError,
    RemoteProtocolError,
    LocalProtocolError,
    UnsupportedProtocol,
    DecodingError,
    TooManyRedirects,
    ForeignError,
}

impl Kind {
    pub(crate) fn is_timeout(self) -> bool {
        use Kind::{ConnectTimeout, PoolTimeout, ReadTimeout, Timeout, WriteTimeout};
        matches!(self, Timeout | ConnectTimeout | ReadTimeout | WriteTimeout | PoolTimeout)
    }

    /// Returns whether no retry can help.
    pub(crate) fn is_permanent(self) -> bool {
        use Kind::{DecodingError, LocalProtocolError, TooManyRedirects, UnsupportedProtocol};
        matches!(self, LocalProtocolError | UnsupportedProtocol | DecodingError | TooManyRedirects)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Lines>,
    pub(crate) body: Option<Body>,
    #[serde(default)]
    pub(crate) before: Vec<Op>,
    pub(crate) outcomes: Vec<Reply>,
    #[serde(default)]
    pub(crate) repeat_last: bool,
    expect: Expect,
    expect_async: Option<Expect>,
}

impl Request {
    /// Returns whether any reply, also to the requests made meanwhile, asks for fewer requests.
    pub(crate) fn is_throttled(&self) -> bool {
        let throttles = |it: &Reply| it.status == Some(429);
        self.outcomes.iter().any(|it| throttles(it) || it.during.iter().any(|it| it.is_throttled()))
    }

    /// Returns the trace of the reference's asynchronous half, the counterpart of this crate.
    pub(crate) fn expected(&self) -> &Expect {
        self.expect_async.as_ref().unwrap_or(&self.expect)
    }
}

/// The statuses that the reference retries by default.
pub(crate) const FORCELIST: [i64; 5] = [429, 500, 502, 503, 504];

/// The lines of one header.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Lines {
    One(String),
    Many(Vec<String>),
}

impl Lines {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(it) => std::slice::from_ref(it),
            Self::Many(all) => all.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    pub(crate) kind: BodyKind,
    pub(crate) data: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyKind {
    Bytes,
    Stream,
}

/// Something done before a request, or directly to a breaker.
#[derive(Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Op {
    Advance { s: f64 },
    WallJump { s: f64 },
    Fail { n: Option<u32> },
    Success { n: Option<u32> },
    Reset {},
    Check {},
    Call { ok: bool },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Lines>,
    #[serde(default)]
    pub(crate) body: String,
    pub(crate) error: Option<Kind>,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) latency_ms: f64,
    #[serde(default)]
    pub(crate) wall_jump_s: f64,
    #[serde(default)]
    pub(crate) during: Vec<Arc<Request>>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        named.flat_map(|(_, lines)| lines.iter()).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) attempts: usize,
    pub(crate) sleeps: Vec<Num>,
    pub(crate) elapsed_s: Num,
    pub(crate) result: Ended,
    pub(crate) breaker: Option<BreakerState>,
    pub(crate) bodies_sent: Option<Vec<String>>,
    pub(crate) trace: Vec<Event>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BreakerState {
    pub(crate) state: State,
    pub(crate) failure_count: u32,
    pub(crate) last_failure_s: Option<Num>,
    pub(crate) rejected: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ended {
    Response {
        status: u16,
        body: String,
    },
    HttpRequestError {
        message: String,
        status_code: Option<u16>,
        body: Option<String>,
        cause: Option<Kind>,
    },
    CircuitOpen {
        message: String,
    },
    Escaped {
        #[serde(rename = "type")]
        _type: String,
        message: String,
    },
    Hang {},
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "ev", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Event {
    OnRequest {
        attempt: usize,
    },
    Send {
        attempt: usize,
    },
    RetryIf {
        status: Option<u16>,
        error: Option<Kind>,
        returns: Option<bool>,
    },
    OnRetry {
        attempt: usize,
        wait_time: Num,
        status: Option<u16>,
        error: Option<Kind>,
    },
    Sleep {
        s: Num,
        raised: Option<String>,
    },
    OnSuccess {
        attempt: usize,
        status: u16,
        total_time: Num,
    },
    OnFailure {
        attempt: usize,
        status: Option<u16>,
        error: String,
        cause: Option<Kind>,
        total_time: Num,
    },
    Breaker {
        from: State,
        to: State,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackoffCase {
    pub(crate) id: String,
    pub(crate) backoff: Backoff,
    pub(crate) attempts: Vec<u32>,
    pub(crate) hazard: bool,
    #[serde(default)]
    pub(crate) hazard_ids: Vec<String>,
    #[serde(rename = "hazard_note")]
    _hazard_note: Option<String>,
    pub(crate) expect: Delays,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delays {
    pub(crate) delays: Vec<Num>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryAfterCase {
    pub(crate) id: String,
    pub(crate) header: Option<Lines>,
    pub(crate) hazard: bool,
    #[serde(default)]
    pub(crate) hazard_ids: Vec<String>,
    #[serde(rename = "hazard_note")]
    _hazard_note: Option<String>,
    pub(crate) expect: Seconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seconds {
    pub(crate) seconds: Option<Num>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidationCase {
    pub(crate) id: String,
    pub(crate) target: Target,
    pub(crate) args: serde_json::Value,
    pub(crate) hazard: bool,
    #[serde(default)]
    pub(crate) hazard_ids: Vec<String>,
    #[serde(rename = "hazard_note")]
    _hazard_note: Option<String>,
    pub(crate) expect: Verdict,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Breaker,
    Config,
    Constant,
    Exponential,
    Fibonacci,
    Linear,
    Timeout,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    pub(crate) message: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BreakerCase {
    pub(crate) id: String,
    pub(crate) breaker: Breaker,
    pub(crate) ops: Vec<Op>,
    pub(crate) hazard: bool,
    #[serde(default)]
    pub(crate) hazard_ids: Vec<String>,
    #[serde(rename = "hazard_note")]
    _hazard_note: Option<String>,
    pub(crate) expect: AfterOps,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AfterOps {
    pub(crate) after_each_op: Vec<BreakerState>,
    pub(crate) transitions: Vec<(State, State)>,
}
