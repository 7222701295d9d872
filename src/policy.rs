//! The settings of one request, resolved; and patches, which change some of them.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode, header};

use crate::backoff::{Backoff, Exponential, Jitter};
use crate::classify::{self, Predicate, RetryMethods, StatusSet, Verdict};
use crate::event::Listeners;
use crate::hint::{Advice, HintFormat, HintHeaders};
use crate::outcome::Outcome;
use crate::sources::Sources;

/// What becomes of a wait that the server asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfter {
    /// Wait at least as long as the server said, longer if the backoff is. The default.
    #[default]
    Floor,
    /// Wait as long as the server said, even where the backoff is longer.
    Replaces,
    /// Wait as the backoff says.
    Ignored,
}

/// Every setting that the loop reads.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) max_retries: u32,
    pub(crate) backoff: Arc<dyn Backoff>,
    pub(crate) jitter: Jitter,
    pub(crate) statuses: StatusSet,
    pub(crate) retry_if: Option<Predicate>,
    pub(crate) methods: RetryMethods,
    pub(crate) idempotent: Option<bool>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) max_total_time: Option<Duration>,
    pub(crate) max_wait_time: Duration,
    pub(crate) retry_after: RetryAfter,
    pub(crate) hints: Arc<HintHeaders>,
    pub(crate) read_body: Option<usize>,
    pub(crate) listeners: Listeners,
    pub(crate) sources: Sources,
}

/// 408, 425, 429, 500, 502, 503, 504: the statuses that tell of a passing state. Not 501 and 505,
/// which no retry changes.
const TRANSIENT: [StatusCode; 7] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

impl Default for Policy {
    fn default() -> Self {
        let backoff = Exponential::new(Duration::from_millis(300));
        Self {
            max_retries: 3,
            backoff: Arc::new(backoff.max_delay(Duration::from_secs(20))),
            jitter: Jitter::Full,
            statuses: TRANSIENT.into_iter().collect::<StatusSet>().with_limited_403(),
            retry_if: None,
            methods: RetryMethods::Idempotent,
            idempotent: None,
            attempt_timeout: None,
            max_total_time: None,
            max_wait_time: Duration::from_secs(60),
            retry_after: RetryAfter::Floor,
            hints: Arc::default(),
            read_body: None,
            listeners: Listeners::default(),
            sources: Sources::default(),
        }
    }
}

impl Policy {
    /// The Python library's defaults.
    pub(crate) fn aresilient() -> Self {
        Self {
            backoff: Arc::new(Exponential::new(Duration::from_millis(300))),
            jitter: Jitter::None,
            statuses: TRANSIENT.into_iter().skip(2).collect(),
            methods: RetryMethods::All,
            // The reference has no limit, and sleeps for years if told to.
            max_wait_time: Duration::from_secs(3_599),
            retry_after: RetryAfter::Replaces,
            hints: Arc::new(HintHeaders::none().with(header::RETRY_AFTER, HintFormat::RetryAfter)),
            ..Self::default()
        }
    }

    pub(crate) fn verdict(&self, outcome: &Outcome<'_>, advice: &Advice) -> Verdict {
        classify::verdict(outcome, advice, self.retry_if.as_ref(), &self.statuses)
    }

    /// Whether a request may be sent twice whatever becomes of it.
    pub(crate) fn may_repeat(&self, method: &Method, headers: &HeaderMap) -> bool {
        let says = self.idempotent;
        says.unwrap_or_else(|| self.methods.contains(method) || classify::is_keyed(headers))
    }

    /// The policy that results from `patches`, later ones winning field by field.
    pub(crate) fn patched<'a>(&self, patches: impl IntoIterator<Item = &'a Patch>) -> Self {
        let mut policy = self.clone();
        patches.into_iter().for_each(|it| it.apply(&mut policy));
        policy
    }
}

/// Some settings: those that are `Some` replace the policy's.
#[derive(Clone, Default)]
pub(crate) struct Patch {
    pub(crate) max_retries: Option<u32>,
    pub(crate) backoff: Option<Arc<dyn Backoff>>,
    pub(crate) jitter: Option<Jitter>,
    pub(crate) statuses: Option<StatusSet>,
    pub(crate) retry_if: Option<Option<Predicate>>,
    pub(crate) methods: Option<RetryMethods>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) attempt_timeout: Option<Option<Duration>>,
    pub(crate) max_total_time: Option<Option<Duration>>,
    pub(crate) max_wait_time: Option<Duration>,
    pub(crate) retry_after: Option<RetryAfter>,
    pub(crate) hints: Option<Arc<HintHeaders>>,
    pub(crate) read_body: Option<Option<usize>>,
    pub(crate) listeners: Listeners,
    pub(crate) sources: Sources,
}

impl Patch {
    pub(crate) fn apply(&self, policy: &mut Policy) {
        fn set<T: Clone>(target: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        set(&mut policy.max_retries, self.max_retries.as_ref());
        set(&mut policy.backoff, self.backoff.as_ref());
        set(&mut policy.jitter, self.jitter.as_ref());
        set(&mut policy.statuses, self.statuses.as_ref());
        set(&mut policy.retry_if, self.retry_if.as_ref());
        set(&mut policy.methods, self.methods.as_ref());
        set(&mut policy.idempotent, self.idempotent.as_ref().map(|_| &self.idempotent));
        set(&mut policy.attempt_timeout, self.attempt_timeout.as_ref());
        set(&mut policy.max_total_time, self.max_total_time.as_ref());
        set(&mut policy.max_wait_time, self.max_wait_time.as_ref());
        set(&mut policy.retry_after, self.retry_after.as_ref());
        set(&mut policy.hints, self.hints.as_ref());
        set(&mut policy.read_body, self.read_body.as_ref());
        policy.listeners.add(&self.listeners);
        policy.sources.replace(&self.sources);
    }
}
