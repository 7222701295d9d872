//! Every setting that a configuration may hold: what reads them and what describes them agree.

use crate::config::file::shape::{Key, Kind};

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: false, about }
}

const fn needed(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: true, about }
}

const COUNT: Kind = Kind::Whole { min: 1, max: u32::MAX as u64 };
const PERCENT: Kind = Kind::Whole { min: 1, max: 100 };
const TIME: Kind = Kind::Time { zero: false };
const TIME_OR_ZERO: Kind = Kind::Time { zero: true };
const RATE: Kind = Kind::Number { min: 0.0, max: u32::MAX as f64 };
const FACTOR: Kind = Kind::Number { min: 1.0, max: f64::MAX };
const ON_OFF: Kind = Kind::Any(&[Kind::On, Kind::Off]);
const TIME_OR_OFF: Kind = Kind::Any(&[TIME, Kind::Off]);
const COUNT_OR_OFF: Kind = Kind::Any(&[COUNT, Kind::Off]);
const PERCENT_OR_OFF: Kind = Kind::Any(&[PERCENT, Kind::Off]);
// Off comes first: it could be a header's name.
const HEADER_OR_OFF: Kind = Kind::Any(&[Kind::Off, Kind::Header]);
const SCOPES: Kind = Kind::Word(&["per_host", "shared"]);

/// A whole configuration.
pub(super) const ROOT: Kind = Kind::Table(&[TOP, SETTINGS]);

const TOP: &[Key] = &[
    key(
        "$schema",
        Kind::Text,
        "Where editors find the schema of this file. It means nothing else.",
    ),
    key(
        "preset",
        Kind::Word(&["default", "batch", "service", "plain", "aresilient"]),
        "The settings to start from: the defaults, those of batch jobs, of services (whose deadline is \
         max_total_time), of plain retries, or of the Python library aresilient.",
    ),
    key(
        "circuit_breaker",
        Kind::Any(&[Kind::Table(&[BREAKER_SCOPE, BREAKER]), Kind::On, Kind::Off]),
        "When to stop asking a service that is down. Default: on, one for each host.",
    ),
    key(
        "retry_budget",
        Kind::Any(&[Kind::Table(&[BUDGET_SCOPE, BUDGET]), Kind::On, Kind::Off]),
        "How many retries successes pay for. Default: on, one for each host.",
    ),
    key("max_hosts", COUNT, "How many hosts are kept; not changed by a reload. Default: 1024."),
    key(
        "hosts",
        Kind::Hosts(&[HOST, SETTINGS]),
        "Settings that differ for a host, or for all hosts below a domain (*.example.com).",
    ),
];

const HOST: &[Key] = &[
    key(
        "circuit_breaker",
        Kind::Any(&[Kind::Table(&[BREAKER]), Kind::On, Kind::Off]),
        "What differs for this host's circuit breaker.",
    ),
    key(
        "retry_budget",
        Kind::Any(&[Kind::Table(&[BUDGET]), Kind::On, Kind::Off]),
        "What differs for this host's retry budget.",
    ),
];

const SETTINGS: &[Key] = &[
    key(
        "max_retries",
        Kind::Whole { min: 0, max: u32::MAX as u64 },
        "The most retries after the first attempt. Default: 3.",
    ),
    key("backoff", Kind::Table(&[BACKOFF]), "The delay before each retry."),
    key(
        "jitter",
        Kind::Any(&[
            Kind::Word(&["full", "equal", "decorrelated", "none"]),
            Kind::Number { min: 0.0, max: f64::MAX },
        ]),
        "How delays are spread; a number adds up to this share of the delay. Default: full.",
    ),
    key(
        "retry_statuses",
        Kind::List(&Kind::Status),
        "The statuses that are retried. Default: 408, 425, 429, 500, 502, 503, 504.",
    ),
    key(
        "refused_statuses",
        Kind::List(&Kind::Status),
        "The statuses that say that a request was not processed, so that a POST may be sent again. \
         Default: 425, 429.",
    ),
    key(
        "retry_methods",
        Kind::Any(&[Kind::Word(&["idempotent", "all"]), Kind::List(&Kind::Method)]),
        "The methods that may be sent again after they may have been processed. Default: idempotent.",
    ),
    key(
        "attempt_timeout",
        TIME_OR_OFF,
        "The longest an attempt may take. Default: off; the client's own timeouts apply.",
    ),
    key(
        "max_total_time",
        TIME_OR_OFF,
        "The longest everything may take: attempts, waits and the body. Default: off.",
    ),
    key("max_wait_time", TIME, "The longest single wait. Default: 60s."),
    key(
        "max_open_wait",
        TIME_OR_OFF,
        "The longest wait at an open circuit breaker or for a token of the budget. Default: 2s, or \
         half the attempt timeout if that is less.",
    ),
    key(
        "retry_after",
        Kind::Any(&[Kind::Word(&["floor", "replaces", "ignored"]), Kind::Table(&[RETRY_AFTER])]),
        "What becomes of a wait that the server asked for. Default: floor, the least to wait.",
    ),
    key(
        "hint_headers",
        Kind::Any(&[
            Kind::Headers(&Kind::Any(&[
                Kind::Word(FORMATS),
                Kind::Table(&[RESET]),
                Kind::On,
                Kind::Off,
            ])),
            Kind::Off,
        ]),
        "Headers by which a server may ask to wait, added to those that are known; off for none.",
    ),
    key(
        "read_body",
        Kind::Any(&[Kind::Whole { min: 1, max: u32::MAX as u64 }, Kind::Off]),
        "Reads bodies of up to this many bytes within the attempt. Default: off.",
    ),
    key(
        "idempotency_key",
        Kind::Any(&[Kind::Table(&[IDEMPOTENCY_KEY]), Kind::On, Kind::Off]),
        "Adds a random key to requests that are not idempotent. Default: off.",
    ),
    key(
        "deadline_header",
        HEADER_OR_OFF,
        "Tells the server in this header how long its answer is waited for: grpc-timeout as gRPC \
         writes it, any other in milliseconds. Default: off.",
    ),
    key(
        "attempt_header",
        HEADER_OR_OFF,
        "Tells the server in this header which attempt it sees. Default: off.",
    ),
    key(
        "gate",
        ON_OFF,
        "Whether a host's word on when to come back holds back all requests to it. Default: on.",
    ),
];

