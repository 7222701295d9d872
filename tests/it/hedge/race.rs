//! Which requests race, and which result counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Extensions, HeaderName, HeaderValue, Method, header};
use reqwest::Body;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    AttemptKind, AttemptLog, BodyFactory, BreakerConfig, BreakerState, BudgetConfig, FailureKind,
    Hedge, HostStates, IdempotencyKey, ResendCount, Resilient, ResponseExt, RetryOverride,
};
use tokio::time::Instant;

use super::{Lines, after, client, hedge, hedged, ms, status, times};
use crate::support::inside::does;
use crate::support::{URL, idle_client, scripted_on, steady};

#[tokio::test(start_paused = true)]
async fn rule_1_it_is_off_unless_it_is_set() {
    let (client, script) = client(steady(), [after(60_000, 200)]);
    assert_eq!((status(&client).await, script.sent().len()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_2_safe_methods_are_hedged_and_others_only_on_purpose() {
    let own = |method: &Method| hedge().methods([method.clone()]);
    let (once, twice) = (1, 2);
    for (method, sent, on_purpose, allowed) in [
        ("GET", twice, twice, twice),
        ("HEAD", twice, twice, twice),
        ("OPTIONS", twice, twice, twice),
        ("PUT", once, twice, twice),
        ("DELETE", once, twice, twice),
        ("POST", once, once, twice),
        ("PATCH", once, once, twice),
        ("CONNECT", once, once, once),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        for (hedge, allow, sends) in [
            (hedge(), false, sent),
            (own(&method), false, on_purpose),
            (own(&method), true, allowed),
        ] {
            let (client, script) = client(hedged(hedge), [after(150, 200)]);
            let request = client.request(method.clone(), URL);
            let request = match allow {
                true => request.with_extension(RetryOverride::new().idempotent(true)),
                false => request,
            };
            request.send().await.unwrap();
            assert_eq!(script.sent().len(), sends, "{method}, allowed: {allow}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_2_bodies_that_cannot_be_sent_twice_and_special_requests_are_not_hedged() {
    let (client, script) = client(hedged(hedge().methods([Method::PUT])), [after(150, 200)]);
    let mut sends = 0;
    let mut more = |script: &Script| {
        let new = script.sent().len() - sends;
        sends = script.sent().len();
        new
    };
    client.put(URL).body("bytes").send().await.unwrap();
    assert_eq!(more(&script), 2, "bytes");
    let stream = Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("a")]));
    client.put(URL).body(stream).send().await.unwrap();
    assert_eq!(more(&script), 1, "a stream");
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let factory = BodyFactory::new(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(Body::from(format!("body {number}"))) }
    });
    client.put(URL).with_extension(factory).send().await.unwrap();
    assert_eq!((more(&script), made.load(Ordering::Relaxed)), (2, 2), "a factory");
    for name in [header::UPGRADE, header::EXPECT] {
        client.put(URL).header(name.clone(), "a").send().await.unwrap();
        assert_eq!(more(&script), 1, "{name}");
    }
    let never = RetryOverride::new().idempotent(false);
    client.put(URL).with_extension(never).send().await.unwrap();
    assert_eq!(more(&script), 1, "not idempotent");
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_keyed_post_whose_twin_is_at_work_waits_for_it() {
    let config = hedged(hedge().methods([Method::POST])).idempotency_key(IdempotencyKey::random());
    for replies in [[after(300, 201), after(50, 409)], [after(150, 409), after(250, 201)]] {
        let (client, script) = client(config.clone(), replies);
        let response = client.post(URL).body("order").send().await.unwrap();
        assert_eq!((response.status().as_u16(), script.sent().len()), (201, 2));
        let keys: Vec<_> =
            script.sent().iter().map(|it| it.headers["idempotency-key"].clone()).collect();
        assert_eq!(keys[0], keys[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_keyed_post_is_sent_again_if_its_twin_at_work_fails() {
    let config = || {
        let key = IdempotencyKey::random();
        hedged(hedge().methods([Method::POST])).attempt_timeout(ms(400)).idempotency_key(key)
    };
    let own = || config().retry_if(|it| it.default_verdict());
    let of_503 = || config().retry_if(|it| it.status().is_some_and(|it| it == 503));
    for (config, first, hedge, status, sends) in [
        (config(), after(150, 409), after(100, 503), 201, 3),
        (config(), after(150, 409), after(60_000, 201), 201, 3),
        (config(), after(250, 409), after(50, 503), 201, 3),
        (own(), after(150, 409), after(100, 503), 201, 3),
        // The caller's own verdict stands.
        (of_503(), after(150, 409), after(100, 503), 409, 2),
        // Alone it is a conflict with another order.
        (config(), after(50, 409), after(50, 201), 409, 1),
    ] {
        let (client, script) = client(config, [first, hedge, Reply::status(201)]);
        let response = client.post(URL).body("order").send().await.unwrap();
        assert_eq!((response.status().as_u16(), script.sent().len()), (status, sends));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_3_a_race_is_one_turn_of_the_loop() {
    for hedges in [1, 2, 4] {
        let config = hedged(hedge().max_hedges(hedges)).max_retries(2);
        let (client, script) = client(config, [after(1_000, 503)]);
        let response = client.get(URL).send().await.unwrap();
        // The bucket holds three.
        let most = (1 + hedges as usize) * 3;
        let sends = script.sent().len();
        assert!(sends <= most && sends > 3, "{hedges}: {sends}");
        assert_eq!((response.status().as_u16(), response.attempts() as usize), (503, sends));
        let kinds = response.history().unwrap().attempts().iter().map(|it| it.kind);
        let turns = kinds.filter(|it| *it != AttemptKind::Hedge).count();
        assert_eq!(turns, 3, "{hedges}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_first_response_that_is_not_retried_wins() {
    for (first, second, status, took) in [
        (after(500, 200), after(10, 200), 200, 110),
        (after(120, 200), after(500, 200), 200, 120),
        // A failure is passed over while the other is under way.
        (after(120, 503), after(500, 200), 200, 600),
        (after(500, 200), after(10, 503), 200, 500),
        // A final response is one.
        (after(500, 200), after(10, 404), 404, 110),
        (after(120, 404), after(500, 200), 404, 120),
    ] {
        let (client, script) = client(hedged(hedge()), [first, second]);
        let start = Instant::now();
        assert_eq!(super::status(&client).await, status);
        assert_eq!((start.elapsed(), script.sent().len()), (ms(took), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_if_all_fail_one_result_is_judged_and_retried() {
    let hint = |it: Reply| it.header(header::RETRY_AFTER, HeaderValue::from_static("7"));
    let reset = |millis| Reply::io_error(std::io::ErrorKind::ConnectionReset).after(ms(millis));
    for (first, second, judged, wait) in [
        (after(200, 503), hint(after(200, 503)), Ok(503), 7_000),
        (hint(after(200, 503)), after(200, 502), Ok(503), 7_000),
        (reset(200), after(200, 502), Ok(502), 1_000),
        (after(200, 502), reset(50), Ok(502), 1_000),
        (after(200, 502), after(50, 503), Ok(502), 1_000),
        (reset(200), reset(50), Err(FailureKind::Disconnect), 1_000),
    ] {
        let (client, script) = client(hedged(hedge()), [first, second, Reply::status(200)]);
        let log = AttemptLog::new();
        let get = client.get(URL).with_extension(log.clone());
        let response = get.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.attempts()), (200, 3));
        let history = log.history();
        let results: Vec<_> = history.attempts()[..2].iter().map(|it| it.result).collect();
        let judged = judged.map(|it| http::StatusCode::from_u16(it).unwrap());
        assert!(results.contains(&judged), "{history}");
        let ended = *times(&script).last().unwrap();
        let race = ended - wait;
        assert!((150..=300).contains(&race), "{history}");
        assert_eq!(history.attempts()[2].kind, AttemptKind::Retry, "{history}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_failure_before_the_delay_starts_no_hedge() {
    let (client, script) = client(hedged(hedge()), [after(90, 503), after(90, 200)]);
    assert_eq!((status(&client).await, times(&script)), (200, vec![0, 1_090]));
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_caller_s_own_verdict_counts_and_is_asked_once_an_attempt() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let config = hedged(hedge()).retry_if(move |it| {
        count.fetch_add(1, Ordering::Relaxed);
        it.status().is_some_and(|it| it.as_u16() == 204)
    });
    let (client, script) = client(config, [after(500, 200), after(10, 204)]);
    assert_eq!((status(&client).await, script.sent().len()), (200, 2));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// Counts its requests under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_13_losers_are_dropped_before_the_response_is_there() {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, top) = (Arc::clone(&under_way), Arc::clone(&most));
    let script = Script::new([after(500, 200), after(500, 200), after(10, 200)]);
    let counting = does(move |request, extensions, next| {
        top.fetch_max(count.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let place = UnderWay(Arc::clone(&count));
        Box::pin(async move {
            let _place = place;
            next.run(request, extensions).await
        })
    });
    let left = Arc::clone(&under_way);
    let config = hedged(hedge().max_hedges(2)).on_event(move |event| {
        if event.to_string().contains("lost the race") {
            assert_eq!(left.load(Ordering::Relaxed), 0, "recorded after it was dropped");
        }
    });
    let client = ClientBuilder::new(idle_client())
        .with(Resilient::new(config.build().unwrap()))
        .with(counting)
        .with(script.clone())
        .build();
    assert_eq!(status(&client).await, 200);
    assert_eq!((under_way.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn rule_13_losers_say_nothing_to_breaker_and_budget() {
    let hosts = HostStates::new();
    let config = hedged(hedge().share(1.0))
        .circuit_breaker(BreakerConfig::default().or_consecutive(2))
        .retry_budget(BudgetConfig::default().trickle(0.0).deposit(0.5));
    // Every attempt itself fails, after its hedge has been sent, which succeeds.
    let replies = (0..40).flat_map(|_| [after(120, 503), after(100, 200)]);
    let (client, script) = scripted_on(&hosts, config.build().unwrap(), replies);
    for _ in 0..20 {
        assert_eq!(status(&client).await, 200);
    }
    let breaker = hosts.breaker(URL);
    assert_eq!(breaker.state(), BreakerState::Closed);
    let snapshot = breaker.snapshot(Instant::now().into_std());
    assert_eq!(snapshot.permits_out, 0);
    assert_eq!(hosts.budget_left(URL, Instant::now().into_std()), Some(10.0));
    assert_eq!(script.sent().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_loser_is_told_and_kept_in_the_history() {
    let (lines, config) = Lines::of(hedged(hedge()).without_attempt_timeout());
    let (client, _) = client(config, [after(500, 200), after(20, 200)]);
    let response = client.get(URL).send().await.unwrap();
    assert_eq!((response.attempts(), response.hedge_won()), (2, true));
    let history = response.history().unwrap();
    assert_eq!(
        history.to_string(),
        "#1 +0.000s 0.120s superseded (maybe processed)\n\
         #2 +0.100s 0.020s status 200, hedge\n\
         ended: success"
    );
    assert_eq!(
        lines.all(),
        [
            "attempt 1 of 4 at most",
            "hedged by attempt 2 after 0.100s",
            "attempt 2, a hedge",
            "attempt 1 lost the race after 0.120s: superseded (maybe processed)",
            "attempt 2 gave status 200 after 0.020s",
            "success after 2 attempts in 0.120s: status 200",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_13_a_hedge_that_loses_is_told_too() {
    let (lines, config) = Lines::of(hedged(hedge()));
    let (client, _) = client(config, [after(150, 200), after(20, 503)]);
    let log = AttemptLog::new();
    let response = client.get(URL).with_extension(log.clone()).send().await.unwrap();
    assert_eq!((response.attempts(), response.hedge_won()), (2, false));
    assert_eq!(
        log.history().to_string(),
        "#1 +0.000s 0.150s status 200\n#2 +0.100s 0.020s status 503, hedge\nended: success"
    );
    assert_eq!(
        lines.count("attempt 2 lost the race after 0.020s: status 503"),
        1,
        "{lines:?}",
        lines = lines.all()
    );
}

#[derive(Clone, Debug, PartialEq)]
struct Seen(u32);

#[tokio::test(start_paused = true)]
async fn rule_14_each_has_extensions_of_its_own_and_the_winner_s_are_kept() {
    for (replies, winner) in
        [([after(500, 200), after(20, 200)], 1), ([after(150, 200), after(500, 200)], 0)]
    {
        let resends = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&resends);
        let marking = does(move |request, extensions: &mut Extensions, next| {
            let count = extensions.get::<ResendCount>().copied().map(ResendCount::get);
            seen.lock().unwrap().push(count);
            assert_eq!(extensions.get::<Seen>(), Some(&Seen(7)), "the caller's own");
            extensions.insert(Seen(count.unwrap_or(0)));
            Box::pin(async move { next.run(request, extensions).await })
        });
        let script = Script::new(replies);
        let number = HeaderName::from_static("x-attempt");
        let config = hedged(hedge()).attempt_header(number.clone()).build().unwrap();
        let client = ClientBuilder::new(idle_client())
            .with(Resilient::new(config))
            .with(marking)
            .with(script.clone())
            .build();
        let mut extensions = Extensions::new();
        extensions.insert(Seen(7));
        let request = client.get(URL).build().unwrap();
        let response = client.execute_with_extensions(request, &mut extensions).await.unwrap();
        assert_eq!(response.hedge_won(), winner == 1);
        assert_eq!(extensions.get(), Some(&Seen(winner)));
        assert!(extensions.get::<ResendCount>().is_none(), "the next request is no resend");
        assert_eq!(*resends.lock().unwrap(), [None, Some(1)]);
        let numbers: Vec<_> = script.sent().iter().map(|it| it.headers[&number].clone()).collect();
        assert_eq!(numbers, ["1", "2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_15_each_has_its_own_time_and_the_deadline_bounds_all() {
    let config = hedged(hedge()).attempt_timeout(ms(300)).max_retries(0);
    let (client_1, script) = client(config.clone(), [after(5_000, 200), after(250, 200)]);
    let start = Instant::now();
    assert_eq!(status(&client_1).await, 200);
    assert_eq!((start.elapsed(), script.sent().len()), (ms(350), 2), "the attempt ended at 300");

    let (client_2, script) = client(config, [after(5_000, 200)]);
    let start = Instant::now();
    let error = client_2.get(URL).send().await.unwrap_err();
    assert!(error.to_string().contains("timed out after 300 ms"), "{error}");
    assert_eq!((start.elapsed(), script.sent().len()), (ms(400), 2));

    let config = hedged(hedge()).max_total_time(ms(300)).max_retries(3);
    let (client_3, script) = client(config, [after(5_000, 200)]);
    let start = Instant::now();
    let error = client_3.get(URL).send().await.unwrap_err();
    assert!(error.to_string().contains("max_total_time"), "{error}");
    assert_eq!((start.elapsed(), script.sent().len()), (ms(300), 2));
}

#[tokio::test(start_paused = true)]
async fn rule_17_hedges_go_through_the_client_that_is_given() {
    let other = Script::new([after(20, 200)]);
    let through = ClientBuilder::new(idle_client()).with(other.clone()).build();
    let config = hedged(hedge().through(through));
    let (client, script) = client(config, [after(500, 200)]);
    let response = client.get(URL).header("authorization", "a").send().await.unwrap();
    assert!(response.hedge_won());
    assert_eq!((script.sent().len(), other.sent().len()), (1, 1));
    assert_eq!(other.sent()[0].headers["authorization"], "a");
    let failing = Script::new([Reply::io_error(std::io::ErrorKind::ConnectionReset)]);
    let through = ClientBuilder::new(idle_client()).with(failing.clone()).build();
    let (client, _) = super::client(hedged(hedge().through(through)), [after(500, 200)]);
    assert_eq!((status(&client).await, failing.sent().len()), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn rule_20_one_request_may_do_without_and_only_one_of_two_hedges() {
    let (client, script) = client(hedged(hedge()), [after(500, 200)]);
    let without = RetryOverride::new().without_hedge();
    client.get(URL).with_extension(without).send().await.unwrap();
    assert_eq!(script.sent().len(), 1);

    let script = Script::new([after(500, 200)]);
    let inner = Resilient::new(hedged(Hedge::after(ms(10))).build().unwrap());
    let outer = Resilient::new(hedged(hedge()).build().unwrap());
    let both =
        ClientBuilder::new(idle_client()).with(outer).with(inner).with(script.clone()).build();
    assert_eq!((status(&both).await, times(&script)), (200, vec![0, 100]));
}
