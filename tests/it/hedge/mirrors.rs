//! Rule 18: with mirrors, a hedge is sent to the next endpoint.

use std::time::Duration;

use http::{HeaderValue, Method, header};
use proptest::prelude::*;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BudgetConfig, ConcurrencyLimit, HostStates, IdempotencyKey, Limit,
    Mirrors, Resilient, ResilientConfigBuilder, ResponseExt, RetryOverride,
};
use tokio::time::{Instant, timeout};

use super::{Lines, after, hedge, hedged, ms};
use crate::support::{idle_client, in_virtual_time, steady};

const A: &str = "https://a.example/base/x?q=1";
const HOSTS: [&str; 3] = ["https://a.example", "https://b.example", "https://c.example"];

/// Three endpoints, the first of which is that of the requests.
fn three() -> Mirrors {
    Mirrors::new("https://a.example/base/").also("https://b.example/b").also("https://c.example/")
}

struct Client {
    client: ClientWithMiddleware,
    script: Script,
    hosts: HostStates,
}

impl Client {
    /// A client with these replies of the three hosts.
    fn new(config: ResilientConfigBuilder, replies: [Vec<Reply>; 3]) -> Self {
        let hosts = HostStates::new();
        let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
        let names = ["a.example", "b.example", "c.example"];
        let script = names
            .into_iter()
            .zip(replies)
            .fold(Script::new([]), |script, (host, replies)| script.for_host(host, replies));
        let client = ClientBuilder::new(idle_client()).with(resilient).with(script.clone()).build();
        Self { client, script, hosts }
    }

    /// The hosts that were asked, in order, and when, in milliseconds.
    fn asked(&self) -> Vec<(String, u128)> {
        let sent = self.script.sent();
        let host = |it: &reqwest_resilient::testing::SentRequest| {
            it.url.host_str().unwrap().trim_end_matches(".example").to_owned()
        };
        sent.iter().map(|it| (host(it), (it.at - sent[0].at).as_millis())).collect()
    }

    fn hosts_asked(&self) -> String {
        self.asked().into_iter().map(|it| it.0).collect()
    }

    async fn status(&self) -> u16 {
        self.client.get(A).send().await.unwrap().status().as_u16()
    }

    fn permits_out(&self) -> usize {
        let now = Instant::now().into_std();
        HOSTS.iter().map(|it| self.hosts.breaker(it).snapshot(now).permits_out).sum()
    }
}

fn mirrored() -> ResilientConfigBuilder {
    hedged(hedge()).mirrors(three())
}

