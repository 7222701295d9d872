//! One row a setting: its name, its type and its default.
//!
//! A row makes the field of [`Policy`], the variant of [`Setting`] and the line in `Debug`. Beside
//! it a setting has a setter (`config/settings/`), and a row of the file's table if it is data
//! (`config/file/keys/`).

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};

use crate::breaker::{BreakerConfig, CircuitBreakers};
use crate::common::clock::Sources;
use crate::common::host_pattern::HostPatterns;
use crate::common::path_redactor::PathRedactor;
use crate::config::headers::DeadlineHeader;
use crate::config::policy::{HostPolicy, RetryAfter, STALL_TIMEOUT};
use crate::host::gate::GateKey;
use crate::host::hedge::Hedge;
use crate::host::limit::{ConcurrencyLimit, LimitRules};
use crate::host::map::DEFAULT_MAX_HOSTS;
use crate::host::mirrors::MirrorSets;
use crate::host::rate::RateLimit;
use crate::observe::listeners::Listeners;
use crate::outcome::classify::{BackoffFrom, HintFrom, Judge, Predicate, RetryMethods, TRANSIENT};
use crate::outcome::hint::HintHeaders;
use crate::outcome::idempotency::IdempotencyKey;
use crate::outcome::statuses::Statuses;
use crate::retry::backoff::{Backoff, DEFAULT_BACKOFF, Jitter};
use crate::retry::budget::{BudgetConfig, RetryBudget};

/// 425 and 429: by convention, a server that sends them did not begin. A 503 may come from a proxy
/// whose server did.
const REFUSED: [StatusCode; 2] = [StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];

