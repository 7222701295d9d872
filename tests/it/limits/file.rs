//! Limits in configuration files.

use std::time::Duration;

use reqwest_resilient::{
    ConcurrencyLimit, Limit, QueueOrder, Rate, RateLimit, ResilientConfig, RetryOverride,
};

const SECOND: Duration = Duration::from_secs(1);

fn read(text: &str) -> Result<ResilientConfig, toml::de::Error> {
    toml::from_str(text)
}

/// Checks that a file says what `same` sets.
#[track_caller]
fn check(text: &str, same: reqwest_resilient::ResilientConfigBuilder) {
    assert_eq!(format!("{:?}", read(text).unwrap()), format!("{:?}", same.build().unwrap()));
}

fn limited(limit: impl Into<ConcurrencyLimit>) -> reqwest_resilient::ResilientConfigBuilder {
    ResilientConfig::builder().concurrency_limit(limit)
}

fn paced(limit: impl Into<RateLimit>) -> reqwest_resilient::ResilientConfigBuilder {
    ResilientConfig::builder().rate_limit(limit)
}

#[test]
fn a_file_holds_every_limit() {
    check("concurrency_limit = 10", limited(Limit::fixed(10)));
    check("concurrency_limit = 'adaptive'", limited(Limit::adaptive()));
    check("concurrency_limit = { max = 200 }", limited(Limit::adaptive().max(200)));
    check("concurrency_limit = false", ResilientConfig::builder());
    check(
        "[concurrency_limit]
        max = 50
        start = 5
        min = 2
        limit = 'adaptive'",
        limited(Limit::adaptive().start(5).min(2).max(50)),
    );
    let limit = ConcurrencyLimit::shared(Limit::fixed(3)).order(QueueOrder::Fair).until_head();
    check(
        "[concurrency_limit]
        scope = 'shared'
        limit = 3
        max_queue_time = '0s'
        order = 'fair'
        until = 'head'",
        limited(limit.max_queue_time(Duration::ZERO)),
    );
    check("rate_limit.requests = 3", paced(Rate::per_second(3)));
    check("rate_limit = 'learned'", paced(RateLimit::learned()));
    let limit = RateLimit::shared(Rate::per_minute(60).burst(5)).max_wait(9 * SECOND);
    check(
        "rate_limit = { scope = 'shared', requests = 60, per = '1m', burst = 5, max_wait = '9s' }",
        paced(limit),
    );
}

#[test]
fn a_host_has_limits_of_its_own() {
    let slow = RetryOverride::new()
        .concurrency_limit(Limit::fixed(2))
        .rate_limit(Rate::per_second(5).burst(3));
    let text = "concurrency_limit = 10
        rate_limit = { requests = 5 }
        [hosts.'slow.example']
        concurrency_limit.limit = 2
        rate_limit.burst = 3
        [hosts.'free.example']
        concurrency_limit = false
        rate_limit = 'off'";
    let free = RetryOverride::new().without_concurrency_limit().without_rate_limit();
    let same = limited(Limit::fixed(10)).rate_limit(Rate::per_second(5));
    check(text, same.host("slow.example", slow).host("free.example", free));
}

#[test]
fn faults_are_named() {
    for (text, expected) in [
        ("rate_limit = { burst = 2 }", "rate_limit.requests is needed, got null"),
        (
            "concurrency_limit = 0",
            "concurrency_limit must be a whole number from 1 to 1000000 or \"adaptive\" or a table or \
             false, got 0",
        ),
        (
            "concurrency_limit = { max = 3 }",
            "concurrency_limit.start must be from min (1) to max (3), got 20",
        ),
        (
            "concurrency_limit = { scope = 'shared', limit = 3 }
            hosts.'a.example'.concurrency_limit = 2",
            "hosts.\"a.example\".concurrency_limit can only differ where there is one per host, \
             got \"shared\"",
        ),
        (
            "rate_limit = { scope = 'shared', requests = 3 }
            hosts.'a.example'.rate_limit.requests = 2",
            "hosts.\"a.example\".rate_limit can only differ where there is one per host, \
             got \"shared\"",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let faults = |limit| {
        let error = paced(limit).build().unwrap_err();
        error.faults().iter().map(|it| it.field.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(faults(Rate::per_second(0).burst(0)), ["rate_limit.requests", "rate_limit.burst"]);
    assert_eq!(faults(Rate::per(1, Duration::ZERO)), ["rate_limit.per"]);
}
