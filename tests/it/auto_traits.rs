//! What the compiler derives: public types pass from thread to thread.

use reqwest_resilient::*;

fn are_send<T: Send>() {}
fn are_shared<T: Send + Sync>() {}

macro_rules! check {
    ($check:ident: $($Type:ty),* $(,)?) => { $($check::<$Type>();)* };
}

/// A field that is no longer `Sync` would break users. `Outcome`, and the events that hold one, are
/// views within a callback: the error they show may be of any type.
#[test]
fn what_users_keep_is_send_and_all_but_downloads_are_sync() {
    check!(are_shared:
        AttemptKind, BreakerState, BuildError, ChangeReason, Delivery, DownloadErrorKind, ErrorKind,
        FailureKind, Health, HedgeRefusal, HintFormat, Jitter, KeyFormat, Misuse,
        NotResumable, QueueOrder, RetryAfter, RetryMethods, RetryVerdict, StopReason, TimeLimit,
        WaitSource, Window, Attempt, AttemptLog, BodyFactory, BreakerConfig, BreakerSnapshot,
        BudgetConfig, BudgetInfo<'_>, CircuitBreaker, CircuitBreakers, CircuitOpen,
        ConcurrencyLimit, ConfigError, ConfigFault, Constant, DeadlineHeader, DownloadError,
        Downloaded, Exponential, FailoverInfo<'_>, Fibonacci, GateInfo<'_>, Hedge,
        HedgeInfo<'_>, HedgeRefusedInfo<'_>, HeldInfo<'_>, HintHeaders, History, Hold, HostStates,
        HttpRequestError, IdempotencyKey, LearnedQuota, Limit, LimitInfo<'_>, LimitUse, Limited, Linear,
        MirrorSets, Mirrors, NotSent, OpenCause, Percent, Permit, Progress,
        QueueInfo<'_>, Rate, RateLimit, RateLimited, RedactedUrl<'_>, RequestBuilder,
        RequestInfo<'_>, ResendCount, Resilient, ResilientClient, ResilientClientBuilder,
        ResilientConfig, ResilientConfigBuilder, ResilientHandle, ResumeInfo<'_>,
        ResumePoint, RetryBudget, RetryOverride, StateChange, Statuses,
        WindowCounts, fleet::BreakerAdvice, fleet::Fleet, fleet::FleetBuilder, fleet::FleetGate,
        fleet::FleetNews, fleet::FleetState, fleet::FleetStats, fleet::HostAdvice,
        fleet::HostReport, fleet::InProcessFleet, fleet::NodeId, blocking::DriveError, blocking::RequestBuilder, blocking::ResilientClient,
        blocking::ResilientClientBuilder, blocking::Response, file::RawConfig,
        telemetry::AttemptSpan, telemetry::MetricsObserver, telemetry::TracingObserver,
        testing::Chaos, testing::ChaosSwitch, testing::Fault, testing::Injected, testing::Reply,
        testing::Script, testing::SentRequest,
    );
    // Progress callbacks and verifiers of the caller are `Send` alone.
    check!(are_send:
        Download, DownloadBuilder, blocking::Download, blocking::DownloadBuilder,
    );
}
