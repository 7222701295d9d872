//! The presets: settings that belong together.

use std::{sync::Arc, time::Duration};

use http::header;

use super::{MAX_OPEN_WAIT, Policy, RetryAfter};
use crate::breaker::BreakerConfig;
use crate::config::headers::DeadlineHeader;
use crate::host::limit::Limit;
use crate::outcome::classify::{RetryMethods, TRANSIENT};
use crate::outcome::hint::{HintFormat, HintHeaders};
use crate::retry::backoff::{Exponential, Jitter};
use crate::retry::budget::BudgetConfig;

/// The shortest deadline of a service. A tenth of it is still a wait.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(1);

/// The shortest time for which the breaker of a service opens at first. It grows to twice that, half a
/// second of lost requests; shorter deadlines must not make more probes of a fleet than the host can take.
const SHORTEST_OPEN_TIME: Duration = Duration::from_millis(250);

/// The requests of a job to one host at a time, so that one that starts all of its requests at once is
/// no attack.
const AT_A_TIME: u32 = 64;

impl Policy {
    /// The settings of jobs without a user who waits.
    pub(crate) fn batch() -> Self {
        Self {
            max_retries: 10,
            // Outages are waited out at the breaker: while a host still responds, sooner is better.
            backoff: Arc::new(
                Exponential::new(Duration::from_millis(300))
                    .factor(1.5)
                    .max_delay(Duration::from_millis(2_500)),
            ),
            max_wait_time: Duration::from_secs(15 * 60),
            max_open_wait: Some(Duration::from_secs(60)),
            waits_out_outages: true,
            read_body: Some(1024 * 1024),
            concurrency: Some(Limit::fixed(AT_A_TIME).into()),
            // Where all requests wait for tokens no success brings one: the trickle is their probe.
            budget: Some(BudgetConfig::default().size(200).trickle(1.0).into()),
            ..Self::default()
        }
    }

    /// The settings of a service whose callers wait for `deadline`.
    pub(crate) fn service(deadline: Duration) -> Self {
        let deadline = deadline.max(SHORTEST_DEADLINE);
        let wait = deadline / 10;
        let open_wait = (deadline / 2).min(MAX_OPEN_WAIT);
        let open_for = (open_wait / 2).max(SHORTEST_OPEN_TIME);
        let backoff = Exponential::new(wait.min(Duration::from_millis(50))).max_delay(wait);
        Self {
            max_retries: 2,
            backoff: Arc::new(backoff),
            is_backoff_set: true,
            max_total_time: Some(deadline),
            max_wait_time: wait,
            max_open_wait: Some(open_wait),
            breaker: Some(BreakerConfig::default().open_for(open_for).into()),
            deadline_header: Some(DeadlineHeader::grpc_timeout()),
            ..Self::default()
        }
    }

    /// Retries alone, as reqwest-retry makes them.
    pub(crate) fn plain() -> Self {
        Self {
            is_backoff_set: true,
            statuses: (408, 429, 500..=599).into(),
            hints: Arc::new(HintHeaders::none()),
            max_open_wait: Some(Duration::ZERO),
            breaker: None,
            budget: None,
            gate: None,
            ..Self::default()
        }
    }

    /// The Python library's defaults.
    pub(crate) fn aresilient() -> Self {
        Self {
            backoff: Arc::new(Exponential::new(Duration::from_millis(300))),
            is_backoff_set: true,
            jitter: Jitter::None,
            statuses: TRANSIENT.into_iter().skip(2).collect(),
            methods: RetryMethods::All,
            retried_counts: true,
            // The reference has no limit, and sleeps for years if told to.
            max_wait_time: Duration::from_secs(3_599),
            max_open_wait: Some(Duration::ZERO),
            retry_after: RetryAfter::Replaces,
            hints: Arc::new(
                HintHeaders::none().with_format(header::RETRY_AFTER, HintFormat::Standard),
            ),
            breaker: None,
            budget: None,
            gate: None,
            ..Self::default()
        }
    }
}