/// Makes the policy, its settings and its defaults of rows. `data` is shown in `Debug` under its
/// name, by a function if one is given; `code` is what no file holds.
macro_rules! policy {
    (
        data { $(
            $(#[$data_doc:meta])*
            $Data:ident $data:ident: $DataType:ty = $data_default:expr, $label:literal $(by $shown:path)?;
        )* }
        code { $(
            $(#[$code_doc:meta])*
            $Code:ident $code:ident: $CodeType:ty;
        )* }
        guards { $( $(#[$guard_doc:meta])* $guard:ident: $Guard:ty = $guard_default:expr; )* }
    ) => {
        /// All settings of one request, and what is derived from them.
        #[derive(Clone)]
        pub(crate) struct Policy {
            $( $(#[$data_doc])* pub(crate) $data: $DataType, )*
            $( $(#[$code_doc])* pub(crate) $code: $CodeType, )*
            $( $(#[$guard_doc])* pub(crate) $guard: $Guard, )*
        }

        impl Default for Policy {
            fn default() -> Self {
                Self {
                    $( $data: $data_default, )*
                    $( $code: None, )*
                    $( $guard: $guard_default, )*
                }
            }
        }

        /// One setting, with its value.
        #[derive(Clone)]
        pub(crate) enum Setting {
            $( $Data($DataType), )*
            $( $Code($CodeType), )*
        }

        impl Setting {
            /// Sets it in `policy`.
            pub(super) fn apply(&self, policy: &mut Policy) {
                match self {
                    $( Self::$Data(it) => policy.$data.clone_from(it), )*
                    $( Self::$Code(it) => policy.$code.clone_from(it), )*
                }
            }
        }

        impl Policy {
            /// Adds all data to `out`.
            pub(super) fn show_data(&self, out: &mut fmt::DebugStruct<'_, '_>) {
                $( out.field($label, policy!(@shown &self.$data $(, $shown)?)); )*
            }

            /// Replaces all code by that of `other`.
            #[cfg(feature = "serde")]
            pub(super) fn take_code_of(&mut self, other: &Self) {
                $( self.$code.clone_from(&other.$code); )*
            }
        }
    };
    (@shown $value:expr) => { $value };
    (@shown $value:expr, $shown:path) => { &$shown($value) };
}

policy! {
    data {
        MaxRetries max_retries: u32 = 3, "max_retries";
        Backoff backoff: Arc<dyn Backoff> = Arc::new(DEFAULT_BACKOFF), "backoff" by delays;
        Jitter jitter: Jitter = Jitter::Full, "jitter";
        RetryStatuses statuses: Statuses =
            TRANSIENT.into_iter().collect::<Statuses>().with_hinted(), "retry_statuses";
        /// The statuses that say that the request was not processed.
        RefusedStatuses refused: Statuses =
            REFUSED.into_iter().collect::<Statuses>().with_hinted(), "refused_statuses";
        RetryMethods methods: RetryMethods = RetryMethods::Idempotent, "retry_methods";
        Idempotent idempotent: Option<bool> = None, "idempotent";
        /// `None` where nothing is said, so that a client may have a timeout of its own.
        AttemptTimeout attempt_timeout: Option<Option<Duration>> = None, "attempt_timeout";
        MaxTotalTime max_total_time: Option<Duration> = None, "max_total_time";
        MaxWaitTime max_wait_time: Duration = Duration::from_secs(60), "max_wait_time";
        /// `None` for the default, which depends on the attempt timeout.
        MaxOpenWait max_open_wait: Option<Duration> = None, "max_open_wait";
        Hedge hedge: Option<Hedge> = None, "hedge";
        RetryAfter retry_after: RetryAfter = RetryAfter::Floor, "retry_after";
        HintHeaders hints: Arc<HintHeaders> = Arc::default(), "hint_headers";
        ReadBody read_body: Option<usize> = None, "read_body";
        /// The longest wait for a byte of a body; `None` for as long as the connection lives.
        StallTimeout stall_timeout: Option<Duration> = Some(STALL_TIMEOUT), "stall_timeout";
        /// The least bytes a second of a download, on average over this time of waiting.
        MinSpeed min_speed: Option<(u64, Duration)> = None, "min_speed";
        IdempotencyKey idempotency_key: Option<IdempotencyKey> = None, "idempotency_key";
        DeadlineHeader deadline_header: Option<DeadlineHeader> = None, "deadline_header";
        AttemptHeader attempt_header: Option<HeaderName> = None, "attempt_header";
        CircuitBreaker breaker: Option<CircuitBreakers> = Some(BreakerConfig::default().into()),
            "circuit_breaker" by breaker_rules;
        RetryBudget budget: Option<RetryBudget> = Some(BudgetConfig::default().into()),
            "retry_budget" by budget_rules;
        Gate gate: Option<GateKey> = Some(GateKey::default()), "gate";
        ConcurrencyLimit concurrency: Option<ConcurrencyLimit> = None,
            "concurrency_limit" by concurrency_rules;
        RateLimit rate: Option<RateLimit> = None, "rate_limit";
        Mirrors mirrors: Option<MirrorSets> = None, "mirrors";
    }
    code {
        RetryIf retry_if: Option<Predicate>;
        BreakerHealth breaker_health: Option<Judge>;
        HintFrom hint_from: Option<HintFrom>;
        BackoffFrom backoff_from: Option<BackoffFrom>;
        RedactPath redact_path: Option<PathRedactor>;
    }
    guards {
        /// Set if the backoff is the caller's or a preset's choice: then it serves rate limits, too.
        is_backoff_set: bool = false;
        /// Set if `max_wait_time` was set after the backoff, and so cuts its cap.
        is_backoff_limited: bool = false;
        /// Set if `max_open_wait` goes on over failed probes, but only at a host that has responded,
        /// and those that waited return over as long a time, and like slow start.
        waits_out_outages: bool = false;
        /// Set if what only `retry_if` retries is a failure to the breaker: so in the Python library.
        retried_counts: bool = false;
        /// The overdraft of the budget in tokens: only for requests that name `max_retries`
        /// themselves.
        overdraft: u32 = 0;
        listeners: Listeners = Listeners::default();
        sources: Sources = Sources::default();
        hosts: Option<Arc<HostPatterns<HostPolicy>>> = None;
        /// Read once, when a client is built.
        max_hosts: usize = DEFAULT_MAX_HOSTS;
    }
}

fn concurrency_rules(limit: &Option<ConcurrencyLimit>) -> Option<&LimitRules> {
    limit.as_ref().map(|it| &it.rules)
}

/// Returns the first delays of a backoff, and its cap.
fn delays(backoff: &Arc<dyn Backoff>) -> ([Duration; 4], Option<Duration>) {
    let cap = backoff.max_delay().filter(|it| *it < Duration::MAX);
    ([0, 1, 2, 3].map(|retry| backoff.delay(retry)), cap)
}

fn breaker_rules(breaker: &Option<CircuitBreakers>) -> Option<&BreakerConfig> {
    breaker.as_ref().map(CircuitBreakers::config)
}

fn budget_rules(budget: &Option<RetryBudget>) -> Option<&BudgetConfig> {
    budget.as_ref().map(RetryBudget::config)
}
