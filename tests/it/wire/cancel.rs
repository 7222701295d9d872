//! A request dropped at any of its polls leaves nothing behind.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use reqwest::Body;
use reqwest_middleware::RequestBuilder;
use reqwest_resilient::testing::Reply as Mock;
use reqwest_resilient::{
    BodyFactory, BreakerConfig, BreakerState, BudgetConfig, CircuitBreaker, Event, HostStates,
    ResilientConfigBuilder, ResponseExt, RetryBudget,
};
use tokio::time::{Instant, sleep};

use super::{ms, plain, quick, resilient_on};
use crate::support::reply::{End, Reply, Step};
use crate::support::server::Server;
use crate::support::{URL, scripted_on};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn no_permit_and_no_token_is_left_without_a_network() {
    let replies = || {
        let hint = HeaderValue::from_static("1");
        [
            Mock::status(503).after(SECOND),
            Mock::status(429).header(header::RETRY_AFTER, hint).after(SECOND),
            Mock::io_error(std::io::ErrorKind::ConnectionReset),
            Mock::status(200).after(SECOND),
        ]
    };
    let polls = at_every_poll(async |polls| {
        let kept = Kept::new(BreakerConfig::consecutive(20));
        let config = kept.config().gate().max_retries(3).max_total_time(60 * SECOND);
        let (client, _) = scripted_on(&kept.hosts, config.build().unwrap(), replies());
        let ended = within(polls, client.put(URL).with_extension(upload())).await;
        kept.check();
        ended
    })
    .await;
    assert!(polls > 10, "{polls} polls");
}

#[tokio::test(start_paused = true)]
async fn no_place_of_a_probe_is_left() {
    let rule = BreakerConfig::consecutive(1).open_for(SECOND);
    let polls = at_every_poll(async |polls| {
        let kept = Kept::new(rule.clone().without_open_jitter());
        let config = kept.config().build().unwrap();
        let (client, script) = scripted_on(&kept.hosts, config, [Mock::status(200).after(SECOND)]);
        let now = Instant::now();
        kept.breaker.try_enter(now).unwrap().failure(now);
        sleep(SECOND).await;

        let ended = within(polls, client.put(URL).with_extension(upload())).await;
        assert_eq!(kept.breaker.snapshot(Instant::now()).probes_out, 0);
        kept.check();
        // Its place is free for the next one.
        client.get(URL).send().await.unwrap();
        assert_eq!(kept.breaker.state(), BreakerState::Closed);
        assert!(!script.sent().is_empty());
        ended
    })
    .await;
    assert!(polls > 2, "{polls} polls");
}

#[tokio::test]
async fn no_connection_is_left_for_a_later_request_to_trip_over() {
    let polls = at_every_poll(async |polls| {
        let kept = Kept::new(BreakerConfig::consecutive(20));
        let server = Server::h1([failing_at_first()]);
        let client = resilient_on(&kept.hosts, kept.config().max_retries(9), plain());
        let ended = within(polls, client.put(server.url("/bad")).with_extension(upload())).await;
        kept.check();

        let later = client.put(server.url("/good")).body("later").send().await.unwrap();
        assert_eq!((later.status().as_u16(), later.attempts()), (200, 1));
        assert_eq!(later.text().await.unwrap(), "later");
        kept.check();
        ended
    })
    .await;
    assert!(polls > 5, "{polls} polls");
}

/// Echoes the request, but `/bad` only after a few failures.
fn failing_at_first() -> Step {
    let failures = AtomicUsize::new(0);
    Step::ask(move |seen| {
        let echo = Reply::status(200).body(seen.body.clone()).body_late(ms(1));
        if seen.path == "/good" {
            return echo;
        }
        match failures.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::status(503).body(vec![b'x'; 4 << 10]).body_late(ms(2)),
            1 => echo.cut_head(End::Reset),
            2 => Reply::status(503).chunked(vec![b'x'; 100 << 10]),
            3 => Reply::status(503).body("hello").cut_body(2, End::Close),
            _ => echo,
        }
    })
}

/// Drops a request after each number of polls, until it ends before; gives how many it took.
async fn at_every_poll(request: impl AsyncFn(usize) -> bool) -> usize {
    let mut polls = 0;
    while !request(polls).await {
        polls += 1;
        assert!(polls < 1_000, "the request ends");
    }
    polls
}

/// Returns whether a request ends within so many polls; otherwise drops it.
async fn within(mut polls: usize, request: RequestBuilder) -> bool {
    let mut sent = pin!(async { request.send().await.unwrap().bytes().await.unwrap() });
    poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(false);
        }
        polls -= 1;
        match sent.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            // The last poll: there is no wait for another wake.
            Poll::Pending if polls == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The state that outlives a request.
struct Kept {
    breaker: CircuitBreaker,
    hosts: HostStates,
    begun: Arc<AtomicUsize>,
    invited: Arc<AtomicUsize>,
}

impl Kept {
    fn new(rule: BreakerConfig) -> Self {
        Self {
            breaker: CircuitBreaker::new(rule).unwrap(),
            hosts: HostStates::new(),
            begun: Arc::default(),
            invited: Arc::default(),
        }
    }

    fn config(&self) -> ResilientConfigBuilder {
        let (begun, invited) = (Arc::clone(&self.begun), Arc::clone(&self.invited));
        let throttled = AtomicUsize::new(0);
        let count = move |event: &Event<'_>| match event {
            Event::AttemptEnded(it) => {
                let is = it.status() == Some(http::StatusCode::TOO_MANY_REQUESTS);
                throttled.store(usize::from(is), Ordering::Relaxed);
            }
            Event::AttemptStarted(it) if it.attempt > 1 => {
                invited.fetch_add(throttled.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
            _ => {}
        };
        let budget = BudgetConfig::default().size(10).deposit(0.0).retry_deposit(0.0).trickle(0.0);
        let budget = RetryBudget::shared(budget);
        quick()
            .circuit_breaker(self.breaker.clone())
            .retry_budget(budget)
            .on_event(count)
            .on_request(move |it| {
                begun.fetch_add(usize::from(it.attempt > 1), Ordering::Relaxed);
            })
    }

    /// No permit is out, and each retry that was begun is paid for, unless the server invited it.
    #[track_caller]
    fn check(&self) {
        let now = Instant::now();
        assert_eq!(self.breaker.snapshot(now).permits_out, 0);
        let paid = (10.0 - self.hosts.budget_left("", now).unwrap_or(10.0)) as usize;
        let begun = self.begun.load(Ordering::Relaxed);
        let invited = self.invited.load(Ordering::Relaxed);
        assert_eq!(paid + invited, begun, "{paid} paid, {invited} invited of {begun} retries");
    }
}

/// A body in two pieces, which takes a moment to make and to read.
fn upload() -> BodyFactory {
    BodyFactory::new(async || {
        tokio::task::yield_now().await;
        let pieces = ["up", "load"].map(|it| Ok::<_, std::io::Error>(Bytes::from(it)));
        Ok(Body::wrap_stream(futures_util::stream::iter(pieces)))
    })
}
