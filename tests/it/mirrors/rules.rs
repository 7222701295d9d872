//! The rules, one after another, at scripted endpoints in virtual time.

use std::sync::{Arc, Mutex};
use std::{io, time::Duration};

use http::{HeaderValue, StatusCode, header};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BudgetConfig, Event, HostStates, IdempotencyKey, Limit, Mirrors,
    Rate, RequestBuilderExt, Resilient, ResilientConfig, ResilientConfigBuilder, ResponseExt,
    RetryOverride, StopReason, WaitSource,
};
use tokio::time::Instant;

use crate::support::{idle_client, steady};

const SECOND: Duration = Duration::from_secs(1);
const OWN: &str = "https://a.example/base/x%2Fy?q=%20&r";

/// Three endpoints, the first of which is that of the requests.
fn three() -> Mirrors {
    Mirrors::new("https://a.example/base/")
        .also("https://b.example/")
        .also("http://c.example:8080/deep/er")
}

fn two() -> Mirrors {
    Mirrors::new("https://a.example/base/").also("https://b.example/")
}

struct Client {
    client: ClientWithMiddleware,
    script: Script,
    hosts: HostStates,
}

impl Client {
    fn new(config: ResilientConfigBuilder, script: Script) -> Self {
        let hosts = HostStates::new();
        let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
        let client = reqwest_middleware::ClientBuilder::new(idle_client())
            .with(resilient)
            .with(script.clone())
            .build();
        Self { client, script, hosts }
    }

    /// The hosts that were asked, in order.
    fn asked(&self) -> String {
        let host = |it: &reqwest_resilient::testing::SentRequest| {
            it.url.host_str().unwrap().trim_end_matches(".example").to_owned()
        };
        self.script.sent().iter().map(host).collect()
    }

    async fn status(&self) -> u16 {
        self.client.get(OWN).send().await.unwrap().status().as_u16()
    }
}

/// A script in which these hosts always reply with these statuses.
fn statuses<const N: usize>(hosts: [(&str, u16); N]) -> Script {
    hosts.into_iter().fold(Script::new([]), |script, (host, status)| {
        script.for_host(format!("{host}.example"), [Reply::status(status)])
    })
}

/// A script in which these hosts reply with these statuses in turn, and with the last for ever.
fn in_turn<const N: usize>(hosts: [(&str, &[u16]); N]) -> Script {
    hosts.into_iter().fold(Script::new([]), |script, (host, statuses)| {
        script.for_host(format!("{host}.example"), statuses.iter().map(|it| Reply::status(*it)))
    })
}

/// A budget of one retry for all time.
fn of_one() -> BudgetConfig {
    BudgetConfig::default().size(1).trickle(0.0).deposit(0.0).retry_deposit(0.0)
}

fn breaker() -> BreakerConfig {
    BreakerConfig::consecutive(1).open_for(5 * SECOND).without_open_jitter()
}

#[tokio::test(start_paused = true)]
async fn rule_1_urls_are_rewritten_to_the_byte() {
    let client =
        Client::new(steady().mirrors(three()), statuses([("a", 503), ("b", 503), ("c", 200)]));
    let response = client.client.get(OWN).send().await.unwrap();
    let urls: Vec<_> = client.script.sent().iter().map(|it| it.url.to_string()).collect();
    assert_eq!(
        urls,
        [
            "https://a.example/base/x%2Fy?q=%20&r",
            "https://b.example/x%2Fy?q=%20&r",
            "http://c.example:8080/deep/er/x%2Fy?q=%20&r",
        ]
    );
    assert_eq!(response.endpoint().unwrap().as_str(), "http://c.example:8080/deep/er");
    // Requests that are not under the base stay.
    for url in ["https://a.example/basement/x", "https://d.example/base/x"] {
        client.client.get(url).send().await.unwrap();
        assert_eq!(client.script.sent().last().unwrap().url.as_str(), url);
    }
}

