//! Keys of one table that meet each other, and what a table inherits: no order of keys matters, and
//! no value is to blame that was not written.

use std::time::Duration;

use reqwest_resilient::file::RawConfig;
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{
    BreakerConfig, CircuitBreakers, ConcurrencyLimit, Exponential, HintFormat, HintHeaders,
    IdempotencyKey, Jitter, KeyFormat, Limit, Mirrors, ResilientConfig, ResilientConfigBuilder,
    RetryOverride,
};

use super::{SECOND, course, faults};

fn builder() -> ResilientConfigBuilder {
    ResilientConfig::builder()
}

fn shown(config: &ResilientConfig) -> String {
    format!("{config:#?}")
}

/// Returns the files in TOML and JSON that hold these lines in this table, in both orders. A value
/// has the same spelling in both formats.
fn files(table: &str, lines: [(&str, &str); 2]) -> Vec<RawConfig> {
    let [one, other] = lines;
    [[one, other], [other, one]]
        .into_iter()
        .flat_map(|lines| {
            let toml = lines.map(|(key, value)| format!("{key} = {value}")).join("\n");
            let json = lines.map(|(key, value)| format!("{key:?}: {value}")).join(", ");
            [
                toml::from_str(&format!("[{table}]\n{toml}")).unwrap(),
                serde_json::from_str(&format!("{{{table:?}: {{{json}}}}}")).unwrap(),
            ]
        })
        .collect()
}

#[test]
fn off_ends_the_rule_on_failures_in_a_row_of_its_own_name_alone() {
    let three = || 3.try_into().unwrap();
    let always = BreakerConfig::default().or_consecutive(three());
    let while_few = BreakerConfig::default().or_consecutive_while_few(three());
    for (kept, ended, config) in [
        ("consecutive", "consecutive_while_few", always),
        ("consecutive_while_few", "consecutive", while_few),
    ] {
        let breaker = || CircuitBreakers::per_host(config.clone());
        let expected = shown(&builder().circuit_breaker(breaker()).build().unwrap());
        for file in files("circuit_breaker", [(kept, "3"), (ended, "false")]) {
            assert_eq!(shown(&file.build().unwrap()), expected, "{file:?}");
        }
        let of_host = |own: BreakerConfig| {
            let own = RetryOverride::new().circuit_breaker(CircuitBreakers::per_host(own));
            shown(&builder().circuit_breaker(breaker()).host("a", own).build().unwrap())
        };
        for (key, own) in [(ended, config.clone()), (kept, BreakerConfig::default())] {
            let text = format!("circuit_breaker.{kept} = 3\nhosts.a.circuit_breaker.{key} = 'off'");
            assert_eq!(shown(&super::read(&text)), of_host(own), "{text}");
        }
    }
}