const BACKOFF: &[Key] = &[
    key(
        "kind",
        Kind::Word(&["exponential", "linear", "fibonacci", "constant"]),
        "How delays grow. Default: exponential.",
    ),
    key("delay", TIME_OR_ZERO, "The first delay. Default: 300ms; 1s after rate limits."),
    key(
        "factor",
        FACTOR,
        "How many times as long each next delay is; exponential only. Default: 2.",
    ),
    key("max_delay", TIME_OR_OFF, "The longest delay, jitter included. Default: 20s."),
];

const RETRY_AFTER: &[Key] = &[needed(
    "capped",
    TIME,
    "The least to wait, cut to this length instead of ending the request.",
)];

/// The names of the variants of `HintFormat`.
const FORMATS: &[&str] = &["millis", "pushback", "should_retry", "standard", "veto", "wait"];

const RESET: &[Key] =
    &[needed("remaining", Kind::Header, "The header that says 0 where this one counts.")];

const IDEMPOTENCY_KEY: &[Key] = &[
    key("header", Kind::Header, "The header that carries it. Default: idempotency-key."),
    key("format", Kind::Word(&["quoted", "raw"]), "How it is written. Default: quoted."),
];

const BREAKER_SCOPE: &[Key] =
    &[key("scope", SCOPES, "One for each host, or one for all requests. Default: per_host.")];

const BREAKER: &[Key] = &[
    key("open_for", TIME, "How long it stays open. Default: 1s."),
    key(
        "open_growth",
        Kind::Any(&[Kind::Table(&[OPEN_GROWTH]), Kind::Off]),
        "Makes each further opening in a row last longer. Default: 1.5 times, up to three times open_for.",
    ),
    key("open_jitter", PERCENT_OR_OFF, "Lengthens openings by up to this share. Default: 25."),
    key(
        "max_retry_after",
        TIME_OR_ZERO,
        "The longest a server's Retry-After may keep it open. Default: 60s.",
    ),
    key(
        "window",
        Kind::Any(&[TIME, Kind::Whole { min: 1, max: u16::MAX as u64 }]),
        "The results it looks at: those of this time, or the last so many. Default: 10s.",
    ),
    key(
        "min_samples",
        COUNT,
        "How many results must be there before a rate means anything. Default: 20.",
    ),
    key(
        "sustained",
        Kind::Any(&[Kind::Table(&[SUSTAINED]), Kind::Off]),
        "Opens after a time without success, with failures in it. Default: 2s and 5 failures.",
    ),
    key(
        "failure_rate",
        PERCENT_OR_OFF,
        "Opens when this share of first attempts fail. Default: off.",
    ),
    key(
        "consecutive",
        COUNT_OR_OFF,
        "Opens after so many failures in a row, whatever the window holds. Default: off.",
    ),
    key(
        "consecutive_while_few",
        COUNT_OR_OFF,
        "The same, while there are too few results for a rate. Default: off.",
    ),
    key(
        "slow_calls",
        Kind::Any(&[Kind::Table(&[SLOW_CALLS]), Kind::Off]),
        "Opens when too many calls are slow. Default: off.",
    ),
    key("max_probes", COUNT, "How many probes may be under way at a time. Default: 1."),
    key("close_after", COUNT, "Closes after so many probes have succeeded. Default: 1."),
    key(
        "close_unless",
        Kind::Table(&[CLOSE_UNLESS]),
        "Closes unless too many of the probes fail, in place of close_after.",
    ),
    key(
        "half_open_max_wait",
        TIME,
        "How long it waits for probes before it replaces them. Default: 30s.",
    ),
];

const OPEN_GROWTH: &[Key] = &[
    needed("factor", FACTOR, "How many times as long each further opening lasts."),
    needed("max", TIME, "The longest opening, jitter included."),
];

const SUSTAINED: &[Key] = &[
    needed("no_success_for", TIME, "The time without success, from the first failure on."),
    needed("min_failures", COUNT, "How many attempts must fail in that time."),
];

const SLOW_CALLS: &[Key] = &[
    needed("slower_than", TIME, "A call that takes this long or longer is slow."),
    needed("percent", PERCENT, "The share of slow calls that opens it."),
];

const CLOSE_UNLESS: &[Key] = &[
    needed("percent", PERCENT, "The share of failed probes that opens it again."),
    needed("probes", COUNT, "How many probes are judged."),
];

const BUDGET_SCOPE: &[Key] =
    &[key("scope", SCOPES, "One for each host, or one for all requests. Default: per_host.")];

const BUDGET: &[Key] = &[
    key("size", COUNT, "The most retries that can be saved up. Default: 10."),
    key("deposit", RATE, "The retries a first attempt pays for that succeeds. Default: 0.03."),
    key("retry_deposit", RATE, "The retries a retry pays for that succeeds. Default: 3."),
    key("trickle", RATE, "The retries that come back each second. Default: 0.005."),
];
