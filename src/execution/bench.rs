//! Doors for benches: parts of a request that have no entrance of their own.

use std::{
    hint::black_box,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, StatusCode};
use reqwest::{Request, Response, Url};

use crate::common::clock::Instant;
use crate::config::ResilientConfig;
use crate::execution::body;
use crate::execution::decide::{DecisionInput, Repeat, Retry, Upload};
use crate::host::fleet::hub::Hub;
use crate::host::fleet::member::Member;
use crate::host::fleet::signals::FleetSettings;
use crate::host::gate::HostGates;
use crate::host::limit::{Limit, Limiter};
use crate::host::parts::Parts;
use crate::host::rate::{Pacer, Rate, RateLimit};
use crate::host::state::HostState;
use crate::host::states::HostStates;
use crate::outcome::classify::Verdict;
use crate::outcome::hint;
use crate::outcome::{Outcome, OutcomeResult};
use crate::retry::budget::{self, BudgetConfig};
use crate::retry::decision::Decision;

/// A GET with default settings whose first attempt was answered: what is decided then.
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
    /// Creates the response, received at `now`.
    pub fn new(url: Url, status: StatusCode, headers: HeaderMap, now: Instant) -> Self {
        let config = ResilientConfig::default();
        let mut retry = Retry::new(config.policy(), Repeat::Always, Upload::Small, now);
        retry.turn();
        retry.attempt();
        Self { config, url, status, headers, retry, now }
    }

    /// Returns how long to wait before the next attempt, if there is to be one.
    pub fn decide(&self, now: SystemTime, random: f64) -> Option<Duration> {
        let Self { config, url, headers, .. } = self;
        let policy = config.policy();
        let (status, body, redirected) = (self.status, None, false);
        let result = OutcomeResult::Response { status, headers, url, body, redirected };
        let (method, elapsed) = (&Method::GET, Duration::ZERO);
        let outcome = Outcome { elapsed, ..Outcome::new(method, url, result) };
        let mut advice = hint::read(status, headers, &policy.hints, || now);
        if policy.verdict(&outcome, &mut advice, &mut None) != Verdict::Transient {
            return None;
        }
        let facts = DecisionInput {
            now: self.now,
            random,
            advice,
            is_throttled: false,
            rejected_for: None,
            open_wait: Duration::ZERO,
            failover: false,
        };
        match self.retry.clone().decide(policy, &outcome, &facts) {
            Decision::Retry { after, .. } => Some(after),
            Decision::Return(_) => None,
        }
    }
}

/// The retry budget of one host.
#[derive(Debug)]
pub struct Account(budget::Account);

impl Account {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self(budget::Account::new(&BudgetConfig::default().into(), now))
    }

    /// A request succeeded.
    pub fn deposit(&self) {
        self.0.deposit(budget::Success::OfFirstAttempt);
    }
}

/// The gate of one host.
#[derive(Debug, Default)]
pub struct Gate(HostGates);

impl Gate {
    /// Returns whether requests have to wait.
    pub fn may_be_closed(&self) -> bool {
        self.0.is_any_closed()
    }
}

/// A host of a fleet, without a store.
#[derive(Debug)]
pub struct FleetView(Arc<Member>);

impl Default for FleetView {
    fn default() -> Self {
        let settings = FleetSettings {
            report_every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            shares_breaker: true,
            shares_gate: true,
        };
        let host: Weak<HostState> = Weak::new();
        Self(Hub::new(settings).join(&"https://api.example.com".into(), host, Instant::now()))
    }
}

impl FleetView {
    /// Returns whether the fleet has no say in an attempt.
    pub fn is_settled(&self) -> bool {
        self.0.is_settled()
    }
}

/// A concurrency limit of one host.
#[derive(Debug)]
pub struct Permits(Arc<Limiter>);

impl Permits {
    /// A limit of so many.
    pub fn new(limit: u32) -> Self {
        Self(Arc::new(Limiter::new(&Limit::fixed(limit).into())))
    }

    /// Takes a permit and returns it.
    pub fn take(&self) {
        black_box(self.0.try_acquire());
    }

    /// Takes a permit and has the body of a response hold it to its end.
    pub fn hold(&self, response: Response) -> Response {
        match self.0.try_acquire() {
            Some(permit) => body::holding(response, permit.with_body()),
            None => response,
        }
    }
}

/// A rate limit of one host.
#[derive(Debug)]
pub struct Slots {
    rules: RateLimit,
    pacer: Arc<Pacer>,
}

impl Slots {
    /// A rate of one request each nanosecond.
    pub fn new() -> Self {
        let rules = RateLimit::from(Rate::per(1, Duration::from_nanos(1)));
        let pacer = Arc::<Pacer>::default();
        Self { rules, pacer }
    }

    /// Takes a slot and uses it; returns whether there was one.
    pub fn take(&self, request: &Request, now: Instant) -> bool {
        // Looked at in place, as requests keep it beside their rates.
        black_box(&self.pacer.reserve(&self.rules, request, 1, Duration::MAX, now)).is_ok()
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of hosts.
#[derive(Debug, Default)]
pub struct Hosts(ResilientConfig, HostStates);

impl Hosts {
    /// A map for so many hosts.
    pub fn with_max_hosts(hosts: usize) -> Self {
        Self(ResilientConfig::default(), HostStates::with_max_hosts(hosts))
    }

    /// Finds what a request uses of the state of its host.
    pub fn find(&self, request: &Request, now: Instant) {
        let rules = self.0.policy().host_rules();
        black_box(Parts::find(self.1.map(), rules, request, now));
    }
}
