//! What each preset promises.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use http::{Extensions, HeaderValue, header};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_resilient::{
    HttpRequestError, RequestBuilderExt, Resilient, ResilientClient, ResilientConfig, ResponseExt,
    testing::{self, Reply, Script},
};
use tokio::time::{Instant, sleep};

use crate::support::reply::{End, Reply as Wire};
use crate::support::server::Server;
use crate::support::{URL, fault, idle_client, scripted};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn hinted(status: u16, after: u64) -> Reply {
    Reply::status(status).header(header::RETRY_AFTER, HeaderValue::from(after))
}

/// The statuses of a request, and how long it took.
async fn ask(client: &ClientWithMiddleware) -> (Result<Response, HttpRequestError>, Duration) {
    let start = Instant::now();
    let result = client.get(URL).send_resilient().await;
    (result, start.elapsed())
}

/// A host that is down for a while: the end of a chain, with 100 ms a response.
#[derive(Clone)]
struct Host {
    start: Instant,
    down: std::ops::Range<Duration>,
    /// The response while it is down; without one, connections fail.
    status: Option<u16>,
    sent: Arc<Mutex<Vec<Duration>>>,
}

impl Host {
    fn down(down: std::ops::Range<Duration>, status: Option<u16>) -> Self {
        Self { start: Instant::now(), down, status, sent: Arc::default() }
    }

    /// Returns a client whose draws are spread evenly, and the same each time.
    fn client(&self, config: ResilientConfig) -> ClientWithMiddleware {
        let draws = AtomicU32::new(0);
        let draw = move || (f64::from(draws.fetch_add(1, Ordering::Relaxed)) * 0.618_034).fract();
        let config = config.to_builder().random(draw).build().unwrap();
        let client = ClientBuilder::new(idle_client()).with(Resilient::new(config));
        client.with(self.clone()).build()
    }

