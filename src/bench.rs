//! The door of the bench `decide`: what is decided after one attempt, and nothing around it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

use crate::classify::Verdict;
use crate::config::ResilientConfig;
use crate::decision::Decision;
use crate::hint;
use crate::outcome::{Gave, Outcome};
use crate::retry::{Facts, Repeat, Retry, Upload};
use crate::time::Instant;

/// A GET with default settings whose first attempt was answered.
#[derive(Debug)]
pub struct Answered {
    config: ResilientConfig,
    url: Url,
    status: StatusCode,
    headers: HeaderMap,
    retry: Retry,
    now: Instant,
}

impl Answered {
    /// What it was answered with, at `now`.
    pub fn new(url: Url, status: StatusCode, headers: HeaderMap, now: Instant) -> Self {
        let config = ResilientConfig::default();
        let mut retry = Retry::new(config.policy(), Repeat::Always, Upload::Small, now);
        retry.turn();
        retry.attempt();
        Self { config, url, status, headers, retry, now }
    }

    /// How long to wait before the next attempt, if there is to be one.
    pub fn decide(&self, now: SystemTime, random: f64) -> Option<Duration> {
        let Self { config, url, headers, .. } = self;
        let policy = config.policy();
        let (status, body, followed) = (self.status, None, false);
        let gave = Gave::Answer { status, headers, url, body, followed };
        let (method, elapsed) = (&Method::GET, Duration::ZERO);
        let outcome = Outcome { method, url, attempt: 1, elapsed, keyed: false, gave };
        let advice = hint::read(headers, &policy.hints, now);
        if policy.verdict(&outcome, &advice) != Verdict::Transient {
            return None;
        }
        let facts = Facts { now: self.now, random, advice, rejected_for: None };
        match self.retry.clone().decide(policy, &outcome, &facts) {
            Decision::Retry { after, .. } => Some(after),
            Decision::Return(_) => None,
        }
    }
}
