//! Configuration files: what they may say, and what is said about mistakes in them.

mod merging;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use http::StatusCode;
use reqwest_resilient::file::RawConfig;
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, CircuitBreaker, CircuitBreakers, Constant,
    HostStates, Jitter, Percent, ResilientConfig, RetryBudget, RetryMethods, RetryOverride, Window,
};
use tokio::time::Instant;

use crate::support::{URL, scripted};

const SECOND: Duration = Duration::from_secs(1);

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(text: &str) -> ResilientConfig {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn faults(text: &str) -> Vec<String> {
    let raw: RawConfig = toml::from_str(text).unwrap();
    let error = raw.build().unwrap_err();
    error.faults().iter().map(ToString::to_string).collect()
}

/// Returns the number of attempts and the time of a failing request with a config.
async fn course(config: ResilientConfig, url: &str, reply: Reply) -> (usize, Duration) {
    let (client, script) = scripted(config, [reply]);
    let start = Instant::now();
    let _ = client.get(url).send().await;
    (script.sent().len(), start.elapsed())
}

#[test]
fn three_mistakes_are_named_at_once_with_their_paths() {
    let text = r#"
        max_retrys = 5
        attempt_timeout = 10
        [hosts."api.example.com".circuit_breaker]
        failure_rate = 150
    "#;
    let error = toml::from_str::<ResilientConfig>(text).unwrap_err().to_string();
    for part in [
        "max_retrys is not a setting (did you mean max_retries?), got 5",
        "attempt_timeout must be a duration above zero such as \"300ms\" or false, got 10",
        "hosts.\"api.example.com\".circuit_breaker.failure_rate must be a number from 0.01 to \
         100 or false, got 150",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(faults(text).len(), 3);
}

#[test]
fn mistakes_of_every_kind_are_named() {
    for (text, expected) in [
        ("retry_statuses = [503, 7]", "retry_statuses[1] must be a status from 100 to 999, got 7"),
        (
            "retry_methods = ['get']",
            "retry_methods[0] must be a method such as \"GET\", got \"get\"",
        ),
        (
            "hosts.'a b'.max_retries = 1",
            "hosts.\"a b\" must be a host such as api.example.com or *.example.com, got {max_retries = 1}",
        ),
        ("hosts.a.scope = 1", "hosts.\"a\".scope is not a setting, got 1"),
        (
            "hosts.A.gate = false\nhosts.a.gate = true",
            "hosts.\"a\" is given twice, got {gate = true}",
        ),
        (
            "preset = 'mild'",
            "preset must be \"default\" or \"batch\" or \"service\" or \"plain\" or \"aresilient\", got \"mild\"",
        ),
        (
            "jitter = -0.5",
            "jitter must be \"full\" or \"equal\" or \"decorrelated\" or \"none\" or a number from 0, got -0.5",
        ),
        (
            "jitter = nan",
            "jitter must be \"full\" or \"equal\" or \"decorrelated\" or \"none\" or a number from 0, got NaN",
        ),
        ("backoff.factor = 0.9", "backoff.factor must be a number from 1, got 0.9"),
        ("backoff.factor = inf", "backoff.factor must be a number from 1, got inf"),
        (
            "backoff = { kind = 'linear', factor = 3 }",
            "backoff.factor excludes kind, got \"linear\"",
        ),
        ("retry_after = {}", "retry_after.capped is needed, got null"),
        (
            "retry_after.capped = '0s'",
            "retry_after.capped must be a duration above zero such as \"300ms\", got \"0s\"",
        ),
        (
            "max_wait_time = '0s'",
            "max_wait_time must be a duration above zero such as \"300ms\", got \"0s\"",
        ),
        ("backoff = 3", "backoff must be a table, got 3"),
        ("backoff.delay = []", "backoff.delay must be a duration such as \"300ms\", got []"),
        ("retry_statuses = 503", "retry_statuses must be a list, got 503"),
        (
            "attempt_header = [1, -2, 'x', 0.5, true]",
            "attempt_header must be false or a header's name, got [1, -2, \"x\", 0.5, …]",
        ),
        (
            "retry_budget.size = { a = 1, b = 2, c = 3, d = 4, e = 5 }",
            "retry_budget.size must be a whole number from 1 to 4294967295, \
             got {a = 1, b = 2, c = 3, d = 4, …}",
        ),
        (
            "retry_budget.deposit = 'much'",
            "retry_budget.deposit must be a number from 0 to 4294967295, got \"much\"",
        ),
        (
            "backoff = { kind = 'constant', max_delay = '1s' }",
            "backoff.max_delay excludes kind, got \"constant\"",
        ),
        (
            "circuit_breaker = { consecutive = 3, consecutive_while_few = 2 }",
            "circuit_breaker.consecutive_while_few excludes consecutive, got \"both\"",
        ),
        (
            "circuit_breaker.slow_calls = { percent = 5 }",
            "circuit_breaker.slow_calls.slower_than is needed, got null",
        ),
        (
            "circuit_breaker.open_growth = { factor = 0.5, max = '1m' }",
            "circuit_breaker.open_growth.factor must be a number from 1, got 0.5",
        ),
        (
            "circuit_breaker.sustained = { no_success_for = '0s', min_failures = 5 }",
            "circuit_breaker.sustained.no_success_for must be a duration above zero such as \"300ms\", \
             got \"0s\"",
        ),
        (
            "circuit_breaker = { window = 10, min_samples = 11 }",
            "circuit_breaker.min_samples must fit into the count window, got 11",
        ),
        (
            "circuit_breaker.scope = 'shared'\nhosts.a.circuit_breaker.open_for = '2s'",
            "hosts.\"a\".circuit_breaker can only differ where there is one per host, got \"shared\"",
        ),
        ("hint_headers.'a b' = 'wait'", "hint_headers.\"a b\" must name a header, got \"wait\""),
        (
            "circuit_breaker.sustained = false",
            "circuit_breaker must have a rule that opens it (switch it off by \
             without_circuit_breaker), got none",
        ),
        (
            "circuit_breaker.failure_rate = 30\nattempt_timeout = '30s'",
            "circuit_breaker.window must not be shorter than attempt_timeout (30s), got 10s",
        ),
        (
            "circuit_breaker.failure_rate = 30\nhosts.a.attempt_timeout = '30s'",
            "hosts.\"a\".circuit_breaker.window must not be shorter than attempt_timeout (30s), got 10s",
        ),
        (
            "backoff = { delay = '2s', max_delay = '1s' }",
            "backoff.max_delay must not be shorter than the first delay (2s), got 1s",
        ),
        (
            "backoff.max_delay = '5m'",
            "backoff.max_delay must not be longer than max_wait_time (60s), got 300s",
        ),
        (
            "hosts.a.attempt_timeout = '9s'\nmax_total_time = '5s'",
            "hosts.\"a\".attempt_timeout must not be longer than max_total_time, got 9s",
        ),
    ] {
        assert_eq!(faults(text), [expected], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_do_what_they_say() {
    let check = async |text: &str, reply: Reply, attempts, time| {
        let base = "jitter = 'none'\nretry_budget = false\ncircuit_breaker = false\n";
        let config = read(&format!("{base}{text}"));
        assert_eq!(course(config, URL, reply).await, (attempts, time), "{text}");
    };
    let failing = || Reply::status(503);
    let ms = Duration::from_millis;
    check("", failing(), 4, ms(300 + 600 + 1200)).await;
    check("max_retries = 1", failing(), 2, ms(300)).await;
    check("backoff = { kind = 'constant', delay = '2s' }", failing(), 4, 6 * SECOND).await;
    check("backoff = { kind = 'linear', delay = '1s' }", failing(), 4, 6 * SECOND).await;
    check("backoff.max_delay = '500ms'", failing(), 4, ms(300 + 500 + 500)).await;
    check("backoff.factor = 10", failing(), 4, ms(300 + 3_000 + 20_000)).await;
    check("backoff = { delay = '1s', factor = 1.5 }", failing(), 4, ms(1_000 + 1_500 + 2_250))
        .await;
    check("hosts.'api.example.com'.backoff.factor = 1", failing(), 4, ms(900)).await;
    check("retry_statuses = [500]", failing(), 1, ms(0)).await;
    check("max_total_time = '1s'", failing(), 3, ms(900)).await;
    check(
        "attempt_timeout = '1s'\nmax_retries = 0",
        Reply::status(200).after(9 * SECOND),
        1,
        SECOND,
    )
    .await;
    let busy = || failing().header(http::header::RETRY_AFTER, "7".parse().unwrap());
    check("max_retries = 1\ngate = false", busy(), 2, 7 * SECOND).await;
    check("max_retries = 1\ngate = false\nretry_after = 'ignored'", busy(), 2, ms(300)).await;
    check("max_retries = 1\ngate = false\nretry_after.capped = '2s'", busy(), 2, 2 * SECOND).await;
    check("max_retries = 1\ngate = false\nhint_headers = 'off'", busy(), 2, ms(300)).await;
    check("gate = false\nmax_wait_time = '5s'", busy(), 1, ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_s_settings_go_for_that_host() {
    let config = read(
        "jitter = 'none'\ncircuit_breaker = false\nretry_budget = false
         backoff = { kind = 'constant', delay = '1s' }
         [hosts.'api.example.com']\nmax_retries = 1
         [hosts.'*.example.com']\nbackoff.delay = '5s'",
    );
    let check = async |url, attempts, secs| {
        let course = course(config.clone(), url, Reply::status(503)).await;
        assert_eq!(course, (attempts, secs * SECOND), "{url}");
    };
    check("https://api.example.com:8443/x", 2, 1).await;
    check("https://www.example.com/", 4, 15).await;
    check("https://example.com/", 4, 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_builder_has_hosts_too_and_an_override_wins_over_them() {
    let config = ResilientConfig::builder()
        .backoff(Constant::new(SECOND))
        .jitter(Jitter::None)
        .host("api.example.com", RetryOverride::new().max_retries(1).without_gate())
        .build()
        .unwrap();
    // Settings of hosts come along, on top of what is new.
    let config = config.to_builder().backoff(Constant::new(2 * SECOND)).build().unwrap();
    assert_eq!(course(config.clone(), URL, Reply::status(503)).await, (2, 2 * SECOND));
    let (client, script) = scripted(config, [Reply::status(503)]);
    let own = RetryOverride::new().max_retries(0);
    client.get(URL).with_extension(own).send().await.unwrap();
    assert_eq!(script.sent().len(), 1);

    let odd = ResilientConfig::builder().host("a/b", RetryOverride::new());
    let odd = odd.host("", RetryOverride::new().circuit_breaker(BreakerConfig::default()));
    assert_eq!(
        odd.build().unwrap_err().to_string(),
        "hosts must be a host such as api.example.com or *.example.com, got \"a/b\"; \
         hosts must be a host such as api.example.com or *.example.com, got \"\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_may_have_a_rule_of_its_own_for_breaker_and_budget() {
    let config = read(
        "max_retries = 9
         max_open_wait = 'off'
         hosts.'a.example' = { max_retries = 0, circuit_breaker.consecutive = 2 }
         hosts.'b.example' = { circuit_breaker = false, retry_budget.size = 1 }
         hosts.'c.example' = { circuit_breaker = false, retry_budget = 'off' }",
    );
    let attempts = async |url| course(config.clone(), url, Reply::status(503)).await.0;
    assert_eq!(attempts("http://b.example").await, 2);
    assert_eq!(attempts("http://c.example").await, 10);

    let (client, script) = scripted(config, [Reply::status(503)]);
    for _ in 0..3 {
        let _ = client.get("http://a.example").send().await;
    }
    assert_eq!(script.sent().len(), 2, "the third was rejected");
}

#[test]
fn every_format_says_the_same() {
    let toml = "max_retries = 7\nread_body = 9\nhosts.'a.example'.jitter = 0.5";
    let json = r#"{ "$schema": "x", "max_retries": 7, "read_body": 9,
                    "hosts": { "a.example": { "jitter": 0.5 } } }"#;
    let yaml = "max_retries: 7\nread_body: 9\nhosts:\n  a.example: { jitter: 0.5 }\n";
    let vars =
        [("P_MAX_RETRIES", "7"), ("P_READ_BODY", "9"), ("P_HOSTS__A.EXAMPLE__JITTER", "0.5")];
    let expected = format!("{:?}", read(toml));
    let same = |config: ResilientConfig| assert_eq!(format!("{config:?}"), expected);
    same(serde_json::from_str(json).unwrap());
    same(serde_norway::from_str(yaml).unwrap());
    same(ResilientConfig::from_env("P_", vars).unwrap());
    assert!(expected.contains("max_retries: 7"), "{expected}");
}

#[test]
fn sources_are_laid_over_one_another() {
    let file: RawConfig =
        toml::from_str("max_retries = 7\ncircuit_breaker.open_for = '9s'").unwrap();
    let vars =
        [("P_CIRCUIT_BREAKER__MAX_PROBES", "2"), ("P_RETRY_STATUSES", "500, 503"), ("Q", "")];
    let config = RawConfig::from_env("P_", vars).over(file).build().unwrap();
    let expected = "max_retries = 7\nretry_statuses = [500, 503]
                    circuit_breaker = { open_for = '9s', max_probes = 2 }";
    assert_eq!(format!("{config:?}"), format!("{:?}", read(expected)));

    let both = [("P_CIRCUIT_BREAKER", "off"), ("P_CIRCUIT_BREAKER__MAX_PROBES", "2")];
    let error = ResilientConfig::from_env("P_", both).unwrap_err();
    assert_eq!(error.to_string(), "circuit_breaker is given twice, got {max_probes = …}");
}

#[test]
fn a_limit_of_one_source_shortens_the_settings_of_another() {
    let file = "attempt_timeout = '10s'
                backoff.max_delay = '30s'
                [hosts.'a.example']
                attempt_timeout = '9s'
                backoff.max_delay = '8s'
                [hosts.'b.example']
                attempt_timeout = '5m'
                max_total_time = '10m'";
    let vars = [("P_MAX_TOTAL_TIME", "4s"), ("P_MAX_WAIT_TIME", "2s")];
    let over = |vars: &[(&str, &str)]| {
        let file: RawConfig = toml::from_str(file).unwrap();
        RawConfig::from_env("P_", vars.iter().copied()).over(file).build()
    };
    let expected = "max_total_time = '4s'
                    max_wait_time = '2s'
                    attempt_timeout = '4s'
                    backoff.max_delay = '2s'
                    [hosts.'a.example']
                    attempt_timeout = '4s'
                    backoff.max_delay = '2s'
                    [hosts.'b.example']
                    attempt_timeout = '5m'
                    max_total_time = '10m'";
    assert_eq!(format!("{:?}", over(&vars).unwrap()), format!("{:?}", read(expected)));

    // For one host, and where the upper source contradicts itself.
    let shorter = over(&[("P_HOSTS__B.EXAMPLE__MAX_TOTAL_TIME", "1m")]).unwrap();
    assert_eq!(format!("{shorter:?}").matches("attempt_timeout: Some(Some(60s))").count(), 1);
    let error = over(&[("P_MAX_TOTAL_TIME", "4s"), ("P_ATTEMPT_TIMEOUT", "5s")]).unwrap_err();
    let rule = "attempt_timeout must not be longer than max_total_time, got 5s";
    assert_eq!(error.to_string(), rule);

    // Over a config the same holds.
    let code = ResilientConfig::builder()
        .attempt_timeout(9 * SECOND)
        .backoff(reqwest_resilient::Exponential::new(SECOND).max_delay(9 * SECOND))
        .host("a.example", RetryOverride::new().max_total_time(2 * SECOND))
        .build()
        .unwrap();
    let limits: RawConfig = toml::from_str("max_total_time = '4s'\nmax_wait_time = '3s'").unwrap();
    let shown = format!("{:?}", limits.over_config(&code).unwrap());
    for seconds in [4, 2] {
        let attempts = format!("attempt_timeout: Some(Some({seconds}s))");
        assert_eq!(shown.matches(&attempts).count(), 1, "{shown}");
    }
}

#[test]
fn a_prefix_that_no_variable_has_is_a_mistake() {
    let vars = [("RESILIENT_MAX_RETRIES", "5"), ("PATH", "/bin")];
    let error = ResilientConfig::from_env("RESILENT_", vars).unwrap_err();
    let expected = "RESILENT_ must begin the name of a variable, got none that does";
    assert_eq!(error.to_string(), expected);
    let raw = RawConfig::from_env("RESILENT_", vars);
    assert!(raw.is_empty() && raw.build().is_ok());
    assert!(!RawConfig::from_env("RESILIENT_", vars).is_empty());
}

#[test]
fn a_variable_without_a_name_of_its_own_is_named() {
    for (name, expected) in [
        ("P_", "P_ is not a setting, got …"),
        ("P___DELAY", "\"\" is not a setting, got {delay = …}"),
        ("P_BACKOFF__", "backoff.\"\" is not a setting, got …"),
    ] {
        let error = ResilientConfig::from_env("P_", [(name, "1s")]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = ResilientConfig::from_env("", [("", "1s")]).unwrap_err();
    assert_eq!(error.to_string(), "\"\" is not a setting, got …");
    let none: [(&str, &str); 0] = [];
    let error = ResilientConfig::from_env("", none).unwrap_err();
    assert_eq!(error.to_string(), "\"\" must begin the name of a variable, got none that does");
}

#[tokio::test(start_paused = true)]
async fn a_file_over_a_config_changes_what_it_names() {
    let base = ResilientConfig::builder()
        .backoff(reqwest_resilient::Linear::new(SECOND).max_delay(9 * SECOND))
        .jitter(Jitter::None)
        .circuit_breaker(CircuitBreakers::shared(BreakerConfig::default()))
        .retry_budget(RetryBudget::shared(BudgetConfig::default().size(7)))
        .host("API.example.com", RetryOverride::new().max_retries(1))
        .build()
        .unwrap();
    let over = |text: &str, base: &ResilientConfig| {
        toml::from_str::<RawConfig>(text).unwrap().over_config(base)
    };
    assert_eq!(format!("{:?}", over("", &base).unwrap()), format!("{base:?}"));
    let text =
        "backoff.delay = '2s'\nretry_budget.deposit = 0.5\ncircuit_breaker.open_for = '1500ms'
                hosts.'api.example.com'.gate = false";
    let config = over(text, &base).unwrap();
    assert_eq!(course(config.clone(), URL, Reply::status(503)).await, (2, 2 * SECOND));
    assert_eq!(
        course(config.clone(), "http://b.example", Reply::status(503)).await,
        (4, 12 * SECOND)
    );
    let shown = format!("{config:?}");
    assert!(shown.contains("size: 7, deposit: 0.5"), "{shown}");
    let differs = over("hosts.b.circuit_breaker.open_for = '9s'", &base).unwrap_err();
    assert_eq!(
        differs.to_string(),
        "hosts.\"b\".circuit_breaker can only differ where there is one per host, got \"shared\""
    );

    let own = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let base = ResilientConfig::builder().circuit_breaker(own).build().unwrap();
    assert!(over("circuit_breaker = true", &base).is_ok());
    assert!(over("circuit_breaker = false", &base).is_ok());
    assert_eq!(
        over("circuit_breaker.open_for = '1500ms'", &base).unwrap_err().to_string(),
        "circuit_breaker can only be switched off: the program has a breaker of its own, \
         got other rules"
    );
}

#[test]
fn a_breaker_of_the_caller_s_own_is_validated() {
    let never = BreakerConfig::default().without_sustained().open_for(Duration::ZERO);
    assert_eq!(
        CircuitBreaker::new(never).unwrap_err().to_string(),
        "circuit_breaker.open_for must be > 0, got 0ns; circuit_breaker must have a rule that opens \
         it (switch it off by without_circuit_breaker), got none"
    );
}

#[tokio::test(start_paused = true)]
async fn a_breaker_s_counts_of_zero_are_named_at_every_entrance() {
    let zeros = || {
        BreakerConfig::consecutive(0)
            .or_sustained(SECOND, 0)
            .window(Window::Count(0))
            .min_samples(0)
            .max_probes(0)
            .close_unless(Percent::HALF, 0)
    };
    let fields = [
        "window",
        "min_samples",
        "sustained.min_failures",
        "consecutive",
        "max_probes",
        "close_unless.probes",
    ];
    let named = |part: &str| {
        fields.map(|it| format!("{part}circuit_breaker.{it} must be > 0, got 0")).join("; ")
    };
    let error = CircuitBreaker::new(zeros()).unwrap_err();
    assert_eq!(error.to_string(), named(""));
    let scopes = [CircuitBreakers::per_host, CircuitBreakers::shared, |it| {
        CircuitBreakers::per_key(it, |_| String::new())
    }];
    for breakers in scopes {
        let builder = ResilientConfig::builder().circuit_breaker(breakers(zeros()));
        assert_eq!(builder.build().unwrap_err().to_string(), named(""));
    }
    let of_host = RetryOverride::new().circuit_breaker(zeros());
    let error = ResilientConfig::builder().host("a", of_host.clone()).build().unwrap_err();
    let faults: BTreeSet<_> = error.faults().iter().map(ToString::to_string).collect();
    let expected: BTreeSet<_> = named("hosts.\"a\".").split("; ").map(str::to_owned).collect();
    assert_eq!(faults, expected);

    let (client, script) = scripted(ResilientConfig::default(), [Reply::status(200)]);
    let error = client.get(URL).with_extension(of_host).send().await.unwrap_err();
    assert!(format!("{error:?}").contains(&named("")), "{error:?}");
    assert_eq!(script.sent().len(), 0);
}

#[test]
fn no_hosts_are_a_fault_of_a_config_and_one_host_of_a_map() {
    let error = ResilientConfig::builder().max_hosts(0).build().unwrap_err();
    assert_eq!(error.to_string(), "max_hosts must be > 0, got 0");
    let hosts = HostStates::with_max_hosts(0);
    hosts.breaker("https://a.example").force_open();
    assert_eq!(hosts.breaker("https://a.example").state(), BreakerState::ForcedOpen);
}

#[test]
fn a_cap_of_zero_is_named_with_its_path() {
    let backoff = reqwest_resilient::Exponential::new(SECOND).max_delay(Duration::ZERO);
    let error = ResilientConfig::builder().backoff(backoff).build().unwrap_err();
    assert_eq!(error.to_string(), "backoff.max_delay must be > 0, got 0ns");
}

#[test]
fn zeros_of_files_are_named() {
    for (text, field) in [
        ("max_hosts = 0", "max_hosts"),
        ("circuit_breaker.min_samples = 0", "circuit_breaker.min_samples"),
        ("circuit_breaker.max_probes = 0", "circuit_breaker.max_probes"),
        ("circuit_breaker.close_after = 0", "circuit_breaker.close_after"),
        (
            "circuit_breaker.close_unless = { percent = 50, probes = 0 }",
            "circuit_breaker.close_unless.probes",
        ),
        (
            "circuit_breaker.sustained = { no_success_for = '2s', min_failures = 0 }",
            "circuit_breaker.sustained.min_failures",
        ),
    ] {
        let expected = format!("{field} must be a whole number from 1 to 4294967295, got 0");
        assert_eq!(faults(text), [expected]);
    }
    for (text, expected) in [
        (
            "circuit_breaker.consecutive = 0",
            "circuit_breaker.consecutive must be a whole number from 1 to 4294967295 or false, got 0",
        ),
        (
            "hosts.a.circuit_breaker.consecutive_while_few = 0",
            "hosts.\"a\".circuit_breaker.consecutive_while_few must be a whole number from 1 to \
             4294967295 or false, got 0",
        ),
        (
            "circuit_breaker.window = 0",
            "circuit_breaker.window must be a duration above zero such as \"300ms\" or a whole \
             number from 1 to 65535, got 0",
        ),
    ] {
        assert_eq!(faults(text), [expected]);
    }
    let vars = [("P_CIRCUIT_BREAKER__MAX_PROBES", "0"), ("P_MAX_HOSTS", "0")];
    let error = ResilientConfig::from_env("P_", vars).unwrap_err();
    let fields: BTreeSet<_> = error.faults().iter().map(|it| it.field.as_ref()).collect();
    assert_eq!(fields, BTreeSet::from(["circuit_breaker.max_probes", "max_hosts"]));
}

#[test]
fn secrets_of_others_are_not_shown() {
    let vars = [
        ("P_DB_PASSWORD", "hunter2"),
        ("P_DB__PASSWORD", "hunter2"),
        ("P_HOSTS__A.EXAMPLE__TOKEN", "hunter2"),
        ("P_HOSTS__ME:HUNTER2@A.EXAMPLE__GATE", "on"),
        ("P_HOSTS__HTTP://A.EXAMPLE/?TOKEN=HUNTER2__GATE", "on"),
        ("P_BACKOFF__PASSWORD", "hunter2"),
        ("P_CIRCUIT_BREAKER", "off"),
        ("P_CIRCUIT_BREAKER__TOKENS", "hunter2,hunter2"),
        ("P_MAX_RETRIES__KEY", "hunter2"),
    ];
    let raw = RawConfig::from_env("P_", vars);
    let error = raw.build().unwrap_err();
    assert_eq!(error.faults().len(), 8, "{error}");
    let file: RawConfig = toml::from_str(
        "password = 'hunter2'\nlogin = ['hunter2', { token = 'hunter2' }]
         [hosts.'hunter2@a.example']\nmax_retries = { token = 'hunter2' }",
    )
    .unwrap();
    let odd = ResilientConfig::builder().host("me:hunter2@a.example", RetryOverride::new());
    let shown = format!(
        "{error}{error:?}{raw:?}{file:?}{}{}",
        file.build().unwrap_err(),
        odd.build().unwrap_err()
    );
    assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
}

#[test]
fn a_url_at_a_wrong_place_shows_no_secret() {
    let url = "https://user:hunter2@b.example/?token=hunter2";
    for wrong in [
        format!("[mirrors.'https://a.example/']\nendpoints = '{url}'"),
        format!("[mirrors.'https://a.example/']\nendpoints = ['{url}', 1]"),
        format!("[mirrors]\n'https://a.example/' = '{url}'"),
        format!("[mirrors]\n'https://a.example/' = ['{url}']"),
        format!("mirrors = '{url}'"),
        format!("mirrors = ['{url}']"),
        format!("backoff = '{url}'"),
        format!("max_retries = '{url}'"),
        format!("idempotency_key = '{url}'"),
        format!("'{url}' = true"),
        format!("[mirrors.'https://a.example/']\n'{url}' = true"),
        format!("hosts.'a.example'.'{url}' = true"),
    ] {
        let file: RawConfig = toml::from_str(&wrong).unwrap();
        let error = file.build().unwrap_err();
        assert!(!format!("{file:?}{error}{error:?}").contains("hunter2"), "{wrong}: {error}");
    }
    let twice = format!(
        r#"{{"mirrors": {{"https://a.example/": {{"endpoints": ["{url}"], "endpoints": ["{url}"]}}}}}}"#
    );
    let error = serde_json::from_str::<RawConfig>(&twice).unwrap().build().unwrap_err();
    assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_understood_in_every_spelling_or_refused() {
    for name in ["api.example.com", "API.example.com.", "*.example.com."] {
        let config = read(&format!("max_retries = 0\n[hosts.'{name}']\nmax_retries = 2"));
        for url in [URL, "https://api.example.com./", "https://me@API.EXAMPLE.COM:444/"] {
            assert_eq!(course(config.clone(), url, Reply::status(503)).await.0, 3, "{name} {url}");
        }
    }
    for name in [
        "api.example.com:80",
        "api.example.com:443",
        "api.example.com:",
        "@api.example.com",
        ":@api.example.com",
        "api.example.com\n",
        "\r\napi.example.com",
        "api.exa\tmple.com",
        " api.example.com",
        "api.example.com..",
        ".example.com",
        "*.10.0.0.1",
    ] {
        let builder = ResilientConfig::builder().host(name, RetryOverride::new().max_retries(2));
        assert!(builder.build().is_err(), "{name:?}");
        let file = format!("hosts = {{ {name:?} = {{ max_retries = 2 }} }}");
        assert!(toml::from_str::<ResilientConfig>(&file).is_err(), "{name:?}");
    }
    let twice = "hosts.'a.example'.gate = true\nhosts.'A.example.'.gate = false";
    assert_eq!(faults(twice), ["hosts.\"a.example\" is given twice, got {gate = true}"]);
}

#[test]
fn a_file_can_say_what_the_builder_can() {
    let text = "
        preset = 'aresilient'
        max_retries = 2
        backoff = { kind = 'fibonacci', delay = '1s', max_delay = '8s' }
        jitter = 0.25
        retry_statuses = [500]
        retry_methods = ['GET', 'POST']
        attempt_timeout = '5s'
        max_total_time = '1m'
        max_wait_time = '10s'
        retry_after = 'floor'
        hint_headers = { x-backoff = 'millis', retry-after = false }
        read_body = 1024
        stall_timeout = '20s'
        min_speed = { bytes_per_second = 1000, period = '15s' }
        deadline_header = 'x-left-ms'
        attempt_header = 'x-attempt'
        idempotency_key = { header = 'x-key', format = 'raw' }
        gate = true
        max_hosts = 9
        [mirrors.'https://a.example/x/']
        endpoints = ['https://a.example/x', 'https://b.example']
        order = 'spread'
        sticky = '1m'
        secret_headers = ['x-key']
        [circuit_breaker]
        scope = 'per_host'
        window = 100
        min_samples = 10
        failure_rate = 0.25
        consecutive = 7
        slow_calls = { slower_than = '2s', percent = 60 }
        max_probes = 2
        close_unless = { percent = 50, probes = 4 }
        half_open_max_wait = '20s'
        open_for = '3s'
        open_growth = { factor = 1.5, max = '1m' }
        sustained = { no_success_for = '4s', min_failures = 2 }
        open_jitter = false
        max_retry_after = '0s'
        [retry_budget]
        scope = 'shared'
        size = 50
        deposit = 0.2
        trickle = 1
        retry_deposit = 0.5
        [hedge]
        quantile = 0.9
        or_after = '40ms'
        max_hedges = 2
        share = 0.2
        methods = ['GET', 'PUT']
        until = 'first_byte'
    ";
    let half = Percent::HALF;
    let percent = |it| Percent::new(it).unwrap();
    let breaker = BreakerConfig::default()
        .window(Window::Count(100))
        .min_samples(10)
        .or_failure_rate(Percent::hundredths(25).unwrap())
        .or_consecutive(7)
        .or_slow_calls(2 * SECOND, percent(60))
        .max_probes(2)
        .close_unless(half, 4)
        .half_open_max_wait(20 * SECOND)
        .open_for(3 * SECOND)
        .open_growth(1.5, 60 * SECOND)
        .or_sustained(4 * SECOND, 2)
        .without_open_jitter()
        .max_retry_after(Duration::ZERO);
    let budget = BudgetConfig::default().size(50).deposit(0.2).trickle(1.0).retry_deposit(0.5);
    let header = |it| http::HeaderName::from_static(it);
    let config = ResilientConfig::aresilient()
        .to_builder()
        .max_retries(2)
        .backoff(reqwest_resilient::Fibonacci::new(SECOND).max_delay(8 * SECOND))
        .jitter(Jitter::Proportional(0.25))
        .retry_statuses([StatusCode::INTERNAL_SERVER_ERROR])
        .retry_methods(RetryMethods::Only(vec![http::Method::GET, http::Method::POST]))
        .attempt_timeout(5 * SECOND)
        .max_total_time(60 * SECOND)
        .max_wait_time(10 * SECOND)
        .retry_after(reqwest_resilient::RetryAfter::Floor)
        .hint_headers(
            reqwest_resilient::HintHeaders::default()
                .with_format(header("x-backoff"), reqwest_resilient::HintFormat::Millis)
                .without(header("retry-after")),
        )
        .read_body(1024)
        .stall_timeout(20 * SECOND)
        .min_speed(1_000, 15 * SECOND)
        .idempotency_key(
            reqwest_resilient::IdempotencyKey::random()
                .header(header("x-key"))
                .format(reqwest_resilient::KeyFormat::Raw),
        )
        .deadline_header(reqwest_resilient::DeadlineHeader::millis(header("x-left-ms")))
        .attempt_header(header("x-attempt"))
        .gate()
        .mirrors(
            reqwest_resilient::Mirrors::new("https://a.example/x/")
                .also("https://b.example")
                .spread()
                .sticky(60 * SECOND)
                .secret_header(header("x-key")),
        )
        .circuit_breaker(breaker)
        .max_hosts(9)
        .hedge(
            reqwest_resilient::Hedge::learned(0.9)
                .or_after(Duration::from_millis(40))
                .max_hedges(2)
                .share(0.2)
                .methods([http::Method::GET, http::Method::PUT])
                .until_first_byte(),
        )
        .retry_budget(RetryBudget::shared(budget))
        .build()
        .unwrap();
    assert_eq!(format!("{:#?}", read(text)), format!("{config:#?}"));
}

#[test]
fn hedges_are_switched_and_set_by_files_too() {
    let shown = |text: &str| format!("{:?}", read(text));
    for (text, hedge) in [
        ("", "hedge: None"),
        (
            "hedge = true",
            "hedge: Some(Hedge { quantile: 0.95, or_after: None, max_hedges: 1, share: 0.06,",
        ),
        ("hedge = false", "hedge: None"),
        (
            "hedge = { after = '30ms' }",
            "hedge: Some(Hedge { after: 30ms, max_hedges: 1, share: 0.06,",
        ),
        (
            "hedge = { quantile = 0.99 }",
            "quantile: 0.99, or_after: None, max_hedges: 1, share: 0.012,",
        ),
    ] {
        assert!(shown(text).contains(hedge), "{text}: {}", shown(text));
    }
    let of_host = shown(
        "hedge = { after = '30ms' }\nhosts.a.hedge = { max_hedges = 3 }\nhosts.b.hedge = false",
    );
    assert!(of_host.contains("after: 30ms, max_hedges: 3"), "{of_host}");
    for (text, fault) in [
        (
            "hedge = { after = '0s' }",
            "hedge.after must be a duration above zero such as \"300ms\", got \"0s\"",
        ),
        ("hedge = { after = '1s', quantile = 0.9 }", "hedge.quantile excludes after, got \"both\""),
        (
            "hedge = { after = '1s', or_after = '2s' }",
            "hedge.or_after excludes after, got \"both\"",
        ),
        (
            "hedge.after = '1s'
            hosts.'a.example'.hedge.or_after = '2s'",
            "hosts.\"a.example\".hedge.or_after excludes after, got 2s",
        ),
        ("hedge.max_hedges = 5", "hedge.max_hedges must be a whole number from 1 to 4, got 5"),
        ("hedge.quantile = 1.5", "hedge.quantile must be a number from 0.5 to 0.999, got 1.5"),
    ] {
        assert_eq!(faults(text), [fault], "{text}");
    }
}

#[test]
fn a_file_changes_a_hedge_and_keeps_its_code() {
    let client = reqwest_middleware::ClientBuilder::new(crate::support::idle_client());
    let other = reqwest_resilient::testing::Script::new([Reply::status(200)]);
    let through = client.with(other.clone()).build();
    let hedge = reqwest_resilient::Hedge::learned(0.95).through(through);
    let base = ResilientConfig::builder().hedge(hedge).build().unwrap();
    let raw: RawConfig = toml::from_str("hedge.after = '10ms'").unwrap();
    let config = raw.over_config(&base).unwrap();
    crate::support::in_virtual_time(async {
        let slow = Reply::status(200).after(SECOND);
        let (client, script) = scripted(config, [slow]);
        client.get(URL).send().await.unwrap();
        assert_eq!((script.sent().len(), other.sent().len()), (1, 1));
    });
}

#[test]
fn a_file_can_switch_off_what_the_builder_can() {
    let text = "
        backoff.max_delay = false
        jitter = 'decorrelated'
        backoff.factor = 1.5
        retry_methods = 'idempotent'
        attempt_timeout = false
        max_total_time = false
        retry_after = { capped = '9s' }
        read_body = false
        stall_timeout = false
        min_speed = 'off'
        idempotency_key = true
        deadline_header = 'grpc-timeout'
        gate = false
        hosts.a.idempotency_key = false
        [hint_headers]
        x-veto = 'veto'
        [circuit_breaker]
        open_jitter = 30
        open_growth = false
        sustained = false
        consecutive = false
        slow_calls = false
        failure_rate = 40
        close_after = 3
    ";
    let breaker = BreakerConfig::default()
        .open_jitter(Percent::new(30).unwrap())
        .without_open_growth()
        .without_sustained()
        .or_failure_rate(Percent::new(40).unwrap())
        .close_after(3);
    let veto = http::HeaderName::from_static("x-veto");
    let hints = reqwest_resilient::HintHeaders::default()
        .with_format(veto, reqwest_resilient::HintFormat::Veto);
    let config = ResilientConfig::builder()
        .backoff(reqwest_resilient::Exponential::new(Duration::from_millis(300)).factor(1.5))
        .jitter(Jitter::Decorrelated)
        .retry_methods(RetryMethods::Idempotent)
        .without_attempt_timeout()
        .without_max_total_time()
        .retry_after(reqwest_resilient::RetryAfter::Capped(9 * SECOND))
        .hint_headers(hints)
        .without_read_body()
        .without_stall_timeout()
        .without_min_speed()
        .idempotency_key(reqwest_resilient::IdempotencyKey::random())
        .deadline_header(reqwest_resilient::DeadlineHeader::grpc_timeout())
        .without_gate()
        .circuit_breaker(CircuitBreakers::per_host(breaker))
        .host("a", RetryOverride::new().without_idempotency_key())
        .build()
        .unwrap();
    assert_eq!(format!("{:#?}", read(text)), format!("{config:#?}"));
}

#[test]
fn yaml_may_be_odd() {
    let build = |yaml: &str| serde_norway::from_str::<RawConfig>(yaml).unwrap().build();
    for (yaml, expected) in [
        ("7: x", "7 is not a setting, got …"),
        ("max_retries: null", "max_retries must be a whole number from 0 to 4294967295, got null"),
        ("max_retries: -1", "max_retries must be a whole number from 0 to 4294967295, got -1"),
    ] {
        assert_eq!(build(yaml).unwrap_err().to_string(), expected);
    }
    assert!(build("{}").is_ok());
}

#[test]
fn every_example_file_parses() {
    let folder = root("examples/config");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        if let Err(error) = toml::from_str::<ResilientConfig>(&text) {
            panic!("{}: {error}", file.display());
        }
    }
}

#[cfg(feature = "schemars")]
#[test]
fn the_schema_in_the_repository_is_current() {
    let schema = schemars::schema_for!(ResilientConfig).to_value();
    let path = root("docs/config.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
    let committed: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(
        committed == schema,
        "docs/config.schema.json is not what the code says; write it anew with\n\
         UPDATE_SCHEMA=1 cargo test --all-features --test it schema"
    );
}
