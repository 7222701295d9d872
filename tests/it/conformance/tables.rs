//! The corpus's tables: backoff, Retry-After, validation.

use std::time::{Duration, UNIX_EPOCH};

use reqwest_resilient::testing::Reply;
use reqwest_resilient::{AttemptLog, Backoff as _, Constant, Jitter, ResilientConfig, WaitSource};
use serde::Deserialize as _;

use super::schema::{self, Config, Num, Target};
use super::schema::{BackoffCase, RetryAfterCase, ValidationCase};
use super::settings::{self, Refused};
use super::{Checked, breaker, hazards};
use crate::support::{URL, in_virtual_time, scripted};

pub(crate) fn backoff(case: &BackoffCase) -> Checked {
    let backoff = settings::backoff(&case.backoff);
    if case.hazard {
        return only(&["H28"], &case.hazard_ids, || match backoff {
            Err(Refused::ByType(_)) => vec![],
            Err(refused) => vec![format!("{refused:?}")],
            // It saturates: every delay is finite, and none is shorter than the one before.
            Ok(it) => {
                let delays: Vec<_> = case.attempts.iter().map(|i| it.delay(*i)).collect();
                wrong_unless(delays.is_sorted(), &delays)
            }
        });
    }
    let Ok(backoff) = backoff else {
        return Checked::with(vec!["the strategy was refused".to_owned()]);
    };
    let delays: Vec<_> = case.attempts.iter().map(|it| backoff.delay(*it).as_secs_f64()).collect();
    // A Duration's nanoseconds are as exact as it gets; large delays differ in their last digits.
    let near = |(a, b): (&Num, &f64)| (a.0 - b).abs() <= 1e-6 + a.0 * 1e-12;
    let same = delays.len() == case.expect.delays.len()
        && case.expect.delays.iter().zip(&delays).all(near);
    Checked::with(wrong_unless(same, &(&case.expect.delays, delays)))
}

/// Observes by a real request which wait the header leads to, if any.
pub(crate) fn retry_after(case: &RetryAfterCase) -> Checked {
    let lines: Vec<_> = case.header.iter().flat_map(|it| it.iter()).collect();
    let seconds = waited_for(&lines);
    let expected = case.expect.seconds.map(|it| it.0);
    if case.hazard {
        let now = UNIX_EPOCH + Duration::from_secs(WALL_START);
        return only(&["H08", "H09", "H10"], &case.hazard_ids, || match lines[..] {
            [line] => {
                // Digits without end, or a date: what the standard says. All else is no hint.
                let better = hazards::hint(line, now).map(|it| it.min(u64::MAX as f64));
                wrong_unless(better.map(f64::round) == seconds.map(f64::round), &(better, seconds))
            }
            _ => vec!["not one line".to_owned()],
        });
    }
    let same = match (expected, seconds) {
        (Some(expected), Some(seconds)) => (expected - seconds).abs() < 1e-6,
        (expected, seconds) => expected.is_none() && seconds.is_none(),
    };
    Checked::with(wrong_unless(same, &(expected, seconds)))
}

const WALL_START: u64 = 1_445_412_480;

/// The wait that follows a 503 with these lines of Retry-After; none where it is the backoff's.
fn waited_for(lines: &[&str]) -> Option<f64> {
    let config = ResilientConfig::aresilient()
        .to_builder()
        .max_retries(1)
        .backoff(Constant::new(Duration::ZERO))
        .jitter(Jitter::None)
        .max_wait_time(Duration::MAX)
        .wall_clock(|| UNIX_EPOCH + Duration::from_secs(WALL_START))
        .build()
        .expect("a config");
    let value = |it: &&str| http::HeaderValue::from_bytes(it.as_bytes()).expect("a value");
    let unavailable = lines.iter().fold(Reply::status(503), |reply, line| {
        reply.header(http::header::RETRY_AFTER, value(line))
    });
    let (client, _) = scripted(config, [unavailable, Reply::status(200)]);
    let log = AttemptLog::new();
    in_virtual_time(async {
        let request = client.get(URL).with_extension(log.clone()).send();
        // Waits longer than tokio's clock can represent are cut short.
        let _ = tokio::time::timeout(Duration::from_secs(1), request).await;
    });
    match log.history().attempts().first()?.wait.as_ref()? {
        (wait, WaitSource::Hint(_)) => Some(wait.as_secs_f64()),
        _ => None,
    }
}