fn limited() -> Reply {
    Reply::status(429).header(header::RETRY_AFTER, HeaderValue::from_static("30"))
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_hedge_is_sent_to_the_next_endpoint_and_the_history_names_its_host() {
    let (lines, config) = Lines::of(mirrored().without_attempt_timeout());
    let client = Client::new(config, [vec![after(500, 200)], vec![after(20, 200)], vec![]]);
    let start = Instant::now();
    let response = client.client.get(A).send().await.unwrap();
    assert_eq!(start.elapsed(), ms(120));
    assert_eq!(client.asked(), [("a".to_owned(), 0), ("b".to_owned(), 100)]);
    assert_eq!(client.script.sent()[1].url.as_str(), "https://b.example/b/x?q=1");
    assert_eq!(response.endpoint().unwrap().as_str(), "https://b.example/b");
    assert_eq!(
        response.history().unwrap().to_string(),
        "#1 +0.000s 0.120s superseded (maybe processed)\n\
         #2 +0.100s 0.020s status 200 at b.example, hedge\n\
         ended: success"
    );
    let lines = lines.all();
    let of_b = lines.iter().filter(|it| it.contains("b.example")).count();
    assert_eq!(of_b, 4, "hedged, started, ended, succeeded: {lines:#?}");
    assert!(!lines.iter().any(|it| it.contains("lost") && it.contains("b.example")), "{lines:#?}");
}

/// POSTs with keys, hedged, at these endpoints.
fn keyed(mirrors: Mirrors) -> ResilientConfigBuilder {
    let key = IdempotencyKey::random();
    hedged(hedge().methods([Method::POST])).mirrors(mirrors).idempotency_key(key)
}

#[tokio::test(start_paused = true)]
async fn a_keyed_request_is_hedged_only_where_its_key_is_known() {
    for (mirrors, asked) in [(three(), "aa"), (three().shared_idempotency(), "ab")] {
        let slow = || vec![after(500, 201); 2];
        let client = Client::new(keyed(mirrors), [slow(), slow(), vec![]]);
        assert_eq!(client.client.post(A).send().await.unwrap().status(), 201);
        assert_eq!(client.hosts_asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_loser_that_may_have_been_applied_keeps_a_keyed_request_where_it_is() {
    let reset = Reply::io_error(std::io::ErrorKind::ConnectionReset).after(ms(150));
    let replies = vec![reset, limited().after(ms(100)), Reply::status(201)];
    let client = Client::new(keyed(three()), [replies, vec![], vec![]]);
    let response = client.client.post(A).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &*client.hosts_asked()), (201, "aaa"));
    assert!(response.history().unwrap().may_have_been_applied());
}

#[tokio::test(start_paused = true)]
async fn rule_18_the_winner_s_host_hears_the_success_and_the_loser_s_nothing() {
    let budget = BudgetConfig::default().trickle(0.0).deposit(0.5);
    let breaker = BreakerConfig::default().or_consecutive(2);
    let config = mirrored().hedge(hedge().share(1.0)).retry_budget(budget).circuit_breaker(breaker);
    // The first is slow and fails after its hedge was sent, then it is slow only.
    let slow = [vec![after(110, 503); 10], vec![after(500, 200)]].concat();
    let client = Client::new(config, [slow, vec![after(50, 200)], vec![]]);
    for _ in 0..20 {
        assert_eq!(client.status().await, 200);
    }
    assert_eq!(client.hosts_asked(), "ab".repeat(20));
    let now = Instant::now().into_std();
    let samples = HOSTS.map(|it| {
        let snapshot = client.hosts.breaker(it).snapshot(now);
        (snapshot.window.total, snapshot.consecutive_failures, snapshot.permits_out)
    });
    assert_eq!(samples.map(|it| (it.1, it.2)), [(0, 0); 3], "{samples:?}");
    assert_eq!(samples[0].0, 0);
    assert_eq!(client.hosts.budget_left(HOSTS[0], now), Some(10.0));
}

#[tokio::test(start_paused = true)]
async fn rule_18_gate_breaker_and_limit_of_the_endpoint_are_asked() {
    let consecutive = BreakerConfig::consecutive(1);
    let config = || mirrored().gate().circuit_breaker(consecutive.clone()).max_retries(0);
    let replies = || [vec![after(500, 200)], vec![after(20, 200)], vec![after(30, 200)]];
    // An open breaker takes an endpoint out.
    let client = Client::new(config(), replies());
    client.hosts.breaker(HOSTS[1]).force_open();
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "ac"));
    // Without another one the hedge is sent where its attempt is.
    let client = Client::new(config(), replies());
    client.hosts.breaker(HOSTS[1]).force_open();
    client.hosts.breaker(HOSTS[2]).force_open();
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "aa"));
    // A closed gate does, too.
    let mut all = replies();
    all[1] = vec![limited()];
    let client = Client::new(config(), all);
    client.client.get("https://b.example/").send().await.unwrap();
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "bac"));
    // A host without a free permit gets none; the next one has one.
    let limit = ConcurrencyLimit::per_host(Limit::fixed(1));
    let mut all = replies();
    all[1] = vec![after(20, 200).body("unread")];
    let client = Client::new(config().concurrency_limit(limit), all);
    let held = client.client.get("https://b.example/").send().await.unwrap();
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "bac"));
    drop(held);
    assert_eq!(client.hosts.limit_use(HOSTS[0]).unwrap().in_flight, 0);
    assert_eq!(client.hosts.limit_use(HOSTS[2]).unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn rule_18_the_permit_of_the_winner_is_held_to_the_end_of_its_body() {
    let limit = ConcurrencyLimit::per_host(Limit::fixed(1));
    let body = || after(20, 200).body("body");
    let client = Client::new(
        mirrored().concurrency_limit(limit),
        [vec![after(500, 200)], vec![body()], vec![]],
    );
    let response = client.client.get(A).send().await.unwrap();
    let used = |at: usize| client.hosts.limit_use(HOSTS[at]).unwrap().in_flight;
    assert_eq!((used(0), used(1)), (0, 1));
    assert_eq!(response.text().await.unwrap(), "body");
    assert_eq!((used(0), used(1)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_18_settings_of_the_endpoint_s_host_count() {
    let replies = || [vec![after(900, 200)], vec![after(300, 200)], vec![after(50, 200)]];
    let without = mirrored().host("b.example", RetryOverride::new().without_hedge());
    let client = Client::new(without, replies());
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "ac"));
    // Its own attempt timeout ends the hedge at 350 ms; the attempt goes on.
    let short = RetryOverride::new().attempt_timeout(ms(250));
    let client = Client::new(mirrored().host("b.example", short), replies());
    let start = Instant::now();
    let log = AttemptLog::new();
    let get = client.client.get(A).with_extension(log.clone());
    assert_eq!(get.send().await.unwrap().status(), 200);
    assert_eq!(start.elapsed(), ms(900), "{}", log.history());
    assert!(log.history().to_string().contains("b.example"), "{}", log.history());
}

#[tokio::test(start_paused = true)]
async fn rule_18_each_hedge_asks_another_endpoint() {
    let config = mirrored().hedge(hedge().max_hedges(3));
    let slow = || vec![after(900, 200)];
    let client = Client::new(config, [slow(), slow(), slow()]);
    assert_eq!(client.status().await, 200);
    assert_eq!(client.hosts_asked(), "abca", "the own one once no other is left");
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_404_of_one_endpoint_does_not_win_while_the_other_is_under_way() {
    for (a, b, c, status, asked) in [
        (after(300, 200), after(10, 404), after(10, 200), 200, "ab"),
        (after(150, 404), after(100, 200), after(10, 200), 200, "ab"),
        // Where both have none the next one is asked.
        (after(150, 404), after(100, 404), after(10, 200), 200, "abc"),
        (after(150, 404), after(100, 404), after(10, 404), 404, "abc"),
        (after(150, 404), after(100, 503), after(10, 200), 200, "abc"),
        (after(150, 503), after(100, 404), after(10, 200), 200, "abc"),
        // Where all others fail, the 404 is the response.
        (after(150, 404), after(100, 503), after(10, 503), 404, "abcbc"),
    ] {
        let client = Client::new(mirrored(), [vec![a], vec![b], vec![c]]);
        assert_eq!((client.status().await, client.hosts_asked().as_str()), (status, asked));
    }
    let strict = hedged(hedge()).mirrors(three().strict());
    let client =
        Client::new(strict, [vec![after(300, 200)], vec![after(10, 404)], vec![after(10, 200)]]);
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (404, "ab"));
}

#[tokio::test(start_paused = true)]
async fn rule_18_where_all_fail_the_next_attempt_goes_where_none_was() {
    let config = mirrored().max_retries(4);
    let failed = || vec![after(150, 503)];
    let client = Client::new(config, [failed(), failed(), vec![after(10, 200)]]);
    assert_eq!((client.status().await, client.hosts_asked().as_str()), (200, "abc"));
    // The backoff comes after a round of all.
    let client = Client::new(mirrored(), [failed(), failed(), vec![after(10, 503)]]);
    assert_eq!(client.status().await, 503);
    let asked = client.asked();
    assert_eq!(asked[2], ("c".to_owned(), 250));
    assert!(asked[3].1 >= 1_250, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_resent_request_has_what_the_caller_gave_it() {
    let secret = HeaderValue::from_static("Bearer secret");
    // The hedge loses, or wins with a failure that is retried elsewhere and then at home.
    for (a, b, asked) in [
        (vec![after(150, 200)], vec![after(500, 200)], "ab"),
        (vec![after(300, 503), after(1, 200)], vec![after(150, 503)], "abca"),
    ] {
        let client = Client::new(mirrored().max_retries(4), [a, b, vec![after(1, 503)]]);
        let get = client.client.get(A).header(header::AUTHORIZATION, secret.clone());
        assert_eq!(get.send().await.unwrap().status(), 200);
        assert_eq!(client.hosts_asked(), asked);
        for sent in client.script.sent() {
            let is_own = sent.url.host_str() == Some("a.example");
            assert_eq!(sent.headers.contains_key(header::AUTHORIZATION), is_own, "{}", sent.url);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_sticky_mirrors_do_not_follow_a_hedge_that_won() {
    let config = hedged(hedge()).mirrors(three().sticky(Duration::from_secs(60)));
    let a = vec![after(10, 200), after(500, 200), after(10, 200)];
    let client = Client::new(config, [a, vec![after(20, 200)], vec![]]);
    for _ in 0..3 {
        assert_eq!(client.status().await, 200);
    }
    assert_eq!(client.hosts_asked(), "aaba");
}

#[tokio::test(start_paused = true)]
async fn a_loser_s_429_closes_the_gate_of_its_host_at_once() {
    // At another endpoint.
    let (lines, config) = Lines::of(mirrored().gate());
    let replies = [vec![after(500, 200), after(1, 503)], vec![limited().after(ms(20))], vec![]];
    let client = Client::new(config, replies);
    let second = async {
        tokio::time::sleep(ms(200)).await;
        client.status().await
    };
    let both = futures_util::future::join(client.status(), second).await;
    assert_eq!((both, client.hosts_asked().as_str()), ((200, 200), "abac"), "b is not asked");
    assert_eq!(lines.count("gate"), 1, "{:#?}", lines.all());

    // At the host of the attempt: the next request waits.
    for replies in
        [[after(500, 200), limited().after(ms(20))], [limited().after(ms(150)), after(500, 200)]]
    {
        let (lines, config) = Lines::of(hedged(hedge()).gate().max_wait_time(ms(60_000)));
        let (client, script) =
            super::client(config, replies.into_iter().chain([after(1, 200)]).collect::<Vec<_>>());
        assert_eq!(super::status(&client).await, 200);
        assert_eq!(super::status(&client).await, 200);
        let waited = *super::times(&script).last().unwrap();
        assert!(waited >= 30_000, "{waited}");
        assert_eq!(lines.count("closed"), 1, "{:#?}", lines.all());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_closed_once_by_the_result_that_a_race_ends_with() {
    let reply = |millis, status| after(millis, status);
    let hinted =
        |millis| reply(millis, 503).header(header::RETRY_AFTER, HeaderValue::from_static("7"));
    let (lines, config) = Lines::of(hedged(hedge()).gate());
    let (client, script) = super::client(config, [hinted(150), reply(1_000, 503), reply(1, 200)]);
    assert_eq!(super::status(&client).await, 200);
    assert_eq!(lines.count("closed"), 1, "{:#?}", lines.all());
    let sent = super::times(&script);
    // The hint counts from the response that had it, at 150 ms, or later; the spread comes on top.
    assert!((7_150..=10_000).contains(&sent[2]), "{sent:?}");
}

#[derive(Clone, Debug)]
struct Case {
    latencies: [u64; 3],
    statuses: [u16; 3],
    dropped_after: u64,
    spread: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let status = prop_oneof![Just(200_u16), Just(503), Just(404), Just(429)];
    (
        proptest::array::uniform3(1..400_u64),
        proptest::array::uniform3(status),
        1..3_000_u64,
        any::<bool>(),
    )
        .prop_map(|(latencies, statuses, dropped_after, spread)| Case {
            latencies,
            statuses,
            dropped_after,
            spread,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the endpoints do, and whenever the request is dropped: no permit stays out, no secret
    /// leaves the origin, and no more is sent than may be.
    #[test]
    fn rule_18_races_over_endpoints_leave_nothing_behind(case in case()) {
        in_virtual_time(async {
            let set = if case.spread { three().spread() } else { three() };
            let config = steady()
                .hedge(hedge().max_hedges(2).share(1.0))
                .mirrors(set)
                .circuit_breaker(BreakerConfig::default())
                .retry_budget(BudgetConfig::default())
                .gate()
                .concurrency_limit(ConcurrencyLimit::per_host(Limit::fixed(2)))
                .max_retries(3);
            let replies = [0, 1, 2].map(|it| vec![after(case.latencies[it], case.statuses[it])]);
            let client = Client::new(config, replies);
            for _ in 0..4 {
                let get = client.client.get(A).header(header::AUTHORIZATION, "secret").send();
                let _ = timeout(ms(case.dropped_after), get).await;
            }
            assert_eq!(client.permits_out(), 0);
            for host in HOSTS {
                let used = client.hosts.limit_use(host).map_or((0, 0), |it| (it.in_flight, it.queued));
                assert_eq!(used, (0, 0), "{host}");
            }
            let sent = client.script.sent();
            assert!(sent.len() <= 4 * 12, "{}", sent.len());
            for it in sent {
                let is_own = it.url.host_str() == Some("a.example");
                assert!(is_own || !it.headers.contains_key(header::AUTHORIZATION));
            }
        });
    }
}
