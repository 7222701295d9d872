//! A rate that a fleet keeps together.

use reqwest_resilient::{Rate, RateLimit};

use super::*;

const LIMIT: u32 = 1_000;

/// A generator of numbers from 0 to 1, the same in each run.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn limited(limit: RateLimit) -> ResilientConfig {
    lenient().rate_limit(limit).build().unwrap()
}

/// Returns the share of requests that are refused, and those sent as a share of the limit, of a fleet
/// that is asked for `demand` times the limit; of the ten seconds that begin `from` seconds after it.
async fn measure(count: usize, demand: f64, limit: &RateLimit, from: f64) -> (f64, f64) {
    let (store, service, random) =
        (InProcessFleet::new(), Service::default(), &mut Random(count as u64));
    store.set_delay(millis(10));
    let node = |_| node_of(&Fleet::new(store.clone()), limited(limit.clone()), &service);
    let nodes: Vec<_> = (0..count).map(node).collect();
    let (start, mut at, mut asked, mut before) = (Instant::now(), 0.0, 0, None);
    while at < from + 10.0 {
        at += 1.0 / (demand * f64::from(LIMIT));
        tokio::time::sleep_until(start + Duration::from_secs_f64(at)).await;
        if at >= from {
            before.get_or_insert_with(|| service.arrived());
            asked += 1;
        }
        // Some nodes are asked for much more than others.
        let node = &nodes[(random.unit().powi(2) * count as f64) as usize];
        let client = node.client.clone();
        tokio::spawn(async move { drop(client.get(URL).send().await) });
    }
    let sent = (service.arrived() - before.unwrap()) as f64;
    (1.0 - sent / f64::from(asked), sent / 10.0 / f64::from(LIMIT))
}

#[tokio::test(start_paused = true)]
async fn a_fleet_refuses_little_below_its_rate_and_sends_it_above() {
    let limit = RateLimit::fleet(Rate::per_second(LIMIT)).max_wait(Duration::ZERO);
    for count in [5, 50, 500] {
        let (refused, _) = measure(count, 0.9, &limit, 4.0).await;
        let (_, sent) = measure(count, 1.5, &limit, 4.0).await;
        println!("{count} nodes: {refused:.4} refused at .9, {sent:.3} sent at 1.5");
        assert!(refused <= 0.01, "{count} nodes refuse {refused:.4} at 90 %");
        assert!((0.98..=1.02).contains(&sent), "{count} nodes send {sent:.3} at 150 %");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_may_wait_ask_again() {
    let limit = RateLimit::fleet(Rate::per_second(LIMIT)).max_wait(secs(2));
    // What waits asks again, and is demand that the fleet hears of a second later: that takes longer to
    // settle.
    let (_, sent) = measure(50, 1.5, &limit, 12.0).await;
    assert!((0.97..=1.04).contains(&sent), "{sent:.3}");
}

#[tokio::test(start_paused = true)]
async fn without_a_fleet_a_client_keeps_the_whole_rate_by_itself() {
    let service = Service::default();
    let config = limited(RateLimit::fleet(Rate::per_second(10)));
    let resilient = Resilient::new(config);
    let client = ClientBuilder::new(idle_client()).with(resilient).with(service.clone()).build();
    let began = Instant::now();
    for _ in 0..21 {
        client.get(URL).send().await.unwrap();
    }
    assert_eq!(began.elapsed(), secs(2) + millis(10));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_lose_their_store_keep_to_an_even_share() {
    let (store, service) = (Wrapped::new(), Service::default());
    let config = || limited(RateLimit::fleet(Rate::per_second(20)));
    let node = |_| node_of(&Fleet::new(store.clone()), config(), &service);
    let nodes: Vec<_> = (0..4).map(node).collect();
    all_send(&nodes, 30, millis(90)).await;
    store.set_hanging(true);
    sleep(secs(30)).await;
    let (before, began) = (service.arrived(), Instant::now());
    let sending = nodes.iter().map(|it| it.send(20, Duration::ZERO));
    futures_util::future::join_all(sending).await;
    let rate = (service.arrived() - before) as f64 / began.elapsed().as_secs_f64();
    assert!((18.0..=22.0).contains(&rate), "{rate:.1} a second");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_another_scope_holds_beside_that_of_the_fleet() {
    let store = InProcessFleet::new();
    for limit in [
        RateLimit::fleet(Rate::per_second(LIMIT)).also(RateLimit::shared(Rate::per_second(2))),
        RateLimit::shared(Rate::per_second(2)).also(RateLimit::fleet(Rate::per_second(LIMIT))),
    ] {
        let service = Service::default();
        let node = node_of(&Fleet::new(store.clone()), limited(limit), &service);
        // The fleet has no say at first, and then lets all go.
        let began = Instant::now();
        for _ in 0..21 {
            node.client.get(URL).send().await.unwrap();
        }
        assert_eq!(began.elapsed(), secs(10) + millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_is_settled_as_a_share() {
    let (store, service) = (Wrapped::new(), Service::default());
    let rate = || Rate::per_second(20).cost(|_| 2).settle(|_| Some(2));
    let config = || limited(RateLimit::fleet(rate()));
    let node = |_| node_of(&Fleet::new(store.clone()), config(), &service);
    let nodes: Vec<_> = (0..4).map(node).collect();
    all_send(&nodes, 30, millis(180)).await;
    store.set_hanging(true);
    sleep(secs(30)).await;
    // Alone, each sends a fourth of ten attempts a second.
    let (before, began) = (service.arrived(), Instant::now());
    nodes[0].send(11, Duration::ZERO).await;
    let rate = (service.arrived() - before) as f64 / began.elapsed().as_secs_f64();
    assert!((2.2..=2.9).contains(&rate), "{rate:.1} a second");
}
