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
    let day = Rate::per(50_000, 24 * 3_600 * SECOND).burst(1_000);
    let limit = RateLimit::per_host(Rate::per_second(10)).also(RateLimit::shared(day));
    let text = "rate_limit.requests = 10
        [rate_limit.also]
        scope = 'shared'
        requests = 50000
        per = '24h'
        burst = 1000";
    check(text, paced(limit.clone()));
    let text = "[rate_limit]
        requests = 10
        also = [
            { scope = 'shared', requests = 50000, per = '24h', burst = 1000 },
            { requests = 100, per = '1m' },
        ]";
    check(text, paced(limit.and(Rate::per_minute(100))));
    let buckets = http::HeaderName::from_static("x-ratelimit-bucket");
    let text = "rate_limit.bucket_header = 'X-RateLimit-Bucket'";
    check(text, paced(RateLimit::learned().bucket_header(buckets)));
    let text = "rate_limit = { bucket_header = 'x-ratelimit-bucket', route = 4 }";
    let limit = format!("{:?}", read(text).unwrap());
    assert!(limit.contains("4 segments"), "{limit}");
}

#[test]
fn further_limits_of_a_host_replace_those_of_all() {
    let text = "rate_limit = { requests = 10, also = { requests = 100, per = '1m' } }
        hosts.'slow.example'.rate_limit.also = { requests = 50, per = '1m' }
        hosts.'same.example'.rate_limit.burst = 2";
    let limit = |more, rate| RateLimit::per_host(rate).and(Rate::per_minute(more));
    let slow = RetryOverride::new().rate_limit(limit(50, Rate::per_second(10)));
    let same = RetryOverride::new().rate_limit(limit(100, Rate::per_second(10).burst(2)));
    let config = paced(limit(100, Rate::per_second(10)));
    check(text, config.host("slow.example", slow).host("same.example", same));
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
            "rate_limit = { requests = 2, also = { burst = 2 } }",
            "rate_limit.also[0].requests is needed, got null",
        ),
        (
            "rate_limit = { requests = 2, also = { also = { requests = 2 } } }",
            "rate_limit.also.also is not a setting",
        ),
        (
            "concurrency_limit = 0",
            "concurrency_limit must be a whole number from 1 to 1000000 or \"adaptive\" or a table or \
             false, got 0",
        ),
        (
            "concurrency_limit = { start = 20, max = 3 }",
            "concurrency_limit.start must be from min (1) to max (3), got 20",
        ),
        (
            "concurrency_limit = { max = 9, limit = 6 }",
            "concurrency_limit.max needs an adaptive limit, got 9",
        ),
        (
            "concurrency_limit = 6
            hosts.'a.example'.concurrency_limit.min = 2",
            "concurrency_limit.min needs an adaptive limit, got 2",
        ),
        (
            "rate_limit = { requests = 3, route = 2 }",
            "rate_limit.route needs a bucket_header, got 2 segments",
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
