//! Protection of servers: the budget, the gate, and retry hints.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptLog, BreakerConfig, BudgetConfig, CircuitBreaker, Constant, DeadlineHeader, Health,
    HostStates, HttpRequestError, RequestBuilderExt, ResilientConfig, ResilientConfigBuilder,
    ResponseExt, RetryAfter, RetryBudget, RetryOverride, StopReason, WaitSource,
};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{URL, scripted, scripted_on, steady};

const SECOND: Duration = Duration::from_secs(1);
const HOST: &str = "https://api.example.com";
const OTHER: &str = "https://other.example.com/";

/// With a budget a host that only deposits fill.
fn budgeted(size: u32, deposit: f64) -> ResilientConfigBuilder {
    steady().retry_budget(BudgetConfig::default().size(size).deposit(deposit).trickle(0.0))
}

/// The balance of the host of [`URL`].
fn balance(hosts: &HostStates) -> Option<f64> {
    hosts.budget_left(HOST, Instant::now())
}

fn status(status: u16, headers: &[(&'static str, &'static str)]) -> Reply {
    headers.iter().fold(Reply::status(status), |reply, (name, value)| {
        reply.header(HeaderName::from_static(name), HeaderValue::from_static(value))
    })
}

fn come_back_in(code: u16, seconds: &'static str) -> Reply {
    status(code, &[("retry-after", seconds)])
}

/// Sends one request; the status it ends with, and why.
async fn get(client: &ClientWithMiddleware, url: &str) -> (Option<StatusCode>, StopReason) {
    let log = AttemptLog::new();
    let result = client.get(url).with_extension(log.clone()).send().await;
    (result.ok().map(|it| it.status()), log.history().stop_reason().unwrap())
}

