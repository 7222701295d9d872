//! Connections that the server closed while they were idle.

use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};
use reqwest_resilient::{
    AttemptLog, BudgetConfig, Constant, HostStates, IdempotencyKey, ResponseExt, RetryBudget,
    RetryOverride, StopReason, WaitSource,
};
use tokio::time::Instant;

use super::{ms, plain, quick, resilient, resilient_on};
use crate::support::reply::{End, Fault, Reply, Step};
use crate::support::server::Server;

#[tokio::test]
async fn an_idempotent_request_goes_again_at_once_and_pays() {
    for stale in stale() {
        let after = After::one_answer([stale, Reply::status(200).into()]).await;
        let start = Instant::now();
        let response = after.client.put(after.server.url("/")).body("x").send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.attempts()), (200, 2));
        let wait = &response.history().unwrap().attempts()[0].wait;
        assert_eq!(*wait, Some((ms(0), WaitSource::Immediate)));
        assert!(start.elapsed() < BACKOFF);
        assert_eq!(after.balance(), 1.0);
    }
}

#[tokio::test]
async fn a_second_failure_waits_and_pays() {
    for stale in stale() {
        let after = After::one_answer([stale.clone(), stale, Reply::status(200).into()]).await;
        let quick = RetryOverride::new().backoff(Constant::new(ms(1)));
        let request = after.client.get(after.server.url("/")).with_extension(quick);
        let response = request.send().await.unwrap();
        let waits: Vec<_> =
            response.history().unwrap().attempts().iter().map(|it| it.wait.clone()).collect();
        let expected = [(ms(0), WaitSource::Immediate), (ms(1), WaitSource::Backoff)];
        assert_eq!(waits, [Some(expected[0].clone()), Some(expected[1].clone()), None]);
        assert_eq!(after.balance(), 0.0);
    }
}

#[tokio::test]
async fn a_post_does_not() {
    for stale in stale() {
        let after = After::one_answer([stale, Reply::status(200).into()]).await;
        let log = AttemptLog::new();
        let post = after.client.post(after.server.url("/")).body("once");
        let _ = post.with_extension(log.clone()).send().await;
        assert_eq!(log.history().stop_reason(), Some(StopReason::UnsafeToRepeat));
        assert_eq!((log.attempts(), after.balance()), (1, 2.0));
    }
}

#[tokio::test]
async fn a_post_with_a_key_does() {
    for stale in stale() {
        let after = After::one_answer([stale, Reply::status(200).into()]).await;
        let keyed = RetryOverride::new().idempotency_key(IdempotencyKey::random());
        let post = after.client.post(after.server.url("/")).body("once").with_extension(keyed);
        let statuses = statuses(post).await;
        assert_eq!((statuses.len(), statuses[1]), (2, Some(200)));
        assert_eq!(after.balance(), 1.0);
    }
}

#[tokio::test]
async fn a_connection_is_stale_after_a_wait_too() {
    let close = || Fault::After(0, End::Close).into();
    let after =
        After::one_answer([Reply::status(503).into(), close(), Reply::status(200).into()]).await;
    let quick = RetryOverride::new().backoff(Constant::new(ms(1)));
    let request = after.client.get(after.server.url("/")).with_extension(quick);
    assert_eq!(statuses(request).await, [Some(503), None, Some(200)]);
    // The first retry was paid for.
    assert_eq!(after.balance(), 0.0);
}

#[tokio::test]
async fn what_breaks_off_in_its_body_or_its_stream_was_not_stale() {
    let broken = Reply::status(200).body("hello").cut_body(2, End::Reset);
    let server = Server::h1([broken.into(), Reply::status(200).into()]);
    let client = resilient(quick().read_body(1024), plain());
    assert_waits(client.get(server.url("/"))).await;

    #[cfg(feature = "http2")]
    {
        use crate::support::h2::Stream;

        let reset = Stream::Reset(h2::Reason::INTERNAL_ERROR);
        let server = Server::h2([reset, Reply::status(200).into()]);
        let client = resilient(quick(), super::plain_h2());
        assert_waits(client.get(server.url("/"))).await;
    }
}

async fn assert_waits(request: RequestBuilder) {
    let response = request.send().await.unwrap();
    let wait = &response.history().unwrap().attempts()[0].wait;
    assert_eq!(*wait, Some((ms(1), WaitSource::Backoff)));
}

/// Too long for a test: a request that waits for it is late.
const BACKOFF: std::time::Duration = std::time::Duration::from_secs(5);

/// The ways in which an idle connection turns out to be closed.
fn stale() -> [Step; 4] {
    [
        Fault::After(0, End::Close).into(),
        Fault::After(0, End::Reset).into(),
        Fault::Unanswered(End::Close).into(),
        Reply::status(408).close().into(),
    ]
}

/// A client whose connection to the server has served a request, and whose budget holds one retry.
struct After {
    server: Server,
    client: ClientWithMiddleware,
    hosts: HostStates,
}

impl After {
    async fn one_answer<const N: usize>(steps: [Step; N]) -> Self {
        let server = Server::h1([Reply::status(200).into()].into_iter().chain(steps));
        let budget = BudgetConfig::default().size(2).deposit(0.0).retry_deposit(0.0).trickle(0.0);
        let (hosts, budget) = (HostStates::new(), RetryBudget::shared(budget));
        let config = quick().backoff(Constant::new(BACKOFF)).retry_budget(budget);
        let client = resilient_on(&hosts, config, plain());
        let first = client.get(server.url("/")).send().await.unwrap();
        first.bytes().await.unwrap();
        Self { server, client, hosts }
    }

    fn balance(&self) -> f64 {
        self.hosts.budget_left("", Instant::now()).unwrap()
    }
}

/// Returns the status of each attempt, if there was a response.
async fn statuses(request: RequestBuilder) -> Vec<Option<u16>> {
    let log = AttemptLog::new();
    request.with_extension(log.clone()).send().await.unwrap();
    let statuses = log.history();
    statuses.attempts().iter().map(|it| it.result.ok().map(|it| it.as_u16())).collect()
}
