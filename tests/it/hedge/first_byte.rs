//! Races that go on until the first byte of the body.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::{StreamExt, stream};
use http::Extensions;
use reqwest::{Body, Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_resilient::testing::Reply;
use reqwest_resilient::{Hedge, HostStates, Limit, Resilient, ResponseExt};
use tokio::time::{Instant, sleep};

use super::{after, client, hedge, hedged, ms};
use crate::support::inside::does;
use crate::support::{URL, idle_client, scripted_on};

/// Returns a head at once, whose body falls silent before its first byte.
fn silent(status: u16) -> Reply {
    Reply::status(status).body("never").body_stalls_after(0)
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_head_wins_no_race_that_goes_on_until_the_first_byte() {
    let good = || after(10, 200).body("good");
    let (by_head, script) = client(hedged(hedge()), [silent(200), good()]);
    by_head.get(URL).send().await.unwrap();
    assert_eq!(script.sent().len(), 1, "the head is all that counts");

    let (by_byte, script) = client(hedged(hedge().until_first_byte()), [silent(200), good()]);
    let start = Instant::now();
    let response = by_byte.get(URL).send().await.unwrap();
    assert!(response.hedge_won());
    assert_eq!((start.elapsed(), script.sent().len()), (ms(110), 2));
    assert_eq!(response.content_length(), Some(4));
    assert_eq!(response.text().await.unwrap(), "good");
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_body_that_breaks_before_its_first_byte_is_retried() {
    let broken = Reply::status(200).body("half of it").body_breaks_after(0);
    let replies = [broken, Reply::status(200).body("whole")];
    let (client, _) = client(hedged(hedge().until_first_byte()), replies);
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.attempts(), 2);
    assert_eq!(response.text().await.unwrap(), "whole");
}

#[tokio::test(start_paused = true)]
async fn rule_16_the_head_ends_the_race_where_the_body_is_empty_or_the_status_no_success() {
    for reply in [Reply::status(204), Reply::status(200), silent(404)] {
        let (client, script) = client(hedged(hedge().until_first_byte()), [reply]);
        let start = Instant::now();
        client.get(URL).send().await.unwrap();
        assert_eq!((start.elapsed(), script.sent().len()), (ms(0), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_the_permit_of_a_body_is_free_with_its_last_byte() {
    for hedge in [hedge(), hedge().until_first_byte()] {
        let (hosts, config) = (HostStates::new(), hedged(hedge).concurrency_limit(Limit::fixed(1)));
        let replies = [Reply::status(200).body("all of it")];
        let (client, _) = scripted_on(&hosts, config.build().unwrap(), replies);
        let in_use = || hosts.limit_use(URL).unwrap().in_flight;
        let mut response = client.get(URL).send().await.unwrap();
        assert_eq!(in_use(), 1);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "all of it");
        assert_eq!(in_use(), 0, "the response is still there");
        assert!(response.chunk().await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_an_empty_frame_is_no_first_byte() {
    let sends = AtomicUsize::new(0);
    let server = does(move |_, _, _| {
        let pause = if sends.fetch_add(1, SeqCst) == 0 { ms(60_000) } else { ms(10) };
        let empty = stream::iter([Ok::<_, Infallible>("")]);
        let rest = stream::once(async move {
            sleep(pause).await;
            Ok("whole")
        });
        let body = Body::wrap_stream(empty.chain(rest));
        Box::pin(async move { Ok(http::Response::new(body).into()) })
    });
    let resilient = Resilient::new(hedged(hedge().until_first_byte()).build().unwrap());
    let client = ClientBuilder::new(idle_client()).with(resilient).with(server).build();
    let start = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!((start.elapsed(), response.hedge_won()), (ms(110), true));
    assert_eq!(response.text().await.unwrap(), "whole");
}

/// A server whose heads come at once, and its first bytes after 50 ms; from the 101st request on, after
/// a second.
#[derive(Clone, Default)]
struct Model(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Model {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let pause = if self.0.fetch_add(1, SeqCst) < 100 { ms(50) } else { ms(1_000) };
        let words = stream::unfold(0, move |count| async move {
            if count == 0 {
                sleep(pause).await;
            }
            (count < 3).then(|| (Ok::<_, Infallible>(format!("{count} ")), count + 1))
        });
        Ok(http::Response::new(Body::wrap_stream(words)).into())
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_the_time_to_the_first_byte_is_learnt_and_no_byte_is_lost() {
    for (hedge, hedges) in [(Hedge::learned(0.95), 0), (Hedge::learned(0.95).until_first_byte(), 1)]
    {
        let (model, config) = (Model::default(), hedged(hedge).build().unwrap());
        let resilient = Resilient::new(config);
        let client = ClientBuilder::new(idle_client()).with(resilient).with(model.clone()).build();
        for _ in 0..101 {
            let response = client.get(URL).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "0 1 2 ");
        }
        assert_eq!(model.0.load(SeqCst), 101 + hedges);
    }
}
