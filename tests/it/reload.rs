//! Settings replaced while requests are under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::time::Duration;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    BreakerConfig, BreakerState, BudgetConfig, CircuitBreakers, Constant, Event, HostStates,
    Jitter, Observer, Resilient, ResilientConfig, ResilientConfigBuilder, ResilientHandle,
    ResponseExt, RetryBudget, RetryOverride, Window,
};
use tokio::time::Instant;

use crate::support::URL;

const SECOND: Duration = Duration::from_secs(1);
const HOST: &str = "https://api.example.com";

fn consecutive(failures: u32) -> BreakerConfig {
    BreakerConfig::consecutive(failures)
        .open_for(5 * SECOND)
        .without_open_growth()
        .without_open_jitter()
}

fn steady() -> ResilientConfigBuilder {
    ResilientConfig::builder().backoff(Constant::new(SECOND)).jitter(Jitter::None)
}

fn reloadable(
    config: ResilientConfigBuilder,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script, ResilientHandle) {
    let (resilient, script) = (Resilient::new(config.build().unwrap()), Script::new(replies));
    let handle = resilient.reload_handle();
    let client = ClientBuilder::new(crate::support::idle_client())
        .with(resilient)
        .with(script.clone())
        .build();
    (client, script, handle)
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_keeps_its_settings() {
    let (client, script, handle) = reloadable(steady(), [Reply::status(503)]);
    let reload = async {
        tokio::time::sleep(SECOND / 2).await;
        handle.reload(steady().max_retries(0).build().unwrap());
        client.get(URL).send().await.unwrap()
    };
    let (old, new) = tokio::join!(client.get(URL).send(), reload);
    assert_eq!((old.unwrap().attempts(), new.attempts(), script.sent().len()), (4, 1, 5));
    assert!(format!("{handle:?}").contains("max_retries: 0"));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_open_and_goes_on_under_the_new_rules() {
    let (client, script, handle) =
        reloadable(steady().circuit_breaker(consecutive(2)).max_retries(1), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    assert_eq!(handle.hosts().breaker(HOST).state(), BreakerState::Open);

    let new = CircuitBreakers::per_host(consecutive(9).open_for(60 * SECOND));
    handle.reload(steady().circuit_breaker(new).max_retries(0).build().unwrap());
    client.get(URL).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 2, "rejected: nothing was sent");

    // It was opened for 5 s by the old rules; the failing probe opens it for 60 s by the new ones.
    tokio::time::advance(5 * SECOND).await;
    client.get(URL).send().await.unwrap();
    let snapshot = handle.hosts().breaker(HOST).snapshot(Instant::now());
    assert_eq!((snapshot.state, snapshot.retry_in), (BreakerState::Open, Some(60 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stays_though_the_new_settings_are_in_use_elsewhere() {
    let once = |failures| {
        let breakers = CircuitBreakers::per_host(consecutive(failures));
        steady().circuit_breaker(breakers).max_retries(0)
    };
    let (client, script, handle) = reloadable(once(1), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();

    let (other, _, theirs) = reloadable(once(9), [Reply::status(200)]);
    for _ in 0..2 {
        other.get(URL).send().await.unwrap();
    }
    handle.reload(theirs.config());
    client.get(URL).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 1, "rejected: nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn counts_stay_unless_the_window_is_another() {
    let (client, _, handle) =
        reloadable(steady().circuit_breaker(BreakerConfig::default()), [Reply::status(200)]);
    let total = async |config: BreakerConfig| {
        handle.reload(steady().circuit_breaker(CircuitBreakers::per_host(config)).build().unwrap());
        client.get(URL).send().await.unwrap();
        handle.hosts().breaker(HOST).snapshot(Instant::now()).window.total
    };
    assert_eq!(total(BreakerConfig::default()).await, 1);
    assert_eq!(total(BreakerConfig::default().open_for(SECOND)).await, 2);
    let ten = Window::Count(10);
    assert_eq!(total(BreakerConfig::default().window(ten)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_balance_stays_as_far_as_it_fits() {
    let budget =
        |size| RetryBudget::per_host(BudgetConfig::default().size(size).trickle(0.0).deposit(0.0));
    let config = |budget| steady().without_circuit_breaker().retry_budget(budget);
    let (client, _, handle) = reloadable(config(budget(10)), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    let balance = || handle.hosts().budget_left(HOST, Instant::now()).unwrap();
    assert_eq!(balance(), 7.0);
    handle.reload(config(budget(100)).build().unwrap());
    assert_eq!(balance(), 7.0);
    handle.reload(config(budget(2)).build().unwrap());
    client.get(URL).send().await.unwrap();
    assert_eq!(balance(), 0.0, "two retries were left");
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_stays_closed() {
    let busy = Reply::status(429).header(http::header::RETRY_AFTER, "30".parse().unwrap());
    let (client, script, handle) = reloadable(steady().max_retries(0), [busy, Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    handle.reload(steady().max_wait_time(20 * SECOND).build().unwrap());
    client.get(URL).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_gets_a_rule_of_its_own_keeps_its_state() {
    let (client, script, handle) = reloadable(
        steady().circuit_breaker(CircuitBreakers::per_host(consecutive(1))).max_retries(0),
        [Reply::status(503)],
    );
    client.get(URL).send().await.unwrap();
    let own = consecutive(7).open_for(9 * SECOND);
    let host = RetryOverride::new().max_retries(0).circuit_breaker(own);
    let config = steady().circuit_breaker(BreakerConfig::default()).host("api.example.com", host);
    handle.reload(config.build().unwrap());
    client.get(URL).send().await.unwrap_err();
    assert_eq!(script.sent().len(), 1);
    tokio::time::advance(5 * SECOND).await;
    client.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_one_client_leaves_the_rules_of_another_that_shares_its_hosts() {
    let hosts = HostStates::new();
    let client = |failures, replies: &[u16]| {
        let config = steady().circuit_breaker(consecutive(failures)).max_retries(0);
        let resilient = Resilient::new(config.build().unwrap()).with_hosts(hosts.clone());
        let script = Script::new(replies.iter().map(|it| Reply::status(*it)));
        let handle = resilient.reload_handle();
        let client = ClientBuilder::new(crate::support::idle_client()).with(resilient).with(script);
        (client.build(), handle)
    };
    let (one, handle) = client(9, &[503]);
    let (other, _) = client(3, &[503]);
    handle.reload(steady().circuit_breaker(consecutive(50)).max_retries(0).build().unwrap());
    one.get(URL).send().await.unwrap();
    other.get(URL).send().await.unwrap();
    assert_eq!(hosts.breaker(HOST).state(), BreakerState::Closed);
    other.get(URL).send().await.unwrap();
    assert_eq!(hosts.breaker(HOST).state(), BreakerState::Open, "three in a row, by its own rule");
}

#[tokio::test(start_paused = true)]
async fn old_settings_are_dropped_with_all_they_hold() {
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let config = steady().on_request(move |_| drop(Arc::clone(&holds)));
    let (client, _, handle) = reloadable(config, [Reply::status(200)]);
    for _ in 0..2 {
        client.get(URL).send().await.unwrap();
        handle.reload(steady().build().unwrap());
    }
    assert_eq!(Arc::strong_count(&held), 1);
}

/// Two configs that differ in everything a request can show, reloaded in turn under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_sees_a_mixture() {
    let mixed = Arc::new(AtomicBool::new(false));
    let config = |retries: u32, host_retries: u32| {
        let mixed = Arc::clone(&mixed);
        let watch = move |event: &Event<'_>| {
            let seen = match event {
                Event::AttemptStarted(info) => info.max_retries,
                Event::GaveUp(info) => {
                    if info.attempts != info.max_retries + 1 {
                        mixed.store(true, Ordering::Relaxed);
                    }
                    info.max_retries
                }
                _ => return,
            };
            if seen != retries && seen != host_retries {
                mixed.store(true, Ordering::Relaxed);
            }
        };
        ResilientConfig::builder()
            .max_retries(retries)
            .backoff(Constant::new(Duration::ZERO))
            .circuit_breaker(CircuitBreakers::per_host(
                BreakerConfig::consecutive(u32::MAX).open_for(SECOND * (retries + 1)),
            ))
            .retry_budget(RetryBudget::per_host(BudgetConfig::default().size(u32::MAX)))
            .host("b.example", RetryOverride::new().max_retries(host_retries))
            .on_event(watch)
    };
    let (client, script, handle) = reloadable(config(1, 2), [Reply::status(503)]);
    let done = Arc::new(AtomicBool::new(false));
    let configs = [(3, 4), (1, 2)].map(|(a, b)| config(a, b).build().unwrap());
    let reloading = tokio::task::spawn_blocking({
        let done = Arc::clone(&done);
        move || {
            for config in configs.iter().cycle().take(500) {
                handle.reload(config.clone());
                std::thread::sleep(Duration::from_micros(200));
            }
            done.store(true, Ordering::Relaxed);
        }
    });
    let senders: Vec<_> = (0..32)
        .map(|i| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let url = if i % 2 == 0 { "http://a.example/" } else { "http://b.example/" };
                while !done.load(Ordering::Relaxed) {
                    client.get(url).send().await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    reloading.await.unwrap();
    assert!(!mixed.load(Ordering::Relaxed));
    assert!(script.sent().len() > 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_known_of_hosts_outlives_reloading_under_load() {
    let breakers = consecutive(1).open_for(600 * SECOND);
    let frozen = BudgetConfig::default().size(10).trickle(0.0).deposit(0.0);
    let config = |breakers: BreakerConfig, budget: BudgetConfig| {
        ResilientConfig::builder().max_retries(0).circuit_breaker(breakers).retry_budget(budget)
    };
    let (client, _, handle) =
        reloadable(config(breakers, frozen), [Reply::status(503), Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    client.get("http://1.example/").send().await.unwrap();
    let hosts = handle.hosts().clone();
    assert_eq!(hosts.breaker(HOST).state(), BreakerState::Open);
    assert_eq!(hosts.budget_left("http://1.example", Instant::now()), Some(10.0));

    let reloading = tokio::task::spawn_blocking(move || {
        for open in 1..500 {
            let breakers = consecutive(open).open_for(SECOND * open);
            handle.reload(config(breakers, frozen.size(10 + open)).build().unwrap());
        }
    });
    let mut senders = tokio::task::JoinSet::new();
    for i in 0..16 {
        let client = client.clone();
        senders.spawn(async move {
            for _ in 0..200 {
                client.get(URL).send().await.unwrap_err();
                client.get(format!("http://{i}.example/")).send().await.unwrap();
            }
        });
    }
    senders.join_all().await;
    reloading.await.unwrap();
    let now = Instant::now();
    assert_eq!(hosts.breaker(HOST).state(), BreakerState::Open);
    assert!(hosts.snapshot(now).iter().all(|it| it.permits_out == 0));
    assert_eq!(hosts.snapshot(now).len(), 17);
    assert_eq!(hosts.budget_left("http://1.example", now), Some(10.0));
}

/// Counts what a program adds in code: callbacks, observers and predicates.
#[derive(Clone, Default)]
struct Counts {
    retries: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    reloads: Arc<AtomicUsize>,
}

impl Counts {
    fn config(&self) -> ResilientConfigBuilder {
        let Self { retries, failures, asked, reloads } = self.clone();
        let count = |it: &AtomicUsize| _ = it.fetch_add(1, Ordering::Relaxed);
        steady()
            .max_retries(1)
            .on_retry(move |_| count(&retries))
            .retry_if(move |outcome| {
                count(&asked);
                outcome.status().is_some_and(|it| it == 503)
            })
            .on_event(move |event| match event {
                Event::GaveUp(_) => count(&failures),
                Event::Reloaded => count(&reloads),
                _ => {}
            })
    }

    fn get(&self) -> [usize; 4] {
        let all = [&self.retries, &self.failures, &self.asked, &self.reloads];
        all.map(|it| it.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_setting_keeps_the_code() {
    let counts = Counts::default();
    let (client, script, handle) = reloadable(counts.config(), [Reply::status(503)]);
    handle.reload_with(|it| it.to_builder().max_retries(2).build()).unwrap();
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), counts.get()), (3, [2, 1, 3, 1]));

    let refused = handle.reload_with(|it| it.to_builder().max_wait_time(Duration::ZERO).build());
    assert_eq!(refused.unwrap_err().to_string(), "max_wait_time must be > 0, got 0ns");
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), counts.get()), (6, [4, 2, 6, 1]), "the old ones stay");
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_file_that_is_read_again_keeps_the_code() {
    use reqwest_resilient::file::RawConfig;

    let counts = Counts::default();
    let code = counts.config().max_retries(9).build().unwrap();
    let read = |text: &str| -> RawConfig { toml::from_str(text).unwrap() };
    let config = read("max_retries = 1").over_config(&code).unwrap();
    let (client, script, handle) = reloadable(config.to_builder(), [Reply::status(503)]);
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), counts.get()), (2, [1, 1, 2, 0]));

    handle.reload(read("max_retries = 0").over_config(&code).unwrap());
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), counts.get()), (3, [1, 2, 3, 1]));

    handle.reload_with(|it| read("attempt_timeout = '9s'").over_config(it)).unwrap();
    assert!(format!("{handle:?}").contains("max_retries: 0"), "laid over what was in force");
    handle.reload(read("preset = 'default'\nmax_retries = 1").over_config(&code).unwrap());
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len(), counts.get()), (5, [2, 3, 5, 3]), "a preset, too");
    assert!(!format!("{handle:?}").contains("9s"), "{handle:?}");
}

#[test]
fn reloads_at_once_lose_no_change() {
    const EACH: u32 = 200;
    let (_, _, handle) = reloadable(steady().max_retries(0), [Reply::status(200)]);
    let calls = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let more = |it: &ResilientConfig| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        let shown = format!("{it:?}");
                        let (_, rest) = shown.split_once("max_retries: ").unwrap();
                        let retries: u32 = rest.split(',').next().unwrap().parse().unwrap();
                        it.to_builder().max_retries(retries + 1).build()
                    };
                    handle.reload_with(more).unwrap();
                }
            });
        }
    });
    assert!(format!("{handle:?}").contains(&format!("max_retries: {},", 4 * EACH)), "{handle:?}");
    assert!(calls.into_inner() >= 4 * EACH as usize);
}

#[test]
fn a_change_may_use_the_handle_and_observers_of_old_settings_hear_of_new_ones() {
    let (old, new) = (Counts::default(), Counts::default());
    let (_, _, handle) = reloadable(old.config(), [Reply::status(200)]);
    let mut calls = 0;
    let change = |_: &ResilientConfig| {
        calls += 1;
        if calls == 1 {
            handle.reload(steady().max_retries(7).build().unwrap());
        }
        new.config().build()
    };
    handle.reload_with(change).unwrap();
    assert_eq!((calls, old.get()[3], new.get()[3]), (2, 1, 1));
}

#[test]
fn observers_of_hosts_hear_of_reloads_and_each_observer_once() {
    let heard = Arc::new([(); 4].map(|()| AtomicUsize::new(0)));
    let observer = |at: usize| {
        let heard = Arc::clone(&heard);
        move |event: &Event<'_>| {
            if matches!(event, Event::Reloaded) {
                heard[at].fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let config = |general: usize, of_host: usize| {
        let own = RetryOverride::new().on_event(observer(of_host));
        let builder = steady().on_event(observer(general)).host("a.example", own);
        builder.host("*.example", RetryOverride::new().max_retries(1))
    };
    let (_, _, handle) = reloadable(config(0, 1), [Reply::status(200)]);
    let mut counts = [0; 4];
    let mut check = |added: [usize; 4], why| {
        counts.iter_mut().zip(added).for_each(|(it, added)| *it += added);
        assert_eq!(heard.each_ref().map(|it| it.load(Ordering::Relaxed)), counts, "{why}");
    };
    handle.reload(handle.config());
    check([1, 1, 0, 0], "the same settings");
    handle.reload_with(|it| it.to_builder().max_retries(1).build()).unwrap();
    check([1, 1, 0, 0], "settings with the same observers");
    handle.reload(config(2, 3).build().unwrap());
    check([1, 1, 1, 1], "old and new");
    handle.reload(steady().build().unwrap());
    check([0, 0, 1, 1], "new ones without observers");
}

/// Counts what it observes.
#[derive(Default)]
struct Counter {
    reloads: AtomicUsize,
    others: AtomicUsize,
}

impl Observer for Counter {
    fn on_event(&self, event: &Event<'_>) {
        let count = match event {
            Event::Reloaded => &self.reloads,
            _ => &self.others,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_shared_by_an_arc_and_is_the_same_after_a_reload() {
    let shared = Arc::new(Counter::default());
    let erased: Arc<dyn Observer> = Arc::<Counter>::clone(&shared);
    let config = || steady().observer(Arc::clone(&shared));
    let (client, _, handle) = reloadable(config(), [Reply::status(200)]);
    client.get(URL).send().await.unwrap();
    let seen = shared.others.load(Ordering::Relaxed);
    assert!(seen > 0);
    handle.reload(config().build().unwrap());
    // As an object it is still that observer.
    handle.reload(steady().observer(erased).build().unwrap());
    assert_eq!(shared.reloads.load(Ordering::Relaxed), 2);
    client.get(URL).send().await.unwrap();
    assert!(shared.others.load(Ordering::Relaxed) > seen);
}