pub(crate) fn validation(case: &ValidationCase) -> Checked {
    let refused = match case.target {
        Target::Breaker => {
            breaker::refused(&schema::Breaker::deserialize(&case.args).expect("a breaker"))
        }
        Target::Config => {
            let config = Config::deserialize(&case.args).expect("a config");
            settings::builder(&config).and_then(settings::build).err()
        }
        Target::Timeout => timeout(&case.args),
        Target::Constant => strategy("constant", &case.args),
        Target::Exponential => strategy("exponential", &case.args),
        Target::Fibonacci => strategy("fibonacci", &case.args),
        Target::Linear => strategy("linear", &case.args),
    };
    if case.hazard {
        return only(&["H25", "H27"], &case.hazard_ids, || {
            let honoured = |it: &Config| {
                it.status_forcelist
                    .as_ref()
                    .is_some_and(|it| it.iter().all(|it| hazards::is_status(*it)))
            };
            let honoured = case.target == Target::Config
                && Config::deserialize(&case.args).as_ref().is_ok_and(honoured);
            // An infinite limit is no limit, which is harmless.
            let endless = case.args.to_string().contains("\"Infinity\"");
            wrong_unless(refused.is_some() || honoured || endless, &"was accepted")
        });
    }
    let fault = refused.as_ref().map(|it| match it {
        Refused::ByType(field) => (*field, None),
        Refused::ByBuilder(error) => {
            let first = &error.faults()[0];
            (&*first.field, Some(&*first.rule))
        }
    });
    let same = match (&case.expect.message, fault) {
        (Some(message), Some((field, rule))) => {
            let (expected, _) = message.rsplit_once(", got").expect("a value");
            let (expected_field, expected_rule) = expected.split_once(' ').expect("a rule");
            // A value that no type holds has no message; its rule is the type's.
            !case.expect.ok
                && ours(expected_field) == field
                && rule.is_none_or(|it| it == expected_rule.replace("positive if specified", "> 0"))
        }
        (None, None) => case.expect.ok,
        _ => false,
    };
    Checked::with(wrong_unless(same, &(&case.expect.message, &refused)))
}

/// The name that a setting of the reference has here.
fn ours(field: &str) -> &str {
    match field {
        "jitter_factor" => "jitter",
        "max_delay" => "backoff.max_delay",
        "recovery_timeout" => "circuit_breaker.open_for",
        "timeout" => "attempt_timeout",
        it => it,
    }
}

fn timeout(args: &serde_json::Value) -> Option<Refused> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Timeout {
        timeout: Option<Num>,
    }
    let Timeout { timeout } = Timeout::deserialize(args).expect("a timeout");
    let builder = ResilientConfig::builder();
    let built = match timeout {
        None => Ok(builder.without_attempt_timeout()),
        Some(it) => settings::limit(it, "attempt_timeout").map(|it| builder.attempt_timeout(it)),
    };
    built.and_then(settings::build).err()
}

fn strategy(name: &str, args: &serde_json::Value) -> Option<Refused> {
    let mut tagged = args.clone();
    tagged["type"] = name.into();
    let written = schema::Backoff::deserialize(tagged).expect("a strategy");
    let built = settings::backoff(&written)
        .and_then(|it| settings::build(ResilientConfig::builder().backoff(it)));
    built.err()
}

/// Asserts what is better, for hazards that this table is known to have.
fn only(known: &[&str], flagged: &[String], better: impl FnOnce() -> Vec<String>) -> Checked {
    let unknown: Vec<_> = flagged.iter().filter(|it| !known.contains(&it.as_str())).collect();
    if flagged.is_empty() || !unknown.is_empty() {
        return Checked::with(vec![format!("nothing is asserted in place of {unknown:?}")]);
    }
    Checked::with(better())
}

fn wrong_unless(right: bool, seen: &dyn std::fmt::Debug) -> Vec<String> {
    if right { vec![] } else { vec![format!("expected and observed: {seen:?}")] }
}