    fn sent(&self) -> Vec<Duration> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Middleware for Host {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let at = self.start.elapsed();
        self.sent.lock().unwrap().push(at);
        sleep(Duration::from_millis(100)).await;
        let is_down = self.down.contains(&at);
        if is_down && self.status.is_none() {
            return Err(testing::io_error(std::io::ErrorKind::ConnectionRefused));
        }
        let status = self.status.filter(|_| is_down).unwrap_or(200);
        let script = Script::new([Reply::status(status)]);
        let client = ClientBuilder::new(idle_client()).with(script).build();
        client.execute(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn batch_retries_ten_times() {
    let (client, script) = scripted(ResilientConfig::batch(), [Reply::status(500)]);
    assert_eq!(ask(&client).await.0.unwrap_err().attempts(), 11);
    assert_eq!(script.sent().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn batch_waits_a_quarter_of_an_hour_for_a_hint() {
    for status in [429, 503] {
        let replies = [hinted(status, 900), Reply::status(200)];
        let (client, _) = scripted(ResilientConfig::batch(), replies);
        let (result, took) = ask(&client).await;
        assert_eq!(result.unwrap().attempts(), 2);
        assert!((secs(900)..=secs(905)).contains(&took), "{took:?}");

        let (client, _) = scripted(ResilientConfig::batch(), [hinted(status, 901)]);
        let (result, took) = ask(&client).await;
        assert_eq!((result.unwrap_err().attempts(), took), (1, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn batch_pays_for_200_retries_and_three_for_each_that_succeeds() {
    let config = ResilientConfig::batch().to_builder().without_circuit_breaker();
    let config = config.max_open_wait(Duration::ZERO).build().unwrap();
    let (client, script) = scripted(config, [Reply::status(500)]);
    join_all((0..250).map(|_| ask(&client))).await;
    assert_eq!(script.sent().len(), 250 + 200);
}

#[tokio::test(start_paused = true)]
async fn batch_waits_out_an_outage_of_a_host_that_has_responded() {
    for status in [None, Some(503)] {
        let host = Host::down(secs(1)..secs(50), status);
        let client = host.client(ResilientConfig::batch());
        ask(&client).await.0.unwrap();
        sleep(secs(1)).await;
        let (before, ended) = (host.sent().len(), join_all((0..100).map(|_| ask(&client))).await);
        for (result, took) in ended {
            result.unwrap();
            assert!((secs(45)..secs(62)).contains(&took), "{took:?}");
        }
        let in_vain = host.sent().iter().skip(before).filter(|it| **it < secs(50)).count();
        assert!(in_vain <= 100 + 200 + 40, "no storm: {in_vain}");
    }
}

#[tokio::test(start_paused = true)]
async fn batch_gives_up_after_a_minute_at_a_breaker() {
    let host = Host::down(secs(1)..secs(10_000), None);
    let client = host.client(ResilientConfig::batch());
    ask(&client).await.0.unwrap();
    sleep(secs(1)).await;
    join_all((0..20).map(|_| ask(&client))).await;
    let (result, took) = ask(&client).await;
    let error = result.unwrap_err();
    assert!(took <= secs(200), "{took:?} {error}");
}

#[tokio::test(start_paused = true)]
async fn batch_waits_for_no_host_that_never_responded() {
    let host = Host::down(secs(0)..secs(10_000), None);
    let client = host.client(ResilientConfig::batch());
    join_all((0..20).map(|_| ask(&client))).await;
    let (sent, start) = (host.sent().len(), Instant::now());
    let mut rejected = 0;
    for _ in 0..100 {
        rejected += usize::from(ask(&client).await.0.unwrap_err().is_circuit_open());
    }
    // All but a probe at most, which has no time to wait either.
    assert!(rejected >= 99, "{rejected}");
    assert!(host.sent().len() <= sent + 1 && start.elapsed() < secs(1));
}

#[tokio::test(start_paused = true)]
async fn batch_leaves_a_host_that_never_responded_within_seconds() {
    for start in 0..20 {
        let host = Host::down(secs(0)..secs(10_000), None);
        let client = host.client(ResilientConfig::batch());
        let asks = (0..25).map(|number| {
            let client = client.clone();
            async move {
                sleep(Duration::from_millis(150 * number + start)).await;
                ask(&client).await
            }
        });
        for (result, took) in join_all(asks).await {
            let error = result.unwrap_err();
            // The longest backoff that begins before the breaker opens.
            assert!(took <= secs(8), "{took:?}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batch_returns_like_slow_start_over_ten_seconds_at_most() {
    let host = Host::down(secs(1)..secs(20), None);
    let client = host.client(ResilientConfig::batch());
    ask(&client).await.0.unwrap();
    sleep(secs(1)).await;
    let ended = join_all((0..200).map(|_| ask(&client))).await;
    assert!(ended.iter().all(|it| it.0.is_ok()));
    let back: Vec<_> = host.sent().into_iter().filter(|it| *it >= secs(20)).collect();
    // A probe, then one, two, four, …: a round is a response, 100 ms.
    let mut most = 1;
    for round in 0..5 {
        let end = back[0] + Duration::from_millis(100 * round + 50);
        let count = back.iter().filter(|it| **it < end).count();
        assert!(count <= most, "round {round}: {count} of {most} at most\n{back:?}");
        most *= 2;
    }
    let took = back[199] - back[0];
    assert!(secs(7) < took && took < secs(12), "they waited for 18 s: {took:?}");
    for second in 0..8 {
        let within =
            |it: &&Duration| secs(second) <= **it - back[0] && **it - back[0] < secs(second + 1);
        assert!(back.iter().filter(within).count() <= 40, "a fifth at most: {back:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn batch_returns_before_its_deadline() {
    let host = Host::down(secs(1)..secs(7), None);
    let limited = ResilientConfig::batch().to_builder().max_total_time(secs(12)).build().unwrap();
    let client = host.client(limited);
    ask(&client).await.0.unwrap();
    sleep(secs(1)).await;
    let ended = join_all((0..200).map(|_| ask(&client))).await;
    assert!(ended.iter().all(|it| it.1 <= secs(12)), "{:?}", ended.iter().map(|it| it.1).max());
    let good = ended.iter().filter(|it| it.0.is_ok()).count();
    assert!(good > 150, "{good}");
}

#[tokio::test]
async fn batch_retries_a_body_that_breaks_off() {
    let broken = Wire::status(200).body("hello").cut_body(2, End::Reset);
    let server = Server::h1([broken.into(), Wire::status(200).body("hello").into()]);
    let client = ResilientClient::new(ResilientConfig::batch()).unwrap();
    let response = client.get(server.url("/")).send_resilient().await.unwrap();
    assert_eq!((response.attempts(), response.text().await.unwrap()), (2, "hello".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn service_ends_at_its_deadline_and_tells_the_server() {
    let config = ResilientConfig::service(secs(2));
    let (client, script) = scripted(config, [Reply::status(200).after(secs(60))]);
    let (result, took) = ask(&client).await;
    assert!(result.unwrap_err().is_deadline());
    assert_eq!(took, secs(2));
    assert_eq!(script.sent()[0].headers["grpc-timeout"], "2000000u");
}

#[tokio::test(start_paused = true)]
async fn service_retries_twice_within_moments() {
    let config = ResilientConfig::service(secs(2));
    let (client, script) = scripted(config, [Reply::status(503)]);
    let (result, took) = ask(&client).await;
    assert_eq!((result.unwrap_err().attempts(), script.sent().len()), (3, 3));
    assert!(took <= Duration::from_millis(50 + 100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn service_waits_a_tenth_of_its_deadline_for_a_hint() {
    for (after, attempts) in [(1, 2), (2, 1)] {
        let config = ResilientConfig::service(secs(10));
        let (client, _) = scripted(config, [hinted(429, after), Reply::status(200)]);
        let (result, took) = ask(&client).await;
        assert_eq!(result.map_or_else(|it| it.attempts(), |it| it.attempts()), attempts);
        assert!(took <= Duration::from_millis(1_250), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn service_ends_within_its_deadline_while_its_host_is_down() {
    for deadline in [200, 1_800, 5_000].map(Duration::from_millis) {
        let host = Host::down(secs(0)..secs(10_000), None);
        let client = host.client(ResilientConfig::service(deadline));
        for _ in 0..100 {
            let (result, took) = ask(&client).await;
            result.unwrap_err();
            assert!(took <= deadline, "{took:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sixty requests a second through an outage: half of those of its last second wait it out at least, and
/// none is lost that begins once the host is back.
#[tokio::test(start_paused = true)]
async fn service_loses_no_request_once_its_host_is_back() {
    for (length, status, most) in
        [(1, Some(503), 30), (1, None, 30), (5, Some(503), 300), (5, None, 300)]
    {
        let back = secs(5 + length);
        let host = Host::down(secs(5)..back, status);
        let client = host.client(ResilientConfig::service(Duration::from_millis(1_800)));
        let requests = (0..60 * (8 + length)).map(|i| {
            let (client, start) = (client.clone(), host.start);
            async move {
                tokio::time::sleep_until(start + Duration::from_secs(1) * i as u32 / 60).await;
                (start.elapsed(), ask(&client).await.0.is_err())
            }
        });
        let ended = join_all(requests).await;
        let lost: Vec<_> = ended.into_iter().filter(|it| it.1).map(|it| it.0).collect();
        assert!(lost.len() <= most, "{length} s, {status:?}: {}", lost.len());
        assert!(lost.iter().all(|it| *it < back), "{length} s, {status:?}: {:?}", lost.last());
    }
}

#[tokio::test(start_paused = true)]
async fn no_deadline_of_a_service_is_invalid() {
    for deadline in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        drop(ResilientConfig::service(deadline).to_builder().build().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn plain_retries_three_times_whatever_becomes_of_others() {
    for status in [408, 429, 500, 501, 505, 599] {
        let (client, script) = scripted(ResilientConfig::plain(), [hinted(status, 3_000)]);
        let ended = join_all((0..100).map(|_| ask(&client))).await;
        assert!(ended.iter().all(|it| it.1 <= Duration::from_millis(2_100)), "deaf to hints");
        assert_eq!(script.sent().len(), 400, "{status}: no breaker, no budget, no gate");
    }
    for status in [403, 404, 425] {
        let (client, script) = scripted(ResilientConfig::plain(), [Reply::status(status)]);
        let _ = ask(&client).await;
        assert_eq!(script.sent().len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_sends_no_post_twice_that_may_have_been_processed() {
    let reset = || Reply::io_error(std::io::ErrorKind::ConnectionReset);
    for reply in [reset(), Reply::status(503), Reply::error(|| fault::reset().into())] {
        let (client, script) = scripted(ResilientConfig::plain(), [reply]);
        let _ = client.post(URL).body("once").send().await;
        assert_eq!(script.sent().len(), 1);
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_file_names_every_preset() {
    let presets = [
        ("preset = 'default'", ResilientConfig::default()),
        ("preset = 'batch'", ResilientConfig::batch()),
        ("preset = 'plain'", ResilientConfig::plain()),
        ("preset = 'aresilient'", ResilientConfig::aresilient()),
        ("preset = 'service'\nmax_total_time = '2s'", ResilientConfig::service(secs(2))),
    ];
    for (text, config) in presets {
        let read: ResilientConfig = toml::from_str(text).unwrap();
        assert_eq!(format!("{read:#?}"), format!("{config:#?}"), "{text}");
    }
    for text in ["preset = 'service'", "preset = 'service'\nmax_total_time = false"] {
        let error = toml::from_str::<ResilientConfig>(text).unwrap_err().to_string();
        assert!(error.contains("preset needs max_total_time"), "{error}");
    }
}
