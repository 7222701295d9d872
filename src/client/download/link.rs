//! The link between a download and the middleware that its requests pass: settings, breaker and
//! budget of the host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Extensions, Method};
use reqwest::{Request, Url};

use crate::breaker::{BreakerHandle, CircuitBreakers, Health, Report};
use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::config::policy::{Policy, STALL_TIMEOUT};
use crate::execution::body::stall::StallLimits;
use crate::host::fleet::member::Member;
use crate::host::map::host_key;
use crate::host::parts::breaker_member;
use crate::host::states::HostStates;
use crate::observe::event::Event;
use crate::observe::info::ResumeInfo;
use crate::observe::redact::RedactedUrl;
use crate::outcome::idempotency::is_idempotent;
use crate::retry::backoff::{Backoff, Exponential, Jitter, Progress};
use crate::retry::budget::Account;

/// The retries of a download whose requests pass no `Resilient`.
const MAX_RETRIES: u32 = 3;

/// The longest wait of a download whose requests pass no `Resilient`.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A place in the extensions of a download's requests, which the middleware fills.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<Context>>);

/// The settings and the state of the host that a download uses besides its requests.
#[derive(Clone, Default)]
pub(crate) struct Context(Option<Arc<Known>>);

/// A download that goes on after a break.
#[derive(Clone, Copy)]
pub(crate) struct GoingOn {
    pub(crate) received: u64,
    pub(crate) total: Option<u64>,
    pub(crate) restarts: bool,
    pub(crate) wait: Duration,
}

struct Known {
    policy: Arc<Policy>,
    breaker: Option<Arc<BreakerHandle>>,
    budget: Option<Arc<Account>>,
    member: Option<Arc<Member>>,
    hosts: HostStates,
}

impl Link {
    /// Fills the link of a request, if it is a download's.
    #[inline]
    pub(crate) fn fill(extensions: &Extensions, context: impl FnOnce() -> Option<Context>) {
        if let Some(Self(place)) = extensions.get() {
            if let Some(context) = context() {
                *lock(place) = context;
            }
        }
    }

    /// Returns what the middleware left; that of a client without one is empty.
    pub(crate) fn context(&self) -> Context {
        lock(&self.0).clone()
    }
}

impl Context {
    /// Builds the context of a request.
    pub(crate) fn new(
        policy: Arc<Policy>,
        breaker: Option<Arc<BreakerHandle>>,
        budget: Option<Arc<Account>>,
        member: Option<Arc<Member>>,
        hosts: HostStates,
    ) -> Self {
        Self(Some(Arc::new(Known { policy, breaker, budget, member, hosts })))
    }

    fn policy(&self) -> Option<&Policy> {
        self.0.as_ref().map(|it| &*it.policy)
    }

    /// Returns whether the requests pass no `Resilient`.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns whether a request that was processed may be sent again.
    pub(crate) fn may_repeat(&self, request: &Request) -> bool {
        match self.policy() {
            Some(it) => it.may_repeat(request.method(), request.headers()),
            None => is_idempotent(request.method()),
        }
    }

    /// Returns the most retries.
    pub(crate) fn max_retries(&self) -> u32 {
        self.policy().map_or(MAX_RETRIES, |it| it.max_retries)
    }

    /// Returns the limits of waiting for bytes.
    pub(crate) fn stall_limits(&self) -> StallLimits {
        let default = StallLimits { timeout: Some(STALL_TIMEOUT), min_speed: None };
        self.policy().map_or(default, |it| StallLimits {
            timeout: it.stall_timeout,
            min_speed: it.min_speed,
        })
    }

    /// Returns the longest time for everything, if there is a limit.
    pub(crate) fn max_total_time(&self) -> Option<Duration> {
        self.policy()?.max_total_time
    }

    /// Returns the longest wait.
    pub(crate) fn max_wait_time(&self) -> Duration {
        self.policy().map_or(MAX_WAIT, |it| it.max_wait_time)
    }

    /// Returns the function that redacts paths in messages.
    pub(crate) fn redact_path(&self) -> Option<crate::common::path_redactor::PathRedactor> {
        self.policy()?.redact_path.clone()
    }

    /// Returns the backoff before retry number `retry`, after one of `previous`.
    pub(crate) fn backoff(&self, retry: u32, previous: Duration) -> Duration {
        let progress = Progress { retry, previous, longest: self.max_wait_time() };
        let own = Exponential::new(Duration::from_millis(300));
        match self.policy() {
            Some(it) => it.jitter.wait(&*it.backoff, progress, it.sources.random()),
            None => Jitter::Full.wait(&own as &dyn Backoff, progress, rand::random()),
        }
    }

    /// Reports to the breaker of the host that a body broke off, as a failure: to that of the endpoint
    /// that sent it, if there are several.
    pub(crate) fn report_break(&self, endpoint: Option<&Url>, now: Instant) {
        let Some(known) = &self.0 else { return };
        let is_per_host = known.policy.breaker.as_ref().is_some_and(CircuitBreakers::is_per_host);
        let of_endpoint = endpoint.filter(|_| is_per_host);
        let host = of_endpoint.and_then(|url| known.hosts.map().peek(&host_key(url)));
        let (breaker, member) = match (&host, of_endpoint) {
            (Some(host), _) => (host.used_breaker(), breaker_member(host)),
            (None, Some(_)) => return,
            (None, None) => (known.breaker.as_ref(), known.member.as_ref()),
        };
        if let Some(member) = member {
            member.record(member.entry(), true);
        }
        let Some(breaker) = breaker else { return };
        // The attempt was admitted earlier and is no probe: the break is reported only to a breaker
        // that admits all requests.
        let Some(mut permit) = breaker.pass(now) else { return };
        let report = Report { health: Health::Failure, retry_after: None, first: true };
        if let Some(change) = permit.report(report, now, || known.policy.sources.random()) {
            known.policy.listeners.notify(&Event::BreakerChanged(&change));
        }
    }

    /// Notifies listeners that a download goes on after a break.
    pub(crate) fn notify_resuming(&self, (method, url): (&Method, &Url), going_on: GoingOn) {
        let Some(policy) = self.policy() else { return };
        let GoingOn { received, total, restarts, wait } = going_on;
        let url = RedactedUrl::new(url, policy.redact_path.as_ref());
        let info = ResumeInfo { method, url, received, total, restarts, wait };
        policy.listeners.notify(&Event::Resuming(&info));
    }

    /// Takes a token of the budget for a restart; returns whether there was one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let known = self.0.as_ref();
        let budget = known.and_then(|it| Some((it.budget.as_ref()?, it.policy.overdraft)));
        budget.is_none_or(|(budget, overdraft)| budget.withdraw(now, overdraft))
    }
}