const BUSY: Option<StatusCode> = Some(StatusCode::SERVICE_UNAVAILABLE);

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_request_at_once_with_its_last_outcome() {
    let (config, hosts) = (budgeted(2, 0.0).max_open_wait(Duration::ZERO), HostStates::new());
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [Reply::status(503)]);
    let start = Instant::now();
    assert_eq!(get(&client, URL).await, (BUSY, StopReason::Budget));
    assert_eq!((script.sent().len(), start.elapsed()), (3, 2 * SECOND));
    assert_eq!(get(&client, URL).await, (BUSY, StopReason::Budget));
    assert_eq!((script.sent().len(), start.elapsed()), (4, 2 * SECOND));
    assert_eq!(balance(&hosts), Some(0.0));

    let error = client.get(URL).send_resilient().await.unwrap_err();
    assert_eq!((error.stop_reason(), error.status()), (StopReason::Budget, BUSY));
    assert!(error.to_string().ends_with("after 1 attempt (retry budget exhausted)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_blip_costs_no_request_though_its_retries_are_not_saved_up() {
    for callers in [20, 200, 2_000] {
        let replies = std::iter::repeat_n(Reply::status(503), callers);
        let (client, script) =
            scripted(ResilientConfig::default(), replies.chain([Reply::status(200)]));
        let start = Instant::now();
        let ended = join_all((0..callers).map(|_| get(&client, URL))).await;
        assert!(ended.iter().all(|it| it.1 == StopReason::Success));
        assert_eq!(script.sent().len(), 2 * callers);
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_token_and_ends_with_what_it_has() {
    for (timeout, waits) in [(None, 2 * SECOND), (Some(SECOND), SECOND / 2)] {
        let mut config = budgeted(1, 0.0).backoff(Constant::new(Duration::ZERO));
        if let Some(timeout) = timeout {
            config = config.attempt_timeout(timeout);
        }
        let busy = status(503, &[("server", "one")]).body("come back");
        let (client, script) = scripted(config.build().unwrap(), [busy]);
        let log = AttemptLog::new();
        let start = Instant::now();
        let response = client.get(URL).with_extension(log.clone()).send().await.unwrap();
        assert_eq!((script.sent().len(), start.elapsed()), (2, waits));
        assert_eq!((Some(response.status()), response.headers()["server"].as_bytes()), {
            (BUSY, &b"one"[..])
        });
        assert_eq!(response.text().await.unwrap(), "come back");
        let held = "-- +0.000s budget, then 0.000s by budget\nended: budget";
        assert!(log.history().to_string().ends_with(held), "{}", log.history());
    }
}

/// One retry that works brings three tokens; they go to those that wait, the oldest first.
#[tokio::test(start_paused = true)]
async fn tokens_go_to_the_retries_that_wait_in_order() {
    let config = budgeted(3, 0.0).backoff(Constant::new(Duration::ZERO)).build().unwrap();
    let works_after = |seconds| [Reply::status(503), Reply::status(200).after(seconds * SECOND)];
    let paid = [works_after(1), works_after(9), works_after(9)].into_iter().flatten();
    let unpaid = std::iter::repeat_n(Reply::status(503), 6);
    let (client, script) =
        scripted(config, paid.chain(unpaid).chain([Reply::status(200).after(2 * SECOND)]));
    let start = Instant::now();
    let ended = join_all((0..9).map(async |i| {
        sleep(i * SECOND / 100).await;
        (get(&client, URL).await.1, start.elapsed().as_secs())
    }))
    .await;
    let success = |seconds| (StopReason::Success, seconds);
    let mut expected = vec![success(1), success(9), success(9), success(3), success(3), success(3)];
    expected.extend([(StopReason::Budget, 2); 3]);
    assert_eq!(ended, expected);
    assert_eq!(script.sent().len(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_comes_too_late_for_the_wait_after_it_sends_nothing() {
    let config = budgeted(1, 0.0).backoff(Constant::new(2 * SECOND)).max_total_time(3 * SECOND);
    let replies = [503, 503, 200].map(Reply::status);
    let (client, script) = scripted(config.build().unwrap(), replies);
    let start = Instant::now();
    let other = async {
        sleep(SECOND / 10).await;
        (get(&client, URL).await, start.elapsed())
    };
    let (one, (other, ended)) = tokio::join!(get(&client, URL), other);
    assert_eq!(one, (Some(StatusCode::OK), StopReason::Success));
    assert_eq!((other, ended), ((BUSY, StopReason::Deadline), 2 * SECOND));
    assert_eq!(script.sent().len(), 3);
}

/// What timed out may still keep the server busy; the same failures cost less as a 503.
#[tokio::test(start_paused = true)]
async fn a_retry_after_a_timeout_costs_up_to_five() {
    let sends = async |reply: Reply| {
        let config = steady().retry_budget(BudgetConfig::default().trickle(0.0));
        let (client, script) = scripted(config.attempt_timeout(SECOND).build().unwrap(), [reply]);
        for _ in 0..20 {
            get(&client, URL).await;
        }
        script.sent().len()
    };
    assert_eq!(sends(Reply::status(503)).await, 20 + 10);
    assert_eq!(sends(Reply::status(200).after(2 * SECOND)).await, 20 + 2);
}

#[tokio::test(start_paused = true)]
async fn ten_retries_are_saved_up_and_one_in_three_that_works_keeps_them_coming() {
    let config = steady().retry_budget(BudgetConfig::default().trickle(0.0)).build().unwrap();
    let (client, script) = scripted(config.clone(), [Reply::status(503)]);
    for _ in 0..50 {
        get(&client, URL).await;
    }
    assert_eq!(script.sent().len(), 60, "fifty first attempts and ten retries");

    let pattern = [503, 503, 503, 200].map(Reply::status);
    let replies = std::iter::repeat_n(pattern, 200).flatten();
    let (client, _) = scripted(config, replies);
    for _ in 0..200 {
        assert_eq!(get(&client, URL).await.1, StopReason::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_names_its_retries_may_overdraw_the_budget() {
    let (config, hosts) = (budgeted(1, 0.0).build().unwrap(), HostStates::new());
    let (client, script) = scripted_on(&hosts, config, [Reply::status(503)]);
    let ten = RetryOverride::new().max_retries(10);
    client.get(URL).with_extension(ten).send().await.unwrap();
    assert_eq!((script.sent().len(), balance(&hosts)), (11, Some(-9.0)));
    assert_eq!(get(&client, URL).await, (BUSY, StopReason::Budget));
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_costs_no_token_and_a_503_that_says_when_one_less() {
    for (reply, left) in [(status(429, &[]), 5.0), (come_back_in(503, "1"), 3.0)] {
        let (config, hosts) = (budgeted(5, 0.0).build().unwrap(), HostStates::new());
        let (client, script) = scripted_on(&hosts, config, [reply]);
        get(&client, URL).await;
        assert_eq!((script.sent().len(), balance(&hosts)), (4, Some(left)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_back_untouched_when_the_budget_is_empty() {
    let config = budgeted(1, 0.0);
    let (client, _) = scripted(config.build().unwrap(), [Reply::io_error(ErrorKind::TimedOut)]);
    let error = client.get(URL).send().await.unwrap_err();
    assert!(HttpRequestError::find(&error).is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn successes_pay_to_the_fraction() {
    for (deposit, successes, retries) in [(0.4, 5, 2), (0.4, 4, 1), (0.1, 10, 1), (0.1, 9, 0)] {
        let config = budgeted(2, deposit);
        let mut replies = vec![Reply::status(503); 3];
        replies.extend(vec![Reply::status(200); successes]);
        replies.push(Reply::status(503));
        let (client, script) = scripted(config.build().unwrap(), replies);
        assert_eq!(get(&client, URL).await, (BUSY, StopReason::Budget), "takes what was there");
        for _ in 0..successes {
            get(&client, URL).await;
        }
        let before = script.sent().len();
        assert_eq!(get(&client, URL).await, (BUSY, StopReason::Budget));
        assert_eq!(script.sent().len() - before, 1 + retries, "{successes} of {deposit}");
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_have_budgets_of_their_own_unless_shared() {
    let (config, hosts) = (budgeted(1, 0.0), HostStates::new());
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [Reply::status(503)]);
    get(&client, URL).await;
    get(&client, OTHER).await;
    assert_eq!(script.sent().len(), 4);
    let others = ["https://other.example.com", "https://third.example.com"];
    let others = others.map(|host| hosts.budget_left(host, Instant::now()));
    assert_eq!((balance(&hosts), others), (Some(0.0), [Some(0.0), None]));

    let shared = RetryBudget::shared(BudgetConfig::default().size(1).trickle(0.0));
    let config = steady().retry_budget(shared).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(503)]);
    get(&client, URL).await;
    get(&client, OTHER).await;
    assert_eq!(script.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_request_may_do_without_the_budget() {
    let (config, hosts) = (budgeted(1, 0.0), HostStates::new());
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [Reply::status(503)]);
    let unpaid = RetryOverride::new().without_retry_budget();
    client.get(URL).with_extension(unpaid).send().await.unwrap();
    assert_eq!((script.sent().len(), balance(&hosts)), (4, None), "it was not asked");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_while_it_waits_is_refunded() {
    let (config, hosts) = (budgeted(5, 0.0), HostStates::new());
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [Reply::status(503)]);
    let request = client.get(URL).send();
    assert!(timeout(SECOND / 2, request).await.is_err());
    assert_eq!((script.sent().len(), balance(&hosts)), (1, Some(5.0)));
    // One that was sent is not, however it went.
    let request = client.get(URL).send();
    assert!(timeout(SECOND * 3 / 2, request).await.is_err());
    assert_eq!((script.sent().len(), balance(&hosts)), (3, Some(4.0)));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_breaker_rejects_is_refunded() {
    let (config, hosts) = (budgeted(5, 0.0), HostStates::new());
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let config = config.circuit_breaker(breaker.clone()).max_retries(1).build().unwrap();
    let (client, script) = scripted_on(&hosts, config, [Reply::status(503)]);
    let opens_meanwhile = async {
        sleep(SECOND / 2).await;
        assert_eq!(balance(&hosts), Some(4.0));
        breaker.force_open();
    };
    let (error, ()) = tokio::join!(client.get(URL).send_resilient(), opens_meanwhile);
    let error = error.unwrap_err();
    assert!(error.is_circuit_open());
    assert_eq!(error.history().stop_reason(), Some(StopReason::CircuitOpen));
    assert_eq!((script.sent().len(), balance(&hosts)), (1, Some(5.0)));
}

#[tokio::test(start_paused = true)]
async fn replacing_a_stale_connection_costs_a_token_like_any_retry() {
    let (config, hosts) = (budgeted(2, 0.0).max_open_wait(Duration::ZERO), HostStates::new());
    let stale = status(408, &[("connection", "close")]);
    let (client, script) =
        scripted_on(&hosts, config.build().unwrap(), [stale, Reply::status(503)]);
    let log = AttemptLog::new();
    client.get(URL).with_extension(log.clone()).send().await.unwrap();
    let waits: Vec<_> = log.history().attempts().iter().map(|it| it.wait.clone()).collect();
    let backoff = Some((SECOND, WaitSource::Backoff));
    assert_eq!(waits, [Some((Duration::ZERO, WaitSource::Immediate)), backoff, None]);
    assert_eq!((script.sent().len(), balance(&hosts)), (3, Some(0.0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However many requests are dropped at any moment, those that wait for a token included: what
    /// is not spent is there in the end.
    #[test]
    fn tokens_are_exact_after_random_drops(
        size in 1..4_u32,
        requests in proptest::collection::vec((0..4_000_u64, 0..6_000_u64), 1..40),
    ) {
        let (config, hosts) = (budgeted(size, 0.0), HostStates::new());
        let replies = [Reply::status(503).after(SECOND / 10), Reply::status(503)];
        let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let firsts = std::cell::Cell::new(0);
        runtime.block_on(join_all(requests.iter().map(async |(begins, patience)| {
            sleep(Duration::from_millis(*begins)).await;
            firsts.set(firsts.get() + 1);
            let _ = timeout(Duration::from_millis(*patience), get(&client, URL)).await;
        })));
        let retries = script.sent().len() - firsts.get();
        prop_assert_eq!(balance(&hosts), Some(f64::from(size) - retries as f64));
    }

    #[test]
    fn retries_are_paid_for(
        (size, deposit, trickle) in (1..10_u32, 0..=10_u32, 0..=10_u32),
        answers in proptest::collection::vec((any::<bool>(), 0..500_u64), 1..60),
        pauses in proptest::collection::vec(0..3_000_u64, 1..30),
    ) {
        let (deposit, trickle) = (f64::from(deposit) / 10.0, f64::from(trickle) / 10.0);
        let budget = BudgetConfig::default().size(size).deposit(deposit).trickle(trickle);
        let budget = budget.retry_deposit(deposit);
        let config = steady().retry_budget(RetryBudget::per_host(budget)).build().unwrap();
        let replies = answers.iter().map(|(ok, millis)| {
            Reply::status(if *ok { 200 } else { 503 }).after(Duration::from_millis(*millis))
        });
        let (client, script) = scripted(config, replies);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let (successes, seconds) = runtime.block_on(async {
            let start = Instant::now();
            let requests = pauses.iter().scan(0, |at, pause| {
                *at += pause;
                Some(Duration::from_millis(*at))
            });
            let sends = requests.map(async |at| {
                sleep(at).await;
                client.get(URL).send().await.unwrap().status().is_success()
            });
            let done = join_all(sends).await;
            (done.into_iter().filter(|it| *it).count(), start.elapsed().as_secs_f64())
        });
        let retries = script.sent().len() - pauses.len();
        // A success after five denied retries brings a token.
        let denied = pauses.len() - successes;
        let paid =
            f64::from(size) + deposit * successes as f64 + trickle * seconds + (denied / 5) as f64;
        prop_assert!(retries as f64 <= paid + 1e-9, "{retries} retries, {paid} paid for");
    }
}

fn throttled_then_fine(seconds: &'static str) -> [Reply; 2] {
    [come_back_in(429, seconds), Reply::status(200)]
}

/// When requests were sent, in milliseconds from `start`.
fn sent_at(script: &Script, start: Instant) -> Vec<u128> {
    script.sent().iter().map(|it| (it.at - start).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hint_to_one_request_holds_back_all_of_the_client() {
    let start = Instant::now();
    // Each client has a gate of its own, and both ask the same server.
    let replies = [come_back_in(429, "1"), come_back_in(429, "1"), Reply::status(200)];
    let (first, script) = scripted(ResilientConfig::default(), replies);
    let second = reqwest_middleware::ClientBuilder::new(crate::support::idle_client())
        .with(reqwest_resilient::Resilient::default())
        .with(script.clone())
        .build();
    let once = RetryOverride::new().max_retries(0);
    for client in [&first, &second] {
        client.get(URL).with_extension(once.clone()).send().await.unwrap();
    }
    let requests = (0..200).map(|i| (if i % 2 == 0 { &first } else { &second }).get(URL).send());
    for answer in join_all(requests).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let at = sent_at(&script, start);
    assert_eq!(at.iter().filter(|it| **it < 1_000).count(), 2);
    assert_eq!(at.len(), 202);
    // One of each client at first, then more with each that succeeds; all within the spread.
    let opening: Vec<_> = at.iter().filter(|it| **it >= 1_000).copied().collect();
    assert!(opening.iter().all(|it| (1_000..=1_251).contains(it)), "{opening:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_wait_at_the_gate_gets_the_time_of_a_retry() {
    let config = steady().gate().max_wait_time(10 * SECOND).random(|| 0.0).build().unwrap();
    let (client, script) = scripted(config, throttled_then_fine("8"));
    let hurried = RetryOverride::new().max_total_time(5 * SECOND);
    client.get(URL).with_extension(RetryOverride::new().max_retries(0)).send().await.unwrap();
    advance(SECOND).await;
    let start = Instant::now();
    let log = AttemptLog::new();
    let request = client.get(URL).with_extension(hurried).with_extension(log.clone());
    let error = request.send_resilient().await.unwrap_err();
    assert_eq!((start.elapsed(), script.sent().len()), (Duration::ZERO, 1));
    assert!(error.is_rate_limited() && !error.is_circuit_open());
    assert_eq!((error.retry_in(), error.attempts()), (Some(7 * SECOND), 0));
    assert_eq!(log.history().stop_reason(), Some(StopReason::RateLimited));
    assert!(error.to_string().contains("rate limited"), "{error}");

    // Other hosts are not affected.
    client.get(OTHER).send().await.unwrap();
    assert_eq!((start.elapsed(), script.sent().len()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn who_has_little_time_is_sent_while_there_is_some() {
    let config = steady().gate().max_total_time(SECOND * 11 / 10).random(|| 0.0).build().unwrap();
    let (client, script) = scripted(config, throttled_then_fine("1"));
    client.get(URL).with_extension(RetryOverride::new().max_retries(0)).send().await.unwrap();
    let start = Instant::now();
    for answer in join_all((0..20).map(|_| client.get(URL).send())).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let at = sent_at(&script, start);
    assert!(at[1..].iter().all(|it| (1_000..=1_051).contains(it)), "{at:?}");
}

/// A host keeps 64 gates: the others are gone before the body of the response that closed them.
#[tokio::test(start_paused = true)]
async fn a_hint_holds_for_its_request_where_more_keys_are_limited_than_a_host_has_gates() {
    const USERS: usize = 70;
    let limited = || come_back_in(429, "30").body("slow down").body_stalls_after(1);
    let replies = (0..2 * USERS).map(|it| if it < USERS { limited() } else { Reply::status(200) });
    let config = steady().gate().build().unwrap();
    let (client, script) = scripted(config, replies);
    let start = Instant::now();
    let requests = (0..USERS).map(|user| {
        let request = client.get(URL).bearer_auth(user);
        async move { (request.send().await.unwrap().status(), start.elapsed() >= 30 * SECOND) }
    });
    let ends = join_all(requests).await;
    assert_eq!(ends, vec![(StatusCode::OK, true); USERS]);
    assert_eq!(script.sent().len(), 2 * USERS);
}

#[tokio::test(start_paused = true)]
async fn a_wait_at_an_evicted_gate_counts_as_one_at_the_gate() {
    const USERS: usize = 70;
    let limited = |seconds| come_back_in(429, seconds).body("slow down").body_stalls_after(1);
    let replies = (0..=USERS).map(|it| limited(if it < USERS { "30" } else { "40" }));
    let config = steady().gate().max_wait_time(60 * SECOND).build().unwrap();
    let (client, script) = scripted(config, replies);
    let start = Instant::now();
    let requests = (0..USERS).map(|user| {
        let request = client.get(URL).bearer_auth(user);
        async move {
            let log = AttemptLog::new();
            request.with_extension(log.clone()).send().await.unwrap();
            (log.history().stop_reason(), start.elapsed() < 40 * SECOND)
        }
    });
    let ends = join_all(requests).await;
    assert_eq!(ends, vec![(Some(StopReason::RateLimited), true); USERS]);
    assert_eq!(script.sent().len(), 2 * USERS);
}

#[tokio::test(start_paused = true)]
async fn only_responses_that_ask_for_less_close_the_gate() {
    let waited = async |reply: Reply, config: ResilientConfigBuilder| {
        let (client, _) = scripted(config.build().unwrap(), [reply, Reply::status(200)]);
        client.get(URL).with_extension(RetryOverride::new().max_retries(0)).send().await.unwrap();
        let start = Instant::now();
        client.get(URL).send().await.unwrap();
        start.elapsed() >= SECOND
    };
    let github = || status(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")]);
    let gate = || steady().gate();
    assert!(waited(come_back_in(429, "1"), gate()).await);
    assert!(waited(come_back_in(503, "1"), gate()).await);
    assert!(waited(github(), gate()).await);
    assert!(!waited(Reply::status(503), gate()).await);
    assert!(waited(Reply::status(429), gate()).await, "a second, if it names none");
    assert!(!waited(come_back_in(500, "1"), gate()).await);
    assert!(!waited(come_back_in(429, "1"), steady()).await);
    assert!(!waited(come_back_in(429, "1"), gate().retry_after(RetryAfter::Ignored)).await);
    // Its evidence about health is separate.
    let unhealthy =
        |config: ResilientConfigBuilder| config.breaker_health(|_| Some(Health::Failure));
    assert!(waited(come_back_in(429, "1"), unhealthy(gate())).await);
}

#[tokio::test(start_paused = true)]
async fn a_403_that_the_caller_lists_is_no_rate_limit() {
    let hosts = HostStates::new();
    let config = budgeted(5, 0.0).gate().retry_statuses([StatusCode::FORBIDDEN]);
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), [Reply::status(403)]);
    let start = Instant::now();
    get(&client, URL).await;
    assert_eq!((script.sent().len(), start.elapsed()), (4, 3 * SECOND), "by backoff alone");
    assert_eq!(balance(&hosts), Some(2.0), "each retry is paid for");
}

#[tokio::test(start_paused = true)]
async fn one_request_may_pass_a_closed_gate() {
    let config = steady().gate().build().unwrap();
    let (client, script) = scripted(config, throttled_then_fine("30"));
    client.get(URL).with_extension(RetryOverride::new().max_retries(0)).send().await.unwrap();
    let start = Instant::now();
    client.get(URL).with_extension(RetryOverride::new().without_gate()).send().await.unwrap();
    assert_eq!((script.sent().len(), start.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_leaves_nothing_behind() {
    let (config, hosts) = (budgeted(3, 0.0), HostStates::new());
    let breaker = CircuitBreaker::new(BreakerConfig::default()).unwrap();
    let config = config.circuit_breaker(breaker.clone()).gate().build().unwrap();
    let (client, script) = scripted_on(&hosts, config, throttled_then_fine("2"));
    client.get(URL).with_extension(RetryOverride::new().max_retries(0)).send().await.unwrap();
    let waiters = (0..50).map(|_| timeout(SECOND, client.get(URL).send()));
    assert!(join_all(waiters).await.iter().all(Result::is_err));
    let now = Instant::now();
    assert_eq!((script.sent().len(), balance(&hosts)), (1, Some(3.0)));
    assert_eq!((breaker.snapshot(now).permits_out, breaker.snapshot(now).window.total), (0, 0));
    assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn waits_at_the_gate_are_bounded_in_sum() {
    let config = steady().gate().max_wait_time(10 * SECOND).max_retries(0).random(|| 0.0);
    // Responses to earlier requests keep the gate closed: until the 4th, 7th, 10th and 13th second.
    let late = |millis| come_back_in(429, "4").after(Duration::from_millis(millis));
    let (client, script) = scripted(config.build().unwrap(), [1, 3_000, 6_000, 9_000].map(late));
    let earlier = join_all((0..4).map(|_| client.get(URL).send()));
    let patient = async {
        sleep(Duration::from_millis(2)).await;
        let start = Instant::now();
        let error = client.get(URL).send_resilient().await.unwrap_err();
        assert!(error.is_rate_limited());
        assert!((8 * SECOND..=10 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    };
    tokio::join!(earlier, patient);
    assert_eq!(script.sent().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_an_hour_holds_and_a_503_holds_for_the_longest_wait() {
    for (code, hold) in [(429, 3_600), (503, 60)] {
        let config = steady().gate().max_wait_time(60 * SECOND).random(|| 0.0).build().unwrap();
        let (client, script) = scripted(config, [come_back_in(code, "3600"), Reply::status(200)]);
        assert_eq!(get(&client, URL).await.1, StopReason::HintTooLong);
        sleep(59 * SECOND).await;
        let error = client.get(URL).send_resilient().await.unwrap_err();
        assert!(error.is_rate_limited(), "{error}");
        sleep(Duration::from_secs(hold - 59)).await;
        assert_eq!(script.sent().len(), 1);
        assert_eq!(client.get(URL).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_reference_s_defaults_have_no_gate_no_budget_and_no_breaker() {
    let replies = [come_back_in(503, "1")];
    let (client, script) = scripted(ResilientConfig::aresilient(), replies);
    let start = Instant::now();
    for response in join_all((0..50).map(|_| client.get(URL).send())).await {
        let response = response.unwrap();
        assert_eq!((response.status(), response.attempts()), (StatusCode::SERVICE_UNAVAILABLE, 4));
    }
    assert_eq!((script.sent().len(), start.elapsed()), (200, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn every_spelling_of_a_hint_is_heard() {
    // The wall clock stands at 2015-10-21T07:28:00Z, and each says seven seconds.
    let in_seven = "2015-10-21T07:28:07Z";
    let table: &[&[(&str, &str)]] = &[
        &[("retry-after-ms", "7000")],
        &[("x-ms-retry-after-ms", "7000")],
        &[("x-amz-retry-after", "7000")],
        &[("retry-after", "7")],
        &[("retry-after", "Wed, 21 Oct 2015 07:28:07 GMT")],
        &[("retry-after", "Wed Oct 21 07:28:07 2015")],
        &[("ratelimit", "\"burst\";r=0;t=7")],
        &[("ratelimit-reset", "7"), ("ratelimit-remaining", "0")],
        &[("x-ratelimit-reset", "7"), ("x-ratelimit-remaining", "0")],
        &[("x-ratelimit-reset", "1445412487"), ("x-ratelimit-remaining", "0")],
        &[("x-ratelimit-reset", "1445412487000"), ("x-ratelimit-remaining", "0")],
        &[("x-rate-limit-reset", "1445412487"), ("x-rate-limit-remaining", "0")],
        &[("x-ratelimit-reset-requests", "7s"), ("x-ratelimit-remaining-requests", "0")],
        &[("x-ratelimit-reset-tokens", "0m7s"), ("x-ratelimit-remaining-tokens", "0")],
        &[
            ("anthropic-ratelimit-requests-reset", in_seven),
            ("anthropic-ratelimit-requests-remaining", "0"),
        ],
        &[
            ("anthropic-ratelimit-output-tokens-reset", in_seven),
            ("anthropic-ratelimit-output-tokens-remaining", "0"),
        ],
        &[("grpc-retry-pushback-ms", "7000")],
    ];
    for headers in table {
        let clock = std::time::UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        let config = steady().gate().wall_clock(move || clock).random(|| 0.0).build().unwrap();
        let (client, _) = scripted(config, [status(429, headers), Reply::status(200)]);
        let (log, start) = (AttemptLog::new(), Instant::now());
        client.get(URL).with_extension(log.clone()).send().await.unwrap();
        assert_eq!(start.elapsed(), 7 * SECOND, "{headers:?}");
        let hint = WaitSource::Hint(HeaderName::from_static(headers[0].0));
        assert_eq!(log.history().attempts()[0].wait, Some((7 * SECOND, hint)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_about_retries_settles_it() {
    let ended = async |reply: Reply| {
        let (client, script) = scripted(steady().build().unwrap(), [reply, Reply::status(200)]);
        let (_, why) = get(&client, URL).await;
        (script.sent().len(), why)
    };
    let vetoed = (1, StopReason::Vetoed);
    assert_eq!(ended(status(503, &[("x-should-retry", "false")])).await, vetoed);
    assert_eq!(ended(status(429, &[("x-envoy-ratelimited", "true")])).await, vetoed);
    assert_eq!(ended(status(503, &[("grpc-retry-pushback-ms", "-1")])).await, vetoed);
    let both = status(503, &[("retry-after", "1"), ("x-should-retry", "false")]);
    assert_eq!(ended(both).await, vetoed);

    let again = (2, StopReason::Success);
    assert_eq!(ended(status(409, &[("x-should-retry", "true")])).await, again);
    assert_eq!(ended(status(403, &[("x-ratelimit-remaining", "0")])).await, again);
    assert_eq!(ended(come_back_in(403, "1")).await, again);
    assert_eq!(ended(Reply::status(403)).await, (1, StopReason::Final));
}

/// The values of a header, attempt by attempt.
fn sent_header(script: &Script, name: &str) -> Vec<Option<String>> {
    let value = |headers: &http::HeaderMap| Some(headers.get(name)?.to_str().unwrap().to_owned());
    script.sent().iter().map(|it| value(&it.headers)).collect()
}

fn texts<const N: usize>(values: [&str; N]) -> Vec<Option<String>> {
    values.into_iter().map(|it| Some(it.to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_server_learns_what_time_is_left_and_which_attempt_it_sees() {
    const LEFT: HeaderName = HeaderName::from_static("x-left");
    const NUMBER: HeaderName = HeaderName::from_static("x-attempt");
    let sent = async |config: ResilientConfigBuilder, own: RetryOverride| {
        let slow = Reply::status(503).after(SECOND / 2);
        let (client, script) = scripted(config.build().unwrap(), [slow]);
        let request = client.get(URL).header(LEFT, "untold").with_extension(own);
        let _may_be_cut = request.send().await;
        script
    };
    let told_of = || steady().attempt_header(NUMBER).deadline_header(DeadlineHeader::millis(LEFT));
    let plain = RetryOverride::new;

    let script = sent(told_of().max_total_time(10 * SECOND), plain()).await;
    assert_eq!(sent_header(&script, "x-left"), texts(["10000", "8500", "7000", "5500"]));
    assert_eq!(sent_header(&script, "x-attempt"), texts(["1", "2", "3", "4"]));

    let nearer = told_of().max_total_time(4 * SECOND).attempt_timeout(3 * SECOND);
    let script = sent(nearer.max_retries(1), plain()).await;
    assert_eq!(sent_header(&script, "x-left"), texts(["3000", "2500"]));

    let grpc = told_of().deadline_header(DeadlineHeader::grpc_timeout()).max_retries(1);
    let script = sent(grpc.max_total_time(100 * SECOND), plain()).await;
    assert_eq!(sent_header(&script, "grpc-timeout"), texts(["100000m", "98500000u"]));

    // Without a limit there is no header.
    let script = sent(told_of().max_retries(0), plain()).await;
    assert_eq!(sent_header(&script, "x-left"), texts(["untold"]));

    let off = plain().without_deadline_header().without_attempt_header().max_retries(0);
    let script = sent(told_of().max_total_time(SECOND), off).await;
    assert_eq!(sent_header(&script, "x-left"), texts(["untold"]));
    assert_eq!(sent_header(&script, "x-attempt"), [None]);
}

#[tokio::test(start_paused = true)]
async fn the_header_has_the_request_s_own_timeout_if_it_is_nearest() {
    let config = steady().deadline_header(DeadlineHeader::new(http::header::AGE, |left| {
        HeaderValue::from(left.as_secs())
    }));
    let (client, script) = scripted(config.build().unwrap(), [Reply::status(200)]);
    client.get(URL).timeout(7 * SECOND).send().await.unwrap();
    assert_eq!(sent_header(&script, "age"), texts(["7"]));
}