/// Requests wait for a permit or a slot of an endpoint that goes down meanwhile.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_goes_down_while_requests_queue_for_it_is_left() {
    let down = || Reply::status(503).after(SECOND / 10);
    let hint = HeaderValue::from_static("30");
    let closes = || Reply::status(429).header(header::RETRY_AFTER, hint.clone()).after(SECOND / 10);
    let config = || steady().mirrors(three()).max_retries(0);
    let of_breaker = || config().circuit_breaker(breaker());
    let with_permits = |it: ResilientConfigBuilder| it.concurrency_limit(Limit::fixed(1));
    let with_slots = |it: ResilientConfigBuilder| it.rate_limit(Rate::per_second(4));
    for (config, reply, status) in [
        (with_permits(of_breaker()), down(), 503),
        (with_slots(of_breaker()), down(), 503),
        (with_permits(config().gate()), closes(), 429),
        (with_slots(config().gate()), closes(), 429),
    ] {
        let client = Client::new(config, Script::new([]).for_host("a.example", [reply.clone()]));
        let queued = async {
            tokio::time::sleep(SECOND / 100).await;
            client.status().await
        };
        let (first, queued) = futures_util::future::join(client.status(), queued).await;
        assert_eq!((first, queued, client.asked().as_str()), (status, 200, "ab"));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_1_the_own_base_is_asked_only_if_it_is_listed() {
    let mirrors = || Mirrors::instead_of("https://a.example/base").also("https://b.example/");
    let client = Client::new(steady().mirrors(mirrors()), statuses([("a", 200), ("b", 503)]));
    assert_eq!((client.status().await, client.asked().as_str()), (503, "bbbb"));
    let listed = mirrors().also("https://a.example/base");
    let client = Client::new(steady().mirrors(listed), statuses([("a", 200), ("b", 503)]));
    assert_eq!((client.status().await, client.asked().as_str()), (200, "ba"));
}

#[tokio::test(start_paused = true)]
async fn rule_1_the_longest_base_wins() {
    let sets = [
        Mirrors::instead_of("https://a.example/").also("https://b.example/"),
        Mirrors::instead_of("https://a.example/base").also("https://c.example/"),
    ];
    let client = Client::new(steady().mirrors(sets), Script::new([]));
    client.status().await;
    client.client.get("https://a.example/other").send().await.unwrap();
    assert_eq!(client.asked(), "cb");
}

#[tokio::test(start_paused = true)]
async fn rule_2_breaker_and_budget_are_those_of_the_host_that_is_asked() {
    let config = ResilientConfig::builder().circuit_breaker(breaker()).mirrors(three());
    let client = Client::new(config, statuses([("a", 503), ("b", 503), ("c", 200)]));
    assert_eq!(client.status().await, 200);
    for (host, state) in [
        ("https://a.example", "open"),
        ("https://b.example", "open"),
        ("http://c.example:8080", "closed"),
    ] {
        assert_eq!(client.hosts.breaker(host).state().as_str(), state, "{host}");
    }
    // Neither is asked while its breaker is open, and nothing waits for it.
    let start = Instant::now();
    assert_eq!(client.status().await, 200);
    assert_eq!((client.asked().as_str(), start.elapsed()), ("abcc", Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn rule_4_failover_is_at_once_and_backoff_comes_after_a_round() {
    let client = Client::new(
        steady().mirrors(three()).max_retries(6),
        statuses([("a", 503), ("b", 503), ("c", 503)]),
    );
    let log = AttemptLog::new();
    let start = Instant::now();
    client.client.get(OWN).with_extension(log.clone()).send().await.unwrap();
    assert_eq!((client.asked().as_str(), start.elapsed()), ("abcabca", 2 * SECOND));
    let history = log.history();
    let waits: Vec<_> = history.attempts().iter().map(|it| it.wait.clone()).collect();
    let (over, back) =
        (Some((Duration::ZERO, WaitSource::Failover)), Some((SECOND, WaitSource::Backoff)));
    assert_eq!(waits, [over.clone(), over.clone(), back.clone(), over.clone(), over, back, None]);
    let hosts: Vec<_> = history.attempts().iter().map(|it| it.host.as_deref()).collect();
    let (b, c) = (Some("b.example"), Some("c.example:8080"));
    assert_eq!(hosts, [None, b, c, None, b, c, None]);
    assert_eq!(history.stop_reason(), Some(StopReason::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn rule_4_the_backoff_grows_by_rounds() {
    let config = steady()
        .backoff(reqwest_resilient::Exponential::new(SECOND))
        .mirrors(Mirrors::new("https://a.example/base").also("https://b.example"))
        .max_retries(5);
    let client = Client::new(config, statuses([("a", 503), ("b", 503)]));
    let start = Instant::now();
    client.status().await;
    assert_eq!((client.asked().as_str(), start.elapsed()), ("ababab", 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn rule_4_sends_are_bounded_by_retries() {
    for retries in 0..4 {
        let client = Client::new(
            steady().mirrors(three()).max_retries(retries),
            statuses([("a", 503), ("b", 503), ("c", 503)]),
        );
        client.status().await;
        assert_eq!(client.asked().len(), retries as usize + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_4_the_budget_of_the_next_host_pays() {
    let budget = BudgetConfig::default().size(1).trickle(0.0).deposit(0.0);
    let config = steady()
        .retry_budget(budget.retry_deposit(0.0))
        .max_open_wait(Duration::ZERO)
        .mirrors(Mirrors::new("https://a.example/base").also("https://b.example"));
    let client = Client::new(config, statuses([("a", 503), ("b", 200)]));
    assert_eq!(client.status().await, 200, "paid by b");
    assert_eq!(client.status().await, 503, "b has nothing left");
    assert_eq!(client.asked(), "aba");
}

/// It is held to the end of the response's body.
#[tokio::test(start_paused = true)]
async fn rule_4_a_refused_failover_leaves_the_permit_with_the_response() {
    let config = steady().mirrors(two()).max_open_wait(Duration::ZERO);
    let config = config.retry_budget(of_one()).concurrency_limit(Limit::fixed(1));
    let script = statuses([("b", 200)]);
    let client = Client::new(config, script.for_host("a.example", [Reply::status(503).body("no")]));
    assert_eq!(client.status().await, 200);
    let response = client.client.get(OWN).send().await.unwrap();
    assert_eq!((response.status().as_u16(), client.asked().as_str()), (503, "aba"));
    let in_flight = || client.hosts.limit_use("https://a.example").unwrap().in_flight;
    assert_eq!(in_flight(), 1);
    drop(response);
    assert_eq!(in_flight(), 0);
}

/// Two of three are down, and the budget of the second one is soon empty: the third is asked, and no
/// request fails or waits.
#[tokio::test(start_paused = true)]
async fn rule_4_an_empty_budget_is_passed_over() {
    let config = ResilientConfig::builder().without_circuit_breaker().mirrors(three());
    let client = Client::new(config, statuses([("a", 503), ("b", 503), ("c", 200)]));
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(client.status().await, 200);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(client.asked().ends_with("acacac"), "{}", client.asked());
}

/// In another round, too: the second request asks `a` and `b`, and finds no token for `a`.
#[tokio::test(start_paused = true)]
async fn rule_4_an_empty_budget_is_passed_over_in_another_round() {
    let config = steady().mirrors(two()).max_retries(2).max_open_wait(Duration::ZERO);
    let config = config.host("a.example", RetryOverride::new().retry_budget(of_one()));
    let client = Client::new(config, in_turn([("a", &[503]), ("b", &[503, 503, 200])]));
    assert_eq!((client.status().await, client.asked().as_str()), (503, "aba"));
    assert_eq!((client.status().await, client.asked().as_str()), (200, "abaabb"));
}

/// A connection that is always stale uses up the budget of its server; then the next one is asked.
#[tokio::test(start_paused = true)]
async fn rule_4_stale_connections_do_not_use_up_the_request() {
    let stale = crate::support::fault::early_eof;
    let script = Script::new([])
        .for_host("a.example", [Reply::error(move || reqwest_middleware::Error::Reqwest(stale()))]);
    let config = ResilientConfig::builder().without_circuit_breaker().mirrors(three());
    let client = Client::new(config, script);
    let start = Instant::now();
    for _ in 0..30 {
        assert_eq!(client.status().await, 200);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn rule_5_hints_close_the_gate_of_one_host_only() {
    for status in [429, 503] {
        let hour = HeaderValue::from_static("3600");
        let limited = Reply::status(status).header(header::RETRY_AFTER, hour);
        let script = Script::new([]).for_host("a.example", [limited]);
        let client = Client::new(steady().gate().mirrors(three()), script);
        let start = Instant::now();
        assert_eq!((client.status().await, client.status().await), (200, 200));
        assert_eq!((client.asked().as_str(), start.elapsed()), ("abb", Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_round_of_rate_limits_waits_for_the_first_gate() {
    let limited = |seconds| {
        let seconds = HeaderValue::from_static(seconds);
        [Reply::status(429).header(header::RETRY_AFTER, seconds), Reply::status(200)]
    };
    let script = Script::new([])
        .for_host("a.example", limited("30"))
        .for_host("b.example", limited("3"))
        .for_host("c.example", limited("10"));
    let client = Client::new(steady().gate().mirrors(three()), script);
    let start = Instant::now();
    assert_eq!(client.status().await, 200);
    assert_eq!(client.asked(), "abcb");
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn rule_5_every_method_fails_over_if_nothing_was_sent() {
    let refused = Reply::io_error(io::ErrorKind::ConnectionRefused);
    let script = Script::new([]).for_host("a.example", [refused]);
    let client = Client::new(steady().mirrors(three()), script);
    let response = client.client.post(OWN).body("once").send().await.unwrap();
    assert_eq!((response.status(), client.asked().as_str()), (StatusCode::OK, "ab"));
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_404_asks_the_next_and_the_first_of_all_is_the_response() {
    let missing = |host: &str| Reply::status(404).body(host.to_owned());
    let script = || {
        Script::new([])
            .for_host("a.example", [missing("a")])
            .for_host("b.example", [Reply::status(410)])
    };
    let found = Client::new(steady().mirrors(three()), script());
    assert_eq!((found.status().await, found.asked().as_str()), (200, "abc"));

    let script = script().for_host("c.example", [missing("c")]);
    let client = Client::new(steady().mirrors(three()), script.clone());
    let start = Instant::now();
    let response = client.client.get(OWN).send().await.unwrap();
    assert_eq!(response.endpoint().unwrap().as_str(), "https://a.example/base/");
    assert_eq!((response.status(), client.asked().as_str()), (StatusCode::NOT_FOUND, "abc"));
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Final));
    assert_eq!(response.text().await.unwrap(), "a", "its body is unread");
    assert_eq!(start.elapsed(), Duration::ZERO);

    let strict = Client::new(steady().mirrors(three().strict()), script);
    assert_eq!((strict.status().await, strict.asked().as_str()), (404, "abca"));
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_404_is_neutral_and_costs_no_token() {
    let budget = BudgetConfig::default().size(1).trickle(0.0);
    let config =
        ResilientConfig::builder().circuit_breaker(breaker()).retry_budget(budget).mirrors(three());
    let client = Client::new(config, statuses([("a", 404), ("b", 404), ("c", 404)]));
    for _ in 0..50 {
        assert_eq!(client.status().await, 404);
    }
    assert_eq!(client.asked(), "abc".repeat(50));
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_failure_does_not_hide_a_404() {
    let client = Client::new(
        steady().mirrors(three()).max_retries(4),
        statuses([("a", 404), ("b", 404), ("c", 503)]),
    );
    let response = client.client.get(OWN).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.endpoint().unwrap().as_str(), "https://a.example/base/");
    assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Exhausted));
    assert_eq!(client.asked(), "abccc", "what said 404 is not asked again");
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_404_does_not_hide_an_endpoint_that_failed_before() {
    let blip: &[u16] = &[503, 200];
    for (mirrors, script, expected) in [
        (two(), in_turn([("a", blip), ("b", &[404])]), (200, "aba")),
        (three(), in_turn([("a", blip), ("b", &[404]), ("c", &[410])]), (200, "abca")),
        (three(), in_turn([("a", &[404]), ("b", blip), ("c", &[404])]), (200, "abcb")),
        (three(), in_turn([("a", blip), ("b", &[503]), ("c", &[404])]), (200, "abca")),
        (two(), in_turn([("a", &[503, 404]), ("b", &[404])]), (404, "aba")),
    ] {
        let client = Client::new(steady().mirrors(mirrors), script);
        let start = Instant::now();
        assert_eq!((client.status().await, client.asked().as_str()), expected);
        assert_eq!(start.elapsed(), SECOND, "one backoff");
    }
    for random in [0.0, 0.99] {
        let config = steady().random(move || random).mirrors(two().spread());
        let client = Client::new(config, in_turn([("a", blip), ("b", &[404])]));
        assert_eq!(client.status().await, 200, "{}", client.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_6_if_an_endpoint_goes_on_failing_the_404_is_the_response() {
    use StopReason::{Exhausted, Final};

    for (retries, asked, stop) in [(3, "abaa", Exhausted), (2, "aba", Exhausted), (1, "ab", Final)]
    {
        let missing = Reply::status(404).body("not here");
        let script = statuses([("a", 503)]).for_host("b.example", [missing]);
        let client = Client::new(steady().mirrors(two()).max_retries(retries), script);
        let response = client.client.get(OWN).send().await.unwrap();
        assert_eq!((response.status(), client.asked().as_str()), (StatusCode::NOT_FOUND, asked));
        assert_eq!(response.endpoint().unwrap().as_str(), "https://b.example/");
        assert_eq!(response.history().unwrap().stop_reason(), Some(stop));
        assert_eq!(response.text().await.unwrap(), "not here", "its body is unread");
    }
}

/// It waits as it would if the 404 had come first: as long as settings say, or not at all.
#[tokio::test(start_paused = true)]
async fn rule_6_what_failed_before_a_404_is_waited_for_as_usual() {
    let hinted = |seconds| {
        let hint = HeaderValue::from_static(seconds);
        let replies = [Reply::status(503).header(header::RETRY_AFTER, hint), Reply::status(200)];
        statuses([("b", 404)]).for_host("a.example", replies)
    };
    let opens = |time| steady().circuit_breaker(BreakerConfig::consecutive(1).open_for(time));
    let blip = || in_turn([("a", &[503, 200]), ("b", &[404])]);
    for (name, config, script, expected) in [
        ("short gate", steady().gate(), hinted("3"), (200, "aba")),
        ("long gate", steady().gate(), hinted("600"), (404, "ab")),
        ("gate and deadline", steady().gate().max_total_time(2 * SECOND), hinted("3"), (404, "ab")),
        ("short open time", opens(SECOND), blip(), (200, "aba")),
        ("long open time", opens(600 * SECOND), blip(), (404, "ab")),
        ("deadline", steady().max_total_time(SECOND), blip(), (404, "ab")),
    ] {
        let client = Client::new(config.mirrors(two()), script);
        let start = Instant::now();
        let response = client.client.get(OWN).send().await.unwrap();
        let status = response.status().as_u16();
        assert_eq!((status, client.asked().as_str()), expected, "{name}");
        if status == 404 {
            assert_eq!(start.elapsed(), Duration::ZERO, "{name}");
            assert_eq!(
                response.history().unwrap().stop_reason(),
                Some(StopReason::Final),
                "{name}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_404_is_final_if_what_failed_may_not_be_asked_again() {
    let down = || statuses([("a", 503), ("b", 404)]);
    let strict = Client::new(steady().mirrors(two().strict()), down());
    assert_eq!((strict.status().await, strict.asked().as_str()), (404, "ab"));

    let client = Client::new(steady().mirrors(two()), down());
    let response = client.client.delete(OWN).send().await.unwrap();
    assert_eq!((response.status().as_u16(), client.asked().as_str()), (404, "ab"));

    // The second request has not asked `a`, as its breaker is open.
    let config = steady().mirrors(two()).circuit_breaker(breaker()).max_open_wait(60 * SECOND);
    let client = Client::new(config, in_turn([("a", &[503]), ("b", &[200, 404])]));
    assert_eq!((client.status().await, client.asked().as_str()), (200, "ab"));
    let start = Instant::now();
    assert_eq!((client.status().await, client.asked().as_str()), (404, "abb"));
    assert_eq!(start.elapsed(), Duration::ZERO);

    // The first request takes the only token of `a`, and no other waits for one.
    for wait in [Duration::ZERO, 60 * SECOND] {
        let config = steady().max_open_wait(wait).max_retries(2).mirrors(two());
        let config = config.host("a.example", RetryOverride::new().retry_budget(of_one()));
        let client = Client::new(config, down());
        assert_eq!((client.status().await, client.asked().as_str()), (404, "aba"));
        let start = Instant::now();
        let response = client.client.get(OWN).send().await.unwrap();
        assert_eq!((response.status().as_u16(), client.asked().as_str()), (404, "abaab"));
        assert_eq!(response.history().unwrap().stop_reason(), Some(StopReason::Final));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

/// The caller reads the 404 of one endpoint, and may take long; the other has nothing to do with it.
#[tokio::test(start_paused = true)]
async fn rule_6_a_404_that_was_kept_holds_no_permit_of_another_host() {
    let script =
        statuses([("b", 503)]).for_host("a.example", [Reply::status(404).body("not here")]);
    let config = steady().mirrors(two()).concurrency_limit(Limit::fixed(1)).max_retries(1);
    let client = Client::new(config, script);
    let response = client.client.get(OWN).send().await.unwrap();
    assert_eq!((response.status().as_u16(), client.asked().as_str()), (404, "ab"));
    assert_eq!(client.hosts.limit_use("https://b.example").unwrap().in_flight, 0);
    assert_eq!(response.text().await.unwrap(), "not here");
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_404_to_what_changes_something_is_final() {
    let client = Client::new(steady().mirrors(three()), statuses([("a", 404)]));
    let response = client.client.delete(OWN).send().await.unwrap();
    assert_eq!((response.status(), client.asked().as_str()), (StatusCode::NOT_FOUND, "a"));
}

#[tokio::test(start_paused = true)]
async fn rule_7_what_may_have_been_processed_stays() {
    let asked = async |mirrors: Mirrors, key: bool| {
        let reset = Reply::io_error(io::ErrorKind::ConnectionReset);
        let script = Script::new([]).for_host("a.example", [reset]);
        let mut config = steady().mirrors(mirrors);
        if key {
            config = config.idempotency_key(IdempotencyKey::random());
        }
        let client = Client::new(config, script);
        let _ = client.client.post(OWN).body("once").send().await;
        client.asked()
    };
    assert_eq!(asked(three(), false).await, "a");
    assert_eq!(asked(three(), true).await, "aaaa", "the others do not know the key");
    assert_eq!(asked(three().shared_idempotency(), true).await, "ab");
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_put_moves() {
    let reset = Reply::io_error(io::ErrorKind::ConnectionReset);
    let script = Script::new([]).for_host("a.example", [reset]);
    let client = Client::new(steady().mirrors(three()), script);
    client.client.put(OWN).body("same").send().await.unwrap();
    assert_eq!(client.asked(), "ab");
}

#[tokio::test(start_paused = true)]
async fn rule_9_sticky_stays_with_the_last_good_one_for_its_time() {
    let script = Script::new([])
        .for_host("a.example", [Reply::status(503), Reply::status(200)])
        .for_host("b.example", [Reply::status(200)]);
    let client = Client::new(steady().mirrors(three().sticky(10 * SECOND)), script);
    for _ in 0..3 {
        client.status().await;
        tokio::time::advance(4 * SECOND).await;
    }
    assert_eq!(client.asked(), "abbb");
    client.status().await;
    assert_eq!(client.asked(), "abbba", "its time is over");
}

#[tokio::test(start_paused = true)]
async fn rule_9_one_probe_at_a_time_returns_to_the_preferred_one() {
    let script = Script::new([]).for_host(
        "a.example",
        [Reply::status(503), Reply::status(200).after(SECOND), Reply::status(200)],
    );
    let config = steady().circuit_breaker(breaker()).mirrors(three());
    let client = Client::new(config, script);
    client.status().await;
    tokio::time::advance(6 * SECOND).await;
    let start = Instant::now();
    let all: Vec<_> = (0..20).map(|_| client.status()).collect();
    assert_eq!(futures_util::future::join_all(all).await, [200; 20]);
    assert_eq!(
        client.asked(),
        format!("aba{}", "b".repeat(19)),
        "one probe, and none waits for it"
    );
    assert_eq!(start.elapsed(), SECOND);
    client.status().await;
    assert!(client.asked().ends_with("ba"));
}

#[tokio::test(start_paused = true)]
async fn rule_12_if_all_breakers_are_open_it_waits_for_the_first_or_names_all_hosts() {
    let script = Script::new([])
        .for_host("a.example", [Reply::status(503)])
        .for_host("b.example", [Reply::status(503), Reply::status(200)])
        .for_host("c.example", [Reply::status(503)]);
    let open_for = |time| BreakerConfig::consecutive(1).open_for(time);
    let config = steady()
        .max_retries(2)
        .circuit_breaker(open_for(60 * SECOND).without_open_jitter())
        .host(
            "b.example",
            RetryOverride::new().circuit_breaker(open_for(SECOND).without_open_jitter()),
        )
        .mirrors(three());
    let client = Client::new(config, script);
    assert_eq!(client.status().await, 503);
    assert_eq!(client.client.get(OWN).send_resilient().await.unwrap().status(), 200);
    assert_eq!(client.asked(), "abcb");

    for host in ["https://a.example", "https://b.example", "http://c.example:8080"] {
        client.hosts.breaker(host).force_open();
    }
    let error = client.client.get(OWN).send_resilient().await.unwrap_err();
    assert!(error.is_circuit_open() && error.circuit_open().is_some());
    let text = format!("{error:#} {:?}", error);
    for host in ["a.example", "b.example", "c.example"] {
        assert!(text.contains(host), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_settings_of_hosts_follow_the_endpoint() {
    let slow = |status| Reply::status(status).after(3 * SECOND);
    let script = Script::new([])
        .for_host("a.example", [slow(200)])
        .for_host("b.example", [slow(418)])
        .for_host("c.example", [slow(200)]);
    let config = steady()
        .attempt_timeout(SECOND)
        .host(
            "b.example",
            RetryOverride::new().attempt_timeout(10 * SECOND).retry_statuses(418).max_retries(0),
        )
        .host("c.example", RetryOverride::new().attempt_timeout(10 * SECOND))
        .mirrors(three());
    let client = Client::new(config, script);
    let start = Instant::now();
    assert_eq!(client.status().await, 200, "the number of retries is that of the request");
    assert_eq!((client.asked().as_str(), start.elapsed()), ("abc", 7 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn rule_16_events_name_the_endpoint() {
    let events = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&events);
    let observe = move |event: &Event<'_>| {
        told.lock().unwrap().push(match event {
            Event::AttemptStarted(it) => format!("at {}", it.endpoint.unwrap()),
            Event::FailedOver(_) | Event::Waiting(_) => event.to_string(),
            _ => return,
        });
    };
    let config = steady().on_event(observe).mirrors(three());
    let client = Client::new(config, statuses([("a", 503)]));
    client.client.get("https://user:pw@a.example/base/x?secret").send().await.unwrap();
    assert_eq!(
        *events.lock().unwrap(),
        [
            "at https://a.example/base/",
            "GET https://a.example/base/x: attempt 2 in 0.000s by failover, after status 503",
            "GET https://b.example/x: attempt 2 is here, after https://a.example/base/x",
            "at https://b.example/",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_change_of_the_limit_is_that_of_the_endpoint_that_made_it() {
    let changes = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&changes);
    let observe = move |event: &Event<'_>| {
        if let Event::LimitChanged(it) = event {
            told.lock().unwrap().push((it.url.to_string(), it.to == it.usage.limit));
        }
    };
    let adaptive = RetryOverride::new().concurrency_limit(Limit::adaptive());
    for other in [None, Some(Limit::fixed(7))] {
        let config = steady().on_event(observe.clone()).mirrors(two());
        let config = config.host("a.example", adaptive.clone());
        let config = match other {
            Some(limit) => config.concurrency_limit(limit),
            None => config,
        };
        let client = Client::new(config, statuses([("a", 503)]));
        assert_eq!((client.status().await, client.asked().as_str()), (200, "ab"));
        let changes = std::mem::take(&mut *changes.lock().unwrap());
        assert_eq!(changes, [("https://a.example/base/x%2Fy".to_owned(), true)], "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_sets_are_bounded() {
    let many = (0..20).fold(three(), |it, i| it.also(&format!("https://m{i}.example")));
    let error = steady().mirrors(many).build().unwrap_err();
    assert_eq!(error.faults().len(), 1);
    // An override may have as many faults; nothing is sent.
    let client = Client::new(steady(), Script::new([]));
    let wrong = RetryOverride::new().mirrors(Mirrors::instead_of("ftp://a.example"));
    assert!(client.client.get(OWN).with_extension(wrong).send().await.is_err());
    assert_eq!(client.asked(), "");
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_reload_keeps_health() {
    let config = || steady().circuit_breaker(breaker()).mirrors(three());
    let hosts = HostStates::new();
    let resilient = Resilient::new(config().build().unwrap()).with_hosts(hosts.clone());
    let handle = resilient.reload_handle();
    let script = statuses([("a", 503)]);
    let client = reqwest_middleware::ClientBuilder::new(idle_client())
        .with(resilient)
        .with(script.clone())
        .build();
    client.get(OWN).send().await.unwrap();
    handle.reload(config().max_retries(1).build().unwrap());
    client.get(OWN).send().await.unwrap();
    let client = Client { client, script, hosts };
    assert_eq!(client.asked(), "abb");
}

#[tokio::test(start_paused = true)]
async fn an_override_takes_a_request_to_its_own_host() {
    let client = Client::new(steady().mirrors(three()), statuses([("a", 503)]));
    let own = RetryOverride::new().without_mirrors();
    let response = client.client.get(OWN).with_extension(own).send().await.unwrap();
    assert_eq!((response.status().as_u16(), client.asked().as_str()), (503, "aaaa"));
    assert_eq!(response.endpoint(), None);
    let b = RetryOverride::new()
        .mirrors(Mirrors::instead_of("https://a.example/").also("https://b.example/"));
    client.client.get(OWN).with_extension(b).send().await.unwrap();
    assert_eq!(client.asked(), "aaaab");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_all_endpoints() {
    let slow = || Reply::status(503).after(SECOND);
    let script = Script::new([slow()]);
    let config = steady().max_total_time(SECOND + SECOND / 2).mirrors(three());
    let client = Client::new(config, script);
    let start = Instant::now();
    assert!(client.client.get(OWN).send().await.is_err());
    assert_eq!((client.asked().as_str(), start.elapsed()), ("ab", SECOND + SECOND / 2));
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_body_that_is_not_what_it_should_be_is_followed_by_the_next_endpoint() {
    let config = steady().mirrors(three()).read_body(1 << 20).retry_if(|it| {
        match (it.status(), it.body()) {
            (Some(status), Some(body)) if status.is_success() => !body.starts_with(b"PK"),
            _ => it.default_verdict().is_retry(),
        }
    });
    let script = Script::new([])
        .for_host("a.example", [Reply::status(200).body("<html>Please log in")])
        .for_host("b.example", [Reply::status(200).body("PK and more").body_breaks_after(4)])
        .for_host("c.example", [Reply::status(200).body("PK and more")]);
    let client = Client::new(config, script);
    let start = Instant::now();
    let response = client.client.get(OWN).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "PK and more");
    assert_eq!((client.asked().as_str(), start.elapsed()), ("abc", Duration::ZERO));
}

/// The URL is the same after a response, a limit of time, and a rejection before anything was sent.
#[tokio::test(start_paused = true)]
async fn errors_name_the_url_that_was_asked_for() {
    let script = statuses([("a", 404), ("b", 404)]);
    let hangs = Script::new([Reply::status(200).after(60 * SECOND)]);
    let forced = HostStates::new();
    forced.breaker("https://b.example").force_open();
    for (script, hosts) in
        [(script, HostStates::new()), (hangs, HostStates::new()), (Script::new([]), forced)]
    {
        let mirrors = Mirrors::instead_of("https://a.example/base/").also("https://b.example/");
        let config = steady().mirrors(mirrors).circuit_breaker(breaker()).max_retries(0);
        let config = config.attempt_timeout(SECOND).build().unwrap();
        let resilient = Resilient::new(config).with_hosts(hosts);
        let client = reqwest_middleware::ClientBuilder::new(idle_client());
        let client = client.with(resilient).with(script).build();
        let error = client.get(OWN).send_resilient().await.unwrap_err();
        assert_eq!(error.url().unwrap().as_str(), OWN, "{error}");
    }
}