#[test]
fn the_order_of_a_concurrency_limit_s_keys_does_not_matter() {
    let expected = |limit| shown(&builder().concurrency_limit(limit).build().unwrap());
    for (keys, limit) in [
        ([("limit", "\"adaptive\""), ("max", "10")], Limit::adaptive().start(10).max(10)),
        ([("limit", "\"adaptive\""), ("min", "50")], Limit::adaptive().start(50).min(50)),
        ([("limit", "\"adaptive\""), ("max", "100")], Limit::adaptive().max(100)),
        ([("start", "5"), ("max", "10")], Limit::adaptive().start(5).max(10)),
    ] {
        for file in files("concurrency_limit", keys) {
            let limit = ConcurrencyLimit::per_host(limit);
            assert_eq!(shown(&file.build().unwrap()), expected(limit), "{file:?}");
        }
    }
    let ten = ConcurrencyLimit::per_host(Limit::adaptive().start(10).max(10));
    let of_host = RetryOverride::new().concurrency_limit(ten);
    let fixed = builder().concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(5)));
    let expected = shown(&fixed.host("a", of_host).build().unwrap());
    for keys in [r#""max": 10, "limit": "adaptive""#, r#""limit": "adaptive", "max": 10"#] {
        let host = format!(r#""hosts": {{"a": {{"concurrency_limit": {{{keys}}}}}}}"#);
        let json = format!(r#"{{"concurrency_limit": 5, {host}}}"#);
        let config: ResilientConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(shown(&config), expected, "{json}");
    }
}

#[test]
fn bounds_without_a_meaning_are_mistakes() {
    let field = "concurrency_limit";
    for (text, expected) in [
        (
            "concurrency_limit = { limit = 5, max = 10 }",
            vec![format!("{field}.max needs an adaptive limit, got 10")],
        ),
        (
            "concurrency_limit = 5\nhosts.a.concurrency_limit = { min = 2, start = 3 }",
            vec![
                format!("hosts.\"a\".{field}.min needs an adaptive limit, got 2"),
                format!("hosts.\"a\".{field}.start needs an adaptive limit, got 3"),
            ],
        ),
        (
            "concurrency_limit = { start = 30, max = 10 }",
            vec![format!("{field}.start must be from min (1) to max (10), got 30")],
        ),
        (
            "concurrency_limit = { min = 30, max = 10 }",
            vec![format!("{field}.start must be from min (30) to max (10), got 20")],
        ),
    ] {
        let mut faults = faults(text);
        faults.sort();
        assert_eq!(faults, expected, "{text}");
    }
}

#[test]
fn a_table_of_headers_a_key_and_mirrors_keep_what_they_do_not_name() {
    let name = http::HeaderName::from_static;
    let mirrors = |of: &str| Mirrors::instead_of(of).also("https://b.example/");
    let general = IdempotencyKey::random().header(name("x-key"));
    let base = builder()
        .hint_headers(HintHeaders::default().with(name("x-code")).without(name("retry-after")))
        .idempotency_key(general.clone())
        .mirrors([mirrors("https://a.example/"), mirrors("https://c.example/")])
        .build()
        .unwrap();
    let file: RawConfig = toml::from_str(
        "hint_headers.x-file = 'veto'
         idempotency_key.format = 'raw'
         mirrors.'https://a.example' = { endpoints = ['https://d.example/'] }
         [hosts.a]
         hint_headers.x-host = true
         idempotency_key.format = 'quoted'
         mirrors.'https://e.example' = { endpoints = ['https://b.example/'] }
         [hosts.b]
         hint_headers = false
         idempotency_key = true
         mirrors = false",
    )
    .unwrap();
    let hints = HintHeaders::default()
        .with(name("x-code"))
        .without(name("retry-after"))
        .with_format(name("x-file"), HintFormat::Veto);
    let sets = || {
        let own = Mirrors::instead_of("https://a.example/").also("https://d.example/");
        [own, mirrors("https://c.example/")]
    };
    let of_a = RetryOverride::new()
        .hint_headers(hints.clone().with(name("x-host")))
        .idempotency_key(general.clone())
        .mirrors([mirrors("https://e.example/")].into_iter().chain(sets()).collect::<Vec<_>>());
    let raw = || general.clone().format(KeyFormat::Raw);
    let of_b = RetryOverride::new()
        .hint_headers(HintHeaders::none())
        .idempotency_key(raw())
        .without_mirrors();
    let expected = builder()
        .hint_headers(hints)
        .idempotency_key(raw())
        .mirrors(sets())
        .host("a", of_a)
        .host("b", of_b)
        .build()
        .unwrap();
    assert_eq!(shown(&file.over_config(&base).unwrap()), shown(&expected));
}

#[test]
fn a_general_limit_shortens_what_a_config_says_of_its_hosts() {
    let own = || {
        let backoff = Exponential::new(SECOND).max_delay(9 * SECOND);
        RetryOverride::new().attempt_timeout(9 * SECOND).backoff(backoff)
    };
    let base = builder()
        .host("a", own())
        .host("b", own().max_total_time(30 * SECOND).max_wait_time(20 * SECOND))
        .build()
        .unwrap();
    let limited = base.to_builder().max_total_time(4 * SECOND).max_wait_time(3 * SECOND);
    let limited = limited.build().unwrap();
    let text = shown(&limited);
    let count = |config: &ResilientConfig, timeout: &str| {
        format!("{config:?}").matches(&format!("attempt_timeout: Some(Some({timeout}))")).count()
    };
    assert_eq!((count(&limited, "4s"), count(&limited, "9s")), (1, 1), "{text}");
    // What was shortened stays so, and what is set anew is judged.
    assert!(limited.to_builder().max_retries(1).build().is_ok());
    let raw = |text: &str| toml::from_str::<RawConfig>(text).unwrap();
    let limits = "max_total_time = '4s'\nmax_wait_time = '3s'";
    assert_eq!(shown(&raw(limits).over_config(&base).unwrap()), text);
    assert!(raw(&format!("{limits}\nhosts.a.max_retries = 1")).over_config(&base).is_ok());
    // A limit of the host's own, in the file too, counts in place of the general one.
    for (own, timeout, times) in [("'30s'", "9s", 2), ("false", "9s", 2), ("'3s'", "3s", 1)] {
        let file = format!("{limits}\nhosts.a.max_total_time = {own}");
        let limited = raw(&file).over_config(&base).unwrap();
        assert_eq!(count(&limited, timeout), times, "{own}: {limited:?}");
    }
    assert!(raw("hosts.b.max_wait_time = '3s'").over_config(&base).is_ok());
    for (host, fault) in [
        ("attempt_timeout = '9s'", "hosts.\"a\".attempt_timeout must not be longer"),
        ("backoff.max_delay = '9s'", "hosts.\"a\".backoff.max_delay must not be longer"),
    ] {
        let error = raw(&format!("{limits}\nhosts.a.{host}")).over_config(&base).unwrap_err();
        assert!(error.to_string().starts_with(fault), "{error}");
        assert_eq!(error.faults().len(), 1, "{error}");
    }
    let anew = base.to_builder().max_total_time(4 * SECOND).host("a", own());
    let error = anew.build().unwrap_err().to_string();
    assert!(error.starts_with("hosts.\"a\".attempt_timeout must not be longer"), "{error}");
}

/// A variable has no capitals left, a file may have them.
#[test]
fn a_name_in_two_spellings_is_one_name_of_two_sources() {
    let file = "hosts.'API.example.com' = { max_retries = 1, hint_headers.X-Other = true }
                hint_headers = { X-Wait = true, x-zed = 'wait' }
                [mirrors.'https://a.example']
                endpoints = ['https://b.example/']";
    let upper = "hosts.'api.example.com.' = { gate = false, hint_headers.x-other = 'veto' }
                 hint_headers.x-wait = 'millis'
                 mirrors.'https://A.example/'.strict = true";
    let raw = |text: &str| toml::from_str::<RawConfig>(text).unwrap();
    let expected = "hint_headers = { x-wait = 'millis', x-zed = 'wait' }
                    mirrors.'https://a.example' = { endpoints = ['https://b.example'], strict = true }
                    [hosts.'api.example.com']
                    max_retries = 1
                    gate = false
                    hint_headers.x-other = 'veto'";
    let merged = raw(upper).over(raw(file)).build().unwrap();
    assert_eq!(shown(&merged), shown(&raw(expected).build().unwrap()));

    let vars = [("P_HOSTS__API.EXAMPLE.COM__GATE", "off")];
    let gate = RawConfig::from_env("P_", vars).over(raw(file)).build();
    assert!(gate.is_ok(), "{gate:?}");

    let twice = "hosts.'API.example.com'.gate = true\nhosts.'api.example.com'.gate = false";
    for upper in [upper, "hosts.'api.example.com'.max_retries = 1"] {
        let error = raw(upper).over(raw(twice)).build().unwrap_err().to_string();
        assert!(error.contains("is given twice"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cap_that_is_inherited_fits_the_delay_and_the_longest_wait() {
    let quiet = "jitter = 'none'\nretry_budget = false\ncircuit_breaker = false\n";
    let ms = Duration::from_millis;
    for (text, retries, waits) in [
        ("max_wait_time = '1s'\n[backoff]\ndelay = '400ms'", 3, ms(400 + 800 + 1_000)),
        (
            "max_wait_time = '1s'\n[hosts.'api.example.com'.backoff]\ndelay = '400ms'",
            3,
            ms(400 + 800 + 1_000),
        ),
        (
            "[hosts.'api.example.com']\nmax_wait_time = '1s'\nbackoff.delay = '400ms'",
            3,
            ms(400 + 800 + 1_000),
        ),
        (
            "backoff.max_delay = '5s'\n[hosts.'api.example.com']\nmax_wait_time = '1s'
             backoff.delay = '400ms'",
            3,
            ms(400 + 800 + 1_000),
        ),
        ("[backoff]\ndelay = '30s'", 2, 60 * SECOND),
        ("[backoff]\nkind = 'linear'\ndelay = '8s'", 3, (8 + 16 + 20) * SECOND),
        ("max_wait_time = '5s'\n[backoff]\ndelay = '30s'", 2, 10 * SECOND),
        ("max_wait_time = '5s'\n[backoff]\ndelay = '5s'", 2, 10 * SECOND),
        ("max_wait_time = '2m'\n[backoff]\ndelay = '10s'", 3, (10 + 20 + 20) * SECOND),
    ] {
        let config = super::read(&format!("{quiet}max_retries = {retries}\n{text}"));
        let course = course(config, super::URL, Reply::status(503)).await;
        assert_eq!(course, (retries + 1, waits), "{text}");
    }
    // A cap that was written is not changed.
    for (text, expected) in [
        (
            "max_wait_time = '5s'\n[backoff]\nmax_delay = '20s'",
            "backoff.max_delay must not be longer than max_wait_time (5s), got 20s",
        ),
        (
            "[backoff]\ndelay = '30s'\nmax_delay = '20s'",
            "backoff.max_delay must not be shorter than the first delay (30s), got 20s",
        ),
    ] {
        assert_eq!(faults(text), [expected], "{text}");
    }
}

#[test]
fn a_cap_of_the_program_is_inherited_as_that_of_the_defaults() {
    let base = builder()
        .backoff(Exponential::new(SECOND).max_delay(10 * SECOND))
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let file: RawConfig = toml::from_str("max_wait_time = '4s'\nbackoff.factor = 3").unwrap();
    let expected = builder()
        .backoff(Exponential::new(SECOND).factor(3.0).max_delay(4 * SECOND))
        .max_wait_time(4 * SECOND)
        .jitter(Jitter::None)
        .build()
        .unwrap();
    assert_eq!(shown(&file.over_config(&base).unwrap()), shown(&expected));
}
